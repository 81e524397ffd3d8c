"""PNG: what its chunks before the pixels declare, and whether a file is an animation, of which libvips reads the default picture alone."""

from __future__ import annotations

from typing import NamedTuple

_SIGNATURE_BYTES = 8
_HEADER_BYTES = 8
# Behind the data of a chunk stands its check sum.
_CHECK_BYTES = 4

# Colour type → samples of a pixel (PNG, third edition, §11.2.1).
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_COMPRESSED_TEXT = frozenset({b"zTXt", b"iTXt", b"iCCP"})


class Survey(NamedTuple):
    """What the chunks of a PNG before the first `IDAT` declare.

    `whole_bytes`: of all pixels where they are interlaced, else 0. `chunks`: how many there are besides the header, `compressed`: how many
    of them are compressed, `metadata_bytes`: what they hold.
    """

    whole_bytes: int
    chunks: int
    compressed: int
    metadata_bytes: int
    animated: bool


def survey(body: memoryview, max_chunks: int) -> Survey:
    """Return what the chunks before the pixels declare, of no more of them than one more than `max_chunks`."""
    whole_bytes = chunks = compressed = metadata_bytes = 0
    animated = False
    at = _SIGNATURE_BYTES
    while chunks <= max_chunks and at + _HEADER_BYTES <= len(body):
        size, kind = int.from_bytes(body[at : at + 4], "big"), bytes(body[at + 4 : at + 8])
        at += _HEADER_BYTES
        if kind == b"IDAT":
            break
        if kind == b"IHDR":
            whole_bytes = _whole_bytes(bytes(body[at : at + 13]))
        else:
            chunks += 1
            compressed += kind in _COMPRESSED_TEXT
            metadata_bytes += size
            # PNG, third edition, §11.3.6.1: how many frames there are.
            animated |= kind == b"acTL" and int.from_bytes(body[at : at + 4], "big") > 1
        at += size + _CHECK_BYTES
    return Survey(whole_bytes, chunks, compressed, metadata_bytes, animated)


def _whole_bytes(header: bytes) -> int:
    if len(header) < 13 or not header[12]:
        return 0
    bits = max(8, header[8]) * _SAMPLES.get(header[9], 4)
    # A palette is unpacked, with alpha perhaps.
    bits = 32 if header[9] == 3 else bits
    return int.from_bytes(header[:4], "big") * int.from_bytes(header[4:8], "big") * bits // 8
