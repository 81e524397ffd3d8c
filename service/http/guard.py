"""What a request must be before anything is done for it: a header of bounded size, one Host, and a known token where it is handed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from service.errors import BadRequestError, HeaderTooLargeError

# Methods that change nothing (RFC 9110 §9.2.1).
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

# `: ` and the line break of a field line.
_LINE_BYTES = 4


class Guard:
    """Checks the header of a request, by its ASGI scope."""

    def __init__(self, max_header_bytes: int, authenticate: Callable[[str], object] | None) -> None:
        """`max_header_bytes`: of the request's target, field names, field values and their separators together.

        `authenticate`: called with the value of `Authorization` of each request that changes something; raises `UnauthorizedError` for
        one without a known token. None where routes do that themselves.
        """
        self._max_header_bytes = max_header_bytes
        self._authenticate = authenticate

    def check(self, scope: Mapping[str, Any]) -> None:
        """Return if a request may go on; raises `HeaderTooLargeError`, `BadRequestError` and `UnauthorizedError`."""
        headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        size = len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(name) + len(value) + _LINE_BYTES for name, value in headers)
        if size > self._max_header_bytes:
            raise HeaderTooLargeError(
                "The header of the request is too large.",
                expected=f"at most {self._max_header_bytes} bytes of target and fields",
                received=f"{size} bytes in {len(headers)} fields",
                remedy="Send fewer cookies and shorter fields, or raise DARKROOM_MAX_HEADER_BYTES on the server.",
            )
        # Granian says "1.1", and "1" for HTTP/1.0; it adds an empty Host where there is none.
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) > 1 or (hosts in ([], [b""]) and scope["http_version"] == "1.1"):
            raise BadRequestError(
                "The request does not say for which host it is.",
                expected="one Host field (RFC 9112 §3.2)",
                received=f"{len(hosts)} of them" if len(hosts) > 1 else "none, or an empty one",
                remedy="Let an HTTP client make the request.",
            )
        if self._authenticate is not None and scope["method"] not in _SAFE:
            authorization = next((value for name, value in headers if name == b"authorization"), b"")
            self._authenticate(authorization.decode("latin-1"))
