"""The time that the edge counts by: never back, and on through a suspended machine."""

from __future__ import annotations

import time
from collections.abc import Callable

# The two clocks drift apart by less than this in a day of NTP's slewing; more at once is a leap.
_LEAP_SECONDS = 1.0


class SuspendAwareClock:
    """Seconds that never go back and count the time that a machine was suspended.

    The monotonic clock stands still in a suspended machine, and the wall clock may be set back. This one follows the monotonic
    clock, and leaps ahead with the wall clock: an answer is taken for older than it is rather than for younger.
    """

    def __init__(self, steady: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        """Take the two clocks to read, in seconds."""
        self._steady = steady
        self._wall = wall
        self._between = wall() - steady()
        self._leapt = 0.0

    def __call__(self) -> float:
        """Return the time in seconds since some moment before the start."""
        steady = self._steady()
        ahead = self._wall() - steady - self._between
        if not -_LEAP_SECONDS <= ahead <= _LEAP_SECONDS:
            self._between += ahead
            self._leapt += max(0.0, ahead)
        return steady + self._leapt
