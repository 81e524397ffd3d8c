"""Wrong tokens and forged signatures: counted for each client, and beyond a limit refused before anything is done for them.

Only requests that fail count, and only those are refused: whoever shares an address with an attacker, behind one NAT, is never locked out.
The credentials of a client beyond the limit are checked before its request reaches the edge's places and the framework, which takes some
microseconds. Clients below it pay nothing. The limit does not protect tokens from being guessed, which their length does; it keeps somebody
who tries many of them, or walks through forged URLs, from taking time from others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

from cachetools import TTLCache

Kind: TypeAlias = Literal["token", "signature"]

# A page with stale signatures has dozens of them. After so many failures at once, a client may fail once a second.
MAX_FAILURES = 60
FAILURES_PER_SECOND = 1.0

# The clients that are remembered. An attacker with more addresses than this makes the limit forget, and locks nobody out.
MAX_CLIENTS = 4_096


class Failures:
    """The recent failures of each client, as a bucket that leaks: `MAX_FAILURES` deep, emptied at `FAILURES_PER_SECOND`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without failures; `clock` returns seconds that never go back."""
        self._clock = clock
        # After this time without a failure, any bucket is empty.
        self._buckets: TTLCache[str, tuple[float, float]] = TTLCache(MAX_CLIENTS, MAX_FAILURES / FAILURES_PER_SECOND, timer=clock)
        self.failed: dict[Kind, int] = dict.fromkeys(get_args(Kind), 0)
        """How many requests have failed, by the kind of their credentials."""
        self.refused = 0
        """How many requests were refused because their client was beyond the limit."""

    def __repr__(self) -> str:
        return f"<Failures of {len(self._buckets)} clients>"

    def __bool__(self) -> bool:
        """Return whether any client has failed recently."""
        return len(self._buckets) > 0

    def add(self, client: str | None, kind: Kind) -> None:
        """Count a failure. One of a client that is not known counts for nobody."""
        self.failed[kind] += 1
        if client is not None:
            self._buckets[client] = (self._level(client) + 1, self._clock())

    def retry_after_seconds(self, client: str | None) -> int:
        """Return after how many seconds a client may fail again, 0 for now."""
        level = 0.0 if client is None else self._level(client)
        return max(0, math.ceil((level + 1 - MAX_FAILURES) / FAILURES_PER_SECOND))

    def _level(self, client: str) -> float:
        level, since = self._buckets.get(client, (0.0, 0.0))
        return max(0.0, level - (self._clock() - since) * FAILURES_PER_SECOND)
