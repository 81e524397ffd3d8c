"""GIF: counts frames and blocks, and detects a truncated file, which libvips reads as a shorter animation."""

from __future__ import annotations

from typing import NamedTuple

_HEADER_BYTES = 13
_IMAGE_DESCRIPTOR_BYTES = 10
_EXTENSION, _IMAGE = 0x21, 0x2C

# A decoder holds the canvas as RGBA.
_BYTES_PER_PIXEL = 4


class Survey(NamedTuple):
    """The structure of a GIF.

    frames, blocks: how many there are; sub-blocks count as blocks.
    decoded_bytes: memory that a decoder needs for the canvas.
    complete: whether the file ends between two blocks. The trailer is often missing, and is not required.
    """

    frames: int
    blocks: int
    decoded_bytes: int
    complete: bool


def survey(body: memoryview, max_frames: int, max_blocks: int) -> Survey:
    """Return the structure of a GIF (GIF89a, appendix A). Counting stops after one more than `max_frames` or `max_blocks`."""
    frames = blocks = 0
    decoded_bytes = int.from_bytes(body[6:8], "little") * int.from_bytes(body[8:10], "little") * _BYTES_PER_PIXEL
    position = _HEADER_BYTES + _color_table_bytes(body[10]) if len(body) >= _HEADER_BYTES else len(body) + 1
    while position < len(body) and body[position] in {_EXTENSION, _IMAGE} and frames <= max_frames and blocks <= max_blocks:
        if body[position] == _EXTENSION:
            position += 2
        elif position + _IMAGE_DESCRIPTOR_BYTES > len(body):
            return Survey(frames, blocks, decoded_bytes, complete=False)
        else:
            frames += 1
            # The color table is followed by one byte, the minimum code size of the compressed data.
            position += _IMAGE_DESCRIPTOR_BYTES + _color_table_bytes(body[position + 9]) + 1
        blocks += 1
        while position < len(body) and body[position] and blocks <= max_blocks:
            position += 1 + body[position]
            blocks += 1
        position += 1
    return Survey(frames, blocks, decoded_bytes, complete=position <= len(body))


def _color_table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
