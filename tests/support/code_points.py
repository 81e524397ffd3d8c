"""Color spaces without ICC profiles: files that state them, and their colors by the arithmetic of the standards, written independently."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pillow_heif
import pyvips
from PIL import Image

Levels = npt.NDArray[np.float64]
Chunk = tuple[bytes, bytes]

# ITU-T H.273, table 2: x and y of red, green, blue and white.
PRIMARIES: Mapping[int, tuple[tuple[float, float], ...]] = {
    1: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), (0.3127, 0.3290)),
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), (0.310, 0.316)),
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), (0.3127, 0.3290)),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), (0.3127, 0.3290)),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), (0.3127, 0.3290)),
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), (0.310, 0.316)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), (0.3127, 0.3290)),
    10: ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1 / 3, 1 / 3)),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.3127, 0.3290)),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), (0.3127, 0.3290)),
}
SRGB, REC_2020, DISPLAY_P3 = 1, 9, 12
PQ, HLG = 16, 18
# Curves of cameras, which Chromium takes for sRGB in AVIF and for a power of 2.4 in PNG; and the other curves of table 3 that both know.
CAMERA_CURVES = (1, 6, 14, 15)
CURVES = (*CAMERA_CURVES, 4, 5, 7, 8, 13, PQ, 17, HLG)

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])
_WHITE_NITS = 203


@functools.cache
def palette() -> Levels:
    """Return 27 × 27 levels, 0 to 1: red, green and blue in nine steps each."""
    steps = np.linspace(0, 1, 9)
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(27, 27, 3)


def in_srgb(levels: Levels, primaries: int, transfer: int, *, png: bool = False, max_nits: float = 1_000) -> Levels:
    """Return colors, 0 to 1, of code points of H.273 in levels of sRGB, 0 to 255, as Chromium shows them on an ordinary screen.

    `max_nits`: of the brightest level of PQ.
    """
    colors = PRIMARIES[primaries]
    if transfer == PQ:
        return encoded_srgb(_tone_mapped(pq_nits(levels) / _WHITE_NITS, colors, max_nits))
    if transfer == HLG:
        scene = np.where(levels <= 0.5, levels**2 / 3, (np.exp((levels - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        luminance = (scene @ _to_xyz(colors)[1])[..., None]
        return encoded_srgb(_tone_mapped(scene * luminance**0.2 * 1_000 / _WHITE_NITS, colors, 1_000))
    return in_srgb_by_primaries(_linear(levels, transfer, png=png), colors)


def in_srgb_by_primaries(light: Levels, colors: Sequence[tuple[float, float]]) -> Levels:
    """Return linear light in primaries and white by their chromaticities in levels of sRGB, 0 to 255."""
    return encoded_srgb(light @ _between(colors, PRIMARIES[SRGB]).T)


def _linear(levels: Levels, transfer: int, *, png: bool) -> Levels:
    if transfer in CAMERA_CURVES and png:
        return levels**2.4
    if transfer == 7:
        return np.where(levels < 0.0912863, levels / 4, ((levels + 0.111572) / 1.111572) ** (1 / 0.45))
    if transfer == 17:
        return levels**2.6 * 52.37 / 48
    power = {4: 2.2, 5: 2.8, 8: 1.0}.get(transfer)
    if power is not None:
        return levels**power
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def encoded_srgb(light: Levels) -> Levels:
    """Return linear light, 0 to 1, in levels of sRGB, 0 to 255; light beyond is clipped."""
    light = light.clip(0, 1)
    return np.asarray(np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255)


def pq_levels(nits: Levels) -> Levels:
    """Return the PQ levels, 0 to 1, of luminances (SMPTE ST 2084)."""
    share = (nits / 10_000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * share) / (1 + 18.6875 * share)) ** 78.84375)


def pq_nits(levels: Levels) -> Levels:
    """Return the luminances of PQ levels, 0 to 1."""
    root = levels ** (1 / 78.84375)
    return np.asarray(10_000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125))


def _tone_mapped(light: Levels, colors: Sequence[tuple[float, float]], max_nits: float) -> Levels:
    """Return light, 1 for white, in linear light of sRGB by the reference white tone mapping operator of SMPTE ST 2094-50, annex C.

    Light up to white is scaled; above, the strongest of red, green and blue in Rec. 2020 follows a quadratic Bézier curve to the peak.
    """
    light = light @ _between(colors, PRIMARIES[REC_2020]).T
    peak = max(max_nits / _WHITE_NITS, 1 + 1e-9)
    white = 1 - 0.5 * min(np.log(peak) / np.log(1_000 / _WHITE_NITS), 1)
    t = np.linspace(0, 1, 10_001)
    middle = 0.35 + 0.65 / white, 0.35 * white + 0.65
    x, y = (
        (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end for start, bend, end in zip((1, white), middle, (peak, 1), strict=True)
    )
    strongest = np.maximum(light.max(axis=-1, keepdims=True), 1e-9)
    light = light * np.where(strongest <= 1, white, np.interp(strongest, x, y) / strongest)
    return np.asarray(light @ _between(PRIMARIES[REC_2020], PRIMARIES[SRGB]).T)


def _between(source: Sequence[tuple[float, float]], target: Sequence[tuple[float, float]]) -> Levels:
    return np.linalg.inv(_to_d50(target)) @ _to_d50(source)


def _to_d50(colors: Sequence[tuple[float, float]]) -> Levels:
    gains = (_BRADFORD @ _D50) / (_BRADFORD @ _xyz(colors[3]))
    return np.asarray(np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD @ _to_xyz(colors))


def _to_xyz(colors: Sequence[tuple[float, float]]) -> Levels:
    columns = np.array([[x, y, 1 - x - y] for x, y in colors[:3]]).T
    return columns * np.linalg.solve(columns, _xyz(colors[3]))


def _xyz(color: tuple[float, float]) -> Levels:
    x, y = color
    return np.array([x / y, 1, (1 - x - y) / y])


# Files.


def image_of(levels: Levels, bits: int = 16) -> pyvips.Image:
    """Return levels, 0 to 1, of height × width × bands as an image of 8 or 16 bits."""
    samples = np.round(levels * ((1 << bits) - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    height, width, bands = samples.shape
    image = pyvips.Image.new_from_memory(samples.tobytes(), width, height, bands, "uchar" if bits == 8 else "ushort")
    return image.copy(interpretation="srgb" if bits == 8 else "rgb16")


def lossless_avif(levels: Levels, bits: int = 10) -> bytes:
    """Return levels, 0 to 1, as an AVIF without loss: RGB in the full range, which states sRGB."""
    return bytes(image_of(levels, 8 if bits == 8 else 16).heifsave_buffer(compression="av1", bitdepth=bits, lossless=True))


@functools.cache
def lossless_heic() -> bytes:
    """Return the palette as a HEIC without loss: RGB of 10 bits in the full range, which states sRGB."""
    samples = np.round(palette() * 1_023).astype(np.uint16) << 6
    picture = pillow_heif.from_bytes("RGB;16", (samples.shape[1], samples.shape[0]), samples.tobytes())
    picture[0].info["bit_depth"] = 10
    body = io.BytesIO()
    code_points = {"color_primaries": SRGB, "transfer_characteristics": 13, "matrix_coefficients": 0, "full_range_flag": 1}
    picture.save(body, quality=-1, chroma=444, enc_params={"preset": "ultrafast"}, **code_points)
    return body.getvalue()


def avif(picture: Image.Image, **options: object) -> bytes:
    """Return a picture as an AVIF of Pillow."""
    body = io.BytesIO()
    picture.save(body, "AVIF", **{"quality": 95, "subsampling": "4:4:4", "speed": 9, **options})
    return body.getvalue()


def heic(picture: Image.Image, *, subsampling: str = "4:4:4", range: str = "full") -> bytes:  # noqa: A002 - as in Pillow's AVIF
    """Return a picture as a HEIC that states sRGB, with the matrix of BT.601 and the full or the limited range."""
    body = io.BytesIO()
    colors = {"color_primaries": SRGB, "transfer_characteristics": 13, "matrix_coefficients": 6, "full_range_flag": range == "full"}
    chroma = int(subsampling.replace(":", ""))
    pillow_heif.from_pillow(picture).save(body, quality=95, chroma=chroma, enc_params={"preset": "ultrafast"}, **colors)
    return body.getvalue()


def with_nclx(body: bytes, primaries: int, transfer: int, matrix: int | None = None, *, full: bool | None = None) -> bytes:
    """Return an AVIF or HEIC with other code points in its `nclx` box than its encoder wrote."""
    at = body.index(b"colrnclx") + 8
    stated = body[at + 4 : at + 6] if matrix is None else struct.pack(">H", matrix)
    value_range = body[at + 6 : at + 7] if full is None else bytes([full << 7])
    return body[:at] + struct.pack(">HH", primaries, transfer) + stated + value_range + body[at + 7 :]


def png(levels: Levels, chunks: Iterable[Chunk] = (), bits: int = 8) -> bytes:
    """Return levels, 0 to 1, of height × width × bands as a PNG with more chunks before its pixels."""
    height, width, bands = levels.shape
    samples = np.round(levels * ((1 << bits) - 1)).astype(">u2" if bits == 16 else np.uint8)
    rows = b"".join(b"\0" + samples[row].tobytes() for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, bits, {1: 0, 2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def cicp(primaries: int, transfer: int, matrix: int = 0, full: int = 1) -> Chunk:
    return b"cICP", bytes((primaries, transfer, matrix, full))


def gama(gamma: float) -> Chunk:
    return b"gAMA", struct.pack(">I", round(gamma * 100_000))


def chrm(primaries: int) -> Chunk:
    red, green, blue, white = PRIMARIES[primaries]
    return b"cHRM", struct.pack(">8I", *(round(value * 100_000) for color in (white, red, green, blue) for value in color))


def iccp(profile: bytes) -> Chunk:
    return b"iCCP", b"profile\0\0" + zlib.compress(profile)


SRGB_CHUNK: Chunk = (b"sRGB", b"\0")


def clli(max_nits: float) -> Chunk:
    return b"cLLI", struct.pack(">II", round(max_nits * 10_000), 0)


def mdcv(max_nits: float) -> Chunk:
    return b"mDCV", struct.pack(">8HII", 35_400, 14_600, 8_500, 39_850, 6_550, 2_300, 15_635, 16_450, round(max_nits * 10_000), 50)
