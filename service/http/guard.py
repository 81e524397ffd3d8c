"""Checks of a request's header before anything else is done: its size, its Host and, in a replica region, its token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from service.errors import BadRequestError, HeaderTooLargeError

# Safe methods (RFC 9110 §9.2.1).
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

# The colon, space and line break of a field line.
_LINE_BYTES = 4


class Guard:
    """Checks the header of a request, given its ASGI scope."""

    def __init__(self, max_header_bytes: int, authenticate: Callable[[bytes, str], object] | None) -> None:
        """Check headers against these limits.

        `max_header_bytes`: the largest total size of the request's target, field names, field values and their separators.
        `authenticate`: called with the raw path and the value of `Authorization` of each request whose method is not safe; raises
        `UnauthorizedError` for an unknown token, and `BadSignatureError` for a forged upload URL. `None` if the routes check them.
        """
        self._max_header_bytes = max_header_bytes
        self._authenticate = authenticate

    def check(self, scope: Mapping[str, Any]) -> None:
        """Check a request; raises `HeaderTooLargeError`, `BadRequestError` for no Host or several, and what `authenticate` does."""
        headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        size = len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(name) + len(value) + _LINE_BYTES for name, value in headers)
        if size > self._max_header_bytes:
            raise HeaderTooLargeError(
                "The request's header is too large.",
                expected=f"at most {self._max_header_bytes} bytes of target and fields",
                received=f"{size} bytes in {len(headers)} fields",
                remedy="Send fewer cookies and shorter fields, or raise DARKROOM_MAX_HEADER_BYTES on the server.",
            )
        # Granian's http_version is "1.1", or "1" for HTTP/1.0; it adds an empty Host to a request without one.
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) > 1 or (hosts in ([], [b""]) and scope["http_version"] == "1.1"):
            raise BadRequestError(
                "The request needs exactly one Host field.",
                expected="one Host field (RFC 9112 §3.2)",
                received=f"{len(hosts)} Host fields" if len(hosts) > 1 else "no Host field, or an empty one",
                remedy="Use an HTTP client to make the request.",
            )
        if self._authenticate is not None and scope["method"] not in _SAFE:
            authorization = next((value for name, value in headers if name == b"authorization"), b"")
            self._authenticate(scope["raw_path"], authorization.decode("latin-1"))
