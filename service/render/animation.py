"""Animation: frames below one another, as libvips' writers want them, with their delays and loop count."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pyvips


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


def joined(frames: Sequence[pyvips.Image], timed: Timing) -> pyvips.Image:
    """Return frames of one size below one another, with what libvips' writers read: page-height, delay, loop."""
    strip = pyvips.Image.arrayjoin(list(frames), across=1).copy()
    strip.set_type(pyvips.GValue.gint_type, "page-height", frames[0].height)
    strip.set_type(pyvips.GValue.array_int_type, "delay", timed.delays)
    strip.set_type(pyvips.GValue.gint_type, "loop", timed.loops)
    return strip
