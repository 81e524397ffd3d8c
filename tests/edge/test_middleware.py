"""The way of a request through the edge: stored, bypassed or rejected, with the exact headers of each response."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from edge import Edge
from edge.asgi import ASGIApp, Headers, Message, Receive, Response, Scope, Send
from edge.store import MEMORY_TIER
from tests.edge.asgi import (
    HANG_SECONDS,
    RENDITION,
    ClientRequest,
    ClientResponse,
    ManualClock,
    Origin,
    failed,
    hit,
    http_scope,
    not_stored,
    open_request,
    send_request,
    stored,
    wait_for_all,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left_behind")]

OWN = b"darkroom-cdn-cache-control"
STATUS = b"cache-status"
ETAG = b'"k5x7q2"'
AUTHORIZED = [(b"authorization", b"Bearer a")]

# The headers that the edge adds to a whole 200 without a length.
FULL_RESPONSE_HEADERS = [(b"content-length", b"7"), (b"accept-ranges", b"bytes")]

BUSY_BODY = (
    b'{"type":"about:blank","title":"Too many cold requests","status":503,'
    b'"detail":"The maximum number of clients is waiting for responses that are not in memory. Try again in a second."}'
)


def edge_of(app: ASGIApp, *, max_bytes: int = 1_000_000, max_concurrent_misses: int = 100, clock: ManualClock | None = None) -> Edge:
    return Edge(
        app,
        name="Darkroom",
        max_bytes=max_bytes,
        max_concurrent_misses=max_concurrent_misses,
        key_includes_host=False,
        bypass_paths=("/health", "/v1/"),
        clock=clock or ManualClock(),
    )


def make_response(*headers: tuple[bytes, bytes], status: int = 200, body: bytes = b"picture") -> Response:
    return Response(status, list(headers), body)


# Hits


async def test_hit_makes_no_origin_request() -> None:
    origin = Origin()
    edge = edge_of(origin)
    for _ in range(10):
        assert (await send_request(edge)).body == b"picture"
    assert len(origin.requests) == 1


async def test_hit_is_sent_without_suspending_or_reading_the_request() -> None:
    edge = edge_of(Origin())
    await send_request(edge)
    messages = []

    async def receive() -> Message:
        raise AssertionError("a hit needs nothing from the client")

    async def send(message: Message) -> None:
        messages.append(message)

    # Driven without an event loop: the edge would have to yield to one to wait for a task, a thread or a file.
    with pytest.raises(StopIteration):
        edge(http_scope(), receive, send).__await__().__next__()
    assert [message["type"] for message in messages] == ["http.response.start", "http.response.body"]


async def test_hits_within_a_second_send_equal_messages_and_the_same_body(clock: ManualClock) -> None:
    edge = edge_of(Origin(), clock=clock)
    await send_request(edge)
    first, second, third = [await open_request(edge).sent_messages() for _ in range(3)]
    clock.now += 0.5
    assert first == second == third == await open_request(edge).sent_messages()
    clock.now += 0.5
    start, body = await open_request(edge).sent_messages()
    assert start["headers"] != first[0]["headers"]
    assert body["body"] is first[1]["body"]


async def test_miss_headers_are_those_of_the_origin_and_cache_status() -> None:
    edge = edge_of(Origin())
    assert await send_request(edge) == ClientResponse(200, [*RENDITION.headers, (STATUS, stored())], b"picture")


async def test_hit_headers_are_those_of_the_origin_with_age_and_cache_status(clock: ManualClock) -> None:
    edge = edge_of(Origin(), clock=clock)
    await send_request(edge)
    assert await send_request(edge) == ClientResponse(200, [*RENDITION.headers, (b"age", b"0"), (STATUS, hit(60)), MEMORY_TIER], b"picture")
    clock.now += 12.5
    assert await send_request(edge) == ClientResponse(
        200, [*RENDITION.headers, (b"age", b"12"), (STATUS, hit(48)), MEMORY_TIER], b"picture"
    )


async def test_head_hit_has_the_headers_of_get_and_no_body() -> None:
    edge = edge_of(Origin())
    await send_request(edge)
    assert await send_request(edge, method="HEAD") == ClientResponse(
        200, [*RENDITION.headers, (b"age", b"0"), (STATUS, hit(60)), MEMORY_TIER], b""
    )


async def test_head_miss_fetches_with_get_and_the_next_get_is_a_hit() -> None:
    origin = Origin()
    edge = edge_of(origin)
    assert await send_request(edge, method="HEAD") == ClientResponse(200, [*RENDITION.headers, (STATUS, stored())], b"")
    assert [scope["method"] for scope in origin.requests] == ["GET"]
    response = await send_request(edge)
    assert (response.body, response.field(STATUS)) == (b"picture", hit(60))
    assert len(origin.requests) == 1


NOT_MODIFIED = [
    (b"cache-control", b"public, max-age=31536000, immutable"),
    (b"cdn-cache-control", b"max-age=60"),
    (b"etag", ETAG),
    (b"access-control-allow-origin", b"*"),
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("condition", [ETAG, b"W/" + ETAG, b'"other", ' + ETAG, b"*"])
async def test_conditional_hit_is_304(condition: bytes, method: str) -> None:
    edge = edge_of(Origin())
    await send_request(edge)
    response = await send_request(edge, method=method, headers=[(b"if-none-match", condition)])
    assert response == ClientResponse(304, [*NOT_MODIFIED, (b"age", b"0"), (STATUS, hit(60)), MEMORY_TIER], b"")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_conditional_miss_is_fetched_whole_stored_and_304(method: str) -> None:
    origin = Origin(RENDITION._replace(headers=[*RENDITION.headers, (b"server-timing", b"render;dur=90"), (b"age", b"5")]))
    edge = edge_of(origin)
    response = await send_request(edge, method=method, headers=[(b"if-none-match", ETAG)])
    added = [(b"server-timing", b"render;dur=90"), (b"age", b"5"), (STATUS, stored(55))]
    assert response == ClientResponse(304, [*NOT_MODIFIED, *added], b"")
    assert (await send_request(edge)).body == b"picture"
    assert len(origin.requests) == 1


async def test_conditional_request_with_another_tag_gets_the_whole_response() -> None:
    edge = edge_of(Origin())
    condition = [(b"if-none-match", b'"other"')]
    assert (await send_request(edge, headers=condition)).body == b"picture"
    assert (await send_request(edge, headers=condition)).body == b"picture"


async def test_conditional_request_on_two_lines_is_304_for_either() -> None:
    edge = edge_of(Origin())
    conditions = [(b"if-none-match", b'"other"'), (b"if-none-match", ETAG)]
    assert (await send_request(edge, headers=conditions)).status == 304
    assert (await send_request(edge, headers=conditions)).status == 304


@pytest.mark.parametrize("status", [302, 404, 410, 500])
async def test_conditional_request_for_a_status_other_than_200_gets_the_whole_response(status: int) -> None:
    edge = edge_of(Origin(make_response((b"cache-control", b"max-age=60"), (b"etag", ETAG), status=status, body=b"gone")))
    for expected in (stored(), hit(60)):
        response = await send_request(edge, headers=[(b"if-none-match", ETAG)])
        assert (response.status, response.body, response.field(STATUS)) == (status, b"gone", expected)


async def test_response_without_an_entity_tag_is_never_304() -> None:
    edge = edge_of(Origin(make_response((b"cache-control", b"max-age=60"))))
    for _ in range(2):
        assert (await send_request(edge, headers=[(b"if-none-match", ETAG)])).status == 200


# Stored responses and their keys


async def test_expired_response_is_fetched_again_and_stored(clock: ManualClock) -> None:
    origin = Origin()
    edge = edge_of(origin, clock=clock)
    await send_request(edge)
    clock.now += 59.5
    assert (await send_request(edge)).field(STATUS) == hit(1)
    clock.now += 0.5
    origin.response = RENDITION._replace(body=b"renewed")
    response = await send_request(edge)
    assert response == ClientResponse(200, [*RENDITION.headers, (STATUS, stored(reason="stale"))], b"renewed")
    response = await send_request(edge)
    assert (response.body, response.field(STATUS)) == (b"renewed", hit(60))
    assert len(origin.requests) == 2


async def test_expired_response_replaced_by_one_that_is_not_storable_is_not_called_stored(clock: ManualClock) -> None:
    origin = Origin()
    edge = edge_of(origin, clock=clock)
    await send_request(edge)
    clock.now += 60
    headers = [(b"cache-control", b"no-store"), (b"content-length", b"5")]
    origin.response = Response(503, headers, b"later")
    for _ in range(2):
        assert await send_request(edge) == ClientResponse(503, [*headers, (STATUS, not_stored(reason="stale"))], b"later")
    assert len(origin.requests) == 3


async def test_too_large_response_is_sent_and_not_stored() -> None:
    origin = Origin(make_response((b"cache-control", b"max-age=60"), body=bytes(20_000)))
    edge = edge_of(origin, max_bytes=100_000)
    for _ in range(2):
        response = await send_request(edge)
        assert (len(response.body), response.field(STATUS)) == (20_000, not_stored())
    assert len(origin.requests) == 2


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"cache-control", b"no-store")],
        [(b"cache-control", b"private, max-age=60")],
        [(b"cache-control", b"max-age=60"), (b"set-cookie", b"a=b")],
        [(b"cache-control", b"max-age=60"), (b"vary", b"accept, *")],
        [(b"cache-control", b"max-age=60"), (b"cdn-cache-control", b"no-store")],
        [(b"cache-control", b"max-age=1")],
        [(b"cache-control", b"max-age=60"), (b"age", b"59")],
    ],
)
async def test_response_that_must_not_be_stored_is_fetched_each_time(headers: Headers) -> None:
    origin = Origin(make_response(*headers))
    edge = edge_of(origin)
    for _ in range(2):
        assert await send_request(edge) == ClientResponse(200, [*headers, *FULL_RESPONSE_HEADERS, (STATUS, not_stored())], b"picture")
    assert len(origin.requests) == 2


async def test_age_of_the_origin_is_forwarded_and_counted_from(clock: ManualClock) -> None:
    headers = [(b"cache-control", b"max-age=60"), (b"age", b"20")]
    edge = edge_of(Origin(make_response(*headers)), clock=clock)
    assert await send_request(edge) == ClientResponse(200, [*headers, *FULL_RESPONSE_HEADERS, (STATUS, stored(40))], b"picture")
    clock.now += 5
    response = await send_request(edge)
    assert response == ClientResponse(
        200, [headers[0], *FULL_RESPONSE_HEADERS, (b"age", b"25"), (STATUS, hit(35)), MEMORY_TIER], b"picture"
    )
    clock.now += 35
    assert (await send_request(edge)).field(STATUS) == stored(40, reason="stale")


async def test_server_timing_of_the_miss_is_not_part_of_hits() -> None:
    edge = edge_of(Origin(make_response((b"cache-control", b"max-age=60"), (b"server-timing", b"render;dur=90"))))
    assert (await send_request(edge)).field(b"server-timing") == b"render;dur=90"
    assert (await send_request(edge)).field(b"server-timing") == b"tier;desc=memory"


async def test_cache_status_of_the_origin_precedes_that_of_the_edge() -> None:
    edge = edge_of(Origin(make_response((b"cache-control", b"max-age=60"), *FULL_RESPONSE_HEADERS, (STATUS, b"inner; hit"))))
    assert (await send_request(edge)).headers[3:] == [(STATUS, b"inner; hit"), (STATUS, stored())]
    assert (await send_request(edge)).headers[3:] == [(STATUS, b"inner; hit"), (b"age", b"0"), (STATUS, hit(60)), MEMORY_TIER]


@pytest.mark.parametrize("name", [OWN, b"Darkroom-CDN-Cache-Control"])
async def test_targeted_field_of_the_edge_is_obeyed_and_never_sent(name: bytes) -> None:
    headers = [(b"cache-control", b"private"), (b"cdn-cache-control", b"no-store"), (b"etag", ETAG)]
    edge = edge_of(Origin(make_response(*headers, (name, b"max-age=60"))))
    assert (await send_request(edge)).headers == [*headers, *FULL_RESPONSE_HEADERS, (STATUS, stored())]
    added = [(b"age", b"0"), (STATUS, hit(60)), MEMORY_TIER]
    assert (await send_request(edge)).headers == [*headers, *FULL_RESPONSE_HEADERS, *added]
    assert (await send_request(edge, method="HEAD")).headers == [*headers, *FULL_RESPONSE_HEADERS, *added]
    assert (await send_request(edge, headers=[(b"if-none-match", ETAG)])).headers == [*headers, *added]


@pytest.mark.parametrize("name", [OWN, b"Darkroom-CDN-Cache-Control"])
@pytest.mark.parametrize("request_of", [{"method": "POST"}, {"path": "/health"}, {"path": "/v1/images", "method": "HEAD"}])
async def test_targeted_field_of_the_edge_is_never_sent_with_a_bypassed_response(request_of: dict[str, Any], name: bytes) -> None:
    edge = edge_of(Origin(make_response((b"cache-control", b"no-store"), (name, b"max-age=1"))))
    response = await send_request(edge, **request_of)
    assert [field for field, _ in response.headers] == [b"cache-control", STATUS]


async def test_header_names_are_sent_in_lower_case() -> None:
    edge = edge_of(Origin(make_response((b"Cache-Control", b"max-age=60"), (b"ETag", ETAG))))
    for _ in range(2):
        assert (await send_request(edge)).headers[:2] == [(b"cache-control", b"max-age=60"), (b"etag", ETAG)]


async def test_query_is_part_of_the_key() -> None:
    origin = Origin()
    edge = edge_of(origin)
    for query in (b"", b"a", b"b", b"a"):
        await send_request(edge, query=query)
    assert [scope["query_string"] for scope in origin.requests] == [b"", b"a", b"b"]


async def test_raw_path_is_the_key_however_it_decodes() -> None:
    origin = Origin()
    edge = edge_of(origin)
    for raw_path in (b"/i/a%2Fb", b"/i/a/b", b"/i/a%2fb", b"/i/a%2Fb"):
        await send_request(edge, "/i/a/b", raw_path=raw_path)
    assert [scope["raw_path"] for scope in origin.requests] == [b"/i/a%2Fb", b"/i/a/b", b"/i/a%2fb"]


@pytest.mark.parametrize("absent", [{}, {"raw_path": None}])
async def test_missing_raw_path_falls_back_to_the_path(absent: dict[str, Any]) -> None:
    origin = Origin()
    edge = edge_of(origin)
    scope = http_scope()
    del scope["raw_path"]
    for path in ("/i/ä b", "/i/ä c", "/i/ä b"):
        await ClientRequest(edge, {**scope, "path": path, **absent}, [b""]).response()
    assert [request["path"] for request in origin.requests] == ["/i/ä b", "/i/ä c"]


# Requests to the origin

CONDITIONS: Headers = [
    (b"if-none-match", b'"other"'),
    (b"if-modified-since", b"Mon, 23 Nov 2026 12:00:00 GMT"),
    (b"if-match", b'"other"'),
    (b"if-unmodified-since", b"Mon, 23 Nov 2026 12:00:00 GMT"),
    (b"if-range", b'"other"'),
    (b"range", b"bytes=0-1"),
]


async def test_miss_conditions_and_range_of_the_client_never_reach_the_origin() -> None:
    origin = Origin()
    await send_request(edge_of(origin), headers=[*CONDITIONS, (b"accept", b"image/avif")])
    (scope,) = origin.requests
    assert scope["headers"] == [(b"host", b"localhost"), (b"accept", b"image/avif")]


@pytest.mark.parametrize("path", ["/v1/images", "/health"])
async def test_bypass_conditions_and_range_of_the_client_reach_the_origin(path: str) -> None:
    origin = Origin()
    await send_request(edge_of(origin), path, headers=CONDITIONS)
    (scope,) = origin.requests
    assert scope["headers"] == [(b"host", b"localhost"), *CONDITIONS]


async def test_miss_leaves_the_clients_scope_unchanged() -> None:
    scope = http_scope(method="HEAD", headers=CONDITIONS)
    before = {**scope, "headers": list(scope["headers"])}
    await ClientRequest(edge_of(Origin()), scope, [b""]).response()
    assert scope == before


async def test_miss_offers_the_origin_no_extension_that_replaces_the_body() -> None:
    origin = Origin()
    edge = edge_of(origin)
    await send_request(edge)
    await send_request(edge, "/v1/images", method="HEAD")
    await send_request(edge, "/v1/images")
    assert [scope["extensions"] for scope in origin.requests] == [{}, {}, {"http.response.pathsend": {}}]


async def test_miss_of_a_storable_response_in_several_messages_is_collected() -> None:
    async def streams(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
        for chunk in (b"pic", b"tu", b"re"):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body"})

    edge = edge_of(streams)
    for _ in range(2):
        assert (await open_request(edge).sent_messages())[1:] == [{"type": "http.response.body", "body": b"picture"}]


async def test_miss_origin_that_waits_for_a_disconnect_sees_it_after_its_response() -> None:
    received: list[Message] = []

    async def lingers(scope: Scope, receive: Receive, send: Send) -> None:
        received.append(await receive())
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        assert not waiting.done()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
        await send({"type": "http.response.body", "body": b"picture"})
        received.append(await waiting)

    assert (await send_request(edge_of(lingers))).body == b"picture"
    assert received == [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]


# Failures


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    pass


async def without_body(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})


async def half(scope: Scope, receive: Receive, send: Send) -> None:
    await without_body(scope, receive, send)
    await send({"type": "http.response.body", "body": b"pic", "more_body": True})


async def half_and_raises(scope: Scope, receive: Receive, send: Send) -> None:
    await half(scope, receive, send)
    raise OSError("secret path")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("app", [silent, without_body, half, half_and_raises])
async def test_origin_without_a_whole_response_is_500_and_nothing_is_stored(
    app: ASGIApp, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    edge = edge_of(app)
    message = "the application failed" if app is half_and_raises else "the application returned without a whole response"
    for times in (1, 2):
        response = await send_request(edge, method=method)
        assert response.status == 500
        assert response.headers == failed(not_stored()).headers
        assert response.body == (failed(b"").body if method == "GET" else b"")
        assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(logging.ERROR, message)] * times


@pytest.mark.parametrize("lengths", [[b"6"], [b"8"], [b"07"], [b"seven"], [b"7", b"8"]])
async def test_response_with_a_wrong_content_length_is_500_and_nothing_is_stored(
    lengths: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    headers = [(b"cache-control", b"max-age=60"), *((b"content-length", length) for length in lengths)]
    origin = Origin(make_response(*headers))
    edge = edge_of(origin)
    with caplog.at_level(logging.ERROR):
        assert [await send_request(edge) for _ in range(2)] == [failed(not_stored())] * 2
    assert [record.getMessage() for record in caplog.records] == [
        f"the application sent a body of 7 bytes with a Content-Length of {lengths}"
    ] * 2
    assert len(origin.requests) == 2


async def test_response_with_an_invalid_start_is_500_and_the_next_request_is_a_new_attempt(caplog: pytest.LogCaptureFixture) -> None:
    async def nonsense(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": "200", "headers": [(b"cache-control", b"max-age=60")]})
        await send({"type": "http.response.body", "body": b"picture"})

    edge = edge_of(nonsense)
    assert [await send_request(edge) for _ in range(2)] == [failed(not_stored())] * 2
    assert [record.getMessage() for record in caplog.records] == ["a response of the application could not be processed"] * 2


@pytest.mark.parametrize("status", [204, 205])
async def test_response_without_a_body_has_no_range_and_is_stored(status: int) -> None:
    origin = Origin(make_response((b"cache-control", b"max-age=60"), status=status, body=b""))
    edge = edge_of(origin)
    for expected in (stored(), hit(60)):
        response = await send_request(edge, headers=[(b"range", b"bytes=0-1")])
        assert (response.status, response.body, response.field(b"accept-ranges"), response.field(STATUS)) == (status, b"", None, expected)
    assert len(origin.requests) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_too_many_misses_are_503_with_retry_after(method: str) -> None:
    origin = Origin(held=True)
    edge = edge_of(origin, max_concurrent_misses=3)
    requests = [open_request(edge, path) for path in ("/a", "/b", "/b")]
    await wait_for_all(requests)
    assert await send_request(edge, "/b", method=method) == ClientResponse(
        503,
        [
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(BUSY_BODY)),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"retry-after", b"1"),
            (STATUS, not_stored("/b", word="detail=busy")),
        ],
        BUSY_BODY if method == "GET" else b"",
    )
    assert len(origin.requests) == 2
    await origin.release()
    assert [(await each.response()).status for each in requests] == [200, 200, 200]
    assert (await send_request(edge, "/c")).status == 200


async def test_too_many_misses_leave_hits_and_bypassed_requests_alone() -> None:
    origin = Origin(held=True)
    await origin.release(first=1)
    edge = edge_of(origin, max_concurrent_misses=1)
    await send_request(edge, "/stored")
    waiting = open_request(edge, "/cold")
    await waiting.until_waiting()
    assert (await send_request(edge, "/other")).status == 503
    assert (await send_request(edge, "/other", headers=[(b"authorization", b"Bearer a")])).status == 503
    assert (await send_request(edge, "/stored")).field(STATUS) == hit(60, "/stored")
    assert (await send_request(edge, "/stored", headers=[(b"if-none-match", ETAG)])).status == 304
    bypassed = [open_request(edge, "/health"), open_request(edge, "/other", method="POST")]
    await origin.until_requested(1 + 3)
    await origin.release()
    assert [(await each.response()).status for each in [*bypassed, waiting]] == [200] * 3


# Bypassed requests


async def test_post_is_bypassed_while_its_body_is_still_arriving() -> None:
    received: list[Message] = []
    step = asyncio.Event()

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["method"] == "POST"
        received.append(await receive())
        step.set()
        received.append(await receive())
        await send({"type": "http.response.start", "status": 201, "headers": [(b"cache-control", b"max-age=60")]})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    gate = asyncio.Event()
    chunks = [b"first", b"second"]

    async def receive() -> Message:
        if len(chunks) == 1:
            await gate.wait()
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    edge = edge_of(echo)
    request = asyncio.ensure_future(edge(http_scope(method="POST"), receive, send))
    # The origin has the first chunk before the client has sent the second.
    await asyncio.wait_for(step.wait(), HANG_SECONDS)
    assert received == [{"type": "http.request", "body": b"first", "more_body": True}]
    gate.set()
    await request
    assert received[1:] == [{"type": "http.request", "body": b"second", "more_body": False}]
    assert messages == [
        {
            "type": "http.response.start",
            "status": 201,
            "headers": [(b"cache-control", b"max-age=60"), (STATUS, b"darkroom; fwd=method")],
        },
        {"type": "http.response.body", "body": b"one", "more_body": True},
        {"type": "http.response.body", "body": b"two"},
    ]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_other_methods_are_bypassed_even_if_a_response_is_stored(method: str) -> None:
    origin = Origin()
    edge = edge_of(origin)
    await send_request(edge)
    for _ in range(2):
        assert await send_request(edge, method=method) == ClientResponse(
            200, [*RENDITION.headers, (STATUS, b"darkroom; fwd=method")], b"picture"
        )
    assert [scope["method"] for scope in origin.requests] == ["GET", method, method]


@pytest.mark.parametrize(
    "request_of",
    [
        {"path": "/health"},
        {"path": "/v1/images"},
        {"path": "/v1/images", "query": b"limit=1"},
        {"path": "/v1/images", "headers": [(b"authorization", b"Bearer a")]},
    ],
)
async def test_bypassed_request_is_never_stored_collapsed_or_changed(request_of: dict[str, Any]) -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    requests = [open_request(edge, **request_of), open_request(edge, **request_of)]
    await origin.until_requested(2)
    assert origin.concurrent == 2
    await origin.release()
    responses = [await each.response() for each in requests]
    assert responses == [ClientResponse(200, [*RENDITION.headers, (STATUS, b"darkroom; fwd=bypass")], b"picture")] * 2
    assert edge.stored_entries == 0


async def test_bypassed_request_with_a_matching_condition_is_left_to_the_origin() -> None:
    edge = edge_of(Origin())
    assert (await send_request(edge, "/v1/images", headers=[(b"if-none-match", ETAG)])).status == 200


async def test_authorized_request_is_a_hit_if_the_stored_response_is_public() -> None:
    origin = Origin()
    edge = edge_of(origin)
    await send_request(edge)
    assert (await send_request(edge, headers=[(b"authorization", b"Bearer a")])).field(STATUS) == hit(60)
    assert len(origin.requests) == 1


async def test_authorized_requests_are_fetched_separately_and_not_stored() -> None:
    headers = [(b"cache-control", b"max-age=60"), *FULL_RESPONSE_HEADERS]
    origin = Origin(make_response(*headers), held=True)
    edge = edge_of(origin)
    requests = [open_request(edge, headers=AUTHORIZED) for _ in range(3)]
    await origin.until_requested(3)
    await origin.release()
    assert [await each.response() for each in requests] == [ClientResponse(200, [*headers, (STATUS, not_stored())], b"picture")] * 3
    assert all((b"authorization", b"Bearer a") in scope["headers"] for scope in origin.requests)
    assert edge.stored_entries == 0


@pytest.mark.parametrize("directives", [b"max-age=60, public", b"s-maxage=60", b"max-age=60, must-revalidate"])
async def test_authorized_request_for_a_public_response_is_stored(directives: bytes) -> None:
    origin = Origin(make_response((b"cache-control", directives)))
    edge = edge_of(origin)
    assert (await send_request(edge, headers=AUTHORIZED)).field(STATUS) == stored()
    assert (await send_request(edge)).field(STATUS) == hit(60)
    assert len(origin.requests) == 1


async def test_authorized_request_is_decided_by_the_effective_field() -> None:
    headers = [(b"cache-control", b"public, max-age=60"), (b"cdn-cache-control", b"max-age=60")]
    edge = edge_of(Origin(make_response(*headers)))
    assert (await send_request(edge, headers=AUTHORIZED)).field(STATUS) == not_stored()
    assert edge.stored_entries == 0


async def test_authorized_request_neither_leads_nor_joins_others() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin)
    requests = [open_request(edge, headers=AUTHORIZED), open_request(edge), open_request(edge, headers=AUTHORIZED)]
    await wait_for_all(requests)
    await origin.until_requested(3)
    await origin.release()
    assert [(await each.response()).status for each in requests] == [200] * 3
    assert len(origin.requests) == 3


async def test_bypassed_head_is_forwarded_as_get_and_its_body_dropped() -> None:
    seen: list[str] = []

    async def streams(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["method"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    messages = await open_request(edge_of(streams), "/v1/images", method="HEAD").sent_messages()
    assert seen == ["GET"]
    assert messages == [
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6"), (STATUS, b"darkroom; fwd=bypass")]},
        {"type": "http.response.body", "body": b""},
    ]


async def test_bypassed_request_whose_origin_raises_is_left_to_the_server() -> None:
    origin = Origin()
    origin.error = ValueError("no")
    request = open_request(edge_of(origin), "/v1/images")
    with pytest.raises(ValueError, match="no"):
        await request.sent_messages()


async def test_bypassed_request_whose_client_disconnects_is_seen_by_the_origin() -> None:
    seen: list[str] = []

    async def watches(scope: Scope, receive: Receive, send: Send) -> None:
        while not seen or seen[-1] != "http.disconnect":
            seen.append((await receive())["type"])

    request = open_request(edge_of(watches), "/v1/images", method="POST")
    await request.until_waiting()
    request.disconnect()
    assert await request.sent_messages() == []
    assert seen == ["http.request", "http.disconnect"]


@pytest.mark.parametrize("scope_type", ["lifespan", "websocket"])
async def test_scope_of_another_type_is_forwarded_unchanged(scope_type: str) -> None:
    received: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.extend([scope, receive, send])

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None:
        pass

    scope: Scope = {"type": scope_type}
    await edge_of(app)(scope, receive, send)
    assert received[0] is scope
    assert received[1] is receive
    assert received[2] is send


async def test_repr_has_the_live_counts() -> None:
    origin = Origin(held=True)
    edge = edge_of(origin, max_bytes=100_000)
    waiting = open_request(edge)
    await origin.until_requested(1)
    assert repr(edge) == (
        "<Edge 'darkroom': <MemoryStore: 0 entries, 0 of 100000 bytes>, "
        "<OriginFetcher: 1 fetches in flight, 1 calls of the application>, <MissSlots: 1 of 100, 0 clients>>"
    )
    await origin.release()
    await waiting.response()
    assert f"<MemoryStore: 1 entries, {edge.stored_bytes} of 100000 bytes>" in repr(edge)
