"""The boxes of AVIF and HEIC files (ISO/IEC 14496-12 §4.2), as far as something is to be known that libheif does not tell libvips."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple


class Colours(NamedTuple):
    """What a file says of its colours in place of a profile: code points of ITU-T H.273, tables 2 and 3."""

    primaries: int
    transfer: int


def first(content: bytes | memoryview, kind: bytes) -> memoryview:
    """Return what is in the first box of a kind, nothing where there is none."""
    return next((inside for found, inside in _boxes(content) if found == kind), memoryview(b""))


def count(content: bytes | memoryview, most: int) -> int:
    """Return how many boxes there are on the highest level, of no more than one more than `most`."""
    return sum(1 for _ in islice(_boxes(content), most + 1))


def brands(source: bytes | memoryview) -> frozenset[bytes]:
    """Return what a file says it can be read as (its `ftyp` box)."""
    inside = first(source, b"ftyp")
    return frozenset(bytes(inside[at : at + 4]) for at in range(0, len(inside), 4) if at != 4)


def colours(source: bytes | memoryview) -> Colours | None:
    """Return what the first `colr` box of type `nclx` says (ISO/IEC 14496-12 §12.1.5): that of the primary picture in all files known."""
    # Four bytes of version and flags come before what is in `meta`.
    properties = first(first(first(source, b"meta")[4:], b"iprp"), b"ipco")
    for kind, inside in _boxes(properties):
        if kind == b"colr" and bytes(inside[:4]) == b"nclx" and len(inside) >= 8:
            return Colours(int.from_bytes(inside[4:6], "big"), int.from_bytes(inside[6:8], "big"))
    return None


def _boxes(source: bytes | memoryview) -> Iterator[tuple[bytes, memoryview]]:
    content = memoryview(source)
    at = 0
    while at + 8 <= len(content):
        size, start = int.from_bytes(content[at : at + 4], "big"), 8
        if size == 1:
            size, start = int.from_bytes(content[at + 8 : at + 16], "big"), 16
        size = size or len(content) - at
        yield bytes(content[at + 4 : at + 8]), content[at + start : at + size]
        at += max(size, start)
