"""How often the edge did what, by kind of answer: plain numbers, because a hit must not pay for being counted."""

from __future__ import annotations

# The counters of requests: each request adds one to exactly one of these.
RESULTS = ("hits", "stale", "misses", "revalidated", "collapsed", "bypassed", "replayed", "rejected")


class CacheCounters:
    """The requests for one kind of answer by how they were answered. Written in the event loop's thread, read from any."""

    __slots__ = ("bypassed", "collapsed", "evicted", "hits", "misses", "rejected", "replayed", "revalidated", "sent_bytes", "stale")

    def __init__(self) -> None:
        self.hits = 0
        """Answered from memory, fresh."""
        self.stale = 0
        """Answered from memory, stale."""
        self.misses = 0
        """Asked of the origin, whose whole answer came back."""
        self.revalidated = 0
        """Asked of the origin, which said that what is kept still holds."""
        self.collapsed = 0
        """Answered with what another client's request brought."""
        self.bypassed = 0
        """Handed on as they were, nothing looked for."""
        self.replayed = 0
        """Handed on to another region, or refused because that is out of reach."""
        self.rejected = 0
        """Refused, because too many wait already."""
        self.evicted = 0
        """Entries that had to go to make room."""
        self.sent_bytes = 0
        """Of bodies sent from memory."""

    def by_result(self) -> dict[str, int]:
        """Return the number of requests by how they were answered."""
        return {result: getattr(self, result) for result in RESULTS}
