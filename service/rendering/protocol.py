"""What the server and a render process say to each other: msgpack, each message after its length in four bytes, big-endian."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from service.images.formats import Format
from service.images.info import ImageInfo, Limits, Placeholder
from service.images.transform import Transform

FailureKind: TypeAlias = Literal[
    "unsupported", "broken", "too-many-pixels", "too-complex", "too-costly", "damaged", "failed", "bad-transform", "cannot-fit"
]


class Probe(msgspec.Struct, frozen=True, tag="probe"):
    """Read the header of a file, decode it to its end, make its placeholder, and its intermediate if it has one.

    path: the file (see `InputFile`). digest: of its bytes; failures are counted by it (see `circuit_breaker`), unless it is empty.
    exclusive: see `NeedsExclusive`.
    """

    path: str
    limits: Limits
    exclusive: bool = False
    digest: str = ""


class InputFile(msgspec.Struct, frozen=True):
    """A file that pixels are read from.

    path: opened by the server when it hands over the job; a render process gets the open file, and no path.
    digest: of the original; its own bytes must have it.
    intermediate_of: the header of the original, if the file is its intermediate.
    """

    path: str
    digest: str
    intermediate_of: ImageInfo | None = None


class Render(msgspec.Struct, frozen=True, tag="render"):
    """Make one rendition with the defaults of a pipeline version; `overlay` is the image that the transform names."""

    input_file: InputFile
    transform: Transform
    format: Format
    version: int
    limits: Limits
    overlay: InputFile | None = None
    exclusive: bool = False


class RenderLadder(msgspec.Struct, frozen=True, tag="render-ladder"):
    """Make the plain renditions of one original from one decode: each of `widths`, widest first, in each of `formats`.

    Each is answered by itself; `NextRendition` asks for the next one, any other job ends the ladder.
    """

    input_file: InputFile
    widths: list[int]
    formats: list[Format]
    version: int
    limits: Limits
    exclusive: bool = False


class NextRendition(msgspec.Struct, frozen=True, tag="next-rendition"):
    """Go on with the ladder."""


class MakeIntermediate(msgspec.Struct, frozen=True, tag="make-intermediate"):
    """Make the intermediate of an original that has one."""

    input_file: InputFile
    limits: Limits
    exclusive: bool = False


class SelfTest(msgspec.Struct, frozen=True, tag="self-test"):
    """Encode and decode a pixel in every format, to find out whether anything can be rendered."""


class FindTrim(msgspec.Struct, frozen=True, tag="find-trim"):
    """Find what is left of an original when its borders are trimmed as `transform` says (within its crop)."""

    input_file: InputFile
    transform: Transform
    limits: Limits
    exclusive: bool = False


class Sandbox(msgspec.Struct, frozen=True):
    """How render processes are confined.

    `landlock` is the version of Landlock's ABI, 0 without it; `seccomp` is whether system calls are filtered; `no_new_privs` whether no
    program could give more rights (PR_SET_NO_NEW_PRIVS).
    """

    landlock: int
    seccomp: bool
    no_new_privs: bool

    @property
    def missing(self) -> list[str]:
        """What is not in force, by name."""
        parts = {"Landlock": self.landlock, "seccomp": self.seccomp, "no_new_privs": self.no_new_privs}
        return [name for name, in_force in parts.items() if not in_force]


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


class Intermediate(msgspec.Struct, frozen=True, tag="intermediate"):
    """What `MakeIntermediate` made."""

    body: bytes


class Trimmed(msgspec.Struct, frozen=True, tag="trimmed"):
    """What `FindTrim` found: a part of the upright original, in its pixels."""

    left: int
    top: int
    width: int
    height: int


class NeedsExclusive(msgspec.Struct, frozen=True, tag="needs-exclusive"):
    """The job was not done: its original needs so much memory that no other such job may run meanwhile. Give it again, `exclusive`."""


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


Job: TypeAlias = Probe | Render | RenderLadder | NextRendition | MakeIntermediate | FindTrim | SelfTest
Reply: TypeAlias = Ready | Probed | Rendered | Intermediate | Trimmed | NeedsExclusive | Failure

LENGTH_BYTES = 4
encode = msgspec.msgpack.Encoder().encode
decode_job = msgspec.msgpack.Decoder(Job).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


def framed(message: Job | Reply) -> bytes:
    """Return a message with its length in front."""
    body = encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body
