"""Both sides of the edge in tests: a client that may disconnect, and an origin that records its requests and can be held back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from math import inf
from typing import Any

from edge import Edge
from edge.asgi import ASGIApp, Headers, Message, Receive, Response, Scope, Send, get_header_values

# The service's response to a rendition.
RENDITION = Response(
    200,
    [
        (b"content-type", b"image/webp"),
        (b"content-length", b"7"),
        (b"cache-control", b"public, max-age=31536000, immutable"),
        (b"cdn-cache-control", b"max-age=60"),
        (b"etag", b'"k5x7q2"'),
        (b"access-control-allow-origin", b"*"),
        (b"accept-ranges", b"bytes"),
    ],
    b"picture",
)


# Mon, 23 Nov 2026 12:00:00 GMT, the first time of a `ManualClock`.
NOON = 1_795_435_200

# A test that waits this long has a bug: no test depends on the machine's speed.
HANG_SECONDS = 120


def hit(ttl: int, key: str = "/i/picture") -> bytes:
    """Return the `Cache-Status` of a hit."""
    return f'darkroom; hit; ttl={ttl}; key="{key}"'.encode()


def stored(ttl: int = 60, key: str = "/i/picture", reason: str = "uri-miss") -> bytes:
    """Return the `Cache-Status` of a forwarded request whose response was stored."""
    return f'darkroom; fwd={reason}; stored; ttl={ttl}; key="{key}"'.encode()


def collapsed(ttl: int = 60, key: str = "/i/picture", reason: str = "uri-miss") -> bytes:
    """Return the `Cache-Status` of a request that got the response to another client's request."""
    return f'darkroom; fwd={reason}; collapsed; ttl={ttl}; key="{key}"'.encode()


def not_stored(key: str = "/i/picture", reason: str = "uri-miss", word: str = "") -> bytes:
    """Return the `Cache-Status` of a forwarded request whose response was not stored."""
    return f'darkroom; fwd={reason};{f" {word};" if word else ""} key="{key}"'.encode()


def full_response(directives: bytes, *more: tuple[bytes, bytes], status: int = 200, body: bytes = b"picture") -> Response:
    """Return a response with all the headers that the edge would add."""
    ranges = [(b"accept-ranges", b"bytes")] if status == 200 else []
    return Response(status, [(b"cache-control", directives), (b"content-length", b"%d" % len(body)), *ranges, *more], body)


def date(seconds: float = 0) -> bytes:
    """Return the HTTP date `seconds` after a `ManualClock` begins."""
    return formatdate(NOON + seconds, usegmt=True).encode("ascii")


@dataclass(frozen=True)
class ClientResponse:
    """The response that a client has received."""

    status: int
    headers: Headers
    """All but `Date`, which the edge adds to stored responses. Tests that are about it use `date`."""
    body: bytes
    date: bytes | None = field(default=None, init=False, compare=False)

    def __post_init__(self) -> None:
        dates = get_header_values(self.headers, b"date")
        assert len(dates) <= 1
        object.__setattr__(self, "date", next(iter(dates), None))
        object.__setattr__(self, "headers", [pair for pair in self.headers if pair[0] != b"date"])

    def field(self, name: bytes) -> bytes | None:
        """Return the value of the only header line called `name`."""
        assert name != b"date"
        values = get_header_values(self.headers, name)
        assert len(values) <= 1, f"{len(values)} lines of {name!r}"
        return values[0] if values else None


def failed(cache_status: bytes) -> ClientResponse:
    """Return the response if the origin failed without one."""
    body = (
        b'{"type":"about:blank","title":"Internal error","status":500,'
        b'"detail":"The server could not respond because of an internal error. Try again. The reason is in its log."}'
    )
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-status", cache_status),
    ]
    return ClientResponse(500, headers, body)


class ClientRequest:
    """A request in progress. The client sends its body, and then stays until it has the response or `disconnect` is called."""

    def __init__(self, app: ASGIApp, scope: Scope, chunks: Iterable[bytes]) -> None:
        self.messages: list[Message] = []
        self.unread_chunks: int | None = None
        """How many chunks of the body were unread when the response began."""
        self._chunks = list(chunks)
        self._waiting = asyncio.Event()
        self._disconnected = asyncio.Event()
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def until_waiting(self) -> None:
        """Return once the application has read the whole request and waits for a disconnect."""
        await _first(self._waiting.wait(), self.task)

    async def is_done(self) -> bool:
        """Return whether the application has returned, once it has or waits for a disconnect."""
        waiting = asyncio.ensure_future(self._waiting.wait())
        await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED, timeout=HANG_SECONDS)
        waiting.cancel()
        return self.task.done()

    def disconnect(self) -> None:
        """Close the connection, as the application sees it."""
        self._disconnected.set()

    async def sent_messages(self) -> list[Message]:
        """Return all messages to the client once the application has returned. Its exception is raised."""
        await asyncio.wait_for(self.task, HANG_SECONDS)
        return self.messages

    async def response(self) -> ClientResponse:
        """Return the whole response. Fails if it is incomplete."""
        start, *rest = await self.sent_messages()
        assert start["type"] == "http.response.start"
        assert rest, "no body"
        assert all(message["type"] == "http.response.body" for message in rest)
        assert [bool(message.get("more_body")) for message in rest] == [True] * (len(rest) - 1) + [False]
        return ClientResponse(start["status"], start["headers"], b"".join(message.get("body", b"") for message in rest))

    async def _receive(self) -> Message:
        if self._chunks:
            body = self._chunks.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self._chunks)}
        self._waiting.set()
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.unread_chunks = len(self._chunks)
        self.messages.append(message)


async def _first(event: Any, task: asyncio.Future[None]) -> None:
    waiting = asyncio.ensure_future(event)
    await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED, timeout=HANG_SECONDS)
    assert waiting.done(), "the application returned, or never waited for a disconnect"


def http_scope(
    path: str = "/i/picture",
    *,
    method: str = "GET",
    raw_path: bytes | None = None,
    query: bytes = b"",
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> Scope:
    """Return the scope of a request, like that of Granian."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": raw_path or path.encode("ascii"),
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"localhost"), *headers],
        "extensions": {"http.response.pathsend": {}},
        "state": {},
    }


def open_request(app: ASGIApp, path: str = "/i/picture", *, chunks: Iterable[bytes] = (b"",), **request: Any) -> ClientRequest:
    """Start a request."""
    return ClientRequest(app, http_scope(path, **request), chunks)


async def send_request(app: ASGIApp, path: str = "/i/picture", **request: Any) -> ClientResponse:
    """Return the response to a request."""
    return await open_request(app, path, **request).response()


async def wait_for_all(requests: Iterable[ClientRequest]) -> None:
    """Return once all of these clients wait for their responses."""
    await asyncio.gather(*(each.until_waiting() for each in requests))


class Origin:
    """An application that sends `response` to every request, or raises `error`. While it is held, it reads requests and sends nothing."""

    def __init__(self, response: Response | Callable[[Scope], Response] = RENDITION, *, held: bool = False) -> None:
        self.response = response
        self.error: BaseException | None = None
        self.requests: list[Scope] = []
        self.bodies: list[list[bytes]] = []
        self.concurrent = 0
        self.max_concurrent = 0
        self._released = 0.0 if held else inf
        self._changed = asyncio.Condition()

    async def release(self, first: float = inf) -> None:
        """Respond to the `first` requests, or to all."""
        async with self._changed:
            self._released = first
            self._changed.notify_all()

    async def hold(self) -> None:
        """Respond to no further request until `release`."""
        async with self._changed:
            self._released = len(self.requests)

    async def until_requested(self, times: int) -> None:
        """Return once there have been `times` requests."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: len(self.requests) >= times), HANG_SECONDS)

    def requested_headers(self, *names: bytes) -> list[list[tuple[bytes, bytes]]]:
        """Return the headers of each request that are called `names`, in order."""
        return [[pair for pair in scope["headers"] if pair[0] in names] for scope in self.requests]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._changed:
            self.requests.append(scope)
            number = len(self.requests)
            self._changed.notify_all()
        self.concurrent += 1
        self.max_concurrent = max(self.max_concurrent, self.concurrent)
        try:
            self.bodies.append(await _chunks(receive))
            async with self._changed:
                await self._changed.wait_for(lambda: number <= self._released)
            if self.error is not None:
                raise self.error
            status, headers, body = self.response(scope) if callable(self.response) else self.response
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        finally:
            self.concurrent -= 1


async def _chunks(receive: Receive) -> list[bytes]:
    chunks = []
    while True:
        message = await receive()
        chunks.append(message["body"])
        if not message["more_body"]:
            return chunks


class ChunkedOrigin:
    """An application that sends a response in chunks, each after the one before has been taken.

    `sent` is the number of chunks that `send` has taken, `events` are the types of messages received.
    """

    def __init__(self, headers: Headers, chunks: Iterable[bytes], *, status: int = 200, held: bool = False) -> None:
        self.status = status
        self.headers = headers
        self.chunks = list(chunks)
        self.error: Exception | None = None
        self.requests: list[Scope] = []
        self.events: list[str] = []
        self.sent = 0
        self.finished = asyncio.Event()
        self.may_respond = asyncio.Event()
        if not held:
            self.may_respond.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests.append(scope)
        self.events.append((await receive())["type"])
        await self.may_respond.wait()
        disconnected = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        for chunk in self.chunks:
            if disconnected.done():
                break
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            self.sent += 1
            # Like an application that reads a file while it sends it.
            await asyncio.sleep(0)
        if self.error is not None:
            disconnected.cancel()
            raise self.error
        if not disconnected.done():
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        self.events.append((await disconnected)["type"])
        self.finished.set()


class ManualClock:
    """A monotonic clock that a test sets, with a wall clock that runs along."""

    def __init__(self) -> None:
        self.now = 1_000.25

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        """Return the Unix time, which begins at `NOON`."""
        return NOON + self.now - 1_000.25


def shared_edge(app: ASGIApp, clock: ManualClock | None = None, **options: Any) -> Edge:
    """Return an edge called Darkroom. Keys do not include the host unless `options` say so."""
    clock = clock or ManualClock()
    defaults = {
        "name": "Darkroom",
        "max_bytes": 1_000_000,
        "max_concurrent_misses": 100,
        "key_includes_host": False,
        "bypass_paths": ("/health", "/v1/"),
    }
    return Edge(app, clock=clock, wall_clock=clock.wall, **{**defaults, **options})


async def settle(edge: Edge) -> None:
    """Return once every request to the origin has ended and its response has been processed."""
    await asyncio.wait_for(asyncio.gather(*edge._origin._tasks), HANG_SECONDS)
