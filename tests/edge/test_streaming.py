"""Responses in chunks: streamed if they are for one client or too large, collected if they may be stored."""

from __future__ import annotations

import asyncio
import logging

import pytest

from edge.asgi import ASGIApp, Headers, Message, Receive, Scope, Send
from edge.coalescing import MAX_CONCURRENT_RETRIES
from edge.store import MEMORY_TIER
from edge.streaming import OriginFailedError
from tests.edge.asgi import (
    HANG_SECONDS,
    ChunkedOrigin,
    ClientRequest,
    ClientResponse,
    ManualClock,
    full_response,
    hit,
    http_scope,
    not_stored,
    open_request,
    send_request,
    settle,
    shared_edge,
    stored,
    wait_for_all,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left_behind")]

STATUS = b"cache-status"
PRIVATE = [(b"cache-control", b"private"), (b"content-length", b"10"), (b"etag", b'"one"')]
CHUNKS = [b"01", b"234", b"56789"]
BODY = b"".join(CHUNKS)

# One response may take an eighth of it.
SMALL_EDGE = 80_000
LARGE = [bytes(4_000)] * 5


class Slow(ClientRequest):
    """A client that takes messages only when `takes` is called."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self.may_take = asyncio.Semaphore(0)
        super().__init__(app, scope, [b""])

    async def takes(self, messages: int) -> None:
        """Take so many more messages, and return once nothing can continue without another."""
        for _ in range(messages):
            self.may_take.release()
        await quiet()

    async def _send(self, message: Message) -> None:
        await self.may_take.acquire()
        await super()._send(message)


async def quiet() -> None:
    """Return once nothing can continue without the client."""
    for _ in range(50):
        await asyncio.sleep(0)


def start(headers: Headers, *added: tuple[bytes, bytes], status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [*headers, *added]}


def chunk(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


# Streaming


async def test_private_response_in_chunks_is_forwarded_in_the_same_chunks() -> None:
    origin = ChunkedOrigin(PRIVATE, CHUNKS)
    edge = shared_edge(origin)
    for _ in range(2):
        messages = await open_request(edge).sent_messages()
        assert messages == [start(PRIVATE, (STATUS, not_stored())), *(chunk(body) for body in CHUNKS), chunk(b"", more=False)]
    await origin.finished.wait()
    assert len(origin.requests) == 2
    assert (edge.stored_entries, edge._miss_slots.in_use) == (0, 0)


async def test_private_response_in_chunks_reaches_the_client_before_its_end() -> None:
    step = asyncio.Event()

    async def waits_midway(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start([(b"Cache-Control", b"no-store"), (b"Darkroom-CDN-Cache-Control", b"no-store")]))
        await send(chunk(b"first"))
        await step.wait()
        await send({"type": "http.response.body", "body": b"second"})

    request = open_request(shared_edge(waits_midway))
    await quiet()
    assert request.messages == [start([(b"cache-control", b"no-store")], (STATUS, not_stored())), chunk(b"first")]
    step.set()
    assert (await request.response()).body == b"firstsecond"


async def test_origin_never_runs_ahead_of_a_slow_client() -> None:
    origin = ChunkedOrigin(PRIVATE[:1], [b"%d" % number for number in range(20)])
    client = Slow(shared_edge(origin), http_scope())
    await quiet()
    assert origin.sent <= 1
    for taken in range(20):
        await client.takes(1)
        # One chunk is with the client, and one more waits for it.
        assert origin.sent <= taken + 2
    await client.takes(2)
    assert (await client.response()).body == b"".join(origin.chunks)
    assert origin.sent == 20


async def test_client_that_waits_for_the_origin_gets_the_next_chunk_at_once() -> None:
    origin = ChunkedOrigin(PRIVATE[:1], [b"a", b"b", b"c"])
    client = Slow(shared_edge(origin), http_scope())
    await client.takes(3)
    assert client.messages == [start(PRIVATE[:1], (STATUS, not_stored())), chunk(b"a"), chunk(b"b")]
    await client.takes(2)
    await client.sent_messages()


@pytest.mark.parametrize("length", [[(b"content-length", b"20000")], []])
async def test_response_in_chunks_too_large_to_be_stored_is_streamed(length: Headers) -> None:
    headers = [(b"cache-control", b"max-age=60"), *length]
    origin = ChunkedOrigin(headers, LARGE)
    edge = shared_edge(origin, max_bytes=SMALL_EDGE)
    for _ in range(2):
        response = await send_request(edge)
        assert response == ClientResponse(200, [*headers, (STATUS, not_stored())], bytes(20_000))
    assert edge.stored_entries == 0
    assert len(origin.requests) == 2


async def test_response_in_chunks_that_declares_its_length_is_streamed_from_its_first_chunk() -> None:
    origin = ChunkedOrigin([(b"cache-control", b"max-age=60"), (b"content-length", b"20000")], LARGE)
    client = Slow(shared_edge(origin, max_bytes=SMALL_EDGE), http_scope())
    await client.takes(2)
    assert len(client.messages[1]["body"]) == 4_000
    # One more chunk is with the client, and one waits for it: they are not collected first.
    assert origin.sent <= 3
    await client.takes(10)
    await client.sent_messages()


async def test_stream_occupies_the_place_of_its_client_until_it_ends() -> None:
    edge = shared_edge(ChunkedOrigin(PRIVATE, CHUNKS), max_concurrent_misses=1)
    client = Slow(edge, http_scope())
    await client.takes(2)
    assert (await send_request(edge, "/other")).field(STATUS) == not_stored("/other", word="detail=busy")
    await client.takes(10)
    assert (await client.response()).body == BODY
    await settle(edge)
    assert (await send_request(edge, "/other")).body == BODY


# Disconnects


async def test_stream_whose_leader_disconnects_midway_ends() -> None:
    events: list[str] = []

    async def pauses(scope: Scope, receive: Receive, send: Send) -> None:
        events.append((await receive())["type"])
        await send(start(PRIVATE))
        await send(chunk(b"01"))
        events.append((await receive())["type"])
        # Nobody takes what it still sends, and that must not block it.
        for _ in range(10):
            await send(chunk(b"2"))

    edge = shared_edge(pauses)
    client = open_request(edge)
    await quiet()
    assert events == ["http.request"]
    client.disconnect()
    assert await client.sent_messages() == [start(PRIVATE, (STATUS, not_stored())), chunk(b"01")]
    await settle(edge)
    assert events == ["http.request", "http.disconnect"]
    assert edge._miss_slots.in_use == 0


async def test_stream_whose_leader_disconnects_before_the_first_chunk_ends() -> None:
    origin = ChunkedOrigin(PRIVATE, CHUNKS * 100, held=True)
    edge = shared_edge(origin)
    client = open_request(edge)
    await client.until_waiting()
    client.disconnect()
    assert await client.sent_messages() == []
    assert edge._miss_slots.in_use == 1
    origin.may_respond.set()
    await asyncio.wait_for(origin.finished.wait(), HANG_SECONDS)
    assert origin.events == ["http.request", "http.disconnect"]
    assert origin.sent < 10
    await settle(edge)
    assert edge._miss_slots.in_use == 0


async def test_stream_whose_leaders_task_is_canceled_midway_ends() -> None:
    origin = ChunkedOrigin(PRIVATE, CHUNKS * 100)
    edge = shared_edge(origin)
    client = Slow(edge, http_scope())
    await client.takes(3)
    client.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client.task
    await asyncio.wait_for(origin.finished.wait(), HANG_SECONDS)
    assert origin.events == ["http.request", "http.disconnect"]
    await settle(edge)


async def test_stream_waiters_make_their_own_requests() -> None:
    origin = ChunkedOrigin(PRIVATE, CHUNKS, held=True)
    edge = shared_edge(origin)
    requests = [open_request(edge) for _ in range(3 + MAX_CONCURRENT_RETRIES)]
    await wait_for_all(requests)
    assert len(origin.requests) == 1
    origin.may_respond.set()
    assert [await each.response() for each in requests] == [ClientResponse(200, [*PRIVATE, (STATUS, not_stored())], BODY)] * len(requests)
    assert len(origin.requests) == len(requests)
    await settle(edge)
    assert edge._miss_slots.in_use == 0


async def test_stream_waiters_whose_leader_has_disconnected_make_their_own_requests() -> None:
    origin = ChunkedOrigin(PRIVATE, CHUNKS, held=True)
    edge = shared_edge(origin)
    leader, waiter = open_request(edge), open_request(edge)
    await wait_for_all([leader, waiter])
    leader.disconnect()
    await leader.sent_messages()
    origin.may_respond.set()
    assert (await waiter.response()).body == BODY
    assert len(origin.requests) == 2
    await settle(edge)


async def test_stream_waiters_do_not_wait_for_its_end() -> None:
    edge = shared_edge(ChunkedOrigin(PRIVATE, CHUNKS))
    slow, waiter = Slow(edge, http_scope()), open_request(edge)
    await slow.takes(2)
    assert (await waiter.response()).body == BODY
    assert len(slow.messages) == 2
    await slow.takes(10)
    await slow.sent_messages()


# Failures


async def test_stream_that_fails_midway_raises_to_the_server(caplog: pytest.LogCaptureFixture) -> None:
    origin = ChunkedOrigin(PRIVATE, CHUNKS)
    origin.error = OSError("secret path")
    edge = shared_edge(origin)
    request = open_request(edge)
    with caplog.at_level(logging.ERROR), pytest.raises(OriginFailedError, match="the origin failed in the middle of its response"):
        await request.sent_messages()
    # The client notices that the response is cut off, because its end never comes.
    assert request.messages == [start(PRIVATE, (STATUS, not_stored())), *(chunk(body) for body in CHUNKS)]
    assert [record.getMessage() for record in caplog.records] == ["the application failed"]
    await settle(edge)
    assert edge._miss_slots.in_use == 0


async def test_stream_that_the_origin_leaves_unfinished_raises_to_the_server() -> None:
    async def unfinished(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(PRIVATE))
        await send(chunk(b"01"))

    request = open_request(shared_edge(unfinished))
    with pytest.raises(OriginFailedError):
        await request.sent_messages()
    assert request.messages == [start(PRIVATE, (STATUS, not_stored())), chunk(b"01")]


async def test_stream_that_fails_after_its_client_has_disconnected_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    step = asyncio.Event()

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(PRIVATE))
        await send(chunk(b"01"))
        await step.wait()
        raise OSError("secret path")

    edge = shared_edge(fails)
    request = open_request(edge)
    await quiet()
    request.disconnect()
    await request.sent_messages()
    step.set()
    with caplog.at_level(logging.ERROR):
        await settle(edge)
    assert [record.getMessage() for record in caplog.records] == ["the application failed"]


async def test_collected_response_that_fails_midway_is_500() -> None:
    origin = ChunkedOrigin([(b"cache-control", b"max-age=60")], CHUNKS)
    origin.error = OSError("secret path")
    edge = shared_edge(origin)
    assert (await send_request(edge)).status == 500
    assert edge.stored_entries == 0


async def test_stream_of_an_error_is_replaced_by_the_stale_response(clock: ManualClock) -> None:
    stored_response = full_response(b"max-age=60, stale-if-error=600")
    origin = ChunkedOrigin(stored_response.headers, [b"picture"])
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 70
    origin.status, origin.headers, origin.chunks, origin.events = 503, [(b"cache-control", b"no-store")], CHUNKS * 100, []
    origin.finished.clear()
    cache_status = b'darkroom; fwd=stale; fwd-status=503; ttl=-10; detail=stale-if-error; key="/i/picture"'
    assert await send_request(edge) == ClientResponse(200, [*stored_response.headers, (b"age", b"70"), (STATUS, cache_status)], b"picture")
    await asyncio.wait_for(origin.finished.wait(), HANG_SECONDS)
    assert origin.events == ["http.request", "http.disconnect"]
    await settle(edge)


async def test_stream_in_response_to_a_revalidation_is_canceled_and_removes_the_stored_response(clock: ManualClock) -> None:
    stored_response = full_response(b"max-age=60, stale-while-revalidate=30")
    origin = ChunkedOrigin(stored_response.headers, [b"picture"])
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 65
    origin.headers, origin.chunks, origin.events = PRIVATE, CHUNKS * 100, []
    origin.finished.clear()
    assert (await send_request(edge)).field(STATUS) == hit(-5)
    await asyncio.wait_for(origin.finished.wait(), HANG_SECONDS)
    assert origin.events == ["http.request", "http.disconnect"]
    await settle(edge)
    assert (edge.stored_entries, edge._miss_slots.in_use) == (0, 0)


# HEAD, ranges and conditions


async def test_head_of_a_stream_has_its_headers_and_cancels_it() -> None:
    origin = ChunkedOrigin(PRIVATE, CHUNKS * 100)
    edge = shared_edge(origin)
    assert await send_request(edge, method="HEAD") == ClientResponse(200, [*PRIVATE, (STATUS, not_stored())], b"")
    await asyncio.wait_for(origin.finished.wait(), HANG_SECONDS)
    assert [scope["method"] for scope in origin.requests] == ["GET"]
    assert origin.events == ["http.request", "http.disconnect"]
    await settle(edge)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_stream_that_matches_the_clients_copy_is_304_and_canceled(method: str) -> None:
    origin = ChunkedOrigin(PRIVATE, CHUNKS * 100)
    edge = shared_edge(origin)
    response = await send_request(edge, method=method, headers=[(b"if-none-match", b'"one"')])
    assert response == ClientResponse(304, [(b"cache-control", b"private"), (b"etag", b'"one"'), (STATUS, not_stored())], b"")
    await asyncio.wait_for(origin.finished.wait(), HANG_SECONDS)
    assert origin.events == ["http.request", "http.disconnect"]
    await settle(edge)


async def test_stream_whose_precondition_is_false_is_412_and_canceled() -> None:
    origin = ChunkedOrigin(PRIVATE, CHUNKS * 100)
    edge = shared_edge(origin)
    response = await send_request(edge, headers=[(b"if-match", b'"two"')])
    assert (response.status, response.field(b"content-type")) == (412, b"application/problem+json")
    await asyncio.wait_for(origin.finished.wait(), HANG_SECONDS)
    await settle(edge)


@pytest.mark.parametrize("value", [b"bytes=0-1", b"bytes=99-", b"bytes=-1"])
async def test_range_of_a_stream_gets_the_whole(value: bytes) -> None:
    edge = shared_edge(ChunkedOrigin(PRIVATE, CHUNKS))
    response = await send_request(edge, headers=[(b"range", value)])
    assert response == ClientResponse(200, [*PRIVATE, (STATUS, not_stored())], BODY)
    await settle(edge)


@pytest.mark.parametrize("status", [404, 500])
async def test_conditions_on_a_stream_other_than_200_are_ignored(status: int) -> None:
    edge = shared_edge(ChunkedOrigin(PRIVATE, CHUNKS, status=status))
    response = await send_request(edge, headers=[(b"if-none-match", b'"one"'), (b"if-match", b'"two"')])
    assert response == ClientResponse(status, [*PRIVATE, (STATUS, not_stored())], BODY)
    await settle(edge)


# Collecting


async def test_small_storable_response_in_chunks_is_collected() -> None:
    headers = [(b"cache-control", b"max-age=60")]
    origin = ChunkedOrigin(headers, CHUNKS, held=True)
    edge = shared_edge(origin)
    requests = [open_request(edge) for _ in range(3)]
    await wait_for_all(requests)
    origin.may_respond.set()
    of_whole = [(b"content-length", b"10"), (b"accept-ranges", b"bytes")]
    leader, *waiters = [await each.sent_messages() for each in requests]
    assert leader == [start(headers, *of_whole, (STATUS, stored())), {"type": "http.response.body", "body": BODY}]
    assert [messages[1] for messages in waiters] == [leader[1]] * 2
    assert await send_request(edge) == ClientResponse(200, [*headers, *of_whole, (b"age", b"0"), (STATUS, hit(60)), MEMORY_TIER], BODY)
    assert len(origin.requests) == 1


async def test_small_response_in_chunks_is_collected_after_its_clients_have_disconnected() -> None:
    origin = ChunkedOrigin([(b"cache-control", b"max-age=60")], CHUNKS, held=True)
    edge = shared_edge(origin)
    client = open_request(edge)
    await client.until_waiting()
    client.disconnect()
    await client.sent_messages()
    origin.may_respond.set()
    await settle(edge)
    assert origin.events == ["http.request", "http.disconnect"]
    assert origin.sent == len(CHUNKS)
    assert (await send_request(edge)).field(STATUS) == hit(60)


async def test_private_response_in_one_chunk_that_is_shorter_than_declared_is_500() -> None:
    assert (await send_request(shared_edge(ChunkedOrigin(PRIVATE, [])))).status == 500
