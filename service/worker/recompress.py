"""Recompression: a JPEG becomes a JPEG XL a fifth smaller, without loss, from which it can be restored byte by byte."""

from __future__ import annotations

import pyvips

from service.images.geometry import Plan
from service.images.info import ImageInfo, Limits
from service.images.render_request import RenderRequest
from service.images.transform import Transform
from service.worker import color, metadata, original_metadata
from service.worker.files import ImageFile, open_image
from service.worker.formats import jpeg, jxl, jxl_encoder
from service.worker.formats.jpeg import Segment
from service.worker.orientation import orientation_of
from service.worker.save import encode_options, jxl_effort

# The options that change no pixel of an opaque picture if its size and orientation stay the same.
_HARMLESS = frozenset(
    {"frame", "crop", "trim", "rotate", "width", "height", "ratio", "fit", "gravity", "enlarge", "background"}
    | {"profile", "metadata", "lossless", "effort", "progressive"}
)

# The beginning of a segment with an ICC profile (ICC.1:2022, annex B.4).
_ICC = b"ICC_PROFILE\0"


def recompress(file: ImageFile, info: ImageInfo, request: RenderRequest, limits: Limits) -> bytes:
    """Return a lossless JPEG XL of a JPEG, nothing if it has to be made from pixels.

    That is so if the transform changes any pixel or converts colors, if libjxl refuses the JPEG, and if recompressing it takes more memory
    than a render may have.

    With `metadata=all` the original can be restored, otherwise the original without the metadata that a rendition must not have.

    Raises `ImageError` and `pyvips.Error`.
    """
    if not _keeps_pixels(file, info, request):
        return b""
    transform, options = request.transform, encode_options(request.transform, request.version)
    image = open_image(file.body, access="sequential")
    sound = color.replace_unusable_profile(image)
    if _converts_colors(sound, transform):
        return b""
    is_whole = transform.metadata == "all"
    has_profile = color.has_profile(sound) and (is_whole or transform.profile == "keep")
    if is_whole and color.has_profile(image) != has_profile:
        # Other programs might use the profile.
        return b""
    source = file.body if is_whole else _without_metadata(file.body, image, transform, keep_profile=has_profile)
    needed_bytes = jxl_encoder.recompression_bytes(source, info.pixels, progressive=options.progressive)
    if not source or not jpeg.has_unambiguous_colors(source) or needed_bytes > limits.codec_bytes:
        return b""
    made = jxl_encoder.recompress(source, info.pixels, effort=jxl_effort(options), progressive=options.progressive)
    profile = bytes(image.get("icc-profile-data")) if has_profile else b""
    return made if made and jxl.restores(made, source, orientation_of(image), profile) else b""


def _keeps_pixels(file: ImageFile, info: ImageInfo, request: RenderRequest) -> bool:
    """Return whether a transform requests all pixels of a JPEG as they are, colors aside, without loss."""
    if request.format != "jxl" or not request.transform.lossless or info.format != "jpeg" or file.intermediate_of is not None:
        return False
    unchanged = Plan.whole(info.width, info.height, info.width, info.height)
    return request.plan == unchanged and request.transform.options().keys() <= _HARMLESS


def _converts_colors(image: pyvips.Image, transform: Transform) -> bool:
    """Return whether a transform changes the colors of an image, given its sound profile."""
    if transform.profile == "p3" and not color.is_gray(image):
        return True
    return transform.profile != "keep" and not color.is_srgb(image)


def _without_metadata(body: memoryview, image: pyvips.Image, transform: Transform, *, keep_profile: bool) -> memoryview:
    """Return a JPEG with the metadata that a rendition may have, and its orientation. Returns nothing if it has no end marker."""
    blocks = metadata.stored_blocks(image, transform.metadata, original_metadata.read(body, "jpeg", 0))
    exif = [blocks.exif]

    def replace(segment: Segment) -> bytes:
        if segment.marker == jpeg.APPLICATION_1 and segment.content[: len(jpeg.EXIF)] == jpeg.EXIF and exif:
            block = exif.pop()
            return jpeg.EXIF + block if block else b""
        if segment.marker == jpeg.APPLICATION_2 and segment.content[: len(_ICC)] == _ICC:
            return bytes(segment.content) if keep_profile else b""
        return jpeg.color_segment(segment)

    cleaned = jpeg.replace_metadata(body, replace)
    if blocks.xmp and cleaned:
        cleaned = jpeg.insert(cleaned, [(jpeg.APPLICATION_1, jpeg.XMP + blocks.xmp)])
    return memoryview(cleaned)
