"""TIFF files for tests, written tag by tag (TIFF 6.0), and the colors that they have by arithmetic from the specification."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.generic]

# Values of the tag PhotometricInterpretation.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, SEPARATED, YCBCR, CIELAB, ICCLAB, ITULAB = 0, 1, 2, 3, 4, 5, 6, 8, 9, 10
LOGL, LOGLUV, FILTER_ARRAY, LINEAR_RAW = 32844, 32845, 32803, 34892

# Field types, and how `struct` packs them.
SHORT, LONG, RATIONAL = 3, 4, 5
_FORMATS = {1: "B", 2: "B", SHORT: "H", LONG: "I", RATIONAL: "I", 7: "B", 16: "Q"}
_SIZES = {1: 1, 2: 1, SHORT: 2, LONG: 4, RATIONAL: 8, 7: 1, 16: 8}

Tags = Mapping[int, tuple[int, Sequence[int]]]


def tiff(*pages: tuple[Tags, Sequence[bytes]], order: str = "<", big: bool = False) -> bytes:
    """Return a TIFF with pages, each of which has tags and strips or tiles."""
    body = bytearray(b"II" if order == "<" else b"MM")
    body += struct.pack(f"{order}HHHQ" if big else f"{order}HI", *((43, 8, 0, 0) if big else (42, 0)))
    link = 8 if big else 4
    count_format, size_format, entry_head = ("Q", "Q", "HHQ") if big else ("H", "I", "HHI")
    inline = 8 if big else 4
    for tags, pieces in pages:
        starts = []
        for piece in pieces:
            starts.append(len(body))
            body += piece + bytes(len(piece) % 2)
        tiled = 322 in tags
        every = {
            **tags,
            (324 if tiled else 273): (16 if big else LONG, starts),
            (325 if tiled else 279): (LONG, [len(piece) for piece in pieces]),
        }
        entries = bytearray()
        for tag in sorted(every):
            kind, values = every[tag]
            packed = struct.pack(f"{order}{len(values)}{_FORMATS[kind]}", *values)
            count = len(values) // 2 if kind == RATIONAL else len(values)
            if len(packed) <= inline:
                place = packed.ljust(inline, b"\0")
            else:
                body += bytes(len(body) % 2)
                place = struct.pack(order + size_format, len(body))
                body += packed
            entries += struct.pack(order + entry_head, tag, kind, count) + place
        body += bytes(len(body) % 2)
        struct.pack_into(order + size_format, body, link, len(body))
        body += struct.pack(order + count_format, len(every)) + entries
        link = len(body)
        body += bytes(8 if big else 4)
    return bytes(body)


def page(
    samples: Samples,
    photometric: int,
    *,
    bits: int | None = None,
    order: str = "<",
    planar: bool = False,
    compression: int = 1,
    tiled: bool = False,
    extra: Mapping[int, tuple[int, Sequence[int]]] | None = None,
) -> tuple[Tags, list[bytes]]:
    """Return a page of height × width × bands samples, whose type is the sample format, for `tiff`.

    bits: per sample, if fewer than the type has. order: `<` or `>`, as in `tiff`. extra: tags to add or to replace.
    """
    height, width, bands = samples.shape
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    bits = bits or samples.dtype.itemsize * 8
    tags: dict[int, tuple[int, Sequence[int]]] = {
        256: (LONG, [width]), 257: (LONG, [height]), 258: (SHORT, [bits] * bands), 259: (SHORT, [compression]), 262: (SHORT, [photometric]),
        277: (SHORT, [bands]), 278: (LONG, [height]), 284: (SHORT, [2 if planar else 1]), 339: (SHORT, [kind] * bands),
    }  # fmt: skip
    if tiled:
        side = 16
        del tags[278]
        tags |= {322: (SHORT, [side]), 323: (SHORT, [side])}
        padded = np.pad(samples, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
        blocks = [padded[top : top + side, left : left + side] for top in range(0, height, side) for left in range(0, width, side)]
    else:
        blocks = [samples]
    planes = [block[:, :, band : band + 1] for band in range(bands) for block in blocks] if planar else blocks
    return {**tags, **(extra or {})}, [compressed(pack(plane, bits, order), compression) for plane in planes]


def pack(samples: Samples, bits: int, order: str = "<") -> bytes:
    """Return samples row by row, each row padded to a whole byte."""
    if bits >= 8:
        return samples.astype(samples.dtype.newbyteorder("<" if order == "<" else ">")).tobytes()
    rows = samples.reshape(samples.shape[0], -1).astype(np.uint8)
    spread = (rows[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(spread.reshape(rows.shape[0], -1).astype(np.uint8), axis=1).tobytes()


def compressed(data: bytes, compression: int) -> bytes:
    """Return data compressed by no (1), Deflate (8, 32946) or PackBits (32773, only literal runs) compression; by any other: as it is."""
    if compression in {8, 32_946}:
        return zlib.compress(data)
    if compression == 32_773:
        return b"".join(bytes((len(run) - 1,)) + run for run in (data[start : start + 128] for start in range(0, len(data), 128)))
    return data


def rgb_from_lab(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return sRGB, 0 to 255, of Lab relative to D50 (CIE 15, IEC 61966-2-1, and the Bradford matrix from D50 to D65)."""
    lightness, a, b = (values[:, :, band] for band in range(3))
    y = (lightness + 16) / 116
    cubes = [np.where(t > 6 / 29, t**3, 3 * (6 / 29) ** 2 * (t - 4 / 29)) for t in (y + a / 500, y, y - b / 200)]
    xyz = np.stack([cube * white for cube, white in zip(cubes, (0.9642, 1.0, 0.8249), strict=True)], axis=-1)
    matrix = [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
    linear = np.clip(xyz @ np.array(matrix).T, 0, 1)
    encoded: npt.NDArray[np.float64] = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return encoded
