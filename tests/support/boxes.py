"""ISO base media files, box by box: AVIF with layers, in tiles, and with any properties."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image

_SEQUENCE_HEADER, _DELIMITER, _FRAMES = 1, 2, frozenset({3, 4, 6})
_ESSENTIAL = frozenset({b"av1C", b"lsel", b"a1op"})


class Item(NamedTuple):
    """An item of a file: its type, its data, its properties by their index from 1, and whether it is hidden."""

    kind: bytes
    data: bytes
    properties: Sequence[int]
    hidden: bool = False


def box(kind: bytes, *content: bytes, version: int | None = None, flags: int = 0) -> bytes:
    """Return a box; with `version` a full box (ISO/IEC 14496-12 §4.2)."""
    inside = b"" if version is None else struct.pack(">I", version << 24 | flags)
    inside += b"".join(content)
    return struct.pack(">I", 8 + len(inside)) + kind + inside


def ispe(width: int, height: int) -> bytes:
    return box(b"ispe", struct.pack(">II", width, height), version=0)


def nclx(primaries: int, transfer: int, matrix: int = 6, *, full: bool = True) -> bytes:
    return box(b"colr", b"nclx", struct.pack(">HHHB", primaries, transfer, matrix, full << 7))


PIXI = box(b"pixi", b"\3\10\10\10", version=0)


def av1c(*, subsampled: bool) -> bytes:
    return box(b"av1C", b"\x81\x00\x0c\x00" if subsampled else b"\x81\x20\x00\x00")


def avif(items: Sequence[Item], properties: Sequence[bytes], references: Sequence[bytes] = ()) -> bytes:
    """Return an AVIF whose items are numbered from 1; the first is the primary one."""
    data = b"".join(item.data for item in items)
    essential = [entry[4:8] in _ESSENTIAL for entry in properties]

    def meta(start: int) -> bytes:
        locations, position = [], start
        for number, item in enumerate(items, 1):
            locations.append(struct.pack(">HHHII", number, 0, 1, position, len(item.data)))
            position += len(item.data)
        names = [
            box(b"infe", struct.pack(">HH", number, 0), item.kind, b"\0", version=2, flags=item.hidden)
            for number, item in enumerate(items, 1)
        ]
        associations = [
            struct.pack(">HB", number, len(item.properties)) + bytes(index | essential[index - 1] << 7 for index in item.properties)
            for number, item in enumerate(items, 1)
        ]
        return box(
            b"meta",
            box(b"hdlr", bytes(4), b"pict", bytes(13), version=0),
            box(b"pitm", struct.pack(">H", 1), version=0),
            box(b"iloc", b"\x44\0", struct.pack(">H", len(items)), *locations, version=0),
            box(b"iinf", struct.pack(">H", len(items)), *names, version=0),
            *([box(b"iref", *references, version=0)] if references else []),
            box(
                b"iprp",
                box(b"ipco", *properties),
                box(b"ipma", struct.pack(">I", len(items)), *associations, version=0),
            ),
            version=0,
        )

    header = box(b"ftyp", b"avif", bytes(4), b"avif", b"mif1", b"miaf")
    return header + meta(len(header) + len(meta(0)) + 8) + box(b"mdat", data)


def reference(kind: bytes, source: int, *targets: int) -> bytes:
    return box(kind, struct.pack(f">HH{len(targets)}H", source, len(targets), *targets))


def av1(picture: Image.Image, subsampling: str = "4:4:4") -> bytes:
    """Return a picture as the AV1 stream of a still."""
    body = io.BytesIO()
    picture.save(body, "AVIF", quality=100, subsampling=subsampling, speed=9)
    content = body.getvalue()
    # Pillow writes the pixels of a picture without alpha last.
    start = content.index(b"mdat") + 4
    return content[start:]


def tiled(columns: int, rows: int, side: int, colors: Sequence[tuple[int, int, int]]) -> bytes:
    """Return an AVIF of square tiles in alternating colors (ISO/IEC 23008-12 §6.6.2.3)."""
    streams = [av1(Image.new("RGB", (side, side), color), "4:2:0") for color in colors]
    count, width, height = columns * rows, columns * side, rows * side
    grid = b"\0\0" + bytes((rows - 1, columns - 1)) + struct.pack(">HH", width, height)
    tiles = [Item(b"av01", streams[number % len(streams)], (1, 3, 4, 5), hidden=True) for number in range(count)]
    return avif(
        [Item(b"grid", grid, (2, 3, 5)), *tiles],
        [ispe(side, side), ispe(width, height), PIXI, av1c(subsampled=True), nclx(1, 13)],
        [reference(b"dimg", 1, *range(2, 2 + count))],
    )


def layered(first: Image.Image, second: Image.Image, *selection: bytes) -> bytes:
    """Return an AVIF of two spatial layers of one size. Its operating point 0 has both, 1 has the first only.

    `selection`: properties that select a layer or an operating point, `lsel` or `a1op`.
    """
    body = io.BytesIO()
    first.save(body, "AVIF", save_all=True, append_images=[second], duration=100, quality=90, subsampling="4:4:4", speed=9)
    layers, header = [], b""
    for number, sample in enumerate(_samples(body.getvalue())):
        units = list(_units(sample))
        header = header or next(data for kind, data in units if kind == _SEQUENCE_HEADER)
        layers.append(b"".join(_unit(kind, data, number) for kind, data in units if kind in _FRAMES))
    beginning = _unit(_DELIMITER, b"") + _unit(_SEQUENCE_HEADER, _with_operating_points(header))
    properties = [ispe(*first.size), PIXI, av1c(subsampled=False), nclx(1, 13), *selection]
    return avif([Item(b"av01", beginning + b"".join(layers), range(1, len(properties) + 1))], properties)


def _samples(sequence: bytes) -> Iterator[bytes]:
    """Yield the frames of an AVIF sequence, which Pillow writes one after another."""
    sizes, offset = sequence.index(b"stsz"), sequence.index(b"stco")
    position = int.from_bytes(sequence[offset + 12 : offset + 16], "big")
    count = int.from_bytes(sequence[sizes + 12 : sizes + 16], "big")
    for (size,) in struct.iter_unpack(">I", sequence[sizes + 16 : sizes + 16 + 4 * count]):
        yield sequence[position : position + size]
        position += size


def _units(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the data of each unit of an AV1 stream (AV1 specification §5.3)."""
    position = 0
    while position < len(stream):
        header = stream[position]
        position += 2 if header & 4 else 1
        size = shift = 0
        while True:
            byte = stream[position]
            position += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        yield header >> 3 & 15, stream[position : position + size]
        position += size


def _unit(kind: int, data: bytes, layer: int | None = None) -> bytes:
    length, left = b"", len(data)
    while left >= 0x80:
        length += bytes([left & 0x7F | 0x80])
        left >>= 7
    length += bytes([left])
    return (bytes([kind << 3 | 2]) if layer is None else bytes([kind << 3 | 6, layer << 3])) + length + data


def _with_operating_points(header: bytes) -> bytes:
    """Return a sequence header that has one operating point with two: both spatial layers, and the first only (§5.5.1)."""
    bits = "".join(f"{byte:08b}" for byte in header)
    # Neither reduced, nor with timing or delays, as libaom writes sequences.
    assert bits[4:7] == "000"
    level = bits[24:29]
    tier = bits[29] if int(level, 2) > 7 else ""
    rest = bits[29 + len(tier) :].rstrip("0")[:-1]
    points = "".join(f"{layers:012b}{level}{tier}" for layers in (0x301, 0x101))
    out = f"{bits[:5]}00{1:05b}{points}{rest}1"
    out += "0" * (-len(out) % 8)
    return bytes(int(out[start : start + 8], 2) for start in range(0, len(out), 8))
