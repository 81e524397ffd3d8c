"""Animations: frames joined into the vertical strip that libvips' savers expect, with delays and a loop count."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pyvips

# Browsers show a frame of 10 ms or less for 100 ms.
_BROWSER_MIN_MS = 10
# GIF has delays in hundredths of a second.
_GIF_STEP_MS = 10


class Timing(msgspec.Struct, frozen=True):
    """The timing of an animation.

    delays: the duration of each frame in milliseconds.
    loops: how often the animation is played, 0 for endlessly.
    """

    delays: list[int]
    loops: int


def timing(strip: pyvips.Image) -> Timing:
    """Return the timing of an opened animation. A file that states none has frames of 100 ms and loops endlessly, as in browsers."""
    count = strip.get_n_pages()
    delays = [int(delay) for delay in strip.get("delay")] if strip.get_typeof("delay") else []
    delays = (delays + [100] * count)[:count]
    return Timing(delays, int(strip.get("loop")) if strip.get_typeof("loop") else 0)


def with_gif_delays(strip: pyvips.Image) -> pyvips.Image:
    """Return an animation whose delays are rounded by `gif_delays`; an image without delays is returned unchanged."""
    if not strip.get_typeof("delay"):
        return strip
    strip = strip.copy()
    strip.set_type(pyvips.GValue.array_int_type, "delay", gif_delays(strip.get("delay")))
    return strip


def gif_delays(delays: Sequence[int]) -> list[int]:
    """Return delays in milliseconds rounded to multiples of 10.

    Rounding errors are carried to the next frame, so that each frame begins within 5 ms of its time. A delay above 10 ms never becomes 10
    ms or less, because browsers would show the frame for 100 ms.
    """
    rounded: list[int] = []
    carry = 0
    for delay in delays:
        carry += delay
        steps = max((carry + _GIF_STEP_MS // 2) // _GIF_STEP_MS, 2 if delay > _BROWSER_MIN_MS else min(delay, 1))
        rounded.append(steps * _GIF_STEP_MS)
        # The excess of many short frames in a row is not taken from the frame that follows.
        carry = max(carry - steps * _GIF_STEP_MS, -_GIF_STEP_MS // 2)
    return rounded


def join_frames(frames: Sequence[pyvips.Image], frame_timing: Timing) -> pyvips.Image:
    """Return frames of one size below one another, with the fields that libvips' savers read: `page-height`, `delay` and `loop`."""
    strip = pyvips.Image.arrayjoin(list(frames), across=1).copy()
    strip.set_type(pyvips.GValue.gint_type, "page-height", frames[0].height)
    strip.set_type(pyvips.GValue.array_int_type, "delay", frame_timing.delays)
    strip.set_type(pyvips.GValue.gint_type, "loop", frame_timing.loops)
    return strip
