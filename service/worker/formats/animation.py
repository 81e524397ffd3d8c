"""Animation: frames below one another, as libvips' writers want them, with their delays and loop count."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pyvips

# Browsers show what is to be shown for a hundredth of a second or less for ten of them.
_TOO_SHORT_MS = 10
_STEP_MS = 10


class Timing(msgspec.Struct, frozen=True):
    """How long each frame is shown, in milliseconds, and how often the whole is, 0 for ever."""

    delays: list[int]
    loops: int


def timing(strip: pyvips.Image) -> Timing:
    """Return the timing of an opened animation; where a file says nothing, frames of 100 ms, for ever, as browsers show it."""
    count = strip.get_n_pages()
    delays = [int(delay) for delay in strip.get("delay")] if strip.get_typeof("delay") else []
    delays = (delays + [100] * count)[:count]
    return Timing(delays, int(strip.get("loop")) if strip.get_typeof("loop") else 0)


def in_hundredths(strip: pyvips.Image) -> pyvips.Image:
    """Return an animation whose delays are whole hundredths of a second, all that GIF has; what is rounded off one is added to the next."""
    if not strip.get_typeof("delay"):
        return strip
    strip = strip.copy()
    strip.set_type(pyvips.GValue.array_int_type, "delay", rounded_delays(strip.get("delay")))
    return strip


def rounded_delays(delays: Sequence[int]) -> list[int]:
    """Return delays, in milliseconds, in steps of 10 whose sum is within half a step of theirs at every frame.

    But none above 10 becomes 10 or less: it would be shown for far longer.
    """
    rounded: list[int] = []
    owed = 0
    for delay in delays:
        owed += delay
        steps = max((owed + _STEP_MS // 2) // _STEP_MS, 2 if delay > _TOO_SHORT_MS else min(delay, 1))
        rounded.append(steps * _STEP_MS)
        # What a whole row of frames was too long is not taken off the next one.
        owed = max(owed - steps * _STEP_MS, -_STEP_MS // 2)
    return rounded


def joined(frames: Sequence[pyvips.Image], timed: Timing) -> pyvips.Image:
    """Return frames of one size below one another, with what libvips' writers read: page-height, delay, loop."""
    strip = pyvips.Image.arrayjoin(list(frames), across=1).copy()
    strip.set_type(pyvips.GValue.gint_type, "page-height", frames[0].height)
    strip.set_type(pyvips.GValue.array_int_type, "delay", timed.delays)
    strip.set_type(pyvips.GValue.gint_type, "loop", timed.loops)
    return strip
