"""WebP: what its chunks declare, counted before libwebp makes a list of them."""

from __future__ import annotations

from typing import NamedTuple

_FIRST_CHUNK_AT = 12
_HEADER_BYTES = 8

# libwebp's picture, libvips' frame and its canvas, each in RGBA.
_PIXEL_BYTES = 12


class Survey(NamedTuple):
    """How many frames and chunks a WebP has, and how many bytes its canvas takes in a decoder."""

    frames: int
    chunks: int
    whole_bytes: int


def survey(body: memoryview, max_chunks: int) -> Survey:
    """Return what the chunks of a WebP declare, of no more of them than one more than `max_chunks` (RFC 9649 §2.7)."""
    frames = chunks = pixels = 0
    at = _FIRST_CHUNK_AT
    while chunks <= max_chunks and at + _HEADER_BYTES <= len(body):
        chunks += 1
        kind, size = bytes(body[at : at + 4]), int.from_bytes(body[at + 4 : at + 8], "little")
        frames += kind == b"ANMF"
        pixels = pixels or _pixels(kind, bytes(body[at + _HEADER_BYTES : at + _HEADER_BYTES + min(size, 10)]))
        # Chunks begin at even places.
        at += _HEADER_BYTES + size + size % 2
    return Survey(frames, chunks, pixels * _PIXEL_BYTES)


def _pixels(kind: bytes, data: bytes) -> int:
    """Return width x height of a chunk that says them, else 0 (RFC 9649 §2.7.1 for VP8X, §3.4 for VP8L; RFC 6386 §9.1 for VP8)."""
    if kind == b"VP8X" and len(data) == 10:
        return (int.from_bytes(data[4:7], "little") + 1) * (int.from_bytes(data[7:10], "little") + 1)
    if kind == b"VP8L" and len(data) >= 5:
        packed = int.from_bytes(data[1:5], "little")
        return ((packed & 0x3FFF) + 1) * ((packed >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 " and len(data) == 10:
        return (int.from_bytes(data[6:8], "little") & 0x3FFF) * (int.from_bytes(data[8:10], "little") & 0x3FFF)
    return 0
