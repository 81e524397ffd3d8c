"""What the server and a render process say to each other: msgpack, each message after its length in four bytes, big-endian."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from service.transform import Format, Transform

FailureKind: TypeAlias = Literal["unsupported", "broken", "too-many-pixels", "too-costly", "damaged", "failed"]


class Limits(msgspec.Struct, frozen=True):
    """What a header may declare, in pixels, all frames together: checked before a pixel is decoded."""

    max_pixels: int
    max_whole_pixels: int
    max_output_pixels: int


class Probe(msgspec.Struct, frozen=True, tag="probe"):
    """Read the header of the file at `path`, decode it to its end, and make a placeholder. Of `alone` see `Heavy`."""

    path: str
    limits: Limits
    alone: bool = False


class Render(msgspec.Struct, frozen=True, tag="render"):
    """Make one rendition of the original `digest`, whose bytes are in the file at `path`."""

    path: str
    digest: str
    transform: Transform
    format: Format
    quality: int
    limits: Limits
    alone: bool = False


class Placeholder(msgspec.Struct, frozen=True):
    """What stands in for an image until it is there: `thumbhash` in base64, a tiny picture inline, colours as `#rrggbb`."""

    thumbhash: str
    data_url: str
    color: str
    palette: list[str]


class ImageInfo(msgspec.Struct, frozen=True):
    """What a header tells. Sizes are pixels of one frame, upright (after its orientation).

    `decodes_whole`: the decoder cannot go line by line, so that memory grows with the pixels. `profile`: its colours need a
    profile to be understood, an embedded one or, for CMYK, a general one.
    """

    format: str
    width: int
    height: int
    frames: int
    alpha: bool
    decodes_whole: bool
    profile: bool

    @property
    def pixels(self) -> int:
        """Pixels of all frames."""
        return self.width * self.height * self.frames


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The first message of a render process: it has set its limits and loaded libvips."""

    libvips: str


class Probed(msgspec.Struct, frozen=True, tag="probed"):
    """What `Probe` found."""

    info: ImageInfo
    placeholder: Placeholder


class Rendered(msgspec.Struct, frozen=True, tag="rendered"):
    """What `Render` made."""

    body: bytes
    width: int
    height: int


class Heavy(msgspec.Struct, frozen=True, tag="heavy"):
    """The job was not done: its original needs so much memory that no other such job may run meanwhile. Give it again, `alone`."""


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """Why a job gave nothing. `detail` is public, `cause` is for the log."""

    kind: FailureKind
    detail: str
    expected: str | None = None
    received: str | None = None
    remedy: str | None = None
    cause: str = ""


Job: TypeAlias = Probe | Render
Reply: TypeAlias = Ready | Probed | Rendered | Heavy | Failure

LENGTH_BYTES = 4
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
encode = msgspec.msgpack.Encoder().encode
decode_job = msgspec.msgpack.Decoder(Job).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


def resident_bytes(process_id: int) -> int:
    """Return how much of a process's memory is in RAM, 0 if it has ended (proc(5), statm)."""
    try:
        pages = Path(f"/proc/{process_id}/statm").read_text("ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * _PAGE_BYTES


def framed(message: Job | Reply) -> bytes:
    """Return a message with its length in front."""
    body = encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body
