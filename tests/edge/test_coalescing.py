"""One origin request for many waiting clients: who waits, who leaves, what they share."""

from __future__ import annotations

import asyncio
import logging

import pytest

from edge import Edge
from edge.asgi import Message, Response
from edge.coalescing import MAX_CONCURRENT_RETRIES
from tests.edge.asgi import (
    RENDITION,
    Clock,
    Origin,
    Reply,
    Visit,
    all_wait,
    ask,
    collapsed,
    failed,
    hit,
    http_scope,
    shared_edge,
    stored,
    unkept,
    visit,
    whole,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left_behind")]

OWN = b"darkroom-cdn-cache-control"

# A failed render as the service answers it: nobody keeps it, the clients that wait may share it.
MOMENTARY = Response(
    503, [(b"cache-control", b"no-store"), (OWN, b"max-age=1"), (b"retry-after", b"5"), (b"content-length", b"9")], b"try again"
)

# For the client that asked and no other.
PRIVATE = Response(200, [(b"cache-control", b"private, max-age=60"), (b"content-length", b"5"), (b"accept-ranges", b"bytes")], b"yours")


def edge_of(origin: Origin, *, max_concurrent_misses: int = 1_000) -> Edge:
    return Edge(
        origin,
        name="Darkroom",
        max_bytes=1_000_000,
        max_concurrent_misses=max_concurrent_misses,
        key_includes_host=False,
        clock=lambda: 0.0,
    )


async def gather(origin: Origin, edge: Edge, number: int) -> list[Visit]:
    """Return that many clients that wait for one answer of a held origin, the leader first."""
    visits = [visit(edge) for _ in range(number)]
    await all_wait(visits)
    assert len(origin.requests) == 1
    return visits


async def replies(visits: list[Visit]) -> list[Reply]:
    return [await each.reply() for each in visits]


# Sharing


async def test_collapse_200_clients_at_once_are_one_origin_request() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    visits = await gather(origin, edge, 200)
    await origin.release()
    leader, *waiters = await replies(visits)
    assert len(origin.requests) == 1
    assert leader == Reply(200, [*RENDITION.headers, (b"cache-status", stored())], b"picture")
    shared = Reply(200, [*RENDITION.headers, (b"cache-status", collapsed())], b"picture")
    assert waiters == [shared] * 199
    assert (await ask(edge)).field(b"cache-status") == hit(60)


async def test_collapse_different_keys_are_origin_requests_of_their_own() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    visits = [visit(edge, "/a"), visit(edge, "/b"), visit(edge, "/a", query=b"x")]
    await all_wait(visits)
    assert len(origin.requests) == 3
    await origin.release()
    assert [reply.field(b"cache-status") for reply in await replies(visits)] == [stored(key=key) for key in ("/a", "/b", "/a?x")]


async def test_collapse_head_and_conditional_clients_each_get_what_they_asked_for() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    visits = [visit(edge, method="HEAD"), visit(edge), visit(edge, headers=[(b"if-none-match", b'"k5x7q2"')])]
    await all_wait(visits)
    await origin.release()
    head, full, conditional = await replies(visits)
    assert (head.status, head.body) == (200, b"")
    assert (full.status, full.body) == (200, b"picture")
    assert (conditional.status, conditional.body) == (304, b"")
    assert len(origin.requests) == 1
    assert origin.requests[0]["method"] == "GET"


async def test_collapse_momentary_answer_is_shared_and_not_kept() -> None:
    origin = Origin(MOMENTARY, held=True)
    edge = edge_of(origin)
    visits = await gather(origin, edge, 20)
    await origin.release()
    leader, *waiters = await replies(visits)
    assert len(origin.requests) == 1
    told = [(b"cache-control", b"no-store"), (b"retry-after", b"5"), (b"content-length", b"9")]
    assert leader == Reply(503, [*told, (b"cache-status", unkept())], b"try again")
    assert waiters == [Reply(503, [*told, (b"cache-status", unkept(word="collapsed"))], b"try again")] * 19
    origin.answer = RENDITION
    assert (await ask(edge)).field(b"cache-status") == stored()
    assert len(origin.requests) == 2


async def test_collapse_private_answer_releases_waiters_a_few_at_a_time() -> None:
    origin = Origin(PRIVATE, held=True)
    edge = edge_of(origin)
    waiters = 3 * MAX_CONCURRENT_RETRIES + 1
    visits = await gather(origin, edge, 1 + waiters)
    assert origin.most_at_once == 1
    await origin.release(first=1)
    await visits[0].reply()
    await origin.asked(1 + MAX_CONCURRENT_RETRIES)
    for _ in range(10):
        await asyncio.sleep(0)
    assert origin.at_once == MAX_CONCURRENT_RETRIES
    await origin.release()
    answered = await replies(visits)
    assert answered == [Reply(200, [*PRIVATE.headers, (b"cache-status", unkept())], b"yours")] * (1 + waiters)
    assert len(origin.requests) == 1 + waiters
    assert origin.most_at_once == MAX_CONCURRENT_RETRIES == 8


async def test_collapse_private_answers_are_made_for_each_client_from_its_own_request() -> None:
    origin = Origin(PRIVATE, held=True)
    edge = edge_of(origin)
    visits = [visit(edge, headers=[(b"cookie", b"client=%d" % number)]) for number in range(20)]
    await all_wait(visits)
    await origin.release()
    await replies(visits)
    cookies = [value for scope in origin.requests for name, value in scope["headers"] if name == b"cookie"]
    assert sorted(cookies) == sorted(b"client=%d" % number for number in range(20))


async def test_collapse_answer_that_may_be_kept_after_a_private_one_is_stored_by_a_released_waiter() -> None:
    origin = Origin(PRIVATE, held=True)
    edge = edge_of(origin)
    visits = await gather(origin, edge, 2)
    await origin.release(first=1)
    await visits[0].reply()
    origin.answer = RENDITION
    await origin.release()
    assert (await visits[1].reply()).field(b"cache-status") == stored()


# Leaving


async def test_collapse_leader_that_leaves_harms_nobody() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    leader, *waiters = await gather(origin, edge, 20)
    leader.leave()
    assert await leader.over() == []
    await origin.release()
    assert [reply.body for reply in await replies(waiters)] == [b"picture"] * 19
    assert len(origin.requests) == 1
    assert (await ask(edge)).field(b"cache-status") == hit(60)


async def test_collapse_waiter_that_leaves_harms_nobody() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    leader, gone, waiter = await gather(origin, edge, 3)
    gone.leave()
    assert await gone.over() == []
    await origin.release()
    assert [reply.body for reply in await replies([leader, waiter])] == [b"picture"] * 2
    assert len(origin.requests) == 1


async def test_collapse_when_all_leave_the_answer_is_still_fetched_and_kept() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    visits = await gather(origin, edge, 5)
    for each in visits:
        each.leave()
    assert [await each.over() for each in visits] == [[]] * 5
    (task,) = edge._origin._tasks
    await origin.release()
    await task
    assert (await ask(edge)).field(b"cache-status") == hit(60)
    assert len(origin.requests) == 1


async def test_collapse_client_that_comes_after_all_have_left_joins_the_same_request() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    leader = visit(edge)
    await leader.waits()
    leader.leave()
    await leader.over()
    late = visit(edge)
    await late.waits()
    await origin.release()
    assert (await late.reply()).field(b"cache-status") == collapsed()
    assert len(origin.requests) == 1


async def test_collapse_clients_that_leave_free_their_places() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin, max_concurrent_misses=2)
    visits = await gather(origin, edge, 2)
    assert (await ask(edge)).status == 503
    visits[0].leave()
    await visits[0].over()
    third = visit(edge)
    await third.waits()
    await origin.release()
    assert [reply.status for reply in await replies([visits[1], third])] == [200, 200]
    assert edge._concurrent_misses == 0


async def test_collapse_request_that_all_have_left_keeps_one_place_until_it_ends() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin, max_concurrent_misses=2)
    for each in await gather(origin, edge, 2):
        each.leave()
        assert await each.over() == []
    other = visit(edge, "/other")
    await other.waits()
    assert (await ask(edge, "/third")).field(b"cache-status") == unkept("/third", word="detail=busy")
    await origin.release()
    assert (await other.reply()).field(b"cache-status") == stored(key="/other")
    await asyncio.gather(*edge._origin._tasks)
    assert edge._concurrent_misses == 0
    assert (await ask(edge, "/third")).field(b"cache-status") == stored(key="/third")


async def test_collapse_client_that_leaves_in_the_moment_of_the_answer_is_answered() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    leaving = visit(edge)
    await leaving.waits()
    await origin.release()
    (fetch,) = edge._origin._in_flight._all
    fetch.completed.add_done_callback(lambda _: leaving.leave())
    assert (await leaving.reply()).body == b"picture"


async def test_collapse_released_waiter_that_has_left_is_not_asked_for() -> None:
    origin = Origin(PRIVATE, held=True)
    edge = edge_of(origin)
    visits = await gather(origin, edge, 1 + MAX_CONCURRENT_RETRIES + 5)
    await origin.release(first=1)
    await visits[0].reply()
    await origin.asked(1 + MAX_CONCURRENT_RETRIES)
    # The first ones are at the origin, the last five queue behind them.
    for queued in visits[-5:]:
        queued.leave()
    for _ in range(3):
        await asyncio.sleep(0)
    await origin.release()
    assert [await queued.over() for queued in visits[-5:]] == [[]] * 5
    await replies(visits[:-5])
    assert len(origin.requests) == 1 + MAX_CONCURRENT_RETRIES


@pytest.mark.parametrize("leads", [True, False])
async def test_collapse_client_whose_task_is_cancelled_harms_nobody(leads: bool) -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    visits = await gather(origin, edge, 3)
    cancelled = visits.pop(0 if leads else 1)
    cancelled.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled.task
    await origin.release()
    assert [reply.body for reply in await replies(visits)] == [b"picture"] * 2
    assert len(origin.requests) == 1
    assert edge._concurrent_misses == 0


async def test_collapse_client_that_cannot_be_read_from_fails_alone() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)

    async def receive() -> Message:
        raise OSError("connection reset")

    async def send(message: Message) -> None:
        raise AssertionError("there is nobody to send to")

    waiter, *_ = await gather(origin, edge, 1)
    with pytest.raises(OSError, match="connection reset"):
        await edge(http_scope("/i/picture"), receive, send)
    await origin.release()
    assert (await waiter.reply()).body == b"picture"


async def test_collapse_client_that_sends_a_body_with_its_get_still_waits() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    talker = visit(edge, chunks=[b"a", b"b", b"c"])
    await talker.waits()
    await origin.release()
    assert (await talker.reply()).body == b"picture"
    assert origin.bodies == [[b""]]


# Failing


async def test_collapse_origin_that_raises_gives_all_the_same_error_and_the_next_a_fresh_try(caplog: pytest.LogCaptureFixture) -> None:
    origin = Origin(held=True)
    origin.error = ValueError("secret detail")
    edge = edge_of(origin)
    visits = await gather(origin, edge, 50)
    with caplog.at_level(logging.ERROR):
        await origin.release()
        leader, *waiters = await replies(visits)
    assert leader == failed(unkept())
    assert waiters == [failed(unkept(word="collapsed"))] * 49
    assert len(origin.requests) == 1
    # Told once, not once for each client, and with its cause.
    (record,) = caplog.records
    assert record.getMessage() == "the application failed"
    assert record.exc_info is not None
    assert record.exc_info[1] is origin.error
    origin.error = None
    assert (await ask(edge)).field(b"cache-status") == stored()
    assert len(origin.requests) == 2


async def test_collapse_origin_that_raises_when_all_have_left_is_logged_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    origin = Origin(held=True)
    origin.error = ValueError("secret detail")
    edge = edge_of(origin)
    visits = await gather(origin, edge, 3)
    for each in visits:
        each.leave()
        await each.over()
    (task,) = edge._origin._tasks
    await origin.release()
    await task
    assert [record.getMessage() for record in caplog.records] == ["the application failed"]
    origin.error = None
    assert (await ask(edge)).status == 200


@pytest.mark.parametrize("seconds", [0, 1, 30])
async def test_collapse_momentary_error_is_shared_however_long_it_took(clock: Clock, seconds: int) -> None:
    origin = Origin(MOMENTARY, held=True)
    edge = shared_edge(origin, clock)
    visits = await gather(origin, edge, 20)
    clock.now += seconds
    await origin.release()
    assert {reply.status for reply in await replies(visits)} == {503}
    assert len(origin.requests) == 1


async def test_collapse_answer_that_was_stale_when_it_came_is_for_its_leader_alone(clock: Clock) -> None:
    origin = Origin(whole(b"max-age=60", (b"age", b"60")), held=True)
    edge = shared_edge(origin, clock)
    visits = await gather(origin, edge, 3)
    await origin.release()
    assert [reply.status for reply in await replies(visits)] == [200] * 3
    assert len(origin.requests) == 3


@pytest.mark.parametrize("field", [(b"transfer-encoding", b"chunked"), (b"content-length", b"5")])
async def test_client_whose_body_breaks_off_while_it_waits_is_400(field: tuple[bytes, bytes]) -> None:
    origin = Origin(held=True)
    waiting = visit(shared_edge(origin), headers=[field])
    await waiting.waits()
    waiting.leave()
    reply = await waiting.reply()
    assert (reply.status, (b"connection", b"close") in reply.headers) == (400, True)
    await origin.release()


async def test_body_of_a_waiting_client_is_not_read_at_its_speed() -> None:
    origin = Origin(held=True)
    waiting = visit(shared_edge(origin), headers=[(b"transfer-encoding", b"chunked")], chunks=[b"x"] * 1_000)
    await origin.asked(1)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(waiting._chunks) > 900
    await origin.release()
    assert (await waiting.reply()).status == 200
