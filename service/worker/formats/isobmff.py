"""ISO base media files (ISO/IEC 14496-12 §4.2), which hold AVIF and HEIC images: reads the boxes that libheif does not pass to libvips."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple


class NclxColors(NamedTuple):
    """The color space of a picture without an ICC profile, as code points of ITU-T H.273, tables 2 and 3."""

    primaries: int
    transfer: int


def first(content: bytes | memoryview, kind: bytes) -> memoryview:
    """Return the content of the first box of type `kind`, empty if there is none."""
    return next((inside for found, inside in _boxes(content) if found == kind), memoryview(b""))


def count(content: bytes | memoryview, limit: int) -> int:
    """Return the number of top-level boxes. Counting stops at `limit` + 1."""
    return sum(1 for _ in islice(_boxes(content), limit + 1))


def brands(body: bytes | memoryview) -> frozenset[bytes]:
    """Return the brands of a file, major and compatible, from its `ftyp` box."""
    inside = first(body, b"ftyp")
    return frozenset(bytes(inside[start : start + 4]) for start in range(0, len(inside), 4) if start != 4)


def nclx_colors(body: bytes | memoryview) -> NclxColors | None:
    """Return the content of the first `colr` box of type `nclx` (ISO/IEC 14496-12 §12.1.5), `None` if there is none.

    It belongs to the primary picture in all known files.
    """
    # `meta` begins with four bytes of version and flags.
    properties = first(first(first(body, b"meta")[4:], b"iprp"), b"ipco")
    for kind, inside in _boxes(properties):
        if kind == b"colr" and bytes(inside[:4]) == b"nclx" and len(inside) >= 8:
            return NclxColors(int.from_bytes(inside[4:6], "big"), int.from_bytes(inside[6:8], "big"))
    return None


def _boxes(body: bytes | memoryview) -> Iterator[tuple[bytes, memoryview]]:
    content = memoryview(body)
    position = 0
    while position + 8 <= len(content):
        size, header = int.from_bytes(content[position : position + 4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(content[position + 8 : position + 16], "big"), 16
        size = size or len(content) - position
        yield bytes(content[position + 4 : position + 8]), content[position + header : position + size]
        position += max(size, header)
