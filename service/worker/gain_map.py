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
from service.worker.load import FAIL_ON
from service.worker.orientation import orientation_of
from service.worker.save import EncodeOptions

# The quality of an encoded gain map: its levels are logarithms of light, so that its errors are seen in the brightness of whole blocks.
_QUALITY = 85

# Resampling reads so many pixels beyond the region, each as large as one of the result.
_MARGIN = 4


_HEIF_FORMATS = frozenset({"avif", "heic"})


class GainMap(NamedTuple):
    """A decoded gain map: 8 bits per band, one band or three, in memory; and the meaning of its levels."""

    image: pyvips.Image
    info: GainMapInfo


def has_gain_map(body: memoryview, image_format: str) -> bool:
    """Return whether a file has a gain map that is understood."""
    if image_format == "jpeg":
        return ultra_hdr.find(body) is not None
    return image_format in _HEIF_FORMATS and heif_gain_map.find(body) is not None


def load(file: ImageFile, info: ImageInfo, limits: Limits) -> GainMap | None:
    """Return the gain map of an original, upright, `None` if it has none or a broken one: its picture is not broken by that."""
    try:
        if info.format == "jpeg":
            return _load_jpeg(file, info, limits)
        return _load_heif(file, info) if info.format in _HEIF_FORMATS else None
    except pyvips.Error as error:
        if memory.is_out_of_memory(str(error)):
            # Otherwise the rendition would depend on how much memory there is.
            raise
        return None
    except (ImageError, EOFError):
        return None


def _load_jpeg(file: ImageFile, info: ImageInfo, limits: Limits) -> GainMap | None:
    found = ultra_hdr.find(file.body)
    if found is None:
        return None
    bounds.check(found.body, limits)
    opened = open_image(found.body, access="sequential", fail_on=FAIL_ON)
    if opened.width * opened.height > info.pixels or not opened.get("vips-loader").startswith("jpegload"):
        return None
    image = opened.copy_memory().copy()
    # Its pixels are stored in the same order as those of the picture, whatever it says itself.
    orientation = orientation_of(open_image(file.body, access="sequential"))
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    return _prepare(image.autorot(), found.info)


def _load_heif(file: ImageFile, info: ImageInfo) -> GainMap | None:
    found = heif_gain_map.find(file.body)
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
    return _prepare(image, found.info) if image.width * image.height <= info.pixels else None


def _prepare(image: pyvips.Image, info: GainMapInfo) -> GainMap | None:
    if image.format != "uchar" or image.bands not in {1, 3}:
        return None
    if info.apple:
        image, info = image.maplut(_apple_curve(info)), info._replace(apple=False)
    return GainMap(image.copy(interpretation="b-w" if image.bands == 1 else "srgb"), info)


def _apple_curve(info: GainMapInfo) -> pyvips.Image:
    """Return a table from Apple's levels to those of a share of the stops.

    A level of Apple's, decoded by the transfer function of Rec. 709, is the share of the headroom by which the linear picture grows.
    """
    headroom = 2**info.alternate_headroom
    level = pyvips.Image.identity() / 255
    linear = (level < 0.081).ifthenelse(level / 4.5, ((level + 0.099) / 1.099) ** (1 / 0.45))
    return ((linear * (headroom - 1) + 1).log() / math.log(headroom) * 255).rint().cast("uchar")


def render(gain_map: GainMap, info: ImageInfo, plan: Plan, box: Box | None) -> GainMap:
    """Return the gain map of a rendition, at the size of the rendition, so that it fits to the pixel.

    info: the header of the original. plan: with a rotation by right angles. box: the crop, in pixels of the scaled picture.
    """
    image = _scale_region(gain_map.image, info, plan)
    return gain_map._replace(image=composite.crop(composite.rotate_and_flip(image, plan), box))


def max_gain(gain_map: GainMap) -> float:
    """Return the largest factor in a gain map."""
    share = gain_map.image.max() / 255
    info = gain_map.info
    stops = (low + (high - low) * share ** (1 / gamma) for low, high, gamma in zip(info.minimum, info.maximum, info.gamma, strict=True))
    return float(2 ** max(stops))


def divisor_of(gain_map: GainMap, info: ImageInfo) -> int:
    """Return by how much the gain map of an original is smaller than its picture, 1 or more."""
    width: int = gain_map.image.width
    return max(1, round(info.width / width))


def shrink(gain_map: GainMap, divisor: int) -> GainMap:
    """Return a gain map with its sides divided by `divisor` and rounded up."""
    image = gain_map.image
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
    small = part.resize(x_shrink, vscale=y_shrink) if min(x_shrink, y_shrink) < 1 else part
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
