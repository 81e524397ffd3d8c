"""A clock that neither goes back nor stands still while the machine is suspended.

Ages of stored responses are differences of two readings of one clock. Python offers two clocks, and each is wrong for this:

- `time.monotonic` never goes back, but stands still while the machine is suspended (Fly suspends an idle Machine, a laptop is closed).
  After a night's sleep, a response that was fresh for a minute would still be fresh.
- `time.time` counts the night, but an administrator or NTP may set it at any moment: forward, or back.

`SuspendAwareClock` follows the monotonic clock and watches how far the wall clock is ahead of it. It has no modes, only two numbers:

- the **offset**: wall clock minus monotonic clock, when they were last compared and found to have jumped (at first: at the start);
- the **skipped seconds**: the sum of all forward jumps of the wall clock so far.

Each reading compares the two clocks, and one of three things happens:

1. The offset changed by a second or less: that is drift, or NTP slewing the wall clock. Nothing changes. The drift is not forgotten: it
   adds up until it is more than a second and then counts as a jump.
2. The wall clock jumped ahead: the machine was suspended, or somebody set the clock. Both look the same from inside the process. The
   jump is added to the skipped seconds, so readings jump along.
3. The wall clock jumped back: somebody set it. Readings go on as if nothing had happened, and the offset remembers the new difference.

A caller therefore sees seconds that never decrease, at the rate of the monotonic clock, with jumps ahead.

What is awkward: a wall clock that is set forward and then back by an hour has aged every stored response by an hour. That is the
intended side to err on: a response that is considered too old is revalidated; one that is considered too young would be served after it
may have been taken down.

What to beware of:

- A reading means nothing by itself: compare it only with other readings of the same instance, in the same process.
- A jump is noticed at a reading, not when it happens. Timers (`asyncio.sleep`, `asyncio.timeout`) use the monotonic clock and do not
  notice it at all.
- A suspend during which somebody sets the wall clock back by the same time is invisible. Nothing in the process could show it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# NTP's slewing moves the two clocks apart by less than this in a day. A larger difference is a jump.
_JUMP_SECONDS = 1.0


class SuspendAwareClock:
    """Seconds that never decrease and include the time for which the machine was suspended."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        """Combine two clocks.

        Parameters:
            monotonic: Returns seconds that never decrease; it may stand still while the machine is suspended.
            wall: Returns the Unix time in seconds; it may be set to any value at any moment.
        """
        self._monotonic = monotonic
        self._wall = wall
        self._offset = wall() - monotonic()
        self._skipped_seconds = 0.0

    def now(self) -> float:
        """Return the time in seconds since an arbitrary moment before the start."""
        monotonic = self._monotonic()
        jump = self._wall() - monotonic - self._offset
        if abs(jump) > _JUMP_SECONDS:
            self._offset += jump
            self._skipped_seconds += max(0.0, jump)
        return monotonic + self._skipped_seconds
