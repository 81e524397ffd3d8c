"""Layered AVIF: pictures that show another layer of their AV1 stream than the last, which libheif does not select. Pillow decodes them."""

from __future__ import annotations

import io

import pyvips

from service.rendering.protocol import ImageError
from service.worker import memory
from service.worker.failures import out_of_memory, undecodable

# There are as many render processes as cores, and every thread takes address space.
_THREADS = 1

_METADATA_FIELDS = ("icc-profile-data", "exif-data", "xmp-data")


def decode(body: memoryview, opened: pyvips.Image) -> pyvips.Image:
    """Return the selected layer of a file, upright and in memory: RGB of 8 bits per band, with alpha if it has any.

    opened: the same file as libvips has opened it, which has the size and the metadata.

    Raises `ImageError`: `broken`, `unsupported`, or `too-costly` if memory does not suffice.
    """
    try:
        pixels = _pixels(body, opened.width, opened.height)
    except (ValueError, KeyError, OSError, RuntimeError, MemoryError) as error:
        cause = f"{type(error).__name__}: {error}"
        raise ImageError(out_of_memory(cause) if memory.is_out_of_memory(cause) else undecodable("avif", cause)) from error
    image = pixels.copy(interpretation="srgb")
    for field in _METADATA_FIELDS:
        if opened.get_typeof(field):
            image.set_type(pyvips.GValue.blob_type, field, opened.get(field))
    return image


def _pixels(body: memoryview, width: int, height: int) -> pyvips.Image:
    # Imported late: few files need it.
    from PIL import AvifImagePlugin, Image, ImageOps  # noqa: PLC0415

    AvifImagePlugin.DEFAULT_MAX_THREADS = _THREADS
    with Image.open(io.BytesIO(body), formats=["AVIF"]) as picture:
        # Pillow states the `irot` and `imir` boxes as an orientation.
        upright = ImageOps.exif_transpose(picture)
    if upright.size != (width, height):
        raise ValueError(f"a layer of {upright.width} x {upright.height} in a picture of {width} x {height}")
    return pyvips.Image.new_from_memory(upright.tobytes(), width, height, {"RGB": 3, "RGBA": 4}[upright.mode], "uchar")
