"""What is dropped before its time: by address, by tag, by a change through the edge, and after a gap without news (RFC 9111 §4.4)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from edge import Edge
from edge.asgi import Response
from edge.store import MEMORY_TIER
from tests.edge.asgi import (
    RENDITION,
    Clock,
    Origin,
    Reply,
    all_wait,
    ask,
    hit,
    settled,
    shared_edge,
    stored,
    unkept,
    visit,
    whole,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left_behind")]

STATUS = b"cache-status"


def tagged(tags: bytes, body: bytes = b"picture") -> Response:
    return whole(b"max-age=60", (b"cache-tag", tags), body=body)


async def is_kept(edge: Edge, path: str = "/i/picture", query: bytes = b"") -> bool:
    """Return whether an answer is kept; nothing is fetched."""
    return (await ask(edge, path, query=query, headers=[(b"cache-control", b"only-if-cached")])).status == 200


# By address


async def test_purge_of_an_address_drops_it_alone() -> None:
    origin = Origin()
    edge = shared_edge(origin)
    for path in ("/a", "/b"):
        await ask(edge, path)
    await ask(edge, "/a", query=b"x")
    edge.purge(b"/a")
    assert [await is_kept(edge, "/a"), await is_kept(edge, "/b"), await is_kept(edge, "/a", b"x")] == [False, True, True]
    edge.purge(b"/a?x")
    assert not await is_kept(edge, "/a", b"x")
    assert await ask(edge, "/a") == Reply(200, [*RENDITION.headers, (STATUS, stored(key="/a"))], b"picture")


async def test_purge_of_an_address_that_is_not_kept_changes_nothing() -> None:
    edge = shared_edge(Origin())
    await ask(edge)
    edge.purge(b"/i/other")
    edge.purge(b"")
    assert (edge.stored_entries, await is_kept(edge)) == (1, True)


async def test_purge_where_hosts_differ_names_the_authority() -> None:
    edge = shared_edge(Origin(), key_includes_host=True)
    await ask(edge)
    edge.purge(b"/i/picture")
    edge.purge(b"http://other/i/picture")
    assert await is_kept(edge)
    edge.purge(b"http://localhost/i/picture")
    assert not await is_kept(edge)


async def test_purge_of_an_address_answers_those_that_wait_and_keeps_nothing() -> None:
    origin = Origin(held=True)
    edge = shared_edge(origin)
    before = [visit(edge) for _ in range(2)]
    await all_wait(before)
    await origin.asked(1)
    edge.purge(b"/i/picture")
    after = visit(edge)
    await after.waits()
    await origin.asked(2)
    await origin.release(first=1)
    assert [(await each.reply()).body for each in before] == [b"picture"] * 2
    assert edge.stored_entries == 0
    origin.answer = whole(b"max-age=60", body=b"renewed")
    await origin.release()
    assert await after.reply() == Reply(200, [*origin.answer.headers, (STATUS, stored())], b"renewed")
    assert (await ask(edge)).field(STATUS) == hit(60)


async def test_purge_of_another_address_leaves_what_is_on_its_way() -> None:
    origin = Origin(held=True)
    edge = shared_edge(origin)
    waiting = visit(edge)
    await waiting.waits()
    edge.purge(b"/i/other")
    await origin.release()
    assert (await waiting.reply()).field(STATUS) == stored()


# By tag


@pytest.mark.parametrize("tags", [b"a", b"a,b", b" b , a ", b"b,,a,"])
async def test_purge_of_a_tag_drops_what_carries_it(tags: bytes) -> None:
    origin = Origin(tagged(tags))
    edge = shared_edge(origin)
    await ask(edge)
    origin.answer = tagged(b"ab, A")
    await ask(edge, "/other")
    assert edge.purge_tags(["a"]) == 1
    assert [await is_kept(edge), await is_kept(edge, "/other")] == [False, True]
    assert edge.purge_tags(["a"]) == 0


async def test_purge_of_tags_on_two_lines_and_of_two_tags_counts_each_entry_once() -> None:
    origin = Origin(whole(b"max-age=60", (b"cache-tag", b"a"), (b"cache-tag", b"b")))
    edge = shared_edge(origin)
    await ask(edge)
    assert edge.purge_tags(iter(["a", "b", "c"])) == 1
    assert edge.stored_entries == 0
    assert edge.stored_bytes == 0


async def test_purge_of_no_tags_drops_nothing() -> None:
    edge = shared_edge(Origin(tagged(b"a")))
    await ask(edge)
    assert edge.purge_tags([]) == 0
    assert await is_kept(edge)


async def test_tags_are_sent_on_to_the_cache_in_front() -> None:
    edge = shared_edge(Origin(tagged(b"a, b")))
    assert (await ask(edge)).field(b"cache-tag") == b"a, b"
    assert await ask(edge) == Reply(200, [*tagged(b"a, b").headers, (b"age", b"0"), (STATUS, hit(60)), MEMORY_TIER], b"picture")


async def test_purge_of_a_tag_on_its_way_answers_those_that_wait_and_keeps_nothing() -> None:
    origin = Origin(tagged(b"a"), held=True)
    edge = shared_edge(origin)
    before = [visit(edge) for _ in range(3)]
    await all_wait(before)
    await origin.asked(1)
    assert edge.purge_tags(["a"]) == 0
    after = visit(edge)
    await after.waits()
    await origin.asked(2)
    await origin.release(first=1)
    assert [(await each.reply()).body for each in before] == [b"picture"] * 3
    assert len(origin.requests) == 2
    origin.answer = tagged(b"a", b"renewed")
    await origin.release()
    assert (await after.reply()).body == b"renewed"
    assert (await ask(edge)).body == b"renewed"
    assert len(origin.requests) == 2


async def test_purge_of_another_tag_keeps_what_is_on_its_way() -> None:
    origin = Origin(tagged(b"a"), held=True)
    edge = shared_edge(origin)
    waiting = visit(edge)
    await waiting.waits()
    edge.purge_tags(["b"])
    await origin.release()
    assert (await waiting.reply()).field(STATUS) == stored()
    assert await is_kept(edge)


async def test_purge_of_a_tag_reaches_what_is_being_renewed(clock: Clock) -> None:
    answer = whole(b"max-age=60, stale-while-revalidate=30", (b"cache-tag", b"a"), (b"etag", b'"one"'))
    origin = Origin(answer, held=True)
    await origin.release(first=1)
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 65
    await ask(edge)
    await origin.asked(2)
    assert edge.purge_tags(["a"]) == 1
    origin.answer = Response(304, [], b"")
    await origin.release()
    await settled(edge)
    assert not await is_kept(edge)


# By a change through the edge


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("status", [200, 201, 204, 302, 303])
async def test_successful_change_drops_what_is_kept_of_its_address(method: str, status: int) -> None:
    origin = Origin()
    edge = shared_edge(origin)
    await ask(edge)
    await ask(edge, "/i/other")
    origin.answer = Response(status, [], b"")
    assert await ask(edge, method=method) == Reply(status, [(STATUS, b"darkroom; fwd=method")], b"")
    assert [await is_kept(edge), await is_kept(edge, "/i/other")] == [False, True]


@pytest.mark.parametrize("status", [400, 404, 409, 412, 500, 503])
async def test_change_that_failed_drops_nothing(status: int) -> None:
    origin = Origin()
    edge = shared_edge(origin)
    for path in ("/i/picture", "/i/other"):
        await ask(edge, path)
    origin.answer = Response(status, [(b"location", b"/i/other"), (b"content-location", b"/i/other")], b"")
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        await ask(edge, method=method)
    assert [await is_kept(edge), await is_kept(edge, "/i/other")] == [True, True]


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE"])
async def test_safe_method_drops_nothing(method: str) -> None:
    origin = Origin()
    edge = shared_edge(origin)
    await ask(edge)
    await ask(edge, method=method)
    assert await is_kept(edge)


async def test_method_that_nobody_knows_counts_as_a_change() -> None:
    origin = Origin()
    edge = shared_edge(origin)
    await ask(edge)
    await ask(edge, method="BREW")
    assert not await is_kept(edge)


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
async def test_change_drops_what_its_answer_names_on_the_same_host(field: bytes, value: bytes, key_includes_host: bool) -> None:
    origin = Origin()
    edge = shared_edge(origin, key_includes_host=key_includes_host)
    await ask(edge, "/i/other", query=b"x=1")
    await ask(edge, "/i/other")
    origin.answer = Response(201, [(field, value)], b"")
    await ask(edge, method="POST")
    assert [await is_kept(edge, "/i/other", b"x=1"), await is_kept(edge, "/i/other")] == [False, True]


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
async def test_change_drops_nothing_that_its_answer_names_on_another_host(field: bytes, value: bytes, key_includes_host: bool) -> None:
    origin = Origin()
    edge = shared_edge(origin, key_includes_host=key_includes_host)
    await ask(edge, "/i/other")
    origin.answer = Response(201, [(field, value)], b"")
    await ask(edge, method="POST")
    assert await is_kept(edge, "/i/other")


@pytest.mark.parametrize("value", [b"", b"http://[", b"http://localhost:port/i/other", b"\xff\xfe", b"mailto:a@b", b"#"])
async def test_change_whose_location_is_malformed_is_answered(value: bytes) -> None:
    origin = Origin()
    edge = shared_edge(origin)
    await ask(edge)
    origin.answer = Response(201, [(b"location", value)], b"made")
    reply = await ask(edge, method="POST")
    assert reply == Reply(201, [(b"location", value), (STATUS, b"darkroom; fwd=method")], b"made")
    assert not await is_kept(edge)


async def test_change_keeps_nothing_that_began_before_it() -> None:
    origin = Origin(held=True)
    edge = shared_edge(origin)
    reading = visit(edge)
    await reading.waits()
    await origin.asked(1)
    changing = visit(edge, method="PUT")
    await origin.asked(2)
    await origin.release(first=2)
    await asyncio.gather(changing.over(), reading.over())
    # Which of the two the origin answers first is open: neither order may leave the old answer.
    assert not await is_kept(edge)


async def test_change_of_a_path_that_is_passed_drops_what_its_answer_names() -> None:
    origin = Origin()
    edge = shared_edge(origin)
    await ask(edge)
    origin.answer = Response(201, [(b"location", b"/i/picture")], b"")
    await ask(edge, "/v1/images", method="POST")
    assert not await is_kept(edge)


# After a gap without news


class News:
    """What an edge catches up with: purges that it has missed, counted; may be held, or fail."""

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


def with_news(origin: Origin, clock: Clock, news: Callable[[], Awaitable[object]]) -> Edge:
    return shared_edge(origin, clock, sync_purges=news, max_purge_lag_seconds=60.0)


LONG = whole(b"max-age=600", (b"cache-tag", b"a"))


async def test_gap_missed_purges_are_made_before_the_next_hit(clock: Clock) -> None:
    origin, news = Origin(LONG), News()
    edge = news.edge = with_news(origin, clock, news)
    await ask(edge)
    clock.now += 59
    assert (await ask(edge)).field(STATUS) == hit(541)
    assert news.times == 0
    clock.now += 1
    news.missed = ["a"]
    assert await ask(edge) == Reply(200, [*LONG.headers, (STATUS, stored(600))], b"picture")
    assert (news.times, len(origin.requests)) == (1, 2)
    clock.now += 59
    assert (await ask(edge)).field(STATUS) == hit(541)
    assert news.times == 1


async def test_gap_without_missed_purges_leaves_what_is_kept(clock: Clock) -> None:
    news = News()
    edge = with_news(Origin(LONG), clock, news)
    await ask(edge)
    for times in (1, 2):
        clock.now += 60
        assert (await ask(edge)).field(STATUS) == hit(600 - 60 * times)
        assert news.times == times


async def test_gap_is_caught_up_with_once_for_many_clients(clock: Clock) -> None:
    origin, news = Origin(LONG), News()
    edge = news.edge = with_news(origin, clock, news)
    await ask(edge)
    clock.now += 60
    news.may_end.clear()
    visits = [visit(edge) for _ in range(20)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert news.times == 1
    assert not any(each.messages for each in visits)
    news.may_end.set()
    assert [(await each.reply()).field(STATUS) for each in visits] == [hit(540)] * 20
    assert (news.times, len(origin.requests)) == (1, 1)


async def test_gap_client_that_is_cancelled_does_not_end_it_for_the_others(clock: Clock) -> None:
    news = News()
    edge = with_news(Origin(LONG), clock, news)
    await ask(edge)
    clock.now += 60
    news.may_end.clear()
    gone, stays = visit(edge), visit(edge)
    for _ in range(3):
        await asyncio.sleep(0)
    gone.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone.task
    news.may_end.set()
    assert (await stays.reply()).field(STATUS) == hit(540)
    assert news.times == 1


async def test_gap_that_cannot_be_caught_up_with_lets_hits_go_on(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    news = News()
    edge = with_news(Origin(LONG), clock, news)
    await ask(edge)
    clock.now += 60
    news.error = OSError("no route")
    with caplog.at_level(logging.ERROR):
        assert (await ask(edge)).field(STATUS) == hit(540)
    (record,) = caplog.records
    assert record.getMessage() == "missed purges could not be fetched: stored responses are served without them"
    assert record.exc_info is not None
    assert record.exc_info[1] is news.error
    # It is not tried for every hit.
    assert (await ask(edge)).field(STATUS) == hit(540)
    assert news.times == 1


async def test_gap_that_takes_too_long_to_catch_up_with_lets_hits_go_on(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.middleware.SYNC_PURGES_SECONDS", 0.01)
    news = News()
    edge = with_news(Origin(LONG), clock, news)
    await ask(edge)
    clock.now += 60
    news.may_end.clear()
    with caplog.at_level(logging.ERROR):
        assert (await ask(edge)).field(STATUS) == hit(540)
    assert [record.getMessage() for record in caplog.records] == [
        "missed purges could not be fetched: stored responses are served without them"
    ]
    assert news.times == 1


@pytest.mark.parametrize("tags", [[], ["b"]])
async def test_gap_begins_anew_with_every_purge_of_tags_even_of_none(tags: list[str], clock: Clock) -> None:
    news = News()
    edge = with_news(Origin(LONG), clock, news)
    await ask(edge)
    for _ in range(5):
        clock.now += 59
        edge.purge_tags(tags)
    assert (await ask(edge)).field(STATUS) == hit(305)
    assert news.times == 0
    clock.now += 60
    await ask(edge)
    assert news.times == 1


async def test_gap_is_nothing_to_an_edge_that_has_nobody_to_ask(clock: Clock) -> None:
    edge = shared_edge(Origin(LONG), clock, max_purge_lag_seconds=1.0)
    await ask(edge)
    clock.now += 500
    assert (await ask(edge)).field(STATUS) == hit(100)


async def test_unkept_answer_with_a_tag_is_fetched_after_a_purge_as_before() -> None:
    origin = Origin(whole(b"no-store", (b"cache-tag", b"a")))
    edge = shared_edge(origin)
    await ask(edge)
    assert edge.purge_tags(["a"]) == 0
    assert (await ask(edge)).field(STATUS) == unkept()
    assert len(origin.requests) == 2
