"""JPEG: counts scans and segments, and the memory for coefficients that a decoder holds until the last scan."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

# Markers of frame headers, of progressive ones among them, of a scan, and of the end of the image (ITU-T T.81, table B.1).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_SCAN, _END = 0xDA, 0xD9

# The end of a scan's data: any marker except restart markers, and 0xFF 0x00, which is a data byte 0xFF (T.81 §B.1.1.5).
_MARKER_IN_DATA = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
# A marker may be preceded by any number of fill bytes (T.81 §B.1.1.2).
_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)

# A decoder holds coefficients as 16-bit integers, in blocks of 8 × 8.
_COEFFICIENT_BYTES = 2
_BLOCK_SIDE = 8


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


def survey(body: memoryview, max_scans: int, max_segments: int) -> Survey:
    """Return the structure of a JPEG, of a broken one as far as it can be read.

    Counting stops after one more than `max_scans` or `max_segments`.
    """
    samples = scans = decoded_bytes = segments = metadata_bytes = components = 0
    progressive = False
    position = 2
    while scans <= max_scans and segments <= max_segments and (found := _MARKER.match(body, position)):
        marker, position = found[1][0], found.end()
        size = int.from_bytes(body[position : position + 2], "big")
        if marker == _END or size < 2:
            break
        segments += 1
        if marker >= 0xE0:
            metadata_bytes += size
        elif marker in _FRAMES and not samples:
            progressive = marker in _PROGRESSIVE
            samples, components = _samples(body[position : position + size])
        elif marker == _SCAN:
            scans += 1
            segments -= 1
            if not (progressive or scans > 1 or body[position + 2 : position + 3] != bytes([components])):
                break
            decoded_bytes = samples * _COEFFICIENT_BYTES
            next_marker = _MARKER_IN_DATA.search(body, position + size)
            if next_marker is None:
                break
            size = next_marker.start() - position
        position += size
    return Survey(samples, scans, decoded_bytes, segments, metadata_bytes)


class Segment(NamedTuple):
    """A marker segment. start: where its content begins in the file, after the length."""

    marker: int
    start: int
    content: memoryview


def segments(body: memoryview) -> Iterator[Segment]:
    """Yield the segments before the first scan, of a broken file as far as it can be read."""
    position = 2
    while found := _MARKER.match(body, position):
        marker, position = found[1][0], found.end()
        size = int.from_bytes(body[position : position + 2], "big")
        if marker in {_SCAN, _END} or size < 2:
            return
        yield Segment(marker, position + 2, body[position + 2 : position + size])
        position += size


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
