"""Coalescing: which clients wait, which ones disconnect, and what they share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from edge import Edge, coalescing
from edge.asgi import Message, Response, Scope
from edge.coalescing import MAX_CONCURRENT_RETRIES
from tests.edge.asgi import (
    HANG_SECONDS,
    RENDITION,
    ClientRequest,
    ClientResponse,
    ManualClock,
    Origin,
    collapsed,
    failed,
    full_response,
    hit,
    http_scope,
    not_stored,
    open_request,
    send_request,
    shared_edge,
    stored,
    wait_for_all,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left_behind")]

OWN = b"darkroom-cdn-cache-control"

# The service's response to a failed render: it is not stored, but waiting clients may share it.
MOMENTARY = Response(
    503, [(b"cache-control", b"no-store"), (OWN, b"max-age=1"), (b"retry-after", b"5"), (b"content-length", b"9")], b"try again"
)

# For the leader only.
PRIVATE = Response(200, [(b"cache-control", b"private, max-age=60"), (b"content-length", b"5"), (b"accept-ranges", b"bytes")], b"yours")


def edge_of(
    origin: Origin, *, max_concurrent_misses: int = 1_000, refuse_miss: Callable[[Scope], Response | None] = lambda _: None
) -> Edge:
    return Edge(
        origin,
        name="Darkroom",
        max_bytes=1_000_000,
        max_concurrent_misses=max_concurrent_misses,
        refuse_miss=refuse_miss,
        key_includes_host=False,
        clock=lambda: 0.0,
    )


async def gather(origin: Origin, edge: Edge, number: int) -> list[ClientRequest]:
    """Return `number` clients that wait for one response of a held origin, the leader first."""
    requests = [open_request(edge) for _ in range(number)]
    await wait_for_all(requests)
    assert len(origin.requests) == 1
    return requests


async def responses(requests: list[ClientRequest]) -> list[ClientResponse]:
    return [await each.response() for each in requests]


# Sharing


async def test_collapse_200_concurrent_clients_are_one_origin_request() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    requests = await gather(origin, edge, 200)
    await origin.release()
    leader, *waiters = await responses(requests)
    assert len(origin.requests) == 1
    assert leader == ClientResponse(200, [*RENDITION.headers, (b"cache-status", stored())], b"picture")
    shared = ClientResponse(200, [*RENDITION.headers, (b"cache-status", collapsed())], b"picture")
    assert waiters == [shared] * 199
    assert (await send_request(edge)).field(b"cache-status") == hit(60)


async def test_collapse_different_keys_are_separate_origin_requests() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    requests = [open_request(edge, "/a"), open_request(edge, "/b"), open_request(edge, "/a", query=b"x")]
    await wait_for_all(requests)
    assert len(origin.requests) == 3
    await origin.release()
    assert [response.field(b"cache-status") for response in await responses(requests)] == [stored(key=key) for key in ("/a", "/b", "/a?x")]


async def test_collapse_head_and_conditional_clients_each_get_what_they_requested() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    requests = [open_request(edge, method="HEAD"), open_request(edge), open_request(edge, headers=[(b"if-none-match", b'"k5x7q2"')])]
    await wait_for_all(requests)
    await origin.release()
    head, full, conditional = await responses(requests)
    assert (head.status, head.body) == (200, b"")
    assert (full.status, full.body) == (200, b"picture")
    assert (conditional.status, conditional.body) == (304, b"")
    assert len(origin.requests) == 1
    assert origin.requests[0]["method"] == "GET"


async def test_collapse_response_with_minimal_lifetime_is_shared_and_not_stored() -> None:
    origin = Origin(MOMENTARY, held=True)
    edge = edge_of(origin)
    requests = await gather(origin, edge, 20)
    await origin.release()
    leader, *waiters = await responses(requests)
    assert len(origin.requests) == 1
    headers = [(b"cache-control", b"no-store"), (b"retry-after", b"5"), (b"content-length", b"9")]
    assert leader == ClientResponse(503, [*headers, (b"cache-status", not_stored())], b"try again")
    assert waiters == [ClientResponse(503, [*headers, (b"cache-status", not_stored(word="collapsed"))], b"try again")] * 19
    origin.response = RENDITION
    assert (await send_request(edge)).field(b"cache-status") == stored()
    assert len(origin.requests) == 2


async def test_collapse_private_response_lets_waiters_retry_a_few_at_a_time() -> None:
    origin = Origin(PRIVATE, held=True)
    edge = edge_of(origin)
    waiters = 3 * MAX_CONCURRENT_RETRIES + 1
    requests = await gather(origin, edge, 1 + waiters)
    assert origin.max_concurrent == 1
    await origin.release(first=1)
    await requests[0].response()
    await origin.until_requested(1 + MAX_CONCURRENT_RETRIES)
    for _ in range(10):
        await asyncio.sleep(0)
    assert origin.concurrent == MAX_CONCURRENT_RETRIES
    await origin.release()
    received = await responses(requests)
    assert received == [ClientResponse(200, [*PRIVATE.headers, (b"cache-status", not_stored())], b"yours")] * (1 + waiters)
    assert len(origin.requests) == 1 + waiters
    assert origin.max_concurrent == MAX_CONCURRENT_RETRIES == 8


async def test_collapse_private_responses_are_fetched_with_each_clients_own_request() -> None:
    origin = Origin(PRIVATE, held=True)
    edge = edge_of(origin)
    requests = [open_request(edge, headers=[(b"cookie", b"client=%d" % number)]) for number in range(20)]
    await wait_for_all(requests)
    await origin.release()
    await responses(requests)
    cookies = [value for scope in origin.requests for name, value in scope["headers"] if name == b"cookie"]
    assert sorted(cookies) == sorted(b"client=%d" % number for number in range(20))


async def test_collapse_storable_response_after_a_private_one_is_stored_by_a_retrying_waiter() -> None:
    origin = Origin(PRIVATE, held=True)
    edge = edge_of(origin)
    requests = await gather(origin, edge, 2)
    await origin.release(first=1)
    await requests[0].response()
    origin.response = RENDITION
    await origin.release()
    assert (await requests[1].response()).field(b"cache-status") == stored()


# Disconnects


async def test_collapse_leader_that_disconnects_harms_nobody() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    leader, *waiters = await gather(origin, edge, 20)
    leader.disconnect()
    assert await leader.sent_messages() == []
    await origin.release()
    assert [response.body for response in await responses(waiters)] == [b"picture"] * 19
    assert len(origin.requests) == 1
    assert (await send_request(edge)).field(b"cache-status") == hit(60)


async def test_collapse_waiter_that_disconnects_harms_nobody() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    leader, disconnected, waiter = await gather(origin, edge, 3)
    disconnected.disconnect()
    assert await disconnected.sent_messages() == []
    await origin.release()
    assert [response.body for response in await responses([leader, waiter])] == [b"picture"] * 2
    assert len(origin.requests) == 1


async def test_collapse_all_clients_disconnected_response_is_still_fetched_and_stored() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    requests = await gather(origin, edge, 5)
    for each in requests:
        each.disconnect()
    assert [await each.sent_messages() for each in requests] == [[]] * 5
    (task,) = edge._origin._tasks
    await origin.release()
    await task
    assert (await send_request(edge)).field(b"cache-status") == hit(60)
    assert len(origin.requests) == 1


async def test_collapse_client_after_all_have_disconnected_joins_the_same_fetch() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    leader = open_request(edge)
    await leader.until_waiting()
    leader.disconnect()
    await leader.sent_messages()
    late = open_request(edge)
    await late.until_waiting()
    await origin.release()
    assert (await late.response()).field(b"cache-status") == collapsed()
    assert len(origin.requests) == 1


async def test_collapse_clients_that_disconnect_free_their_places() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin, max_concurrent_misses=2)
    requests = await gather(origin, edge, 2)
    assert (await send_request(edge)).status == 503
    requests[0].disconnect()
    await requests[0].sent_messages()
    third = open_request(edge)
    await third.until_waiting()
    await origin.release()
    assert [response.status for response in await responses([requests[1], third])] == [200, 200]
    assert edge._miss_slots.in_use == 0


async def test_collapse_fetch_without_clients_occupies_one_place_until_it_ends() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin, max_concurrent_misses=2)
    for each in await gather(origin, edge, 2):
        each.disconnect()
        assert await each.sent_messages() == []
    other = open_request(edge, "/other")
    await other.until_waiting()
    assert (await send_request(edge, "/third")).field(b"cache-status") == not_stored("/third", word="detail=busy")
    await origin.release()
    assert (await other.response()).field(b"cache-status") == stored(key="/other")
    await asyncio.gather(*edge._origin._tasks)
    assert edge._miss_slots.in_use == 0
    assert (await send_request(edge, "/third")).field(b"cache-status") == stored(key="/third")


async def test_refused_miss_starts_no_fetch_while_hits_and_clients_that_join_a_fetch_are_served() -> None:
    full = False
    refusal = Response(503, [(b"retry-after", b"7"), (b"content-length", b"4")], b"full")
    origin = Origin()
    edge = edge_of(origin, refuse_miss=lambda scope: refusal if full and scope["path"] != "/free" else None)
    await send_request(edge, "/stored")
    await origin.hold()
    leader = open_request(edge, "/cold")
    await wait_for_all([leader])
    full = True
    refused = await send_request(edge, "/other")
    assert (refused.status, refused.field(b"retry-after"), refused.body) == (503, b"7", b"full")
    assert refused.field(b"cache-status") == not_stored("/other", word="detail=busy")
    assert edge.counters["any", 503].rejected == 1
    assert (await send_request(edge, "/stored")).field(b"cache-status") == hit(60, "/stored")
    waiter, free = open_request(edge, "/cold"), open_request(edge, "/free")
    await wait_for_all([waiter, free])
    await origin.release()
    assert [response.status for response in await responses([leader, waiter, free])] == [200] * 3
    assert [scope["path"] for scope in origin.requests] == ["/stored", "/cold", "/free"]


async def test_collapse_client_that_disconnects_as_the_response_arrives_gets_it() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    leaving = open_request(edge)
    await leaving.until_waiting()
    await origin.release()
    (fetch,) = edge._origin._in_flight._all
    fetch.completed.add_done_callback(lambda _: leaving.disconnect())
    assert (await leaving.response()).body == b"picture"


async def test_collapse_retrying_waiter_that_has_disconnected_makes_no_origin_request() -> None:
    origin = Origin(PRIVATE, held=True)
    edge = edge_of(origin)
    requests = await gather(origin, edge, 1 + MAX_CONCURRENT_RETRIES + 5)
    await origin.release(first=1)
    await requests[0].response()
    await origin.until_requested(1 + MAX_CONCURRENT_RETRIES)
    # The first ones have reached the origin, the last five wait for the retry limit.
    for queued in requests[-5:]:
        queued.disconnect()
    for _ in range(3):
        await asyncio.sleep(0)
    await origin.release()
    assert [await queued.sent_messages() for queued in requests[-5:]] == [[]] * 5
    await responses(requests[:-5])
    assert len(origin.requests) == 1 + MAX_CONCURRENT_RETRIES


@pytest.mark.parametrize("leads", [True, False])
async def test_collapse_client_whose_task_is_canceled_harms_nobody(leads: bool) -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    requests = await gather(origin, edge, 3)
    cancelled = requests.pop(0 if leads else 1)
    cancelled.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled.task
    await origin.release()
    assert [response.body for response in await responses(requests)] == [b"picture"] * 2
    assert len(origin.requests) == 1
    assert edge._miss_slots.in_use == 0


async def test_collapse_client_that_cannot_be_read_from_fails_by_itself() -> None:
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
    assert (await waiter.response()).body == b"picture"


async def test_collapse_client_that_sends_a_body_with_its_get_still_waits() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    talker = open_request(edge, chunks=[b"a", b"b", b"c"])
    await talker.until_waiting()
    await origin.release()
    assert (await talker.response()).body == b"picture"
    assert origin.bodies == [[b""]]


# Failures


async def test_collapse_origin_that_raises_is_the_same_error_for_all_and_is_retried_by_the_next_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    origin = Origin(held=True)
    origin.error = ValueError("secret detail")
    edge = edge_of(origin)
    requests = await gather(origin, edge, 50)
    with caplog.at_level(logging.ERROR):
        await origin.release()
        leader, *waiters = await responses(requests)
    assert leader == failed(not_stored())
    assert waiters == [failed(not_stored(word="collapsed"))] * 49
    assert len(origin.requests) == 1
    # Logged once, not once for each client, and with its cause.
    (record,) = caplog.records
    assert record.getMessage() == "the application failed"
    assert record.exc_info is not None
    assert record.exc_info[1] is origin.error
    origin.error = None
    assert (await send_request(edge)).field(b"cache-status") == stored()
    assert len(origin.requests) == 2


async def test_collapse_origin_that_raises_after_all_have_disconnected_is_logged_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    origin = Origin(held=True)
    origin.error = ValueError("secret detail")
    edge = edge_of(origin)
    requests = await gather(origin, edge, 3)
    for each in requests:
        each.disconnect()
        await each.sent_messages()
    (task,) = edge._origin._tasks
    await origin.release()
    await task
    assert [record.getMessage() for record in caplog.records] == ["the application failed"]
    origin.error = None
    assert (await send_request(edge)).status == 200


@pytest.mark.parametrize("seconds", [0, 1, 30])
async def test_collapse_error_with_minimal_lifetime_is_shared_however_long_it_took(clock: ManualClock, seconds: int) -> None:
    origin = Origin(MOMENTARY, held=True)
    edge = shared_edge(origin, clock)
    requests = await gather(origin, edge, 20)
    clock.now += seconds
    await origin.release()
    assert {response.status for response in await responses(requests)} == {503}
    assert len(origin.requests) == 1


async def test_collapse_response_that_was_stale_on_arrival_is_for_its_leader_only(clock: ManualClock) -> None:
    origin = Origin(full_response(b"max-age=60", (b"age", b"60")), held=True)
    edge = shared_edge(origin, clock)
    requests = await gather(origin, edge, 3)
    await origin.release()
    assert [response.status for response in await responses(requests)] == [200] * 3
    assert len(origin.requests) == 3


@pytest.mark.parametrize("field", [(b"transfer-encoding", b"chunked"), (b"content-length", b"5")])
async def test_waiting_client_whose_body_is_incomplete_gets_400(field: tuple[bytes, bytes]) -> None:
    origin = Origin(held=True)
    waiting = open_request(shared_edge(origin), headers=[field])
    await waiting.until_waiting()
    waiting.disconnect()
    response = await waiting.response()
    assert (response.status, (b"connection", b"close") in response.headers) == (400, True)
    await origin.release()


async def test_waiting_clients_body_is_read_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "_PAUSE_SECONDS", HANG_SECONDS)
    origin = Origin(held=True)
    waiting = open_request(shared_edge(origin), headers=[(b"transfer-encoding", b"chunked")], chunks=[b"x"] * 1_000)
    await origin.until_requested(1)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(waiting._chunks) == 1_000 - coalescing._UNPACED_MESSAGES - 1
    await origin.release()
    assert (await waiting.response()).status == 200
