"""The directives, host, path and body of a request, and `Cache-Status` (RFC 9111, RFC 9211)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from edge import Edge
from edge.asgi import Headers, Response, Scope
from edge.store import MEMORY_TIER
from tests.edge.asgi import (
    RENDITION,
    ClientRequest,
    ClientResponse,
    ManualClock,
    Origin,
    collapsed,
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

STATUS = b"cache-status"
MUTABLE = full_response(b"max-age=60")
IMMUTABLE = full_response(b"max-age=60, immutable")
STALE = hit(-5)
RENEWED = stored(reason="stale")
ASKED = stored(reason="request")

NOT_KEPT_BODY = (
    b'{"type":"about:blank","title":"Not in cache","status":504,'
    b'"detail":"The request accepts only a stored response (only-if-cached), and no stored response satisfies it."}'
)


def control(*values: bytes) -> Headers:
    return [(b"cache-control", value) for value in values]


def not_cached(reason: str) -> ClientResponse:
    """Return the response to a request with only-if-cached."""
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(NOT_KEPT_BODY)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (STATUS, not_stored(reason=reason, word="detail=only-if-cached")),
    ]
    return ClientResponse(504, headers, NOT_KEPT_BODY)


# only-if-cached


async def test_only_if_cached_is_served_from_memory(clock: ManualClock) -> None:
    edge = shared_edge(Origin(MUTABLE), clock)
    await send_request(edge)
    clock.now += 5
    expected = ClientResponse(200, [*MUTABLE.headers, (b"age", b"5"), (STATUS, hit(55)), MEMORY_TIER], b"picture")
    assert await send_request(edge, headers=control(b"only-if-cached")) == expected


@pytest.mark.parametrize("value", [b"only-if-cached", b"Only-If-Cached", b"max-age=0, only-if-cached", b"only-if-cached, no-cache"])
async def test_only_if_cached_without_a_stored_response_is_504(value: bytes) -> None:
    origin = Origin()
    edge = shared_edge(origin)
    assert await send_request(edge, headers=control(value)) == not_cached("uri-miss")
    assert await send_request(edge, method="HEAD", headers=control(value)) == ClientResponse(504, not_cached("uri-miss").headers, b"")
    assert not origin.requests


async def test_only_if_cached_does_not_wait_for_a_response_on_its_way() -> None:
    origin = Origin(held=True)
    edge = shared_edge(origin)
    waiting = open_request(edge)
    await waiting.until_waiting()
    assert await send_request(edge, headers=control(b"only-if-cached")) == not_cached("uri-miss")
    await origin.release()
    await waiting.response()


async def test_only_if_cached_for_a_stale_response_is_504_unless_the_client_accepts_it(clock: ManualClock) -> None:
    origin = Origin(MUTABLE)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 65
    assert await send_request(edge, headers=control(b"only-if-cached")) == not_cached("stale")
    assert (await send_request(edge, headers=control(b"only-if-cached, max-stale"))).field(STATUS) == STALE
    assert len(origin.requests) == 1


async def test_only_if_cached_with_a_directive_that_refuses_a_fresh_response_is_504(clock: ManualClock) -> None:
    edge = shared_edge(Origin(MUTABLE), clock)
    await send_request(edge)
    clock.now += 5
    assert await send_request(edge, headers=control(b"only-if-cached, max-age=4")) == not_cached("request")


# no-store


async def test_no_store_is_fetched_and_not_stored() -> None:
    origin = Origin(MUTABLE)
    edge = shared_edge(origin)
    for _ in range(2):
        response = await send_request(edge, headers=control(b"no-store"))
        assert response == ClientResponse(200, [*MUTABLE.headers, (STATUS, not_stored())], b"picture")
    assert len(origin.requests) == 2
    assert edge.stored_entries == 0


async def test_no_store_is_served_from_memory_if_stored_already() -> None:
    edge = shared_edge(Origin(MUTABLE))
    await send_request(edge)
    assert (await send_request(edge, headers=control(b"no-store"))).field(STATUS) == hit(60)


async def test_no_store_neither_leads_nor_joins_others() -> None:
    origin = Origin(MUTABLE, held=True)
    edge = shared_edge(origin)
    requests = [open_request(edge, headers=headers) for headers in (control(b"no-store"), [], control(b"no-store"), [])]
    await wait_for_all(requests)
    await origin.until_requested(3)
    await origin.release()
    responses = [await each.response() for each in requests]
    assert [response.field(STATUS) for response in responses] == [not_stored(), stored(), not_stored(), collapsed()]
    assert len(origin.requests) == 3


# no-cache, max-age, min-fresh


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"no-cache", ASKED),
        (b"NO-CACHE", ASKED),
        (b'no-cache="x"', ASKED),
        (b"max-age=0", ASKED),
        (b"max-age=19", ASKED),
        (b'max-age="19"', ASKED),
        (b"max-age=soon", ASKED),
        (b"max-age", ASKED),
        (b"max-age=-1", ASKED),
        (b"max-age=20", hit(40)),
        (b"max-age=" + b"9" * 5_000, hit(40)),
        (b"min-fresh=40", hit(40)),
        (b"min-fresh=41", ASKED),
        (b"min-fresh=" + b"9" * 5_000, ASKED),
        (b"min-fresh=soon", hit(40)),
        (b"min-fresh", hit(40)),
        (b"max-age=20, min-fresh=40", hit(40)),
        (b"max-age=20, min-fresh=41", ASKED),
        (b"max-age=30, max-age=10", hit(40)),
        (b"max-stale", hit(40)),
        (b"max-stale=0", hit(40)),
        (b"stale-if-error=60", hit(40)),
        (b"no-transform", hit(40)),
        (b"x-no-cache", hit(40)),
        (b'x="no-cache, max-age=0"', hit(40)),
        (b"", hit(40)),
        (b",,;=\"'\\\xff\x00", hit(40)),
        (b"no cache", hit(40)),
    ],
)
async def test_request_directive_for_a_fresh_mutable_response_is_obeyed(value: bytes, status: bytes, clock: ManualClock) -> None:
    edge = shared_edge(Origin(MUTABLE), clock)
    await send_request(edge)
    clock.now += 20
    assert (await send_request(edge, headers=control(value))).field(STATUS) == status


@pytest.mark.parametrize("value", [b"no-cache", b"max-age=0", b"min-fresh=600", b"no-cache, max-age=0, min-fresh=600"])
@pytest.mark.parametrize("field", [b"cache-control", b"cdn-cache-control"])
async def test_request_directive_for_a_fresh_immutable_response_never_revalidates(value: bytes, field: bytes, clock: ManualClock) -> None:
    response = IMMUTABLE if field == b"cache-control" else full_response(b"private", (field, b"max-age=60, immutable"))
    origin = Origin(response)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    clock.now += 20
    expected = ClientResponse(200, [*response.headers, (b"age", b"20"), (STATUS, hit(40)), MEMORY_TIER], b"picture")
    assert await send_request(edge, headers=control(value)) == expected
    clock.now += 40
    assert (await send_request(edge, headers=control(value))).field(STATUS) == RENEWED
    assert len(origin.requests) == 2


async def test_no_cache_is_fetched_and_the_response_stored_for_all(clock: ManualClock) -> None:
    origin = Origin(MUTABLE)
    edge = shared_edge(origin, clock)
    await send_request(edge)
    origin.response = full_response(b"max-age=60", body=b"renewed")
    assert await send_request(edge, headers=control(b"no-cache")) == ClientResponse(200, [*MUTABLE.headers, (STATUS, ASKED)], b"renewed")
    assert (await send_request(edge)).body == b"renewed"
    assert len(origin.requests) == 2


async def test_no_cache_of_concurrent_clients_is_one_origin_request() -> None:
    origin = Origin(MUTABLE, held=True)
    await origin.release(first=1)
    edge = shared_edge(origin)
    await send_request(edge)
    requests = [open_request(edge, headers=control(b"no-cache")) for _ in range(5)]
    await wait_for_all(requests)
    # Clients that accept a fresh response do not wait for them.
    assert (await send_request(edge)).field(STATUS) == hit(60)
    await origin.release()
    assert [(await each.response()).field(STATUS) for each in requests] == [ASKED] + [collapsed(reason="request")] * 4
    assert len(origin.requests) == 2


async def test_request_directives_on_two_lines_are_all_obeyed(clock: ManualClock) -> None:
    edge = shared_edge(Origin(MUTABLE), clock)
    await send_request(edge)
    clock.now += 20
    assert (await send_request(edge, headers=control(b"max-age=600", b"min-fresh=41"))).field(STATUS) == ASKED
    assert (await send_request(edge, headers=control(b"max-stale", b"no-cache"))).field(STATUS) == ASKED


@pytest.mark.parametrize("headers", [control(b"a" * 100_000), control(*[b"max-age=600"] * 1_000), [(b"x-a", b"b" * 1_000_000)]])
async def test_request_headers_that_are_huge_or_many_change_nothing(headers: Headers) -> None:
    edge = shared_edge(Origin(MUTABLE))
    assert (await send_request(edge, headers=headers)).field(STATUS) == stored()
    assert (await send_request(edge, headers=headers)).field(STATUS) == hit(60)


# max-stale


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"max-stale", STALE),
        (b"max-stale=5", STALE),
        (b"max-stale=" + b"9" * 5_000, STALE),
        (b'max-stale="5"', STALE),
        (b"max-stale=4", RENEWED),
        (b"max-stale=0", RENEWED),
        (b"max-stale=soon", RENEWED),
        (b"max-stale=-5", RENEWED),
        (b"max-stale, no-cache", RENEWED),
        (b"max-stale=600, min-fresh=1", RENEWED),
        (b"max-age=600", RENEWED),
        (b"", RENEWED),
    ],
)
@pytest.mark.parametrize("response", [MUTABLE, IMMUTABLE])
async def test_request_directive_for_a_stale_response_is_obeyed(
    value: bytes, status: bytes, response: Response, clock: ManualClock
) -> None:
    edge = shared_edge(Origin(response), clock)
    await send_request(edge)
    clock.now += 65
    assert (await send_request(edge, headers=control(value))).field(STATUS) == status


@pytest.mark.parametrize("directives", [b"max-age=60, must-revalidate", b"max-age=60, proxy-revalidate", b"s-maxage=60"])
async def test_max_stale_never_gets_a_response_with_must_revalidate(directives: bytes, clock: ManualClock) -> None:
    edge = shared_edge(Origin(full_response(directives)), clock)
    await send_request(edge)
    clock.now += 65
    assert (await send_request(edge, headers=control(b"max-stale"))).field(STATUS) == RENEWED


async def test_max_stale_never_gets_a_response_with_no_cache() -> None:
    origin = Origin(full_response(b"no-cache", (b"etag", b'"one"')))
    edge = shared_edge(origin)
    await send_request(edge)
    assert (await send_request(edge, headers=control(b"max-stale, only-if-cached"))).status == 504


@pytest.mark.parametrize("value", [b"no-cache", b"max-age=600", b"min-fresh=1"])
async def test_client_that_wants_a_fresh_response_never_gets_the_one_under_revalidation(value: bytes, clock: ManualClock) -> None:
    edge = shared_edge(Origin(full_response(b"max-age=60, stale-while-revalidate=30")), clock)
    await send_request(edge)
    clock.now += 65
    assert (await send_request(edge, headers=control(value))).field(STATUS) == RENEWED


# Hosts


def host(value: bytes, *, scheme: str = "http", path: str = "/i/picture") -> Scope:
    return {**http_scope(path), "headers": [(b"host", value)], "scheme": scheme}


async def statuses(edge: Edge, scopes: Sequence[Scope]) -> list[str]:
    """Return for each request whether it was a hit, or why it was forwarded."""
    found = []
    for scope in scopes:
        value = (await ClientRequest(edge, scope, [b""]).response()).field(STATUS)
        assert value is not None
        found.append(value.decode().split("; ")[1])
    return found


async def test_hosts_outside_the_key_share_one_response() -> None:
    edge = shared_edge(Origin())
    scopes = [host(b"a"), host(b"b"), host(b"a:8080"), host(b"a", scheme="https"), {**http_scope(), "headers": []}]
    assert await statuses(edge, scopes) == ["fwd=uri-miss", *["hit"] * 4]


async def test_hosts_in_the_key_have_a_response_each() -> None:
    origin = Origin()
    edge = shared_edge(origin, key_includes_host=True)
    different = [host(b"a"), host(b"b"), host(b"a:8080"), host(b"a", scheme="https"), {**http_scope(), "headers": []}]
    assert await statuses(edge, different) == ["fwd=uri-miss"] * 5
    assert await statuses(edge, [*different, host(b"A"), host(b"a", path="/i/other")]) == [*["hit"] * 6, "fwd=uri-miss"]


async def test_hosts_are_in_the_key_by_default() -> None:
    edge = Edge(Origin(), name="Darkroom", max_bytes=1_000_000, max_concurrent_misses=10)
    assert await statuses(edge, [host(b"a"), host(b"b"), host(b"a")]) == ["fwd=uri-miss", "fwd=uri-miss", "hit"]


async def test_hosts_in_the_key_never_share_a_response_on_its_way() -> None:
    origin = Origin(held=True)
    edge = shared_edge(origin, key_includes_host=True)
    requests = [ClientRequest(edge, host(name), [b""]) for name in (b"a", b"b")]
    await wait_for_all(requests)
    await origin.until_requested(2)
    await origin.release()
    keys = [(await each.response()).field(STATUS) for each in requests]
    assert keys == [stored(key=f"http://{name}/i/picture") for name in ("a", "b")]


# Bodies


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_body_of_a_get_neither_reaches_the_origin_nor_changes_the_response(method: str) -> None:
    origin = Origin()
    edge = shared_edge(origin)
    first = await open_request(edge, method=method, chunks=[b"a" * 1_000, b"b"]).response()
    second = await open_request(edge, method=method, chunks=[b"c"]).response()
    assert (first.field(STATUS), second.field(STATUS)) == (stored(), hit(60))
    assert origin.bodies == [[b""]]


# Cache-Status

# RFC 9211 §2 and RFC 9651 §3.3.3: an item, then parameters that are tokens, integers or strings.
_STRING = r'"(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'
_ITEM = rf"(?:-?\d{{1,15}}|[A-Za-z*][A-Za-z0-9_./-]*|{_STRING})"
_MEMBER = re.compile(rf"[A-Za-z*][A-Za-z0-9_./-]*(?:; [a-z*][a-z0-9_.*-]*(?:={_ITEM})?)*")


@pytest.mark.parametrize(
    ("raw_path", "query", "key"),
    [
        (b"/i/a", b"", "/i/a"),
        (b"/i/a%20b%22", b"w=1", "/i/a%20b%22?w=1"),
        (b"/i/a b", b"", "/i/a b"),
        (b'/i/"a"', b"", "/i/%22a%22"),
        (b"/i/a\\", b"", "/i/a%5C"),
        (b'/i/%2F"', b"", "/i/%252F%22"),
        (b"/i/\xc3\xa4", b"", "/i/%C3%A4"),
        (b"/i/\xff\x00\x7f\r\n", b'"\\', "/i/%FF%00%7F%0D%0A?%22%5C"),
        (b"/i/a", b"\xe4=\t", "/i/a?%E4=%09"),
    ],
)
async def test_cache_status_key_is_a_valid_string_for_any_path(raw_path: bytes, query: bytes, key: str) -> None:
    edge = shared_edge(Origin())
    for expected in (stored(key=key), hit(60, key)):
        assert (await send_request(edge, "/i/decoded", raw_path=raw_path, query=query)).field(STATUS) == expected
        assert _MEMBER.fullmatch(expected.decode("ascii"))


async def test_cache_status_of_every_result_is_well_formed(clock: ManualClock) -> None:
    origin = Origin(full_response(b"max-age=60, stale-if-error=60", (b"etag", b'"one"'), (b"vary", b"accept")))
    edge = shared_edge(origin, clock)
    responses = [await send_request(edge, headers=headers) for headers in ([], [], [(b"accept", b'"\xff,;')], control(b"no-cache"))]
    clock.now += 65
    responses.append(await send_request(edge))
    clock.now += 65
    origin.response = full_response(b"no-store", status=503)
    responses.append(await send_request(edge))
    responses.append(await send_request(edge, "/health"))
    responses.append(await send_request(edge, method="POST"))
    responses.append(await send_request(edge, headers=control(b"only-if-cached")))
    assert len({response.field(STATUS) for response in responses}) == len(responses)
    for response in responses:
        value = response.field(STATUS)
        assert value is not None
        assert _MEMBER.fullmatch(value.decode("ascii"))


async def test_cache_status_begins_with_the_name_of_the_cache_in_lower_case() -> None:
    edge = shared_edge(Origin(), name="Edge-One")
    assert await send_request(edge) == ClientResponse(
        200, [*RENDITION.headers, (STATUS, b'edge-one; fwd=uri-miss; stored; ttl=60; key="/i/picture"')], b"picture"
    )
    assert (await send_request(edge)).field(STATUS) == b'edge-one; hit; ttl=60; key="/i/picture"'


async def test_counters_are_by_label_status_and_result(clock: ManualClock) -> None:
    origin = Origin(full_response(b"max-age=60, stale-while-revalidate=60"), held=True)
    edge = shared_edge(origin, clock, max_concurrent_misses=2, metric_label=lambda path: path.split("/")[1])
    requests = [open_request(edge), open_request(edge)]
    await wait_for_all(requests)
    await send_request(edge, "/i/busy")
    await origin.release()
    for each in requests:
        await each.response()
    await send_request(edge)
    await send_request(edge, method="HEAD")
    await send_request(edge, "/health")
    counts = {key: {result: number for result, number in count.by_result().items() if number} for key, count in edge.counters.items()}
    assert {key: count for key, count in counts.items() if count} == {
        ("i", 200): {"misses": 1, "hits": 2, "collapsed": 1},
        ("i", 503): {"rejected": 1},
        ("health", 200): {"bypassed": 1},
    }
    assert (edge.counters["i", 200].sent_bytes, edge.counters["i", 200].fetches) == (7, 1)


async def test_counters_have_the_status_that_the_client_receives(clock: ManualClock) -> None:
    edge = shared_edge(Origin(full_response(b"max-age=60", (b"etag", b'"one"'))), clock)
    await send_request(edge)
    await send_request(edge, headers=[(b"if-none-match", b'"one"')])
    await send_request(edge, headers=[(b"range", b"bytes=0-1")])
    await send_request(edge, headers=[(b"range", b"bytes=99-")])
    await send_request(edge, "/other", headers=[(b"cache-control", b"only-if-cached")])
    counts = {
        status: {name: number for name, number in count.by_result().items() if number} for (_, status), count in edge.counters.items()
    }
    assert counts == {200: {"misses": 1}, 304: {"hits": 1}, 206: {"hits": 1}, 416: {"hits": 1}, 504: {"misses": 1}}


@pytest.mark.parametrize("measure", [False, True])
async def test_hits_are_measured_only_if_that_is_requested(measure: bool, clock: ManualClock) -> None:
    edge = shared_edge(Origin(full_response(b"max-age=60")), clock, measure_hits=measure)
    for _ in range(3):
        await send_request(edge)
    if measure:
        assert edge.hit_seconds is not None
        assert edge.hit_seconds.buckets()[-1] == ("+Inf", 2)
        assert edge.hit_seconds.sum_seconds == 0, "the clock of the test stands still"
    else:
        assert edge.hit_seconds is None
