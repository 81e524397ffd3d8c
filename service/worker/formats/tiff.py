"""TIFF: reads the directories of all pages in one pass and within limits; libvips opens one page at a time, each from the start."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from service.worker.orientation import upright_size


class _Layout(NamedTuple):
    """How numbers are packed (TIFF 6.0 §2; BigTIFF has 64 bits).

    first_directory: where the file states the offset of its first directory.
    count_format, offset_format: of `struct`, for a directory's number of entries, and of offsets and numbers of values.
    entry_bytes: size of an entry. value_offset: where its value, or the offset of its values, is in it. value_bytes: the size of that.
    """

    first_directory: int
    count_format: str
    entry_bytes: int
    value_offset: int
    value_bytes: int
    offset_format: str


_CLASSIC = _Layout(4, "H", 12, 8, 4, "I")
_BIG = _Layout(8, "Q", 20, 12, 8, "Q")
_BIG_VERSION = 43

SIGNATURES = frozenset({b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"})

_WIDTH, _LENGTH, _COMPRESSION, _ORIENTATION = 256, 257, 259, 274
_OFFSETS, _BYTE_COUNTS = (273, 324), (279, 325)
# Field type → its struct format, for whole numbers and the two of a rational.
# Field type → bytes of one value, for all types that have more than one byte.
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 5: "I", 16: "Q"}
_RATIONAL = 5
_TYPE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_JPEG_COMPRESSIONS = frozenset({6, 7})

# Baseline TIFF and all extensions together have fewer than 200 tags: entries of a directory beyond this number are not read.
MAX_ENTRIES = 4_096


class Directory(NamedTuple):
    """One page of a TIFF.

    width, height: in pixels, upright.
    entries: how many its directory declares.
    metadata_bytes: size of the values that the entries refer to, not counting pixels.
    pieces: how many strips or tiles it has.
    jpegs: offset and length of each strip or tile if they are JPEGs, otherwise empty.
    read: returns the first whole numbers of a tag, or the numerators and denominators of its first rationals; at most as many as it is
        called with.
    locate: returns where the value of a tag of one number is in the file, `None` if the page has no such tag.
    """

    width: int
    height: int
    entries: int
    metadata_bytes: int
    pieces: int
    jpegs: Sequence[tuple[int, int]]
    read: Callable[[int, int], Sequence[int]]
    locate: Callable[[int], int | None]


def page_sizes(content: memoryview, pages: int) -> list[tuple[int, int]]:
    """Return the width and height, upright, of the first `pages` pages. Raises `ValueError` if a directory lies outside the file."""
    return [(page.width, page.height) for page in islice(directories(content, 0), pages)]


def directories(content: memoryview, max_jpegs: int) -> Iterator[Directory]:
    """Yield the directories of a file in order, until one repeats. Raises `ValueError` if one lies outside the file.

    max_jpegs: the maximum length of `jpegs`.
    """
    try:
        yield from _directories(content, max_jpegs)
    except (struct.error, OverflowError) as error:
        # An offset in a BigTIFF may be larger than any address.
        raise ValueError("a directory lies outside the file") from error


class Value(NamedTuple):
    """The value of a tag: its field type (TIFF 6.0 §2), the number of values of that type, and their bytes in the order of the file."""

    kind: int
    numbers: int
    data: memoryview


def page_values(content: memoryview, page: int) -> dict[int, Value]:
    """Return the values of a page, from 0, by their tags; of a damaged directory none. Those that lie outside the file are left out."""
    try:
        entries = next(islice(_entries_of_pages(content), page, None), None)
    except (struct.error, OverflowError):
        return {}
    return {} if entries is None else _values(content, entries)


def values_at(content: memoryview, offset: int) -> dict[int, Value]:
    """Return the values of the directory at `offset`, such as the one with Exif, as `page_values` does."""
    try:
        entries, _ = _read_entries(content, *_header(content), offset)
    except (struct.error, OverflowError):
        return {}
    return _values(content, entries)


def _values(content: memoryview, entries: _Entries) -> dict[int, Value]:
    values = {}
    for tag, (kind, count, start) in entries.by_tag.items():
        size = count * _TYPE_BYTES.get(kind, 1)
        if start + size <= len(content):
            values[tag] = Value(kind, count, content[start : start + size])
    return values


class _Entry(NamedTuple):
    kind: int
    values: int
    # Where the values are, in the entry itself or elsewhere in the file.
    values_offset: int


class _Entries(NamedTuple):
    by_tag: dict[int, _Entry]
    declared: int
    metadata_bytes: int


def _directories(content: memoryview, max_jpegs: int) -> Iterator[Directory]:
    order, _ = _header(content)
    for entries in _entries_of_pages(content):
        yield _directory(content, order, entries, max_jpegs)


def _header(content: memoryview) -> tuple[str, _Layout]:
    """Return the byte order, `<` or `>`, and the layout."""
    order = "<" if bytes(content[:2]) == b"II" else ">"
    return order, _BIG if struct.unpack_from(f"{order}H", content, 2)[0] == _BIG_VERSION else _CLASSIC


def _entries_of_pages(content: memoryview) -> Iterator[_Entries]:
    order, layout = _header(content)
    offset = struct.unpack_from(order + layout.offset_format, content, layout.first_directory)[0]
    seen: set[int] = set()
    while offset and offset not in seen:
        seen.add(offset)
        entries, end = _read_entries(content, order, layout, offset)
        yield entries
        offset = struct.unpack_from(order + layout.offset_format, content, end)[0]


def _read_entries(content: memoryview, order: str, layout: _Layout, offset: int) -> tuple[_Entries, int]:
    """Return the entries of the directory at `offset`, and where they end."""
    count = struct.unpack_from(order + layout.count_format, content, offset)[0]
    start = offset + struct.calcsize(layout.count_format)
    end = start + count * layout.entry_bytes
    by_tag: dict[int, _Entry] = {}
    metadata_bytes = 0
    for entry in range(start, min(end, len(content), start + MAX_ENTRIES * layout.entry_bytes), layout.entry_bytes):
        tag, kind = struct.unpack_from(f"{order}HH", content, entry)
        values = struct.unpack_from(order + layout.offset_format, content, entry + 4)[0]
        size = values * _TYPE_BYTES.get(kind, 1)
        values_offset = entry + layout.value_offset
        if size > layout.value_bytes:
            values_offset = struct.unpack_from(order + layout.offset_format, content, values_offset)[0]
        by_tag[tag] = _Entry(kind, values, values_offset)
        if tag not in _OFFSETS + _BYTE_COUNTS and size > layout.value_bytes:
            # libtiff does not read values outside the file.
            metadata_bytes += max(0, min(size, len(content) - values_offset))
    return _Entries(by_tag, count, metadata_bytes), end


def _directory(content: memoryview, order: str, entries: _Entries, max_jpegs: int) -> Directory:
    by_tag = entries.by_tag

    def read(tag: int, limit: int) -> Sequence[int]:
        return _numbers(content, order, by_tag.get(tag), limit)

    def locate(tag: int) -> int | None:
        return by_tag[tag].values_offset if tag in by_tag else None

    def first(tag: int, default: int) -> int:
        return next(iter(read(tag, 1)), default)

    width, height = upright_size(first(_WIDTH, 0), first(_LENGTH, 0), first(_ORIENTATION, 1))
    offsets, byte_counts = (next((by_tag[tag] for tag in tags if tag in by_tag), None) for tags in (_OFFSETS, _BYTE_COUNTS))
    jpegs: list[tuple[int, int]] = []
    if first(_COMPRESSION, 1) in _JPEG_COMPRESSIONS:
        starts, sizes = (_numbers(content, order, entry, max_jpegs) for entry in (offsets, byte_counts))
        jpegs = list(zip(starts, sizes, strict=False))
    pieces = offsets.values if offsets else 0
    return Directory(width, height, entries.declared, entries.metadata_bytes, pieces, jpegs, read, locate)


def _numbers(content: memoryview, order: str, entry: _Entry | None, limit: int) -> Sequence[int]:
    """Return the first `limit` values of an entry, two numbers for a rational one.

    Empty if the entry is missing, holds other values, or refers outside the file.
    """
    if entry is None or entry.kind not in _WHOLE_NUMBERS:
        return ()
    count = min(entry.values, limit) * (2 if entry.kind == _RATIONAL else 1)
    packed = f"{order}{count}{_WHOLE_NUMBERS[entry.kind]}"
    if entry.values_offset + struct.calcsize(packed) > len(content):
        return ()
    return struct.unpack_from(packed, content, entry.values_offset)
