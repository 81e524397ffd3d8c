"""How often the edge did what, by kind of answer: plain numbers, because a hit must not pay for being counted."""

from __future__ import annotations


class Count:
    """The requests for one kind of answer by how they were answered. Written in the event loop's thread, read from any."""

    __slots__ = ("busy", "bytes", "collapsed", "elsewhere", "evicted", "hits", "misses", "passed", "revalidated", "stale")

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
        self.passed = 0
        """Handed on as they were, nothing looked for."""
        self.elsewhere = 0
        """Handed on to another region, or refused because that is out of reach."""
        self.busy = 0
        """Refused, because too many wait already."""
        self.evicted = 0
        """Entries that had to go to make room."""
        self.bytes = 0
        """Of bodies sent from memory."""
