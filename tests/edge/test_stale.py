"""Answers past their freshness: given while they are renewed, standing in for errors, validated (RFC 5861, RFC 9111 §4.2.4 and §4.3)."""

from __future__ import annotations

import asyncio
import logging

import pytest

from edge.asgi import Headers, Response, Scope
from edge.store import MEMORY_TIER
from tests.edge.asgi import (
    Clock,
    Origin,
    Reply,
    all_wait,
    ask,
    collapsed,
    date,
    failed,
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
ETAG = (b"etag", b'"one"')
MODIFIED = (b"last-modified", date(-3_600))
WITHIN = whole(b"max-age=60, stale-while-revalidate=30", ETAG)
ON_ERROR = whole(b"max-age=60, stale-if-error=600", ETAG)
NO_MATCH, NOT_SINCE = b"if-none-match", b"if-modified-since"


def renewed(answer: Response) -> Response:
    """Return an answer of the same fields with another body as long."""
    return answer._replace(body=b"renewed")


class Validating:
    """What an origin answers that has `answer`: 304 with `fields` to whoever names it, else the whole."""

    def __init__(self, answer: Response, *fields: tuple[bytes, bytes]) -> None:
        self.answer = answer
        self.fields = fields

    def __call__(self, scope: Scope) -> Response:
        current = {value for name, value in self.answer.headers if name in {b"etag", b"last-modified"}}
        named = {value for name, value in scope["headers"] if name in {NO_MATCH, NOT_SINCE}}
        return Response(304, list(self.fields), b"") if named & current else self.answer


def instead(status: int, ttl: int) -> bytes:
    """Return the `Cache-Status` of a stale answer that stands in for an error."""
    return f'darkroom; fwd=stale; fwd-status={status}; ttl={ttl}; detail=stale-if-error; key="/i/picture"'.encode()


def validated(ttl: int, *words: str, reason: str = "stale") -> bytes:
    """Return the `Cache-Status` of an answer of which the origin said that it still holds."""
    return "; ".join(("darkroom", f"fwd={reason}", "fwd-status=304", *(words or ("stored",)), f"ttl={ttl}", 'key="/i/picture"')).encode()


# stale-while-revalidate


async def test_stale_answer_is_given_while_one_request_renews_it(clock: Clock) -> None:
    origin = Origin(WITHIN, held=True)
    await origin.release(first=1)
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 65
    origin.answer = renewed(WITHIN)
    stale = Reply(200, [*WITHIN.headers, (b"age", b"65"), (STATUS, hit(-5)), MEMORY_TIER], b"picture")
    assert [await ask(edge) for _ in range(5)] == [stale] * 5
    await origin.asked(2)
    assert origin.asked_with(NO_MATCH) == [[], [(NO_MATCH, b'"one"')]]
    await origin.release()
    await settled(edge)
    assert await ask(edge) == Reply(200, [*WITHIN.headers, (b"age", b"0"), (STATUS, hit(60)), MEMORY_TIER], b"renewed")
    assert len(origin.requests) == 2
    assert edge.counters["any"].stale == 5
    assert edge._concurrent_misses == 0


async def test_stale_answer_is_renewed_by_a_304_in_the_background(clock: Clock) -> None:
    edge = shared_edge(Origin(Validating(WITHIN, (b"x-seen", b"2"))), clock)
    await ask(edge)
    clock.now += 65
    assert (await ask(edge)).field(STATUS) == hit(-5)
    await settled(edge)
    assert await ask(edge) == Reply(200, [*WITHIN.headers, (b"x-seen", b"2"), (b"age", b"0"), (STATUS, hit(60)), MEMORY_TIER], b"picture")
    assert edge.counters["any"].revalidated == 1


@pytest.mark.parametrize("condition", [(NO_MATCH, b'"one"'), (b"range", b"bytes=0-1")])
async def test_stale_answer_is_renewed_whatever_part_a_client_asks_for(condition: tuple[bytes, bytes], clock: Clock) -> None:
    origin = Origin(WITHIN)
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 65
    origin.answer = renewed(WITHIN)
    reply = await ask(edge, headers=[condition])
    assert (reply.status, reply.field(STATUS)) == (304 if condition[0] == NO_MATCH else 206, hit(-5))
    await settled(edge)
    reply = await ask(edge)
    assert (reply.body, reply.field(STATUS)) == (b"renewed", hit(60))


async def test_stale_answer_past_its_window_is_waited_for(clock: Clock) -> None:
    origin = Origin(WITHIN)
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 89.5
    assert (await ask(edge)).field(STATUS) == hit(-29)
    await settled(edge)
    clock.now += 90
    origin.answer = renewed(WITHIN)
    assert await ask(edge) == Reply(200, [*WITHIN.headers, (STATUS, stored(reason="stale"))], b"renewed")


async def test_stale_answer_is_not_renewed_when_all_places_are_taken(clock: Clock) -> None:
    origin = Origin(WITHIN, held=True)
    await origin.release(first=1)
    edge = shared_edge(origin, clock, max_concurrent_misses=1)
    await ask(edge)
    clock.now += 65
    cold = visit(edge, "/cold")
    await cold.waits()
    await origin.asked(2)
    assert (await ask(edge)).field(STATUS) == hit(-5)
    assert [scope["path"] for scope in origin.requests] == ["/i/picture", "/cold"]
    await origin.release()
    await cold.reply()
    assert (await ask(edge)).field(STATUS) == hit(-5)
    await settled(edge)
    assert (await ask(edge)).field(STATUS) == hit(60)


async def test_renewal_takes_a_place_until_it_ends(clock: Clock) -> None:
    origin = Origin(WITHIN, held=True)
    await origin.release(first=1)
    edge = shared_edge(origin, clock, max_concurrent_misses=1)
    await ask(edge)
    clock.now += 65
    await ask(edge)
    await origin.asked(2)
    assert (await ask(edge, "/cold")).field(STATUS) == unkept("/cold", word="detail=busy")
    await origin.release()
    await settled(edge)
    assert (await ask(edge, "/cold")).field(STATUS) == stored(key="/cold")


async def test_renewal_of_an_entry_purged_meanwhile_is_not_kept_and_not_joined(clock: Clock) -> None:
    origin = Origin(WITHIN, held=True)
    await origin.release(first=1)
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 65
    assert (await ask(edge)).field(STATUS) == hit(-5)
    await origin.asked(2)
    edge.purge(b"/i/picture")
    after = visit(edge)
    await after.waits()
    await origin.asked(3)
    await origin.release(first=2)
    await asyncio.wait(set(edge._origin._tasks), return_when=asyncio.FIRST_COMPLETED)
    assert edge.stored_entries == 0
    origin.answer = renewed(WITHIN)
    await origin.release()
    assert await after.reply() == Reply(200, [*WITHIN.headers, (STATUS, stored())], b"renewed")
    assert origin.asked_with(NO_MATCH)[2] == []


async def test_renewal_that_fails_keeps_the_old_answer_and_is_tried_again(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    origin = Origin(WITHIN)
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 65
    origin.error = ValueError("secret detail")
    for asked in (2, 3):
        with caplog.at_level(logging.ERROR):
            assert (await ask(edge)).field(STATUS) == hit(-5)
            await settled(edge)
        assert len(origin.requests) == asked
    assert [record.getMessage() for record in caplog.records] == ["the application failed"] * 2
    origin.error = None
    await ask(edge)
    await settled(edge)
    assert (await ask(edge)).field(STATUS) == hit(60)
    assert edge._concurrent_misses == 0


async def test_renewal_that_finds_nothing_any_more_drops_the_old_answer(clock: Clock) -> None:
    origin = Origin(WITHIN)
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 65
    origin.answer = whole(b"no-store", status=404, body=b"gone")
    assert (await ask(edge)).status == 200
    await settled(edge)
    assert edge.stored_entries == 0
    assert await ask(edge) == Reply(404, [*origin.answer.headers, (STATUS, unkept())], b"gone")


async def test_renewal_is_joined_by_a_client_that_does_not_accept_a_stale_answer(clock: Clock) -> None:
    origin = Origin(WITHIN, held=True)
    await origin.release(first=1)
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 65
    await ask(edge)
    await origin.asked(2)
    strict = visit(edge, headers=[(b"cache-control", b"no-cache")])
    await strict.waits()
    origin.answer = renewed(WITHIN)
    await origin.release()
    assert await strict.reply() == Reply(200, [*WITHIN.headers, (STATUS, collapsed(reason="stale"))], b"renewed")
    assert len(origin.requests) == 2
    await settled(edge)
    assert edge._concurrent_misses == 0


@pytest.mark.parametrize("word", [b"must-revalidate", b"proxy-revalidate"])
async def test_stale_answer_that_must_be_validated_is_never_given_while_it_is(word: bytes, clock: Clock) -> None:
    origin = Origin(whole(b"max-age=60, stale-while-revalidate=30, " + word))
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 65
    assert (await ask(edge)).field(STATUS) == stored(reason="stale")


# stale-if-error


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_stale_answer_stands_in_for_an_error(status: int, clock: Clock) -> None:
    origin = Origin(ON_ERROR)
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 70
    origin.answer = whole(b"no-store", status=status, body=b"no")
    for _ in range(2):
        assert await ask(edge) == Reply(200, [*ON_ERROR.headers, (b"age", b"70"), (STATUS, instead(status, -10))], b"picture")
    assert len(origin.requests) == 3
    assert edge.counters["any"].stale == 2
    origin.answer = renewed(ON_ERROR)
    assert await ask(edge) == Reply(200, [*ON_ERROR.headers, (STATUS, stored(reason="stale"))], b"renewed")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_stale_answer_stands_in_for_an_origin_that_raises(method: str, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    origin = Origin(ON_ERROR)
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 70
    origin.error = OSError("secret path")
    with caplog.at_level(logging.ERROR):
        reply = await ask(edge, method=method)
    body = b"picture" if method == "GET" else b""
    assert reply == Reply(200, [*ON_ERROR.headers, (b"age", b"70"), (STATUS, instead(500, -10))], body)
    assert [record.getMessage() for record in caplog.records] == ["the application failed"]


async def test_stale_answer_stands_in_for_each_client_as_it_asked(clock: Clock) -> None:
    origin = Origin(ON_ERROR, held=True)
    await origin.release(first=1)
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 70
    origin.answer = whole(b"no-store", (b"darkroom-cdn-cache-control", b"max-age=1"), status=503, body=b"no")
    visits = [visit(edge), visit(edge, headers=[(NO_MATCH, b'"one"')]), visit(edge, headers=[(b"range", b"bytes=2-3")])]
    await all_wait(visits)
    await origin.release()
    full, unmodified, part = [await each.reply() for each in visits]
    assert full == Reply(200, [*ON_ERROR.headers, (b"age", b"70"), (STATUS, instead(503, -10))], b"picture")
    of_both = [pair for pair in ON_ERROR.headers if pair[0] in {b"cache-control", b"etag"}]
    assert unmodified == Reply(304, [*of_both, (b"age", b"70"), (STATUS, instead(503, -10))], b"")
    assert (part.status, part.body, part.field(b"content-range")) == (206, b"ct", b"bytes 2-3/7")
    assert len(origin.requests) == 2


@pytest.mark.parametrize("status", [400, 404, 410, 429, 501])
async def test_stale_answer_never_stands_in_for_what_is_no_error_of_the_origin(status: int, clock: Clock) -> None:
    origin = Origin(ON_ERROR)
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 70
    origin.answer = whole(b"no-store", status=status, body=b"no")
    assert await ask(edge) == Reply(status, [*origin.answer.headers, (STATUS, unkept(reason="stale"))], b"no")
    assert edge.stored_entries == 0


async def test_stale_answer_too_old_to_stand_in_gives_way_to_the_error(clock: Clock) -> None:
    origin = Origin(ON_ERROR)
    edge = shared_edge(origin, clock)
    await ask(edge)
    origin.answer = whole(b"no-store", status=503, body=b"no")
    clock.now += 659.5
    assert (await ask(edge)).field(STATUS) == instead(503, -599)
    clock.now += 0.5
    assert await ask(edge) == Reply(503, [*origin.answer.headers, (STATUS, unkept(reason="stale"))], b"no")
    assert edge.stored_entries == 1


async def test_stale_answer_stands_in_for_as_long_as_the_client_accepts(clock: Clock) -> None:
    origin = Origin(whole(b"max-age=60", ETAG))
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 70
    origin.answer = whole(b"no-store", status=503, body=b"no")
    for accepts, status in (
        (b"stale-if-error=11", 200),
        (b"stale-if-error=10", 503),
        (b"stale-if-error=ten", 503),
        (b"stale-if-error", 503),
    ):
        assert (await ask(edge, headers=[(b"cache-control", accepts)])).status == status


@pytest.mark.parametrize("word", [b"must-revalidate", b"proxy-revalidate"])
async def test_stale_answer_that_must_be_validated_never_stands_in(word: bytes, clock: Clock) -> None:
    origin = Origin(whole(b"max-age=60, stale-if-error=600, " + word))
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 70
    origin.answer = whole(b"no-store", status=503, body=b"no")
    reply = await ask(edge, headers=[(b"cache-control", b"stale-if-error=600")])
    assert reply == Reply(503, [*origin.answer.headers, (STATUS, unkept(reason="stale"))], b"no")


async def test_stale_answer_for_shared_caches_stands_in_if_the_origin_says_so_not_if_the_client_does(clock: Clock) -> None:
    origin = Origin(whole(b"s-maxage=60, stale-if-error=60"))
    edge = shared_edge(origin, clock)
    await ask(edge)
    origin.answer = whole(b"no-store", status=503, body=b"no")
    clock.now += 70
    assert (await ask(edge)).field(STATUS) == instead(503, -10)
    clock.now += 60
    assert (await ask(edge, headers=[(b"cache-control", b"stale-if-error=600")])).status == 503


async def test_answer_of_no_cache_never_stands_in(clock: Clock) -> None:
    origin = Origin(whole(b"no-cache, stale-if-error=600", ETAG))
    edge = shared_edge(origin, clock)
    await ask(edge)
    origin.answer = whole(b"no-store", status=503, body=b"no")
    assert (await ask(edge, headers=[(b"cache-control", b"stale-if-error=600")])).status == 503


async def test_busy_edge_gives_the_stale_answer_that_may_stand_in(clock: Clock) -> None:
    origin = Origin(ON_ERROR, held=True)
    await origin.release(first=1)
    edge = shared_edge(origin, clock, max_concurrent_misses=1)
    await ask(edge)
    clock.now += 70
    cold = visit(edge, "/cold")
    await cold.waits()
    reply = await ask(edge)
    assert (reply.status, reply.body, reply.field(b"age")) == (200, b"picture", b"70")
    assert [scope["path"] for scope in origin.requests] == ["/i/picture", "/cold"]
    await origin.release()
    await cold.reply()


# Validation


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ([ETAG], [(NO_MATCH, b'"one"')]),
        ([(b"etag", b'W/"one"')], [(NO_MATCH, b'W/"one"')]),
        ([MODIFIED], [(NOT_SINCE, MODIFIED[1])]),
        ([ETAG, MODIFIED], [(NO_MATCH, b'"one"'), (NOT_SINCE, MODIFIED[1])]),
    ],
)
async def test_stale_answer_is_validated_by_what_it_is_known_by(fields: Headers, asked: Headers, clock: Clock) -> None:
    current = whole(b"max-age=60", *fields)
    origin = Origin(Validating(current))
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 70
    assert await ask(edge) == Reply(200, [*current.headers, (b"age", b"0"), (STATUS, validated(60))], b"picture")
    assert origin.asked_with(NO_MATCH, NOT_SINCE) == [[], asked]
    assert await ask(edge) == Reply(200, [*current.headers, (b"age", b"0"), (STATUS, hit(60)), MEMORY_TIER], b"picture")


async def test_conditions_of_the_client_give_way_to_those_of_the_edge(clock: Clock) -> None:
    current = whole(b"max-age=60", ETAG)
    origin = Origin(Validating(current))
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 70
    own = [(NO_MATCH, b'"two"'), (NOT_SINCE, date()), (b"range", b"bytes=0-1"), (b"if-match", b'"one"')]
    reply = await ask(edge, headers=own)
    assert (reply.status, reply.body, reply.field(STATUS)) == (206, b"pi", validated(60))
    assert origin.asked_with(NO_MATCH, NOT_SINCE, b"range", b"if-match")[1] == [(NO_MATCH, b'"one"')]


async def test_client_that_names_what_the_origin_confirms_gets_304(clock: Clock) -> None:
    current = whole(b"max-age=60", ETAG)
    edge = shared_edge(Origin(Validating(current)), clock)
    await ask(edge)
    clock.now += 70
    reply = await ask(edge, headers=[(NO_MATCH, b'"one"')])
    assert reply == Reply(304, [(b"cache-control", b"max-age=60"), ETAG, (b"age", b"0"), (STATUS, validated(60))], b"")


async def test_304_puts_its_fields_in_the_place_of_those_kept_but_not_those_of_the_body(clock: Clock) -> None:
    current = whole(b"max-age=60", ETAG, (b"content-type", b"image/webp"), (b"x-a", b"1"), (b"x-a", b"2"), (b"x-b", b"1"))
    of_body = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"0"),
        (b"content-encoding", b"br"),
        (b"content-range", b"bytes 0-1/2"),
    ]
    newer = [(b"cache-control", b"max-age=90"), (b"x-a", b"3"), (b"x-c", b"4"), ETAG]
    edge = shared_edge(Origin(Validating(current, *newer, *of_body)), clock)
    await ask(edge)
    clock.now += 70
    kept = [(b"content-length", b"7"), (b"accept-ranges", b"bytes"), (b"content-type", b"image/webp"), (b"x-b", b"1")]
    assert await ask(edge) == Reply(200, [*kept, *newer, (b"age", b"0"), (STATUS, validated(90))], b"picture")
    assert await ask(edge) == Reply(200, [*kept, *newer, (b"age", b"0"), (STATUS, hit(90)), MEMORY_TIER], b"picture")


async def test_304_that_says_nothing_of_caching_renews_on_the_terms_kept(clock: Clock) -> None:
    current = whole(b"private", ETAG, (b"darkroom-cdn-cache-control", b"max-age=60"))
    edge = shared_edge(Origin(Validating(current)), clock)
    await ask(edge)
    clock.now += 70
    assert await ask(edge) == Reply(200, [*current.headers[:-1], (b"age", b"0"), (STATUS, validated(60))], b"picture")
    assert (await ask(edge)).field(STATUS) == hit(60)


async def test_304_with_an_age_is_as_old_as_it_says(clock: Clock) -> None:
    current = whole(b"max-age=60", ETAG)
    edge = shared_edge(Origin(Validating(current, (b"age", b"20"))), clock)
    await ask(edge)
    clock.now += 70
    assert await ask(edge) == Reply(200, [*current.headers, (b"age", b"20"), (STATUS, validated(40))], b"picture")
    clock.now += 5
    assert (await ask(edge)).field(b"age") == b"25"


async def test_304_about_something_else_has_the_whole_asked_for_again(clock: Clock) -> None:
    origin = Origin(whole(b"max-age=60", ETAG))
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 70
    other = whole(b"max-age=60", (b"etag", b'"two"'), body=b"renewed")
    origin.answer = lambda scope: (
        Response(304, [(b"etag", b'"two"')], b"") if any(pair[0] == NO_MATCH for pair in scope["headers"]) else other
    )
    visits = [visit(edge) for _ in range(3)]
    leader, *waiters = [await each.reply() for each in visits]
    assert leader == Reply(200, [*other.headers, (STATUS, stored(reason="stale"))], b"renewed")
    assert waiters == [Reply(200, [*other.headers, (STATUS, collapsed(reason="stale"))], b"renewed")] * 2
    assert origin.asked_with(NO_MATCH) == [[], [(NO_MATCH, b'"one"')], []]


async def test_304_that_nobody_asked_for_is_sent_and_not_kept() -> None:
    origin = Origin(Response(304, [(b"cache-control", b"max-age=60"), ETAG], b""))
    edge = shared_edge(origin)
    for _ in range(2):
        assert await ask(edge) == Reply(304, [(b"cache-control", b"max-age=60"), ETAG, (STATUS, unkept())], b"")
    assert edge.stored_entries == 0


@pytest.mark.parametrize("directives", [b"no-cache", b"no-cache, max-age=60", b"max-age=0", b"max-age=0, must-revalidate"])
@pytest.mark.parametrize("validator", [ETAG, MODIFIED])
async def test_answer_to_be_validated_is_validated_at_each_use(directives: bytes, validator: tuple[bytes, bytes]) -> None:
    current = whole(directives, validator)
    origin = Origin(Validating(current))
    edge = shared_edge(origin)
    assert await ask(edge) == Reply(200, [*current.headers, (STATUS, stored(0))], b"picture")
    for _ in range(3):
        assert await ask(edge) == Reply(200, [*current.headers, (b"age", b"0"), (STATUS, validated(0))], b"picture")
    assert len(origin.requests) == 4
    changed = origin.answer = whole(directives, (b"etag", b'"two"'), body=b"renewed")
    assert await ask(edge) == Reply(200, [*changed.headers, (STATUS, stored(0, reason="stale"))], b"renewed")


@pytest.mark.parametrize("directives", [b"no-cache", b"max-age=0"])
async def test_answer_to_be_validated_that_cannot_be_is_not_kept(directives: bytes) -> None:
    origin = Origin(whole(directives))
    edge = shared_edge(origin)
    assert [(await ask(edge)).field(STATUS) for _ in range(2)] == [unkept()] * 2
    assert edge.stored_entries == 0


async def test_answer_to_be_validated_is_validated_for_each_client_that_waits() -> None:
    origin = Origin(Validating(whole(b"no-cache", ETAG)), held=True)
    edge = shared_edge(origin)
    visits = [visit(edge) for _ in range(3)]
    await all_wait(visits)
    await origin.release()
    leader, *waiters = [await each.reply() for each in visits]
    assert leader.field(STATUS) == stored(0)
    assert [reply.field(STATUS) for reply in waiters] == [validated(0)] * 2
    assert origin.asked_with(NO_MATCH) == [[], [(NO_MATCH, b'"one"')], [(NO_MATCH, b'"one"')]]


async def test_private_answer_with_a_validator_is_not_kept() -> None:
    edge = shared_edge(Origin(whole(b"private, no-cache", ETAG)))
    assert (await ask(edge)).field(STATUS) == unkept()
    assert edge.stored_entries == 0


async def test_answer_that_is_no_200_is_asked_for_anew_not_validated(clock: Clock) -> None:
    origin = Origin(whole(b"max-age=60", ETAG, status=404))
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 70
    assert (await ask(edge)).field(STATUS) == stored(reason="stale")
    assert origin.asked_with(NO_MATCH) == [[], []]


@pytest.mark.parametrize("now", [whole(b"private, max-age=60"), whole(b"no-store"), whole(b"max-age=60", (b"set-cookie", b"a=b"))])
async def test_answer_that_may_not_be_kept_any_more_drops_the_one_kept(now: Response, clock: Clock) -> None:
    origin = Origin(whole(b"max-age=60, stale-if-error=600", ETAG))
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 70
    origin.answer = now
    assert await ask(edge) == Reply(200, [*now.headers, (STATUS, unkept(reason="stale"))], b"picture")
    assert edge.stored_entries == 0
    assert (await ask(edge)).field(STATUS) == unkept()
    assert origin.asked_with(NO_MATCH)[2] == []


async def test_304_that_forbids_to_keep_drops_the_one_kept(clock: Clock) -> None:
    current = whole(b"max-age=60", ETAG)
    edge = shared_edge(Origin(Validating(current, (b"cache-control", b"private"))), clock)
    await ask(edge)
    clock.now += 70
    reply = await ask(edge)
    assert reply.field(STATUS) == b'darkroom; fwd=stale; fwd-status=304; key="/i/picture"'
    assert (reply.status, reply.body, reply.field(b"cache-control")) == (200, b"picture", b"private")
    assert edge.stored_entries == 0


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_error_of_the_origin_keeps_what_was_to_be_validated(status: int, clock: Clock) -> None:
    current = whole(b"max-age=60", ETAG)
    origin = Origin(current)
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 70
    origin.answer = whole(b"no-store", status=status, body=b"no")
    assert await ask(edge) == Reply(status, [*origin.answer.headers, (STATUS, unkept(reason="stale"))], b"no")
    origin.answer = Validating(current)
    assert (await ask(edge)).field(STATUS) == validated(60)


async def test_origin_that_raises_keeps_what_was_to_be_validated(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    current = whole(b"max-age=60", ETAG)
    origin = Origin(Validating(current))
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 70
    origin.error = ValueError("secret detail")
    with caplog.at_level(logging.ERROR):
        assert await ask(edge) == failed(unkept(reason="stale"))
    origin.error = None
    assert (await ask(edge)).field(STATUS) == validated(60)


@pytest.mark.parametrize("purge", ["address", "tag"])
@pytest.mark.parametrize("vary", [(), ((b"vary", b"accept"),)])
async def test_stale_answer_that_is_purged_while_the_origin_fails_never_stands_in(clock: Clock, purge: str, vary: Headers) -> None:
    origin = Origin(whole(b"max-age=60, stale-if-error=600", ETAG, (b"cache-tag", b"bad"), *vary))
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 61
    await origin.hold()
    origin.answer = Response(503, [], b"out")
    waiting = visit(edge)
    await origin.asked(2)
    if purge == "tag":
        edge.purge_tags(["bad"])
    else:
        edge.purge(b"/i/picture")
    await origin.release()
    assert (await waiting.reply()).status == 503


async def test_stale_answer_that_was_renewed_while_the_origin_failed_stands_in_as_it_is_now(clock: Clock) -> None:
    origin = Origin(ON_ERROR)
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 61
    await origin.hold()
    origin.answer = renewed(ON_ERROR)
    other = visit(edge)
    await origin.asked(2)
    # One that joins nobody.
    alone = visit(edge, headers=[(b"authorization", b"x")])
    await origin.asked(3)
    await origin.release(first=2)
    assert (await other.reply()).body == b"renewed"
    origin.answer = Response(503, [], b"out")
    await origin.release()
    assert (await alone.reply()).body == b"renewed"


@pytest.mark.parametrize("field", [(b"set-cookie", b"a=b"), (b"vary", b"*")])
async def test_304_for_one_client_alone_drops_the_one_kept(clock: Clock, field: tuple[bytes, bytes]) -> None:
    origin = Origin(Validating(whole(b"max-age=60", ETAG), field))
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 61
    reply = await ask(edge)
    assert (reply.status, reply.body, reply.field(field[0])) == (200, b"picture", field[1])
    assert edge.stored_entries == 0


async def test_stale_answer_is_not_renewed_by_a_client_that_wants_nothing_kept(clock: Clock) -> None:
    origin = Origin(WITHIN)
    edge = shared_edge(origin, clock)
    await ask(edge)
    clock.now += 61
    assert (await ask(edge, headers=[(b"cache-control", b"no-store")])).field(STATUS) == hit(-1)
    await settled(edge)
    assert len(origin.requests) == 1
    await ask(edge)
    await settled(edge)
    assert len(origin.requests) == 2
