"""Frames of a GIF with areas that no frame has painted or that a disposal has cleared.

libvips' decoder fills such areas with the background color, where browsers show what is behind the picture. Each frame is rewritten as a
GIF of its own, which libvips decodes, and drawn on a transparent canvas.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pyvips

from service.worker.fields import copy_fields
from service.worker.formats import gif
from service.worker.formats.gif import Frame

# libvips' decoder refuses such frames too.
_MAX_SIDE_PIXELS = 65_535

_DISPOSE_BACKGROUND, _DISPOSE_PREVIOUS = 2, 3


def decode(body: memoryview, opened: pyvips.Image) -> Iterator[pyvips.Image]:
    """Yield the frames as RGBA, each with the fields of `opened`, the file as libvips has opened it. Raises `pyvips.Error`.

    libvips counts the frames up to the first that it cannot decode.
    """
    width, height = opened.width, opened.get_page_height()
    canvas = _clear(width, height)
    for frame in islice(gif.frames(body), opened.get_n_pages()):
        before = canvas
        canvas = _draw(frame, canvas)
        yield copy_fields(opened, canvas)
        if frame.disposal == _DISPOSE_BACKGROUND:
            canvas = canvas.insert(_clear(frame.width, frame.height), frame.left, frame.top).copy_memory()
        elif frame.disposal == _DISPOSE_PREVIOUS:
            canvas = before


def _draw(frame: Frame, canvas: pyvips.Image) -> pyvips.Image:
    if frame.left + frame.width > _MAX_SIDE_PIXELS or frame.top + frame.height > _MAX_SIDE_PIXELS:
        raise pyvips.Error("a frame lies beyond the largest canvas of a GIF")
    picture = pyvips.Image.new_from_buffer(frame.file, "", access="sequential", fail_on="error").colourspace("srgb")
    width, height = min(frame.width, canvas.width - frame.left), min(frame.height, canvas.height - frame.top)
    if width <= 0 or height <= 0:
        return canvas
    picture = picture.copy_memory().crop(0, 0, width, height)
    if picture.hasalpha():
        picture = picture.extract_band(3).ifthenelse(picture, canvas.crop(frame.left, frame.top, width, height))
    else:
        picture = picture.addalpha()
    return canvas.insert(picture, frame.left, frame.top).copy_memory()


def _clear(width: int, height: int) -> pyvips.Image:
    return pyvips.Image.black(width, height, bands=4).cast("uchar").copy(interpretation="srgb")
