"""Color spaces that a file states without an ICC profile: primaries and a transfer function, as numbers or code points of ITU-T H.273."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

# CIE 1931 x and y of a color.
Chromaticity: TypeAlias = tuple[float, float]
Matrix: TypeAlias = tuple[tuple[float, ...], ...]

# A curve from encoded levels to linear light, both 0 to 1, by the parameters of `parametricCurveType` (ICC.1:2022 §10.18): one for a power,
# three for a power with an offset, five for a power with a linear segment.
Curve: TypeAlias = tuple[float, ...]


# The luminance that pictures are graded for, in cd/m²; it is assumed for those that state none.
DEFAULT_MAX_NITS = 1_000.0


class Primaries(NamedTuple):
    """The chromaticities of red, green, blue and white."""

    red: Chromaticity
    green: Chromaticity
    blue: Chromaticity
    white: Chromaticity


class ColorSpace(NamedTuple):
    """The meaning of the levels of red, green and blue.

    transfer: a curve, or the code point `PQ` or `HLG`, whose levels reach beyond the white of an ordinary screen.
    max_nits: the luminance of the brightest level that a picture with PQ or HLG uses, in cd/m².
    """

    primaries: Primaries
    transfer: Curve | int
    max_nits: float = DEFAULT_MAX_NITS

    @property
    def is_hdr(self) -> bool:
        """Return whether the levels reach beyond the white of an ordinary screen."""
        return isinstance(self.transfer, int)

    @property
    def is_srgb(self) -> bool:
        """Return whether this is sRGB, which browsers assume for images that state nothing."""
        return self[:2] == SRGB[:2]

    @property
    def is_display_p3(self) -> bool:
        """Return whether this is Display P3."""
        return self[:2] == DISPLAY_P3[:2]


# Code points of color primaries (ITU-T H.273, table 2).
SRGB_PRIMARIES, REC_2020_PRIMARIES, DISPLAY_P3_PRIMARIES = 1, 9, 12
_D65, _C = (0.3127, 0.3290), (0.310, 0.316)
_SMPTE_170M = Primaries((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65)
PRIMARIES: Mapping[int, Primaries] = {
    SRGB_PRIMARIES: Primaries((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    4: Primaries((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    5: Primaries((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _D65),
    6: _SMPTE_170M,
    7: _SMPTE_170M,
    8: Primaries((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    REC_2020_PRIMARIES: Primaries((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    10: Primaries((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1 / 3, 1 / 3)),
    11: Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    DISPLAY_P3_PRIMARIES: Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
    22: Primaries((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),
}

# Code points of transfer characteristics (H.273, table 3).
UNSPECIFIED, PQ, HLG = 2, 16, 18
SRGB_CURVE: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
# SMPTE 240M (code point 7), and SMPTE ST 428-1 (17), whose peak is 52.37 cd/m² and whose white is 48.
_SMPTE_240M: Curve = (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0913)
_ST_428: Curve = (2.6, (52.37 / 48) ** (1 / 2.6), 0.0)
_CURVES: Mapping[int, Curve | int] = {
    4: (2.2,),
    5: (2.8,),
    7: _SMPTE_240M,
    8: (1.0,),
    13: SRGB_CURVE,
    PQ: PQ,
    17: _ST_428,
    HLG: HLG,
}
SRGB = ColorSpace(PRIMARIES[SRGB_PRIMARIES], SRGB_CURVE)
DISPLAY_P3 = ColorSpace(PRIMARIES[DISPLAY_P3_PRIMARIES], SRGB_CURVE)

# Code points of one camera curve: Rec. 709, Rec. 601, xvYCC and Rec. 2020. They define how light is recorded, not how it is shown.
_CAMERA_CURVES = frozenset({1, 6, 11, 14, 15})
# The curve of a television (ITU-R BT.1886), with which browsers show camera curves in a PNG. In AVIF they take them for sRGB.
_BT_1886: Curve = (2.4,)

# The Bradford transform (ICC.1:2022 annex E), and the white point of ICC's connection space.
_BRADFORD: Matrix = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
D50_XYZ = (0.9642, 1.0, 0.8249)

# Exponents of `gAMA` within 5% of sRGB's, and chromaticities of `cHRM` as near as this to sRGB's, mean sRGB.
_NEAR_SRGB_GAMMA, _NEAR_CHROMATICITY = (0.95 / 2.2, 1.05 / 2.2), 0.002
# Each primary contributes more than this to the luminance of white.
_MIN_LUMINANCE = 1e-4


def from_png_code_points(primaries: int, transfer: int) -> ColorSpace | None:
    """Return the color space of a PNG's `cICP` chunk, `None` if a code point is unknown, for which Chromium ignores the chunk."""
    curve = _BT_1886 if transfer in _CAMERA_CURVES else _CURVES.get(transfer)
    if primaries not in PRIMARIES or curve is None:
        return None
    return ColorSpace(PRIMARIES[primaries], curve)


def from_video_code_points(primaries: int, transfer: int) -> ColorSpace:
    """Return the color space of an AVIF or HEIC. Code points that are unspecified or unknown stand for sRGB (ISO/IEC 23000-22 §7.3.6.4)."""
    return ColorSpace(PRIMARIES.get(primaries, PRIMARIES[SRGB_PRIMARIES]), _CURVES.get(transfer, SRGB_CURVE))


def from_gamma(gamma: float, primaries: Primaries | None) -> ColorSpace | None:
    """Return the color space of a PNG's `gAMA` and `cHRM` chunks, `None` if they are impossible or close to sRGB.

    gamma: the exponent with which light was encoded, such as 0.45455 (PNG, third edition, §11.3.2.2).
    primaries: `None` for those of sRGB.
    """
    if gamma <= 0 or (primaries is not None and not _is_possible(primaries)):
        return None
    srgb = PRIMARIES[SRGB_PRIMARIES]
    near_srgb = primaries is None or all(
        abs(found - expected) < _NEAR_CHROMATICITY
        for one, other in zip(primaries, srgb, strict=True)
        for found, expected in zip(one, other, strict=True)
    )
    if near_srgb and _NEAR_SRGB_GAMMA[0] < gamma < _NEAR_SRGB_GAMMA[1]:
        return None
    return ColorSpace(primaries or srgb, (1 / gamma,))


def _is_possible(primaries: Primaries) -> bool:
    """Return whether white is a mixture of three different primaries, so that all of them emit light."""
    try:
        return all(level > _MIN_LUMINANCE for level in luminances(primaries))
    except ZeroDivisionError:
        return False


def code_points(space: ColorSpace) -> tuple[int, int]:
    """Return the code points of the primaries, which are in `PRIMARIES`, and of the transfer of an HDR color space."""
    if not isinstance(space.transfer, int):
        raise TypeError("the color space is not HDR")
    return next(code for code, known in PRIMARIES.items() if known == space.primaries), space.transfer


def matrix_between(source: Primaries, target: Primaries) -> Matrix:
    """Return the 3 × 3 matrix from linear light in `source` to linear light in `target`, adapted to the white point (Bradford)."""
    return _product(_inverse(rgb_to_d50(target)), rgb_to_d50(source))


def luminances(primaries: Primaries) -> tuple[float, float, float]:
    """Return the share of each primary in the luminance of white."""
    red, green, blue = _rgb_to_xyz(primaries)[1]
    return red, green, blue


def rgb_to_d50(primaries: Primaries) -> Matrix:
    """Return the matrix from linear light to CIE XYZ, adapted to the white point of ICC's connection space (Bradford)."""
    white = _product(_BRADFORD, tuple((value,) for value in _white_xyz(primaries)))
    target = _product(_BRADFORD, tuple((value,) for value in D50_XYZ))
    scales = [target[row][0] / white[row][0] for row in range(3)]
    scaled = tuple(tuple(value * scale for value in row) for row, scale in zip(_BRADFORD, scales, strict=True))
    return _product(_product(_inverse(_BRADFORD), scaled), _rgb_to_xyz(primaries))


def _rgb_to_xyz(primaries: Primaries) -> Matrix:
    """Return the matrix from linear light to CIE XYZ (SMPTE RP 177). Raises `ZeroDivisionError`."""
    colors = tuple(zip(*((x, y, 1 - x - y) for x, y in primaries[:3]), strict=True))
    strengths = _product(_inverse(colors), tuple((value,) for value in _white_xyz(primaries)))
    return tuple(tuple(value * strengths[column][0] for column, value in enumerate(row)) for row in colors)


def _white_xyz(primaries: Primaries) -> tuple[float, float, float]:
    x, y = primaries.white
    return x / y, 1.0, (1 - x - y) / y


def _product(left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]) -> Matrix:
    columns = list(zip(*right, strict=True))
    return tuple(tuple(sum(a * b for a, b in zip(row, column, strict=True)) for column in columns) for row in left)


def _inverse(matrix: Sequence[Sequence[float]]) -> Matrix:
    """Return the inverse of a 3 × 3 matrix. Raises `ZeroDivisionError`."""
    (a, b, c), (d, e, f), (g, h, i) = matrix
    rows = (
        (e * i - f * h, c * h - b * i, b * f - c * e),
        (f * g - d * i, a * i - c * g, c * d - a * f),
        (d * h - e * g, b * g - a * h, a * e - b * d),
    )
    determinant = a * rows[0][0] + b * rows[1][0] + c * rows[2][0]
    return tuple(tuple(value / determinant for value in row) for row in rows)
