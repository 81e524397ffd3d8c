"""HDR: maps pictures with PQ levels (SMPTE ST 2084) to the range of an ordinary screen."""

from __future__ import annotations

import pyvips

# Code points of PQ (ITU-T H.273, table 3) and of Rec. 2020's primaries (table 2).
PQ = 16
REC_2020 = 9

# Constants of the PQ curve (ST 2084 §5).
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_PEAK_NITS = 10_000.0

# The luminance of white in graphics beside the picture (ITU-R BT.2408 §2.2), and the peak luminance that pictures are graded for.
_WHITE_NITS = 203.0
_GRADED_NITS = 1_000.0

# From the primaries of Rec. 2020 to those of sRGB, in linear light (ITU-R BT.2087 §5, inverted).
_REC_2020_TO_SRGB = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
_MAX_LEVEL = 65_535
_PQ_FIELD = "darkroom-pq"


def mark_as_pq(image: pyvips.Image, primaries: int) -> pyvips.Image:
    """Return `image` (16 bits per band, full range) with a field which states that its levels are PQ.

    primaries: a code point of ITU-T H.273, table 2.
    """
    image = image.copy()
    image.set_type(pyvips.GValue.gint_type, _PQ_FIELD, primaries)
    return image


def is_pq(image: pyvips.Image) -> bool:
    """Return whether an image is marked as PQ."""
    return bool(image.get_typeof(_PQ_FIELD))


def tone_map_to_sdr(image: pyvips.Image) -> pyvips.Image:
    """Return a PQ picture (three bands of 16 bits, with or without alpha) as sRGB with 8 bits per band.

    Levels below about 90 nits are reproduced as intended. Those above are compressed into the remaining range, each band separately, so
    that very bright colors lose saturation, as they do to the eye (ITU-R BT.2390 §5.4). Colors outside sRGB are clipped per band.
    """
    alpha = image.extract_band(3) if image.bands > 3 else None
    levels = image.extract_band(0, n=3).copy(interpretation="multiband")
    level = pyvips.Image.identity(ushort=True) / _MAX_LEVEL
    linear = levels.maplut((_nits(_compress(level)) / _WHITE_NITS).cast("float"))
    if image.get(_PQ_FIELD) == REC_2020:
        linear = linear.recomb(pyvips.Image.new_from_array(_REC_2020_TO_SRGB))
    out = linear.copy(interpretation="scrgb").colourspace("srgb").cast("uchar")
    if alpha is not None:
        out = out.bandjoin((alpha / 257).rint().cast("uchar"))
    out = out.copy(interpretation="srgb")
    out.remove(_PQ_FIELD)
    return out


def _nits(level: pyvips.Image) -> pyvips.Image:
    """Return the luminances of PQ levels, 0 to 1 (ST 2084, the EOTF)."""
    root = level ** (1 / _M2)
    above = root - _C1
    above = (above > 0).ifthenelse(above, 0)
    return (above / (root * -_C3 + _C2)) ** (1 / _M1) * _PEAK_NITS


def _level(nits: float) -> float:
    """Return the PQ level, 0 to 1, of a luminance (ST 2084, the inverse EOTF)."""
    luminance = (nits / _PEAK_NITS) ** _M1
    return float(((_C1 + _C2 * luminance) / (1 + _C3 * luminance)) ** _M2)


def _compress(level: pyvips.Image) -> pyvips.Image:
    """Return PQ levels, 0 to 1, with those up to `_GRADED_NITS` compressed below `_WHITE_NITS` by the curve and knee of BT.2390 §5.4.1."""
    graded = _level(_GRADED_NITS)
    max_level = _level(_WHITE_NITS) / graded
    knee = 1.5 * max_level - 0.5
    normalized = level / graded
    normalized = (normalized > 1).ifthenelse(1, normalized)
    t = (normalized - knee) / (1 - knee)
    t2, t3 = t * t, t * t * t
    spline = (t3 * 2 - t2 * 3 + 1) * knee + (t3 - t2 * 2 + t) * (1 - knee) + (t3 * -2 + t2 * 3) * max_level
    return (normalized < knee).ifthenelse(normalized, spline) * graded
