"""Answers in pieces: handed on as they come where others may not have them or they are too large, collected where they may be kept."""

from __future__ import annotations

import asyncio
import logging

import pytest

from edge.asgi import ASGIApp, Headers, Message, Receive, Scope, Send
from edge.coalescing import MAX_CONCURRENT_RETRIES
from edge.store import MEMORY_TIER
from edge.streaming import OriginFailedError
from tests.edge.asgi import (
    Clock,
    Pieces,
    Reply,
    Visit,
    all_wait,
    ask,
    hit,
    http_scope,
    settled,
    shared_edge,
    stored,
    unkept,
    visit,
    whole,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left_behind")]

STATUS = b"cache-status"
PRIVATE = [(b"cache-control", b"private"), (b"content-length", b"10"), (b"etag", b'"one"')]
PIECES = [b"01", b"234", b"56789"]
BODY = b"".join(PIECES)

# One eighth of it is the most that one answer may take.
SMALL_EDGE = 80_000
LARGE = [bytes(4_000)] * 5


class Slow(Visit):
    """A client that takes a message when it is told to."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self.may_take = asyncio.Semaphore(0)
        super().__init__(app, scope, [b""])

    async def takes(self, messages: int) -> None:
        """Take so many messages more, and return when nothing goes on any more without another."""
        for _ in range(messages):
            self.may_take.release()
        await quiet()

    async def _send(self, message: Message) -> None:
        await self.may_take.acquire()
        await super()._send(message)


async def quiet() -> None:
    """Return once everything that can go on without a client has."""
    for _ in range(50):
        await asyncio.sleep(0)


def start(headers: Headers, *told: tuple[bytes, bytes], status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [*headers, *told]}


def piece(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


# Handed on as it comes


async def test_private_answer_in_pieces_is_sent_on_in_the_same_pieces() -> None:
    origin = Pieces(PRIVATE, PIECES)
    edge = shared_edge(origin)
    for _ in range(2):
        messages = await visit(edge).over()
        assert messages == [start(PRIVATE, (STATUS, unkept())), *(piece(body) for body in PIECES), piece(b"", more=False)]
    await origin.over.wait()
    assert len(origin.requests) == 2
    assert (edge.stored_entries, edge._concurrent_misses) == (0, 0)


async def test_private_answer_in_pieces_reaches_the_client_before_its_end() -> None:
    step = asyncio.Event()

    async def waits_midway(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start([(b"Cache-Control", b"no-store"), (b"Darkroom-CDN-Cache-Control", b"no-store")]))
        await send(piece(b"first"))
        await step.wait()
        await send({"type": "http.response.body", "body": b"second"})

    request = visit(shared_edge(waits_midway))
    await quiet()
    assert request.messages == [start([(b"cache-control", b"no-store")], (STATUS, unkept())), piece(b"first")]
    step.set()
    assert (await request.reply()).body == b"firstsecond"


async def test_origin_never_runs_ahead_of_a_slow_client() -> None:
    origin = Pieces(PRIVATE[:1], [b"%d" % number for number in range(20)])
    client = Slow(shared_edge(origin), http_scope())
    await quiet()
    assert origin.sent <= 1
    for taken in range(20):
        await client.takes(1)
        # One piece is with the client, one more waits for it.
        assert origin.sent <= taken + 2
    await client.takes(2)
    assert (await client.reply()).body == b"".join(origin.pieces)
    assert origin.sent == 20


async def test_client_that_waits_for_the_origin_has_the_next_piece_at_once() -> None:
    origin = Pieces(PRIVATE[:1], [b"a", b"b", b"c"])
    client = Slow(shared_edge(origin), http_scope())
    await client.takes(3)
    assert client.messages == [start(PRIVATE[:1], (STATUS, unkept())), piece(b"a"), piece(b"b")]
    await client.takes(2)
    await client.over()


@pytest.mark.parametrize("length", [[(b"content-length", b"20000")], []])
async def test_answer_in_pieces_too_large_to_be_kept_is_sent_on_and_not_kept(length: Headers) -> None:
    headers = [(b"cache-control", b"max-age=60"), *length]
    origin = Pieces(headers, LARGE)
    edge = shared_edge(origin, max_bytes=SMALL_EDGE)
    for _ in range(2):
        reply = await ask(edge)
        assert reply == Reply(200, [*headers, (STATUS, unkept())], bytes(20_000))
    assert edge.stored_entries == 0
    assert len(origin.requests) == 2


async def test_answer_that_says_how_large_it_is_is_sent_on_from_its_first_piece() -> None:
    origin = Pieces([(b"cache-control", b"max-age=60"), (b"content-length", b"20000")], LARGE)
    client = Slow(shared_edge(origin, max_bytes=SMALL_EDGE), http_scope())
    await client.takes(2)
    assert len(client.messages[1]["body"]) == 4_000
    # One piece more is with the client, one waits for it: they are not collected first.
    assert origin.sent <= 3
    await client.takes(10)
    await client.over()


async def test_stream_holds_the_place_of_its_client_until_it_ends() -> None:
    edge = shared_edge(Pieces(PRIVATE, PIECES), max_concurrent_misses=1)
    client = Slow(edge, http_scope())
    await client.takes(2)
    assert (await ask(edge, "/other")).field(STATUS) == unkept("/other", word="detail=busy")
    await client.takes(10)
    assert (await client.reply()).body == BODY
    await settled(edge)
    assert (await ask(edge, "/other")).body == BODY


# Leaving


async def test_leader_that_leaves_midway_ends_the_stream() -> None:
    events: list[str] = []

    async def pauses(scope: Scope, receive: Receive, send: Send) -> None:
        events.append((await receive())["type"])
        await send(start(PRIVATE))
        await send(piece(b"01"))
        events.append((await receive())["type"])
        # What it sends still is for nobody, and must not hold it up.
        for _ in range(10):
            await send(piece(b"2"))

    edge = shared_edge(pauses)
    client = visit(edge)
    await quiet()
    assert events == ["http.request"]
    client.leave()
    assert await client.over() == [start(PRIVATE, (STATUS, unkept())), piece(b"01")]
    await settled(edge)
    assert events == ["http.request", "http.disconnect"]
    assert edge._concurrent_misses == 0


async def test_leader_that_leaves_before_the_first_piece_ends_the_stream() -> None:
    origin = Pieces(PRIVATE, PIECES * 100, held=True)
    edge = shared_edge(origin)
    client = visit(edge)
    await client.waits()
    client.leave()
    assert await client.over() == []
    assert edge._concurrent_misses == 1
    origin.may_answer.set()
    await asyncio.wait_for(origin.over.wait(), 10)
    assert origin.events == ["http.request", "http.disconnect"]
    assert origin.sent < 10
    await settled(edge)
    assert edge._concurrent_misses == 0


async def test_leader_whose_task_is_cancelled_midway_ends_the_stream() -> None:
    origin = Pieces(PRIVATE, PIECES * 100)
    edge = shared_edge(origin)
    client = Slow(edge, http_scope())
    await client.takes(3)
    client.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client.task
    await asyncio.wait_for(origin.over.wait(), 10)
    assert origin.events == ["http.request", "http.disconnect"]
    await settled(edge)


async def test_waiters_of_a_stream_ask_for_themselves() -> None:
    origin = Pieces(PRIVATE, PIECES, held=True)
    edge = shared_edge(origin)
    visits = [visit(edge) for _ in range(3 + MAX_CONCURRENT_RETRIES)]
    await all_wait(visits)
    assert len(origin.requests) == 1
    origin.may_answer.set()
    assert [await each.reply() for each in visits] == [Reply(200, [*PRIVATE, (STATUS, unkept())], BODY)] * len(visits)
    assert len(origin.requests) == len(visits)
    await settled(edge)
    assert edge._concurrent_misses == 0


async def test_waiters_of_a_stream_whose_leader_has_left_ask_for_themselves() -> None:
    origin = Pieces(PRIVATE, PIECES, held=True)
    edge = shared_edge(origin)
    leader, waiter = visit(edge), visit(edge)
    await all_wait([leader, waiter])
    leader.leave()
    await leader.over()
    origin.may_answer.set()
    assert (await waiter.reply()).body == BODY
    assert len(origin.requests) == 2
    await settled(edge)


async def test_waiters_of_a_stream_do_not_wait_for_its_end() -> None:
    edge = shared_edge(Pieces(PRIVATE, PIECES))
    slow, waiter = Slow(edge, http_scope()), visit(edge)
    await slow.takes(2)
    assert (await waiter.reply()).body == BODY
    assert len(slow.messages) == 2
    await slow.takes(10)
    await slow.over()


# Failing


async def test_stream_that_fails_midway_raises_to_the_server(caplog: pytest.LogCaptureFixture) -> None:
    origin = Pieces(PRIVATE, PIECES)
    origin.error = OSError("secret path")
    edge = shared_edge(origin)
    request = visit(edge)
    with caplog.at_level(logging.ERROR), pytest.raises(OriginFailedError, match="the origin failed in the middle of its response"):
        await request.over()
    # The client sees that the answer is cut off: its end never comes.
    assert request.messages == [start(PRIVATE, (STATUS, unkept())), *(piece(body) for body in PIECES)]
    assert [record.getMessage() for record in caplog.records] == ["the application failed"]
    await settled(edge)
    assert edge._concurrent_misses == 0


async def test_stream_that_the_origin_leaves_unfinished_raises_to_the_server() -> None:
    async def unfinished(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(PRIVATE))
        await send(piece(b"01"))

    request = visit(shared_edge(unfinished))
    with pytest.raises(OriginFailedError):
        await request.over()
    assert request.messages == [start(PRIVATE, (STATUS, unkept())), piece(b"01")]


async def test_stream_that_fails_when_its_client_has_left_is_logged_alone(caplog: pytest.LogCaptureFixture) -> None:
    step = asyncio.Event()

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(PRIVATE))
        await send(piece(b"01"))
        await step.wait()
        raise OSError("secret path")

    edge = shared_edge(fails)
    request = visit(edge)
    await quiet()
    request.leave()
    await request.over()
    step.set()
    with caplog.at_level(logging.ERROR):
        await settled(edge)
    assert [record.getMessage() for record in caplog.records] == ["the application failed"]


async def test_collected_answer_that_fails_midway_is_500() -> None:
    origin = Pieces([(b"cache-control", b"max-age=60")], PIECES)
    origin.error = OSError("secret path")
    edge = shared_edge(origin)
    assert (await ask(edge)).status == 500
    assert edge.stored_entries == 0


async def test_stream_of_an_error_gives_way_to_the_stale_answer(clock: Clock) -> None:
    kept = whole(b"max-age=60, stale-if-error=600")
    origin = Pieces(kept.headers, [b"picture"])
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 70
    origin.status, origin.headers, origin.pieces, origin.events = 503, [(b"cache-control", b"no-store")], PIECES * 100, []
    origin.over.clear()
    told = b'darkroom; fwd=stale; fwd-status=503; ttl=-10; detail=stale-if-error; key="/i/picture"'
    assert await ask(edge) == Reply(200, [*kept.headers, (b"age", b"70"), (STATUS, told)], b"picture")
    await asyncio.wait_for(origin.over.wait(), 10)
    assert origin.events == ["http.request", "http.disconnect"]
    await settled(edge)


async def test_stream_that_comes_for_a_renewal_is_ended_and_drops_what_was_kept(clock: Clock) -> None:
    kept = whole(b"max-age=60, stale-while-revalidate=30")
    origin = Pieces(kept.headers, [b"picture"])
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 65
    origin.headers, origin.pieces, origin.events = PRIVATE, PIECES * 100, []
    origin.over.clear()
    assert (await ask(edge)).field(STATUS) == hit(-5)
    await asyncio.wait_for(origin.over.wait(), 10)
    assert origin.events == ["http.request", "http.disconnect"]
    await settled(edge)
    assert (edge.stored_entries, edge._concurrent_misses) == (0, 0)


# What a client gets that asks for less than the whole


async def test_head_of_a_stream_has_its_fields_and_ends_it() -> None:
    origin = Pieces(PRIVATE, PIECES * 100)
    edge = shared_edge(origin)
    assert await ask(edge, method="HEAD") == Reply(200, [*PRIVATE, (STATUS, unkept())], b"")
    await asyncio.wait_for(origin.over.wait(), 10)
    assert [scope["method"] for scope in origin.requests] == ["GET"]
    assert origin.events == ["http.request", "http.disconnect"]
    await settled(edge)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_stream_that_the_client_has_already_is_304_and_ends(method: str) -> None:
    origin = Pieces(PRIVATE, PIECES * 100)
    edge = shared_edge(origin)
    reply = await ask(edge, method=method, headers=[(b"if-none-match", b'"one"')])
    assert reply == Reply(304, [(b"cache-control", b"private"), (b"etag", b'"one"'), (STATUS, unkept())], b"")
    await asyncio.wait_for(origin.over.wait(), 10)
    assert origin.events == ["http.request", "http.disconnect"]
    await settled(edge)


async def test_stream_whose_precondition_fails_is_412_and_ends() -> None:
    origin = Pieces(PRIVATE, PIECES * 100)
    edge = shared_edge(origin)
    reply = await ask(edge, headers=[(b"if-match", b'"two"')])
    assert (reply.status, reply.field(b"content-type")) == (412, b"application/problem+json")
    await asyncio.wait_for(origin.over.wait(), 10)
    await settled(edge)


@pytest.mark.parametrize("value", [b"bytes=0-1", b"bytes=99-", b"bytes=-1"])
async def test_range_of_a_stream_gets_the_whole(value: bytes) -> None:
    edge = shared_edge(Pieces(PRIVATE, PIECES))
    reply = await ask(edge, headers=[(b"range", value)])
    assert reply == Reply(200, [*PRIVATE, (STATUS, unkept())], BODY)
    await settled(edge)


@pytest.mark.parametrize("status", [404, 500])
async def test_conditions_on_a_stream_that_is_no_200_are_ignored(status: int) -> None:
    edge = shared_edge(Pieces(PRIVATE, PIECES, status=status))
    reply = await ask(edge, headers=[(b"if-none-match", b'"one"'), (b"if-match", b'"two"')])
    assert reply == Reply(status, [*PRIVATE, (STATUS, unkept())], BODY)
    await settled(edge)


# Collected


async def test_small_answer_in_pieces_that_may_be_kept_is_collected() -> None:
    headers = [(b"cache-control", b"max-age=60")]
    origin = Pieces(headers, PIECES, held=True)
    edge = shared_edge(origin)
    visits = [visit(edge) for _ in range(3)]
    await all_wait(visits)
    origin.may_answer.set()
    of_whole = [(b"content-length", b"10"), (b"accept-ranges", b"bytes")]
    leader, *waiters = [await each.over() for each in visits]
    assert leader == [start(headers, *of_whole, (STATUS, stored())), {"type": "http.response.body", "body": BODY}]
    assert [messages[1] for messages in waiters] == [leader[1]] * 2
    assert await ask(edge) == Reply(200, [*headers, *of_whole, (b"age", b"0"), (STATUS, hit(60)), MEMORY_TIER], BODY)
    assert len(origin.requests) == 1


async def test_small_answer_in_pieces_is_collected_though_its_clients_leave() -> None:
    origin = Pieces([(b"cache-control", b"max-age=60")], PIECES, held=True)
    edge = shared_edge(origin)
    client = visit(edge)
    await client.waits()
    client.leave()
    await client.over()
    origin.may_answer.set()
    await settled(edge)
    assert origin.events == ["http.request", "http.disconnect"]
    assert origin.sent == len(PIECES)
    assert (await ask(edge)).field(STATUS) == hit(60)


async def test_answer_in_one_piece_that_is_shorter_than_it_says_is_500_though_it_is_private() -> None:
    assert (await ask(shared_edge(Pieces(PRIVATE, [])))).status == 500
