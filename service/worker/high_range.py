"""Renditions with a high dynamic range: as PQ or HLG levels of 16 bits, or as an ordinary picture with a gain map."""

from __future__ import annotations

import math

import pyvips

from service.images.geometry import Box, Plan
from service.images.info import ImageInfo, Limits
from service.images.render_request import RenderRequest
from service.worker import color, color_space, composite, gain_map
from service.worker.files import ImageFile
from service.worker.formats import hdr
from service.worker.formats.ultra_hdr import GainMapInfo
from service.worker.gain_map import GainMap
from service.worker.load import load_still

# A gain map that is made from PQ or HLG levels has half the width of its picture, as those of phones do.
_DIVISOR = 2
_MAX_LEVEL = 255
_LN_2 = math.log(2)


def is_wanted(request: RenderRequest, info: ImageInfo) -> bool:
    """Return whether a rendition has a high dynamic range: it is requested, and the picture has one. info: read from the original now."""
    transform = request.transform
    return transform.dynamic_range == info.dynamic_range == "high" and request.frames == 1 and not transform.frame


def render(file: ImageFile, info: ImageInfo, request: RenderRequest, box: Box | None, limits: Limits) -> pyvips.Image | None:
    """Return the finished picture, marked as HDR (see `hdr.mark`), `None` if the original proves to have a standard dynamic range.

    A picture with a gain map is returned as its brightest screen shows it, in PQ.

    box: to crop, in pixels of the scaled picture.
    """
    plan = request.plan
    gains = gain_map.render(file, info, plan, box, limits)
    if gains is None:
        return _render_levels(file, info, plan, box)
    picture = composite.rotate_and_crop(load_still(file, info, plan, profile="p3"), plan, box)
    return _with_gains(color.remove_profile(color.to_rgb(picture)), gains)


def render_gain_map(file: ImageFile, info: ImageInfo, request: RenderRequest, box: Box | None, limits: Limits) -> GainMap | None:
    """Return the gain map of a rendition, at its final size, `None` if the original proves to have a standard dynamic range.

    That of a PQ or HLG picture leads from the tone-mapped picture exactly back to its own light. Where the picture is transparent, nothing
    becomes brighter: a rendition with a gain map has white there.

    box: to crop, in pixels of the scaled picture.
    """
    plan = request.plan
    gains = gain_map.render(file, info, plan, box, limits)
    if gains is not None:
        picture = composite.rotate_and_crop(load_still(file, info, plan), plan, box) if info.alpha else None
    else:
        picture = _render_levels(file, info, plan, box)
        gains = None if picture is None else _gains_of_levels(picture)
    if gains is not None and picture is not None and picture.hasalpha():
        gains = gain_map.keep_white(gains, picture)
    return None if gains is None else gain_map.shrink(gains)


def _render_levels(file: ImageFile, info: ImageInfo, plan: Plan, box: Box | None) -> pyvips.Image | None:
    """Return the finished picture with its own levels of PQ or HLG, `None` if it has others."""
    image = load_still(file, info, plan, keep_hdr=True)
    return None if hdr.color_space(image) is None else composite.rotate_and_crop(image, plan, box)


def _gains_of_levels(image: pyvips.Image) -> GainMap | None:
    """Return the gain map of a picture that is marked as HDR, at its size, `None` if no light in it is brighter than white."""
    stops, most = hdr.stops_to_hdr(image)
    if most <= 0:
        return None
    levels = (stops * (_MAX_LEVEL / most)).rint().cast("uchar").copy(interpretation="b-w")
    zero, one = (0.0,) * 3, (1.0,) * 3
    return GainMap(levels, GainMapInfo(zero, (most,) * 3, one, zero, zero, 0.0, most), _DIVISOR)


def _with_gains(picture: pyvips.Image, gains: GainMap) -> pyvips.Image:
    """Return a picture (Display P3, 8 bits per band) with its gain map applied in full, marked as HDR."""
    info = gains.info
    alpha = picture.extract_band(3) if picture.hasalpha() else None
    level = pyvips.Image.identity() / _MAX_LEVEL
    curve = (level <= 0.04045).ifthenelse(level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    linear = picture.extract_band(0, n=3).maplut(curve.cast("float"))
    channels = zip(info.minimum, info.maximum, info.gamma, strict=True)
    tables = [((level ** (1 / gamma) * (high - low) + low) * _LN_2).exp() for low, high, gamma in channels]
    image = gains.image if gains.image.bands == 3 else gains.image.bandjoin([gains.image, gains.image])
    factors = image.maplut(tables[0].bandjoin(tables[1:]).cast("float"))
    light = (linear + list(info.base_offset)) * factors - list(info.alternate_offset)
    out = hdr.from_light(light, color_space.DISPLAY_P3.primaries, gain_map.max_gain(gains))
    if alpha is None:
        return out
    return out.bandjoin((alpha * 257).cast("ushort")).copy(interpretation="rgb16")
