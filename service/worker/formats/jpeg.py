"""JPEG: counts scans and segments, and the memory for coefficients that a decoder holds until the last scan; detects lost data."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

# Markers of frame headers, of progressive ones among them, of a scan, and of the end of the image (ITU-T T.81, table B.1).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_START, _SCAN, _END, _APPLICATION_0, _APPLICATION_14 = 0xD8, 0xDA, 0xD9, 0xE0, 0xEE
# Markers of the application segments that hold Exif, XMP and other data.
APPLICATION_1, APPLICATION_2, APPLICATION_13 = 0xE1, 0xE2, 0xED
# Markers without a segment (T.81 §B.1.1.3): TEM and the restart markers.
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})

# The end of a scan's data: any marker except restart markers, and 0xFF 0x00, which is a data byte 0xFF (T.81 §B.1.1.5).
_MARKER_IN_DATA = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
# A marker may be preceded by any number of fill bytes (T.81 §B.1.1.2), and libjpeg skips all other bytes too.
_MARKER = re.compile(rb"\xff([\x01-\xfe])")

# The segments that say how colors are coded (ITU-T T.871 §10.1, T.872 §6.5.3), and the sizes that they have without a thumbnail.
_JFIF, _JFIF_BYTES = b"JFIF\0", 14
_ADOBE, _ADOBE_BYTES = b"Adobe", 12
# The beginnings of segments with Exif (Exif 2.32 §4.7.2) and XMP (XMP specification part 3, §1.1.3).
EXIF = b"Exif\0\0"
XMP = b"http://ns.adobe.com/xap/1.0/\0"

# libjpeg's warnings that a part of the picture could not be decoded (jerror.h, JWRN_*). It then goes on with gray. There are others, which
# files of many cameras cause and which are harmless: bytes between the data of a scan and the next marker, an unknown version of JFIF.
_LOSS = re.compile(r"Corrupt JPEG data: (?:premature end|bad Huffman code|bad arithmetic code|found marker)|[Pp]remature end of JPEG")

# A scan header has the number of its components, two bytes for each, and the range of coefficients and bits that it codes (T.81 §B.2.3).
_BLOCK_COEFFICIENTS = 64
_LOWEST_BIT = 0

# A decoder holds coefficients as 16-bit integers, in blocks of 8 × 8.
_COEFFICIENT_BYTES = 2
_BLOCK_SIDE = 8


# The beginning of a file: the start of the image, and of the next marker (T.81, table B.1).
SIGNATURE = bytes([0xFF, _START, 0xFF])


class Survey(NamedTuple):
    """The structure of a JPEG, from its markers.

    samples: of all components.
    scans: how many there are. A sequential image whose first scan has all components is not read further, and has one.
    decoded_bytes: memory for coefficients until the last scan, 0 if the decoder works line by line.
    segments: how many marker segments there are, not counting scans.
    metadata_bytes: size of the application and comment segments.
    """

    samples: int
    scans: int
    decoded_bytes: int
    segments: int
    metadata_bytes: int


def is_jpeg(body: memoryview) -> bool:
    """Return whether a file begins as a JPEG."""
    return bytes(body[: len(SIGNATURE)]) == SIGNATURE


def survey(body: memoryview, max_scans: int, max_segments: int) -> Survey:
    """Return the structure of a JPEG, of a broken one as far as it can be read.

    Counting stops after one more than `max_scans` or `max_segments`.
    """
    samples = scans = decoded_bytes = segments = metadata_bytes = components = 0
    progressive = False
    for marker, start, size in _segments(body):
        if marker == _END:
            break
        if marker == _SCAN:
            scans += 1
            if not (progressive or scans > 1 or body[start + 2 : start + 3] != bytes([components])):
                break
            decoded_bytes = samples * _COEFFICIENT_BYTES
        else:
            segments += 1
            metadata_bytes += size if marker >= _APPLICATION_0 else 0
            if marker in _FRAMES and not samples:
                progressive = marker in _PROGRESSIVE
                samples, components = _samples(body[start : start + size])
        if scans > max_scans or segments > max_segments:
            break
    return Survey(samples, scans, decoded_bytes, segments, metadata_bytes)


class Segment(NamedTuple):
    """A marker segment. start: where its content begins in the file, after the length."""

    marker: int
    start: int
    content: memoryview


def segments(body: memoryview) -> Iterator[Segment]:
    """Yield the segments before the first scan, of a broken file as far as it can be read."""
    for marker, start, size in _segments(body):
        if marker in {_SCAN, _END}:
            return
        yield Segment(marker, start + 2, body[start + 2 : start + size])


def replace_metadata(body: memoryview, replace: Callable[[Segment], bytes]) -> bytes:
    """Return a JPEG whose application and comment segments have other contents, without bytes between segments and after the end.

    replace: returns the content of a segment, up to 65,533 bytes; if it is empty, the segment is left out.

    Returns nothing if there is no end marker.
    """
    parts: list[bytes | memoryview] = [bytes([0xFF, _START])]
    data_start = 0
    for marker, start, size in _segments(body):
        if data_start:
            parts.append(body[data_start : start - 2])
            data_start = 0
        if marker == _END:
            return b"".join((*parts, bytes([0xFF, _END])))
        content: bytes | memoryview = body[start + 2 : start + size]
        if marker >= _APPLICATION_0:
            content = replace(Segment(marker, start + 2, body[start + 2 : start + size]))
            if not content:
                continue
        elif marker == _SCAN:
            data_start = start + size
        parts += (bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big"), content)
    return b""


def insert(body: bytes, added: Sequence[tuple[int, bytes]], without: bytes | None = None) -> bytes:
    """Return a JPEG with further segments after its JFIF and Exif segments, which must come first.

    added: markers and contents. without: the beginning of segments that are left out.
    """
    kept, position = [], 2
    for marker, start, content in segments(memoryview(body)):
        left_out = without is not None and content[: len(without)] == without
        if marker != _APPLICATION_0 and content[: len(EXIF)] != EXIF and not left_out:
            break
        end = start + len(content)
        if not left_out:
            kept.append(body[position:end])
        position = end
    further = [struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content for marker, content in added]
    return b"".join([body[:2], *kept, *further, body[position:]])


def color_segment(segment: Segment) -> bytes:
    """Return the content of a segment that says how colors are coded, without a thumbnail; nothing of another."""
    if segment.marker == _APPLICATION_0 and segment.content[: len(_JFIF)] == _JFIF and len(segment.content) >= _JFIF_BYTES:
        # The last two bytes are the width and height of the thumbnail.
        return bytes(segment.content[: _JFIF_BYTES - 2]) + b"\0\0"
    if segment.marker == _APPLICATION_14 and segment.content[: len(_ADOBE)] == _ADOBE:
        return bytes(segment.content)
    return b""


def has_unambiguous_colors(body: memoryview) -> bool:
    """Return whether all decoders agree on how the colors of a JPEG are coded.

    libjxl takes any application segment 0 for one of JFIF, which means YCbCr, and that of Adobe counts only if it has the usual size.
    """
    zeros, jfif = 0, 0
    for marker, start, size in _segments(body):
        content = body[start + 2 : start + size]
        if marker == _APPLICATION_0:
            zeros += 1
            jfif += content[: len(_JFIF)] == _JFIF and len(content) >= _JFIF_BYTES
        elif marker == _APPLICATION_14 and content[: len(_ADOBE)] == _ADOBE and len(content) != _ADOBE_BYTES:
            return False
    return not zeros or bool(jfif)


def lacks_scans(body: memoryview) -> bool:
    """Return whether scans are missing in a JPEG of several, which a decoder does not notice: each one ends where a marker begins.

    A component without any scan is missing in the picture. The last bits of a progressive image only make it sharper, and some programs
    leave them out, so they count only in a file without an end marker.
    """
    # For each component, the lowest bit that was sent of each of its coefficients.
    sent: dict[int, list[int | None]] = {}
    progressive, ended = False, False
    for marker, start, size in _segments(body):
        ended = marker == _END
        if marker in _FRAMES and not sent:
            progressive = marker in _PROGRESSIVE
            identifiers = bytes(body[start + 8 : start + size : 3])
            sent = {identifier: [None] * _BLOCK_COEFFICIENTS for identifier in identifiers}
        elif marker == _SCAN:
            header = bytes(body[start + 2 : start + size])
            count = header[0] if header else 0
            scanned = [identifier for identifier in header[1 : 1 + 2 * count : 2] if identifier in sent]
            if not progressive and len(scanned) == len(sent):
                # The only scan. Only its data shows whether all of it is there.
                return False
            first, last, bits = 0, _BLOCK_COEFFICIENTS - 1, _LOWEST_BIT
            if progressive and len(header) >= 4 + 2 * count:
                first, last, bits = struct.unpack_from("3B", header, 1 + 2 * count)
            for identifier in scanned:
                for coefficient in range(first, min(last, _BLOCK_COEFFICIENTS - 1) + 1):
                    sent[identifier][coefficient] = bits & 15
    if ended:
        return any(of_component[0] is None for of_component in sent.values())
    return any(bit != _LOWEST_BIT for of_component in sent.values() for bit in of_component)


def means_loss(warnings: str) -> bool:
    """Return whether libjpeg's warnings about a JPEG that was decoded to its end say that a part of the picture is missing or wrong."""
    return bool(_LOSS.search(warnings))


def _segments(body: memoryview) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, the start and the size of each segment, and of the end marker, without the data of scans."""
    position = 2
    while found := _MARKER.search(body, position):
        marker, position = found[1][0], found.end()
        if marker in _STANDALONE:
            continue
        size = int.from_bytes(body[position : position + 2], "big")
        if marker == _END:
            yield marker, position, 0
        if marker == _END or size < 2:
            return
        yield marker, position, size
        position += size
        if marker == _SCAN:
            data_end = _MARKER_IN_DATA.search(body, position)
            if data_end is None:
                return
            position = data_end.start()


def _samples(header: memoryview) -> tuple[int, int]:
    """Return the numbers of samples and components in a frame header, with blocks at the edges complete (T.81 §B.2.2, §A.1.1)."""
    if len(header) < _BLOCK_SIDE:
        return 0, 0
    height, width, components = struct.unpack_from(">HHB", header, 3)
    factors = [(byte >> 4, byte & 15) for byte in header[9 : 8 + 3 * components : 3]]
    max_horizontal, max_vertical = (max((pair[axis] for pair in factors), default=1) or 1 for axis in (0, 1))
    mcus = -(-width // (_BLOCK_SIDE * max_horizontal)) * -(-height // (_BLOCK_SIDE * max_vertical))
    return mcus * sum(h * v for h, v in factors) * _BLOCK_SIDE * _BLOCK_SIDE, components


def pixel_count(body: bytes) -> int | None:
    """Return width × height from the first frame header (ITU-T T.81 §B.2.2), `None` if the data is not a JPEG."""
    position = 2
    while body[:2] == b"\xff\xd8" and body[position : position + 1] == b"\xff" and position + 9 <= len(body):
        if body[position + 1] in _FRAMES:
            return int.from_bytes(body[position + 5 : position + 7], "big") * int.from_bytes(body[position + 7 : position + 9], "big")
        position += 2 + int.from_bytes(body[position + 2 : position + 4], "big")
    return None
