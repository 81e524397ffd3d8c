"""JPEG: how much work and memory a file takes beyond its pixels: scans, and the coefficients that a decoder holds between them."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

# Markers that begin a frame (ITU-T T.81, table B.1) and among them those of progressive ones; a scan; the end of the image.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_SCAN, _END = 0xDA, 0xD9

# In a scan's data: any marker but those that restart it, and the zero that makes 0xFF a byte of data (T.81 §B.1.1.5).
_MARKER_IN_DATA = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
# Before a marker there may be any number of fill bytes (T.81 §B.1.1.2).
_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)

# A decoder holds a coefficient in so many bytes, in blocks of 8 x 8.
_COEFFICIENT_BYTES = 2
_BLOCK_SIDE = 8


class Survey(NamedTuple):
    """What the markers of a JPEG declare.

    `samples` of all components; `scans` (not counted beyond the first of a sequential image that has all its components in it); bytes of
    coefficients that are held until the last scan, `whole_bytes`, 0 where the decoder goes line by line; marker segments that are no
    scans, and the bytes in those of applications and comments.
    """

    samples: int
    scans: int
    whole_bytes: int
    segments: int
    metadata_bytes: int


def survey(body: memoryview, max_scans: int, max_segments: int) -> Survey:
    """Return what the markers of a JPEG declare, of a broken one what was found.

    Of scans and segments no more are counted than one more than these.
    """
    samples = scans = whole_bytes = segments = metadata_bytes = components = 0
    progressive = False
    at = 2
    while scans <= max_scans and segments <= max_segments and (found := _MARKER.match(body, at)):
        marker, at = found[1][0], found.end()
        size = int.from_bytes(body[at : at + 2], "big")
        if marker == _END or size < 2:
            break
        segments += 1
        if marker >= 0xE0:
            metadata_bytes += size
        elif marker in _FRAMES and not samples:
            progressive = marker in _PROGRESSIVE
            samples, components = _samples(body[at : at + size])
        elif marker == _SCAN:
            scans += 1
            segments -= 1
            if not (progressive or scans > 1 or body[at + 2 : at + 3] != bytes([components])):
                break
            whole_bytes = samples * _COEFFICIENT_BYTES
            data = _MARKER_IN_DATA.search(body, at + size)
            if data is None:
                break
            size = data.start() - at
        at += size
    return Survey(samples, scans, whole_bytes, segments, metadata_bytes)


def _samples(header: memoryview) -> tuple[int, int]:
    """Return how many samples a frame header declares, blocks at the edges whole, and how many components (T.81 §B.2.2, §A.1.1)."""
    if len(header) < _BLOCK_SIDE:
        return 0, 0
    height, width, components = struct.unpack_from(">HHB", header, 3)
    factors = [(byte >> 4, byte & 15) for byte in header[9 : 8 + 3 * components : 3]]
    across, down = (max((pair[side] for pair in factors), default=1) or 1 for side in (0, 1))
    mcus = -(-width // (_BLOCK_SIDE * across)) * -(-height // (_BLOCK_SIDE * down))
    return mcus * sum(h * v for h, v in factors) * _BLOCK_SIDE * _BLOCK_SIDE, components
