"""The bare limits of a hit: ASGI functions that only send, and the edge around an origin that is nothing else."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec

from edge import Edge
from edge.asgi import ASGIApp, Message, Receive, Scope, Send

# What the applications are told by: a file with a `Fixed`, and how many entries there are.
ANSWER_FILE = "BENCH_ANSWER"
ENTRIES = "BENCH_ENTRIES"

ENTRY_BODY_BYTES = 2_000
_SEED = 7


class Fixed(msgspec.Struct, frozen=True):
    """An answer to send: the status, the fields in their order, the body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def entry_path(number: int) -> str:
    """Return the path of the entry with this number, from 0."""
    return f"/n/{number}"


def fixed() -> ASGIApp:
    """Return an application that answers everything with the one answer in a file."""
    answer = _answer()
    start = {"type": "http.response.start", "status": answer.status, "headers": _encoded(answer.headers)}
    body = {"type": "http.response.body", "body": answer.body}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        await send(start)
        await send(body)

    return app


def over_dict() -> ASGIApp:
    """Return an application that answers from a dict of many distinct bodies, all under the header list of the one answer."""
    start = {"type": "http.response.start", "status": 200, "headers": _entry_headers(_answer())}
    bodies = {entry_path(number).encode("ascii"): body for number, body in _entry_bodies()}
    health = bodies[b"/health"] = next(iter(bodies.values()))
    if len(health) != ENTRY_BODY_BYTES:
        raise ValueError("entries are of one size")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        body = bodies[scope["raw_path"]]
        await send(start)
        await send({"type": "http.response.body", "body": body})

    return app


def filled_edge() -> ASGIApp:
    """Return the edge, which keeps many distinct bodies by the time it answers, each with a header list of its own."""
    answer = _answer()
    bodies = dict(_entry_bodies())

    async def origin(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send, fill)
            return
        number = scope["path"].rpartition("/")[2]
        body = bodies[int(number) if number.isdigit() else 0]
        # Encoded anew for each answer, as a framework does: no entry shares these with another.
        await send({"type": "http.response.start", "status": 200, "headers": _entry_headers(answer)})
        await send({"type": "http.response.body", "body": body})

    edge = Edge(origin, name="darkroom", max_bytes=8 << 30, max_concurrent_misses=100, key_includes_host=False)

    async def fill() -> None:
        for number in range(len(bodies)):
            await edge(_get(entry_path(number)), _nothing_more, _nowhere)

    return edge


def _answer() -> Fixed:
    return msgspec.msgpack.decode(Path(os.environ[ANSWER_FILE]).read_bytes(), type=Fixed)


def _encoded(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _entry_headers(answer: Fixed) -> list[tuple[bytes, bytes]]:
    return [
        (name, b"%d" % ENTRY_BODY_BYTES if name == b"content-length" else value)
        for name, value in _encoded(answer.headers)
    ]  # fmt: skip


def _entry_bodies() -> Iterator[tuple[int, bytes]]:
    bytes_of = random.Random(_SEED).randbytes
    return ((number, bytes_of(ENTRY_BODY_BYTES)) for number in range(int(os.environ[ENTRIES])))


def _get(path: str) -> Scope:
    return {"type": "http", "method": "GET", "path": path, "raw_path": quote(path).encode("ascii"), "query_string": b"", "headers": []}


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}


async def _nowhere(message: Message) -> None:
    del message


async def _nothing() -> None:
    return None


async def _lifespan(receive: Receive, send: Send, begin: Callable[[], Awaitable[None]] = _nothing) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await begin()
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return
