"""Splits files into parts and joins them again: PNG chunks, JPEG segments, GIF blocks, RIFF chunks, ISO-BMFF boxes, tokens of SVG.

Splitting never fails: bytes that are no valid part become the last part or are dropped. Joining writes new lengths and checksums, so
that a decoder does not reject a mutated part at once.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# JPEG markers without a length: TEM, RST0 to RST7, SOI, EOI (ITU-T T.81, table B.1).
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xDA)})
_START_OF_SCAN = 0xDA

_TOKEN = re.compile(rb"<[^>]*>?|[^<]+")


class Container(NamedTuple):
    """The functions that split files of one format into parts and join them again."""

    split: Callable[[bytes], list[bytes]]
    join: Callable[[list[bytes]], bytes]


def png_parts(body: bytes) -> list[bytes]:
    """Return the chunks of a PNG. Each consists of its type and its data (W3C PNG §5.3)."""
    parts, at = [], len(PNG_SIGNATURE)
    while at + 8 <= len(body):
        end = at + 8 + int.from_bytes(body[at : at + 4], "big")
        parts.append(body[at + 4 : end])
        at = end + 4
    return parts


def png_file(parts: list[bytes]) -> bytes:
    """Return a PNG of these chunks, with the right lengths and checksums."""
    whole = [part.ljust(4, b"\0") for part in parts]
    return PNG_SIGNATURE + b"".join(struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in whole)


def jpeg_parts(body: bytes) -> list[bytes]:
    """Return the segments of a JPEG. Each consists of its marker and its parameters without the length; coded data is its own part."""
    parts, at = [], 0
    while at < len(body):
        marker = body[at + 1] if body[at] == 0xFF and at + 1 < len(body) else None
        if marker is None or marker in {0x00, 0xFF}:
            end = _next_marker(body, at + 1)
            parts.append(body[at:end])
        elif marker in _BARE_MARKERS:
            end = at + 2
            parts.append(body[at:end])
        else:
            end = at + 2 + max(2, int.from_bytes(body[at + 2 : at + 4], "big"))
            parts.append(body[at : at + 2] + body[at + 4 : end])
        at = end
    return parts


def jpeg_file(parts: list[bytes]) -> bytes:
    """Return a JPEG of these segments, with the right lengths."""
    return b"".join(_jpeg_segment(part) for part in parts)


def gif_parts(body: bytes) -> list[bytes]:
    """Return the blocks of a GIF: header with the color table, extensions, images, trailer (GIF89a, appendix B)."""
    at = 13 + _table_bytes(body, 10)
    parts = [body[:at]]
    while at < len(body):
        start = at
        if body[at] == 0x2C:
            at += 10 + _table_bytes(body, at + 9) + 1
        else:
            at += 2 if body[at] == 0x21 else 1
        if body[start] in {0x2C, 0x21}:
            while at < len(body) and body[at]:
                at += 1 + body[at]
            at += 1
        parts.append(body[start:at])
    return parts


def riff_parts(body: bytes) -> list[bytes]:
    """Return the chunks of a WebP. Each consists of its FourCC and its data."""
    parts, at = [], 12
    while at + 8 <= len(body):
        size = int.from_bytes(body[at + 4 : at + 8], "little")
        parts.append(body[at : at + 4] + body[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    return parts


def riff_file(parts: list[bytes]) -> bytes:
    """Return a WebP of these chunks, with the right sizes."""
    whole = [part.ljust(4, b"\0") for part in parts]
    chunks = b"".join(part[:4] + struct.pack("<I", len(part) - 4) + part[4:] + bytes(len(part) % 2) for part in whole)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def box_parts(body: bytes) -> list[bytes]:
    """Return the top-level boxes of an AVIF or HEIC. Each consists of its type and its content (ISO/IEC 14496-12 §4.2)."""
    parts, at = [], 0
    while at + 8 <= len(body):
        size = int.from_bytes(body[at : at + 4], "big")
        end = at + size if size >= 8 else len(body)
        parts.append(body[at + 4 : end])
        at = end
    return parts


def box_file(parts: list[bytes]) -> bytes:
    """Return a file of these boxes, with the right sizes."""
    return b"".join(struct.pack(">I", 4 + max(4, len(part))) + part.ljust(4, b"\0") for part in parts)


def svg_parts(body: bytes) -> list[bytes]:
    """Return the tags of an SVG document and the text between them."""
    return _TOKEN.findall(body)


def tiff_entries(body: bytes) -> Iterator[tuple[int, int]]:
    """Yield the offset and the size of every directory entry of a TIFF or BigTIFF."""
    order = "<" if body.startswith(b"II") else ">"
    # A mutated offset may lie outside the file.
    with suppress(struct.error, OverflowError):
        big = struct.unpack_from(f"{order}H", body, 2)[0] == 43
        link, count_format, size = ("Q", "Q", 20) if big else ("I", "H", 12)
        at = struct.unpack_from(order + link, body, 8 if big else 4)[0]
        for _ in range(16):
            count = struct.unpack_from(order + count_format, body, at)[0]
            first = at + struct.calcsize(count_format)
            for number in range(min(count, 64)):
                if first + (number + 1) * size <= len(body):
                    yield first + number * size, size
            at = struct.unpack_from(order + link, body, first + count * size)[0]


CONTAINERS: dict[str, Container] = {
    "png": Container(png_parts, png_file),
    "jpeg": Container(jpeg_parts, jpeg_file),
    "gif": Container(gif_parts, b"".join),
    "webp": Container(riff_parts, riff_file),
    "avif": Container(box_parts, box_file),
    "heic": Container(box_parts, box_file),
    "svg": Container(svg_parts, b"".join),
}


def _next_marker(body: bytes, at: int) -> int:
    """Return the end of the coded data from `at`: the next marker except for stuffed bytes and restarts (ITU-T T.81 §B.1.1.5)."""
    while (at := body.find(b"\xff", at)) != -1 and at + 1 < len(body):
        if body[at + 1] != 0 and not 0xD0 <= body[at + 1] <= 0xD7:
            return at
        at += 2
    return len(body)


def _jpeg_segment(part: bytes) -> bytes:
    is_segment = len(part) >= 2 and part[0] == 0xFF and part[1] not in _BARE_MARKERS and part[1] not in {0x00, 0xFF}
    return part[:2] + struct.pack(">H", min(len(part), 0xFFFF)) + part[2:] if is_segment else part


def _table_bytes(body: bytes, flags_at: int) -> int:
    """Return the size in bytes of the color table that the flags at `flags_at` declare."""
    flags = body[flags_at] if flags_at < len(body) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
