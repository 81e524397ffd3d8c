"""Exif (CIPA DC-008): makes the block that other containers have from the tags of a TIFF page, which has no block of its own."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from service.worker.formats import tiff
from service.worker.formats.tiff import Value

# Tags that describe a picture and not how it is stored: its title, make, model, software, date, artist, computer and copyright.
_DESCRIPTIVE = frozenset({270, 271, 272, 305, 306, 315, 316, 33_432})
_EXIF_DIRECTORY, _GPS_DIRECTORY = 34_665, 34_853
# Their values refer to other places in the file: the maker note and the directory of interoperability.
_NOT_COPIED = frozenset({37_500, 40_965})

# Field types of TIFF 6.0 §2. BigTIFF has others.
_MAX_KIND = 12
_LONG = 4
# A block must fit into a segment of a JPEG.
_MAX_BLOCK_BYTES = 65_000
_HEADER_BYTES, _ENTRY_BYTES, _INLINE_BYTES = 8, 12, 4


def from_tiff(content: memoryview, page: int) -> bytes:
    """Return the Exif of a page, from 0, beginning with its TIFF header; empty if there is none."""
    order = "<" if bytes(content[:2]) == b"II" else ">"
    values = tiff.page_values(content, page)
    main = {tag: value for tag, value in values.items() if tag in _DESCRIPTIVE}
    others = {tag: _directory_at(content, values[tag], order) for tag in (_EXIF_DIRECTORY, _GPS_DIRECTORY) if tag in values}
    others = {tag: directory for tag, directory in others.items() if directory}
    if not main and not others:
        return b""
    block = bytearray(content[:2]) + struct.pack(f"{order}HI", 42, _HEADER_BYTES)
    pointer = Value(_LONG, 1, memoryview(bytes(_INLINE_BYTES)))
    places = _append(block, {**main, **dict.fromkeys(others, pointer)}, order)
    if not places:
        # A directory has at least one entry (TIFF 6.0 §2).
        return b""
    # The pointer to a directory may not have fitted either.
    for tag, directory in ((tag, directory) for tag, directory in others.items() if tag in places):
        struct.pack_into(f"{order}I", block, places[tag], len(block))
        _append(block, directory, order)
    return bytes(block)


def _directory_at(content: memoryview, pointer: Value, order: str) -> dict[int, Value]:
    if len(pointer.data) not in {4, 8}:
        return {}
    offset = int.from_bytes(pointer.data, "little" if order == "<" else "big")
    return {tag: value for tag, value in tiff.values_at(content, offset).items() if tag not in _NOT_COPIED}


def _append(block: bytearray, values: Mapping[int, Value], order: str) -> dict[int, int]:
    """Append a directory to a block, and return where the value of each tag is. Values that do not fit are left out."""
    room = _MAX_BLOCK_BYTES - len(block)
    kept: dict[int, Value] = {}
    for tag, value in sorted(values.items()):
        needed = _ENTRY_BYTES + len(value.data) + 1
        if 0 < value.kind <= _MAX_KIND and needed <= room:
            kept[tag] = value
            room -= needed
    data_start = len(block) + 2 + _ENTRY_BYTES * len(kept) + 4
    entries, data = struct.pack(f"{order}H", len(kept)), b""
    places = {}
    for tag, (kind, numbers, stored) in kept.items():
        place = len(block) + len(entries) + _ENTRY_BYTES - _INLINE_BYTES
        inline = bytes(stored).ljust(_INLINE_BYTES, b"\0")
        if len(stored) > _INLINE_BYTES:
            place = data_start + len(data)
            inline = struct.pack(f"{order}I", place)
            data += bytes(stored) + bytes(len(stored) % 2)
        places[tag] = place
        entries += struct.pack(f"{order}HHI", tag, kind, numbers) + inline
    block += entries + bytes(4) + data
    return places
