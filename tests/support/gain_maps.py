"""JPEGs with gain maps, written by the book and independently of the service: MPF, `hdrgm` in XMP, ISO 21496-1, and Apple's kind."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float64]

HDRGM = "http://ns.adobe.com/hdr-gain-map/1.0/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
APPLE = "urn:com:apple:photo:2020:aux:hdrgainmap"
XMP, ISO = b"http://ns.adobe.com/xap/1.0/\0", b"urn:iso:std:iso:ts:21496:-1\0"

# The stops of a map with levels of 0 and 255.
STOPS = (-0.5, 3.0)


def stops_field(width: int, height: int) -> Floats:
    """Return how many stops brighter each pixel of a scene is: a light in the upper right, a shadow on the left, a bar with hard edges."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    x, y = (x + 0.5) / width, (y + 0.5) / height
    field: Floats = 2.8 * np.exp(-((x - 0.7) ** 2 + (y - 0.3) ** 2) / 0.05) - 0.4 * np.clip(0.3 - x, 0, 1)
    field[(np.abs(y - 0.8) < 0.06) & (np.abs(x - 0.4) < 0.2)] = 1.5
    return field


def levels(field: Floats, gamma: float = 1.0, stops: tuple[float, float] = STOPS) -> npt.NDArray[np.uint8]:
    """Return the levels of a gain map for these stops."""
    share = np.clip((field - stops[0]) / (stops[1] - stops[0]), 0, 1) ** gamma
    return np.round(share * 255).astype(np.uint8)


def encode_jpeg(image: Image.Image, quality: int = 95, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, **options)
    return out.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def insert(body: bytes, *segments: bytes) -> bytes:
    """Return a JPEG with segments after its first one (JFIF)."""
    end = 4 + int.from_bytes(body[4:6], "big") if body[3] == 0xE0 else 2
    return body[:end] + b"".join(segments) + body[end:]


def packet(description: str) -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">{description}</rdf:RDF></x:xmpmeta>'.encode()


def hdrgm(
    minimum: Sequence[float],
    maximum: Sequence[Any],
    gamma: float = 1.0,
    *,
    elements: bool = False,
    base_is_hdr: bool = False,
    fields: Mapping[str, Sequence[object]] | None = None,
) -> bytes:
    """Return the segment that describes a map in XMP; lists, or with `elements` every value, are elements.

    fields: other values by their names.
    """
    values: dict[str, Sequence[object]] = {
        "GainMapMin": minimum,
        "GainMapMax": maximum,
        "Gamma": [gamma],
        "OffsetSDR": [0.015625],
        "OffsetHDR": [0.015625],
    }
    values |= {"HDRCapacityMin": [0], "HDRCapacityMax": [max(maximum)], "BaseRenditionIsHDR": ["True" if base_is_hdr else "False"]}
    values |= fields or {}
    attributes, inside = 'hdrgm:Version="1.0"', ""
    for name, numbers in values.items():
        if len(numbers) > 1:
            inside += f"<hdrgm:{name}><rdf:Seq>{''.join(f'<rdf:li>{number}</rdf:li>' for number in numbers)}</rdf:Seq></hdrgm:{name}>"
        elif elements:
            inside += f"<hdrgm:{name}>{numbers[0]}</hdrgm:{name}>"
        else:
            attributes += f' hdrgm:{name}="{numbers[0]}"'
    return segment(0xE1, XMP + packet(f'<rdf:Description xmlns:hdrgm="{HDRGM}" {attributes}>{inside}</rdf:Description>'))


def iso(
    minimum: Sequence[float],
    maximum: Sequence[float],
    gamma: float = 1.0,
    *,
    offsets: tuple[float, float] = (1 / 64, 1 / 64),
    headrooms: tuple[float, float] | None = None,
    in_base_colors: bool = True,
) -> bytes:
    """Return the segment that describes a map as ISO 21496-1 does."""
    numbers = [*(headrooms or (0.0, max(maximum)))]
    for low, high in zip(minimum, maximum, strict=True):
        numbers += [low, high, gamma, *offsets]
    return iso_fractions([(round(number * 4096), 4096) for number in numbers], in_base_colors=in_base_colors)


def iso_fractions(fractions: Sequence[tuple[int, int]], *, in_base_colors: bool = True) -> bytes:
    """Return the segment of ISO 21496-1 with these numerators and denominators: two headrooms, then five numbers for each color."""
    content = struct.pack(">HHB", 0, 0, (0x80 if len(fractions) == 17 else 0) | (0x40 if in_base_colors else 0))
    return segment(0xE2, ISO + content + b"".join(struct.pack(">iI", *fraction) for fraction in fractions))


def apple(headroom: float | None) -> bytes:
    """Return the segment that marks Apple's map; without a headroom it is in the maker note of the picture."""
    inside = f"<apdi:AuxiliaryImageType>{APPLE}</apdi:AuxiliaryImageType>"
    if headroom is not None:
        inside += f"<HDRGainMap:HDRGainMapHeadroom>{headroom}</HDRGainMap:HDRGainMapHeadroom>"
    names = 'xmlns:apdi="http://ns.apple.com/pixeldatainfo/1.0/" xmlns:HDRGainMap="http://ns.apple.com/HDRGainMap/1.0/"'
    return segment(0xE1, XMP + packet(f"<rdf:Description {names}>{inside}</rdf:Description>"))


def apple_exif(maker33: float, maker48: float) -> bytes:
    """Return a TIFF with Apple's maker note: `MakerNote` in the Exif directory, and two signed rationals in it."""
    note = b"Apple iOS\0\0\x01MM" + struct.pack(">H", 2)
    numbers = note_start = 14 + 2 + 2 * 12 + 4
    for tag, start in ((33, note_start), (48, note_start + 8)):
        note += struct.pack(">HHII", tag, 10, 1, start)
    note += bytes(4) + b"".join(struct.pack(">ii", round(number * 10_000), 10_000) for number in (maker33, maker48))
    assert numbers + 16 == len(note)
    exif_start = 8 + 2 + 12 + 4
    note_offset = exif_start + 2 + 12 + 4
    tiff = b"MM\0*" + struct.pack(">IH", 8, 1) + struct.pack(">HHII", 0x8769, 4, 1, exif_start) + bytes(4)
    return tiff + struct.pack(">H", 1) + struct.pack(">HHII", 0x927C, 7, len(note), note_offset) + bytes(4) + note


def multi_picture(picture: bytes, *others: bytes, order: str = ">") -> bytes:
    """Return several JPEGs as one file with an index (CIPA DC-007), in the byte order `order` of `struct`."""
    places = [(len(other), sum(map(len, others[:number]))) for number, other in enumerate(others)]
    return indexed(picture, b"".join(others), places, order=order)


def indexed(picture: bytes, rest: bytes, places: Sequence[tuple[int, int]], *, order: str = ">") -> bytes:
    """Return a JPEG with an index of pictures in what follows it. places: the size of each, and where it begins in `rest`."""
    count = 1 + len(places)

    def index(first_size: int, start: int) -> bytes:
        content = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(order + "IH", 8, 3)
        content += struct.pack(order + "HHI4s", 0xB000, 7, 4, b"0100") + struct.pack(order + "HHII", 0xB001, 4, 1, count)
        content += struct.pack(order + "HHII", 0xB002, 7, 16 * count, 50) + bytes(4)
        content += struct.pack(order + "IIIHH", 0x030000, first_size, 0, 0, 0)
        for size, place in places:
            content += struct.pack(order + "IIIHH", 0, size, (first_size + place - start) % (1 << 32), 0, 0)
        return segment(0xE2, b"MPF\0" + content)

    unfinished = insert(picture, index(0, 0))
    return insert(picture, index(len(unfinished), unfinished.index(b"MPF\0") + 4)) + rest


def gain_map_jpeg(picture: Image.Image, gains: npt.NDArray[np.uint8], *segments: bytes, order: str = ">", **options: Any) -> bytes:
    """Return a picture with a gain map (height × width, or × 3) that the segments describe; options: of Pillow, for the picture."""
    return multi_picture(encode_jpeg(picture, **options), insert(encode_jpeg(Image.fromarray(gains), quality=100), *segments), order=order)


# HEIC and AVIF. Their encoders write a picture and a second one beside it; these functions say that it is a gain map.


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def boxes(content: bytes) -> dict[bytes, bytes]:
    found, position = {}, 0
    while position < len(content):
        size, kind = struct.unpack_from(">I4s", content, position)
        found[kind] = content[position + 8 : position + size]
        position += size
    return found


def _associate(table: bytes, item: int, index: int) -> bytes:
    """Return the content of an `ipma` box (of a small file) in which an item has one property more."""
    out, position = table[:8], 8
    while position < len(table):
        found, count = struct.unpack_from(">HB", table, position)
        entry = table[position + 3 : position + 3 + count] + (bytes([index]) if found == item else b"")
        out += struct.pack(">HB", found, len(entry)) + entry
        position += 3 + count
    return out


def _rebuilt(body: bytes, meta: dict[bytes, bytes], payload: bytes = b"") -> bytes:
    """Return a file with other boxes in `meta`, and a payload at the end whose place, if it has one, begins the last entry of `iloc`."""
    outer = boxes(body)

    def assembled() -> bytes:
        content = outer[b"meta"][:4] + b"".join(box(kind, inside) for kind, inside in meta.items())
        return b"".join(box(kind, content if kind == b"meta" else inside) for kind, inside in outer.items())

    growth = len(assembled()) - len(body)
    table, position = bytearray(meta[b"iloc"]), 8
    for _ in range(struct.unpack_from(">H", table, 6)[0]):
        _, _, base, count = struct.unpack_from(">HHIH", table, position)
        struct.pack_into(">I", table, position + 4, len(assembled()) + 8 if base == 0xFFFFFFFF else base + growth)
        position += 10 + 8 * count
    meta[b"iloc"] = bytes(table)
    return assembled() + (box(b"mdat", payload) if payload else b"")


def with_apple_gain_map(body: bytes, *, describes_map: bool) -> bytes:
    """Return a HEIC whose item 3 is the gain map of its item 1, as iPhones mark it. Item 2 is the metadata of one of both."""
    meta = boxes(boxes(body)[b"meta"][4:])
    properties = boxes(meta[b"iprp"])
    available = properties[b"ipco"] + box(b"auxC", bytes(4) + APPLE.encode() + b"\0")
    meta[b"iprp"] = box(b"ipco", available) + box(b"ipma", _associate(properties[b"ipma"], 3, available_count(available)))
    described = box(b"cdsc", struct.pack(">HHH", 2, 1, 3 if describes_map else 1))
    meta[b"iref"] = bytes(4) + described + box(b"auxl", struct.pack(">HHH", 3, 1, 1))
    return _rebuilt(body, meta)


def with_tone_map_item(body: bytes, minimum: Sequence[float], maximum: Sequence[float], *, gain_map: int = 2) -> bytes:
    """Return a HEIC or AVIF with an item that says that another item is the gain map of item 1 (ISO/IEC 23008-12, `tmap`)."""
    meta = boxes(boxes(body)[b"meta"][4:])
    items = struct.unpack_from(">H", meta[b"iinf"], 4)[0]
    new = items + 1
    meta[b"iinf"] = meta[b"iinf"][:4] + struct.pack(">H", new) + meta[b"iinf"][6:]
    meta[b"iinf"] += box(b"infe", b"\2\0\0\0" + struct.pack(">HH4s", new, 0, b"tmap") + b"\0")
    meta[b"iref"] = meta.pop(b"iref", bytes(4)) + box(b"dimg", struct.pack(">HHHH", new, 2, 1, gain_map))
    payload = b"\0" + iso(minimum, maximum)[4 + len(ISO) :]
    places = meta[b"iloc"]
    meta[b"iloc"] = places[:6] + struct.pack(">H", new) + places[8:] + struct.pack(">HHIHII", new, 0, 0xFFFFFFFF, 1, 0, len(payload))
    return _rebuilt(body, meta, payload)


def available_count(properties: bytes) -> int:
    """Return how many boxes there are, of any type."""
    count = position = 0
    while position < len(properties):
        position += struct.unpack_from(">I", properties, position)[0]
        count += 1
    return count
