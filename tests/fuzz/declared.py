"""The number of pixels that a file declares, read leniently: images that declare few pixels must not be costly to render."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from contextlib import suppress

from tests.fuzz.containers import gif_parts, jpeg_parts, png_parts, riff_parts, tiff_entries
from tests.fuzz.seeds import Kind

# Returned for a file in which no declared size was found.
UNKNOWN_PIXELS = 1 << 62


def pixels(kind: Kind, body: bytes) -> int:
    """Return the largest number of pixels that the file declares, of all frames together; `UNKNOWN_PIXELS` if it cannot be read."""
    readers: dict[Kind, Callable[[bytes], int]] = {
        "png": _png,
        "jpeg": _jpeg,
        "gif": _gif,
        "webp": _webp,
        "avif": _boxes,
        "heic": _boxes,
        "tiff": _tiff,
    }
    reader = readers.get(kind)
    if reader is not None:
        with suppress(struct.error, IndexError):
            return reader(body) or UNKNOWN_PIXELS
    return UNKNOWN_PIXELS


def _png(body: bytes) -> int:
    sides = [struct.unpack_from(">II", part, 4) for part in png_parts(body) if part.startswith(b"IHDR")]
    return max((width * height for width, height in sides), default=0)


def _jpeg(body: bytes) -> int:
    frames = [part for part in jpeg_parts(body) if re.match(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]", part)]
    sides = [struct.unpack_from(">HH", frame, 3) for frame in frames]
    return max((width * height for height, width in sides), default=0)


def _gif(body: bytes) -> int:
    blocks = [part for part in gif_parts(body) if part.startswith(b",") and len(part) >= 10]
    # Frames may extend the canvas.
    places = [struct.unpack_from("<HHHH", block, 1) for block in blocks]
    width, height = struct.unpack_from("<HH", body, 6)
    right = max([width, *(left + across for left, _, across, _ in places)])
    bottom = max([height, *(top + down for _, top, _, down in places)])
    return int(right * bottom) * max(1, len(blocks))


def _webp(body: bytes) -> int:
    found, frames = [], 0
    for part in riff_parts(body):
        frames += part.startswith(b"ANMF")
        if part.startswith((b"VP8X", b"ANMF")):
            at = 8 if part.startswith(b"VP8X") else 10
            found.append((1 + int.from_bytes(part[at : at + 3], "little")) * (1 + int.from_bytes(part[at + 3 : at + 6], "little")))
        elif part.startswith(b"VP8L"):
            packed = int.from_bytes(part[5:9], "little")
            found.append((1 + (packed & 0x3FFF)) * (1 + (packed >> 14 & 0x3FFF)))
        elif part.startswith(b"VP8 "):
            width, height = struct.unpack_from("<HH", part, 10)
            found.append((width & 0x3FFF) * (height & 0x3FFF))
    return max(found, default=0) * max(1, frames)


def _tiff(body: bytes) -> int:
    order = "<" if body.startswith(b"II") else ">"
    sides: dict[int, list[int]] = {256: [], 257: []}
    for at, size in tiff_entries(body):
        tag, kind = struct.unpack_from(f"{order}HH", body, at)
        if tag in sides:
            value_at = at + size - (4 if size == 12 else 8)
            sides[tag].append(struct.unpack_from(order + ("H" if kind == 3 else "I"), body, value_at)[0])
    return max(sides[256], default=0) * max(sides[257], default=0) * max(1, len(sides[256]))


def _boxes(body: bytes) -> int:
    # Every size that the boxes declare. The coded pictures have their own sizes, which may be larger and are not read.
    found = [struct.unpack_from(">II", body, match.end() + 4) for match in re.finditer(b"ispe", body)]
    return max((width * height for width, height in found), default=0)
