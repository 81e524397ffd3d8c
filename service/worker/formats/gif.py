"""GIF: how many frames and blocks a file has, and whether it ends where its blocks do: to libvips one cut short is a shorter one."""

from __future__ import annotations

from typing import NamedTuple

_HEADER_BYTES = 13
_IMAGE_BYTES = 10
_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B


# A decoder holds the canvas in RGBA.
_PIXEL_BYTES = 4


class Survey(NamedTuple):
    """How many frames a GIF has, how many blocks and sub-blocks, how many bytes its canvas takes, and whether it ends between two blocks.

    That the trailer alone is missing is common and passes as `whole`.
    """

    frames: int
    blocks: int
    whole_bytes: int
    whole: bool


def survey(body: memoryview, max_frames: int, max_blocks: int) -> Survey:
    """Return what the blocks of a GIF are (GIF89a, appendix A), of no more frames and blocks than one more than these."""
    frames = blocks = 0
    canvas = int.from_bytes(body[6:8], "little") * int.from_bytes(body[8:10], "little") * _PIXEL_BYTES
    at = _HEADER_BYTES + _table_bytes(body[10]) if len(body) >= _HEADER_BYTES else len(body) + 1
    while at < len(body) and body[at] in {_EXTENSION, _IMAGE} and frames <= max_frames and blocks <= max_blocks:
        if body[at] == _EXTENSION:
            at += 2
        elif at + _IMAGE_BYTES > len(body):
            return Survey(frames, blocks, canvas, whole=False)
        else:
            frames += 1
            # Behind the colour table stands the first code size of the compressed data.
            at += _IMAGE_BYTES + _table_bytes(body[at + 9]) + 1
        blocks += 1
        while at < len(body) and body[at] and blocks <= max_blocks:
            at += 1 + body[at]
            blocks += 1
        at += 1
    return Survey(frames, blocks, canvas, whole=at <= len(body))


def _table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
