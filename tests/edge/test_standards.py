"""Details of the standards: dates, a 304 in several messages, conditional statuses sent by the origin itself, optional heuristics."""

from __future__ import annotations

from typing import Any

import pytest

from edge.asgi import Headers, Receive, Response, Scope, Send, get_header_values
from edge.store import StoredResponse
from tests.edge.asgi import ManualClock, Origin, date, full_response, not_stored, send_request, shared_edge, stored

STATUS = b"cache-status"
ETAG = (b"etag", b'"one"')
DAY_SECONDS = 86_400


class InPieces:
    """An application that supports validation, and sends every response as a start and several messages of body."""

    def __init__(self, headers: Headers, chunks: list[bytes], *, validates: tuple[bytes, bytes]) -> None:
        self.headers = headers
        self.chunks = chunks
        self.validates = validates
        self.statuses: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        current = self.validates in scope["headers"]
        self.statuses.append(304 if current else 200)
        await send({"type": "http.response.start", "status": self.statuses[-1], "headers": self.headers})
        for chunk in [b"", b""] if current else self.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


# Dates (RFC 9111 §5.3)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "expires", [b"Thu, 18  Aug  2050 02:01:18 GMT", b"Thu, 18 Aug 2050 2:01:18 GMT", b"Thu, 18 Aug 2050\t02:01:18 GMT", b"0", b"soon"]
)
async def test_invalid_expires_is_in_the_past(clock: ManualClock, expires: bytes) -> None:
    edge = shared_edge(Origin(Response(200, [(b"date", date()), (b"expires", expires)], b"picture")), clock)
    assert [(await send_request(edge)).field(STATUS) for _ in range(2)] == [not_stored()] * 2


# A 304 in several messages (RFC 9111 §4.3)


@pytest.mark.anyio
@pytest.mark.parametrize("length", [[], [(b"content-length", b"7")], [(b"content-length", b"900000")]])
async def test_304_in_several_messages_renews_the_stored_response_and_an_unconditional_client_gets_the_body(
    clock: ManualClock, length: Headers
) -> None:
    origin = InPieces([(b"cache-control", b"max-age=10"), ETAG], [b"pic", b"ture"], validates=(b"if-none-match", b'"one"'))
    edge = shared_edge(origin, clock)
    assert (await send_request(edge)).body == b"picture"
    clock.now += 20
    origin.headers = [(b"cache-control", b"max-age=30"), ETAG, *length]
    renewed = await send_request(edge)
    assert (renewed.status, renewed.body) == (200, b"picture")
    assert renewed.field(STATUS) == b'darkroom; fwd=stale; fwd-status=304; stored; ttl=30; key="/i/picture"'
    assert renewed.field(b"content-length") == b"7"
    clock.now += 20
    assert (await send_request(edge)).field(STATUS) == b'darkroom; hit; ttl=10; key="/i/picture"'
    assert origin.statuses == [200, 304]


@pytest.mark.anyio
@pytest.mark.parametrize("condition", [(b"if-none-match", b'"one"'), (b"if-none-match", b'"other"')])
async def test_304_in_several_messages_is_not_the_result_of_the_clients_condition(
    clock: ManualClock, condition: tuple[bytes, bytes]
) -> None:
    origin = InPieces([(b"cache-control", b"max-age=10"), ETAG], [b"pic", b"ture"], validates=(b"if-none-match", b'"one"'))
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 20
    assert (await send_request(edge, headers=[condition])).status == (304 if condition[1] == b'"one"' else 200)
    assert origin.statuses == [200, 304]


@pytest.mark.anyio
@pytest.mark.parametrize("directives", [b"no-cache", b"no-cache, max-age=60", b"max-age=0", b"max-age=0, must-revalidate"])
@pytest.mark.parametrize(
    ("validator", "condition"),
    [(ETAG, (b"if-none-match", b'"one"')), ((b"last-modified", date(-60)), (b"if-modified-since", date(-60)))],
)
async def test_no_cache_response_in_several_messages_is_stored(
    directives: bytes, validator: tuple[bytes, bytes], condition: tuple[bytes, bytes]
) -> None:
    origin = InPieces([(b"cache-control", directives), validator], [b"pic", b"ture"], validates=condition)
    edge = shared_edge(origin)
    assert (await send_request(edge)).field(STATUS) == stored(0)
    for _ in range(2):
        again = await send_request(edge)
        assert (again.status, again.body) == (200, b"picture")
        assert again.field(STATUS) == b'darkroom; fwd=stale; fwd-status=304; stored; ttl=0; key="/i/picture"'
    assert origin.statuses == [200, 304, 304]


# The date of a response (RFC 9110 §6.6.1)


@pytest.mark.anyio
async def test_stored_response_without_a_date_has_that_of_its_arrival_at_every_hit(clock: ManualClock) -> None:
    edge = shared_edge(Origin(full_response(b"max-age=60", ETAG)), clock)
    clock.now += 7
    await send_request(edge)
    clock.now += 20
    for options in ({}, {"method": "HEAD"}, {"headers": [(b"range", b"bytes=0-0")]}, {"headers": [(b"if-none-match", b'"one"')]}):
        hit = await send_request(edge, **options)
        assert (hit.date, hit.field(b"age")) == (date(7), b"20"), options


@pytest.mark.anyio
@pytest.mark.parametrize("spelling", [date(-3), b"Mon, 23 Nov 2026 11:59:57 gmt", b"yesterday"])
async def test_stored_response_with_a_date_of_the_origin_keeps_it(clock: ManualClock, spelling: bytes) -> None:
    edge = shared_edge(Origin(full_response(b"max-age=60", ETAG, (b"date", spelling))), clock)
    for _ in range(2):
        for request_headers in ([], [(b"range", b"bytes=0-0")], [(b"if-none-match", b'"one"')]):
            assert (await send_request(edge, headers=request_headers)).date == spelling
        clock.now += 10


@pytest.mark.anyio
async def test_stored_response_that_is_validated_has_the_date_of_the_validation(clock: ManualClock) -> None:
    origin = InPieces([(b"cache-control", b"max-age=10"), ETAG], [b"picture"], validates=(b"if-none-match", b'"one"'))
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 20
    assert (await send_request(edge)).date == date(20)
    clock.now += 5
    again = await send_request(edge)
    assert (again.date, again.field(b"age")) == (date(20), b"5")
    assert origin.statuses == [200, 304]


@pytest.mark.anyio
async def test_dates_of_responses_of_one_second_are_one_object_in_memory(clock: ManualClock) -> None:
    edge = shared_edge(Origin(full_response(b"max-age=60")), clock)
    for number in range(50):
        await send_request(edge, f"/{number}")
    entries = [edge._store.entries.get(b"/%d" % number) for number in range(50)]
    assert (
        len(
            {
                id(pair)
                for stored_response in entries
                if isinstance(stored_response, StoredResponse)
                for pair in stored_response.headers
                if pair[0] == b"date"
            }
        )
        == 1
    )


# Conditional statuses sent by the origin itself


@pytest.mark.anyio
@pytest.mark.parametrize("request_headers", [[], [(b"range", b"bytes=0-1")], [(b"if-match", b'"two"')], [(b"if-none-match", b'"one"')]])
@pytest.mark.parametrize(
    ("status", "fields"),
    [(206, [(b"content-range", b"bytes 4-10/20")]), (412, []), (416, [(b"content-range", b"bytes */7")])],
)
async def test_conditional_status_sent_by_the_origin_itself_is_forwarded_unchanged_and_not_stored(
    status: int, fields: Headers, request_headers: Headers
) -> None:
    origin_response = full_response(b"max-age=60", ETAG, *fields, status=status)
    origin = Origin(origin_response)
    edge = shared_edge(origin)
    for _ in range(2):
        response = await send_request(edge, headers=request_headers)
        assert (response.status, response.body) == (status, b"picture")
        assert [pair for pair in response.headers if pair[0] not in {STATUS, b"date"}] == origin_response.headers
        assert response.field(STATUS) == not_stored()
    assert (edge.stored_entries, len(origin.requests)) == (0, 2)


@pytest.mark.anyio
async def test_header_with_a_proxys_password_is_not_stored() -> None:
    edge = shared_edge(Origin(full_response(b"max-age=60", (b"proxy-authorization", b"Basic c2VjcmV0"))))
    assert [bool(get_header_values((await send_request(edge)).headers, b"proxy-authorization")) for _ in range(2)] == [True, False]


# Optional heuristics and defaults


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "fields", "lifetime"),
    [
        (200, [(b"last-modified", date(-1000))], 100),
        (203, [(b"last-modified", date(-1000))], 100),
        (204, [(b"last-modified", date(-1000))], 100),
        (300, [(b"last-modified", date(-1000))], 100),
        (301, [(b"last-modified", date(-1000))], 100),
        (308, [(b"last-modified", date(-1000))], 100),
        (404, [(b"last-modified", date(-1000))], 100),
        (405, [(b"last-modified", date(-1000))], 100),
        (410, [(b"last-modified", date(-1000))], 100),
        (414, [(b"last-modified", date(-1000))], 100),
        (501, [(b"last-modified", date(-1000))], 100),
        (200, [(b"last-modified", date(-1000)), (b"date", date())], 100),
        (200, [(b"last-modified", date(-1000)), (b"cache-control", b"public")], 100),
        (599, [(b"last-modified", date(-1000)), (b"cache-control", b"public")], 100),
        (200, [(b"last-modified", date(-1000 * DAY_SECONDS))], DAY_SECONDS),
        # Not cacheable without explicit freshness (RFC 9110 §15.1).
        (201, [(b"last-modified", date(-1000))], None),
        (302, [(b"last-modified", date(-1000))], None),
        (403, [(b"last-modified", date(-1000))], None),
        (503, [(b"last-modified", date(-1000))], None),
        (599, [(b"last-modified", date(-1000))], None),
        # Without `Last-Modified`, there is nothing to estimate from.
        (404, [], None),
        (404, [(b"last-modified", b"yesterday")], None),
        (404, [(b"last-modified", date(60))], None),
        # The response has an explicit lifetime.
        (404, [(b"last-modified", date(-1000)), (b"cache-control", b"no-store")], None),
        (404, [(b"last-modified", date(-1000)), (b"cache-control", b"private")], None),
        (404, [(b"last-modified", date(-1000)), (b"expires", b"0")], None),
        (404, [(b"last-modified", date(-1000)), (b"cache-control", b"max-age=0")], None),
        (404, [(b"last-modified", date(-1000)), (b"cache-control", b"max-age=20")], 20),
        (404, [(b"last-modified", date(-1000)), (b"set-cookie", b"a=b")], None),
    ],
)
async def test_rfc_9111_4_2_2_heuristic_freshness(clock: ManualClock, status: int, fields: Headers, lifetime: int | None) -> None:
    response = Response(status, fields, b"" if status == 204 else b"picture")
    edge = shared_edge(Origin(response), clock, heuristic_fraction=0.1)
    await send_request(edge)
    again = (await send_request(edge)).field(STATUS)
    assert again == (not_stored() if lifetime is None else b'darkroom; hit; ttl=%d; key="/i/picture"' % lifetime)


@pytest.mark.anyio
async def test_heuristic_freshness_is_off_by_default(clock: ManualClock) -> None:
    edge = shared_edge(Origin(Response(200, [(b"last-modified", date(-1000))], b"picture")), clock)
    assert [(await send_request(edge)).field(STATUS) for _ in range(2)] == [not_stored()] * 2


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("directives", "options", "seconds"),
    [
        (b"max-age=10", {}, 0),
        (b"max-age=10", {"stale_if_error_seconds": 30}, 30),
        (b"max-age=10, stale-if-error=5", {"stale_if_error_seconds": 30}, 5),
        (b"max-age=10, stale-if-error=0", {"stale_if_error_seconds": 30}, 0),
        (b"max-age=10, stale-if-error=50", {"stale_if_error_seconds": 30}, 50),
        (b"max-age=10, must-revalidate", {"stale_if_error_seconds": 30}, 0),
        (b"max-age=10, proxy-revalidate", {"stale_if_error_seconds": 30}, 0),
        (b"s-maxage=10", {"stale_if_error_seconds": 30}, 0),
        (b"no-cache", {"stale_if_error_seconds": 30}, -10),
    ],
)
async def test_default_stale_if_error_applies_if_the_response_has_none(
    clock: ManualClock, directives: bytes, options: dict[str, Any], seconds: int
) -> None:
    origin = Origin(full_response(directives, ETAG))
    edge = shared_edge(origin, clock, **options)
    await send_request(edge)
    origin.response = full_response(b"no-store", status=503)
    clock.now += 10 + seconds - 1 if seconds > 0 else 10
    assert (await send_request(edge)).status == (200 if seconds > 0 else 503)
    clock.now += 1
    assert (await send_request(edge)).status == 503
