"""Counters of what the edge did: plain integers, because counting must cost a hit next to nothing."""

from __future__ import annotations

# The counters of requests, in the order of `by_result`. A revalidation in the background counts as a request of its own.
RESULTS = ("hits", "stale", "misses", "revalidated", "collapsed", "bypassed", "replayed", "rejected")


class CacheCounters:
    """Requests under one metric label by result, and what they cost. Only the event loop's thread writes; any thread may read."""

    __slots__ = (*RESULTS, "evicted", "sent_bytes")

    def __init__(self) -> None:
        self.hits = 0
        """Responses from memory that were fresh."""
        self.stale = 0
        """Responses from memory that were stale."""
        self.misses = 0
        """Requests to the origin that returned a new response."""
        self.revalidated = 0
        """Requests to the origin that confirmed the stored response with 304."""
        self.collapsed = 0
        """Responses that another client's request had fetched (RFC 9211 §2.7)."""
        self.bypassed = 0
        """Requests that were forwarded unchanged, without a look at the store."""
        self.replayed = 0
        """Requests that belong to another region: replayed there, or refused because it is unreachable."""
        self.rejected = 0
        """Requests that got 503 because too many clients were waiting already."""
        self.evicted = 0
        """Stored responses that were evicted to make room."""
        self.sent_bytes = 0
        """Bytes of bodies sent from memory."""

    def by_result(self) -> dict[str, int]:
        """Return the number of requests by how they were answered."""
        return {result: getattr(self, result) for result in RESULTS}
