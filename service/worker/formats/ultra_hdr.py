"""Gain maps in JPEG: a second JPEG after the picture that says how much brighter each pixel becomes on screens that allow it.

Such a file has two JPEGs and a list of both (CIPA DC-007, Multi-Picture Format). Two descriptions of the second one are in use, and Ultra
HDR (https://developer.android.com/media/platform/hdr-image-format) has both: ISO 21496-1 in binary, and Adobe's `hdrgm` in XMP. iPhones
write a gain map of their own kind (https://developer.apple.com/documentation/appkit/applying-apple-hdr-effect-to-your-photos).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from service.worker.formats import jpeg, xmp

# Red, green and blue.
Channels: TypeAlias = tuple[float, float, float]

_MPF, _ISO = b"MPF\0", b"urn:iso:std:iso:ts:21496:-1\0"
_MAX_SEGMENT_BYTES = 0xFFFF - 2

# DC-007 §5.2: the tags of the number of pictures and of their entries, and the attribute of the primary picture.
_MP_PICTURES, _MP_ENTRIES, _MP_PRIMARY = 0xB001, 0xB002, 0x030000
_MP_ENTRY = "IIIHH"
_MAX_PICTURES = 16
# Segments that are read of each of the further pictures: those that describe a gain map come first.
_MAX_SEGMENTS = 100

# ISO 21496-1, flags of the metadata; the last two are those of libultrahdr.
_MULTICHANNEL, _IN_BASE_COLORS, _BACKWARD, _COMMON_DENOMINATOR = 0x80, 0x40, 0x04, 0x08
_MAX_DENOMINATOR = 1_000_000

_HDRGM, _APPLE, _APPLE_DATA = (
    "http://ns.adobe.com/hdr-gain-map/1.0/",
    "http://ns.apple.com/HDRGainMap/1.0/",
    "http://ns.apple.com/pixeldatainfo/1.0/",
)
_APPLE_KIND = "urn:com:apple:photo:2020:aux:hdrgainmap"

# Gains and headrooms above 2 ** 16, offsets above 4 and exponents beyond these are of no camera.
_MAX_STOPS, _MAX_OFFSET, _MAX_EXPONENT = 16.0, 4.0, 16.0
# The stops between no map and the whole map. Readers divide by them, and closer headrooms could be written as equal fractions.
_MIN_HEADROOM = 1 / 1024

# Tags of Exif, of the maker note, and of the two numbers in Apple's that give the headroom.
_EXIF_IFD, _MAKER_NOTE, _HEADROOM_TAGS = 0x8769, 0x927C, (33, 48)
_APPLE_NOTE = b"Apple iOS\0"
_SIGNED_RATIONAL = 10


class GainMapInfo(NamedTuple):
    """The meaning of the levels of a gain map, in the terms of ISO 21496-1 §5.2; lists have one number for each color.

    A level of 0 to 1 stands for minimum + (maximum - minimum) × level ** (1 / gamma) stops by which the pixel becomes brighter.
    base_offset, alternate_offset: added to the linear picture before, and subtracted after.
    base_headroom, alternate_headroom: the stops above white at which a screen starts to apply the map, and applies it in full.
    in_base_colors: whether the gains are those of the picture's own primaries; otherwise of those in the ICC profile of the map.
    apple: whether the levels are Apple's instead: of a linear share of the headroom, encoded as Rec. 709 does.
    """

    minimum: Channels
    maximum: Channels
    gamma: Channels
    base_offset: Channels
    alternate_offset: Channels
    base_headroom: float
    alternate_headroom: float
    in_base_colors: bool = True
    apple: bool = False

    @property
    def is_usable(self) -> bool:
        """Whether the numbers are within the limits of what screens can apply."""
        stops = (*self.minimum, *self.maximum, self.base_headroom, self.alternate_headroom)
        return (
            all(abs(number) <= _MAX_STOPS for number in stops)
            and all(low <= high for low, high in zip(self.minimum, self.maximum, strict=True))
            and all(1 / _MAX_EXPONENT <= number <= _MAX_EXPONENT for number in self.gamma)
            and all(abs(number) <= _MAX_OFFSET for number in (*self.base_offset, *self.alternate_offset))
            and 0 <= self.base_headroom <= self.alternate_headroom - _MIN_HEADROOM
        )


class EncodedGainMap(NamedTuple):
    """A gain map as it is stored: a JPEG, and the meaning of its levels."""

    body: memoryview
    info: GainMapInfo


def find(body: memoryview) -> EncodedGainMap | None:
    """Return the gain map of a JPEG, `None` if it has none that is understood.

    body: the whole file; its segments have been counted (see `bounds`).
    """
    exif = b""
    pictures: list[memoryview] = []
    for marker, start, content in jpeg.segments(body):
        if marker == jpeg.APPLICATION_2 and content[:4] == _MPF and not pictures:
            # Offsets count from the beginning of the index, which is a TIFF header.
            pictures = _pictures(body[start + 4 :], content[4:])
        elif marker == jpeg.APPLICATION_1 and content[: len(jpeg.EXIF)] == jpeg.EXIF and not exif:
            exif = bytes(content[6:])
    for picture in pictures:
        info = _read_info(picture, exif)
        if info is not None and info.is_usable:
            return EncodedGainMap(picture, info)
    return None


def _pictures(rest: memoryview, index: memoryview) -> list[memoryview]:
    """Return the further pictures of a file, given its index (DC-007 §5.2.2 and §5.2.3) and the file from there on."""
    order = {b"MM\0*": ">", b"II*\0": "<"}.get(bytes(index[:4]))
    if order is None:
        return []
    try:
        (directory,) = struct.unpack_from(order + "I", index, 4)
        (entries,) = struct.unpack_from(order + "H", index, directory)
        values = dict(_entry(index, order, directory + 2 + 12 * number) for number in range(min(entries, _MAX_PICTURES)))
        table = values.get(_MP_ENTRIES, 0)
        found = [
            struct.unpack_from(order + _MP_ENTRY, index, table + 16 * number)
            for number in range(1, min(values.get(_MP_PICTURES, 0), _MAX_PICTURES))
        ]
    except struct.error:
        return []
    pictures = (rest[offset : offset + size] for _, size, offset, _, _ in found if offset)
    return [picture for picture in pictures if jpeg.is_jpeg(picture)]


def _entry(index: memoryview, order: str, position: int) -> tuple[int, int]:
    tag, _, _, value = struct.unpack_from(order + "HHII", index, position)
    return tag, value


def _read_info(picture: memoryview, exif: bytes) -> GainMapInfo | None:
    """Return the meaning of the levels of a further picture, `None` if it is not a gain map. The binary description takes precedence."""
    packet = b""
    for marker, _, content in islice(jpeg.segments(picture), _MAX_SEGMENTS):
        if marker == jpeg.APPLICATION_2 and content[: len(_ISO)] == _ISO and (info := read_iso(bytes(content[len(_ISO) :]))) is not None:
            return info
        if marker == jpeg.APPLICATION_1 and content[: len(jpeg.XMP)] == jpeg.XMP and not packet:
            packet = bytes(content[len(jpeg.XMP) :])
    return read_xmp(packet, exif) if packet else None


def read_iso(content: bytes) -> GainMapInfo | None:
    """Return the meaning of the levels from the binary metadata of ISO 21496-1 §C.2, `None` if the picture itself is the HDR one."""
    try:
        minimum_version, _, flags = struct.unpack_from(">HHB", content)
        if minimum_version or flags & _BACKWARD:
            return None
        numbers = _iso_numbers(content[5:], 3 if flags & _MULTICHANNEL else 1, common=bool(flags & _COMMON_DENOMINATOR))
    except (struct.error, ZeroDivisionError):
        return None
    base_headroom, alternate_headroom, *rest = numbers
    by_channel = [rest[start : start + 5] for start in range(0, len(rest), 5)]
    minimum, maximum, gamma, base_offset, alternate_offset = (_channels([channel[field] for channel in by_channel]) for field in range(5))
    in_base_colors = bool(flags & _IN_BASE_COLORS)
    return GainMapInfo(minimum, maximum, gamma, base_offset, alternate_offset, base_headroom, alternate_headroom, in_base_colors)


def _iso_numbers(content: bytes, channels: int, *, common: bool) -> list[float]:
    """Return two headrooms and five numbers for each channel. The minimum, the maximum and the offsets may be negative."""
    signs = "II" + "iiIii" * channels
    if common:
        denominator, *numerators = struct.unpack_from(">I" + signs, content)
        return [numerator / denominator for numerator in numerators]
    values = struct.unpack_from(">" + "".join(sign + "I" for sign in signs), content)
    return [numerator / denominator for numerator, denominator in zip(values[::2], values[1::2], strict=True)]


def write_iso(info: GainMapInfo) -> bytes:
    """Return the binary metadata of ISO 21496-1 §C.2."""
    fields = (info.minimum, info.maximum, info.gamma, info.base_offset, info.alternate_offset)
    channels = 1 if all(len(set(field)) == 1 for field in fields) else 3
    flags = (_MULTICHANNEL if channels == 3 else 0) | (_IN_BASE_COLORS if info.in_base_colors else 0)
    numbers = [info.base_headroom, info.alternate_headroom]
    numbers += [field[channel] for channel in range(channels) for field in fields]
    content = struct.pack(">HHB", 0, 0, flags)
    for number in numbers:
        fraction = Fraction(number).limit_denominator(_MAX_DENOMINATOR)
        content += struct.pack(">iI", fraction.numerator, fraction.denominator)
    return content


def read_xmp(packet: bytes, exif: bytes) -> GainMapInfo | None:
    """Return the meaning of the levels from the XMP of a gain map, `None` if it is not one.

    exif: of the picture, without the signature; Apple's older gain maps have their headroom in its maker note.
    """
    values = xmp.values(packet)
    if f"{_HDRGM} GainMapMax" in values:
        return _read_hdrgm(values)
    if _APPLE_KIND in values.get(f"{_APPLE_DATA} AuxiliaryImageType", ()):
        headroom = _numbers(values.get(f"{_APPLE} HDRGainMapHeadroom", ()))
        return apple_info(headroom[0] if headroom else apple_headroom(exif))
    return None


def _read_hdrgm(values: dict[str, list[str]]) -> GainMapInfo | None:
    def channels(name: str, default: float) -> Channels:
        return _channels(_numbers(values.get(f"{_HDRGM} {name}", ())) or [default])

    if values.get(f"{_HDRGM} BaseRenditionIsHDR") == ["True"]:
        return None
    maximum = channels("GainMapMax", 0)
    return GainMapInfo(
        channels("GainMapMin", 0),
        maximum,
        channels("Gamma", 1),
        channels("OffsetSDR", 1 / 64),
        channels("OffsetHDR", 1 / 64),
        channels("HDRCapacityMin", 0)[0],
        channels("HDRCapacityMax", max(maximum))[0],
    )


def apple_info(headroom: float) -> GainMapInfo | None:
    """Return the meaning of the levels of Apple's gain map, `None` if it has no effect.

    headroom: the brightest white as a multiple of the white of a standard dynamic range.
    """
    if not 1 < headroom <= 2**_MAX_STOPS:
        return None
    stops, zero, one = math.log2(headroom), (0.0,) * 3, (1.0,) * 3
    return GainMapInfo(zero, (stops,) * 3, one, zero, zero, 0.0, stops, apple=True)


def apple_headroom(exif: bytes) -> float:
    """Return the headroom from the maker note in Apple's Exif, 0 without one."""
    numbers = dict(_apple_numbers(exif))
    if not numbers:
        return 0.0
    maker33, maker48 = (numbers.get(tag, 0.0) for tag in _HEADROOM_TAGS)
    if maker33 < 1:
        stops = -20.0 * maker48 + 1.8 if maker48 <= 0.01 else -0.101 * maker48 + 1.601
    else:
        stops = -70.0 * maker48 + 3.0 if maker48 <= 0.01 else -0.303 * maker48 + 2.303
    return float(2 ** min(max(stops, 0.0), _MAX_STOPS))


def _apple_numbers(exif: bytes) -> Iterator[tuple[int, float]]:
    order = {b"MM": ">", b"II": "<"}.get(exif[:2])
    if order is None:
        return
    try:
        (first,) = struct.unpack_from(order + "I", exif, 4)
        sub = {tag: value for tag, _, _, value in _directory(exif, order, first)}.get(_EXIF_IFD, 0)
        note = next((value for tag, _, _, value in _directory(exif, order, sub) if tag == _MAKER_NOTE), 0) if sub else 0
        if note and exif[note : note + len(_APPLE_NOTE)] == _APPLE_NOTE:
            # After the name come a version and a byte order; offsets count from the name.
            for tag, kind, _, value in _directory(exif[note:], ">", 14):
                if tag in _HEADROOM_TAGS and kind == _SIGNED_RATIONAL:
                    numerator, denominator = struct.unpack_from(">ii", exif, note + value)
                    yield tag, numerator / denominator
    except (struct.error, ZeroDivisionError):
        return


def _directory(content: bytes, order: str, position: int) -> Iterator[tuple[int, int, int, int]]:
    (entries,) = struct.unpack_from(order + "H", content, position)
    for number in range(entries):
        yield struct.unpack_from(order + "HHII", content, position + 2 + 12 * number)


def _numbers(texts: Any) -> list[float]:
    numbers = []
    for text in texts:
        try:
            numbers.append(float(text))
        except ValueError:
            return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _channels(numbers: list[float]) -> Channels:
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) >= 3 else (numbers[0],) * 3


def join(picture: bytes, gain_map: bytes, info: GainMapInfo) -> bytes:
    """Return a picture with its gain map as one file: an Ultra HDR JPEG, described in both ways.

    picture, gain_map: JPEGs. What the first one shows without the second is unchanged.
    """
    described = jpeg.insert(
        gain_map, [(jpeg.APPLICATION_1, jpeg.XMP + _gain_map_packet(info)), (jpeg.APPLICATION_2, _ISO + write_iso(info))]
    )
    contents = (content for _, _, content in jpeg.segments(memoryview(picture)))
    packet = next((bytes(content[len(jpeg.XMP) :]) for content in contents if content[: len(jpeg.XMP)] == jpeg.XMP), b"")
    segments = [
        (jpeg.APPLICATION_1, jpeg.XMP + _picture_packet(packet, len(described))),
        (jpeg.APPLICATION_2, _ISO + bytes(4)),
        (jpeg.APPLICATION_2, _MPF + _index(0, 0, 0)),
    ]
    bare = jpeg.insert(picture, segments, without=jpeg.XMP)
    # The index has the same length for any sizes, so it is filled in where it stands.
    index_start = bare.index(_MPF + _index(0, 0, 0)) + len(_MPF)
    index = _index(len(bare), len(described), len(bare) - index_start)
    return bare[:index_start] + index + bare[index_start + len(index) :] + described


def _index(picture_bytes: int, gain_map_bytes: int, gain_map_offset: int) -> bytes:
    """Return the content of an index of two pictures (DC-007 §5.2). The offset counts from its beginning."""
    directory = struct.pack(">HHI4s", 0xB000, 7, 4, b"0100") + struct.pack(">HHII", _MP_PICTURES, 4, 1, 2)
    directory += struct.pack(">HHII", _MP_ENTRIES, 7, 32, 8 + 2 + 3 * 12 + 4)
    entries = struct.pack(">" + _MP_ENTRY, _MP_PRIMARY, picture_bytes, 0, 0, 0)
    entries += struct.pack(">" + _MP_ENTRY, 0, gain_map_bytes, gain_map_offset, 0, 0)
    return b"MM\0*" + struct.pack(">IH", 8, 3) + directory + bytes(4) + entries


def _picture_packet(packet: bytes, gain_map_bytes: int) -> bytes:
    """Return the XMP of a picture with a description of the two JPEGs.

    packet: the XMP that the picture has already, empty if it has none. If both do not fit into one segment, it is left out.
    """
    description = (
        f'<rdf:Description xmlns:rdf="{xmp.RDF}" rdf:about="" xmlns:hdrgm="{_HDRGM}" hdrgm:Version="1.0" '
        'xmlns:Container="http://ns.google.com/photos/1.0/container/" xmlns:Item="http://ns.google.com/photos/1.0/container/item/">'
        '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="Primary" Item:Mime="image/jpeg"/>'
        '</rdf:li><rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="GainMap" Item:Mime="image/jpeg" '
        f'Item:Length="{gain_map_bytes}"/></rdf:li></rdf:Seq></Container:Directory></rdf:Description>'
    ).encode("ascii")
    return xmp.add(packet, description, _MAX_SEGMENT_BYTES - len(jpeg.XMP))


def _gain_map_packet(info: GainMapInfo) -> bytes:
    fields = {
        "GainMapMin": info.minimum,
        "GainMapMax": info.maximum,
        "Gamma": info.gamma,
        "OffsetSDR": info.base_offset,
        "OffsetHDR": info.alternate_offset,
    }
    attributes = f'hdrgm:Version="1.0" hdrgm:HDRCapacityMin="{info.base_headroom:g}" hdrgm:HDRCapacityMax="{info.alternate_headroom:g}"'
    attributes += ' hdrgm:BaseRenditionIsHDR="False"'
    elements = ""
    for name, numbers in fields.items():
        if len(set(numbers)) == 1:
            attributes += f' hdrgm:{name}="{numbers[0]:g}"'
        else:
            members = "".join(f"<rdf:li>{number:g}</rdf:li>" for number in numbers)
            elements += f"<hdrgm:{name}><rdf:Seq>{members}</rdf:Seq></hdrgm:{name}>"
    return xmp.packet_of(f'<rdf:Description rdf:about="" xmlns:hdrgm="{_HDRGM}" {attributes}>{elements}</rdf:Description>'.encode("ascii"))
