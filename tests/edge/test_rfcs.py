"""The RFCs case by case, each with its section."""

from __future__ import annotations

from typing import Any

import pytest

from edge.asgi import Headers, Response, get_header_values
from edge.conditional import none_match_fails
from edge.fields import parse_cache_control, parse_http_date
from edge.policy import initial_age
from tests.edge.asgi import NOON, ManualClock, Origin, date, full_response, open_request, send_request, settle, shared_edge

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left_behind")]

CC, CDN = b"cache-control", b"cdn-cache-control"
ETAG = (b"etag", b'"one"')
AUTHORIZED = (b"authorization", b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")


async def is_used(
    clock: ManualClock, headers: Headers, *, after: float = 1, status: int = 200, first_headers: Headers = (), later_headers: Headers = ()
) -> bool:
    """Return whether a response is reused `after` so many seconds without revalidation."""
    origin = Origin(Response(status, headers, b"picture"))
    edge = shared_edge(origin, clock)
    await send_request(edge, headers=first_headers)
    clock.now += after
    await origin.hold()
    waiting = open_request(edge, headers=later_headers)
    used = await waiting.is_done()
    await origin.release()
    await waiting.response()
    await settle(edge)
    return used


@pytest.mark.parametrize(
    ("section", "status", "headers", "used"),
    [
        # RFC 9111 §3: the responses that a shared cache may store, without heuristic freshness (§4.2.2), which is optional.
        ("3", 200, [(CC, b"max-age=60")], True),
        ("3", 200, [(CC, b"s-maxage=60")], True),
        ("3", 200, [(CC, b"public, max-age=60")], True),
        ("3", 200, [(b"expires", date(60)), (b"date", date(0))], True),
        ("3", 200, [], False),
        ("3", 200, [(CC, b"public")], False),
        ("3", 200, [(CC, b"no-store, max-age=60")], False),
        ("3", 200, [(CC, b"private, max-age=60")], False),
        ("3", 404, [(CC, b"max-age=60")], True),
        ("3", 404, [], False),
        ("3", 418, [(CC, b"max-age=60")], True),
        ("3", 206, [(CC, b"max-age=60"), (b"content-range", b"bytes 0-6/9")], False),
        # §4.2.1: the first of s-maxage, max-age, Expires; an invalid value makes the response stale.
        ("4.2.1", 200, [(CC, b"s-maxage=60, max-age=0"), (b"expires", b"0")], True),
        ("4.2.1", 200, [(CC, b"max-age=60"), (b"expires", b"0")], True),
        ("4.2.1", 200, [(CC, b"s-maxage=0, max-age=60")], False),
        ("4.2.1", 200, [(CC, b"max-age=0"), (b"expires", date(60)), (b"date", date(0))], False),
        ("4.2.1", 200, [(CC, b"max-age=sixty"), (b"expires", date(60)), (b"date", date(0))], False),
        # §5.2.2: response directives.
        ("5.2.2.3", 200, [(CC, b"max-age=60, must-understand, no-store")], True),
        ("5.2.2.3", 299, [(CC, b"max-age=60, must-understand")], False),
        ("5.2.2.4", 200, [(CC, b"no-cache, max-age=60"), ETAG], False),
        ("5.2.2.4", 200, [(CC, b'no-cache="x-field", max-age=60'), ETAG], False),
        ("5.2.2.6", 200, [(CC, b"no-transform, max-age=60")], True),
        ("5.2.2.7", 200, [(CC, b'private="x-field", max-age=60')], False),
        ("5.2.2.9", 200, [(CC, b"public, max-age=60")], True),
        # §5.2.3: unknown directives are ignored; §5.2: names are case-insensitive, and arguments may be quoted.
        ("5.2.3", 200, [(CC, b'max-age=60, community="UCI"')], True),
        ("5.2", 200, [(CC, b'MAX-AGE="60"')], True),
        # §5.3: an invalid date, especially "0", is in the past.
        ("5.3", 200, [(b"expires", b"0"), (b"date", date(0))], False),
        ("5.3", 200, [(b"expires", date(-60)), (b"date", date(0))], False),
        ("5.3", 200, [(b"expires", date(60))], True),
        # §5.4: `Pragma` in a response has no meaning.
        ("5.4", 200, [(CC, b"max-age=60"), (b"pragma", b"no-cache")], True),
        # §4.1: a response that varies by everything is never reused.
        ("4.1", 200, [(CC, b"max-age=60"), (b"vary", b"*")], False),
        ("4.1", 200, [(CC, b"max-age=60"), (b"vary", b"accept")], True),
        # §7.3, and RFC 6265 §3: `Set-Cookie` is for one client, unless the origin says otherwise; this cache never stores it.
        ("7.3", 200, [(CC, b"public, max-age=60"), (b"set-cookie", b"a=b")], False),
    ],
)
async def test_rfc_9111_response_is_reused(clock: ManualClock, section: str, status: int, headers: Headers, *, used: bool) -> None:
    assert await is_used(clock, headers, status=status) is used, section


@pytest.mark.parametrize(
    ("directives", "used"),
    [
        (b"max-age=60", False), (b"public, max-age=60", True), (b"s-maxage=60", True), (b"must-revalidate, max-age=60", True),
        (b"proxy-revalidate, max-age=60", False),
    ],
)  # fmt: skip
async def test_rfc_9111_3_5_response_to_a_request_with_authorization_is_reused(
    clock: ManualClock, directives: bytes, *, used: bool
) -> None:
    assert await is_used(clock, [(CC, directives)], first_headers=[AUTHORIZED]) is used


async def test_rfc_9111_3_1_connection_headers_are_not_stored(clock: ManualClock) -> None:
    passing = [
        (b"connection", b"x-hop, Close"), (b"x-hop", b"1"), (b"keep-alive", b"1"), (b"proxy-authenticate", b"Basic"), (b"te", b"trailers"),
        (b"proxy-authentication-info", b"a=b"), (b"upgrade", b"h2c"), (b"trailer", b"x"), (b"proxy-connection", b"close"),
    ]  # fmt: skip
    edge = shared_edge(Origin(full_response(b"max-age=60", *passing, (b"x-end", b"1"))), clock)
    await send_request(edge)
    hit = await send_request(edge)
    assert not {name for name, _ in hit.headers} & {name for name, _ in passing}
    assert get_header_values(hit.headers, b"x-end") == [b"1"]


@pytest.mark.parametrize(
    ("headers", "delay", "age"),
    [
        ([], 0, 0), ([], 2.5, 2.5), ([(b"age", b"10")], 0, 10), ([(b"age", b"10")], 2.5, 12.5), ([(b"date", date(-30))], 0, 30),
        ([(b"date", date(-30)), (b"age", b"10")], 5, 30), ([(b"date", date(-12)), (b"age", b"10")], 5, 15),
        ([(b"date", date(3_600))], 0, 0), ([(b"date", date(3_600)), (b"age", b"7")], 0, 7), ([(b"date", b"noon"), (b"age", b"7")], 1, 8),
        ([(b"age", b"-1")], 0, 0), ([], -5, 0),
    ],
)  # fmt: skip
async def test_rfc_9111_4_2_3_corrected_initial_age(headers: Headers, delay: float, age: float) -> None:
    assert initial_age(headers, now=NOON, delay=delay) == age


@pytest.mark.parametrize(
    ("section", "response", "after", "request_directives", "used"),
    [
        # RFC 9111 §5.2.1: request directives.
        ("5.2.1.1", b"max-age=60", 30, b"max-age=30", True), ("5.2.1.1", b"max-age=60", 31, b"max-age=30", False),
        ("5.2.1.2", b"max-age=60", 69, b"max-stale=10", True), ("5.2.1.2", b"max-age=60", 71, b"max-stale=10", False),
        ("5.2.1.2", b"max-age=60", 9_999, b"max-stale", True),
        ("5.2.1.3", b"max-age=60", 40, b"min-fresh=20", True), ("5.2.1.3", b"max-age=60", 41, b"min-fresh=20", False),
        ("5.2.1.4", b"max-age=60", 1, b"no-cache", False), ("5.2.1.5", b"max-age=60", 1, b"no-store", True),
        ("5.2.1.6", b"max-age=60", 1, b"no-transform", True), ("5.2.1.7", b"max-age=60", 1, b"only-if-cached", True),
        # §4.2.4: a response that must not be served stale is not, even if the client accepts that.
        ("4.2.4", b"max-age=60, must-revalidate", 61, b"max-stale", False),
        ("4.2.4", b"max-age=60, proxy-revalidate", 61, b"max-stale", False),
        ("4.2.4", b"s-maxage=60", 61, b"max-stale", False), ("4.2.4", b"max-age=60, no-cache", 1, b"max-stale", False),
        ("4.2.4", b"max-age=60", 60, b"", False), ("4.2.4", b"max-age=60", 59.75, b"", True),
        # RFC 5861 §3: "a response that was fresh for 600 seconds may be used for 30 more".
        ("5861 3.1", b"max-age=600, stale-while-revalidate=30", 599, b"", True),
        ("5861 3.1", b"max-age=600, stale-while-revalidate=30", 629, b"", True),
        ("5861 3.1", b"max-age=600, stale-while-revalidate=30", 630, b"", False),
        # RFC 8246 §2: a reload does not revalidate a response that is immutable and fresh; it does revalidate a stale one.
        ("8246 2", b"max-age=3600, immutable", 3_599, b"no-cache", True), ("8246 2", b"max-age=3600, immutable", 3_599, b"max-age=0", True),
        ("8246 2", b"max-age=3600, immutable", 3_600, b"no-cache", False),
    ],
)  # fmt: skip
async def test_rfc_request_is_served_from_memory(
    clock: ManualClock, section: str, response: bytes, after: float, request_directives: bytes, *, used: bool
) -> None:
    assert (
        await is_used(clock, [(CC, response), ETAG], after=after, later_headers=[(CC, request_directives)] if request_directives else [])
        is used
    ), section


@pytest.mark.parametrize(
    ("after", "failing", "status"),
    [
        (599, 500, 200),
        (900, 500, 200),
        (900, 502, 200),
        (900, 503, 200),
        (900, 504, 200),
        (900, 404, 404),
        (1_799, 500, 200),
        (1_800, 500, 500),
    ],
)  # fmt: skip
async def test_rfc_5861_4_1_stale_response_in_place_of_an_error(clock: ManualClock, after: float, failing: int, status: int) -> None:
    origin = Origin(full_response(b"max-age=600, stale-if-error=1200"))
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += after
    origin.response = Response(failing, [], b"failed")
    assert (await send_request(edge)).status == status


@pytest.mark.parametrize(
    ("headers", "lifetime"),
    [
        # RFC 9213 §3.1, its examples.
        ([(CC, b"max-age=60, s-maxage=120"), (CDN, b"max-age=600")], 600),
        ([(CC, b"no-store"), (CDN, b"max-age=600")], 600),
        ([(CC, b"no-store")], 0),
        ([(CC, b"max-age=60"), (CDN, b"none")], 0),
        # §2.1: the first field of the target list that is present and valid; invalid and empty ones are ignored.
        ([(CC, b"max-age=60"), (CDN, b"max-age=600"), (b"darkroom-cdn-cache-control", b"max-age=30")], 30),
        ([(CC, b"max-age=60"), (CDN, b"&&&&&")], 60),
        ([(CC, b"max-age=60"), (CDN, b"")], 60),
        # §2.2: "max-age" with a String or a Decimal is not a lifetime; Expires and Cache-Control are ignored all the same.
        ([(CC, b"max-age=60"), (CDN, b'max-age="600"')], 0),
        ([(b"expires", date(60)), (b"date", date(0)), (CDN, b"must-revalidate")], 0),
        # The field of another cache is ignored.
        ([(CC, b"max-age=60"), (b"examplecdn-cache-control", b"max-age=600")], 60),
    ],
)
async def test_rfc_9213_targeted_field_decides(clock: ManualClock, headers: Headers, lifetime: int) -> None:
    if lifetime:
        assert await is_used(clock, headers, after=lifetime - 1)
    assert not await is_used(ManualClock(), headers, after=lifetime)


@pytest.mark.parametrize(
    ("value", "other", "weakly"),
    [(b'W/"1"', b'W/"1"', True), (b'W/"1"', b'W/"2"', False), (b'W/"1"', b'"1"', True), (b'"1"', b'"1"', True), (b'"1"', b'"2"', False)],
)
async def test_rfc_9110_8_8_3_2_entity_tags_are_compared(clock: ManualClock, value: bytes, other: bytes, *, weakly: bool) -> None:
    assert none_match_fails(value, other) is weakly
    edge = shared_edge(Origin(full_response(b"max-age=60", (b"etag", value))), clock)
    strongly = value == other and not value.startswith(b"W/")
    for _ in range(2):
        assert (await send_request(edge, headers=[(b"if-none-match", other)])).status == (304 if weakly else 200)
        assert (await send_request(edge, headers=[(b"if-match", other)])).status == (200 if strongly else 412)
        part = await send_request(edge, headers=[(b"range", b"bytes=0-0"), (b"if-range", other)])
        assert part.status == (206 if strongly else 200)


@pytest.mark.parametrize("spelling", [b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"])
async def test_rfc_9110_5_6_7_dates_in_three_formats_are_one(spelling: bytes) -> None:
    assert parse_http_date(spelling) == 784_111_777


@pytest.mark.parametrize(
    ("byte_range", "content_range"),
    [
        # RFC 9110 §14.1.2: ranges of a response of 10,000 bytes.
        (b"bytes=0-499", b"bytes 0-499/10000"),
        (b"bytes=500-999", b"bytes 500-999/10000"),
        (b"bytes=-500", b"bytes 9500-9999/10000"),
        (b"bytes=9500-", b"bytes 9500-9999/10000"),
        (b"bytes=9500-20000", b"bytes 9500-9999/10000"),
        (b"bytes=-20000", b"bytes 0-9999/10000"),
        (b"bytes= 0-999", b"bytes 0-999/10000"),
        # Several ranges: the whole response, as a server may choose.
        (b"bytes=0-0,-1", None),
        (b"bytes=0-999, 4500-5499, -1000", None),
        (b"bytes=500-600,601-999", None),
        # §14.2: an unknown unit and an invalid range are ignored.
        (b"lines=0-9", None),
        (b"bytes=9-0", None),
    ],
)
async def test_rfc_9110_14_1_2_byte_ranges(clock: ManualClock, byte_range: bytes, content_range: bytes | None) -> None:
    body = bytes(number % 251 for number in range(10_000))
    edge = shared_edge(Origin(full_response(b"max-age=60", body=body)), clock)
    for _ in range(2):
        response = await send_request(edge, headers=[(b"range", byte_range)])
        assert (response.status, response.field(b"content-range")) == ((206, content_range) if content_range else (200, None))
        if content_range:
            first, last = content_range.removeprefix(b"bytes ").removesuffix(b"/10000").split(b"-")
            assert response.body == body[int(first) : int(last) + 1]
        else:
            assert response.body == body


@pytest.mark.parametrize(
    ("request_headers", "status"),
    [
        # RFC 9110 §13.2.2: in this order.
        ([(b"if-match", b'"other"'), (b"if-none-match", b'"one"')], 412),
        ([(b"if-match", b'"one"'), (b"if-none-match", b'"one"')], 304),
        ([(b"if-match", b'"one"'), (b"if-unmodified-since", date(-9_999))], 200),
        ([(b"if-unmodified-since", date(-9_999)), (b"if-none-match", b'"one"')], 412),
        ([(b"if-none-match", b'"other"'), (b"if-modified-since", date(0))], 200),
        ([(b"if-none-match", b'"one"'), (b"if-modified-since", date(-9_999))], 304),
        ([(b"if-none-match", b'"one"'), (b"range", b"bytes=0-0")], 304),
        ([(b"if-match", b'"other"'), (b"range", b"bytes=0-0")], 412),
        ([(b"if-none-match", b'"other"'), (b"range", b"bytes=0-0"), (b"if-range", b'"one"')], 206),
        ([(b"range", b"bytes=0-0"), (b"if-range", b'"other"')], 200),
        ([(b"if-range", b'"one"')], 200),
    ],
)
async def test_rfc_9110_13_2_2_order_of_preconditions(clock: ManualClock, request_headers: Headers, status: int) -> None:
    edge = shared_edge(Origin(full_response(b"max-age=60", ETAG, (b"last-modified", date(-3_600)), (b"date", date(0)))), clock)
    for _ in range(2):
        assert (await send_request(edge, headers=request_headers)).status == status


@pytest.mark.parametrize(
    ("after", "options", "cache_status"),
    [
        # RFC 9211 §2: a hit; forwarded because of its method, because nothing was stored, by request, and because it was stale.
        (1, {}, b'darkroom; hit; ttl=59; key="/i/picture"'),
        (1, {"method": "POST"}, b"darkroom; fwd=method"),
        (1, {"path": "/health"}, b"darkroom; fwd=bypass"),
        (1, {"path": "/i/other"}, b'darkroom; fwd=uri-miss; stored; ttl=60; key="/i/other"'),
        (1, {"headers": [(CC, b"no-cache")]}, b'darkroom; fwd=request; stored; ttl=60; key="/i/picture"'),
        (61, {}, b'darkroom; fwd=stale; stored; ttl=60; key="/i/picture"'),
    ],
)
async def test_rfc_9211_cache_status(clock: ManualClock, after: float, options: dict[str, Any], cache_status: bytes) -> None:
    edge = shared_edge(Origin(full_response(b"max-age=60")), clock)
    await send_request(edge)
    clock.now += after
    assert (await send_request(edge, **options)).field(b"cache-status") == cache_status


async def test_rfc_9111_5_2_directive_with_a_quoted_comma_is_one() -> None:
    assert parse_cache_control(b'private="x-a, x-b", max-age=60') == {"private": "x-a, x-b", "max-age": "60"}
