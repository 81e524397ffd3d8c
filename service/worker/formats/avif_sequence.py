"""Animated AVIF (AV1 Image File Format §3, ISO/IEC 23008-12 §7): reads the tables of its track; Pillow decodes the frames.

libvips reads no image sequences. As in browsers, a file is one if its major brand is `avis`; otherwise its primary picture is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import pyvips
from PIL import AvifImagePlugin, Image

from service.worker import color, color_space, pillow
from service.worker.color_space import ColorSpace
from service.worker.formats import av1, isobmff
from service.worker.formats.animation import Timing, delays_in_ms

# There are as many render processes as cores, and every thread takes address space.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

# What dav1d and libavif map for each pixel of a frame: references, planes and RGBA. Up to 26 measured with 10 bits per sample.
BYTES_PER_PIXEL = 32

_MAX_TRACKS = 16
_INDEFINITE = (0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF)
_REPEATS = 1
# The size of the fixed fields of a visual sample entry, after which its boxes begin (ISO/IEC 14496-12 §12.1.3).
_SAMPLE_ENTRY_BYTES = 78


class Survey(NamedTuple):
    """An image sequence, as its tables describe it.

    width, height: in pixels. frames: how many. timing: delays, and how often it is played. alpha: whether it has an alpha track.
    space: its color space, if it has no ICC profile.
    """

    width: int
    height: int
    frames: int
    timing: Timing
    alpha: bool
    space: ColorSpace


def is_sequence(body: bytes | memoryview) -> bool:
    """Return whether a file is an image sequence."""
    return bytes(body[4:12]) == b"ftypavis"


def survey(body: memoryview, max_frames: int) -> Survey:
    """Return the description of a sequence. The delays of more than `max_frames` frames are not read.

    Raises `ValueError` if a table is missing or invalid.
    """
    movie = isobmff.first(body, b"moov")
    tracks = [inside for kind, inside in isobmff.boxes(movie) if kind == b"trak"][:_MAX_TRACKS]
    pictures = [track for track in tracks if b"av01" in bytes(_table(track, b"stsd")[:64])]
    shown = next((track for track in pictures if not isobmff.first(isobmff.first(track, b"tref"), b"auxl")), None)
    if shown is None:
        raise ValueError("it has no track of pictures")
    entry = isobmff.first(_table(shown, b"stsd")[8:], b"av01")
    width, height = _number(entry, 24, 2), _number(entry, 26, 2)
    frames = _number(_table(shown, b"stsz"), 8, 4)
    if not (width and height and frames):
        raise ValueError("its track has no pictures")
    return Survey(
        width,
        height,
        frames,
        Timing(_delays(shown, min(frames, max_frames)), _plays(shown)),
        len(pictures) > 1,
        _color_space(entry[_SAMPLE_ENTRY_BYTES:]),
    )


def decode(body: memoryview, found: Survey) -> Iterator[pyvips.Image]:
    """Yield the frames of a sequence, RGB of 8 bits per band (16 for PQ and HLG), with alpha if it has any. Raises `pyvips.Error`."""
    sequence = pillow.open_image(body, "AVIF")
    profile = sequence.info.get("icc_profile")
    for number in range(found.frames):
        with pillow.translate_errors():
            sequence.seek(number)
            sequence.load()
        if sequence.size != (found.width, found.height):
            raise pyvips.Error(f"a frame of {sequence.size} in a sequence of {found.width} x {found.height}")
        yield _with_colors(pillow.to_vips(_as_declared(sequence, alpha=found.alpha)), profile, found.space)


def _as_declared(frame: Image.Image, *, alpha: bool) -> Image.Image:
    mode = "RGBA" if alpha else "RGB"
    return frame if frame.mode == mode else frame.convert(mode)


def _with_colors(image: pyvips.Image, profile: bytes | None, space: ColorSpace) -> pyvips.Image:
    if profile:
        return color.with_profile(image, profile)
    if space.is_hdr:
        image = (image.cast("ushort") * 257).cast("ushort").copy(interpretation="rgb16")
    return color.assign(image, space)


def _delays(track: memoryview, frames: int) -> list[int]:
    """Return the delays of the first frames in milliseconds (`stts`, ISO/IEC 14496-12 §8.6.1.2), 0 for those that it does not state.

    As in browsers, a file without them is played, and each frame is shown as long as one without a delay.
    """
    header = isobmff.first(isobmff.first(track, b"mdia"), b"mdhd")
    timescale = _number(header, 20 if _number(header, 0, 1) == 1 else 12, 4)
    table = _table(track, b"stts")
    if not timescale:
        raise ValueError("its track has no time scale")
    delays: list[Fraction] = []
    for start in range(8, 8 + 8 * _number(table, 4, 4), 8):
        missing = frames - len(delays)
        if not missing or start + 8 > len(table):
            break
        delays += [Fraction(_number(table, start + 4, 4), timescale)] * min(_number(table, start, 4), missing)
    return delays_in_ms(delays + [Fraction(0)] * (frames - len(delays)))


def _plays(track: memoryview) -> int:
    """Return how often a track is played, 0 for endlessly (`elst`, ISO/IEC 14496-12 §8.6.6, and ISO/IEC 23000-22 §7.2.3.3).

    Browsers play a sequence endlessly that does not state how often.
    """
    edits = isobmff.first(isobmff.first(track, b"edts"), b"elst")
    if len(edits) < 8:
        return 0
    if not edits[3] & _REPEATS:
        return 1
    segment = _number(edits, 8, 8 if edits[0] == 1 else 4)
    header = isobmff.first(track, b"tkhd")
    total = _number(header, 28, 8) if _number(header, 0, 1) == 1 else _number(header, 20, 4)
    return 0 if total in _INDEFINITE or not segment else max(1, -(-total // segment))


def _color_space(boxes: memoryview) -> ColorSpace:
    """Return the color space that the boxes of a sample entry state, or else the stream's own header."""
    for kind, inside in isobmff.boxes(boxes):
        if kind == b"colr" and bytes(inside[:4]) == b"nclx":
            return color_space.from_video_code_points(_number(inside, 4, 2), _number(inside, 6, 2))
    header = av1.sequence_header(bytes(isobmff.first(boxes, b"av1C")[4:]))
    return color_space.SRGB if header is None else color_space.from_video_code_points(header.primaries, header.transfer)


def _table(track: memoryview, kind: bytes) -> memoryview:
    return isobmff.first(isobmff.first(isobmff.first(isobmff.first(track, b"mdia"), b"minf"), b"stbl"), kind)


def _number(content: memoryview, start: int, size: int) -> int:
    """Return a big-endian number, 0 beyond the end."""
    return int.from_bytes(content[start : start + size], "big")
