"""Loads all codecs before the first job: a library that is loaded later may find no address space left in an older process."""

from __future__ import annotations

import pyvips

from service.images.formats import FORMATS, Format
from service.worker import save
from service.worker.files import open_image
from service.worker.formats import heic, jxl, jxl_library

_SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><text y="8">a</text></svg>'


def load_libraries() -> None:
    """Load the libraries of the extras that are installed. This starts no thread, so that the process can still fork."""
    if heic.is_installed():
        heic.load_library()
    if jxl_library.is_installed():
        jxl_library.load()


def load_codecs() -> list[Format]:
    """Encode and decode a pixel in every format that libvips has, and draw a letter. Return the formats that it writes.

    libvips has the savers of some formats even if their codec is missing.
    """
    pixel = pyvips.Image.black(1, 1, bands=3).cast("uchar").copy(interpretation="srgb")
    writable: list[Format] = []
    for image_format in FORMATS:
        try:
            body = memoryview(save.encode(pixel, image_format, 50))
            writable.append(image_format)
            (jxl.decode if image_format == "jxl" else open_image)(body).copy_memory()
        except pyvips.Error:
            continue
    open_image(memoryview(pixel.tiffsave_buffer(compression="deflate"))).copy_memory()
    pixel.icc_transform("p3", input_profile="srgb").copy_memory()
    if pyvips.type_from_name("VipsForeignLoadSvgBuffer"):
        pyvips.Image.svgload_buffer(_SVG).copy_memory()
    return writable
