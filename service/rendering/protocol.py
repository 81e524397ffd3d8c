"""What the server and a render process say to each other: msgpack, each message after its length in four bytes, big-endian."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from service.images.transform import ANIMATED_FORMATS, Format, Transform
from service.worker.sandbox import Sandbox

FailureKind: TypeAlias = Literal[
    "unsupported", "broken", "too-many-pixels", "too-complex", "too-costly", "damaged", "failed", "bad-transform", "cannot-fit"
]

# Formats of originals that hold an animation: pages of the others are no frames in time.
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

    `decodes_whole`: the decoder cannot go line by line, so that memory grows with the pixels. `page_sizes` has the width and height of
    each page where they differ; the image's own are those of the first. `max_width` is the largest width at which the whole of a vector
    image can be drawn in time, `None` if there is no such limit, or if it is unknown.
    """

    format: str
    width: int
    height: int
    frames: int
    alpha: bool
    decodes_whole: bool
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
        shrinks_on_load = self.vector or (self.format == "jpeg" and not self.decodes_whole)
        if shrinks_on_load or self.animated or self.width * self.height <= _INTERMEDIATE_ABOVE_PIXELS:
            return None
        scale = min(_INTERMEDIATE_WIDTH / self.width, (_INTERMEDIATE_PIXELS / (self.width * self.height)) ** 0.5, 1.0)
        return round(self.width * scale), round(self.height * scale)

    def animates(self, transform: Transform, image_format: Format, *, by_default: bool) -> bool:
        """Return whether a rendition of this original is an animation; `by_default` is the pipeline version's word."""
        wanted = transform.animate or (transform.frame is None and by_default)
        return wanted and self.animated and image_format in ANIMATED_FORMATS


class Probe(msgspec.Struct, frozen=True, tag="probe"):
    """Read the header of the file at `path` (see `Source`), decode it to its end, make a placeholder and, if it has one, its intermediate.

    Of `alone` see `Heavy`. `digest` names the file's bytes, or is empty: failures of it are counted then (see `circuit`).
    """

    path: str
    limits: Limits
    alone: bool = False
    digest: str = ""


class Source(msgspec.Struct, frozen=True):
    """Where the pixels of the original `digest` come from: the file at `path`, which the server opens when it hands over the job.

    A render process gets the open file with the job, and no path.

    It holds the original's own bytes, which must have that digest, or with `reduced`, which is what the original's header tells,
    its intermediate.
    """

    path: str
    digest: str
    reduced: ImageInfo | None = None


class Render(msgspec.Struct, frozen=True, tag="render"):
    """Make one rendition with the defaults of a pipeline version; `overlay` is the image that the transform names."""

    source: Source
    transform: Transform
    format: Format
    version: int
    limits: Limits
    overlay: Source | None = None
    alone: bool = False


class Ladder(msgspec.Struct, frozen=True, tag="ladder"):
    """Make the plain renditions of one original from one decode: each of `widths`, widest first, in each of `formats`.

    Each is answered by itself; `More` asks for the next one, any other job ends the ladder.
    """

    source: Source
    widths: list[int]
    formats: list[Format]
    version: int
    limits: Limits
    alone: bool = False


class More(msgspec.Struct, frozen=True, tag="more"):
    """Go on with the ladder."""


class Reduce(msgspec.Struct, frozen=True, tag="reduce"):
    """Make the intermediate of an original that has one."""

    source: Source
    limits: Limits
    alone: bool = False


class SelfTest(msgspec.Struct, frozen=True, tag="self-test"):
    """Encode and decode a pixel in every format, to find out whether anything can be rendered."""


class FindTrim(msgspec.Struct, frozen=True, tag="find-trim"):
    """Find what is left of an original when its borders are trimmed as `transform` says (within its crop)."""

    source: Source
    transform: Transform
    limits: Limits
    alone: bool = False


class Placeholder(msgspec.Struct, frozen=True):
    """What stands in for an image until it is there: `thumbhash` in base64, a tiny picture inline, colours as `#rrggbb`."""

    thumbhash: str
    data_url: str
    color: str
    palette: list[str]


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The first message of a render process: it is confined, and has loaded libvips, which reads and writes these formats."""

    libvips: str
    reads: list[str]
    writes: list[Format]
    sandbox: Sandbox


class Probed(msgspec.Struct, frozen=True, tag="probed"):
    """What `Probe` found; `intermediate` is encoded."""

    info: ImageInfo
    placeholder: Placeholder
    intermediate: bytes | None


class Rendered(msgspec.Struct, frozen=True, tag="rendered"):
    """One rendition. What it took, in seconds: waiting for a slot, decoding it to its final pixels, encoding those.

    Of what was made with others from one decode only the encoding is told; of a very large rendition, or an animation, decoding is told as
    encoding, because the one is done as the other goes on.
    """

    body: bytes
    width: int
    height: int
    queue_seconds: float = 0.0
    decode_seconds: float = 0.0
    encode_seconds: float = 0.0


class Reduced(msgspec.Struct, frozen=True, tag="reduced"):
    """What `Reduce` made."""

    body: bytes


class Trimmed(msgspec.Struct, frozen=True, tag="trimmed"):
    """What `FindTrim` found: a part of the upright original, in its pixels."""

    left: int
    top: int
    width: int
    height: int


class Heavy(msgspec.Struct, frozen=True, tag="heavy"):
    """The job was not done: its original needs so much memory that no other such job may run meanwhile. Give it again, `alone`."""


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """Why a job gave nothing. `detail` is public, `cause` is for the log.

    `short_of_memory`: an allocation failed under the cap on address space, which in a process that has done other jobs may be their fault.
    """

    kind: FailureKind
    detail: str
    expected: str | None = None
    received: str | None = None
    remedy: str | None = None
    cause: str = ""
    short_of_memory: bool = False


class ImageError(Exception):
    """A job that gives nothing, with the reason for whoever asked."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


Job: TypeAlias = Probe | Render | Ladder | More | Reduce | FindTrim | SelfTest
Reply: TypeAlias = Ready | Probed | Rendered | Reduced | Trimmed | Heavy | Failure

LENGTH_BYTES = 4
encode = msgspec.msgpack.Encoder().encode
decode_job = msgspec.msgpack.Decoder(Job).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


def framed(message: Job | Reply) -> bytes:
    """Return a message with its length in front."""
    body = encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body
