"""The formats of renditions: the one table of what each can do, what it is called, and how large it may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec

Format: TypeAlias = Literal["jxl", "avif", "webp", "jpeg", "png", "gif"]

# The formats of originals, as in `ImageInfo.format`.
OriginalFormat: TypeAlias = Literal["jpeg", "png", "webp", "gif", "avif", "heic", "jxl", "tiff", "svg"]


class FormatTraits(msgspec.Struct, frozen=True, kw_only=True):
    """One format.

    extension: in URLs; media_type: in headers.
    alpha, animation: whether it holds transparent pixels, and more than one frame.
    lossy_animation: whether an animation in it is always lossy, although a still need not be.
    high_dynamic_range: whether it holds pictures that are brighter than white; animations never are.
    lossless: whether the option `lossless` can be used with it; png is lossless without it.
    ignored_options: the options without an effect in it. They are left out of its URLs, so that one rendition has one URL.
    longest_side_pixels: the longest side that it, or its encoder, holds.
    encoder_bytes_per_pixel: what its encoder maps for each pixel, without and with alpha, where that is more than a few strips.
    animation_bytes_per_pixel: the same for each pixel of a frame of an animation, with the memory of its decoder.
    """

    extension: str
    media_type: str
    alpha: bool
    animation: bool
    lossless: bool
    ignored_options: frozenset[str]
    longest_side_pixels: int
    lossy_animation: bool = False
    high_dynamic_range: bool = False
    encoder_bytes_per_pixel: tuple[int, int] = (0, 0)
    animation_bytes_per_pixel: tuple[int, int] = (0, 0)


# A default quality is a pipeline version's: see `DEFAULTS`. png and gif have none, so that theirs is always the highest.
FORMATS: Mapping[Format, FormatTraits] = {
    "jxl": FormatTraits(
        extension="jxl",
        media_type="image/jxl",
        alpha=True,
        animation=False,
        lossless=True,
        ignored_options=frozenset(),
        # Level 5, which every decoder supports, allows 262,144 (ISO/IEC 18181-1, annex M); the rest of the service no more than this.
        longest_side_pixels=65_500,
        # Several planes in floating point: at the default effort and on noise up to 76 and 100 measured, the former where no side is longer
        # than 2,048 pixels, so that it fits anyway.
        encoder_bytes_per_pixel=(62, 104),
        high_dynamic_range=True,
    ),
    "avif": FormatTraits(
        extension="avif",
        media_type="image/avif",
        alpha=True,
        animation=True,
        lossless=True,
        # libavif stores RGB as it is only in stills.
        lossy_animation=True,
        ignored_options=frozenset({"progressive"}),
        longest_side_pixels=16_384,
        high_dynamic_range=True,
        # AV1's encoder with 10 bits: up to 37 and 68 measured. The others need a fifth of that at most.
        encoder_bytes_per_pixel=(40, 68),
        # Up to 119 and 169 measured, of which the decoder of a WebP has a half.
        animation_bytes_per_pixel=(120, 170),
    ),
    "webp": FormatTraits(
        extension="webp",
        media_type="image/webp",
        alpha=True,
        animation=True,
        lossless=True,
        ignored_options=frozenset({"progressive"}),
        longest_side_pixels=16_383,
    ),
    "jpeg": FormatTraits(
        extension="jpg",
        media_type="image/jpeg",
        alpha=False,
        animation=False,
        lossless=False,
        ignored_options=frozenset(),
        longest_side_pixels=65_500,
        high_dynamic_range=True,
    ),
    "png": FormatTraits(
        extension="png",
        media_type="image/png",
        alpha=True,
        animation=False,
        lossless=True,
        ignored_options=frozenset({"quality", "lossless"}),
        longest_side_pixels=65_500,
    ),
    "gif": FormatTraits(
        extension="gif",
        media_type="image/gif",
        alpha=True,
        animation=True,
        lossless=False,
        ignored_options=frozenset({"quality", "progressive", "metadata", "profile"}),
        # Its header has 16 bits for a side.
        longest_side_pixels=65_535,
    ),
}

FORMAT_OF_EXTENSION: Mapping[str, Format] = {traits.extension: name for name, traits in FORMATS.items()}
