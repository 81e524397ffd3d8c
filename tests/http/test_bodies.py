"""Request bodies: their pieces, the time that counts, and their limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import Request
from litestar.datastructures import State

from service.errors import BadRequestError, SlowUploadError, TooLargeError
from service.http import bodies
from service.http.bodies import FREE_MESSAGES, MIN_MESSAGE_BYTES, PIECE_BYTES, body_pieces
from tests.support.virtual_time import VirtualTimeLoop

ANY_SIZE = 1 << 30


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Let time pass only while a body is waited for."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


def request(receive: Callable[[], Awaitable[Any]], **headers: str) -> Request[object, object, State]:
    return cast("Request[object, object, State]", SimpleNamespace(receive=receive, headers=headers))


def sent(chunks: Iterable[bytes], *, ends: bool = True) -> Request[object, object, State]:
    """Return a request whose client sends these chunks, and then ends the body or breaks off."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request", "body": b"", "more_body": False} if ends else {"type": "http.disconnect"})
    waiting = iter(messages)

    async def receive() -> Any:
        return next(waiting)

    return request(receive)


async def pieces_of(received: Request[object, object, State], max_bytes: int = ANY_SIZE) -> list[bytes]:
    return [piece async for piece in body_pieces(received, max_bytes)]


@given(st.lists(st.integers(0, 100_000), max_size=40))
def test_body_pieces_are_few_and_join_to_the_body(sizes: list[int]) -> None:
    chunks = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    pieces = anyio.run(pieces_of, sent(chunks))
    assert b"".join(pieces) == b"".join(chunks)
    assert all(len(piece) > PIECE_BYTES for piece in pieces[:-1])
    assert all(pieces)


@pytest.mark.anyio
async def test_body_time_between_two_pieces_does_not_count_against_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(bodies, "MIN_BYTES_PER_SECOND", 1 << 40)
    left = 3

    async def receive() -> Any:
        nonlocal left
        # A server's messages are never there at once, so that a time-out that has passed is noticed.
        await anyio.sleep(0.01)
        left -= 1
        return {"type": "http.request", "body": bytes(PIECE_BYTES + 1), "more_body": left > 0}

    received = 0
    async for piece in body_pieces(request(receive), ANY_SIZE):
        # As a probe takes: longer than the client may take for all of it.
        await anyio.sleep(0.7)
        received += len(piece)
    assert received == 3 * (PIECE_BYTES + 1)


@pytest.mark.anyio
async def test_body_that_stalls_is_408_after_the_grace_period(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "GRACE_SECONDS", 0.05)
    seconds = iter([0.0, 3_600.0])

    async def receive() -> Any:
        await anyio.sleep(next(seconds))
        return {"type": "http.request", "body": bytes(100), "more_body": True}

    with pytest.raises(SlowUploadError) as raised:
        await pieces_of(request(receive))
    assert raised.value.received == "100 bytes in 0 seconds"
    assert raised.value.extra_headers == (("Connection", "close"),)


@pytest.mark.anyio
async def test_body_bytes_extend_the_time_that_the_client_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "GRACE_SECONDS", 0.05)
    monkeypatch.setattr(bodies, "MIN_BYTES_PER_SECOND", 1_000)
    steps = iter([(0.0, bytes(10_000)), (0.2, bytes(1)), (0.0, b"")])

    async def receive() -> Any:
        seconds, chunk = next(steps)
        await anyio.sleep(seconds)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    assert [len(piece) for piece in await pieces_of(request(receive))] == [10_001]


@pytest.mark.anyio
@pytest.mark.parametrize("size", [0, 1, MIN_MESSAGE_BYTES - 1])
async def test_body_in_many_small_chunks_is_400(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    # With as many free messages as in earnest, chunks that are one byte too small exceed the bound after half a million of them.
    monkeypatch.setattr(bodies, "FREE_MESSAGES", 16)
    with pytest.raises(BadRequestError, match="too many small chunks"):
        await pieces_of(sent([bytes(size)] * (16 * (MIN_MESSAGE_BYTES + 1))))


@pytest.mark.anyio
@pytest.mark.parametrize(("size", "count"), [(1, FREE_MESSAGES - 1), (MIN_MESSAGE_BYTES, 20 * FREE_MESSAGES)])
async def test_body_in_a_thousand_small_chunks_or_in_many_segments_is_accepted(size: int, count: int) -> None:
    assert sum(map(len, await pieces_of(sent([bytes(size)] * count)))) == size * count


@pytest.mark.anyio
async def test_incomplete_body_is_400_and_closes_the_connection() -> None:
    with pytest.raises(BadRequestError) as raised:
        await pieces_of(sent([b"abc"], ends=False))
    assert (raised.value.received, raised.value.extra_headers) == ("3 bytes, then something else", (("Connection", "close"),))


@pytest.mark.anyio
async def test_body_with_too_large_a_content_length_is_413_before_a_byte_is_read() -> None:
    async def receive() -> Any:
        raise AssertionError("read")

    with pytest.raises(TooLargeError, match="body is too large"):
        await pieces_of(request(receive, **{"content-length": "101"}), 100)
    with pytest.raises(TooLargeError, match="body is too large"):
        await pieces_of(sent([bytes(60), bytes(60)]), 100)
