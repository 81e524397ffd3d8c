"""Encoding: from pixels to the bytes of a file, with one function per format."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

import msgspec
import pyvips

from service.images.formats import Format
from service.images.transform import PIPELINE_VERSION, Transform
from service.worker import color_space, metadata
from service.worker.color import flatten_on_white
from service.worker.color_space import ColorSpace
from service.worker.formats import avif, avif_animation, hdr, jxl_encoder, jxl_library
from service.worker.formats.animation import with_gif_delays


class EncoderSettings(msgspec.Struct, frozen=True):
    """The settings of encoders that are not options of a transform, and differ between pipeline versions.

    avif_effort: the default of `effort`. avif_bits: per sample, unless the file is lossless.
    jpeg_quant_table: of mozjpeg, without trellis quantization.
    """

    avif_effort: int
    avif_bits: int
    jpeg_quant_table: int


# A row never changes once it is released. `make quality` measures what they give: see docs/quality.md.
_BEFORE_V3 = EncoderSettings(avif_effort=2, avif_bits=8, jpeg_quant_table=3)
ENCODER_SETTINGS: Mapping[int, EncoderSettings] = {
    1: _BEFORE_V3,
    2: _BEFORE_V3,
    3: EncoderSettings(avif_effort=0, avif_bits=10, jpeg_quant_table=5),
}

# WebP from 3 on optimizes rate against distortion: twice the time for 5 to 8 % of the bytes at equal SSIMULACRA2.
_WEBP_EFFORT = 2
# Of libjxl. With 3, a sixth of the time, JPEG XL would be larger than AVIF. More than 5 takes longer, and saves nothing.
_JXL_EFFORT = 5
_GIF_EFFORT = 3
_PNG_COMPRESSION = 7

# From these efforts on JPEG uses the features of mozjpeg: progressive with optimized scans, and trellis quantization, which takes ten times
# as long.
_JPEG_OPTIMIZED_EFFORT = 3
_JPEG_TRELLIS_EFFORT = 4

# The best with trellis quantization, in all versions.
_JPEG_TRELLIS_QUANT_TABLE = 5

# More bits than the pixels have would only make a lossless file larger.
_AVIF_LOSSLESS_BITS = 8

# Our efforts 0 to 6 as those of libjxl, as compression levels of zlib, and as efforts of cgif.
_JXL_EFFORT_BY_EFFORT = (1, 2, 3, 4, 5, 7, 9)
_PNG_COMPRESSION_BY_EFFORT = (1, 2, 4, 6, 7, 8, 9)
_GIF_EFFORT_BY_EFFORT = (1, 2, 3, 5, 7, 8, 10)

# Speeds of libavif for an animation. One of 9 takes as long as WebP, and gives a fifth of its bytes; 7 takes 60 % longer, and saves
# 8 %. From 6 on libaom looks 35 frames ahead, which takes six times as long, and memory for all of them.
_AVIF_ANIMATION_SPEED = 9
_AVIF_ANIMATION_SPEED_BY_EFFORT = (9, 9, 9, 8, 8, 7, 7)

# Quantization steps of 1 to 10: the loss is smaller than that of the second encoder.
_INTERMEDIATE_QUALITY = 95
# Of a picture that is at least halved afterwards, most of the loss averages out, and half of its colors is all of them: renditions take 1 %
# more bytes than from the original at equal SSIMULACRA2 (six photos, 480 and 640 pixels wide), and the file is half as large as with the
# quality above, a tenth to a quarter of a camera's original.
_HALVED_QUALITY = 92

# Pictures with a high dynamic range: bits per band, and the color spaces that JPEG XL names.
_HDR_BITS = 10
_MAX_16_BIT_LEVEL, _MAX_10_BIT_LEVEL, _SHIFT_FROM_10_BITS = 65_535, 1_023, 64
_JXL_PRIMARIES: Mapping[color_space.Primaries, jxl_library.Primaries] = {
    color_space.PRIMARIES[color_space.SRGB_PRIMARIES]: jxl_library.Primaries.SRGB,
    color_space.PRIMARIES[color_space.REC_2020_PRIMARIES]: jxl_library.Primaries.REC_2100,
    color_space.PRIMARIES[color_space.DISPLAY_P3_PRIMARIES]: jxl_library.Primaries.P3,
}

_VP8X_FLAGS_OFFSET, _VP8X_ALPHA = 20, 0x10

# PNG and GIF have no quality, but `max_bytes` needs one: below this, PNG is written with a palette, whose size falls with the quality.
_FULL_QUALITY = 100


class EncodeOptions(msgspec.Struct, frozen=True):
    """Options of an encoder besides the quality.

    lossless: for JPEG XL, AVIF and WebP.
    effort: 0 to 6, or `None` for the default of the format.
    progressive: for JPEG XL and JPEG, and interlaced PNG.
    version: the pipeline version (see `ENCODER_SETTINGS`).
    keep: the metadata to write, as libvips' `keep` option (https://www.libvips.org/API/current/flags.ForeignKeep.html).
    """

    lossless: bool = False
    effort: int | None = None
    progressive: bool = False
    keep: str = "none"
    version: int = PIPELINE_VERSION


DEFAULT_OPTIONS = EncodeOptions()


def encode_options(transform: Transform, version: int) -> EncodeOptions:
    """Return the encoder options that a transform requests in a pipeline version."""
    keep = {"none": [], "copyright": ["exif", "xmp"], "all": ["exif", "xmp", "iptc", "other"]}[transform.metadata]
    keep += [] if transform.profile == "srgb" else ["icc"]
    return EncodeOptions(transform.lossless, transform.effort, transform.progressive, "|".join(keep) or "none", version)


def jxl_effort(options: EncodeOptions) -> int:
    """Return the effort of libjxl, 1 to 9."""
    return _JXL_EFFORT if options.effort is None else _JXL_EFFORT_BY_EFFORT[options.effort]


def encode(image: pyvips.Image, image_format: Format, quality: int, options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """Return `image` as a file of `image_format`. Raises `pyvips.Error`.

    image: height × width × bands, 8 bits per band, gray or RGB, with or without alpha; the frames of an animation below one another. For
    AVIF and JPEG XL also a picture that is marked as HDR (see `hdr.mark`).
    quality: 1 to 100. PNG and GIF use fewer colors below 100.
    """
    return _ENCODERS[image_format](image, quality, options)


def encode_intermediate(image: pyvips.Image, *, halved: bool) -> bytes:
    """Return the file of an intermediate, with the ICC profile: a JPEG without visible loss, or a TIFF if the image has alpha.

    Deflated TIFF is twice as large as lossless WebP, and decodes in less than half the time; PNG is in between. Raises `pyvips.Error`.

    halved: whether every rendition has at most half the width and height.
    """
    if image.hasalpha():
        return bytes(image.tiffsave_buffer(compression="deflate", predictor="horizontal", level=1, keep="icc"))
    if halved:
        return bytes(image.jpegsave_buffer(Q=_HALVED_QUALITY, subsample_mode="on", keep="icc"))
    return bytes(image.jpegsave_buffer(Q=_INTERMEDIATE_QUALITY, subsample_mode="off", keep="icc"))


def _jxl(image: pyvips.Image, quality: int, options: EncodeOptions) -> bytes:
    kept = metadata.blocks(image, options.keep)
    colors: jxl_encoder.EnumeratedColor | bytes = kept.icc or jxl_encoder.SRGB
    image = _with_named_primaries(image, _JXL_PRIMARIES)
    space, bits, max_nits = hdr.color_space(image), 8, 0.0
    if space is not None and isinstance(space.transfer, int):
        colors = jxl_encoder.EnumeratedColor(_JXL_PRIMARIES[space.primaries], jxl_library.Transfer(space.transfer))
        bits, max_nits = _HDR_BITS, _stated_nits(space) or 0.0
    return jxl_encoder.encode(
        image,
        jxl_encoder.Settings(
            distance=jxl_encoder.distance_of_quality(quality),
            lossless=options.lossless,
            effort=jxl_effort(options),
            progressive=options.progressive,
            color_space=colors,
            bits=bits,
            max_nits=max_nits,
            exif=kept.exif,
            xmp=kept.xmp,
        ),
    )


def _avif(image: pyvips.Image, quality: int, options: EncodeOptions) -> bytes:
    if image.get_page_height() < image.height:
        return _animated_avif(image, quality, options)
    settings = ENCODER_SETTINGS[options.version]
    bits = _AVIF_LOSSLESS_BITS if options.lossless else settings.avif_bits
    image = _with_named_primaries(image, color_space.PRIMARIES.values())
    space = hdr.color_space(image)
    if space is not None:
        bits = _HDR_BITS
        # libvips cuts the lowest bits off, so the levels are rounded before.
        image = ((image * (_MAX_10_BIT_LEVEL / _MAX_16_BIT_LEVEL)).rint() * _SHIFT_FROM_10_BITS).cast("ushort")
    body = image.heifsave_buffer(
        compression="av1",
        Q=quality,
        lossless=options.lossless,
        bitdepth=bits,
        effort=settings.avif_effort if options.effort is None else options.effort,
        keep=options.keep,
    )
    return bytes(body) if space is None else avif.with_colors(bytes(body), *color_space.code_points(space), _stated_nits(space))


def _animated_avif(strip: pyvips.Image, quality: int, options: EncodeOptions) -> bytes:
    kept = metadata.blocks(strip, options.keep)
    speed = _AVIF_ANIMATION_SPEED if options.effort is None else _AVIF_ANIMATION_SPEED_BY_EFFORT[options.effort]
    return avif_animation.encode(strip, avif_animation.Settings(quality, speed, kept.exif, kept.xmp, kept.icc))


def _with_named_primaries(image: pyvips.Image, named: Container[color_space.Primaries]) -> pyvips.Image:
    """Return a picture in Rec. 2020 if it is marked as HDR and its format has no name for its primaries, otherwise unchanged."""
    space = hdr.color_space(image)
    return image if space is None or space.primaries in named else hdr.to_rec_2020(image)


def _stated_nits(space: ColorSpace) -> float | None:
    """Return the luminance of the brightest light of an HDR picture, `None` if it is unknown."""
    # Graders state the brightest light, and `DEFAULT_MAX_NITS` only stands in for it.
    is_known = space.transfer == color_space.PQ and space.max_nits != color_space.DEFAULT_MAX_NITS
    return space.max_nits if is_known else None


def _webp(image: pyvips.Image, quality: int, options: EncodeOptions) -> bytes:
    effort = _WEBP_EFFORT if options.effort is None else options.effort
    body = bytes(image.webpsave_buffer(Q=quality, lossless=options.lossless, effort=effort, keep=options.keep))
    return _with_alpha_flag(body) if image.hasalpha() else body


def _with_alpha_flag(body: bytes) -> bytes:
    """Return a WebP with the alpha flag set in its extended header, if it has one (RFC 9649 §2.7.1, VP8X).

    libwebp trims the transparent border of each frame of an animation. If only opaque pixels are left, it clears the flag, although the
    canvas around them is transparent.
    """
    if body[12:16] != b"VP8X":
        return body
    return body[:_VP8X_FLAGS_OFFSET] + bytes([body[_VP8X_FLAGS_OFFSET] | _VP8X_ALPHA]) + body[_VP8X_FLAGS_OFFSET + 1 :]


def _jpeg(image: pyvips.Image, quality: int, options: EncodeOptions) -> bytes:
    effort = options.effort or 0
    optimized, trellis = effort >= _JPEG_OPTIMIZED_EFFORT, effort >= _JPEG_TRELLIS_EFFORT
    return bytes(
        flatten_on_white(image).jpegsave_buffer(
            Q=quality,
            optimize_coding=True,
            quant_table=_JPEG_TRELLIS_QUANT_TABLE if trellis else ENCODER_SETTINGS[options.version].jpeg_quant_table,
            interlace=options.progressive or optimized,
            optimize_scans=optimized,
            trellis_quant=trellis,
            overshoot_deringing=trellis,
            keep=options.keep,
        )
    )


def _png(image: pyvips.Image, quality: int, options: EncodeOptions) -> bytes:
    compression = _PNG_COMPRESSION if options.effort is None else _PNG_COMPRESSION_BY_EFFORT[options.effort]
    save_options: dict[str, object] = {"compression": compression, "interlace": options.progressive, "keep": options.keep}
    if quality >= _FULL_QUALITY:
        return bytes(image.pngsave_buffer(filter="all", **save_options))
    return bytes(image.pngsave_buffer(palette=True, bitdepth=_png_palette_bits(quality), Q=quality, dither=1.0, **save_options))


def _gif(image: pyvips.Image, quality: int, options: EncodeOptions) -> bytes:
    effort = _GIF_EFFORT if options.effort is None else _GIF_EFFORT_BY_EFFORT[options.effort]
    return bytes(with_gif_delays(image).gifsave_buffer(effort=effort, bitdepth=_palette_bits(quality), dither=1.0, keep="none"))


def _palette_bits(quality: int) -> int:
    """Return the bits of a palette index, 1 to 8: a palette of 2 to 256 colors."""
    return max(1, min(8, (quality * 8 + 99) // 100))


def _png_palette_bits(quality: int) -> int:
    """Return the bits of a palette index in PNG, which has 1, 2, 4 and 8 only (PNG, third edition, §11.2.1)."""
    return next(bits for bits in (1, 2, 4, 8) if bits >= _palette_bits(quality))


_ENCODERS: Mapping[Format, Callable[[pyvips.Image, int, EncodeOptions], bytes]] = {
    "jxl": _jxl,
    "avif": _avif,
    "webp": _webp,
    "jpeg": _jpeg,
    "png": _png,
    "gif": _gif,
}
