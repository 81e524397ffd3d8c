"""HDR: pictures whose levels are luminances (PQ, SMPTE ST 2084) come out as one sees them on an ordinary screen."""

from __future__ import annotations

import pyvips

# Code point of PQ (ITU-T H.273, table 3), and of Rec. 2020's primaries (table 2).
PQ = 16
REC_2020 = 9

# ST 2084 §5.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_PEAK_NITS = 10_000.0

# White of a page beside the picture (ITU-R BT.2408 §2.2), and the brightest that is told apart: what such pictures are graded for.
_WHITE_NITS = 203.0
_GRADED_NITS = 1_000.0

# From the primaries of Rec. 2020 to those of sRGB, in light (ITU-R BT.2087 §5, inverted).
_TO_SRGB = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
_MOST = 65_535
_PQ_FIELD = "darkroom-pq"


def marked(image: pyvips.Image, primaries: int) -> pyvips.Image:
    """Return a picture of 16 bits a band, full range, with the word that its levels are PQ."""
    image = image.copy()
    image.set_type(pyvips.GValue.gint_type, _PQ_FIELD, primaries)
    return image


def is_marked(image: pyvips.Image) -> bool:
    """Return whether the levels of a picture are PQ."""
    return bool(image.get_typeof(_PQ_FIELD))


def for_screens(image: pyvips.Image) -> pyvips.Image:
    """Return a picture of PQ levels (three bands of 16 bits, and alpha if it has one) in sRGB, 8 bits.

    Levels below some 90 nits are as they were meant; those above are pressed into what a screen has left, each band by itself, so that
    what is very bright loses its colour as it does to the eye (ITU-R BT.2390 §5.4). Colours that sRGB has not are the nearest by band.
    """
    alpha = image.extract_band(3) if image.bands > 3 else None
    levels = image.extract_band(0, n=3).copy(interpretation="multiband")
    code = pyvips.Image.identity(ushort=True) / _MOST
    linear = levels.maplut((_nits(_pressed(code)) / _WHITE_NITS).cast("float"))
    if image.get(_PQ_FIELD) == REC_2020:
        linear = linear.recomb(pyvips.Image.new_from_array(_TO_SRGB))
    out = linear.copy(interpretation="scrgb").colourspace("srgb").cast("uchar")
    if alpha is not None:
        out = out.bandjoin((alpha / 257).rint().cast("uchar"))
    out = out.copy(interpretation="srgb")
    out.remove(_PQ_FIELD)
    return out


def _nits(code: pyvips.Image) -> pyvips.Image:
    """Return the luminance that PQ levels, 0 to 1, stand for."""
    root = code ** (1 / _M2)
    above = root - _C1
    above = (above > 0).ifthenelse(above, 0)
    return (above / (root * -_C3 + _C2)) ** (1 / _M1) * _PEAK_NITS


def _level(nits: float) -> float:
    """Return the PQ level of a luminance."""
    share = (nits / _PEAK_NITS) ** _M1
    return float(((_C1 + _C2 * share) / (1 + _C3 * share)) ** _M2)


def _pressed(code: pyvips.Image) -> pyvips.Image:
    """Return PQ levels, 0 to 1, up to `_GRADED_NITS` pressed below `_WHITE_NITS`: the curve of BT.2390 §5.4.1, its knee included."""
    graded = _level(_GRADED_NITS)
    most = _level(_WHITE_NITS) / graded
    knee = 1.5 * most - 0.5
    level = code / graded
    level = (level > 1).ifthenelse(1, level)
    part = (level - knee) / (1 - knee)
    square, cube = part * part, part * part * part
    curve = (cube * 2 - square * 3 + 1) * knee + (cube - square * 2 + part) * (1 - knee) + (cube * -2 + square * 3) * most
    return (level < knee).ifthenelse(level, curve) * graded
