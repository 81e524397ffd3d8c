"""Stale responses: served during revalidation, in place of errors, and validated (RFC 5861, RFC 9111 §4.2.4 and §4.3)."""

from __future__ import annotations

import asyncio
import logging

import pytest

from edge.asgi import Headers, Response, Scope
from edge.store import MEMORY_TIER
from tests.edge.asgi import (
    ClientResponse,
    ManualClock,
    Origin,
    collapsed,
    date,
    failed,
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
ETAG = (b"etag", b'"one"')
MODIFIED = (b"last-modified", date(-3_600))
WITHIN = full_response(b"max-age=60, stale-while-revalidate=30", ETAG)
ON_ERROR = full_response(b"max-age=60, stale-if-error=600", ETAG)
NO_MATCH, NOT_SINCE = b"if-none-match", b"if-modified-since"


def renewed(response: Response) -> Response:
    """Return a response with the same headers and another body of the same length."""
    return response._replace(body=b"renewed")


class Validating:
    """Responds with 304 and `fields` to a request that names the entity tag, and with the whole response otherwise."""

    def __init__(self, response: Response, *fields: tuple[bytes, bytes]) -> None:
        self.response = response
        self.fields = fields

    def __call__(self, scope: Scope) -> Response:
        current = {value for name, value in self.response.headers if name in {b"etag", b"last-modified"}}
        named = {value for name, value in scope["headers"] if name in {NO_MATCH, NOT_SINCE}}
        return Response(304, list(self.fields), b"") if named & current else self.response


def instead(status: int, ttl: int) -> bytes:
    """Return the `Cache-Status` of a stale response in place of an error."""
    return f'darkroom; fwd=stale; fwd-status={status}; ttl={ttl}; detail=stale-if-error; key="/i/picture"'.encode()


def validated(ttl: int, *words: str, reason: str = "stale") -> bytes:
    """Return the `Cache-Status` of a stored response that the origin has confirmed."""
    return "; ".join(("darkroom", f"fwd={reason}", "fwd-status=304", *(words or ("stored",)), f"ttl={ttl}", 'key="/i/picture"')).encode()


# stale-while-revalidate


async def test_stale_while_revalidate_serves_stale_while_one_request_revalidates(clock: ManualClock) -> None:
    origin = Origin(WITHIN, held=True)
    await origin.release(first=1)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 65
    origin.response = renewed(WITHIN)
    stale = ClientResponse(200, [*WITHIN.headers, (b"age", b"65"), (STATUS, hit(-5)), MEMORY_TIER], b"picture")
    assert [await send_request(edge) for _ in range(5)] == [stale] * 5
    await origin.until_requested(2)
    assert origin.requested_headers(NO_MATCH) == [[], [(NO_MATCH, b'"one"')]]
    await origin.release()
    await settle(edge)
    assert await send_request(edge) == ClientResponse(200, [*WITHIN.headers, (b"age", b"0"), (STATUS, hit(60)), MEMORY_TIER], b"renewed")
    assert len(origin.requests) == 2
    assert edge.counters["any", 200].stale == 5
    assert edge._miss_slots.in_use == 0


async def test_stale_while_revalidate_revalidates_by_a_304_in_the_background(clock: ManualClock) -> None:
    edge = shared_edge(Origin(Validating(WITHIN, (b"x-seen", b"2"))), clock)
    await send_request(edge)
    clock.now += 65
    assert (await send_request(edge)).field(STATUS) == hit(-5)
    await settle(edge)
    assert await send_request(edge) == ClientResponse(
        200, [*WITHIN.headers, (b"x-seen", b"2"), (b"age", b"0"), (STATUS, hit(60)), MEMORY_TIER], b"picture"
    )
    assert edge.counters["any", 304].fetches == 1


@pytest.mark.parametrize("condition", [(NO_MATCH, b'"one"'), (b"range", b"bytes=0-1")])
async def test_stale_while_revalidate_revalidates_whatever_range_a_client_requests(
    condition: tuple[bytes, bytes], clock: ManualClock
) -> None:
    origin = Origin(WITHIN)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 65
    origin.response = renewed(WITHIN)
    response = await send_request(edge, headers=[condition])
    assert (response.status, response.field(STATUS)) == (304 if condition[0] == NO_MATCH else 206, hit(-5))
    await settle(edge)
    response = await send_request(edge)
    assert (response.body, response.field(STATUS)) == (b"renewed", hit(60))


async def test_stale_while_revalidate_after_its_window_waits_for_the_origin(clock: ManualClock) -> None:
    origin = Origin(WITHIN)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 89.5
    assert (await send_request(edge)).field(STATUS) == hit(-29)
    await settle(edge)
    clock.now += 90
    origin.response = renewed(WITHIN)
    assert await send_request(edge) == ClientResponse(200, [*WITHIN.headers, (STATUS, stored(reason="stale"))], b"renewed")


async def test_stale_while_revalidate_without_a_free_place_does_not_revalidate(clock: ManualClock) -> None:
    origin = Origin(WITHIN, held=True)
    await origin.release(first=1)
    edge = shared_edge(origin, clock, max_concurrent_misses=1)
    await send_request(edge)
    clock.now += 65
    cold = open_request(edge, "/cold")
    await cold.until_waiting()
    await origin.until_requested(2)
    assert (await send_request(edge)).field(STATUS) == hit(-5)
    assert [scope["path"] for scope in origin.requests] == ["/i/picture", "/cold"]
    await origin.release()
    await cold.response()
    assert (await send_request(edge)).field(STATUS) == hit(-5)
    await settle(edge)
    assert (await send_request(edge)).field(STATUS) == hit(60)


async def test_revalidation_occupies_a_place_until_it_ends(clock: ManualClock) -> None:
    origin = Origin(WITHIN, held=True)
    await origin.release(first=1)
    edge = shared_edge(origin, clock, max_concurrent_misses=1)
    await send_request(edge)
    clock.now += 65
    await send_request(edge)
    await origin.until_requested(2)
    assert (await send_request(edge, "/cold")).field(STATUS) == not_stored("/cold", word="detail=busy")
    await origin.release()
    await settle(edge)
    assert (await send_request(edge, "/cold")).field(STATUS) == stored(key="/cold")


async def test_revalidation_of_an_entry_purged_meanwhile_is_neither_stored_nor_joined(clock: ManualClock) -> None:
    origin = Origin(WITHIN, held=True)
    await origin.release(first=1)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 65
    assert (await send_request(edge)).field(STATUS) == hit(-5)
    await origin.until_requested(2)
    edge.purge(b"/i/picture")
    after = open_request(edge)
    await after.until_waiting()
    await origin.until_requested(3)
    await origin.release(first=2)
    await asyncio.wait(set(edge._origin._tasks), return_when=asyncio.FIRST_COMPLETED)
    assert edge.stored_entries == 0
    origin.response = renewed(WITHIN)
    await origin.release()
    assert await after.response() == ClientResponse(200, [*WITHIN.headers, (STATUS, stored())], b"renewed")
    assert origin.requested_headers(NO_MATCH)[2] == []


async def test_revalidation_that_fails_keeps_the_stale_response_and_is_tried_again(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    origin = Origin(WITHIN)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 65
    origin.error = ValueError("secret detail")
    for requests in (2, 3):
        with caplog.at_level(logging.ERROR):
            assert (await send_request(edge)).field(STATUS) == hit(-5)
            await settle(edge)
        assert len(origin.requests) == requests
    assert [record.getMessage() for record in caplog.records] == ["the application failed"] * 2
    origin.error = None
    await send_request(edge)
    await settle(edge)
    assert (await send_request(edge)).field(STATUS) == hit(60)
    assert edge._miss_slots.in_use == 0


async def test_revalidation_that_finds_404_removes_the_stale_response(clock: ManualClock) -> None:
    origin = Origin(WITHIN)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 65
    origin.response = full_response(b"no-store", status=404, body=b"gone")
    assert (await send_request(edge)).status == 200
    await settle(edge)
    assert edge.stored_entries == 0
    assert await send_request(edge) == ClientResponse(404, [*origin.response.headers, (STATUS, not_stored())], b"gone")


async def test_revalidation_is_joined_by_a_client_that_does_not_accept_stale_responses(clock: ManualClock) -> None:
    origin = Origin(WITHIN, held=True)
    await origin.release(first=1)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 65
    await send_request(edge)
    await origin.until_requested(2)
    strict = open_request(edge, headers=[(b"cache-control", b"no-cache")])
    await strict.until_waiting()
    origin.response = renewed(WITHIN)
    await origin.release()
    assert await strict.response() == ClientResponse(200, [*WITHIN.headers, (STATUS, collapsed(reason="stale"))], b"renewed")
    assert len(origin.requests) == 2
    await settle(edge)
    assert edge._miss_slots.in_use == 0


@pytest.mark.parametrize("word", [b"must-revalidate", b"proxy-revalidate"])
async def test_must_revalidate_is_never_served_stale_during_revalidation(word: bytes, clock: ManualClock) -> None:
    origin = Origin(full_response(b"max-age=60, stale-while-revalidate=30, " + word))
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 65
    assert (await send_request(edge)).field(STATUS) == stored(reason="stale")


# stale-if-error


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_stale_if_error_replaces_an_error(status: int, clock: ManualClock) -> None:
    origin = Origin(ON_ERROR)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 70
    origin.response = full_response(b"no-store", status=status, body=b"no")
    for _ in range(2):
        assert await send_request(edge) == ClientResponse(
            200, [*ON_ERROR.headers, (b"age", b"70"), (STATUS, instead(status, -10))], b"picture"
        )
    assert len(origin.requests) == 3
    assert edge.counters["any", 200].stale == 2
    origin.response = renewed(ON_ERROR)
    assert await send_request(edge) == ClientResponse(200, [*ON_ERROR.headers, (STATUS, stored(reason="stale"))], b"renewed")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_stale_if_error_replaces_an_exception_of_the_origin(
    method: str, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    origin = Origin(ON_ERROR)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 70
    origin.error = OSError("secret path")
    with caplog.at_level(logging.ERROR):
        response = await send_request(edge, method=method)
    body = b"picture" if method == "GET" else b""
    assert response == ClientResponse(200, [*ON_ERROR.headers, (b"age", b"70"), (STATUS, instead(500, -10))], body)
    assert [record.getMessage() for record in caplog.records] == ["the application failed"]


async def test_stale_if_error_is_evaluated_for_each_client_by_its_conditions(clock: ManualClock) -> None:
    origin = Origin(ON_ERROR, held=True)
    await origin.release(first=1)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 70
    origin.response = full_response(b"no-store", (b"darkroom-cdn-cache-control", b"max-age=1"), status=503, body=b"no")
    requests = [
        open_request(edge),
        open_request(edge, headers=[(NO_MATCH, b'"one"')]),
        open_request(edge, headers=[(b"range", b"bytes=2-3")]),
    ]
    await wait_for_all(requests)
    await origin.release()
    full, unmodified, part = [await each.response() for each in requests]
    assert full == ClientResponse(200, [*ON_ERROR.headers, (b"age", b"70"), (STATUS, instead(503, -10))], b"picture")
    of_both = [pair for pair in ON_ERROR.headers if pair[0] in {b"cache-control", b"etag"}]
    assert unmodified == ClientResponse(304, [*of_both, (b"age", b"70"), (STATUS, instead(503, -10))], b"")
    assert (part.status, part.body, part.field(b"content-range")) == (206, b"ct", b"bytes 2-3/7")
    assert len(origin.requests) == 2


@pytest.mark.parametrize("status", [400, 404, 410, 429, 501])
async def test_stale_if_error_never_replaces_other_statuses(status: int, clock: ManualClock) -> None:
    origin = Origin(ON_ERROR)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 70
    origin.response = full_response(b"no-store", status=status, body=b"no")
    assert await send_request(edge) == ClientResponse(status, [*origin.response.headers, (STATUS, not_stored(reason="stale"))], b"no")
    assert edge.stored_entries == 0


async def test_stale_if_error_after_its_window_is_the_error(clock: ManualClock) -> None:
    origin = Origin(ON_ERROR)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    origin.response = full_response(b"no-store", status=503, body=b"no")
    clock.now += 659.5
    assert (await send_request(edge)).field(STATUS) == instead(503, -599)
    clock.now += 0.5
    assert await send_request(edge) == ClientResponse(503, [*origin.response.headers, (STATUS, not_stored(reason="stale"))], b"no")
    assert edge.stored_entries == 1


async def test_stale_if_error_of_the_client_extends_the_window(clock: ManualClock) -> None:
    origin = Origin(full_response(b"max-age=60", ETAG))
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 70
    origin.response = full_response(b"no-store", status=503, body=b"no")
    for accepts, status in (
        (b"stale-if-error=11", 200),
        (b"stale-if-error=10", 503),
        (b"stale-if-error=ten", 503),
        (b"stale-if-error", 503),
    ):
        assert (await send_request(edge, headers=[(b"cache-control", accepts)])).status == status


@pytest.mark.parametrize("word", [b"must-revalidate", b"proxy-revalidate"])
async def test_stale_if_error_never_replaces_by_a_response_with_must_revalidate(word: bytes, clock: ManualClock) -> None:
    origin = Origin(full_response(b"max-age=60, stale-if-error=600, " + word))
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 70
    origin.response = full_response(b"no-store", status=503, body=b"no")
    response = await send_request(edge, headers=[(b"cache-control", b"stale-if-error=600")])
    assert response == ClientResponse(503, [*origin.response.headers, (STATUS, not_stored(reason="stale"))], b"no")


async def test_stale_if_error_with_s_maxage_is_obeyed_from_the_origin_and_not_from_the_client(clock: ManualClock) -> None:
    origin = Origin(full_response(b"s-maxage=60, stale-if-error=60"))
    edge = shared_edge(origin, clock)
    await send_request(edge)
    origin.response = full_response(b"no-store", status=503, body=b"no")
    clock.now += 70
    assert (await send_request(edge)).field(STATUS) == instead(503, -10)
    clock.now += 60
    assert (await send_request(edge, headers=[(b"cache-control", b"stale-if-error=600")])).status == 503


async def test_stale_if_error_never_replaces_by_a_response_with_no_cache(clock: ManualClock) -> None:
    origin = Origin(full_response(b"no-cache, stale-if-error=600", ETAG))
    edge = shared_edge(origin, clock)
    await send_request(edge)
    origin.response = full_response(b"no-store", status=503, body=b"no")
    assert (await send_request(edge, headers=[(b"cache-control", b"stale-if-error=600")])).status == 503


async def test_stale_if_error_replaces_the_503_of_too_many_misses(clock: ManualClock) -> None:
    origin = Origin(ON_ERROR, held=True)
    await origin.release(first=1)
    edge = shared_edge(origin, clock, max_concurrent_misses=1)
    await send_request(edge)
    clock.now += 70
    cold = open_request(edge, "/cold")
    await cold.until_waiting()
    response = await send_request(edge)
    assert (response.status, response.body, response.field(b"age")) == (200, b"picture", b"70")
    assert [scope["path"] for scope in origin.requests] == ["/i/picture", "/cold"]
    await origin.release()
    await cold.response()


# Validation


@pytest.mark.parametrize(
    ("fields", "conditions"),
    [
        ([ETAG], [(NO_MATCH, b'"one"')]),
        ([(b"etag", b'W/"one"')], [(NO_MATCH, b'W/"one"')]),
        ([MODIFIED], [(NOT_SINCE, MODIFIED[1])]),
        ([ETAG, MODIFIED], [(NO_MATCH, b'"one"'), (NOT_SINCE, MODIFIED[1])]),
    ],
)
async def test_validation_sends_the_stored_validators(fields: Headers, conditions: Headers, clock: ManualClock) -> None:
    current = full_response(b"max-age=60", *fields)
    origin = Origin(Validating(current))
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 70
    assert await send_request(edge) == ClientResponse(200, [*current.headers, (b"age", b"0"), (STATUS, validated(60))], b"picture")
    assert origin.requested_headers(NO_MATCH, NOT_SINCE) == [[], conditions]
    assert await send_request(edge) == ClientResponse(200, [*current.headers, (b"age", b"0"), (STATUS, hit(60)), MEMORY_TIER], b"picture")


async def test_validation_replaces_the_clients_conditions(clock: ManualClock) -> None:
    current = full_response(b"max-age=60", ETAG)
    origin = Origin(Validating(current))
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 70
    own = [(NO_MATCH, b'"two"'), (NOT_SINCE, date()), (b"range", b"bytes=0-1"), (b"if-match", b'"one"')]
    response = await send_request(edge, headers=own)
    assert (response.status, response.body, response.field(STATUS)) == (206, b"pi", validated(60))
    assert origin.requested_headers(NO_MATCH, NOT_SINCE, b"range", b"if-match")[1] == [(NO_MATCH, b'"one"')]


async def test_validation_confirmed_for_the_clients_tag_is_304(clock: ManualClock) -> None:
    current = full_response(b"max-age=60", ETAG)
    edge = shared_edge(Origin(Validating(current)), clock)
    await send_request(edge)
    clock.now += 70
    response = await send_request(edge, headers=[(NO_MATCH, b'"one"')])
    assert response == ClientResponse(304, [(b"cache-control", b"max-age=60"), ETAG, (b"age", b"0"), (STATUS, validated(60))], b"")


async def test_304_updates_stored_headers_except_those_of_the_body(clock: ManualClock) -> None:
    current = full_response(b"max-age=60", ETAG, (b"content-type", b"image/webp"), (b"x-a", b"1"), (b"x-a", b"2"), (b"x-b", b"1"))
    of_body = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"0"),
        (b"content-encoding", b"br"),
        (b"content-range", b"bytes 0-1/2"),
    ]
    newer = [(b"cache-control", b"max-age=90"), (b"x-a", b"3"), (b"x-c", b"4"), ETAG]
    edge = shared_edge(Origin(Validating(current, *newer, *of_body)), clock)
    await send_request(edge)
    clock.now += 70
    stored_response = [(b"content-length", b"7"), (b"accept-ranges", b"bytes"), (b"content-type", b"image/webp"), (b"x-b", b"1")]
    assert await send_request(edge) == ClientResponse(200, [*stored_response, *newer, (b"age", b"0"), (STATUS, validated(90))], b"picture")
    assert await send_request(edge) == ClientResponse(
        200, [*stored_response, *newer, (b"age", b"0"), (STATUS, hit(90)), MEMORY_TIER], b"picture"
    )


async def test_304_without_cache_headers_keeps_the_stored_policy(clock: ManualClock) -> None:
    current = full_response(b"private", ETAG, (b"darkroom-cdn-cache-control", b"max-age=60"))
    edge = shared_edge(Origin(Validating(current)), clock)
    await send_request(edge)
    clock.now += 70
    assert await send_request(edge) == ClientResponse(200, [*current.headers[:-1], (b"age", b"0"), (STATUS, validated(60))], b"picture")
    assert (await send_request(edge)).field(STATUS) == hit(60)


async def test_304_with_an_age_is_that_old(clock: ManualClock) -> None:
    current = full_response(b"max-age=60", ETAG)
    edge = shared_edge(Origin(Validating(current, (b"age", b"20"))), clock)
    await send_request(edge)
    clock.now += 70
    assert await send_request(edge) == ClientResponse(200, [*current.headers, (b"age", b"20"), (STATUS, validated(40))], b"picture")
    clock.now += 5
    assert (await send_request(edge)).field(b"age") == b"25"


async def test_304_about_another_tag_is_followed_by_an_unconditional_request(clock: ManualClock) -> None:
    origin = Origin(full_response(b"max-age=60", ETAG))
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 70
    other = full_response(b"max-age=60", (b"etag", b'"two"'), body=b"renewed")
    origin.response = lambda scope: (
        Response(304, [(b"etag", b'"two"')], b"") if any(pair[0] == NO_MATCH for pair in scope["headers"]) else other
    )
    requests = [open_request(edge) for _ in range(3)]
    leader, *waiters = [await each.response() for each in requests]
    assert leader == ClientResponse(200, [*other.headers, (STATUS, stored(reason="stale"))], b"renewed")
    assert waiters == [ClientResponse(200, [*other.headers, (STATUS, collapsed(reason="stale"))], b"renewed")] * 2
    assert origin.requested_headers(NO_MATCH) == [[], [(NO_MATCH, b'"one"')], []]


async def test_304_to_an_unconditional_request_is_sent_and_not_stored() -> None:
    origin = Origin(Response(304, [(b"cache-control", b"max-age=60"), ETAG], b""))
    edge = shared_edge(origin)
    for _ in range(2):
        assert await send_request(edge) == ClientResponse(304, [(b"cache-control", b"max-age=60"), ETAG, (STATUS, not_stored())], b"")
    assert edge.stored_entries == 0


@pytest.mark.parametrize("directives", [b"no-cache", b"no-cache, max-age=60", b"max-age=0", b"max-age=0, must-revalidate"])
@pytest.mark.parametrize("validator", [ETAG, MODIFIED])
async def test_no_cache_response_is_validated_at_each_use(directives: bytes, validator: tuple[bytes, bytes]) -> None:
    current = full_response(directives, validator)
    origin = Origin(Validating(current))
    edge = shared_edge(origin)
    assert await send_request(edge) == ClientResponse(200, [*current.headers, (STATUS, stored(0))], b"picture")
    for _ in range(3):
        assert await send_request(edge) == ClientResponse(200, [*current.headers, (b"age", b"0"), (STATUS, validated(0))], b"picture")
    assert len(origin.requests) == 4
    changed = origin.response = full_response(directives, (b"etag", b'"two"'), body=b"renewed")
    assert await send_request(edge) == ClientResponse(200, [*changed.headers, (STATUS, stored(0, reason="stale"))], b"renewed")


@pytest.mark.parametrize("directives", [b"no-cache", b"max-age=0"])
async def test_no_cache_response_without_a_validator_is_not_stored(directives: bytes) -> None:
    origin = Origin(full_response(directives))
    edge = shared_edge(origin)
    assert [(await send_request(edge)).field(STATUS) for _ in range(2)] == [not_stored()] * 2
    assert edge.stored_entries == 0


async def test_no_cache_response_is_validated_for_each_waiting_client() -> None:
    origin = Origin(Validating(full_response(b"no-cache", ETAG)), held=True)
    edge = shared_edge(origin)
    requests = [open_request(edge) for _ in range(3)]
    await wait_for_all(requests)
    await origin.release()
    leader, *waiters = [await each.response() for each in requests]
    assert leader.field(STATUS) == stored(0)
    assert [response.field(STATUS) for response in waiters] == [validated(0)] * 2
    assert origin.requested_headers(NO_MATCH) == [[], [(NO_MATCH, b'"one"')], [(NO_MATCH, b'"one"')]]


async def test_private_response_with_a_validator_is_not_stored() -> None:
    edge = shared_edge(Origin(full_response(b"private, no-cache", ETAG)))
    assert (await send_request(edge)).field(STATUS) == not_stored()
    assert edge.stored_entries == 0


async def test_response_other_than_200_is_fetched_anew_and_not_validated(clock: ManualClock) -> None:
    origin = Origin(full_response(b"max-age=60", ETAG, status=404))
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 70
    assert (await send_request(edge)).field(STATUS) == stored(reason="stale")
    assert origin.requested_headers(NO_MATCH) == [[], []]


@pytest.mark.parametrize(
    "now", [full_response(b"private, max-age=60"), full_response(b"no-store"), full_response(b"max-age=60", (b"set-cookie", b"a=b"))]
)
async def test_response_that_must_no_longer_be_stored_removes_the_stored_one(now: Response, clock: ManualClock) -> None:
    origin = Origin(full_response(b"max-age=60, stale-if-error=600", ETAG))
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 70
    origin.response = now
    assert await send_request(edge) == ClientResponse(200, [*now.headers, (STATUS, not_stored(reason="stale"))], b"picture")
    assert edge.stored_entries == 0
    assert (await send_request(edge)).field(STATUS) == not_stored()
    assert origin.requested_headers(NO_MATCH)[2] == []


async def test_304_that_forbids_storing_removes_the_stored_response(clock: ManualClock) -> None:
    current = full_response(b"max-age=60", ETAG)
    edge = shared_edge(Origin(Validating(current, (b"cache-control", b"private"))), clock)
    await send_request(edge)
    clock.now += 70
    response = await send_request(edge)
    assert response.field(STATUS) == b'darkroom; fwd=stale; fwd-status=304; key="/i/picture"'
    assert (response.status, response.body, response.field(b"cache-control")) == (200, b"picture", b"private")
    assert edge.stored_entries == 0


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_error_of_the_origin_keeps_the_response_under_validation(status: int, clock: ManualClock) -> None:
    current = full_response(b"max-age=60", ETAG)
    origin = Origin(current)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 70
    origin.response = full_response(b"no-store", status=status, body=b"no")
    assert await send_request(edge) == ClientResponse(status, [*origin.response.headers, (STATUS, not_stored(reason="stale"))], b"no")
    origin.response = Validating(current)
    assert (await send_request(edge)).field(STATUS) == validated(60)


async def test_exception_of_the_origin_keeps_the_response_under_validation(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    current = full_response(b"max-age=60", ETAG)
    origin = Origin(Validating(current))
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 70
    origin.error = ValueError("secret detail")
    with caplog.at_level(logging.ERROR):
        assert await send_request(edge) == failed(not_stored(reason="stale"))
    origin.error = None
    assert (await send_request(edge)).field(STATUS) == validated(60)


@pytest.mark.parametrize("purge", ["address", "tag"])
@pytest.mark.parametrize("vary", [(), ((b"vary", b"accept"),)])
async def test_stale_if_error_never_serves_a_response_purged_meanwhile(clock: ManualClock, purge: str, vary: Headers) -> None:
    origin = Origin(full_response(b"max-age=60, stale-if-error=600", ETAG, (b"cache-tag", b"bad"), *vary))
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 61
    await origin.hold()
    origin.response = Response(503, [], b"out")
    waiting = open_request(edge)
    await origin.until_requested(2)
    if purge == "tag":
        edge.purge_tags(["bad"])
    else:
        edge.purge(b"/i/picture")
    await origin.release()
    assert (await waiting.response()).status == 503


async def test_stale_if_error_serves_the_response_that_was_renewed_meanwhile(clock: ManualClock) -> None:
    origin = Origin(ON_ERROR)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 61
    await origin.hold()
    origin.response = renewed(ON_ERROR)
    other = open_request(edge)
    await origin.until_requested(2)
    # A request that joins nobody.
    alone = open_request(edge, headers=[(b"authorization", b"x")])
    await origin.until_requested(3)
    await origin.release(first=2)
    assert (await other.response()).body == b"renewed"
    origin.response = Response(503, [], b"out")
    await origin.release()
    assert (await alone.response()).body == b"renewed"


@pytest.mark.parametrize("field", [(b"set-cookie", b"a=b"), (b"vary", b"*")])
async def test_304_for_one_client_only_removes_the_stored_response(clock: ManualClock, field: tuple[bytes, bytes]) -> None:
    origin = Origin(Validating(full_response(b"max-age=60", ETAG), field))
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 61
    response = await send_request(edge)
    assert (response.status, response.body, response.field(field[0])) == (200, b"picture", field[1])
    assert edge.stored_entries == 0


async def test_stale_response_is_not_revalidated_by_a_client_with_no_store(clock: ManualClock) -> None:
    origin = Origin(WITHIN)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 61
    assert (await send_request(edge, headers=[(b"cache-control", b"no-store")])).field(STATUS) == hit(-1)
    await settle(edge)
    assert len(origin.requests) == 1
    await send_request(edge)
    await settle(edge)
    assert len(origin.requests) == 2
