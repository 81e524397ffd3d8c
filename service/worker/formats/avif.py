"""AVIF out: states the colors of PQ and HLG pictures, which libvips 8.18 cannot do, in the container and in the stream."""

from __future__ import annotations

import struct

from service.worker.formats import av1, isobmff

# The matrix that libheif uses for RGB by default: that of Rec. 601 (ITU-T H.273, table 4). It is stated with the primaries of the picture.
_REC_601_MATRIX = 6
_FULL_RANGE = 0x80


def with_colors(body: bytes, primaries: int, transfer: int, max_nits: float | None) -> bytes:
    """Return an AVIF of libheif, which states no colors in its container, with the colors of its primary picture.

    primaries, transfer: code points of ITU-T H.273. max_nits: the luminance of the brightest pixel in cd/m², `None` if it is unknown.

    Raises `ValueError` if the file is not as libheif writes it.
    """
    meta = isobmff.first(body, b"meta")
    item = isobmff.primary_id(meta[4:])
    # ISO/IEC 14496-12 §12.1.5 and §12.1.6; a largest average of 0 means that it is unknown.
    colors = b"nclx" + struct.pack(">HHHB", primaries, transfer, _REC_601_MATRIX, _FULL_RANGE)
    properties = [_box(b"colr", colors)]
    if max_nits is not None:
        properties.append(_box(b"clli", struct.pack(">HH", min(round(max_nits), 0xFFFF), 0)))
    growth = len(_meta(meta, item, properties, 0)) - len(meta)
    out = b"".join(
        _box(kind, _meta(inside, item, properties, growth) if kind == b"meta" else bytes(inside)) for kind, inside in isobmff.boxes(body)
    )
    start, length = next((extent for found, extent in isobmff.extents(out) if found == item), isobmff.Extent(0, 0))
    stream = av1.with_colors(out[start : start + length], primaries, transfer)
    return out[:start] + stream + out[start + length :]


def _meta(meta: memoryview, item: int, properties: list[bytes], growth: int) -> bytes:
    """Return the content of `meta` with further properties of an item, and places that are `growth` bytes later in the file."""
    out = bytes(meta[:4])
    for kind, inside in isobmff.boxes(meta[4:]):
        if kind == b"iprp":
            out += _box(kind, _item_properties(inside, item, properties))
        else:
            out += _box(kind, _places(bytes(inside), growth) if kind == b"iloc" else bytes(inside))
    return out


def _item_properties(content: memoryview, item: int, properties: list[bytes]) -> bytes:
    """Return the content of `iprp` with further properties of an item (ISO/IEC 23008-12 §9.3)."""
    available = isobmff.first(content, b"ipco")
    count = sum(1 for _ in isobmff.boxes(available))
    indices = bytes(range(count + 1, count + 1 + len(properties)))
    table = bytes(isobmff.first(content, b"ipma"))
    if table[:4] != bytes(4):
        raise ValueError("associations in a large format")
    out, position = table[:8], 8
    while position < len(table):
        (found, associations) = struct.unpack_from(">HB", table, position)
        entry = table[position + 3 : position + 3 + associations]
        position += 3 + associations
        entry += indices if found == item else b""
        out += struct.pack(">HB", found, len(entry)) + entry
    return _box(b"ipco", bytes(available) + b"".join(properties)) + _box(b"ipma", out)


def _places(table: bytes, growth: int) -> bytes:
    """Return the content of `iloc` for items that are `growth` bytes later in the file (ISO/IEC 14496-12 §8.11.3)."""
    if table[:6] != b"\0\0\0\0\x44\x40":
        raise ValueError("places in another format")
    out, position = bytearray(table), 8
    for _ in range(int.from_bytes(table[6:8], "big")):
        _, _, base, extents = struct.unpack_from(">HHIH", table, position)
        struct.pack_into(">I", out, position + 4, base + growth)
        position += 10 + 8 * extents
    return bytes(out)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content
