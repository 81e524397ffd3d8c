"""ASGI's types, and a whole response as a value."""

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


class Response(NamedTuple):
    """A status, headers with lower-case names in the order sent, and the whole body."""

    status: int
    headers: Headers
    body: bytes


def get_header_values(headers: Headers, name: bytes) -> list[bytes]:
    """Return the value of each header line called `name` (lower case), in order."""
    return [value for header, value in headers if header == name]


def problem_response(
    status: int, title: str, detail: str, *headers: tuple[bytes, bytes], members: Mapping[str, str] | None = None
) -> Response:
    """Return an `application/problem+json` response (RFC 9457) that no cache stores, with additional `headers` and `members`."""
    problem = {"type": "about:blank", "title": title, "status": status, "detail": detail, **(members or {})}
    body = json.dumps(problem, separators=(",", ":")).encode("ascii")
    common = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    return Response(status, [*common, *headers], body)
