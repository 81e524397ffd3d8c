"""The two ends of an ASGI application in tests: a client that may leave, an origin that counts and can be held back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from math import inf
from typing import Any

from edge import Edge
from edge.asgi import ASGIApp, Headers, Message, Receive, Response, Scope, Send, get_header_values

# As the service answers a rendition.
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


# Mon, 23 Nov 2026 12:00:00 GMT, when a test's clock begins.
NOON = 1_795_435_200


def hit(ttl: int, key: str = "/i/picture") -> bytes:
    """Return the `Cache-Status` of a hit."""
    return f'darkroom; hit; ttl={ttl}; key="{key}"'.encode()


def stored(ttl: int = 60, key: str = "/i/picture", reason: str = "uri-miss") -> bytes:
    """Return the `Cache-Status` of a forwarded request whose answer was kept."""
    return f'darkroom; fwd={reason}; stored; ttl={ttl}; key="{key}"'.encode()


def collapsed(ttl: int = 60, key: str = "/i/picture", reason: str = "uri-miss") -> bytes:
    """Return the `Cache-Status` of a request that got what another client's brought."""
    return f'darkroom; fwd={reason}; collapsed; ttl={ttl}; key="{key}"'.encode()


def not_stored(key: str = "/i/picture", reason: str = "uri-miss", word: str = "") -> bytes:
    """Return the `Cache-Status` of a forwarded request whose answer was not kept."""
    return f'darkroom; fwd={reason};{f" {word};" if word else ""} key="{key}"'.encode()


def full_response(directives: bytes, *more: tuple[bytes, bytes], status: int = 200, body: bytes = b"picture") -> Response:
    """Return an answer that says of its body all that the edge would add."""
    ranges = [(b"accept-ranges", b"bytes")] if status == 200 else []
    return Response(status, [(b"cache-control", directives), (b"content-length", b"%d" % len(body)), *ranges, *more], body)


def date(seconds: float = 0) -> bytes:
    """Return the HTTP date that is so many seconds after a test's clock began."""
    return formatdate(NOON + seconds, usegmt=True).encode("ascii")


@dataclass(frozen=True)
class ClientResponse:
    """What a client has received when its request is over."""

    status: int
    headers: Headers
    """All but `Date`, which the edge adds to what it stores: tests that are about it look at `date`."""
    body: bytes
    date: bytes | None = field(default=None, init=False, compare=False)

    def __post_init__(self) -> None:
        dates = get_header_values(self.headers, b"date")
        assert len(dates) <= 1
        object.__setattr__(self, "date", next(iter(dates), None))
        object.__setattr__(self, "headers", [pair for pair in self.headers if pair[0] != b"date"])

    def field(self, name: bytes) -> bytes | None:
        """Return the value of the only field line called `name`."""
        assert name != b"date"
        values = get_header_values(self.headers, name)
        assert len(values) <= 1, f"{name!r} is there {len(values)} times"
        return values[0] if values else None


def failed(cache_status: bytes) -> ClientResponse:
    """Return what a client gets when the origin failed without an answer."""
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
    """One request under way: it sends its body, then stays until it is answered or told to leave."""

    def __init__(self, app: ASGIApp, scope: Scope, chunks: Iterable[bytes]) -> None:
        self.messages: list[Message] = []
        self._chunks = list(chunks)
        self._waiting = asyncio.Event()
        self._disconnected = asyncio.Event()
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def until_waiting(self) -> None:
        """Return once the application has had the whole request and asks whether the client is still there."""
        await _first(self._waiting.wait(), self.task)

    async def is_done(self) -> bool:
        """Return whether it has been answered, as soon as it has been or waits for that."""
        waiting = asyncio.ensure_future(self._waiting.wait())
        await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        waiting.cancel()
        return self.task.done()

    def disconnect(self) -> None:
        """Close the connection, as seen by the application."""
        self._disconnected.set()

    async def sent_messages(self) -> list[Message]:
        """Return all that was sent to the client once the application has returned; raises what it raised."""
        await asyncio.wait_for(self.task, 10)
        return self.messages

    async def response(self) -> ClientResponse:
        """Return the whole answer; fails if it is not one."""
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
        self.messages.append(message)


async def _first(event: Any, task: asyncio.Future[None]) -> None:
    waiting = asyncio.ensure_future(event)
    await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    assert waiting.done(), "the request was over, or the application never asked whether its client is there"


def http_scope(
    path: str = "/i/picture",
    *,
    method: str = "GET",
    raw_path: bytes | None = None,
    query: bytes = b"",
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> Scope:
    """Return the scope of a request as Granian would give it."""
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
    """Return the answer to a request whose client stays to the end."""
    return await open_request(app, path, **request).response()


async def wait_for_all(requests: Iterable[ClientRequest]) -> None:
    """Return once every one of these clients waits for its answer."""
    await asyncio.gather(*(each.until_waiting() for each in requests))


class Origin:
    """An application that gives every request `answer`, or raises `error`; while held, it has requests and no answers."""

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
        """Answer the first so many requests, or all."""
        async with self._changed:
            self._released = first
            self._changed.notify_all()

    async def hold(self) -> None:
        """Answer no request that comes from now on, until released."""
        async with self._changed:
            self._released = len(self.requests)

    async def until_requested(self, times: int) -> None:
        """Return once there have been that many requests."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: len(self.requests) >= times), 10)

    def requested_headers(self, *names: bytes) -> list[list[tuple[bytes, bytes]]]:
        """Return of each request the fields called `names`, in order."""
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
    """An application that sends the start of an answer, then a piece at a time, each when the one before has been taken.

    `sent` counts the pieces that `send` has taken, `events` is what it has received.
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
            # As an application does that reads what it sends.
            await asyncio.sleep(0)
        if self.error is not None:
            disconnected.cancel()
            raise self.error
        if not disconnected.done():
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        self.events.append((await disconnected)["type"])
        self.finished.set()


class ManualClock:
    """A monotonic clock that a test moves, and the wall clock beside it."""

    def __init__(self) -> None:
        self.now = 1_000.25

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        """Return the Unix time, noon when the clock is new."""
        return NOON + self.now - 1_000.25


def shared_edge(app: ASGIApp, clock: ManualClock | None = None, **options: Any) -> Edge:
    """Return an edge called Darkroom, whose hosts have the same answers unless `options` say otherwise."""
    clock = clock or ManualClock()
    given = {
        "name": "Darkroom",
        "max_bytes": 1_000_000,
        "max_concurrent_misses": 100,
        "key_includes_host": False,
        "bypass_paths": ("/health", "/v1/"),
    }
    return Edge(app, clock=clock, wall_clock=clock.wall, **{**given, **options})


async def settle(edge: Edge) -> None:
    """Return once every request to the origin is over and its answer has been taken."""
    await asyncio.wait_for(asyncio.gather(*edge._origin._tasks), 10)
