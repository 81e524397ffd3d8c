"""HDR: pictures whose levels are PQ (SMPTE ST 2084) or HLG (ITU-R BT.2100), and their tone mapping to an ordinary screen and back."""

from __future__ import annotations

import math

import pyvips

from service.worker.color_space import (
    DISPLAY_P3_PRIMARIES,
    PQ,
    PRIMARIES,
    REC_2020_PRIMARIES,
    SRGB_PRIMARIES,
    ColorSpace,
    Primaries,
    luminances,
    matrix_between,
)

# Constants of the PQ curve (ST 2084 §5).
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_PEAK_NITS = 10_000.0

# Constants of HLG, and the exponent and the peak luminance of the display that it is meant for (BT.2100, table 5).
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_SYSTEM_GAMMA, _HLG_NITS = 1.2, 1_000.0

# The luminance of white in graphics beside the picture (ITU-R BT.2408 §2.2).
_WHITE_NITS = 203.0

# The tone curve (SMPTE ST 2094-50, annex C, the reference white tone mapping operator): up to white, light is scaled. A picture graded for
# this peak or more is halved there, and the curve's second control point lies at this position.
_HALVING_NITS, _BEND = 1_000.0, 0.65

# The brightest level of a picture is looked up in a table over the square root of its luminance relative to white.
_MAX_LIGHT = _PEAK_NITS / _WHITE_NITS
_MAX_LEVEL = 65_535

# Field of an image: the transfer, the largest luminance, and the x and y of red, green, blue and white.
_FIELD = "darkroom-hdr"


def mark(image: pyvips.Image, space: ColorSpace) -> pyvips.Image:
    """Return `image` (8 or 16 bits per band) as three bands of 16 bits, plus alpha if it has any, marked with its color space."""
    if image.format != "ushort":
        image = (image * 257).cast("ushort")
    if image.bands <= 2:
        gray = image.extract_band(0)
        image = gray.bandjoin([gray, gray, *(image.extract_band(band) for band in range(1, image.bands))])
    image = image.copy(interpretation="rgb16")
    numbers = [float(space.transfer), space.max_nits, *(value for color in space.primaries for value in color)]  # type: ignore[arg-type]
    image.set_type(pyvips.GValue.array_double_type, _FIELD, numbers)
    return image


def color_space(image: pyvips.Image) -> ColorSpace | None:
    """Return the color space of an image that is marked as HDR, `None` for any other."""
    if not image.get_typeof(_FIELD):
        return None
    transfer, max_nits, *values = image.get(_FIELD)
    red, green, blue, white = zip(values[::2], values[1::2], strict=True)
    return ColorSpace(Primaries(red, green, blue, white), int(transfer), max_nits)


def tone_map_to_sdr(image: pyvips.Image, *, display_p3: bool) -> pyvips.Image:
    """Return a picture that is marked as HDR in the levels of sRGB or Display P3, with 8 bits per band, as Chromium shows it.

    Light up to white is scaled by one factor, and light above is compressed to the rest of the range. The strongest of red, green and blue
    in Rec. 2020 decides, so hues stay. Colors outside the target are clipped per band.
    """
    space = _space_of(image)
    alpha = image.extract_band(3) if image.bands > 3 else None
    light = _recomb(_light(image, space), matrix_between(space.primaries, PRIMARIES[REC_2020_PRIMARIES]))
    light *= _table_position(_strongest(light)).maplut(_gains(space.max_nits))
    target = PRIMARIES[DISPLAY_P3_PRIMARIES if display_p3 else SRGB_PRIMARIES]
    out = _recomb(light, matrix_between(PRIMARIES[REC_2020_PRIMARIES], target))
    out = out.copy(interpretation="scrgb").colourspace("srgb").cast("uchar")
    if alpha is not None:
        out = out.bandjoin((alpha / 257).rint().cast("uchar"))
    out = out.copy(interpretation="srgb")
    out.remove(_FIELD)
    return out


def stops_to_hdr(image: pyvips.Image) -> tuple[pyvips.Image, float]:
    """Return how many stops a picture that is marked as HDR is brighter than `tone_map_to_sdr` makes it, and the most of them.

    The first is one band of floating point, 0 or more; light beyond the brightest that the picture states counts as that.
    """
    space = _space_of(image)
    light = _recomb(_light(image, space), matrix_between(space.primaries, PRIMARIES[REC_2020_PRIMARIES]))
    most = math.log2(max(1.0, space.max_nits / _WHITE_NITS))
    stops = _gains(space.max_nits).log() * (-1 / math.log(2))
    return _table_position(_strongest(light)).maplut((stops > most).ifthenelse(most, stops)), most


def to_rec_2020(image: pyvips.Image) -> pyvips.Image:
    """Return a picture that is marked as HDR in any primaries with PQ levels in Rec. 2020."""
    space = _space_of(image)
    out = from_light(_light(image, space), space.primaries, space.max_nits / _WHITE_NITS)
    return out if image.bands == 3 else out.bandjoin(image.extract_band(3)).copy(interpretation="rgb16")


def from_light(light: pyvips.Image, primaries: Primaries, max_light: float) -> pyvips.Image:
    """Return a picture in linear light (three bands; 1 is white) with PQ levels in Rec. 2020 and 16 bits per band, marked as HDR.

    primaries: of `light`. max_light: the brightest light that it may have.
    """
    wide = _recomb(light, matrix_between(primaries, PRIMARIES[REC_2020_PRIMARIES]))
    nits = (pyvips.Image.identity(ushort=True) / _MAX_LEVEL) ** 2 * _PEAK_NITS
    luminance = (nits / _PEAK_NITS) ** _M1
    level = ((luminance * _C2 + _C1) / (luminance * _C3 + 1)) ** _M2
    levels = _table_position(wide).maplut((level * _MAX_LEVEL).rint().cast("ushort"))
    return mark(levels, ColorSpace(PRIMARIES[REC_2020_PRIMARIES], PQ, min(max_light * _WHITE_NITS, _PEAK_NITS)))


def _space_of(image: pyvips.Image) -> ColorSpace:
    space = color_space(image)
    if space is None:
        raise ValueError("the image is not marked as HDR")
    return space


def _strongest(light: pyvips.Image) -> pyvips.Image:
    red, green, blue = light.bandsplit()
    return red.maxpair(green).maxpair(blue)


def _table_position(light: pyvips.Image) -> pyvips.Image:
    """Return the index of each light in a table over the square root of the light, whose end is the peak of PQ."""
    position = ((light > 0).ifthenelse(light, 0) / _MAX_LIGHT) ** 0.5 * _MAX_LEVEL
    return position.rint().cast("ushort")


def _light(image: pyvips.Image, space: ColorSpace) -> pyvips.Image:
    """Return the linear light of a picture in its own primaries, without alpha; 1 is white."""
    levels = image.extract_band(0, n=3).copy(interpretation="multiband")
    level = pyvips.Image.identity(ushort=True) / _MAX_LEVEL
    if space.transfer == PQ:
        return levels.maplut((_pq_nits(level) / _WHITE_NITS).cast("float"))
    scene = levels.maplut(_hlg_scene_light(level).cast("float"))
    luminance = _recomb(scene, (luminances(space.primaries),))
    return scene * (luminance ** (_SYSTEM_GAMMA - 1)) * (_HLG_NITS / _WHITE_NITS)


def _pq_nits(level: pyvips.Image) -> pyvips.Image:
    """Return the luminances of PQ levels, 0 to 1 (ST 2084, the EOTF)."""
    root = level ** (1 / _M2)
    above = root - _C1
    above = (above > 0).ifthenelse(above, 0)
    return (above / (root * -_C3 + _C2)) ** (1 / _M1) * _PEAK_NITS


def _hlg_scene_light(level: pyvips.Image) -> pyvips.Image:
    """Return the scene light, 0 to 1, of HLG levels, 0 to 1 (BT.2100, the inverse OETF)."""
    high = (((level - _C) / _A).exp() + _B) / 12
    return (level <= 0.5).ifthenelse(level * level / 3, high)


def _gains(max_nits: float) -> pyvips.Image:
    """Return the factor of each light in steps of its square root, for a picture whose brightest light is `max_nits`."""
    light = (pyvips.Image.identity(ushort=True) / _MAX_LEVEL) ** 2 * _MAX_LIGHT
    peak = max(1.0, max_nits / _WHITE_NITS)
    halving = min(math.log(peak) / math.log(_HALVING_NITS / _WHITE_NITS), 1)
    white = 1 - 0.5 * halving
    if peak == 1:
        return (light * 0 + 1).cast("float")
    # A quadratic Bézier curve from white to the peak, which begins with the slope of the straight part.
    x_middle = (1 - _BEND) + _BEND / white
    y_middle = (1 - _BEND) * white + _BEND
    x2, x1 = 1 - 2 * x_middle + peak, 2 * (x_middle - 1)
    y2, y1 = white - 2 * y_middle + 1, 2 * (y_middle - white)
    bounded = (light < 1).ifthenelse(1, (light > peak).ifthenelse(peak, light))
    t = (((bounded - 1) * (4 * x2) + x1 * x1) ** 0.5 - x1) / (2 * x2)
    mapped = (t * y2 + y1) * t + white
    return (light < 1).ifthenelse(white, mapped / light).cast("float")


def _recomb(image: pyvips.Image, matrix: tuple[tuple[float, ...], ...]) -> pyvips.Image:
    return image.recomb(pyvips.Image.new_from_array([list(row) for row in matrix]))
