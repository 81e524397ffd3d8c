"""WebP: counts frames and chunks before libwebp builds a list of them."""

from __future__ import annotations

from typing import NamedTuple

_FIRST_CHUNK_OFFSET = 12
_CHUNK_HEADER_BYTES = 8

# libwebp's picture, libvips' frame and its canvas, each as RGBA.
_BYTES_PER_PIXEL = 12


class Survey(NamedTuple):
    """The structure of a WebP.

    frames, chunks: how many there are.
    decoded_bytes: memory that a decoder needs for the canvas.
    """

    frames: int
    chunks: int
    decoded_bytes: int


def survey(body: memoryview, max_chunks: int) -> Survey:
    """Return the structure of a WebP (RFC 9649 §2.7). Counting stops at `max_chunks` + 1."""
    frames = chunks = pixels = 0
    position = _FIRST_CHUNK_OFFSET
    while chunks <= max_chunks and position + _CHUNK_HEADER_BYTES <= len(body):
        chunks += 1
        kind, size = bytes(body[position : position + 4]), int.from_bytes(body[position + 4 : position + 8], "little")
        frames += kind == b"ANMF"
        data_start = position + _CHUNK_HEADER_BYTES
        pixels = pixels or _pixels(kind, bytes(body[data_start : data_start + min(size, 10)]))
        # Chunks are padded to an even number of bytes.
        position = data_start + size + size % 2
    return Survey(frames, chunks, pixels * _BYTES_PER_PIXEL)


def _pixels(kind: bytes, data: bytes) -> int:
    """Return width × height from a chunk that states them, otherwise 0.

    VP8X: RFC 9649 §2.7.1. VP8L: RFC 9649 §3.4. VP8: RFC 6386 §9.1.
    """
    if kind == b"VP8X" and len(data) == 10:
        return (int.from_bytes(data[4:7], "little") + 1) * (int.from_bytes(data[7:10], "little") + 1)
    if kind == b"VP8L" and len(data) >= 5:
        packed = int.from_bytes(data[1:5], "little")
        return ((packed & 0x3FFF) + 1) * ((packed >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 " and len(data) == 10:
        return (int.from_bytes(data[6:8], "little") & 0x3FFF) * (int.from_bytes(data[8:10], "little") & 0x3FFF)
    return 0
