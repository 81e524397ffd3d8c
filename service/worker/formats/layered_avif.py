"""Layered AVIF: pictures that show another layer of their AV1 stream than the last, which libheif does not select. Pillow decodes them."""

from __future__ import annotations

import pyvips
from PIL import AvifImagePlugin, ImageOps

from service.worker import pillow

# There are as many render processes as cores, and every thread takes address space.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

_PROFILE = "icc-profile-data"


def decode(body: memoryview, opened: pyvips.Image) -> pyvips.Image:
    """Return the selected layer of a file, upright and in memory: RGB of 8 bits per band, with alpha if it has any. Raises `pyvips.Error`.

    opened: the same file as libvips has opened it, which has the size and the ICC profile.
    """
    with pillow.open_image(body, "AVIF") as picture, pillow.translate_errors():
        # Pillow states the `irot` and `imir` boxes as an orientation.
        image = pillow.to_vips(ImageOps.exif_transpose(picture))
    if (image.width, image.height) != (opened.width, opened.height):
        raise pyvips.Error(f"a layer of {image.width} x {image.height} in a picture of {opened.width} x {opened.height}")
    if opened.get_typeof(_PROFILE):
        image.set_type(pyvips.GValue.blob_type, _PROFILE, opened.get(_PROFILE))
    return image
