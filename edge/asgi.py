"""The words of ASGI that the edge speaks, and one whole answer of the origin."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]


class Answer(NamedTuple):
    """A status, header fields with lower-case names in the order sent, and the whole body in bytes."""

    status: int
    headers: Headers
    body: bytes


def field_values(headers: Headers, name: bytes) -> list[bytes]:
    """Return the value of each field line called `name` (lower case), in order."""
    return [value for field, value in headers if field == name]


def problem(status: int, title: str, detail: str, *extra: tuple[bytes, bytes], members: Mapping[str, str] | None = None) -> Answer:
    """Return an answer of the edge's own as `application/problem+json` (RFC 9457), with `members` of our own; never kept by anyone."""
    told = {"type": "about:blank", "title": title, "status": status, "detail": detail, **(members or {})}
    body = json.dumps(told, separators=(",", ":")).encode("ascii")
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *extra,
    ]
    return Answer(status, headers, body)
