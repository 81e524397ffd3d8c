"""Inputs that once made a parser fail, by target. They are generated, so that a reader sees what is special about them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from tests.support.boxes import box
from tests.support.gain_maps import iso_fractions
from tests.support.images import palette_gif

_FILE_TYPE = box(b"ftyp", b"avif", bytes(4), b"mif1avif")
_PRIMARY = box(b"pitm", struct.pack(">H", 1), version=0)


def _reference(kind: bytes, source: int, target: int) -> bytes:
    return box(kind, struct.pack(">HHH", source, 1, target))


def _item(number: int, kind: bytes) -> bytes:
    return box(b"infe", struct.pack(">HH4sx", number, 0, kind), version=2)


def _items(entries: list[bytes]) -> bytes:
    return box(b"iinf", struct.pack(">H", min(len(entries), 1_000)), *entries, version=0)


def _exif_in_many_parts() -> bytes:
    """Return a file whose Exif consists of 50,000 parts: 8 MiB in all, which were copied for each part."""
    places = struct.pack(">HHHHH", 0x4400, 1, 2, 0, 50_000) + struct.pack(">II", 0, 160) * 50_000
    entries = [_item(1, b"av01"), _item(2, b"Exif")]
    return _FILE_TYPE + box(
        b"meta", _PRIMARY, _items(entries), box(b"iref", _reference(b"cdsc", 2, 1), version=0), box(b"iloc", places, version=0), version=0
    )


def _many_auxiliary_pictures() -> bytes:
    """Return a file with 6,000 auxiliary pictures and 6,000 properties, which were all read for each picture."""
    numbers = range(2, 6_002)
    properties = box(b"ipco", box(b"free") * 6_000)
    associations = box(b"ipma", struct.pack(">I", len(numbers)), *(struct.pack(">HB", number, 0) for number in numbers), version=0)
    return _FILE_TYPE + box(
        b"meta",
        _PRIMARY,
        box(b"iref", *(_reference(b"auxl", number, 1) for number in numbers), version=0),
        box(b"iprp", properties, associations),
        version=0,
    )


def _many_tone_mapped_pictures() -> bytes:
    """Return a file with 6,000 tone-mapped pictures, for each of which all references were read."""
    numbers = range(2, 6_002)
    return _FILE_TYPE + box(
        b"meta",
        _PRIMARY,
        _items([_item(number, b"tmap") for number in numbers]),
        box(b"iref", *(_reference(b"dimg", number, 1) for number in numbers), version=0),
        version=0,
    )


def _many_beginnings_of_xmp() -> bytes:
    """Return a GIF in whose comment XMP begins 25,000 times and never ends. All of the rest was searched for each end."""
    return b"GIF89a\1\0\1\0\0\0\0" + b"!\xff\x0bXMP DataXMP" * 25_000 + b";"


def _tiff(*entries: tuple[int, int, int, bytes], directory: bytes = b"") -> bytes:
    """Return a TIFF of one page whose values follow its entries, each with its tag, type and count; and at offset 8 a further directory."""
    start = 8 + len(directory)
    table, data, data_start = b"", b"", start + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in entries:
        place = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", data_start + len(data))
        table += struct.pack("<HHI", tag, kind, count) + place
        data += value if len(value) > 4 else b""
    return struct.pack("<2sHI", b"II", 42, start) + directory + struct.pack("<H", len(entries)) + table + bytes(4) + data


def _exif_without_room() -> bytes:
    """Return a TIFF whose copyright leaves no room in a block of Exif for the pointer to the directory with the exposure time."""
    exposure = struct.pack("<HHHI4xI", 1, 33_434, 3, 1, 0)
    return _tiff((33_432, 2, 64_970, b"c" * 64_970), (34_665, 4, 1, struct.pack("<I", 8)), directory=exposure)


def _equal_headrooms() -> bytes:
    """Return a gain map whose headrooms differ by less than the fractions that are written can express."""
    return iso_fractions([((1 << 31) - 2, (1 << 31) - 1), (1, 1), (0, 1), (1, 1), (1, 1), (0, 1), (0, 1)])


INPUTS: Mapping[str, tuple[Callable[[], bytes], ...]] = {
    # A tab is white space around a comma and not a dictionary (RFC 9651 §4.2.2).
    "structured_dictionary": (lambda: b"\t", lambda: b"a=1 \t", lambda: b"a=1\t, \tb", lambda: b"a\n"),
    # At each of its characters, a slash was searched for.
    "name": (lambda: b"a" * 40_000, lambda: b"\\" * 40_000),
    "object_path": (lambda: b"\xed", lambda: b"\xed\xa0\x80", lambda: b"a/%" + b"25" * 1_000, lambda: b"a?b\\c"),
    "avif": (_exif_in_many_parts, _many_auxiliary_pictures, _many_tone_mapped_pictures),
    # Fields of which none can be written, and a pointer for which there was no room.
    "exif": (lambda: _tiff((306, 0, 4, b"abcd")), lambda: _tiff((33_432, 2, 70_000, b"c" * 70_000)), _exif_without_room),
    "gain_map": (_equal_headrooms,),
    "tiff": (_exif_without_room,),
    # The header, and the descriptor of a frame, were read beyond the end of the file.
    "gif": (_many_beginnings_of_xmp, bytes, lambda: palette_gif(8, 6)[:-1] + b",", lambda: b"GIF89a\1\0\1\0\0\0\0!\xf9\4,"),
}
