"""PNG: counts the chunks before the pixels, and detects animations, of which libvips reads only the default picture."""

from __future__ import annotations

from typing import NamedTuple

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK_HEADER_BYTES = 8
_CRC_BYTES = 4

# Color type → samples per pixel (PNG, third edition, §11.2.1).
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_COMPRESSED_CHUNKS = frozenset({b"zTXt", b"iTXt", b"iCCP"})


class Survey(NamedTuple):
    """The chunks of a PNG before the first `IDAT`, not counting the header.

    decoded_bytes: memory for all pixels if they are interlaced, otherwise 0, because a decoder then needs a few lines only.
    chunks, compressed_chunks: how many there are.
    metadata_bytes: the size of their data.
    animated: whether the file declares more than one frame.
    """

    decoded_bytes: int
    chunks: int
    compressed_chunks: int
    metadata_bytes: int
    animated: bool


def survey(body: memoryview, max_chunks: int) -> Survey:
    """Return the chunks of a PNG before its pixels. Counting stops at `max_chunks` + 1."""
    decoded_bytes = chunks = compressed_chunks = metadata_bytes = 0
    animated = False
    position = len(_SIGNATURE)
    while chunks <= max_chunks and position + _CHUNK_HEADER_BYTES <= len(body):
        size, kind = int.from_bytes(body[position : position + 4], "big"), bytes(body[position + 4 : position + 8])
        position += _CHUNK_HEADER_BYTES
        if kind == b"IDAT":
            break
        if kind == b"IHDR":
            decoded_bytes = _decoded_bytes(bytes(body[position : position + 13]))
        else:
            chunks += 1
            compressed_chunks += kind in _COMPRESSED_CHUNKS
            metadata_bytes += size
            # acTL begins with the number of frames (PNG, third edition, §11.3.6.1).
            animated |= kind == b"acTL" and int.from_bytes(body[position : position + 4], "big") > 1
        position += size + _CRC_BYTES
    return Survey(decoded_bytes, chunks, compressed_chunks, metadata_bytes, animated)


def _decoded_bytes(header: bytes) -> int:
    if len(header) < 13 or not header[12]:
        return 0
    bits = max(8, header[8]) * _SAMPLES.get(header[9], 4)
    # A palette is expanded, possibly with alpha.
    bits = 32 if header[9] == 3 else bits
    return int.from_bytes(header[:4], "big") * int.from_bytes(header[4:8], "big") * bits // 8


def pixel_count(body: bytes) -> int | None:
    """Return width × height (PNG, third edition, §11.2.1), `None` if the data is not a PNG."""
    if body[:8] != _SIGNATURE or body[12:16] != b"IHDR":
        return None
    return int.from_bytes(body[16:20], "big") * int.from_bytes(body[20:24], "big")
