"""Strips: the frames of an animation below one another, which libvips' savers expect, decoded only when a saver reads them.

libvips has no public operation that computes pixels on demand, but its loaders do. So the strip is written as a PNG without compression,
and libvips' PNG loader reads it from a source whose every read continues with the next rows: neither the frames nor the PNG are ever in
memory as a whole. This costs about 1 ns per byte, and no pixel changes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyvips

from service.worker.fields import copy_fields
from service.worker.formats.animation import Animation

# The number of bands → the color type of a PNG with 8 bits per sample (PNG, third edition, §11.2.1).
_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}

# WebP and GIF count loops in 16 bits; more of them are endless for anyone who watches.
_MAX_LOOPS = 65_535

# Rows are written in pieces of about this many bytes.
_PIECE_BYTES = 60_000
# The largest block that deflate stores without compression (RFC 1951 §3.2.4).
_MAX_BLOCK_BYTES = 65_535
# The header of a zlib stream (RFC 1950 §2.2), and the last block of the deflate data in it, which is empty.
_ZLIB_HEADER, _LAST_BLOCK = b"\x78\x01", b"\x01\x00\x00\xff\xff"


class Strip:
    """The finished frames of an animation as one image."""

    def __init__(self, animation: Animation) -> None:
        """Prepare a strip.

        animation: its frames have 8 bits per band, and are all of one size.
        """
        self._animation = animation
        self._error: Exception | None = None

    def open(self) -> pyvips.Image:
        """Return the strip, to be read once from top to bottom, with the fields of its first frame, `page-height`, `delay` and `loop`.

        If a frame fails, reading the strip raises `pyvips.Error`; `frame_errors` raises the cause.
        """
        timing = self._animation.timing
        frames = self._animation.frames()
        first = next(frames)
        stream = _PngStream(first, frames, len(timing.delays))
        source = pyvips.SourceCustom()
        source.on_read(lambda size: self._read(stream, size))
        image = pyvips.Image.new_from_source(source, "", access="sequential", fail_on="error")
        image = copy_fields(first, image.copy(interpretation=first.interpretation))
        image.set_type(pyvips.GValue.gint_type, "page-height", first.height)
        image.set_type(pyvips.GValue.array_int_type, "delay", timing.delays)
        image.set_type(pyvips.GValue.gint_type, "loop", timing.loops if timing.loops <= _MAX_LOOPS else 0)
        return image

    @contextmanager
    def frame_errors(self) -> Iterator[None]:
        """Return a context in which the error of a frame replaces the error of libvips that it causes."""
        try:
            yield
        except pyvips.Error:
            if self._error is not None:
                raise self._error from None
            raise

    def _read(self, stream: _PngStream, size: int) -> bytes:
        try:
            return stream.read(size)
        except Exception as error:
            # libvips calls this, and would only see that the file ends.
            self._error = error
            return b""


class _PngStream:
    """The bytes of a PNG whose rows are those of frames below one another."""

    def __init__(self, first: pyvips.Image, others: Iterator[pyvips.Image], count: int) -> None:
        self._pieces = _png(first, others, count)
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end."""
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        out, self._rest = self._rest[:size], self._rest[size:]
        return bytes(out)


def _png(first: pyvips.Image, others: Iterator[pyvips.Image], count: int) -> Iterator[bytes]:
    """Yield the pieces of a PNG with uncompressed rows (PNG, third edition, §5.3 and §10)."""
    width, height, bands = first.width, first.height, first.bands
    header = width.to_bytes(4, "big") + (height * count).to_bytes(4, "big") + bytes([8, _COLOR_TYPES[bands], 0, 0, 0])
    yield b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", _ZLIB_HEADER)
    checksum = 1
    frame: pyvips.Image | None = first
    while frame is not None:
        pixels = memoryview(frame.write_to_memory())
        for rows in _filtered_rows(pixels, width * bands):
            checksum = zlib.adler32(rows, checksum)
            yield _chunk(b"IDAT", _stored(rows))
        frame = next(others, None)
    yield _chunk(b"IDAT", _LAST_BLOCK + checksum.to_bytes(4, "big")) + _chunk(b"IEND", b"")


def _filtered_rows(pixels: memoryview, row_bytes: int) -> Iterator[bytes]:
    """Yield some rows at a time, each after the number of its filter, 0 for none."""
    step = max(1, _PIECE_BYTES // row_bytes) * row_bytes
    for start in range(0, len(pixels), step):
        piece = pixels[start : start + step]
        yield b"".join(part for row in range(0, len(piece), row_bytes) for part in (b"\0", piece[row : row + row_bytes]))


def _stored(data: bytes) -> bytes:
    """Return data in blocks of deflate without compression."""
    blocks = [data[start : start + _MAX_BLOCK_BYTES] for start in range(0, len(data), _MAX_BLOCK_BYTES)]
    return b"".join(
        part for block in blocks for part in (b"\0", len(block).to_bytes(2, "little"), (len(block) ^ 0xFFFF).to_bytes(2, "little"), block)
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(data, zlib.crc32(kind)).to_bytes(4, "big")
