"""HEIC compressed with HEVC, as iPhones write it: decoded by pillow-heif, because libvips' own libheif has no HEVC decoder."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

import pyvips

from service.rendering.protocol import Failure, ImageError
from service.worker import color, memory
from service.worker.bounds import HEIF_PIXEL_BYTES
from service.worker.color_space import SRGB, SRGB_CURVE, ColorSpace
from service.worker.failures import undecodable
from service.worker.formats import isobmff

if TYPE_CHECKING:
    from pillow_heif import HeifImage

# Tiles are decoded in the calling thread: there are as many render processes as cores, and every thread takes address space.
_THREADS = 0

# Mode of a pillow-heif image → number of bands.
_BANDS = {"L": 1, "I": 1, "RGB": 3, "RGBA": 4, "RGBa": 4}
_PREMULTIPLIED = "RGBa"
# The message of libheif for data that libde265 does not decode: because it is broken, or because one of its allocations failed.
_NO_PICTURE = "did not give a decompressed image"
_MAX_LEVEL, _MAX_16_BIT_LEVEL = 255, 65_535


def is_installed() -> bool:
    """Return whether pillow-heif (the extra `heic`) is installed, without loading it."""
    return importlib.util.find_spec("pillow_heif") is not None


def load_library() -> None:
    """Load pillow-heif with libheif and its decoder. Raises `ImportError` if it is not installed."""
    importlib.import_module("pillow_heif")


def check_installed() -> None:
    """Check that HEVC can be decoded. Raises `ImageError`, `unsupported`."""
    if not is_installed():
        raise ImageError(
            Failure(
                "unsupported",
                "This HEIC image is compressed with HEVC, which this server cannot decode.",
                expected="an installation with the extra `heic` (pip install 'darkroom-image-cdn[heic]')",
                received="HEIC with HEVC",
                remedy="Export it as JPEG and send that, or install the extra on the server.",
            )
        )


def decode(body: memoryview) -> pyvips.Image:
    """Return the primary picture of a file, upright and in memory, with its ICC profile.

    The image has height × width × 1, 3 or 4 bands of 8 bits: gray or RGB, with alpha if the file has it. 10 and 12 bits are rounded to 8;
    levels of other curves than sRGB's become 16 bits. libheif has applied the `irot` and `imir` boxes, which take precedence over the Exif
    orientation (ISO/IEC 23008-12 §6.5.10), so the image has no orientation. A gain map is a separate picture and is left out:
    the primary picture is meant for ordinary screens.

    Raises `ImageError`: `broken`, or `too-costly` if memory does not suffice.
    """
    content = bytes(body)
    pixels = 0
    try:
        picture = _open_primary(content)
        pixels = picture.size[0] * picture.size[1]
        _check_complete(content)
        space = isobmff.picture(content).space
        image = _to_vips(picture, space)
    except (ValueError, EOFError, SyntaxError, RuntimeError, IndexError, OSError, MemoryError) as error:
        # pillow-heif raises any of these for a broken file, and several of them when memory is short.
        cause = f"{type(error).__name__}: {error}"
        raise ImageError(_too_costly(cause) if _is_short_of_memory(cause, pixels) else undecodable("heic", cause)) from error
    profile = picture.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        image = color.replace_unusable_profile(color.with_profile(image, profile))
    return image if color.has_profile(image) else color.assign(image, space)


def decode_gain_map(body: memoryview, item: int) -> pyvips.Image:
    """Return a gain map of a file, which is another picture in it: 8 bits per band, one band or three, its levels as they are.

    Raises `pyvips.Error` for anything that does not decode.
    """
    content = isobmff.with_primary(body, item)
    try:
        return _to_vips(_open_primary(content), SRGB)
    except (ValueError, EOFError, SyntaxError, RuntimeError, IndexError, OSError, MemoryError) as error:
        raise pyvips.Error(f"the gain map does not decode: {error!r}") from error


def _open_primary(content: bytes) -> HeifImage:
    # Imported late: it is an extra, which may not be installed.
    import pillow_heif  # noqa: PLC0415

    options = pillow_heif.options
    options.DECODE_THREADS = _THREADS
    # Do not even read these: each could be broken in a hostile file.
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    opened = pillow_heif.open_heif(content, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    return opened[opened.primary_index]


def _check_complete(content: bytes) -> None:
    """Check that all extents of the file's items lie inside the file. Raises `EOFError`.

    libheif would silently leave out the missing tiles of a truncated picture. The item location table is short, since libheif, which limits
    it, has already read it.
    """
    for _, (start, length) in isobmff.extents(content):
        if start + length > len(content):
            raise EOFError(f"a part of it ends at byte {start + length} of {len(content)}")


def _to_vips(picture: HeifImage, space: ColorSpace) -> pyvips.Image:
    """Return the pixels of a picture. Decodes it: its mode and size are reliable only afterwards."""
    pixels = picture.data
    mode, _, bits = picture.mode.partition(";")
    if mode not in _BANDS:
        raise ValueError(f"pixels of mode {picture.mode}")
    width, height = picture.size
    bands = _BANDS[mode]
    if len(pixels) != width * height * bands * (2 if bits else 1):
        raise ValueError(f"{len(pixels)} bytes of {width} x {height} pixels of mode {picture.mode}")
    image = pyvips.Image.new_from_memory(pixels, width, height, bands, "ushort" if bits else "uchar")
    image = image.copy(interpretation="b-w" if bands == 1 else "srgb")
    # Other curves than sRGB's have darker levels than 8 bits could distinguish.
    is_deep = bool(bits) and not picture.info.get("icc_profile") and space.transfer != SRGB_CURVE
    max_level = _MAX_16_BIT_LEVEL if is_deep else _MAX_LEVEL
    if bits:
        # Scaled here, because libheif would truncate the lowest bits.
        image *= max_level / ((1 << int(bits)) - 1)
    if mode == _PREMULTIPLIED:
        image = image.unpremultiply(max_alpha=max_level)
    if is_deep:
        return image.rint().cast("ushort").copy(interpretation="grey16" if bands == 1 else "rgb16")
    return image if image.format == "uchar" else image.rint().cast("uchar")


def _is_short_of_memory(cause: str, pixels: int) -> bool:
    """Return whether a picture did not decode because memory was short. pixels: its width × height."""
    if _NO_PICTURE in cause:
        return not memory.has_space_for(pixels * HEIF_PIXEL_BYTES["heic"][0])
    return memory.is_out_of_memory(cause)


def _too_costly(cause: str) -> Failure:
    return Failure(
        "too-costly",
        "This HEIC image needs more memory to decode than a render may have.",
        remedy="Send a smaller image, or raise DARKROOM_RENDER_MEMORY_BYTES on the server.",
        cause=cause,
        short_of_memory=True,
    )
