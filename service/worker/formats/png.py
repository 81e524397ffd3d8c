"""PNG: counts the chunks before the pixels, and detects animations, of which libvips reads only the default picture."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from service.worker import color_space
from service.worker.color_space import ColorSpace, Primaries

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK_HEADER_BYTES = 8
_CRC_BYTES = 4

# Color type → samples per pixel (PNG, third edition, §11.2.1).
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_COMPRESSED_CHUNKS = frozenset({b"zTXt", b"iTXt", b"iCCP"})
_METADATA_CHUNKS = frozenset({b"eXIf", b"tEXt", b"zTXt", b"iTXt"})
_MAX_KEYWORD_BYTES = 79

# Chunks that state a color space.
_COLOR_CHUNKS = frozenset({b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cLLI", b"mDCV"})
_RGB_FULL_RANGE = b"\0\1"
_MAX_DECOMPRESSED_BYTES = 8 << 20

# The units of `gAMA` and `cHRM`, and of luminances in cd/m² (PNG, third edition, §11.3.2, §11.3.6).
_UNITS, _LUMINANCE_UNIT_NITS = 100_000, 0.0001


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


def metadata_chunks(body: memoryview, max_chunks: int) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the type and the data of the chunks with Exif and text (§11.3.3, §11.3.4.5), also after the pixels.

    Reading stops after `max_chunks` chunks.
    """
    position = len(_SIGNATURE)
    for _ in range(max_chunks):
        size, kind = int.from_bytes(body[position : position + 4], "big"), bytes(body[position + 4 : position + 8])
        position += _CHUNK_HEADER_BYTES
        if not kind or kind == b"IEND":
            return
        if kind in _METADATA_CHUNKS:
            yield kind, body[position : position + size]
        position += size + _CRC_BYTES


def keyword(chunk: memoryview) -> str:
    """Return the keyword of a chunk with text."""
    return bytes(chunk[: _MAX_KEYWORD_BYTES + 1]).partition(b"\0")[0].decode("latin-1")


def text(kind: bytes, chunk: memoryview) -> bytes:
    """Return the text of a `tEXt`, `zTXt` or `iTXt` chunk in UTF-8, empty if it is damaged or too large. kind: the type of the chunk."""
    content = bytes(chunk).partition(b"\0")[2]
    if kind == b"tEXt":
        return content.decode("latin-1").encode()
    if kind == b"zTXt":
        return decompress(content[1:]).decode("latin-1").encode()
    # A flag and a method of compression, a language, and the keyword in that language.
    rest = content[2:].split(b"\0", 2)[2:]
    return b"" if not rest else decompress(rest[0]) if content[:1] == b"\1" else rest[0]


class Colors(NamedTuple):
    """The color spaces that a PNG states (PNG, third edition, §4.3); `None` for sRGB or nothing.

    profile: the data of its `iCCP` chunk, empty if there is none.
    coded: of `cICP`, which takes precedence over an ICC profile.
    measured: of `gAMA` and `cHRM`, which apply if there is neither an ICC profile nor `sRGB`.
    """

    profile: bytes
    coded: ColorSpace | None
    measured: ColorSpace | None


def colors(body: memoryview, max_chunks: int) -> Colors:
    """Return the color spaces that a PNG states before its pixels. Reading stops after `max_chunks` chunks."""
    found: dict[bytes, memoryview] = {}
    position = len(_SIGNATURE)
    for _ in range(max_chunks):
        size, kind = int.from_bytes(body[position : position + 4], "big"), bytes(body[position + 4 : position + 8])
        position += _CHUNK_HEADER_BYTES
        if kind == b"IDAT" or position > len(body):
            break
        if kind in _COLOR_CHUNKS:
            found.setdefault(kind, body[position : position + size])
        position += size + _CRC_BYTES
    if not found:
        return Colors(b"", None, None)
    return Colors(bytes(found.get(b"iCCP", b"")), _coded(found), None if b"sRGB" in found else _measured(found))


def decompress_profile(chunk: bytes) -> bytes:
    """Return the ICC profile in the data of an `iCCP` chunk (§11.3.2.3), empty if it is damaged or too large."""
    # A name, a zero byte, the method of compression, and the compressed profile.
    return decompress(chunk[chunk.find(b"\0") + 2 :])


def decompress(compressed: bytes) -> bytes:
    """Return the content of compressed data of a chunk, empty if it is damaged or too large."""
    try:
        stream = zlib.decompressobj()
        content = stream.decompress(compressed, _MAX_DECOMPRESSED_BYTES)
    except zlib.error:
        return b""
    return content if stream.eof else b""


def _coded(found: dict[bytes, memoryview]) -> ColorSpace | None:
    """Return the color space of `cICP`, `None` without one that Chromium obeys: RGB in the full range (§11.3.2.6)."""
    chunk = bytes(found.get(b"cICP", b""))
    if len(chunk) != 4 or chunk[2:] != _RGB_FULL_RANGE:
        return None
    space = color_space.from_png_code_points(chunk[0], chunk[1])
    if space is None or not space.is_hdr:
        return space
    # The brightest pixel (`cLLI`), or the peak of the display on which the picture was graded (`mDCV`).
    levels = found.get(b"cLLI", b"")[:4], found.get(b"mDCV", b"")[16:20]
    nits = [int.from_bytes(level, "big") * _LUMINANCE_UNIT_NITS for level in levels]
    return space._replace(max_nits=nits[0] or nits[1] or space.max_nits)


def _measured(found: dict[bytes, memoryview]) -> ColorSpace | None:
    gamma, chromaticities = found.get(b"gAMA"), found.get(b"cHRM")
    # Browsers ignore `cHRM` without `gAMA`.
    if gamma is None or len(gamma) != 4:
        return None
    primaries = None
    if chromaticities is not None and len(chromaticities) == 32:
        numbers = [int.from_bytes(chromaticities[start : start + 4], "big") / _UNITS for start in range(0, 32, 4)]
        white, red, green, blue = zip(numbers[::2], numbers[1::2], strict=True)
        primaries = Primaries(red, green, blue, white)
    return color_space.from_gamma(int.from_bytes(gamma, "big") / _UNITS, primaries)
