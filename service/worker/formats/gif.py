"""GIF: counts frames and blocks, and detects what libvips reads otherwise than browsers: truncated files and areas without pixels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise
from typing import NamedTuple

_HEADER_BYTES = 13
_IMAGE_DESCRIPTOR_BYTES = 10
_EXTENSION, _IMAGE = 0x21, 0x2C
# The label of a graphic control extension, and the size of its only block (GIF89a §23).
_CONTROL = b"\xf9\x04"
# Disposals.
_TO_BACKGROUND, _TO_PREVIOUS = 2, 3

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


class Frame(NamedTuple):
    """A frame: its place and size in pixels, its disposal (GIF89a §23), whether it may be transparent, and its picture as a GIF."""

    left: int
    top: int
    width: int
    height: int
    disposal: int
    transparent: bool
    file: bytes


def frames(body: memoryview, *, with_files: bool = True) -> Iterator[Frame]:
    """Yield the frames of a GIF, whose number `survey` limits, up to the first whose header is incomplete.

    Without `with_files` the field `file` is empty.
    """
    if len(body) < _HEADER_BYTES:
        return
    global_table = bytes(body[_HEADER_BYTES : _HEADER_BYTES + _color_table_bytes(body[10])])
    control = b"\0\0\0\0"
    position = _HEADER_BYTES + len(global_table)
    while position < len(body) and body[position] in {_EXTENSION, _IMAGE}:
        start = position
        if body[position] == _EXTENSION:
            position += 2
            if body[start + 1 : start + 3] == _CONTROL:
                control = bytes(body[start + 3 : start + 7])
        elif position + _IMAGE_DESCRIPTOR_BYTES > len(body):
            return
        else:
            position += _IMAGE_DESCRIPTOR_BYTES + _color_table_bytes(body[position + 9]) + 1
        data_start = position - 1
        while position < len(body) and body[position]:
            position += 1 + body[position]
        position += 1
        if body[start] == _IMAGE:
            descriptor = bytes(body[start : start + _IMAGE_DESCRIPTOR_BYTES])
            own_table = bytes(body[start + _IMAGE_DESCRIPTOR_BYTES : data_start])
            frame = _frame(descriptor, control)
            file = _file(descriptor, control, own_table or global_table, bytes(body[data_start:position])) if with_files else b""
            yield frame._replace(file=file)
            control = b"\0\0\0\0"


def has_filled_areas(body: memoryview, max_frames: int) -> bool:
    """Return whether libvips' decoder fills areas that are transparent in browsers.

    It has no alpha unless a frame has a transparent color, and fills areas that frames without one clear. Whether an area shows is decided
    by rectangles: it is taken to show unless the next frame paints all of it and stays.

    body: a GIF with at most `max_frames` frames.
    """
    found = list(islice(frames(body, with_files=False), max_frames))
    if not found:
        return False
    canvas = 0, 0, int.from_bytes(body[6:8], "little"), int.from_bytes(body[8:10], "little")
    alpha = any(frame.transparent for frame in found)
    cleared = any(
        (frame.disposal == _TO_BACKGROUND and not frame.transparent) or (number == 0 and frame.disposal == _TO_PREVIOUS and not alpha)
        for number, (frame, following) in enumerate(pairwise(found))
        if not _paints_over(following, frame[:4])
    )
    return cleared or not (alpha or _paints_over(found[0]._replace(disposal=0), canvas))


def _paints_over(frame: Frame, area: tuple[int, int, int, int]) -> bool:
    left, top, width, height = area
    covers = (
        frame.left <= left and frame.top <= top and frame.left + frame.width >= left + width and frame.top + frame.height >= top + height
    )
    return covers and not frame.transparent and frame.disposal != _TO_PREVIOUS


def _frame(descriptor: bytes, control: bytes) -> Frame:
    left, top, width, height = (int.from_bytes(descriptor[start : start + 2], "little") for start in (1, 3, 5, 7))
    return Frame(left, top, width, height, control[0] >> 2 & 7, bool(control[0] & 1), b"")


def _file(descriptor: bytes, control: bytes, table: bytes, data: bytes) -> bytes:
    """Return a frame as a GIF whose canvas is the frame."""
    # A table of n entries has the size field log2(n) - 1.
    flags = 0x80 | (len(table) // 3).bit_length() - 2 if table else 0
    header = b"GIF89a" + descriptor[5:9] + bytes([flags, 0, 0]) + table
    transparency = b"\x21" + _CONTROL + bytes([control[0] & 1, 0, 0, control[3]]) + b"\0"
    picture = b"\x2c\0\0\0\0" + descriptor[5:9] + bytes([descriptor[9] & 0x40])
    return header + transparency + picture + data + b"\x3b"


def _color_table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
