"""TIFF: the sizes of a file's pages, which may differ, read from its directories: libvips opens one page at a time, and looks for it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

# Bytes of a version, of an entry, of where its value stands, and how offsets and counts are packed (TIFF 6.0 §2; BigTIFF has 64 bits).
_CLASSIC = (4, "H", 12, 8, "I")
_BIG = (8, "Q", 20, 12, "Q")
_BIG_VERSION = 43

_WIDTH, _LENGTH, _ORIENTATION = 256, 257, 274
_PACKED = {3: "H", 4: "I", 16: "Q"}
_SIDEWAYS = range(5, 9)


def page_sizes(content: memoryview, pages: int) -> list[tuple[int, int]]:
    """Return width and height of the first `pages` pages of a file, upright; raises `ValueError` where a directory lies outside it."""
    try:
        return [size for size, _ in zip(_sizes(content), range(pages), strict=False)]
    except struct.error as error:
        raise ValueError("a directory lies outside the file") from error


def _sizes(content: memoryview) -> Iterator[tuple[int, int]]:
    order = "<" if bytes(content[:2]) == b"II" else ">"
    big = struct.unpack_from(f"{order}H", content, 2)[0] == _BIG_VERSION
    first_at, count_packed, entry_bytes, value_at, offset_packed = _BIG if big else _CLASSIC
    at = struct.unpack_from(order + offset_packed, content, first_at)[0]
    while at:
        count = struct.unpack_from(order + count_packed, content, at)[0]
        entries_at = at + struct.calcsize(count_packed)
        end = entries_at + count * entry_bytes
        found = {_WIDTH: 0, _LENGTH: 0, _ORIENTATION: 1}
        for entry in range(entries_at, min(end, len(content)), entry_bytes):
            tag, kind = struct.unpack_from(f"{order}HH", content, entry)
            if tag in found and kind in _PACKED:
                found[tag] = struct.unpack_from(order + _PACKED[kind], content, entry + value_at)[0]
        width, height = found[_WIDTH], found[_LENGTH]
        yield (height, width) if found[_ORIENTATION] in _SIDEWAYS else (width, height)
        at = struct.unpack_from(order + offset_packed, content, end)[0]
