"""WebP: counts frames and chunks before libwebp builds a list of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

_RIFF_HEADER_BYTES = 8
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
    for kind, data in islice(chunks_of(body), max_chunks + 1):
        chunks += 1
        frames += kind == b"ANMF"
        pixels = pixels or _pixels(kind, bytes(data[:10]))
    return Survey(frames, chunks, pixels * _BYTES_PER_PIXEL)


def chunks_of(content: memoryview, start: int = _FIRST_CHUNK_OFFSET) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the type and the data of each chunk of a file, or of a frame whose chunks begin at `start`."""
    position = start
    while position + _CHUNK_HEADER_BYTES <= len(content):
        kind, size = bytes(content[position : position + 4]), int.from_bytes(content[position + 4 : position + 8], "little")
        position += _CHUNK_HEADER_BYTES
        yield kind, content[position : position + size]
        # Chunks are padded to an even number of bytes.
        position += size + size % 2


def lacks_padding(body: memoryview) -> bool:
    """Return whether only the byte is missing that pads the last chunk to an even size, which the RIFF size includes (RFC 9649 §2.3)."""
    if _RIFF_HEADER_BYTES + int.from_bytes(body[4:8], "little") != len(body) + 1:
        return False
    position, size = _FIRST_CHUNK_OFFSET, 0
    while position + _CHUNK_HEADER_BYTES <= len(body):
        size = int.from_bytes(body[position + 4 : position + 8], "little")
        position += _CHUNK_HEADER_BYTES + size + size % 2
    return position == len(body) + 1 and size % 2 == 1


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
