"""What an original is: found from its content, checked against the limits before a pixel is decoded."""

from __future__ import annotations

import msgspec
import pyvips

from service.images.info import ImageInfo, Limits
from service.rendering.protocol import Failure, ImageError
from service.worker import bounds, memory, vips_errors
from service.worker.files import load
from service.worker.formats import heic, svg, tiff

# The loaders that are offered; every other one is blocked, so that no exotic parser ever sees a stranger's bytes.
# libvips' class → the format's name in documents. Ultra HDR JPEGs go to the plain JPEG loader: their base picture is the right SDR one.
LOADERS = {
    "VipsForeignLoadJpeg": "jpeg",
    "VipsForeignLoadPng": "png",
    "VipsForeignLoadWebp": "webp",
    "VipsForeignLoadNsgif": "gif",
    "VipsForeignLoadHeif": "avif",
    "VipsForeignLoadTiff": "tiff",
}
# A vector image is given to libvips sanitised, from memory: a file would be read as it came, with its neighbours.
_SVG_LOADER = "VipsForeignLoadSvgBuffer"

# A decoder of these cannot go line by line.
_WHOLE_FORMATS = frozenset({"webp", "gif", "avif", "heic", "tiff"})

# Formats whose pages may be of different sizes.
_PAGED_FORMATS = frozenset({"tiff", "avif"})

# An SVG shows itself within so many bytes.
_BEGINNING_BYTES = 4_096

# Orientations that lie on their side (Exif 2.32, tag 0x0112).
_SIDEWAYS_ORIENTATIONS = range(5, 9)

# Only to say what came instead of an image; what is accepted is decided by libvips.
_KNOWN_BEGINNINGS = (
    (b"%PDF", "a PDF document"),
    (b"<svg", "an SVG image"),
    (b"<?xml", "an XML document, perhaps an SVG image"),
    (b"<!DOCTYPE", "an HTML document"),
    (b"<html", "an HTML document"),
    (b"{", "perhaps JSON"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"BM", "perhaps a BMP image"),
)


def allow_only_offered_loaders() -> None:
    """Block every loader of libvips but `LOADERS`, for the whole process."""
    pyvips.operation_block_set("VipsForeignLoad", True)
    for loader in (*LOADERS, _SVG_LOADER):
        pyvips.operation_block_set(loader, False)


def offered() -> list[str]:
    """Return the formats of originals that the running libvips reads."""
    read = [name for loader, name in LOADERS.items() if pyvips.type_from_name(loader + "Source")]
    heic_read = ["heic"] if "avif" in read and heic.is_installed() else []
    return read + heic_read + (["svg"] if pyvips.type_from_name(_SVG_LOADER) else [])


def probe(body: memoryview, limits: Limits, *, uploaded: bool = False) -> ImageInfo:
    """Return what the header of a file tells, of which `body` is all.

    `uploaded`: whether the file is new, so that `max_width` is needed: it takes several estimates, and a render makes its own.

    Raises `ImageError`: `unsupported`, `broken`, `too-many-pixels` where the header declares more than `limits` allow, or `too-complex`.
    """
    beginning = bytes(body[:_BEGINNING_BYTES])
    if svg.is_svg(beginning):
        width, height, max_width = svg.measured(bytes(body)) if uploaded else (*svg.size(svg.sanitised(bytes(body))), None)
        info = ImageInfo("svg", width, height, 1, alpha=True, needs_full_decode=True, max_width=max_width)
        _check_size(info, limits)
        return info
    bounds.check(body, limits)
    image, image_format = _open(body, beginning, limits)
    if image_format == "avif" and _text(image, "heif-compression") == "hevc":
        image_format = "heic"
    width, height = _upright_size(image)
    whole = image_format in _WHOLE_FORMATS or bool(_number(image, "interlaced", 0))
    # Of several pictures in a HEIC the primary one is meant.
    frames = 1 if image_format == "heic" else _number(image, "n-pages", 1)
    info = ImageInfo(image_format, width, height, frames, bool(image.hasalpha()), whole)
    _check_size(info, limits)
    if image_format in {"avif", "heic"}:
        bounds.check_heif(image_format, width * height, body, limits, deep=image.format == "ushort")
    if image_format in _PAGED_FORMATS and frames > 1:
        info = msgspec.structs.replace(info, page_sizes=_page_sizes(body, image_format, frames))
        _check_size(info, limits)
    if image_format == "heic":
        heic.check_installed()
    return info


def _open(body: memoryview, beginning: bytes, limits: Limits) -> tuple[pyvips.Image, str]:
    found = pyvips.vips_lib.vips_foreign_find_load_source(pyvips.Source.new_from_memory(body).pointer)
    # Loaders that looked at the file and declined may have left a message.
    vips_errors.clear()
    loader = "" if found == pyvips.ffi.NULL else pyvips.ffi.string(found).decode("ascii")
    image_format = next((name for prefix, name in LOADERS.items() if loader.startswith(prefix)), None)
    if image_format is None and beginning[4:12] == b"ftypavis":
        raise ImageError(unread_animation("avif"))
    if image_format is None:
        raise ImageError(
            Failure(
                "unsupported",
                "These bytes are no image of a format that is taken.",
                expected=", ".join(offered()).upper(),
                received=_describe(beginning),
                remedy="Send the image file itself; with curl: --data-binary @photo.jpg.",
            )
        )
    try:
        return load(body, access="sequential"), image_format
    except pyvips.Error as error:
        # WebP's loader makes room for a whole frame before the header can be looked at.
        raise ImageError(_too_large_to_open(limits, error) if memory.ran_out(str(error)) else broken(image_format, error)) from error


def _page_sizes(body: memoryview, image_format: str, pages: int) -> tuple[tuple[int, int], ...]:
    """Return width and height of each page, upright, where they differ, else nothing; raises `ImageError`, `broken`."""
    try:
        if image_format == "tiff":
            sizes = tiff.page_sizes(body, pages)
        else:
            sizes = [_upright_size(load(body, page=page, access="sequential")) for page in range(pages)]
    except (pyvips.Error, ValueError) as error:
        raise ImageError(broken(image_format, str(error))) from error
    return tuple(sizes) if len(set(sizes)) > 1 else ()


def _upright_size(image: pyvips.Image) -> tuple[int, int]:
    width, height = image.width, image.get_page_height()
    return (height, width) if _number(image, "orientation", 1) in _SIDEWAYS_ORIENTATIONS else (width, height)


def broken(image_format: str, error: pyvips.Error | str) -> Failure:
    """Return why an image that began well could not be decoded: libvips' own words go to the log only."""
    return Failure(
        "broken",
        f"This {image_format.upper()} image is broken or incomplete.",
        expected=f"a {image_format.upper()} image that decodes to its end",
        received="one that ends early or holds errors",
        remedy="Check the file, export it again, and send it whole.",
        cause=str(error),
    )


def unread_animation(image_format: str) -> Failure:
    """Return that a file is an animation of a format that is taken for stills alone."""
    return Failure(
        "unsupported",
        f"Of {image_format.upper()} stills are taken: this one is an animation.",
        expected="an animation as GIF or WebP, or a still",
        received=f"an animated {image_format.upper()}",
        remedy="Export the animation as WebP or GIF, or its first frame alone, and send that.",
    )


def _too_large_to_open(limits: Limits, error: pyvips.Error) -> Failure:
    return Failure(
        "too-many-pixels",
        "The image declares more pixels than a render has memory for.",
        expected=f"at most {limits.max_whole_pixels} pixels",
        remedy="Make it smaller before sending it, or raise DARKROOM_RENDER_MEMORY_BYTES on the server.",
        cause=str(error),
        short_of_memory=True,
    )


def _check_size(info: ImageInfo, limits: Limits) -> None:
    bounds.check_frames(info.frames, limits)
    limit = limits.max_whole_pixels if info.needs_full_decode else limits.max_pixels
    if info.pixels <= limit:
        return
    kind = "of this kind, which decodes as a whole" if info.needs_full_decode else "in all frames together"
    raise ImageError(
        Failure(
            "too-many-pixels",
            "The image has more pixels than are taken.",
            expected=f"at most {limit} pixels {kind}",
            received=f"{info.width} x {info.height} pixels x {info.frames} frames = {info.pixels}",
            remedy="Make it smaller before sending it, or raise DARKROOM_MAX_PIXELS and DARKROOM_MAX_WHOLE_PIXELS on the server.",
        )
    )


def _describe(beginning: bytes) -> str:
    for signature, what in _KNOWN_BEGINNINGS:
        if beginning.lstrip().startswith(signature):
            return what
    return f"bytes that begin {beginning[:12].hex(' ')}"


def _text(image: pyvips.Image, name: str) -> str:
    return str(image.get(name)) if image.get_typeof(name) else ""


def _number(image: pyvips.Image, name: str, default: int) -> int:
    return int(image.get(name)) if image.get_typeof(name) else default
