"""TIFF: what a file's directories declare, read before libtiff counts them; libvips opens one page at a time, and looks for it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

# Bytes of a version, of an entry, of where its value stands, of a value that stands there itself, and how offsets and counts are packed
# (TIFF 6.0 §2; BigTIFF has 64 bits).
_CLASSIC = (4, "H", 12, 8, 4, "I")
_BIG = (8, "Q", 20, 12, 8, "Q")
_BIG_VERSION = 43

_WIDTH, _LENGTH, _COMPRESSION, _ORIENTATION = 256, 257, 259, 274
_OFFSETS, _BYTE_COUNTS = (273, 324), (279, 325)
_PACKED = {3: "H", 4: "I", 16: "Q"}
# Type → bytes of one value; of all others one is as good as any.
_TYPE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_SIDEWAYS = range(5, 9)
_JPEG = frozenset({6, 7})

# A directory of so many entries is none: baseline and all extensions together have less than 200 tags.
_MAX_ENTRIES = 4_096


class Directory(NamedTuple):
    """One page: its size, upright, how many entries its directory has, and how many bytes they refer to besides pixels.

    `pieces` are its strips or tiles. `jpegs` are where those begin and how long they are if they are JPEGs, else nothing.
    """

    width: int
    height: int
    entries: int
    metadata_bytes: int
    pieces: int
    jpegs: Sequence[tuple[int, int]]


def page_sizes(content: memoryview, pages: int) -> list[tuple[int, int]]:
    """Return width and height of the first `pages` pages of a file, upright; raises `ValueError` where a directory lies outside it."""
    return [(page.width, page.height) for page in islice(directories(content, 0), pages)]


def directories(content: memoryview, max_jpegs: int) -> Iterator[Directory]:
    """Yield the directories of a file in order, to the first that comes again; raises `ValueError` where one lies outside the file.

    `jpegs` has no more than `max_jpegs`. Of a directory of more entries than any has only the first are looked at.
    """
    try:
        yield from _directories(content, max_jpegs)
    except (struct.error, OverflowError) as error:
        # The offsets of a BigTIFF may be larger than any that memory has.
        raise ValueError("a directory lies outside the file") from error


class _Entry(NamedTuple):
    kind: int
    values: int
    # Where the values stand, in the entry or elsewhere.
    at: int


class _Listed(NamedTuple):
    found: dict[int, _Entry]
    entries: int
    metadata_bytes: int


def _directories(content: memoryview, max_jpegs: int) -> Iterator[Directory]:
    order = "<" if bytes(content[:2]) == b"II" else ">"
    big = struct.unpack_from(f"{order}H", content, 2)[0] == _BIG_VERSION
    first_at, count_packed, entry_bytes, value_at, value_bytes, offset_packed = _BIG if big else _CLASSIC
    at = struct.unpack_from(order + offset_packed, content, first_at)[0]
    seen: set[int] = set()
    while at and at not in seen:
        seen.add(at)
        count = struct.unpack_from(order + count_packed, content, at)[0]
        entries_at = at + struct.calcsize(count_packed)
        end = entries_at + count * entry_bytes
        found: dict[int, _Entry] = {}
        metadata_bytes = 0
        for entry_at in range(entries_at, min(end, len(content), entries_at + _MAX_ENTRIES * entry_bytes), entry_bytes):
            tag, kind = struct.unpack_from(f"{order}HH", content, entry_at)
            values = struct.unpack_from(order + offset_packed, content, entry_at + 4)[0]
            size = values * _TYPE_BYTES.get(kind, 1)
            where = entry_at + value_at
            if size > value_bytes:
                where = struct.unpack_from(order + offset_packed, content, where)[0]
            found[tag] = _Entry(kind, values, where)
            if tag not in _OFFSETS + _BYTE_COUNTS and size > value_bytes:
                # What lies outside the file is not read.
                metadata_bytes += max(0, min(size, len(content) - where))
        yield _directory(content, order, _Listed(found, count, metadata_bytes), max_jpegs)
        at = struct.unpack_from(order + offset_packed, content, end)[0]


def _directory(content: memoryview, order: str, listed: _Listed, max_jpegs: int) -> Directory:
    found = listed.found

    def first(tag: int, default: int) -> int:
        return next(iter(_numbers(content, order, found.get(tag), 1)), default)

    width, height = first(_WIDTH, 0), first(_LENGTH, 0)
    if first(_ORIENTATION, 1) in _SIDEWAYS:
        width, height = height, width
    offsets, byte_counts = (next((found[tag] for tag in tags if tag in found), None) for tags in (_OFFSETS, _BYTE_COUNTS))
    jpegs: list[tuple[int, int]] = []
    if first(_COMPRESSION, 1) in _JPEG:
        starts, sizes = (_numbers(content, order, entry, max_jpegs) for entry in (offsets, byte_counts))
        jpegs = list(zip(starts, sizes, strict=False))
    return Directory(width, height, listed.entries, listed.metadata_bytes, offsets.values if offsets else 0, jpegs)


def _numbers(content: memoryview, order: str, entry: _Entry | None, most: int) -> Sequence[int]:
    """Return the first `most` values of an entry, nothing of one that is missing, holds no whole numbers, or lies outside the file."""
    if entry is None or entry.kind not in _PACKED:
        return ()
    packed = f"{order}{min(entry.values, most)}{_PACKED[entry.kind]}"
    if entry.at + struct.calcsize(packed) > len(content):
        return ()
    return struct.unpack_from(packed, content, entry.at)
