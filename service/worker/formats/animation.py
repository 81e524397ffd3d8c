"""Animations: frames that are decoded one after another, with delays and a loop count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from math import floor
from typing import NamedTuple

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


class Animation(NamedTuple):
    """An animation that is decoded while its frames are used, so that memory does not grow with their number.

    timing: with a delay for each frame.
    frames: returns an iterator of all frames, of one size and one number of bands. Each call decodes from the beginning. Use each frame
        before the next is taken: one decoder reads all of them.
    """

    timing: Timing
    frames: Callable[[], Iterator[pyvips.Image]]

    def map(self, function: Callable[[pyvips.Image], pyvips.Image]) -> Animation:
        """Return the animation whose frames are the results of `function`."""
        return Animation(self.timing, lambda: map(function, self.frames()))


def from_strip(open_strip: Callable[[], pyvips.Image]) -> Animation:
    """Return the animation in a file that libvips reads as a vertical strip of frames.

    open_strip: opens the file with all frames, for sequential access.
    """

    def frames() -> Iterator[pyvips.Image]:
        strip = open_strip()
        height = strip.get_page_height()
        for top in range(0, strip.height, height):
            frame = strip.crop(0, top, strip.width, height).copy()
            frame.remove("page-height")
            frame.remove("n-pages")
            yield frame

    return Animation(timing(open_strip()), frames)


def timing(strip: pyvips.Image) -> Timing:
    """Return the timing of an opened animation. A file that states none has frames of 100 ms and loops endlessly, as in browsers."""
    count = strip.get_n_pages()
    delays = [int(delay) for delay in strip.get("delay")] if strip.get_typeof("delay") else []
    delays = (delays + [100] * count)[:count]
    return Timing(delays, int(strip.get("loop")) if strip.get_typeof("loop") else 0)


def delays_in_ms(delays: Sequence[Fraction]) -> list[int]:
    """Return delays in seconds as whole milliseconds.

    Rounding errors are carried to the next frame, so that each frame begins within half a millisecond of its time. A delay above 10 ms
    never becomes 10 ms, because browsers would show the frame for 100 ms.
    """
    rounded: list[int] = []
    carry = Fraction(0)
    for delay in delays:
        exact = delay * 1000
        carry += exact
        rounded.append(max(floor(carry + Fraction(1, 2)), _BROWSER_MIN_MS + 1 if exact > _BROWSER_MIN_MS else 0))
        carry = max(carry - rounded[-1], Fraction(-1, 2))
    return rounded


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
