"""Pillow as a decoder of frames: libvips has no decoder that reads them one after another."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import pyvips
from PIL import Image

# Sizes are checked from the header, before anything is decoded (see `service.worker.bounds`).
Image.MAX_IMAGE_PIXELS = None

_BANDS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


def open_image(body: bytes | memoryview, image_format: str) -> Image.Image:
    """Return the image in `body`, not decoded yet. image_format: Pillow's name of its format. Raises `pyvips.Error`."""
    with translate_errors():
        return Image.open(io.BytesIO(body), formats=[image_format])


@contextmanager
def translate_errors() -> Iterator[None]:
    """Return a context in which the errors of Pillow for a broken file are raised as those of libvips are: as `pyvips.Error`."""
    try:
        yield
    except (OSError, ValueError, SyntaxError, EOFError, RuntimeError, ArithmeticError) as error:
        raise pyvips.Error(repr(error)) from error


def to_vips(image: Image.Image) -> pyvips.Image:
    """Return an image of mode L, LA, RGB or RGBA as one of libvips, in memory."""
    bands = _BANDS[image.mode]
    copied = pyvips.Image.new_from_memory(image.tobytes(), *image.size, bands, "uchar")
    return copied.copy(interpretation="srgb" if bands >= 3 else "b-w")
