"""Animated PNG (PNG, third edition, §4.9): finds the frames, and composes them one after another.

libvips reads the default picture only. Each frame is rewritten as a PNG of its own, which libvips decodes with the bit depth of the file.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from typing import NamedTuple

import pyvips

from service.worker.fields import copy_fields
from service.worker.formats.animation import Timing, delays_in_ms

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_BYTES, _ANIMATION_BYTES, _CONTROL_BYTES = 13, 8, 26
_CHUNK_BYTES = 12

# The canvas, a frame, and both while one is drawn over the other: up to 16 bits for each of four bands, and floating point.
BYTES_PER_PIXEL = 48

# Chunks, pieces of frames among them. Programs write pieces of 8 KiB or more.
MAX_CHUNKS = 200_000

# Chunks without which the pixels of a frame cannot be read.
_SHARED_CHUNKS = frozenset({b"PLTE", b"tRNS"})
# Color types with alpha (§11.2.1).
_ALPHA_COLOR_TYPES = frozenset({4, 6})

# The fields `dispose_op` and `blend_op` (§11.3.6.2).
_DISPOSE_BACKGROUND, _DISPOSE_PREVIOUS = 1, 2
_BLEND_OVER = 1
# The denominator of a delay that states 0.
_DEFAULT_DENOMINATOR = 100


class _Frame(NamedTuple):
    """A frame: its size and place in pixels, its delay in seconds, how it is drawn, and the parts of the file with its compressed rows."""

    width: int
    height: int
    left: int
    top: int
    delay: Fraction
    disposal: int
    blending: int
    data: list[memoryview]


class Survey(NamedTuple):
    """An animation, as its chunks describe it.

    timing: delays, and how often it is played. alpha: whether a pixel of any frame may be transparent.
    """

    timing: Timing
    alpha: bool

    @property
    def frames(self) -> int:
        """The number of frames."""
        return len(self.timing.delays)


def survey(body: memoryview, max_frames: int) -> Survey:
    """Return the description of an animation. Counting stops after one more than `max_frames`. Raises `ValueError` if it is invalid."""
    header = _header(body)
    delays = []
    unpainted, uncovered = False, (0, 0, 0, 0)
    for number, frame in enumerate(_frames(body)):
        delays.append(frame.delay)
        whole = (frame.width, frame.height) == _size(header)
        unpainted |= not whole and (number == 0 or uncovered not in {(0, 0, 0, 0), frame[:4]})
        if frame.disposal == _DISPOSE_BACKGROUND or (number == 0 and frame.disposal == _DISPOSE_PREVIOUS):
            uncovered = frame[:4]
        elif frame.disposal != _DISPOSE_PREVIOUS:
            uncovered = (0, 0, 0, 0)
        if len(delays) > max_frames:
            break
    if not delays:
        raise ValueError("it has no frame")
    alpha = header[9] in _ALPHA_COLOR_TYPES or any(kind == b"tRNS" for kind, _ in _shared_chunks(body))
    return Survey(Timing(delays_in_ms(delays), _plays(body)), alpha or unpainted)


def decode(body: memoryview, opened: pyvips.Image, *, alpha: bool) -> Iterator[pyvips.Image]:
    """Yield the frames of an animation, with the levels, the bit depth and the fields of `opened`. Raises `pyvips.Error`.

    opened: the default picture, as libvips has opened it.
    alpha: whether the frames have alpha (see `Survey`).
    """
    header = _header(body)
    shared = b"".join(_chunk(kind, data) for kind, data in _shared_chunks(body))
    canvas: pyvips.Image | None = None
    for number, frame in enumerate(_frames(body)):
        size = frame.width.to_bytes(4, "big") + frame.height.to_bytes(4, "big")
        file = _SIGNATURE + _chunk(b"IHDR", size + header[8:]) + shared + _chunk(b"IDAT", b"".join(frame.data)) + _chunk(b"IEND", b"")
        picture = pyvips.Image.new_from_buffer(file, "", access="sequential", fail_on="error")
        picture = picture.addalpha() if alpha and not picture.hasalpha() else picture
        if canvas is None:
            canvas = _zeros(picture, *_size(header))
        before = canvas
        canvas = _draw(picture, frame, canvas)
        yield copy_fields(opened, canvas)
        if frame.disposal == _DISPOSE_BACKGROUND or (frame.disposal == _DISPOSE_PREVIOUS and number == 0):
            canvas = canvas.insert(_zeros(picture, frame.width, frame.height), frame.left, frame.top).copy_memory()
        elif frame.disposal == _DISPOSE_PREVIOUS:
            canvas = before


def _draw(picture: pyvips.Image, frame: _Frame, canvas: pyvips.Image) -> pyvips.Image:
    if frame.blending == _BLEND_OVER and picture.hasalpha():
        picture = _over(picture.copy_memory(), canvas.crop(frame.left, frame.top, frame.width, frame.height))
    if (picture.width, picture.height) != (canvas.width, canvas.height):
        picture = canvas.insert(picture, frame.left, frame.top)
    return picture.copy_memory()


def _over(picture: pyvips.Image, below: pyvips.Image) -> pyvips.Image:
    """Return `picture` over `below`, both with alpha (PNG, third edition, §13.16)."""
    last = picture.bands - 1
    max_alpha = 65_535 if picture.format == "ushort" else 255
    alpha, alpha_below = picture.extract_band(last), below.extract_band(last)
    if alpha.min() == max_alpha:
        return picture
    remainder = alpha_below * (max_alpha - alpha) / max_alpha
    sum_alpha = alpha + remainder
    colors = (picture.extract_band(0, n=last) * alpha + below.extract_band(0, n=last) * remainder) / sum_alpha
    return colors.bandjoin(sum_alpha).rint().cast(picture.format).copy(interpretation=picture.interpretation)


def _zeros(like: pyvips.Image, width: int, height: int) -> pyvips.Image:
    return pyvips.Image.black(width, height, bands=like.bands).cast(like.format).copy(interpretation=like.interpretation)


def _frames(body: memoryview) -> Iterator[_Frame]:
    """Yield the frames of a file, as browsers do no more than it declares.

    Raises `ValueError` if it breaks a rule without which its frames are not known (§11.3.6).
    """
    return islice(_all_frames(body), int.from_bytes(_animation_control(body)[:4], "big"))


def _all_frames(body: memoryview) -> Iterator[_Frame]:
    width, height = _size(_header(body))
    current: _Frame | None = None
    expected = 0
    for number, (kind, data) in enumerate(_chunks(body)):
        if number > MAX_CHUNKS:
            raise ValueError(f"more than {MAX_CHUNKS} chunks")
        if kind in {b"fcTL", b"fdAT"}:
            if int.from_bytes(data[:4], "big") != expected:
                raise ValueError(f"chunk {expected} of the animation is missing")
            expected += 1
        if kind == b"fcTL":
            if current is not None:
                yield _checked(current, width, height)
            current = _control(bytes(data))
        elif kind == b"IDAT" and current is not None:
            current.data.append(data)
        elif kind == b"fdAT" and current is not None:
            current.data.append(data[4:])
    if current is not None:
        yield _checked(current, width, height)


def _control(data: bytes) -> _Frame:
    if len(data) != _CONTROL_BYTES:
        raise ValueError("a frame header has the wrong size")
    width, height, left, top = (int.from_bytes(data[start : start + 4], "big") for start in (4, 8, 12, 16))
    delay = Fraction(int.from_bytes(data[20:22], "big"), int.from_bytes(data[22:24], "big") or _DEFAULT_DENOMINATOR)
    return _Frame(width, height, left, top, delay, data[24], data[25], [])


def _checked(frame: _Frame, width: int, height: int) -> _Frame:
    if not frame.width or not frame.height or frame.left + frame.width > width or frame.top + frame.height > height:
        raise ValueError("a frame lies outside the picture")
    if not frame.data:
        raise ValueError("a frame has no data")
    return frame


def _plays(body: memoryview) -> int:
    return int.from_bytes(_animation_control(body)[4:_ANIMATION_BYTES], "big")


def _animation_control(body: memoryview) -> memoryview:
    return next((data for kind, data in _chunks(body) if kind == b"acTL"), memoryview(b""))


def _shared_chunks(body: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    for kind, data in _chunks(body):
        if kind == b"IDAT":
            return
        if kind in _SHARED_CHUNKS:
            yield kind, data


def _header(body: memoryview) -> bytes:
    return bytes(body[16 : 16 + _HEADER_BYTES])


def _size(header: bytes) -> tuple[int, int]:
    return int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")


def _chunks(body: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the type and the data of each chunk before `IEND`. Raises `ValueError` if the file ends before that."""
    position = len(_SIGNATURE)
    while position + _CHUNK_BYTES <= len(body):
        size, kind = int.from_bytes(body[position : position + 4], "big"), bytes(body[position + 4 : position + 8])
        end = position + _CHUNK_BYTES + size
        if kind == b"IEND":
            return
        if end > len(body):
            break
        yield kind, body[position + 8 : end - 4]
        position = end
    raise ValueError("it ends early")


def _chunk(kind: bytes, data: bytes | memoryview) -> bytes:
    return b"".join((len(data).to_bytes(4, "big"), kind, data, zlib.crc32(data, zlib.crc32(kind)).to_bytes(4, "big")))
