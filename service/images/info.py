"""ImageInfo and its kin: what the server and the render processes share about an image."""

from __future__ import annotations

import msgspec

from service.images.formats import FORMATS, Format
from service.images.transform import Transform

# Formats of originals whose frames follow one another in time; those of the others are pages.
_ANIMATED_ORIGINALS = frozenset({"gif", "webp"})

# From this on an original that no decoder can shrink while it reads has an intermediate.
_INTERMEDIATE_ABOVE_PIXELS = 8_000_000
_INTERMEDIATE_WIDTH = 2_560
_INTERMEDIATE_PIXELS = 6_000_000

# What a render process has mapped before it decodes or encodes anything, measured: 140 to 175 MiB.
_PROCESS_BYTES = 192 << 20


class Limits(msgspec.Struct, frozen=True):
    """What a header may declare: pixels of all frames together, and frames; checked before a pixel is decoded.

    `codec_bytes`: the address space that a render process has for a decoder that decodes whole, or for an encoder; `codec_bytes` gives it.
    """

    max_pixels: int
    max_whole_pixels: int
    max_output_pixels: int
    max_frames: int
    codec_bytes: int


def codec_bytes(memory_bytes: int) -> int:
    """Return what is left for a decoder or an encoder in a render process of `memory_bytes` of address space, 256 MiB or more."""
    return memory_bytes - _PROCESS_BYTES


class ImageInfo(msgspec.Struct, frozen=True):
    """What a header tells. Sizes are pixels of one frame, upright (after its orientation); `frames` counts pages too.

    `needs_full_decode`: the decoder cannot go line by line, so that memory grows with the pixels. `page_sizes` has the width and height of
    each page where they differ; the image's own are those of the first. `max_width` is the largest width at which the whole of a vector
    image can be drawn in time, `None` if there is no such limit, or if it is unknown.
    """

    format: str
    width: int
    height: int
    frames: int
    alpha: bool
    # Stored documents spell it this way.
    needs_full_decode: bool = msgspec.field(name="decodes_whole")
    page_sizes: tuple[tuple[int, int], ...] = ()
    max_width: int | None = None

    @property
    def pixels(self) -> int:
        """Pixels of all frames."""
        if self.page_sizes:
            return sum(width * height for width, height in self.page_sizes)
        return self.width * self.height * self.frames

    def of_page(self, number: int | None) -> ImageInfo:
        """Return the same with the size of a page, the first is 0; of a page that there is not, and of `None`, with that of the first."""
        if number is None or number >= len(self.page_sizes):
            return self
        width, height = self.page_sizes[number]
        return msgspec.structs.replace(self, width=width, height=height)

    @property
    def vector(self) -> bool:
        """Whether it is sharp at any size."""
        return self.format == "svg"

    @property
    def animated(self) -> bool:
        """Whether its frames follow one another in time."""
        return self.frames > 1 and self.format in _ANIMATED_ORIGINALS

    @property
    def intermediate(self) -> tuple[int, int] | None:
        """Width and height of its intermediate, `None` for an original that has none.

        The answer depends on the original alone, so that a rendition has the same pixels in every region.
        """
        shrinks_on_load = self.vector or (self.format == "jpeg" and not self.needs_full_decode)
        if shrinks_on_load or self.animated or self.width * self.height <= _INTERMEDIATE_ABOVE_PIXELS:
            return None
        scale = min(_INTERMEDIATE_WIDTH / self.width, (_INTERMEDIATE_PIXELS / (self.width * self.height)) ** 0.5, 1.0)
        return round(self.width * scale), round(self.height * scale)

    def animates(self, transform: Transform, image_format: Format, *, by_default: bool) -> bool:
        """Return whether a rendition of this original is an animation; `by_default` is the pipeline version's word."""
        wanted = transform.animate or (transform.frame is None and by_default)
        return wanted and self.animated and FORMATS[image_format].animation


class Placeholder(msgspec.Struct, frozen=True):
    """What stands in for an image until it is there: `thumbhash` in base64, a tiny picture inline, colours as `#rrggbb`."""

    thumbhash: str
    data_url: str
    color: str
    palette: list[str]
