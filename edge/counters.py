"""Counters of what the edge did: plain integers, because counting must cost a hit next to nothing."""

from __future__ import annotations

from bisect import bisect_left

# The counters of requests, in the order of `by_result`. Each request of a client that gets a response is counted once.
RESULTS = ("hits", "stale", "misses", "revalidated", "collapsed", "bypassed", "replayed", "rejected", "refused")

# The upper bounds of the buckets of `LatencyHistogram` in seconds: a hit takes some ten microseconds, and longer if its client is slow.
HIT_BOUNDS_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class CacheCounters:
    """Requests under one metric label and status by result, and what they cost.

    Only the event loop's thread writes; any thread may read.
    """

    __slots__ = (*RESULTS, "evicted", "fetches", "not_modified", "sent_bytes")

    def __init__(self, not_modified: CacheCounters | None = None) -> None:
        """Start at 0.

        Parameters:
            not_modified: The counters of 304 under the same label; by default these counters.
        """
        self.not_modified = not_modified or self
        self.hits = 0
        """Responses from memory that were fresh."""
        self.stale = 0
        """Responses from memory that were stale."""
        self.misses = 0
        """Responses that the origin made for this request, and 504 in place of one for a request that accepts only a stored response."""
        self.revalidated = 0
        """Stored responses that the origin confirmed with 304 for this request."""
        self.collapsed = 0
        """Responses that another client's request had fetched (RFC 9211 §2.7)."""
        self.bypassed = 0
        """Requests that were forwarded unchanged, without a look at the store."""
        self.replayed = 0
        """Requests that belong to another region: replayed there, or refused because it is unreachable."""
        self.rejected = 0
        """Requests that got an error because too many clients were waiting already."""
        self.refused = 0
        """Requests that got an error before the store was looked into, because of what is in them, or because of their client."""
        self.fetches = 0
        """Requests to the origin whose response had this status, also those without a client, which revalidate in the background."""
        self.evicted = 0
        """Stored responses that were evicted to make room."""
        self.sent_bytes = 0
        """Bytes of bodies sent from memory."""

    def by_result(self) -> dict[str, int]:
        """Return the number of requests by how they were answered."""
        return {result: getattr(self, result) for result in RESULTS}


class LatencyHistogram:
    """Durations by size. Only the event loop's thread writes; any thread may read."""

    __slots__ = ("counts", "sum_seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(HIT_BOUNDS_SECONDS) + 1)
        """For each bound, how many durations were up to it and above the one before; at the end, how many were above all bounds."""
        self.sum_seconds = 0.0
        """The sum of all durations in seconds."""

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        # The search takes longer than everything else here, and nearly all hits are within the first bound.
        bucket = 0 if seconds <= HIT_BOUNDS_SECONDS[0] else bisect_left(HIT_BOUNDS_SECONDS, seconds)
        self.counts[bucket] += 1
        self.sum_seconds += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulative counts by upper bound, as Prometheus has them."""
        total, found = 0, []
        for bound, count in zip((*map(str, HIT_BOUNDS_SECONDS), "+Inf"), tuple(self.counts), strict=True):
            total += count
            found.append((bound, float(total)))
        return found
