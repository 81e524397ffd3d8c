"""The two ends of an ASGI application in tests: a client that may leave, an origin that counts and can be held back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Any

from edge.answer import Answer, ASGIApp, Headers, Message, Receive, Scope, Send, field_values

# As the service answers a rendition.
RENDITION = Answer(
    200,
    [
        (b"content-type", b"image/webp"),
        (b"content-length", b"7"),
        (b"cache-control", b"public, max-age=31536000, immutable"),
        (b"cdn-cache-control", b"max-age=60"),
        (b"etag", b'"k5x7q2"'),
        (b"access-control-allow-origin", b"*"),
    ],
    b"picture",
)


@dataclass(frozen=True)
class Reply:
    """What a client has received when its request is over."""

    status: int
    headers: Headers
    body: bytes

    def field(self, name: bytes) -> bytes | None:
        """Return the value of the only field line called `name`."""
        values = field_values(self.headers, name)
        assert len(values) <= 1, f"{name!r} is there {len(values)} times"
        return values[0] if values else None


def failed(cache_status: bytes) -> Reply:
    """Return what a client gets when the origin failed without an answer."""
    body = (
        b'{"type":"about:blank","title":"Internal error","status":500,'
        b'"detail":"The server failed to answer. Try again; its log has the reason."}'
    )
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-status", cache_status),
    ]
    return Reply(500, headers, body)


class Visit:
    """One request under way: it sends its body, then stays until it is answered or told to leave."""

    def __init__(self, app: ASGIApp, scope: Scope, chunks: Iterable[bytes]) -> None:
        self.messages: list[Message] = []
        self._chunks = list(chunks)
        self._waits = asyncio.Event()
        self._left = asyncio.Event()
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def waits(self) -> None:
        """Return once the application has had the whole request and asks whether the client is still there."""
        await _first(self._waits.wait(), self.task)

    def leave(self) -> None:
        """Close the connection, as seen by the application."""
        self._left.set()

    async def over(self) -> list[Message]:
        """Return all that was sent to the client once the application has returned; raises what it raised."""
        await asyncio.wait_for(self.task, 10)
        return self.messages

    async def reply(self) -> Reply:
        """Return the whole answer; fails if it is not one."""
        start, *rest = await self.over()
        assert start["type"] == "http.response.start"
        assert rest, "no body"
        assert all(message["type"] == "http.response.body" for message in rest)
        assert [bool(message.get("more_body")) for message in rest] == [True] * (len(rest) - 1) + [False]
        return Reply(start["status"], list(start["headers"]), b"".join(message.get("body", b"") for message in rest))

    async def _receive(self) -> Message:
        if self._chunks:
            body = self._chunks.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self._chunks)}
        self._waits.set()
        await self._left.wait()
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


def visit(app: ASGIApp, path: str = "/i/picture", *, chunks: Iterable[bytes] = (b"",), **request: Any) -> Visit:
    """Start a request."""
    return Visit(app, http_scope(path, **request), chunks)


async def ask(app: ASGIApp, path: str = "/i/picture", **request: Any) -> Reply:
    """Return the answer to a request whose client stays to the end."""
    return await visit(app, path, **request).reply()


async def all_wait(visits: Iterable[Visit]) -> None:
    """Return once every one of these clients waits for its answer."""
    await asyncio.gather(*(each.waits() for each in visits))


class Origin:
    """An application that gives every request `answer`, or raises `error`; while held, it has requests and no answers."""

    def __init__(self, answer: Answer = RENDITION, *, held: bool = False) -> None:
        self.answer = answer
        self.error: BaseException | None = None
        self.requests: list[Scope] = []
        self.bodies: list[list[bytes]] = []
        self.at_once = 0
        self.most_at_once = 0
        self._answered = 0.0 if held else inf
        self._changed = asyncio.Condition()

    async def release(self, first: float = inf) -> None:
        """Answer the first so many requests, or all."""
        async with self._changed:
            self._answered = first
            self._changed.notify_all()

    async def asked(self, times: int) -> None:
        """Return once there have been that many requests."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: len(self.requests) >= times), 10)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._changed:
            self.requests.append(scope)
            number = len(self.requests)
            self._changed.notify_all()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.bodies.append(await _chunks(receive))
            async with self._changed:
                await self._changed.wait_for(lambda: number <= self._answered)
            if self.error is not None:
                raise self.error
            status, headers, body = self.answer
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        finally:
            self.at_once -= 1


async def _chunks(receive: Receive) -> list[bytes]:
    chunks = []
    while True:
        message = await receive()
        chunks.append(message["body"])
        if not message["more_body"]:
            return chunks


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.25

    def __call__(self) -> float:
        return self.now
