"""The paths of upload tickets: build and parse.

`/v1/uploads/<expires>.<max_bytes>.<formats>.<id>.<signature>` permits one upload to whoever knows it. All that the server has to know is in
the path, so any server that has the signing key accepts it. The signature covers the path without the signature and the dot before it: the
paths of renditions begin with `/i/` or `/from/`, so no signature of the one is valid for the other.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from typing import cast, get_args

import msgspec

from service.errors import BadSignatureError
from service.images.digest import base32
from service.images.formats import OriginalFormat

UPLOADS_PATH = "/v1/uploads"

# Enough that nobody guesses the ID of another ticket, and that no two tickets have the same one.
_ID_BYTES = 10

# Takes the place of the formats in the path of a ticket for every format.
_ANY_FORMAT = "any"

_PATH = re.compile(
    rf"{UPLOADS_PATH}/([1-9][0-9]{{9,10}})\.([1-9][0-9]{{0,17}})\.({_ANY_FORMAT}|[a-z0-9]{{1,8}}(?:-[a-z0-9]{{1,8}}){{0,15}})"
    r"\.([a-z2-7]{16})\.([a-z2-7]{26})"
)


class UploadTicket(msgspec.Struct, frozen=True):
    """The permission to upload one image.

    expires: the Unix time in seconds at which it ends. max_bytes: the largest file. formats: those of the file; empty for all.
    id: 16 characters of base32 that no other ticket has.
    """

    expires: int
    max_bytes: int
    formats: tuple[OriginalFormat, ...]
    id: str

    @property
    def signing_payload(self) -> str:
        """The ASCII text that the signature covers."""
        return f"{UPLOADS_PATH}/{self.expires}.{self.max_bytes}.{'-'.join(self.formats) or _ANY_FORMAT}.{self.id}"

    def path(self, signature: str) -> str:
        """Return the path with `signature` in it."""
        return f"{self.signing_payload}.{signature}"


def new_ticket(*, expires: int, max_bytes: int, formats: Collection[OriginalFormat]) -> UploadTicket:
    """Return a ticket with a random ID; the parameters are the members of `UploadTicket`."""
    in_order = tuple(known for known in get_args(OriginalFormat) if known in formats)
    return UploadTicket(expires, max_bytes, in_order, base32(secrets.token_bytes(_ID_BYTES)))


def parse_upload_path(raw_path: bytes) -> tuple[UploadTicket, str]:
    """Return the ticket in a raw request path and its signature, which is not verified; raises `BadSignatureError` for any other path."""
    match = _PATH.fullmatch(raw_path.decode("latin-1"))
    if match is None:
        raise forged_ticket(raw_path.decode("latin-1"))
    expires, max_bytes, formats, ticket_id, signature = match.groups()
    names = () if formats == _ANY_FORMAT else cast(tuple[OriginalFormat, ...], tuple(formats.split("-")))
    return UploadTicket(int(expires), int(max_bytes), names, ticket_id), signature


def forged_ticket(received: str) -> BadSignatureError:
    """Return the error for a path that this server has not signed."""
    return BadSignatureError(
        "This is not an upload URL of this server.",
        expected="a URL from a response of POST /v1/uploads, unchanged",
        received=received,
        remedy="Request an upload URL with POST /v1/uploads.",
    )
