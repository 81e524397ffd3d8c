"""Gain maps: they go through the same geometry as their picture, at their own scale."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import pyvips

from service.images.geometry import Box, Plan
from service.images.info import ImageInfo, Limits
from service.rendering.protocol import ImageError
from service.worker import bounds, color, composite, memory, save
from service.worker.files import ImageFile, open_image
from service.worker.formats import heic, heif_gain_map, isobmff, ultra_hdr
from service.worker.formats.ultra_hdr import GainMapInfo
from service.worker.load import CAREFUL_SHRINK, FAIL_ON, shrink_on_load
from service.worker.orientation import orientation_of, upright_size
from service.worker.save import EncodeOptions

# The quality of an encoded gain map: its levels are logarithms of light, so that its errors are seen in the brightness of whole blocks.
_QUALITY = 85

# Resampling reads so many pixels beyond the region, each as large as one of the result.
_MARGIN = 4

_HEIF_FORMATS = frozenset({"avif", "heic"})


class GainMap(NamedTuple):
    """A decoded gain map.

    image: 8 bits per band, one band or three.
    info: the meaning of its levels.
    divisor: by how much the stored map is smaller than its picture, 1 or more.
    """

    image: pyvips.Image
    info: GainMapInfo
    divisor: int


def has_gain_map(body: memoryview, image_format: str) -> bool:
    """Return whether a file has a gain map that is understood."""
    if image_format == "jpeg":
        return ultra_hdr.find(body) is not None
    return image_format in _HEIF_FORMATS and heif_gain_map.find(body) is not None


def render(file: ImageFile, info: ImageInfo, plan: Plan, box: Box | None, limits: Limits) -> GainMap | None:
    """Return the gain map of a rendition, at the size of the rendition, so that it fits to the pixel.

    Returns `None` for an original without a gain map, or with a broken one: its picture is not broken by that.

    info: the header of the original. plan: with a rotation by right angles. box: the crop, in pixels of the scaled picture.
    """
    try:
        opened = _open_jpeg(file, info, plan, limits) if info.format == "jpeg" else _open_heif(file, info)
        if opened is None:
            return None
        return opened._replace(image=composite.rotate_and_crop(_scale_region(opened.image, info, plan), plan, box))
    except pyvips.Error as error:
        if memory.is_out_of_memory(str(error)):
            # Otherwise the rendition would depend on how much memory there is.
            raise
        return None
    except (ImageError, EOFError):
        return None


def _open_jpeg(file: ImageFile, info: ImageInfo, plan: Plan, limits: Limits) -> GainMap | None:
    """Return the opened gain map, upright, and shrunk by its decoder as far as the plan allows."""
    found = ultra_hdr.find(file.body)
    if found is None:
        return None
    bounds.check(found.body, limits)
    # Its pixels are stored in the same order as those of the picture, whatever it says itself.
    orientation = orientation_of(open_image(file.body, access="sequential"))
    stored = _oriented(open_image(found.body, access="sequential", fail_on=FAIL_ON), orientation)
    if stored.width * stored.height > info.pixels or not stored.get("vips-loader").startswith("jpegload"):
        return None
    factor = shrink_on_load(*upright_size(stored.width, stored.height, orientation), info, plan, CAREFUL_SHRINK)
    image = open_image(found.body, access="sequential", fail_on=FAIL_ON, shrink=factor) if factor > 1 else stored
    if orientation != 1:
        image = _oriented(image.copy_memory(), orientation).autorot()
    return _prepare(image, found.info, _divisor(stored, info, orientation))


def _open_heif(file: ImageFile, info: ImageInfo) -> GainMap | None:
    """Return the decoded gain map, upright, as libheif makes every item."""
    found = heif_gain_map.find(file.body) if info.format in _HEIF_FORMATS else None
    if found is None:
        return None
    if info.format == "heic":
        image = heic.decode_gain_map(file.body, found.item)
    else:
        content = memoryview(isobmff.with_primary(file.body, found.item))
        image = open_image(content, access="sequential", fail_on=FAIL_ON).copy_memory()
        if image.format == "ushort":
            image = (image / 257).rint().cast("uchar")
        image = color.expand_limited_range(image, colors=isobmff.picture(content).limited_gray, alpha=False)
    return _prepare(image, found.info, _divisor(image, info)) if image.width * image.height <= info.pixels else None


def _oriented(image: pyvips.Image, orientation: int) -> pyvips.Image:
    image = image.copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    return image


def _divisor(stored: pyvips.Image, info: ImageInfo, orientation: int = 1) -> int:
    width, _ = upright_size(stored.width, stored.height, orientation)
    return max(1, round(info.width / width))


def _prepare(image: pyvips.Image, info: GainMapInfo, divisor: int) -> GainMap | None:
    """Return an opened gain map with levels in the terms of ISO 21496-1, `None` if its pixels are not those of a gain map."""
    if image.format != "uchar" or image.bands not in {1, 3}:
        return None
    if info.apple:
        image, info = image.maplut(_apple_curve(info)), info._replace(apple=False)
    return GainMap(image.copy(interpretation="b-w" if image.bands == 1 else "srgb"), info, divisor)


def _apple_curve(info: GainMapInfo) -> pyvips.Image:
    """Return a table from Apple's levels to those of a share of the stops.

    A level of Apple's, decoded by the transfer function of Rec. 709, is the share of the headroom by which the linear picture grows.
    """
    headroom = 2**info.alternate_headroom
    level = pyvips.Image.identity() / 255
    linear = (level < 0.081).ifthenelse(level / 4.5, ((level + 0.099) / 1.099) ** (1 / 0.45))
    return ((linear * (headroom - 1) + 1).log() / math.log(headroom) * 255).rint().cast("uchar")


def max_gain(gain_map: GainMap) -> float:
    """Return the largest factor in the gain map of a rendition."""
    share = gain_map.image.max() / 255
    info = gain_map.info
    stops = (low + (high - low) * share ** (1 / gamma) for low, high, gamma in zip(info.minimum, info.maximum, info.gamma, strict=True))
    return float(2 ** max(stops))


def keep_white(gain_map: GainMap, picture: pyvips.Image) -> GainMap:
    """Return the gain map of a rendition without an effect where its picture, which has alpha, is transparent.

    The effect becomes weaker with alpha; so the white on which the picture is composited stays as it is.
    """
    info = gain_map.info
    ranges = zip(info.minimum, info.maximum, info.gamma, strict=True)
    # The level of no gain, or the nearest.
    neutral = [min(max(-low / (high - low), 0.0), 1.0) ** gamma * 255 if high > low else 0.0 for low, high, gamma in ranges]
    alpha = picture.extract_band(picture.bands - 1) / (65_535 if color.is_high_bit_depth(picture) else 255)
    image = gain_map.image
    neutral = neutral[: image.bands]
    blended = ((image - neutral) * alpha + neutral).rint().cast("uchar")
    return gain_map._replace(image=blended.copy(interpretation=image.interpretation))


def shrink(gain_map: GainMap) -> GainMap:
    """Return the gain map of a rendition with its sides divided by its divisor and rounded up."""
    image, divisor = gain_map.image, gain_map.divisor
    width, height = math.ceil(image.width / divisor), math.ceil(image.height / divisor)
    return gain_map._replace(image=image.resize(width / image.width, vscale=height / image.height)) if divisor > 1 else gain_map


def encode(gain_map: GainMap, options: EncodeOptions) -> bytes:
    """Return the JPEG of a gain map. Raises `pyvips.Error`."""
    keep = "none" if gain_map.info.in_base_colors else "icc"
    return save.encode(gain_map.image, "jpeg", _QUALITY, EncodeOptions(effort=options.effort, keep=keep))


def _scale_region(image: pyvips.Image, info: ImageInfo, plan: Plan) -> pyvips.Image:
    """Return the region of `plan` at its unrotated size; the region may begin and end within pixels of the gain map."""
    width, height = plan.unrotated_size
    region = plan.region
    x_ratio, y_ratio = Fraction(image.width, info.width), Fraction(image.height, info.height)
    x_scale, y_scale = width / (region.width * x_ratio), height / (region.height * y_ratio)
    x_shrink, y_shrink = min(1.0, float(x_scale)), min(1.0, float(y_scale))
    left, right = _around(region.left * x_ratio, region.width * x_ratio, image.width, x_shrink)
    top, bottom = _around(region.top * y_ratio, region.height * y_ratio, image.height, y_shrink)
    part = image.crop(left, top, right - left, bottom - top)
    # Decoded now, so that a broken map fails here.
    small = (part.resize(x_shrink, vscale=y_shrink) if min(x_shrink, y_shrink) < 1 else part).copy_memory()
    # `resize` aligns the centers of both.
    x_start = (region.left * x_ratio - left - Fraction(part.width, 2)) * x_shrink + Fraction(small.width, 2)
    y_start = (region.top * y_ratio - top - Fraction(part.height, 2)) * y_shrink + Fraction(small.height, 2)
    x_rest, y_rest = float(x_scale) / x_shrink, float(y_scale) / y_shrink
    return small.affine(
        [x_rest, 0, 0, y_rest],
        interpolate=pyvips.Interpolate.new("bilinear"),
        oarea=[0, 0, width, height],
        odx=(x_rest - 1) / 2 - float(x_start) * x_rest,
        ody=(y_rest - 1) / 2 - float(y_start) * y_rest,
        extend="copy",
    ).copy(interpretation=image.interpretation)


def _around(start: Fraction, length: Fraction, side: int, shrink: float) -> tuple[int, int]:
    """Return the first and the last pixel plus one, of a side of the gain map, that a part of it is made from."""
    margin = math.ceil(_MARGIN / shrink)
    return max(0, math.floor(start) - margin), min(side, math.ceil(start + length) + margin)
