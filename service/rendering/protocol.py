"""The messages between the server and a render process.

Each is msgpack, after its length in four bytes, big-endian. The server sends a `Job` and receives one `Reply`.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from service.errors import FormatNotOfferedError
from service.images.formats import Format
from service.images.info import ImageInfo, Limits, Placeholder
from service.images.render_request import RenderRequest
from service.images.transform import Transform

# The kinds of failures, each of which the server turns into an error of its own.
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
    start: where the image begins in the file, in bytes: what comes before has been checked already.
    """

    path: str
    digest: str
    intermediate_of: ImageInfo | None = None
    start: int = 0


class Render(msgspec.Struct, frozen=True, tag="render"):
    """Make one rendition.

    request: made from the image's document. A render process whose header differs from it resolves the request again.
    overlay: the file of the image that the transform's `overlay` names. exclusive: see `NeedsExclusive`.
    """

    input_file: InputFile
    request: RenderRequest
    limits: Limits
    overlay: InputFile | None = None
    exclusive: bool = False


class RenderLadder(msgspec.Struct, frozen=True, tag="render-ladder"):
    """Make the plain renditions of one original from one decode: each of `widths`, widest first, in each of `formats`.

    quality: that of formats in place of the pipeline version's.

    The reply is the first rendition; `NextRendition` requests the next one, and any other job ends the ladder.
    """

    input_file: InputFile
    widths: list[int]
    formats: list[Format]
    version: int
    limits: Limits
    quality: dict[Format, int] = {}
    exclusive: bool = False


class NextRendition(msgspec.Struct, frozen=True, tag="next-rendition"):
    """Make the next rendition of the ladder that is being made."""


class MakeIntermediate(msgspec.Struct, frozen=True, tag="make-intermediate"):
    """Make the intermediate of an original (see `ImageInfo.intermediate`)."""

    input_file: InputFile
    limits: Limits
    exclusive: bool = False


class SelfTest(msgspec.Struct, frozen=True, tag="self-test"):
    """Encode and decode a pixel in every format, to find out whether renders succeed at all.

    list_libraries: whether to list the versions of the C libraries too, for which their files are read.
    """

    list_libraries: bool = False


class FindTrim(msgspec.Struct, frozen=True, tag="find-trim"):
    """Find the part of an original that remains when the transform's `trim` is applied, within its `crop`."""

    input_file: InputFile
    transform: Transform
    limits: Limits
    exclusive: bool = False


class Sandbox(msgspec.Struct, frozen=True):
    """How a render process is confined.

    landlock: the version of Landlock's ABI, 0 without it. seccomp: whether system calls are filtered. no_new_privs: whether executing a
    program cannot grant more rights (PR_SET_NO_NEW_PRIVS).
    """

    landlock: int
    seccomp: bool
    no_new_privs: bool

    @property
    def missing(self) -> list[str]:
        """The names of the measures that are not in force."""
        parts = {"Landlock": self.landlock, "seccomp": self.seccomp, "no_new_privs": self.no_new_privs}
        return [name for name, in_force in parts.items() if not in_force]


class CodecSupport(msgspec.Struct, frozen=True):
    """The version of libvips in the render processes, and the formats that it reads and writes."""

    libvips: str
    reads: list[str]
    writes: list[Format]

    def require_writable(self, image_format: Format) -> None:
        """Return if renditions can be made in `image_format`; raises `FormatNotOfferedError`."""
        if image_format not in self.writes:
            raise FormatNotOfferedError(
                f"The libvips of this server writes no {image_format}.",
                expected=", ".join(self.writes),
                received=image_format,
                remedy="Request one of the expected formats, or run a libvips with support for this one.",
            )


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The first message of a render process: it has loaded libvips, and is confined."""

    codecs: CodecSupport
    sandbox: Sandbox


class Probed(msgspec.Struct, frozen=True, tag="probed"):
    """The result of `Probe`.

    intermediate: an encoded image, `None` if the original has no intermediate.
    warnings: sentences that report what was removed from a drawing for safety, or drawn differently.
    """

    info: ImageInfo
    placeholder: Placeholder
    intermediate: bytes | None
    warnings: tuple[str, ...] = ()


class Rendered(msgspec.Struct, frozen=True, tag="rendered"):
    """One rendition: its encoded bytes, its width and height in pixels, and the seconds that its parts took.

    started_at: when its decoding began, in seconds of `time.perf_counter`, which all processes of a machine share; 0 if that is not known.
    queue_seconds: waiting for a slot. decode_seconds: until its final pixels were in memory; 0 for a rendition of a ladder, and included in
    `encode_seconds` for WebP, JPEG and PNG, a very large rendition or an animation, which are decoded while they are encoded.
    """

    body: bytes
    width: int
    height: int
    queue_seconds: float = 0.0
    decode_seconds: float = 0.0
    encode_seconds: float = 0.0
    started_at: float = 0.0


class Intermediate(msgspec.Struct, frozen=True, tag="intermediate"):
    """The result of `MakeIntermediate`, encoded."""

    body: bytes


class Trimmed(msgspec.Struct, frozen=True, tag="trimmed"):
    """The result of `FindTrim`: a part of the upright original, in its pixels."""

    left: int
    top: int
    width: int
    height: int


class Library(msgspec.Struct, frozen=True):
    """A C library in a wheel. `at_least` says that the version is a lower bound, because the library does not state its own."""

    wheel: str
    name: str
    version: str
    at_least: bool = False


class Tested(msgspec.Struct, frozen=True, tag="tested"):
    """The result of `SelfTest`, with the libraries if they were requested."""

    libraries: tuple[Library, ...] = ()


class NeedsExclusive(msgspec.Struct, frozen=True, tag="needs-exclusive"):
    """The job was not done, because its original needs so much memory that no other such job may run at the same time.

    Submit it again with `exclusive=True` once no other exclusive job runs.
    """


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """Why a job has no result.

    detail, expected, received, remedy: for the client, as in `ServiceError`. cause: for the log.
    short_of_memory: an allocation failed under the cap on address space. In a process that has done other jobs they may be to blame.
    """

    kind: FailureKind
    detail: str
    expected: str | None = None
    received: str | None = None
    remedy: str | None = None
    cause: str = ""
    short_of_memory: bool = False


class ImageError(Exception):
    """Raised in a render process by a job that has no result."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


Job: TypeAlias = Probe | Render | RenderLadder | NextRendition | MakeIntermediate | FindTrim | SelfTest
Reply: TypeAlias = Ready | Probed | Rendered | Intermediate | Trimmed | Tested | NeedsExclusive | Failure

# The id of a new process, which is sent before its first message; and the length of each message.
PROCESS_ID_BYTES = 4
LENGTH_BYTES = 4

# The name of a render process for the system (proc_pid_comm(5)), as distinct from the fork server.
PROCESS_NAME = "darkroom-render"

encode = msgspec.msgpack.Encoder().encode
decode_job = msgspec.msgpack.Decoder(Job).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


def framed(message: Job | Reply) -> bytes:
    """Return an encoded message after its length."""
    body = encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body
