"""ISO base media files (ISO/IEC 14496-12 §4.2), which hold AVIF and HEIC images: reads the boxes that libheif does not pass to libvips."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import NamedTuple

from service.worker import color_space
from service.worker.color_space import ColorSpace
from service.worker.formats import av1

# Entries that are read of one table. libheif refuses files with more than 1,000 items.
_MAX_ENTRIES = 50_000

# The layer of an `lsel` box that stands for progressive display up to the last one.
_ALL_LAYERS = b"\xff\xff"

_XMP_MEDIA_TYPE = b"application/rdf+xml"

# The bit of one band only in the third byte of `av1C` (AV1 Codec ISO Media File Format Binding §2.3.3).
_MONOCHROME = 0x10


class Picture(NamedTuple):
    """The description of the primary picture.

    space: its color space by the `nclx` box (ISO/IEC 14496-12 §12.1.5), otherwise by the stream.
    gray: whether it has one band of AV1, not counting alpha.
    limited_gray, limited_alpha: whether this band, or alpha, has the range 16 to 235 of 255. libheif takes either for the full one.
    selects_layer: whether it shows another layer than the last (AV1 Image File Format §2.3.2.1, ISO/IEC 23008-12 §6.5.11).
    premultiplied: whether its colors are multiplied by alpha (ISO/IEC 23000-22 §7.3.5.2).
    """

    space: ColorSpace
    gray: bool
    limited_gray: bool
    limited_alpha: bool
    selects_layer: bool
    premultiplied: bool


class Extent(NamedTuple):
    """The place of a part of an item: the index of its first byte in the file, and its length in bytes."""

    start: int
    length: int


def first(content: bytes | memoryview, kind: bytes) -> memoryview:
    """Return the content of the first box of type `kind`, empty if there is none."""
    return next((inside for found, inside in boxes(content) if found == kind), memoryview(b""))


def count(content: bytes | memoryview, limit: int) -> int:
    """Return the number of top-level boxes. Counting stops at `limit` + 1."""
    return sum(1 for _ in islice(boxes(content), limit + 1))


def item_count(body: bytes | memoryview) -> int:
    """Return the number of items that a file declares: pictures, their tiles, and metadata (ISO/IEC 14496-12 §8.11.6)."""
    table = first(first(body, b"meta")[4:], b"iinf")
    return int.from_bytes(table[4:6] if bytes(table[:1]) == b"\0" else table[4:8], "big")


def brands(body: bytes | memoryview) -> frozenset[bytes]:
    """Return the brands of a file, major and compatible, from its `ftyp` box."""
    inside = first(body, b"ftyp")
    return frozenset(bytes(inside[start : start + 4]) for start in range(0, len(inside), 4) if start != 4)


def picture(body: bytes | memoryview) -> Picture:
    """Return the description of the primary picture, with defaults for everything that the file does not state."""
    try:
        return _picture(body)
    except EOFError:
        # libheif refuses such a file.
        return Picture(color_space.SRGB, gray=False, limited_gray=False, limited_alpha=False, selects_layer=False, premultiplied=False)


def _picture(body: bytes | memoryview) -> Picture:
    # `meta` begins with four bytes of version and flags.
    meta = first(body, b"meta")[4:]
    primary = primary_id(meta)
    properties = properties_of(meta, primary)
    header, monochrome = _stream_colors(body, meta, primary, properties)
    stated = next((inside for kind, inside in properties if kind == b"colr" and bytes(inside[:4]) == b"nclx" and len(inside) >= 11), None)
    if stated is not None:
        primaries, transfer = int.from_bytes(stated[4:6], "big"), int.from_bytes(stated[6:8], "big")
        full_range = bool(stated[10] & 0x80)
    elif header is not None:
        primaries, transfer, full_range = header.primaries, header.transfer, header.full_range
    else:
        primaries = transfer = color_space.UNSPECIFIED
        full_range = True
    space = color_space.from_video_code_points(primaries, transfer)
    # The brightest pixel. Chromium ignores the peak of the mastering display in AVIF.
    max_nits = int.from_bytes(bytes(dict(properties).get(b"clli", b""))[:2], "big")
    if space.is_hdr and max_nits:
        space = space._replace(max_nits=float(max_nits))
    return Picture(
        space,
        gray=monochrome,
        limited_gray=monochrome and not full_range,
        limited_alpha=_has_limited_alpha(body, meta, primary),
        selects_layer=_selects_layer(dict(properties)),
        premultiplied=bool(references(meta, b"prem", primary)),
    )


def _stream_colors(
    body: bytes | memoryview, meta: memoryview, item: int, properties: list[tuple[bytes, memoryview]]
) -> tuple[av1.SequenceHeader | None, bool]:
    """Return the header of an item's AV1 stream, if it has one, and whether the stream has one band only."""
    coded = item
    if b"av1C" not in (kind for kind, _ in properties):
        # A grid states only its size and colors; its first tile states the rest.
        coded = next(iter(references(meta, b"dimg", item)), item)
    configuration = bytes(dict(properties if coded == item else properties_of(meta, coded)).get(b"av1C", b""))
    if not configuration:
        return None, False
    header = av1.sequence_header(configuration[4:]) or av1.sequence_header(bytes(_beginning(body, meta, coded)))
    return header, bool(configuration[2:3]) and bool(configuration[2] & _MONOCHROME)


def _selects_layer(properties: dict[bytes, memoryview]) -> bool:
    operating_point, layer = properties.get(b"a1op", memoryview(b"")), properties.get(b"lsel", memoryview(b""))
    return bytes(operating_point[:1]) not in {b"", b"\0"} or bytes(layer[:2]) not in {b"", _ALL_LAYERS}


def _has_limited_alpha(body: bytes | memoryview, meta: memoryview, primary: int) -> bool:
    for item, properties in properties_of_items(meta, referring(meta, b"auxl", primary)).items():
        if b"alpha" in bytes(dict(properties).get(b"auxC", b"")):
            header, _ = _stream_colors(body, meta, item, properties)
            return header is not None and not header.full_range
    return False


def extents(body: bytes | memoryview) -> Iterator[tuple[int, Extent]]:
    """Yield the id of each item and each part of it that is stored in the file, from the `iloc` box (ISO/IEC 14496-12 §8.11.3).

    Raises `EOFError` if the box ends early.
    """
    return islice(_extents(first(body, b"meta")[4:]), _MAX_ENTRIES)


def _extents(meta: memoryview) -> Iterator[tuple[int, Extent]]:
    return ((item, extent) for item, extent, method in _places(meta) if method == 0)


def _places(meta: memoryview) -> Iterator[tuple[int, Extent, int]]:
    """Yield the id of each item, each part of it, and the construction method: 0 in the file, 1 in the `idat` box."""
    table = _Reader(first(meta, b"iloc"))
    version = table.number(4) >> 24
    sizes = table.number(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    id_size = 4 if version == 2 else 2
    for _ in range(table.number(id_size)):
        item = table.number(id_size)
        method = 0 if version == 0 else table.number(2) & 15
        table.number(2)
        base = table.number(base_size)
        for _ in range(table.number(2)):
            if version > 0:
                table.number(index_size)
            start, length = base + table.number(offset_size), table.number(length_size)
            yield item, Extent(start, length), method


def primary_id(meta: memoryview) -> int:
    """Return the id of the primary item. meta: the content of the `meta` box after its version and flags."""
    box = first(meta, b"pitm")
    return int.from_bytes(box[4:8] if bytes(box[:1]) == b"\1" else box[4:6], "big")


def item_types(meta: memoryview) -> dict[int, bytes]:
    """Return the type of each item by its id (ISO/IEC 14496-12 §8.11.6), such as `hvc1` or `Exif`."""
    return {item: bytes(entry[:4]) for item, entry in _item_entries(meta)}


def _item_entries(meta: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the id of each item, and its entry from the type on."""
    table = first(meta, b"iinf")
    for kind, inside in islice(boxes(table[6:] if bytes(table[:1]) == b"\0" else table[8:]), _MAX_ENTRIES):
        id_end = {b"\2": 6, b"\3": 8}.get(bytes(inside[:1]), 0)
        if kind == b"infe" and id_end:
            yield int.from_bytes(inside[4:id_end], "big"), inside[id_end + 2 :]


def exif_of(body: bytes | memoryview, item: int, max_bytes: int) -> bytes:
    """Return the Exif that describes an item, from its TIFF header on, or nothing (ISO/IEC 23008-12 §A.2). Raises `EOFError`."""
    content = _description(body, item, b"Exif", max_bytes)
    # It begins with the offset of the TIFF header.
    return content[4 + int.from_bytes(content[:4], "big") :]


def xmp_of(body: bytes | memoryview, item: int, max_bytes: int) -> bytes:
    """Return the XMP that describes an item, or nothing (ISO/IEC 23008-12 §A.3). Raises `EOFError`."""
    return _description(body, item, b"mime", max_bytes)


def _description(body: bytes | memoryview, item: int, kind: bytes, max_bytes: int) -> bytes:
    meta = first(body, b"meta")[4:]
    describing = frozenset(referring(meta, b"cdsc", item))
    for other, entry in _item_entries(meta):
        # After the type of a `mime` item come its name and its media type.
        is_kind = bytes(entry[:4]) == kind and (kind != b"mime" or bytes(entry[4:260]).split(b"\0")[1:2] == [_XMP_MEDIA_TYPE])
        if is_kind and other in describing:
            return item_content(body, other, max_bytes)
    return b""


def item_content(body: bytes | memoryview, item: int, max_bytes: int) -> bytes:
    """Return the first bytes of an item, which is stored in the file or in the `idat` box. Raises `EOFError`."""
    meta = first(body, b"meta")[4:]
    inside = first(meta, b"idat")
    out = bytearray()
    for found, (start, length), method in islice(_places(meta), _MAX_ENTRIES):
        if found == item:
            out += (inside if method else memoryview(body))[start : start + min(length, max_bytes - len(out))]
    return bytes(out)


def with_primary(body: bytes | memoryview, item: int) -> bytes:
    """Return a file with another primary item, so that libheif decodes that. Raises `EOFError` if its id does not fit.

    Auxiliary pictures cannot be primary, so the references that make them so get a type that nothing reads.
    """
    out = bytearray(body)
    meta = first(memoryview(out), b"meta")[4:]
    links = first(meta, b"iref")
    links[:] = bytes(links).replace(b"auxl", b"skip")
    table = first(meta, b"pitm")
    size = 4 if bytes(table[:1]) == b"\1" else 2
    if item >= 1 << (8 * size) or len(table) < 4 + size:
        raise EOFError(f"no room for the item {item}")
    table[4 : 4 + size] = item.to_bytes(size, "big")
    return bytes(out)


def properties_of(meta: memoryview, item: int) -> list[tuple[bytes, memoryview]]:
    """Return the properties of an item, in order (ISO/IEC 23008-12 §9.3). Raises `EOFError`."""
    return properties_of_items(meta, [item]).get(item, [])


def properties_of_items(meta: memoryview, items: Collection[int]) -> dict[int, list[tuple[bytes, memoryview]]]:
    """Return the properties of the items that have any, in the order of `items`, in one pass over the file. Raises `EOFError`."""
    wanted = set(items)
    out: dict[int, list[tuple[bytes, memoryview]]] = {}
    containers = first(meta, b"iprp")
    available = list(islice(boxes(first(containers, b"ipco")), _MAX_ENTRIES))
    table = _Reader(first(containers, b"ipma"))
    version_and_flags = table.number(4)
    id_size, index_size = (4 if version_and_flags >> 24 else 2), (2 if version_and_flags & 1 else 1)
    for _ in range(min(table.number(4), _MAX_ENTRIES)):
        found, count = table.number(id_size), table.number(1)
        if found not in wanted:
            table.skip(count * index_size)
            continue
        wanted.remove(found)
        # The highest bit says whether a reader must understand the property.
        indices = [table.number(index_size) & ((1 << (8 * index_size - 1)) - 1) for _ in range(count)]
        out[found] = [available[index - 1] for index in indices if 0 < index <= len(available)]
        if not wanted:
            break
    return {item: out[item] for item in items if item in out}


def references(meta: memoryview, kind: bytes, item: int) -> list[int]:
    """Return the items to which `item` has a reference of type `kind` (ISO/IEC 14496-12 §8.11.12)."""
    return [to for found, source, to in islice(_all_references(meta), _MAX_ENTRIES) if (found, source) == (kind, item)]


def referring(meta: memoryview, kind: bytes, item: int) -> list[int]:
    """Return the items that have a reference of type `kind` to `item`."""
    return [source for found, source, to in islice(_all_references(meta), _MAX_ENTRIES) if (found, to) == (kind, item)]


def _all_references(meta: memoryview) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type of each reference, the item that it is from, and the item that it is to."""
    box = first(meta, b"iref")
    id_size = 4 if bytes(box[:1]) == b"\1" else 2
    for kind, inside in islice(boxes(box[4:]), _MAX_ENTRIES):
        table = _Reader(inside)
        source = table.number(id_size)
        for _ in range(table.number(2)):
            yield kind, source, table.number(id_size)


def _beginning(body: bytes | memoryview, meta: memoryview, item: int) -> memoryview:
    """Return the first bytes of an item that is stored in the file."""
    start, length = next((extent for found, extent in islice(_extents(meta), _MAX_ENTRIES) if found == item), Extent(0, 0))
    end = start + min(length or av1.MAX_HEADER_BYTES, av1.MAX_HEADER_BYTES)
    return memoryview(body)[start:end] if start else memoryview(b"")


class _Reader:
    """Reads big-endian numbers one after another."""

    def __init__(self, content: memoryview) -> None:
        self._content, self._position = content, 0

    def number(self, size: int) -> int:
        """Return the next number of `size` bytes. Raises `EOFError`."""
        start = self._position
        self.skip(size)
        return int.from_bytes(self._content[start : self._position], "big")

    def skip(self, size: int) -> None:
        """Skip `size` bytes. Raises `EOFError`."""
        self._position += size
        if self._position > len(self._content):
            raise EOFError(f"a table of {len(self._content)} bytes ends early")


def boxes(body: bytes | memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the type and the content of each box."""
    content = memoryview(body)
    position = 0
    while position + 8 <= len(content):
        size, header = int.from_bytes(content[position : position + 4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(content[position + 8 : position + 16], "big"), 16
        size = size or len(content) - position
        yield bytes(content[position + 4 : position + 8]), content[position + header : position + size]
        position += max(size, header)
