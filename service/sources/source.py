"""What every source can do, whether it is a bucket or a host."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

Write = Callable[[bytes], Awaitable[None]]


class Validators(msgspec.Struct, frozen=True):
    """The `ETag` and `Last-Modified` of an object, "" where it has none (RFC 9110 §8.8)."""

    etag: str = ""
    last_modified: str = ""


class SourceObject(msgspec.Struct, frozen=True):
    """An object in a listing: its path below the source's prefix, decoded, and its size in bytes."""

    path: str
    bytes: int


class Source(Protocol):
    """One entry of `DARKROOM_SOURCES`.

    The path of an object is relative to the source's prefix and decoded. `service.urls.source_url.check_object_path` has passed it.
    """

    async def fetch(self, path: str, validators: Validators, write: Write) -> Validators | None:
        """Fetch an object, pass its bytes to `write`, and return its validators; return `None` if they still match `validators`.

        validators: those of the last fetch; with any, the request is conditional. `Validators()` for an unconditional one.

        Raises `SourceFailedError`, with `source_status=404` if there is no such object; `SourceSlowError`; `TooLargeError`; and the errors
        of `write`. The caller limits how long a fetch takes and how many there are at a time.
        """
        ...

    async def list(self, after: str, limit: int) -> Sequence[SourceObject]:
        """Return the first `limit` objects whose paths sort after `after`, in the order of their paths; fewer if there are no more.

        Raises `SourceNotListableError` if this kind of source has no listing, `BadAddressError` if `after` cannot be a path,
        `SourceFailedError` and `SourceSlowError`.
        """
        ...
