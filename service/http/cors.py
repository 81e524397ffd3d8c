"""Cross-origin requests (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol) to upload URLs, from pages of the configured origins."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from service.settings.sections import ANY_ORIGIN
from service.urls.upload_ticket import UPLOADS_PATH

# Chromium stores the result of a preflight for two hours at most.
_PREFLIGHT_SECONDS = 7_200

# A page sends the file's own type, and on Fly names the region that a 421 told it to prefer.
_PREFLIGHT = [
    (b"access-control-allow-methods", b"POST, PUT"),
    (b"access-control-allow-headers", b"Content-Type, Fly-Prefer-Region"),
    (b"access-control-max-age", b"%d" % _PREFLIGHT_SECONDS),
]
_EXPOSED = (b"access-control-expose-headers", b"ETag, Location, Retry-After, X-Request-Id")

_VARY = (b"vary", b"Origin")

_PREFIX = f"{UPLOADS_PATH}/"


class UploadCors:
    """Adds the fields of CORS to every response under `/v1/uploads/`, also to errors, so that a page can read them.

    It surrounds the edge, which has errors of its own. A request from another origin is handled like any other, because it is the
    signature of its URL that permits it; only the response cannot be read there. Credentials are never allowed, and never needed.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        """Wrap an application.

        app: any ASGI application.
        origins: the origins as browsers write them, or `*` for all.
        """
        self._app = app
        self._allows_all = ANY_ORIGIN in origins
        self._origins = frozenset(origin.encode("ascii") for origin in origins)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle a request. This is no coroutine of its own, because it is called for every hit of the edge."""
        # The scope of the lifespan has no path.
        if scope.get("path", "").startswith(_PREFIX):
            return self._respond(scope, receive, send)
        return self._app(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = dict(scope["headers"])
        fields = self._fields(request.get(b"origin", b""))
        if fields and scope["method"] == "OPTIONS" and b"access-control-request-method" in request:  # type: ignore[typeddict-item]
            fields = [*fields, *_PREFLIGHT]
        elif fields:
            fields = [*fields, _EXPOSED]
        if not self._allows_all:
            fields = [*fields, _VARY]

        async def send_with_fields(message: Message) -> None:
            if message["type"] == "http.response.start":
                # A copy, because the edge may send the same message again.
                message = {**message, "headers": [*message["headers"], *fields]}
            await send(message)

        await self._app(scope, receive, send_with_fields)

    def _fields(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        if self._allows_all:
            return [(b"access-control-allow-origin", b"*")]
        return [(b"access-control-allow-origin", origin)] if origin in self._origins else []
