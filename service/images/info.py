"""ImageInfo, Limits, Placeholder: the description of an image that the server and the render processes share."""

from __future__ import annotations

import msgspec

from service.images.formats import Format
from service.images.options import DynamicRange
from service.images.transform import Transform, can_animate

# Formats of originals whose frames follow one another in time; those of the others are pages. An AVIF may have either.
_ANIMATED_ORIGINALS = frozenset({"gif", "webp", "png", "jxl"})

# An animation may have this many times the pixels of a still: it is decoded one frame after another, so that they cost time, not memory.
_ANIMATION_FACTOR = 4

# An original with more pixels than this has an intermediate, which is at most so large.
_INTERMEDIATE_ABOVE_PIXELS = 8_000_000
_INTERMEDIATE_WIDTH = 2_560
_INTERMEDIATE_PIXELS = 6_000_000

# The factors by which libjpeg can shrink a picture while it decodes, at no cost, largest first.
SHRINK_ON_LOAD = (8, 4, 2)

# The intermediate of a JPEG that its decoder can shrink is what the decoder makes of it: with the smallest of its factors that leaves no
# more than so many pixels, or with the largest. A probe has to decode the original anyway, so that this costs little.
_SHRUNK_PIXELS = 4_500_000

# The address space of a render process before it decodes or encodes anything: 140 to 175 MiB measured.
_PROCESS_BYTES = 192 << 20


class Limits(msgspec.Struct, frozen=True):
    """The limits of originals and renditions, checked by their headers before a pixel is decoded.

    max_pixels: of an original, in all pages. max_whole_pixels: the same for one that needs a full decode (see `ImageInfo`); of an
        animation, in one frame.
    max_output_pixels: of a rendition, in all frames. max_frames: of an original.
    codec_bytes: the address space of a render process for a decoder that needs a full decode, or for an encoder (see `codec_bytes`).
    """

    max_pixels: int
    max_whole_pixels: int
    max_output_pixels: int
    max_frames: int
    codec_bytes: int

    @property
    def max_animation_pixels(self) -> int:
        """The pixels of an animated original, in all frames."""
        return self.max_pixels * _ANIMATION_FACTOR


def codec_bytes(memory_bytes: int) -> int:
    """Return the part of a render process's address space, 256 MiB or more, that is left for a decoder or an encoder."""
    return memory_bytes - _PROCESS_BYTES


class ImageInfo(msgspec.Struct, frozen=True):
    """The facts in the header of an original.

    format: such as `jpeg`, `heic` or `svg`. width, height: pixels of one frame, upright, that is after its Exif orientation.
    frames: of an animation, or pages. alpha: whether it has transparency.
    needs_full_decode: whether its decoder cannot go line by line, so that memory grows with the pixels.
    page_sizes: the width and height of each page if they differ; `width` and `height` are those of the first.
    max_width: the largest width in pixels at which the whole of a vector image is drawn in time, `None` for no limit or an unknown one.
    sequence: whether an AVIF is an image sequence, whose frames follow one another in time, and not a collection of pictures.
    dynamic_range: `high` if it is brighter than white on screens that allow it: it has a gain map, or levels of PQ or HLG.
    """

    format: str
    width: int
    height: int
    frames: int
    alpha: bool
    # The name in stored documents.
    needs_full_decode: bool = msgspec.field(name="decodes_whole")
    page_sizes: tuple[tuple[int, int], ...] = ()
    max_width: int | None = None
    dynamic_range: DynamicRange = "standard"
    sequence: bool = False

    @property
    def pixels(self) -> int:
        """The pixels of all frames together."""
        if self.page_sizes:
            return sum(width * height for width, height in self.page_sizes)
        return self.width * self.height * self.frames

    @property
    def decoded_pixels(self) -> int:
        """The pixels that are decoded together: those of one frame of an animation, otherwise of all pages."""
        return self.width * self.height if self.animated else self.pixels

    def of_page(self, number: int | None) -> ImageInfo:
        """Return the same with the size of a page, the first being 0; without a number, and without such a page, with that of the first."""
        if number is None or number >= len(self.page_sizes):
            return self
        width, height = self.page_sizes[number]
        return msgspec.structs.replace(self, width=width, height=height)

    @property
    def vector(self) -> bool:
        """Whether it is a drawing, which is sharp at any size."""
        return self.format == "svg"

    @property
    def animated(self) -> bool:
        """Whether its frames follow one another in time."""
        return self.frames > 1 and (self.sequence or self.format in _ANIMATED_ORIGINALS)

    @property
    def shrinks_on_load(self) -> bool:
        """Whether its decoder can shrink it while it reads: it is a baseline JPEG."""
        return self.format == "jpeg" and not self.needs_full_decode

    @property
    def intermediate(self) -> tuple[int, int] | None:
        """Width and height of its intermediate, `None` for an original that has none.

        An intermediate is a smaller copy, from which renditions of a large original are made. This depends only on the original, so that a
        rendition has the same pixels in every region.
        """
        if self.vector or self.animated or self.width * self.height <= _INTERMEDIATE_ABOVE_PIXELS:
            return None
        if self.shrinks_on_load:
            enough = (factor for factor in SHRINK_ON_LOAD if self.width * self.height <= _SHRUNK_PIXELS * factor**2)
            factor = min(enough, default=SHRINK_ON_LOAD[0])
            return self.width // factor, self.height // factor
        scale = min(_INTERMEDIATE_WIDTH / self.width, (_INTERMEDIATE_PIXELS / (self.width * self.height)) ** 0.5, 1.0)
        return round(self.width * scale), round(self.height * scale)

    def animates(self, transform: Transform, image_format: Format, *, by_default: bool) -> bool:
        """Return whether a rendition of this original is an animation; `by_default`: whether it is without `animate` (see `DEFAULTS`)."""
        wanted = transform.animate or (transform.frame is None and by_default)
        return wanted and self.animated and can_animate(transform, image_format)


class Placeholder(msgspec.Struct, frozen=True):
    """What a page shows until the image has loaded.

    thumbhash: in base64. data_url: a tiny picture. color, palette: the dominant colors as `#rrggbb`.
    """

    thumbhash: str
    data_url: str
    color: str
    palette: list[str]
