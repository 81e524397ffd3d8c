"""Encoders: from pixels to bytes, one function per format."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import pyvips

from service.images.formats import FORMATS, Format
from service.images.transform import Transform
from service.worker.color import on_white
from service.worker.formats.animation import in_hundredths

# Efforts are what a client may wait for on a small machine. AVIF above 3 costs four times as much for one per cent of bytes. WebP from 3
# on weighs rate against distortion: 2.3 times the time for five per cent of bytes at equal SSIMULACRA2.
_WEBP_EFFORT = 2
_AVIF_EFFORT = 2
_GIF_EFFORT = 3
_PNG_COMPRESSION = 7

# From these efforts on JPEG is made as mozjpeg makes it: in passes, their scans in search of fewer bytes; and with trellis
# quantisation, ten times the time.
_JPEG_PASSES_EFFORT = 3
_JPEG_TRELLIS_EFFORT = 4

# mozjpeg's table 3 (ImageMagick's, by N. Robidoux) is both smaller and nearer to the original than the standard one.
_JPEG_QUANT_TABLE = 3
# With trellis quantisation table 5 (Klein, Silverstein and Carney's) takes its place: `make quality` measures both.
_JPEG_TRELLIS_QUANT_TABLE = 5

# zlib's levels and cgif's efforts for ours, 0 to 6.
_PNG_COMPRESSIONS = (1, 2, 4, 6, 7, 8, 9)
_GIF_EFFORTS = (1, 2, 3, 5, 7, 8, 10)

# Quantisation steps of 1 to 10: what a second encoder makes of it differs by less than what it loses itself.
_INTERMEDIATE_QUALITY = 95

_VP8X_FLAGS_AT, _VP8X_ALPHA = 20, 0x10

# PNG and GIF have no quality: where a file must fit, fewer colours are what makes it smaller.
_FULL_QUALITY = 100


class Encoding(msgspec.Struct, frozen=True):
    """What an encoder is asked for beside a quality: lossless or not, effort 0 to 6 or its own default, in passes, and what to keep."""

    lossless: bool = False
    effort: int | None = None
    progressive: bool = False
    keep: str = "none"


PLAIN = Encoding()


def encoding(transform: Transform) -> Encoding:
    """Return what a transform asks of the encoder."""
    kept = {"none": [], "copyright": ["exif"], "all": ["exif", "xmp", "iptc", "other"]}[transform.metadata]
    kept += [] if transform.profile == "srgb" else ["icc"]
    return Encoding(transform.lossless, transform.effort, transform.progressive, "|".join(kept) or "none")


def encode(image: pyvips.Image, image_format: Format, quality: int, asked: Encoding = PLAIN) -> bytes:
    """Return `image` (height × width × bands, 8 bits, grey or not, alpha or not; frames below one another) encoded.

    quality: 1 to 100; of png and gif below 100 the number of colours falls with it.
    """
    return _ENCODERS[image_format](image, quality, asked)


def encode_intermediate(image: pyvips.Image) -> bytes:
    """Return a picture that renditions are made from, its profile in it: a JPEG whose loss nobody sees, or with alpha a TIFF.

    Deflated TIFF is twice as large as lossless WebP and decodes in less than half the time, PNG stands between.
    """
    if image.hasalpha():
        return bytes(image.tiffsave_buffer(compression="deflate", predictor="horizontal", level=1, keep="icc"))
    return bytes(image.jpegsave_buffer(Q=_INTERMEDIATE_QUALITY, subsample_mode="off", keep="icc"))


def offered() -> list[Format]:
    """Return the formats that the running libvips writes: found by writing one pixel, a library without its codec has a saver too."""
    pixel = pyvips.Image.black(1, 1, bands=3).cast("uchar").copy(interpretation="srgb")
    written: list[Format] = []
    for image_format in FORMATS:
        try:
            encode(pixel, image_format, 50)
        except pyvips.Error:
            continue
        written.append(image_format)
    return written


def _avif(image: pyvips.Image, quality: int, asked: Encoding) -> bytes:
    effort = _AVIF_EFFORT if asked.effort is None else asked.effort
    return bytes(image.heifsave_buffer(compression="av1", Q=quality, lossless=asked.lossless, effort=effort, keep=asked.keep))


def _webp(image: pyvips.Image, quality: int, asked: Encoding) -> bytes:
    effort = _WEBP_EFFORT if asked.effort is None else asked.effort
    body = bytes(image.webpsave_buffer(Q=quality, lossless=asked.lossless, effort=effort, keep=asked.keep))
    return _told_of_alpha(body) if image.hasalpha() else body


def _told_of_alpha(body: bytes) -> bytes:
    """Return a WebP whose header says that it has alpha, where it has an extended one (WebP Container Specification, VP8X).

    libwebp cuts the clear rim off each frame of an animation; where only opaque pixels are left it forgets the canvas around them.
    """
    if body[12:16] != b"VP8X":
        return body
    return body[:_VP8X_FLAGS_AT] + bytes([body[_VP8X_FLAGS_AT] | _VP8X_ALPHA]) + body[_VP8X_FLAGS_AT + 1 :]


def _jpeg(image: pyvips.Image, quality: int, asked: Encoding) -> bytes:
    effort = asked.effort or 0
    passes, trellis = effort >= _JPEG_PASSES_EFFORT, effort >= _JPEG_TRELLIS_EFFORT
    return bytes(
        on_white(image).jpegsave_buffer(
            Q=quality,
            optimize_coding=True,
            quant_table=_JPEG_TRELLIS_QUANT_TABLE if trellis else _JPEG_QUANT_TABLE,
            interlace=asked.progressive or passes,
            optimize_scans=passes,
            trellis_quant=trellis,
            overshoot_deringing=trellis,
            keep=asked.keep,
        )
    )


def _png(image: pyvips.Image, quality: int, asked: Encoding) -> bytes:
    compression = _PNG_COMPRESSION if asked.effort is None else _PNG_COMPRESSIONS[asked.effort]
    options: dict[str, object] = {"compression": compression, "interlace": asked.progressive, "keep": asked.keep}
    if quality >= _FULL_QUALITY:
        return bytes(image.pngsave_buffer(filter="all", **options))
    return bytes(image.pngsave_buffer(palette=True, bitdepth=_png_bits(quality), Q=quality, dither=1.0, **options))


def _gif(image: pyvips.Image, quality: int, asked: Encoding) -> bytes:
    effort = _GIF_EFFORT if asked.effort is None else _GIF_EFFORTS[asked.effort]
    return bytes(in_hundredths(image).gifsave_buffer(effort=effort, bitdepth=_bits(quality), dither=1.0, keep="none"))


def _bits(quality: int) -> int:
    """Return the bits of a palette's index, 1 to 8."""
    return max(1, min(8, (quality * 8 + 99) // 100))


def _png_bits(quality: int) -> int:
    """Return the same of those that PNG has (PNG §11.2.1)."""
    return next(bits for bits in (1, 2, 4, 8) if bits >= _bits(quality))


_ENCODERS: Mapping[Format, Callable[[pyvips.Image, int, Encoding], bytes]] = {
    "avif": _avif,
    "webp": _webp,
    "jpeg": _jpeg,
    "png": _png,
    "gif": _gif,
}
