"""The places of clients that wait for the origin, and how clients share them.

A client may have at most `MISSES_PER_FREE_SLOT` times as many places as are still free, and one place in any case as long as there is one.
This threshold moves with the load (A. K. Choudhury and E. L. Hahne, "Dynamic queue length thresholds for shared-memory packet switches",
IEEE/ACM Transactions on Networking 6(2), 1998): a single client gets two thirds of all places, two greedy ones get two fifths each, three
get two sevenths, and there is always room for another client that wants a few. A fixed share would waste places when few clients want any.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

MISSES_PER_FREE_SLOT = 2

# Why a client gets no place: there is none, or it has its share.
Refusal: TypeAlias = Literal["full", "share"]


class MissSlots:
    """The places of one edge. A place without a client (None) counts for none."""

    def __init__(self, total: int, shared: int | None = None) -> None:
        """Start with all places free.

        Parameters:
            total: The number of places.
            shared: The number that thresholds are computed from, at most `total`: how many the origin can really serve.
        """
        self.total = total
        self._shared = total if shared is None else min(shared, total)
        self.in_use = 0
        self._by_client: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.in_use} of {self.total}, {len(self._by_client)} clients>"

    def take(self, client: str | None) -> Refusal | None:
        """Take a place for a client, or return why it gets none."""
        if self.in_use >= self.total:
            return "full"
        if client is not None:
            taken = self._by_client.get(client, 0)
            if taken >= max(1, MISSES_PER_FREE_SLOT * (self._shared - self.in_use)):
                return "share"
            self._by_client[client] = taken + 1
        self.in_use += 1
        return None

    def release(self, client: str | None) -> None:
        """Free a place that the client has."""
        self.in_use -= 1
        if client is not None:
            left = self._by_client[client] - 1
            if left:
                self._by_client[client] = left
            else:
                del self._by_client[client]
