"""Ranges and preconditions, for stored responses and for those that are fetched first (RFC 9110 §13, §14)."""

from __future__ import annotations

import pytest

from edge.asgi import Headers
from edge.store import MEMORY_TIER
from tests.edge.asgi import (
    ClientResponse,
    ManualClock,
    Origin,
    collapsed,
    date,
    full_response,
    hit,
    not_stored,
    open_request,
    send_request,
    shared_edge,
    stored,
    wait_for_all,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left_behind")]

STATUS = b"cache-status"
BODY = b"0123456789"
ETAG = (b"etag", b'"one"')
MODIFIED = date(-3_600)
RESPONSE = full_response(b"max-age=60", ETAG, (b"last-modified", MODIFIED), (b"date", date()), (b"content-type", b"image/webp"), body=BODY)

FROM_MEMORY = [(b"age", b"0"), (STATUS, hit(60)), MEMORY_TIER]
FETCHED = [(STATUS, stored())]
NOT_MODIFIED = [pair for pair in RESPONSE.headers if pair[0] in {b"cache-control", b"etag", b"date"}]
PRECONDITION_FAILED = (
    b'{"type":"about:blank","title":"Precondition failed","status":412,"detail":"The request\'s If-Match or If-Unmodified-Since is false."}'
)
UNSATISFIABLE = (
    b'{"type":"about:blank","title":"Range not satisfiable","status":416,'
    b'"detail":"The response has 10 bytes, counted from 0, and the requested range has none of them."}'
)


def own(body: bytes, *more: tuple[bytes, bytes]) -> Headers:
    """Return the headers of a response of the edge itself."""
    return [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *more,
    ]


def part(first: int, last: int, added: Headers) -> ClientResponse:
    """Return the 206 with these bytes of the response."""
    other_headers = [pair for pair in RESPONSE.headers if pair[0] != b"content-length"]
    range_headers = [(b"content-length", b"%d" % (last - first + 1)), (b"content-range", b"bytes %d-%d/10" % (first, last))]
    return ClientResponse(206, [*other_headers, *range_headers, *added], BODY[first : last + 1])


def full(added: Headers) -> ClientResponse:
    return ClientResponse(200, [*RESPONSE.headers, *added], BODY)


def not_modified(added: Headers) -> ClientResponse:
    return ClientResponse(304, [*NOT_MODIFIED, *added], b"")


def failed_precondition(added: Headers) -> ClientResponse:
    return ClientResponse(412, [*own(PRECONDITION_FAILED), *added], PRECONDITION_FAILED)


def unsatisfiable(added: Headers) -> ClientResponse:
    return ClientResponse(416, [*own(UNSATISFIABLE, (b"content-range", b"bytes */10")), *added], UNSATISFIABLE)


async def on_miss_and_hit(
    *headers: tuple[bytes, bytes], method: str = "GET", clock: ManualClock | None = None
) -> tuple[ClientResponse, ClientResponse]:
    """Return the responses to a request that misses and then hits. The origin gets one request, for the whole."""
    origin = Origin(RESPONSE)
    edge = shared_edge(origin, clock)
    miss, stored_response = [await send_request(edge, method=method, headers=headers) for _ in range(2)]
    (scope,) = origin.requests
    assert (scope["method"], scope["headers"]) == ("GET", [(b"host", b"localhost")])
    assert await send_request(edge) == full(FROM_MEMORY)
    return miss, stored_response


# Ranges


@pytest.mark.parametrize(
    ("value", "first", "last"),
    [
        (b"bytes=0-0", 0, 0),
        (b"bytes=0-9", 0, 9),
        (b"bytes=2-4", 2, 4),
        (b"bytes=002-0004", 2, 4),
        (b"bytes=2-", 2, 9),
        (b"bytes=9-", 9, 9),
        (b"bytes=8-10", 8, 9),
        (b"bytes=8-" + b"9" * 5_000, 8, 9),
        (b"bytes=-1", 9, 9),
        (b"bytes=-10", 0, 9),
        (b"bytes=-11", 0, 9),
        (b"bytes=-" + b"9" * 5_000, 0, 9),
        (b"BYTES=2-4", 2, 4),
        (b"bytes= 2-4 ", 2, 4),
        (b"bytes=,2-4,", 2, 4),
    ],
)
async def test_range_is_206_on_miss_and_on_hit(value: bytes, first: int, last: int) -> None:
    assert await on_miss_and_hit((b"range", value)) == (part(first, last, FETCHED), part(first, last, FROM_MEMORY))


@pytest.mark.parametrize(
    "value", [b"bytes=10-", b"bytes=10-12", b"bytes=99999999999999999999-", b"bytes=-0", b"bytes=" + b"9" * 5_000 + b"-"]
)
async def test_range_past_the_end_is_416_with_the_length(value: bytes) -> None:
    assert await on_miss_and_hit((b"range", value)) == (unsatisfiable(FETCHED), unsatisfiable(FROM_MEMORY))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"bytes",
        b"bytes=",
        b"bytes=-",
        b"bytes=a-b",
        b"bytes=4-2",
        b"bytes=+1-2",
        b"bytes=1.0-2",
        b"bytes=1 - 2",
        b"bytes 1-2",
        b"bytes: 1-2",
        b"bytes=1-2-3",
        b"bytes=--1",
        b"bytes=\xb2-\xb3",
        b"items=0-1",
        b"=0-1",
        b"2-4",
        b"bytes=0-1,4-5",
        b"bytes=0-,0-,0-,0-",
        b"bytes=-1,10-",
    ],
)
async def test_range_that_is_malformed_of_another_unit_or_more_than_one_gets_the_whole(value: bytes) -> None:
    assert await on_miss_and_hit((b"range", value)) == (full(FETCHED), full(FROM_MEMORY))


async def test_range_on_two_lines_is_more_than_one() -> None:
    assert await on_miss_and_hit((b"range", b"bytes=0-1"), (b"range", b"bytes=4-5")) == (full(FETCHED), full(FROM_MEMORY))


@pytest.mark.parametrize("value", [b"bytes=2-4", b"bytes=10-"])
async def test_range_of_head_is_ignored(value: bytes) -> None:
    expected = ClientResponse(200, [*RESPONSE.headers, *FETCHED], b""), ClientResponse(200, [*RESPONSE.headers, *FROM_MEMORY], b"")
    assert await on_miss_and_hit((b"range", value), method="HEAD") == expected


@pytest.mark.parametrize("status", [404, 410, 500])
async def test_range_of_a_status_other_than_200_is_ignored(status: int) -> None:
    origin_response = full_response(b"max-age=60", ETAG, status=status, body=BODY)
    edge = shared_edge(Origin(origin_response))
    for added in (FETCHED, FROM_MEMORY):
        response = await send_request(edge, headers=[(b"range", b"bytes=0-1"), (b"if-match", b'"two"')])
        assert response == ClientResponse(status, [*origin_response.headers, *added], BODY)


async def test_range_of_an_empty_response_is_416() -> None:
    edge = shared_edge(Origin(full_response(b"max-age=60", body=b"")))
    for value in (b"bytes=0-", b"bytes=-1"):
        for _ in range(2):
            response = await send_request(edge, headers=[(b"range", value)])
            assert (response.status, response.field(b"content-range")) == (416, b"bytes */0")


async def test_range_of_a_response_that_is_not_stored_is_cut_from_it() -> None:
    origin_response = full_response(b"no-store", body=BODY)
    edge = shared_edge(Origin(origin_response))
    response = await send_request(edge, headers=[(b"range", b"bytes=2-4")])
    rest = [(b"cache-control", b"no-store"), (b"accept-ranges", b"bytes"), (b"content-length", b"3"), (b"content-range", b"bytes 2-4/10")]
    assert response == ClientResponse(206, [*rest, (STATUS, not_stored())], b"234")


async def test_range_if_the_origin_supports_none_is_cut_from_the_whole() -> None:
    headers = [(b"cache-control", b"max-age=60"), (b"content-length", b"10"), (b"accept-ranges", b"none")]
    edge = shared_edge(Origin(RESPONSE._replace(headers=headers)))
    for _ in range(2):
        response = await send_request(edge, headers=[(b"range", b"bytes=2-4")])
        assert (response.status, response.body) == (206, b"234")


async def test_ranges_of_waiting_clients_are_cut_from_one_response() -> None:
    origin = Origin(RESPONSE, held=True)
    edge = shared_edge(origin)
    values = [b"bytes=0-1", b"bytes=2-4", b"bytes=10-"]
    requests = [open_request(edge, headers=[(b"range", value)]) for value in values]
    await wait_for_all(requests)
    await origin.release()
    added = [(STATUS, collapsed())]
    assert [await each.response() for each in requests] == [part(0, 1, FETCHED), part(2, 4, added), unsatisfiable(added)]
    assert len(origin.requests) == 1


# If-Range


@pytest.mark.parametrize("value", [b'"one"', b' "one" ', MODIFIED])
async def test_if_range_that_is_true_gets_the_part(value: bytes) -> None:
    expected = part(2, 4, FETCHED), part(2, 4, FROM_MEMORY)
    assert await on_miss_and_hit((b"range", b"bytes=2-4"), (b"if-range", value)) == expected
    assert await on_miss_and_hit((b"if-range", value), (b"range", b"bytes=2-4")) == expected


@pytest.mark.parametrize(
    "value", [b'"two"', b'W/"one"', b'"one", "two"', b"*", b"one", b"", date(-3_601), date(-3_599), date(), b"yesterday"]
)
async def test_if_range_that_is_false_gets_the_whole(value: bytes) -> None:
    assert await on_miss_and_hit((b"range", b"bytes=2-4"), (b"if-range", value)) == (full(FETCHED), full(FROM_MEMORY))


async def test_if_range_that_is_false_makes_an_unsatisfiable_range_the_whole() -> None:
    assert await on_miss_and_hit((b"range", b"bytes=10-"), (b"if-range", b'"two"')) == (full(FETCHED), full(FROM_MEMORY))


async def test_if_range_without_a_range_is_ignored() -> None:
    assert await on_miss_and_hit((b"if-range", b'"one"')) == (full(FETCHED), full(FROM_MEMORY))


@pytest.mark.parametrize(
    "fields",
    [
        [(b"etag", b'W/"one"')],
        # Generated within the second of its modification: there may have been another modification in the rest of it.
        [(b"last-modified", date()), (b"date", date())],
        [],
    ],
)
async def test_if_range_with_a_weak_validator_gets_the_whole(fields: Headers) -> None:
    edge = shared_edge(Origin(full_response(b"max-age=60", *fields, body=BODY)))
    for value in (b'W/"one"', date()):
        assert (await send_request(edge, headers=[(b"range", b"bytes=2-4"), (b"if-range", value)])).status == 200


# Preconditions


@pytest.mark.parametrize(
    "headers",
    [
        [(b"if-match", b'"one"')],
        [(b"if-match", b"*")],
        [(b"if-match", b'"two", "one"')],
        [(b"if-match", b'"two"'), (b"if-match", b'"one"')],
        [(b"if-unmodified-since", MODIFIED)],
        [(b"if-unmodified-since", date())],
        [(b"if-unmodified-since", b"never")],
        [(b"if-unmodified-since", date(-7_200)), (b"if-unmodified-since", date(-7_200))],
        [(b"if-match", b'"one"'), (b"if-unmodified-since", date(-7_200))],
        [(b"if-modified-since", date(-3_601))],
        [(b"if-modified-since", b"never")],
        [(b"if-modified-since", MODIFIED), (b"if-modified-since", MODIFIED)],
        [(b"if-none-match", b'"two"'), (b"if-modified-since", MODIFIED)],
        [(b"if-none-match", b"one")],
        [(b"if-none-match", b"")],
    ],
)
async def test_precondition_that_is_true_or_malformed_gets_the_whole(headers: Headers) -> None:
    assert await on_miss_and_hit(*headers) == (full(FETCHED), full(FROM_MEMORY))


@pytest.mark.parametrize(
    "headers",
    [
        [(b"if-match", b'"two"')],
        [(b"if-match", b'W/"one"')],
        [(b"if-match", b"one")],
        [(b"if-match", b"")],
        [(b"if-unmodified-since", date(-3_601))],
        [(b"if-match", b'"two"'), (b"if-unmodified-since", date())],
        # If-Match comes before If-None-Match, and a range after both (RFC 9110 §13.2.2).
        [(b"if-match", b'"two"'), (b"if-none-match", b'"one"')],
        [(b"if-match", b'"two"'), (b"range", b"bytes=2-4")],
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_precondition_that_is_false_is_412(headers: Headers, method: str) -> None:
    expected = [failed_precondition(FETCHED), failed_precondition(FROM_MEMORY)]
    if method == "HEAD":
        expected = [ClientResponse(response.status, response.headers, b"") for response in expected]
    assert list(await on_miss_and_hit(*headers, method=method)) == expected


@pytest.mark.parametrize(
    "headers",
    [
        [(b"if-modified-since", MODIFIED)],
        [(b"if-modified-since", date())],
        [(b"if-modified-since", b"Monday, 23-Nov-26 12:00:00 GMT")],
        [(b"if-modified-since", b"Mon Nov 23 12:00:00 2026")],
        [(b"if-none-match", b'"one"'), (b"if-modified-since", date(-7_200))],
        [(b"if-none-match", b'"one"'), (b"range", b"bytes=10-")],
        [(b"if-match", b'"one"'), (b"if-none-match", b'"one"')],
        [(b"if-none-match", b'"two"'), (b"if-none-match", b'W/"one"')],
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_precondition_that_matches_the_clients_copy_is_304(headers: Headers, method: str) -> None:
    assert await on_miss_and_hit(*headers, method=method) == (not_modified(FETCHED), not_modified(FROM_MEMORY))


async def test_precondition_that_is_true_with_a_range_gets_the_part() -> None:
    conditions = [(b"if-match", b'"one"'), (b"if-none-match", b'"two"'), (b"range", b"bytes=2-4"), (b"if-range", b'"one"')]
    assert await on_miss_and_hit(*conditions) == (part(2, 4, FETCHED), part(2, 4, FROM_MEMORY))


async def test_response_without_a_date_is_dated_by_its_arrival(clock: ManualClock) -> None:
    edge = shared_edge(Origin(full_response(b"max-age=60", body=BODY)), clock)
    await send_request(edge)
    clock.now += 30
    assert (await send_request(edge, headers=[(b"if-modified-since", date(-1))])).status == 200
    assert (await send_request(edge, headers=[(b"if-modified-since", date())])).status == 304


async def test_if_match_any_is_true_without_an_entity_tag() -> None:
    edge = shared_edge(Origin(full_response(b"max-age=60", body=BODY)))
    for _ in range(2):
        assert (await send_request(edge, headers=[(b"if-match", b"*")])).status == 200
        assert (await send_request(edge, headers=[(b"if-match", b'"one"')])).status == 412


async def test_if_unmodified_since_without_last_modified_is_ignored() -> None:
    edge = shared_edge(Origin(full_response(b"max-age=60", (b"date", date()), body=BODY)))
    for _ in range(2):
        assert (await send_request(edge, headers=[(b"if-unmodified-since", date(-7_200))])).status == 200


async def test_age_of_a_part_is_that_of_the_whole(clock: ManualClock) -> None:
    origin_response = full_response(b"max-age=60", ETAG, body=BODY)
    edge = shared_edge(Origin(origin_response), clock)
    await send_request(edge)
    clock.now += 20
    expected = {b"age": b"20", STATUS: hit(40), MEMORY_TIER[0]: MEMORY_TIER[1]}
    for headers, status in (
        ([(b"range", b"bytes=0-1")], 206),
        ([(b"range", b"bytes=10-")], 416),
        ([(b"if-match", b'"two"')], 412),
        ([(b"if-none-match", b'"one"')], 304),
    ):
        response = await send_request(edge, headers=headers)
        assert (response.status, {name: response.field(name) for name in expected}) == (status, expected)
