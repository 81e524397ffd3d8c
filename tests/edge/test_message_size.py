"""Large bodies are sent in messages of the size that the server around the edge wants, and are the same bytes."""

from __future__ import annotations

import pytest

from edge import Edge
from edge.asgi import Message, Receive, Scope, Send

pytestmark = pytest.mark.anyio

CHUNK = 10_000
LARGE = bytes(range(256)) * 400
SMALL = b"s" * 32_768


def edge_over(body: bytes, cache_control: bytes, sizes: list[int] | None = None, *, bypass_paths: tuple[str, ...] = ()) -> Edge:
    """Return an edge whose server wants messages of `CHUNK` bytes. The sizes of large bodies are appended to `sizes`."""

    async def origin(scope: Scope, receive: Receive, send: Send) -> None:
        fields = [(b"content-length", b"%d" % len(body)), (b"cache-control", cache_control), (b"etag", b'"one"')]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    def max_message_bytes(scope: Scope, size: int) -> int:
        assert scope["client"] == ("192.0.2.1", 1)
        if sizes is not None:
            sizes.append(size)
        return CHUNK

    return Edge(
        origin, name="edge", max_bytes=10_000_000, max_concurrent_misses=10, bypass_paths=bypass_paths, max_message_bytes=max_message_bytes
    )


async def messages(edge: Edge, *headers: tuple[bytes, bytes]) -> list[Message]:
    """Return the messages of the body in response to a GET."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/one", "raw_path": b"/one", "query_string": b"", "headers": list(headers)}
    await edge({**scope, "client": ("192.0.2.1", 1)}, receive, send)
    return sent


def check(sent: list[Message], body: bytes) -> None:
    assert b"".join(message["body"] for message in sent) == body
    assert max(len(message["body"]) for message in sent) <= CHUNK
    assert [bool(message.get("more_body")) for message in sent] == [True] * (len(sent) - 1) + [False]


async def test_messages_of_a_miss_and_of_a_hit_are_the_whole_body() -> None:
    sizes: list[int] = []
    edge = edge_over(LARGE, b"max-age=60", sizes)
    for _ in range(2):
        check(await messages(edge), LARGE)
    assert sizes == [len(LARGE)] * 2


async def test_messages_of_a_range_are_the_range() -> None:
    edge = edge_over(LARGE, b"max-age=60")
    await messages(edge)
    check(await messages(edge, (b"range", b"bytes=1000-60999")), LARGE[1_000:61_000])


@pytest.mark.parametrize("cache_control", [b"no-store", b"private"])
async def test_messages_of_a_response_that_is_not_stored_are_the_whole_body(cache_control: bytes) -> None:
    check(await messages(edge_over(LARGE, cache_control)), LARGE)


async def test_messages_of_a_bypassed_response_are_the_whole_body() -> None:
    check(await messages(edge_over(LARGE, b"no-store", bypass_paths=("/one",))), LARGE)


async def test_small_body_is_one_message_whatever_the_server_wants() -> None:
    sizes: list[int] = []
    edge = edge_over(SMALL, b"max-age=60", sizes)
    for _ in range(2):
        assert await messages(edge) == [{"type": "http.response.body", "body": SMALL}]
    assert sizes == []
