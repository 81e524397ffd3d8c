"""HEIC with HEVC, what iPhones take: decoded by pillow-heif, because libvips' own libheif carries no HEVC decoder."""

from __future__ import annotations

import importlib
import importlib.util
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyvips

from service.rendering.protocol import Failure, ImageError
from service.worker import color, memory
from service.worker.formats import hdr, isobmff

if TYPE_CHECKING:
    from pillow_heif import HeifImage

# Tiles are decoded in the calling thread: as many render processes as cores run already, and every thread takes address space.
_THREADS = 0

# pillow-heif's name of a picture's bands → how many they are.
_BANDS = {"L": 1, "I": 1, "RGB": 3, "RGBA": 4, "RGBa": 4}
_PREMULTIPLIED = "RGBa"
_MOST, _MOST_OF_16_BITS = 255, 65_535

# Where pillow-heif gives metadata → where libvips keeps it.
_COLOUR_FIELDS = ("color_primaries", "transfer_characteristics")
_METADATA = {"icc_profile": "icc-profile-data", "exif": "exif-data", "xmp": "xmp-data"}


def is_installed() -> bool:
    """Return whether pillow-heif is there, the extra `heic`; it is not loaded for that."""
    return importlib.util.find_spec("pillow_heif") is not None


def load_library() -> None:
    """Load pillow-heif with libheif and its decoder; raises `ImportError` where it is not installed."""
    importlib.import_module("pillow_heif")


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


def decoded(body: memoryview) -> pyvips.Image:
    """Return the primary picture of a file, upright, 8 bits a band, in memory, with its profile, Exif and XMP.

    height × width × 1, 3 or 4 bands: grey, or RGB, with alpha if the file has it. It has no orientation: libheif has turned and mirrored
    it as the file's `irot` and `imir` boxes say, which stand above Exif (ISO/IEC 23008-12 §6.5.10). 10 and 12 bits are rounded, or
    where they are PQ (see `hdr`) made 16. A gain map, a picture beside the primary one, is left out: what remains is meant for ordinary
    screens. Raises `ImageError`: `broken`, or `too-costly` where memory does not suffice.
    """
    source = bytes(body)
    try:
        picture = _primary(source)
        _check_whole(source)
        image = _image(picture)
    except (ValueError, EOFError, SyntaxError, RuntimeError, IndexError, OSError, MemoryError) as error:
        # pillow-heif raises any of these for a file that is broken, and more than one of them for want of memory.
        raise ImageError(_too_costly(error) if memory.ran_out(repr(error)) else _broken(error)) from error
    return _with_metadata(image, picture)


def _primary(source: bytes) -> HeifImage:
    # An extra, which may not be installed.
    import pillow_heif  # noqa: PLC0415

    options = pillow_heif.options
    options.DECODE_THREADS = _THREADS
    # Not even read: each is one thing more that a hostile file could have wrong.
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    opened = pillow_heif.open_heif(source, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    return opened[opened.primary_index]


def _check_whole(source: bytes) -> None:
    """Return if all that the file's table of contents names lies inside the file; raises `EOFError`.

    Of a picture in tiles, which is how iPhones write it, libheif would leave out what is missing, without a word. It has read the table
    by now, so that this is a short one.
    """
    for end in _ends(source):
        if end > len(source):
            raise EOFError(f"a part of it ends at byte {end} of {len(source)}")


def _ends(source: bytes) -> Iterator[int]:
    """Yield where the extents in the file end, as its `iloc` box says (ISO/IEC 14496-12 §8.11.3)."""
    meta = isobmff.first(source, b"meta")
    # Four bytes of version and flags come before what is in it.
    table = io.BytesIO(isobmff.first(meta[4:], b"iloc"))

    def number(size: int) -> int:
        return int.from_bytes(table.read(size), "big")

    version = number(4) >> 24
    sizes = number(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    id_size = 4 if version == 2 else 2
    for _ in range(number(id_size)):
        number(id_size)
        in_file = version == 0 or number(2) & 15 == 0
        number(2)
        base = number(base_size)
        for _ in range(number(2)):
            if version > 0:
                number(index_size)
            end = base + number(offset_size) + number(length_size)
            if in_file:
                yield end


def _image(picture: HeifImage) -> pyvips.Image:
    """Return the pixels, decoded now; what they are is known after that only."""
    pixels = picture.data
    kind, _, bits = picture.mode.partition(";")
    if kind not in _BANDS:
        raise ValueError(f"pixels of mode {picture.mode}")
    width, height = picture.size
    image_format = "ushort" if bits else "uchar"
    bands = _BANDS[kind]
    if len(pixels) != width * height * bands * (2 if bits else 1):
        raise ValueError(f"{len(pixels)} bytes of {width} x {height} pixels of mode {picture.mode}")
    image = pyvips.Image.new_from_memory(pixels, width, height, bands, image_format)
    image = image.copy(interpretation="b-w" if bands == 1 else "srgb")
    # What is said of the colours counts where there is no profile.
    found: dict[str, Any] = dict(picture.info)
    primaries, transfer = ((found.get("nclx_profile") or {}).get(name, 0) for name in _COLOUR_FIELDS)
    is_pq = transfer == hdr.PQ and bool(bits) and bands >= 3 and not found.get("icc_profile")
    most = _MOST_OF_16_BITS if is_pq else _MOST
    if bits:
        # libheif itself would cut the lowest bits off.
        image *= most / ((1 << int(bits)) - 1)
    if kind == _PREMULTIPLIED:
        image = image.unpremultiply(max_alpha=most)
    if is_pq:
        return hdr.marked(image.rint().cast("ushort").copy(interpretation="rgb16"), primaries)
    if primaries == color.DISPLAY_P3_PRIMARIES and bands >= 3:
        image = color.in_display_p3(image)
    return image if image.format == "uchar" else image.rint().cast("uchar")


def _with_metadata(image: pyvips.Image, picture: HeifImage) -> pyvips.Image:
    from pillow_heif import set_orientation  # noqa: PLC0415

    found: dict[str, Any] = dict(picture.info)
    # Exif and XMP often repeat how the camera was held, which libheif has seen to.
    set_orientation(found)
    image = image.copy()
    for name, field in _METADATA.items():
        if found.get(name):
            image.set_type(pyvips.GValue.blob_type, field, found[name])
    for field in ("orientation", "exif-ifd0-Orientation"):
        # libvips has read them of the Exif.
        if image.get_typeof(field):
            image.remove(field)
    return image


def _broken(cause: object) -> Failure:
    return Failure(
        "broken",
        "This HEIC image is broken or incomplete.",
        expected="a HEIC image that decodes to its end",
        received="one that ends early or holds errors",
        remedy="Check the file, export it again, and send it whole.",
        cause=repr(cause),
    )


def _too_costly(cause: object) -> Failure:
    return Failure(
        "too-costly",
        "This HEIC image needs more memory to decode than a render may have.",
        remedy="Send a smaller image, or raise DARKROOM_RENDER_MEMORY_BYTES on the server.",
        cause=repr(cause),
        short_of_memory=True,
    )
