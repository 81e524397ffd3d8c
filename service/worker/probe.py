"""Probing: identifies an original by its content and reads its header, checking it against the limits before any pixel is decoded."""

from __future__ import annotations

import msgspec
import pyvips

from service.images.info import ImageInfo, Limits
from service.rendering.protocol import Failure, ImageError
from service.worker import bounds, color, gain_map, memory, vips_errors
from service.worker.failures import broken_animation, undecodable
from service.worker.files import open_image
from service.worker.formats import apng, avif_sequence, gif, heic, isobmff, jxl, png, svg, tiff, tiff_colors
from service.worker.orientation import orientation_of, upright_size

# The loaders that may be used, libvips' class → our name of the format; all others are blocked, so that no exotic parser reads untrusted
# bytes. Ultra HDR JPEGs are read by the plain JPEG loader, which gives their SDR base picture; for the gain map see `gain_map`.
LOADERS = {
    "VipsForeignLoadJpeg": "jpeg",
    "VipsForeignLoadPng": "png",
    "VipsForeignLoadWebp": "webp",
    "VipsForeignLoadNsgif": "gif",
    "VipsForeignLoadHeif": "avif",
    "VipsForeignLoadTiff": "tiff",
}
# SVG is loaded from memory only, after it was sanitized.
_SVG_LOADER = "VipsForeignLoadSvgBuffer"

# Formats whose decoders hold the whole picture in memory. Progressive JPEG and interlaced PNG need that too.
_FULL_DECODE_FORMATS = frozenset({"webp", "gif", "avif", "heic", "tiff"})

# Formats whose pages may differ in size.
_PAGED_FORMATS = frozenset({"tiff", "avif"})

# The bytes that describe a file that is not accepted.
_BEGINNING_BYTES = 4_096

# Used only to describe files that are not accepted; libvips decides which ones are.
_KNOWN_SIGNATURES = (
    (b"%PDF", "a PDF document"),
    (b"<svg", "an SVG image"),
    (b"<?xml", "an XML document, perhaps an SVG image"),
    (b"<!DOCTYPE", "an HTML document"),
    (b"<html", "an HTML document"),
    (b"{", "perhaps JSON"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"BM", "perhaps a BMP image"),
)


def block_unused_loaders() -> None:
    """Block every libvips loader that is not in `LOADERS`, in the whole process."""
    pyvips.operation_block_set("VipsForeignLoad", True)
    for loader in (*LOADERS, _SVG_LOADER):
        pyvips.operation_block_set(loader, False)


def readable_formats() -> list[str]:
    """Return the formats of originals that the running libvips, and pillow-heif and libjxl if they are installed, read."""
    formats = [name for loader, name in LOADERS.items() if pyvips.type_from_name(loader + "Source")]
    heic_formats = ["heic"] if "avif" in formats and heic.is_installed() else []
    jxl_formats = ["jxl"] if jxl.is_installed() else []
    return formats + heic_formats + jxl_formats + (["svg"] if pyvips.type_from_name(_SVG_LOADER) else [])


def probe_upload(body: memoryview, limits: Limits) -> tuple[ImageInfo, tuple[str, ...]]:
    """Return the same as `probe` for a new file, and sentences that report what was removed from a drawing for safety.

    `max_width` of a drawing is determined. That takes several estimates, and a render makes its own.
    """
    if not svg.is_svg(body):
        return probe(body, limits), ()
    measured = svg.measure(bytes(body))
    return _vector_info(measured.width, measured.height, measured.max_width, limits), measured.warnings


def probe(body: memoryview, limits: Limits) -> ImageInfo:
    """Return the information in the header of an image file.

    body: the whole file.

    Raises `ImageError`: `unsupported`, `broken`, `too-many-pixels` if the header declares more than `limits` allow, or `too-complex`.
    """
    if svg.is_svg(body):
        return _vector_info(*svg.size(svg.sanitize(bytes(body))), None, limits)
    beginning = bytes(body[:_BEGINNING_BYTES])
    bounds.check(body, limits)
    if avif_sequence.is_sequence(body):
        return _probe_sequence(body, limits)
    if jxl.is_jxl(beginning):
        return _probe_jxl(body, limits)
    image, image_format = _open(body, beginning, limits)
    if image_format == "avif" and _text(image, "heif-compression") == "hevc":
        image_format = "heic"
    width, height = _upright_page_size(image)
    needs_full_decode = image_format in _FULL_DECODE_FORMATS or bool(_number(image, "interlaced", 0))
    # A HEIC may hold several pictures, of which only the primary one is used.
    frames = 1 if image_format == "heic" else _number(image, "n-pages", 1)
    # Pages of a TIFF may differ in this, and libvips takes any additional sample for alpha.
    pages = tiff_colors.of_pages(body) if image_format == "tiff" else []
    alpha = any(page.alpha is not None for page in pages) if pages else bool(image.hasalpha())
    info = ImageInfo(image_format, width, height, frames, alpha, needs_full_decode)
    if image_format == "gif" and not alpha and gif.has_filled_areas(body, frames):
        info = msgspec.structs.replace(info, alpha=True)
    if image_format == "png" and png.survey(body, bounds.MAX_CHUNKS).animated:
        info = _probe_animated_png(body, info, limits)
    _check_size(info, limits)
    if image_format in {"avif", "heic"}:
        bounds.check_heif(image_format, width * height, body, limits, high_bit_depth=color.is_high_bit_depth(image))
    if image_format in _PAGED_FORMATS and frames > 1:
        info = msgspec.structs.replace(info, page_sizes=_page_sizes(body, image_format, frames))
        _check_size(info, limits)
    if image_format == "heic":
        heic.check_installed()
    if gain_map.has_gain_map(body, image_format) or _has_hdr_levels(body, image, image_format):
        info = msgspec.structs.replace(info, dynamic_range="high")
    return info


def _probe_animated_png(body: memoryview, still: ImageInfo, limits: Limits) -> ImageInfo:
    """Return the information of an animated PNG, given that of its default picture. Raises `ImageError`."""
    try:
        found = apng.survey(body, limits.max_frames)
    except ValueError as error:
        raise ImageError(broken_animation("png", str(error))) from error
    bounds.check_frames(found.frames, limits)
    bounds.check_canvas(still.width * still.height * apng.BYTES_PER_PIXEL, body, limits)
    return msgspec.structs.replace(still, frames=found.frames, alpha=found.alpha, needs_full_decode=True)


def _probe_sequence(body: memoryview, limits: Limits) -> ImageInfo:
    """Return the information of an animated AVIF. Raises `ImageError`."""
    try:
        found = avif_sequence.survey(body, limits.max_frames)
    except ValueError as error:
        raise ImageError(broken_animation("avif", str(error))) from error
    info = ImageInfo("avif", found.width, found.height, found.frames, found.alpha, needs_full_decode=True, sequence=True)
    _check_size(info, limits)
    bounds.check_canvas(info.decoded_pixels * avif_sequence.BYTES_PER_PIXEL, body, limits)
    return info


def _vector_info(width: int, height: int, max_width: int | None, limits: Limits) -> ImageInfo:
    info = ImageInfo("svg", width, height, 1, alpha=True, needs_full_decode=True, max_width=max_width)
    _check_size(info, limits)
    return info


def _has_hdr_levels(body: memoryview, image: pyvips.Image, image_format: str) -> bool:
    """Return whether a file states that its levels are PQ or HLG."""
    if image_format == "png":
        stated = png.colors(body, bounds.MAX_CHUNKS).coded
        return stated is not None and stated.is_hdr
    if image_format not in {"avif", "heic"} or not isobmff.picture(body).space.is_hdr:
        return False
    # A profile takes precedence.
    return not color.has_profile(color.replace_unusable_profile(image))


def _probe_jxl(body: memoryview, limits: Limits) -> ImageInfo:
    jxl.check_installed()
    header = jxl.read_header(body, limits.max_frames)
    info = ImageInfo("jxl", header.width, header.height, header.frames, header.alpha, needs_full_decode=True)
    if header.high_dynamic_range:
        info = msgspec.structs.replace(info, dynamic_range="high")
    _check_size(info, limits)
    bounds.check_canvas(header.decoded_bytes, body, limits)
    return info


def _open(body: memoryview, beginning: bytes, limits: Limits) -> tuple[pyvips.Image, str]:
    found = pyvips.vips_lib.vips_foreign_find_load_source(pyvips.Source.new_from_memory(body).pointer)
    # Loaders that examined the file and declined may have left messages.
    vips_errors.clear()
    loader = "" if found == pyvips.ffi.NULL else pyvips.ffi.string(found).decode("ascii")
    image_format = next((name for prefix, name in LOADERS.items() if loader.startswith(prefix)), None)
    if image_format is None and beginning[:4] in tiff.SIGNATURES and (failure := tiff_colors.explain(body)):
        raise ImageError(failure)
    if image_format is None:
        raise ImageError(
            Failure(
                "unsupported",
                "The file is not an image in a supported format.",
                expected=", ".join(readable_formats()).upper(),
                received=_describe(beginning),
                remedy="Send the image file itself; with curl: --data-binary @photo.jpg.",
            )
        )
    try:
        return open_image(body, access="sequential"), image_format
    except pyvips.Error as error:
        # libwebp allocates a whole frame before the header can be read.
        out_of_memory = memory.is_out_of_memory(str(error))
        raise ImageError(
            _too_large_to_open(limits, error) if out_of_memory else decoding_failure(image_format, body, str(error))
        ) from error


def decoding_failure(image_format: str, body: memoryview, message: str) -> Failure:
    """Return the failure of an image that libvips did not decode; `message`: from libvips."""
    unsupported = tiff_colors.explain(body, message) if image_format == "tiff" else None
    return unsupported or undecodable(image_format, message)


def _page_sizes(body: memoryview, image_format: str, pages: int) -> tuple[tuple[int, int], ...]:
    """Return the width and height of each page, upright, empty if all are equal. Raises `ImageError`, `broken`."""
    try:
        if image_format == "tiff":
            sizes = tiff.page_sizes(body, pages)
        else:
            sizes = [_upright_page_size(open_image(body, page=page, access="sequential")) for page in range(pages)]
    except (pyvips.Error, ValueError) as error:
        raise ImageError(undecodable(image_format, str(error))) from error
    return tuple(sizes) if len(set(sizes)) > 1 else ()


def _upright_page_size(image: pyvips.Image) -> tuple[int, int]:
    return upright_size(image.width, image.get_page_height(), orientation_of(image))


def _too_large_to_open(limits: Limits, error: pyvips.Error) -> Failure:
    return Failure(
        "too-many-pixels",
        "The image declares more pixels than fit in the memory of a render.",
        expected=f"at most {limits.max_whole_pixels} pixels",
        remedy="Make it smaller before sending it, or raise DARKROOM_RENDER_MEMORY_BYTES on the server.",
        cause=str(error),
        short_of_memory=True,
    )


def _check_size(info: ImageInfo, limits: Limits) -> None:
    bounds.check_frames(info.frames, limits)
    limit = limits.max_whole_pixels if info.needs_full_decode else limits.max_pixels
    if info.animated:
        checks = [(info.decoded_pixels, limit, "in a frame"), (info.pixels, limits.max_animation_pixels, "in all frames together")]
    else:
        checks = [(info.pixels, limit, "in an image that needs a full decode" if info.needs_full_decode else "in all pages together")]
    for pixels, limit, scope in checks:
        if pixels > limit:
            raise ImageError(
                Failure(
                    "too-many-pixels",
                    "The image has too many pixels.",
                    expected=f"at most {limit} pixels {scope}",
                    received=f"{info.width} x {info.height} pixels x {info.frames} frames = {info.pixels}",
                    remedy="Make it smaller before sending it, or raise DARKROOM_MAX_PIXELS and DARKROOM_MAX_WHOLE_PIXELS on the server.",
                )
            )


def _describe(beginning: bytes) -> str:
    for signature, description in _KNOWN_SIGNATURES:
        if beginning.lstrip().startswith(signature):
            return description
    return f"bytes that begin {beginning[:12].hex(' ')}"


def _text(image: pyvips.Image, name: str) -> str:
    return str(image.get(name)) if image.get_typeof(name) else ""


def _number(image: pyvips.Image, name: str, default: int) -> int:
    return int(image.get(name)) if image.get_typeof(name) else default
