"""The bare limits of a hit: functions that only send a response, and the edge around an origin that does only that."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import msgspec

from edge import Edge
from edge.asgi import ASGIApp, Message, Receive, Scope, Send

# Environment variables of the applications: the path of a file with a `FixedResponse`, and the number of entries.
RESPONSE_FILE = "BENCH_RESPONSE"
ENTRIES = "BENCH_ENTRIES"

ENTRY_BODY_BYTES = 2_000
_SEED = 7


class FixedResponse(msgspec.Struct, frozen=True):
    """A response to send; its headers keep their order."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class RSGIProtocol(Protocol):
    """What Granian gives to an RSGI application in order to respond, as far as it is used here."""

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None: ...


def entry_path(number: int) -> str:
    """Return the path of the entry with this number, from 0."""
    return f"/n/{number}"


def fixed_response() -> ASGIApp:
    """Return an application that responds to every request with the response in `BENCH_RESPONSE`."""
    response = _load_response()
    start = {"type": "http.response.start", "status": response.status, "headers": _encoded(response.headers)}
    body = {"type": "http.response.body", "body": response.body}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        await send(start)
        await send(body)

    return app


def fixed_rsgi() -> Callable[[object, RSGIProtocol], Awaitable[None]]:
    """Return the same as `fixed_response` for RSGI, Granian's own protocol, with its headers as text."""
    response = _load_response()
    status, headers, body = response.status, response.headers, response.body

    async def app(scope: object, protocol: RSGIProtocol) -> None:
        protocol.response_bytes(status, headers, body)

    return app


def dict_lookup() -> ASGIApp:
    """Return an application that looks up the body in a dict of many distinct ones, and sends all of them with one list of headers."""
    start = {"type": "http.response.start", "status": 200, "headers": _entry_headers(_load_response())}
    bodies = {entry_path(number).encode("ascii"): body for number, body in _entry_bodies()}
    health = bodies[b"/health"] = next(iter(bodies.values()))
    if len(health) != ENTRY_BODY_BYTES:
        raise ValueError(f"expected bodies of {ENTRY_BODY_BYTES} bytes, got {len(health)}")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        body = bodies[scope["raw_path"]]
        await send(start)
        await send({"type": "http.response.body", "body": body})

    return app


def filled_edge() -> ASGIApp:
    """Return the edge. By the end of its startup it has stored many distinct bodies, each with its own list of headers."""
    response = _load_response()
    bodies = dict(_entry_bodies())

    async def origin(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send, fill)
            return
        number = scope["path"].rpartition("/")[2]
        body = bodies[int(number) if number.isdigit() else 0]
        # A new list of headers for each response, as from a framework: no two entries share theirs.
        await send({"type": "http.response.start", "status": 200, "headers": _entry_headers(response)})
        await send({"type": "http.response.body", "body": body})

    edge = Edge(origin, name="darkroom", max_bytes=8 << 30, max_concurrent_misses=100, key_includes_host=False)

    async def fill() -> None:
        for number in range(len(bodies)):
            await edge(_get(entry_path(number)), _receive_disconnect, _discard)

    return edge


def _load_response() -> FixedResponse:
    return msgspec.msgpack.decode(Path(os.environ[RESPONSE_FILE]).read_bytes(), type=FixedResponse)


def _encoded(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _entry_headers(response: FixedResponse) -> list[tuple[bytes, bytes]]:
    return [
        (name, b"%d" % ENTRY_BODY_BYTES if name == b"content-length" else value)
        for name, value in _encoded(response.headers)
    ]  # fmt: skip


def _entry_bodies() -> Iterator[tuple[int, bytes]]:
    random_bytes = random.Random(_SEED).randbytes
    return ((number, random_bytes(ENTRY_BODY_BYTES)) for number in range(int(os.environ[ENTRIES])))


def _get(path: str) -> Scope:
    return {"type": "http", "method": "GET", "path": path, "raw_path": quote(path).encode("ascii"), "query_string": b"", "headers": []}


async def _receive_disconnect() -> Message:
    return {"type": "http.disconnect"}


async def _discard(message: Message) -> None:
    del message


async def _do_nothing() -> None:
    return None


async def _lifespan(receive: Receive, send: Send, start_up: Callable[[], Awaitable[None]] = _do_nothing) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await start_up()
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return
