"""An `Edge` in front of an HTTP origin, as a forwarder for tests.

Granian loads `app`; the environment variable `ORIGIN_URL` has the origin's URL.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable

import httpcore

from edge import Edge
from edge.asgi import ASGIApp, Headers, Receive, Scope, Send, problem_response

# RFC 9110 §7.6.1, and the fields of RFC 9110 §11.7 that are for one hop of a proxy.
_HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization", b"proxy-connection", b"te",
    b"transfer-encoding", b"upgrade",
})  # fmt: skip

_BAD_GATEWAY = problem_response(502, "Bad gateway", "The origin closed the connection without a complete response.")


class Forwarder:
    """An ASGI application that forwards requests to an origin, and its responses as they arrive."""

    def __init__(self, origin_url: str) -> None:
        """Forward to the origin at `origin_url`, which has no path."""
        self._origin = httpcore.URL(origin_url)
        # A request on a connection that the origin is about to close would fail, and a repeated one would be counted by tests.
        self._pool = httpcore.AsyncConnectionPool(max_connections=200, max_keepalive_connections=0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        url = httpcore.URL(scheme=self._origin.scheme, host=self._origin.host, port=self._origin.port, target=target)
        headers = end_to_end(scope["headers"])
        has_body = any(name in {b"content-length", b"transfer-encoding"} for name, _ in scope["headers"])
        try:
            stream = self._pool.stream(scope["method"], url, headers=headers, content=_body(receive) if has_body else None)
            async with stream as response:
                start = {"status": response.status, "headers": end_to_end((name.lower(), value) for name, value in response.headers)}
                await send({"type": "http.response.start", **start})
                async for chunk in response.aiter_stream():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except (httpcore.RemoteProtocolError, httpcore.NetworkError):
            # After the start of a response this raises in the server, which closes the connection: the client has to see the failure.
            status, problem_headers, body = _BAD_GATEWAY
            await send({"type": "http.response.start", "status": status, "headers": problem_headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await send({"type": "http.response.body", "body": b""})


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the headers that a proxy forwards: all but those for one connection, and those that `Connection` names (RFC 9110 §7.6.1)."""
    pairs = list(headers)
    named = {name.strip().lower() for field, value in pairs if field == b"connection" for name in value.split(b",")}
    return [(name, value) for name, value in pairs if name not in _HOP_BY_HOP and name not in named]


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise httpcore.ReadError("the client disconnected before its body was complete")
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


def edge_before(app: ASGIApp) -> Edge:
    """Return an edge before a forwarder with everything enabled that RFC 9111 leaves to a cache's operator."""
    return Edge(
        app,
        name="darkroom",
        max_bytes=64_000_000,
        max_concurrent_misses=1_000,
        # How the suite's client configures its server and reads what reached it.
        bypass_paths=("/config/", "/state/"),
        heuristic_fraction=0.1,
        stale_if_error_seconds=60,
    )


app = edge_before(Forwarder(os.environ.get("ORIGIN_URL", "http://127.0.0.1:8000")))
