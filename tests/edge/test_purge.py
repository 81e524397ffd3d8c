"""Purges: by path, by tag, by a change through the edge (RFC 9111 §4.4), and those that were missed during a suspend."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from edge import Edge
from edge.asgi import Headers, Response
from edge.store import MEMORY_TIER
from tests.edge.asgi import (
    RENDITION,
    ClientResponse,
    ManualClock,
    Origin,
    full_response,
    hit,
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


def tagged(tags: bytes, body: bytes = b"picture") -> Response:
    return full_response(b"max-age=60", (b"cache-tag", tags), body=body)


async def is_stored(edge: Edge, path: str = "/i/picture", query: bytes = b"") -> bool:
    """Return whether a response is stored, without fetching it."""
    return (await send_request(edge, path, query=query, headers=[(b"cache-control", b"only-if-cached")])).status == 200


# By path


async def test_purge_of_a_path_removes_only_its_response() -> None:
    origin = Origin()
    edge = shared_edge(origin)
    for path in ("/a", "/b"):
        await send_request(edge, path)
    await send_request(edge, "/a", query=b"x")
    edge.purge(b"/a")
    assert [await is_stored(edge, "/a"), await is_stored(edge, "/b"), await is_stored(edge, "/a", b"x")] == [False, True, True]
    edge.purge(b"/a?x")
    assert not await is_stored(edge, "/a", b"x")
    assert await send_request(edge, "/a") == ClientResponse(200, [*RENDITION.headers, (STATUS, stored(key="/a"))], b"picture")


async def test_purge_of_a_path_that_is_not_stored_changes_nothing() -> None:
    edge = shared_edge(Origin())
    await send_request(edge)
    edge.purge(b"/i/other")
    edge.purge(b"")
    assert (edge.stored_entries, await is_stored(edge)) == (1, True)


async def test_purge_if_keys_include_the_host_names_it() -> None:
    edge = shared_edge(Origin(), key_includes_host=True)
    await send_request(edge)
    edge.purge(b"/i/picture")
    edge.purge(b"http://other/i/picture")
    assert await is_stored(edge)
    edge.purge(b"http://localhost/i/picture")
    assert not await is_stored(edge)


async def test_purge_of_a_path_lets_waiters_finish_and_stores_nothing() -> None:
    origin = Origin(held=True)
    edge = shared_edge(origin)
    before = [open_request(edge) for _ in range(2)]
    await wait_for_all(before)
    await origin.until_requested(1)
    edge.purge(b"/i/picture")
    after = open_request(edge)
    await after.until_waiting()
    await origin.until_requested(2)
    await origin.release(first=1)
    assert [(await each.response()).body for each in before] == [b"picture"] * 2
    assert edge.stored_entries == 0
    origin.response = full_response(b"max-age=60", body=b"renewed")
    await origin.release()
    assert await after.response() == ClientResponse(200, [*origin.response.headers, (STATUS, stored())], b"renewed")
    assert (await send_request(edge)).field(STATUS) == hit(60)


async def test_purge_of_another_path_does_not_affect_a_response_on_its_way() -> None:
    origin = Origin(held=True)
    edge = shared_edge(origin)
    waiting = open_request(edge)
    await waiting.until_waiting()
    edge.purge(b"/i/other")
    await origin.release()
    assert (await waiting.response()).field(STATUS) == stored()


# Of everything


@pytest.mark.parametrize("vary", [(), ((b"vary", b"accept"),)])
async def test_purge_of_all_removes_every_response(vary: Headers) -> None:
    edge = shared_edge(Origin(full_response(b"max-age=60", *vary)), max_fraction_by_label={"page": 0.5}, metric_label=lambda path: path[1:])
    for path in ("/a", "/page"):
        await send_request(edge, path)
    edge.purge_all()
    assert (edge.stored_entries, edge.stored_bytes) == (0, 0)
    assert [await is_stored(edge, path) for path in ("/a", "/page")] == [False, False]
    assert (await send_request(edge, "/a")).field(STATUS) == stored(key="/a")


async def test_purge_of_all_lets_waiters_finish_and_stores_nothing() -> None:
    origin = Origin(held=True)
    edge = shared_edge(origin)
    before = open_request(edge)
    await before.until_waiting()
    await origin.until_requested(1)
    edge.purge_all()
    after = open_request(edge)
    await after.until_waiting()
    await origin.until_requested(2)
    await origin.release(first=1)
    assert (await before.response()).body == b"picture"
    assert edge.stored_entries == 0
    await origin.release()
    assert (await after.response()).field(STATUS) == stored()


# By tag


@pytest.mark.parametrize("tags", [b"a", b"a,b", b" b , a ", b"b,,a,"])
async def test_purge_of_a_tag_removes_responses_with_it(tags: bytes) -> None:
    origin = Origin(tagged(tags))
    edge = shared_edge(origin)
    await send_request(edge)
    origin.response = tagged(b"ab, A")
    await send_request(edge, "/other")
    assert edge.purge_tags(["a"]) == 1
    assert [await is_stored(edge), await is_stored(edge, "/other")] == [False, True]
    assert edge.purge_tags(["a"]) == 0


async def test_purge_of_tags_on_two_lines_and_of_two_tags_counts_each_entry_once() -> None:
    origin = Origin(full_response(b"max-age=60", (b"cache-tag", b"a"), (b"cache-tag", b"b")))
    edge = shared_edge(origin)
    await send_request(edge)
    assert edge.purge_tags(iter(["a", "b", "c"])) == 1
    assert edge.stored_entries == 0
    assert edge.stored_bytes == 0


async def test_purge_of_no_tags_removes_nothing() -> None:
    edge = shared_edge(Origin(tagged(b"a")))
    await send_request(edge)
    assert edge.purge_tags([]) == 0
    assert await is_stored(edge)


async def test_tags_are_forwarded_to_the_cache_in_front() -> None:
    edge = shared_edge(Origin(tagged(b"a, b")))
    assert (await send_request(edge)).field(b"cache-tag") == b"a, b"
    assert await send_request(edge) == ClientResponse(
        200, [*tagged(b"a, b").headers, (b"age", b"0"), (STATUS, hit(60)), MEMORY_TIER], b"picture"
    )


async def test_purge_of_a_tag_on_its_way_lets_waiters_finish_and_stores_nothing() -> None:
    origin = Origin(tagged(b"a"), held=True)
    edge = shared_edge(origin)
    before = [open_request(edge) for _ in range(3)]
    await wait_for_all(before)
    await origin.until_requested(1)
    assert edge.purge_tags(["a"]) == 0
    after = open_request(edge)
    await after.until_waiting()
    await origin.until_requested(2)
    await origin.release(first=1)
    assert [(await each.response()).body for each in before] == [b"picture"] * 3
    assert len(origin.requests) == 2
    origin.response = tagged(b"a", b"renewed")
    await origin.release()
    assert (await after.response()).body == b"renewed"
    assert (await send_request(edge)).body == b"renewed"
    assert len(origin.requests) == 2


async def test_purge_of_another_tag_stores_the_response_on_its_way() -> None:
    origin = Origin(tagged(b"a"), held=True)
    edge = shared_edge(origin)
    waiting = open_request(edge)
    await waiting.until_waiting()
    edge.purge_tags(["b"])
    await origin.release()
    assert (await waiting.response()).field(STATUS) == stored()
    assert await is_stored(edge)


async def test_purge_of_a_tag_affects_a_revalidation_on_its_way(clock: ManualClock) -> None:
    response = full_response(b"max-age=60, stale-while-revalidate=30", (b"cache-tag", b"a"), (b"etag", b'"one"'))
    origin = Origin(response, held=True)
    await origin.release(first=1)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 65
    await send_request(edge)
    await origin.until_requested(2)
    assert edge.purge_tags(["a"]) == 1
    origin.response = Response(304, [], b"")
    await origin.release()
    await settle(edge)
    assert not await is_stored(edge)


# By a change through the edge


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("status", [200, 201, 204, 302, 303])
async def test_successful_change_removes_the_responses_to_its_url(method: str, status: int) -> None:
    origin = Origin()
    edge = shared_edge(origin)
    await send_request(edge)
    await send_request(edge, "/i/other")
    origin.response = Response(status, [], b"")
    assert await send_request(edge, method=method) == ClientResponse(status, [(STATUS, b"darkroom; fwd=method")], b"")
    assert [await is_stored(edge), await is_stored(edge, "/i/other")] == [False, True]


@pytest.mark.parametrize("status", [400, 404, 409, 412, 500, 503])
async def test_failed_change_removes_nothing(status: int) -> None:
    origin = Origin()
    edge = shared_edge(origin)
    for path in ("/i/picture", "/i/other"):
        await send_request(edge, path)
    origin.response = Response(status, [(b"location", b"/i/other"), (b"content-location", b"/i/other")], b"")
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        await send_request(edge, method=method)
    assert [await is_stored(edge), await is_stored(edge, "/i/other")] == [True, True]


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE"])
async def test_safe_method_removes_nothing(method: str) -> None:
    origin = Origin()
    edge = shared_edge(origin)
    await send_request(edge)
    await send_request(edge, method=method)
    assert await is_stored(edge)


async def test_unknown_method_counts_as_a_change() -> None:
    origin = Origin()
    edge = shared_edge(origin)
    await send_request(edge)
    await send_request(edge, method="BREW")
    assert not await is_stored(edge)


@pytest.mark.parametrize("field", [b"location", b"Content-Location"])
@pytest.mark.parametrize(
    "value",
    [
        b"/i/other?x=1",
        b"http://localhost/i/other?x=1",
        b"other?x=1",
        b"../i/other?x=1#part",
        b"//localhost/i/other?x=1",
        b"http://LOCALHOST/i/other?x=1",
    ],
)
@pytest.mark.parametrize("key_includes_host", [False, True])
async def test_change_removes_the_urls_that_its_response_names_on_the_same_host(
    field: bytes, value: bytes, key_includes_host: bool
) -> None:
    origin = Origin()
    edge = shared_edge(origin, key_includes_host=key_includes_host)
    await send_request(edge, "/i/other", query=b"x=1")
    await send_request(edge, "/i/other")
    origin.response = Response(201, [(field, value)], b"")
    await send_request(edge, method="POST")
    assert [await is_stored(edge, "/i/other", b"x=1"), await is_stored(edge, "/i/other")] == [False, True]


@pytest.mark.parametrize("field", [b"location", b"content-location"])
@pytest.mark.parametrize(
    "value",
    [
        b"http://elsewhere/i/other",
        b"//elsewhere/i/other",
        b"http://localhost:8080/i/other",
        b"http://localhost@elsewhere/i/other",
        b"https://localhost/i/other",
    ],
)
@pytest.mark.parametrize("key_includes_host", [False, True])
async def test_change_removes_no_urls_that_its_response_names_on_another_host(field: bytes, value: bytes, key_includes_host: bool) -> None:
    origin = Origin()
    edge = shared_edge(origin, key_includes_host=key_includes_host)
    await send_request(edge, "/i/other")
    origin.response = Response(201, [(field, value)], b"")
    await send_request(edge, method="POST")
    assert await is_stored(edge, "/i/other")


@pytest.mark.parametrize("value", [b"", b"http://[", b"http://localhost:port/i/other", b"\xff\xfe", b"mailto:a@b", b"#"])
async def test_change_whose_location_is_malformed_is_forwarded(value: bytes) -> None:
    origin = Origin()
    edge = shared_edge(origin)
    await send_request(edge)
    origin.response = Response(201, [(b"location", value)], b"made")
    response = await send_request(edge, method="POST")
    assert response == ClientResponse(201, [(b"location", value), (STATUS, b"darkroom; fwd=method")], b"made")
    assert not await is_stored(edge)


async def test_change_keeps_an_earlier_request_from_being_stored() -> None:
    origin = Origin(held=True)
    edge = shared_edge(origin)
    reading = open_request(edge)
    await reading.until_waiting()
    await origin.until_requested(1)
    changing = open_request(edge, method="PUT")
    await origin.until_requested(2)
    await origin.release(first=2)
    await asyncio.gather(changing.sent_messages(), reading.sent_messages())
    # The origin may respond to either of the two first. In neither order may the old response stay.
    assert not await is_stored(edge)


async def test_change_of_a_bypassed_path_removes_the_urls_that_its_response_names() -> None:
    origin = Origin()
    edge = shared_edge(origin)
    await send_request(edge)
    origin.response = Response(201, [(b"location", b"/i/picture")], b"")
    await send_request(edge, "/v1/images", method="POST")
    assert not await is_stored(edge)


# Missed purges


class PurgeSync:
    """The purges that an edge has missed. Counts its calls, and may be held or fail."""

    def __init__(self) -> None:
        self.edge: Edge | None = None
        self.missed: list[str] = []
        self.error: Exception | None = None
        self.times = 0
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self) -> None:
        self.times += 1
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        if self.edge is not None:
            self.edge.purge_tags(self.missed)


def edge_with_sync(origin: Origin, clock: ManualClock, sync: Callable[[], Awaitable[object]]) -> Edge:
    return shared_edge(origin, clock, sync_purges=sync, max_purge_lag_seconds=60.0)


LONG = full_response(b"max-age=600", (b"cache-tag", b"a"))


async def test_sync_makes_missed_purges_before_the_next_hit(clock: ManualClock) -> None:
    origin, sync = Origin(LONG), PurgeSync()
    edge = sync.edge = edge_with_sync(origin, clock, sync)
    await send_request(edge)
    clock.now += 59
    assert (await send_request(edge)).field(STATUS) == hit(541)
    assert sync.times == 0
    clock.now += 1
    sync.missed = ["a"]
    assert await send_request(edge) == ClientResponse(200, [*LONG.headers, (STATUS, stored(600))], b"picture")
    assert (sync.times, len(origin.requests)) == (1, 2)
    clock.now += 59
    assert (await send_request(edge)).field(STATUS) == hit(541)
    assert sync.times == 1


async def test_sync_without_missed_purges_keeps_stored_responses(clock: ManualClock) -> None:
    sync = PurgeSync()
    edge = edge_with_sync(Origin(LONG), clock, sync)
    await send_request(edge)
    for times in (1, 2):
        clock.now += 60
        assert (await send_request(edge)).field(STATUS) == hit(600 - 60 * times)
        assert sync.times == times


async def test_sync_is_called_once_for_concurrent_clients(clock: ManualClock) -> None:
    origin, sync = Origin(LONG), PurgeSync()
    edge = sync.edge = edge_with_sync(origin, clock, sync)
    await send_request(edge)
    clock.now += 60
    sync.may_end.clear()
    requests = [open_request(edge) for _ in range(20)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert sync.times == 1
    assert not any(each.messages for each in requests)
    sync.may_end.set()
    assert [(await each.response()).field(STATUS) for each in requests] == [hit(540)] * 20
    assert (sync.times, len(origin.requests)) == (1, 1)


async def test_sync_goes_on_for_others_if_one_client_is_canceled(clock: ManualClock) -> None:
    sync = PurgeSync()
    edge = edge_with_sync(Origin(LONG), clock, sync)
    await send_request(edge)
    clock.now += 60
    sync.may_end.clear()
    disconnected, stays = open_request(edge), open_request(edge)
    for _ in range(3):
        await asyncio.sleep(0)
    disconnected.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await disconnected.task
    sync.may_end.set()
    assert (await stays.response()).field(STATUS) == hit(540)
    assert sync.times == 1


async def test_sync_that_fails_lets_hits_continue(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    sync = PurgeSync()
    edge = edge_with_sync(Origin(LONG), clock, sync)
    await send_request(edge)
    clock.now += 60
    sync.error = OSError("no route")
    with caplog.at_level(logging.ERROR):
        assert (await send_request(edge)).field(STATUS) == hit(540)
    (record,) = caplog.records
    assert record.getMessage() == "missed purges could not be fetched: stored responses are served without them"
    assert record.exc_info is not None
    assert record.exc_info[1] is sync.error
    # It is not retried for every hit.
    assert (await send_request(edge)).field(STATUS) == hit(540)
    assert sync.times == 1


async def test_sync_that_takes_too_long_lets_hits_continue(
    clock: ManualClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.middleware.SYNC_PURGES_SECONDS", 0.01)
    sync = PurgeSync()
    edge = edge_with_sync(Origin(LONG), clock, sync)
    await send_request(edge)
    clock.now += 60
    sync.may_end.clear()
    with caplog.at_level(logging.ERROR):
        assert (await send_request(edge)).field(STATUS) == hit(540)
    assert [record.getMessage() for record in caplog.records] == [
        "missed purges could not be fetched: stored responses are served without them"
    ]
    assert sync.times == 1


@pytest.mark.parametrize("tags", [[], ["b"]])
async def test_sync_is_due_after_the_last_purge_of_tags_even_of_none(tags: list[str], clock: ManualClock) -> None:
    sync = PurgeSync()
    edge = edge_with_sync(Origin(LONG), clock, sync)
    await send_request(edge)
    for _ in range(5):
        clock.now += 59
        edge.purge_tags(tags)
    assert (await send_request(edge)).field(STATUS) == hit(305)
    assert sync.times == 0
    clock.now += 60
    await send_request(edge)
    assert sync.times == 1


async def test_sync_is_never_due_without_a_callback(clock: ManualClock) -> None:
    edge = shared_edge(Origin(LONG), clock, max_purge_lag_seconds=1.0)
    await send_request(edge)
    clock.now += 500
    assert (await send_request(edge)).field(STATUS) == hit(100)


async def test_response_that_is_not_storable_is_fetched_after_a_purge_of_its_tag_as_before() -> None:
    origin = Origin(full_response(b"no-store", (b"cache-tag", b"a")))
    edge = shared_edge(origin)
    await send_request(edge)
    assert edge.purge_tags(["a"]) == 0
    assert (await send_request(edge)).field(STATUS) == not_stored()
    assert len(origin.requests) == 2
