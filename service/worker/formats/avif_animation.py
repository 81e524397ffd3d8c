"""Animated AVIF out: Pillow's encoder, libavif, takes the frames one after another and keeps only what it has encoded.

libvips writes no image sequences, and Pillow states no loop count, so that is written into the finished file.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import msgspec
import pyvips
from PIL import AvifImagePlugin, Image

from service.worker import pillow
from service.worker.formats import isobmff

# There are as many render processes as cores, and every thread takes address space.
_THREADS = 1

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

# Places of fixed fields in version 1 of `mvhd`, `tkhd`, `mdhd` and `elst` (ISO/IEC 14496-12 §8.2.2, §8.3.2, §8.4.2, §8.6.6), which libavif
# writes: the two times of creation and modification, and durations.
_VERSION = 1
_TIMES, _TIMES_BYTES = 4, 16
_MOVIE_DURATION, _TRACK_DURATION, _SEGMENT_DURATION = 24, 28, 8
# The last byte of the flags of `elst`, with a bit that says whether the segment is repeated.
_FLAGS, _REPEATED = 3, 1


class Settings(msgspec.Struct, frozen=True):
    """How an animation is encoded.

    quality: 1 to 100. speed: of libavif, 7 to 9. exif, xmp, icc: metadata, each empty if there is none.
    """

    quality: int
    speed: int
    exif: bytes = b""
    xmp: bytes = b""
    icc: bytes = b""


def encode(strip: pyvips.Image, settings: Settings) -> bytes:
    """Return an image sequence of the frames in a strip, with its delays and its loop count. Raises `pyvips.Error`.

    strip: frames below one another, 8 bits per band, gray or RGB, with or without alpha; read once, from top to bottom.
    """
    out = io.BytesIO()
    with pillow.translate_errors():
        _Film(strip).save(
            out,
            AvifImagePlugin.AvifImageFile.format,
            save_all=True,
            duration=list(strip.get("delay")),
            quality=settings.quality,
            speed=settings.speed,
            max_threads=_THREADS,
            exif=settings.exif,
            xmp=settings.xmp,
            icc_profile=settings.icc,
        )
    body = bytearray(out.getbuffer())
    _complete(body, strip.get("loop"))
    return bytes(body)


class _Film(Image.Image):
    """A strip as Pillow's saver of animations takes one: an image that shows the frame to which it was moved last.

    Frames that are given to it as `append_images` would all be in memory. It moves to the first frame several times, because it looks at
    the mode first, and goes back at the end.
    """

    def __init__(self, strip: pyvips.Image) -> None:
        super().__init__()
        self.n_frames = strip.get_n_pages()
        self.is_animated = True
        self._frames = _frames(strip)
        self._shown = -1
        self.seek(0)

    def tell(self) -> int:
        return max(0, self._shown)

    def seek(self, frame: int) -> None:
        if frame <= self._shown:
            return
        picture = next(self._frames, None)
        if picture is None:
            raise EOFError
        self.im, self._mode, self._size = picture.im, picture.mode, picture.size
        self._shown += 1


def _frames(strip: pyvips.Image) -> Iterator[Image.Image]:
    height, mode = strip.get_page_height(), _MODES[strip.bands]
    # One region for all frames: with an operation for each, rows that libvips has read ahead would be lost.
    region = pyvips.Region.new(strip)
    for top in range(0, strip.height, height):
        frame = Image.frombytes(mode, (strip.width, height), region.fetch(0, top, strip.width, height))
        # Without gray modes, the saver looks at the mode of the first frame only.
        yield frame.convert("RGBA" if mode == "LA" else "RGB") if mode in {"L", "LA"} else frame


def _complete(body: bytearray, plays: int) -> None:
    """Write into a sequence of libavif how often it is played, 0 for endlessly, and remove the time at which it was written.

    Without the time, the same frames give the same bytes. A track is as long as all its repetitions together, and its edit list states
    that they are ones (ISO/IEC 23000-22 §7.2.3.3).
    """
    movie = isobmff.first(memoryview(body), b"moov")
    movie_header = _fixed_fields(movie, b"mvhd")
    _remove_times(movie_header)
    for track in (inside for kind, inside in isobmff.boxes(movie) if kind == b"trak"):
        header, edits = _fixed_fields(track, b"tkhd"), _fixed_fields(isobmff.first(track, b"edts"), b"elst")
        _remove_times(header)
        _remove_times(_fixed_fields(isobmff.first(track, b"mdia"), b"mdhd"))
        if plays:
            (segment,) = struct.unpack_from(">Q", edits, _SEGMENT_DURATION)
            edits[_FLAGS] = _REPEATED if plays > 1 else 0
            struct.pack_into(">Q", header, _TRACK_DURATION, segment * plays)
            struct.pack_into(">Q", movie_header, _MOVIE_DURATION, segment * plays)


def _fixed_fields(content: memoryview, kind: bytes) -> memoryview:
    found = isobmff.first(content, kind)
    if bytes(found[:1]) != bytes([_VERSION]):
        raise ValueError(f"no box {kind!r} of version {_VERSION}")
    return found


def _remove_times(fields: memoryview) -> None:
    fields[_TIMES : _TIMES + _TIMES_BYTES] = bytes(_TIMES_BYTES)
