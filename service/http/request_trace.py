"""The span of a request: an ASGI middleware around everything else, also around the edge, where traces are on.

It is installed only then, so that without traces a hit costs nothing more. The stages below have spans of their own (`concurrency.spans`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import sanitize
from service.http.request_log import cache_result, tier_of
from service.ops.logging import redact
from service.urls.signature_mask import mask_path

if TYPE_CHECKING:
    from service.concurrency.spans import Attribute
    from service.ops.open_telemetry import RequestSpan, Sample, Tracing

# Those of RFC 9110 and RFC 5789. Others are "_OTHER", because clients can invent them.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER = "_OTHER"

# Load balancers send health checks all day.
_UNTRACED = frozenset({"health"})

_MAX_PATH_CHARACTERS = 500


class RequestTrace:
    """An ASGI middleware that records the requests that are sampled."""

    def __init__(self, app: ASGIApp, tracing: Tracing, label: Callable[[str], str]) -> None:
        """Record requests to an application.

        tracing: decides which.
        label: returns the kind of a request by its path.
        """
        self._app = app
        self._tracing = tracing
        self._label = label

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle a request, and record it if it is sampled. This is no coroutine of its own, because it is called for every hit."""
        # The scope of the lifespan has no fields.
        if "headers" not in scope or (sample := self._tracing.sample(scope["headers"])) is None:
            return self._app(scope, receive, send)
        return self._record(sample, scope, receive, send)

    async def _record(self, sample: Sample, scope: Scope, receive: Receive, send: Send) -> None:
        kind, method = self._label(scope["path"]), str(scope.get("method"))
        if kind in _UNTRACED:
            await self._app(scope, receive, send)
            return
        with self._tracing.request(sample, method if method in _METHODS else _OTHER, kind) as span:
            response = _Response(send, span)
            try:
                await self._app(scope, receive, response.send)
            finally:
                span.end_with(response.status, {**_request_attributes(scope), **response.attributes()})


class _Response:
    """Passes a response on, and notes what the span needs of it."""

    __slots__ = ("_fields", "_send", "_sent_bytes", "_span", "status")

    def __init__(self, send: Send, span: RequestSpan) -> None:
        self._send = send
        self._span = span
        self._fields: dict[bytes, bytes] = {}
        self._sent_bytes = 0
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"] = [self._with_state(name, value) for name, value in message["headers"]]
            self._fields = dict(headers)
        elif message["type"] == "http.response.body":
            self._sent_bytes += len(message.get("body", b""))
        await self._send(message)

    def attributes(self) -> dict[str, Attribute]:
        """Return what the response says of itself."""
        found: dict[str, Attribute] = {"http.response.body.size": self._sent_bytes}
        if (status := self._fields.get(b"cache-status")) is not None:
            found["darkroom.cache"] = cache_result(status)
        if tier := tier_of(self._fields.get(b"server-timing", b"")):
            found["darkroom.tier"] = tier
        if (request_id := self._fields.get(b"x-request-id")) is not None:
            # A client may have written anything, also a secret.
            found["darkroom.request_id"] = redact(request_id.decode("ascii"))
        return found

    def _with_state(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        """Let Fly's proxy take the trace along when it replays the request in another region, as `state` of `Fly-Replay-Src`."""
        return (name, b"%b;state=%b" % (value, self._span.traceparent.encode("ascii")) if name == b"fly-replay" else value)


def _request_attributes(scope: Mapping[str, Any]) -> dict[str, Attribute]:
    return {
        "url.path": sanitize(redact(mask_path(scope["path"])), _MAX_PATH_CHARACTERS),
        "url.scheme": str(scope.get("scheme", "http")),
        "network.protocol.version": str(scope.get("http_version", "1.1")),
    }
