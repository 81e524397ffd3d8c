"""HEIC with HEVC, what iPhones take: decoded by pillow-heif, because libvips' own libheif carries no HEVC decoder."""

from __future__ import annotations

import importlib.util
from typing import Any

import pyvips

from service.render.messages import Failure, ImageError

# A codec's threads each reserve address space, and as many processes as cores run already.
_THREADS = 1

_BANDS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "RGBa": 4}
_PREMULTIPLIED = "RGBa"

# What libvips has read of the header, orientation aside: libheif has turned the picture already.
_KEPT_FIELDS = ("exif-", "icc-profile-data", "xmp-data")


def is_installed() -> bool:
    """Return whether pillow-heif is there, the extra `heic`; it is not loaded for that."""
    return importlib.util.find_spec("pillow_heif") is not None


def check_installed() -> None:
    """Return if HEVC can be decoded; raises `ImageError`, `unsupported`."""
    if not is_installed():
        raise ImageError(
            Failure(
                "unsupported",
                "This HEIC image is compressed with HEVC, which this server cannot decode.",
                expected="an installation with the extra `heic` (pip install darkroom[heic])",
                received="HEIC with HEVC",
                remedy="Export it as JPEG and send that, or install the extra on the server.",
            )
        )


def decoded(path: str) -> pyvips.Image:
    """Return the primary picture of the file at `path`, upright, 8 bits, in memory, with its profile and Exif.

    height × width × 1 to 4 bands, grey or RGB, with alpha if the file has it. 10 and 12 bits are rounded to 8 by libheif; of a picture
    with a gain map it is the one for ordinary screens. Raises `ImageError`: `broken`, or `too-costly` where memory does not suffice.
    """
    # Loaded when such a file comes: it takes longer than all else that a render process loads.
    import pillow_heif  # noqa: PLC0415

    pillow_heif.options.DECODE_THREADS = _THREADS
    try:
        opened = pillow_heif.open_heif(path)[0]
        pixels, mode, (width, height), stride = bytes(opened.data), opened.mode, opened.size, opened.stride
    except (MemoryError, OSError) as error:
        raise ImageError(_too_costly(error)) from error
    except (ValueError, EOFError, SyntaxError, RuntimeError, IndexError) as error:
        raise ImageError(_broken(error)) from error
    bands = _BANDS.get(mode)
    if bands is None or len(pixels) < stride * height:
        raise ImageError(_broken(f"mode {mode}, {len(pixels)} bytes"))
    # Lines may be longer than the picture is wide.
    image = pyvips.Image.new_from_memory(pixels, stride // bands, height, bands, "uchar").crop(0, 0, width, height)
    image = image.copy(interpretation="b-w" if bands <= 2 else "srgb")
    if mode == _PREMULTIPLIED:
        image = image.unpremultiply().cast("uchar")
    return _with_header_of(path, image)


def _with_header_of(path: str, image: pyvips.Image) -> pyvips.Image:
    header = pyvips.Image.new_from_file(path, access="sequential")
    image = image.copy()
    for field in header.get_fields():
        if field.startswith(_KEPT_FIELDS) and field != "exif-ifd0-Orientation":
            image.set_type(header.get_typeof(field), field, header.get(field))
    # libvips finds it in the Exif block again: it must not turn what libheif has turned.
    image.remove("orientation")
    return image


def _broken(cause: Any) -> Failure:
    return Failure(
        "broken",
        "This HEIC image is broken or incomplete.",
        expected="a HEIC image that decodes to its end",
        received="one that ends early or holds errors",
        remedy="Check the file, export it again, and send it whole.",
        cause=repr(cause),
    )


def _too_costly(cause: Any) -> Failure:
    return Failure(
        "too-costly",
        "This HEIC image needs more memory to decode than a render may have.",
        remedy="Send a smaller image, or raise DARKROOM_RENDER_MEMORY_BYTES on the server.",
        cause=repr(cause),
    )
