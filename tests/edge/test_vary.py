"""Responses that vary by request headers: which one a request gets, who shares it, and what a purge removes (RFC 9111 §4.1)."""

from __future__ import annotations

import asyncio

import pytest

from edge.asgi import Headers, Response, Scope, get_header_values
from edge.store import MEMORY_TIER
from tests.edge.asgi import (
    ClientResponse,
    ManualClock,
    Origin,
    full_response,
    not_stored,
    open_request,
    send_request,
    settle,
    shared_edge,
    wait_for_all,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left_behind")]

STATUS = b"cache-status"
ACCEPT, LANGUAGE = b"accept", b"accept-language"
AVIF, WEBP = [(ACCEPT, b"image/avif")], [(ACCEPT, b"image/webp")]


class Varying:
    """Responds with the request's values of some headers, which it names in `Vary`."""

    def __init__(self, *names: bytes, vary: bytes | None = None, directives: bytes = b"max-age=60", tag: bytes = b"") -> None:
        self.names = names
        self.vary = b", ".join(names) if vary is None else vary
        self.directives = directives
        self.tag = tag

    def __call__(self, scope: Scope) -> Response:
        body = b"; ".join(b", ".join(get_header_values(scope["headers"], name)) for name in self.names)
        more = [(b"cache-tag", self.tag)] if self.tag else []
        return full_response(self.directives, (b"vary", self.vary), *more, body=body)


def words(response: ClientResponse) -> bytes:
    """Return the `Cache-Status` without its key."""
    value = response.field(STATUS)
    assert value is not None
    return value.partition(b"; key=")[0].removeprefix(b"darkroom; ")


STORED, HIT = b"stored; ttl=60", b"hit; ttl=60"
FIRST, LATER, SHARED = b"fwd=uri-miss; " + STORED, b"fwd=vary-miss; " + STORED, b"fwd=uri-miss; collapsed; ttl=60"


async def test_varying_responses_are_stored_once_for_each_value() -> None:
    origin = Origin(Varying(ACCEPT))
    edge = shared_edge(origin)
    for expected in ((FIRST, LATER, LATER), (HIT, HIT, HIT)):
        responses = [await send_request(edge, headers=headers) for headers in (AVIF, WEBP, [])]
        assert [response.body for response in responses] == [b"image/avif", b"image/webp", b""]
        assert tuple(words(response) for response in responses) == expected
    assert len(origin.requests) == 3


async def test_varying_response_has_exact_headers_on_miss_and_hit(clock: ManualClock) -> None:
    response = Varying(ACCEPT)
    edge = shared_edge(Origin(response), clock)
    headers = full_response(b"max-age=60", (b"vary", b"accept"), body=b"image/avif").headers
    # The first one leads before the edge knows that the responses vary.
    assert await send_request(edge, headers=AVIF) == ClientResponse(
        200, [*headers, (STATUS, b"darkroom; " + FIRST + b'; key="/i/picture"')], b"image/avif"
    )
    key = b'key="/i/picture%001%00image/avif"'
    clock.now += 5
    added = [(b"age", b"5"), (STATUS, b"darkroom; hit; ttl=55; " + key), MEMORY_TIER]
    assert await send_request(edge, headers=AVIF) == ClientResponse(200, [*headers, *added], b"image/avif")
    other = full_response(b"max-age=60", (b"vary", b"accept"), body=b"image/webp").headers
    key = b'key="/i/picture%001%00image/webp"'
    assert await send_request(edge, headers=WEBP) == ClientResponse(
        200, [*other, (STATUS, b"darkroom; " + LATER + b"; " + key)], b"image/webp"
    )


async def test_varying_response_is_304_206_or_without_body_as_requested() -> None:
    edge = shared_edge(Origin(full_response(b"max-age=60", (b"vary", b"accept"), (b"etag", b'"one"'))))
    await send_request(edge, headers=AVIF)
    response = await send_request(edge, headers=[*AVIF, (b"if-none-match", b'"one"')])
    assert (response.status, response.field(b"vary"), words(response)) == (304, b"accept", HIT)
    response = await send_request(edge, headers=[*AVIF, (b"range", b"bytes=0-1")])
    assert (response.status, response.body, words(response)) == (206, b"pi", HIT)
    response = await send_request(edge, headers=AVIF, method="HEAD")
    assert (response.status, response.body, words(response)) == (200, b"", HIT)


@pytest.mark.parametrize(
    "vary", [b"accept, accept-language", b"Accept-Language,ACCEPT", b" accept-language ,, accept ,", b"accept, accept-language, Accept"]
)
async def test_vary_is_the_same_in_any_order_case_and_spacing(vary: bytes) -> None:
    origin = Origin(Varying(ACCEPT, LANGUAGE))
    edge = shared_edge(origin)
    request_headers = [*AVIF, (LANGUAGE, b"en")]
    await send_request(edge, headers=request_headers)
    origin.response = Varying(ACCEPT, LANGUAGE, vary=vary)
    assert words(await send_request(edge, headers=[*AVIF, (LANGUAGE, b"de")])) == LATER
    # The first response is still found, because the second `Vary` names the same headers.
    assert words(await send_request(edge, headers=request_headers)) == HIT
    assert words(await send_request(edge, headers=list(reversed(request_headers)))) == HIT


async def test_vary_on_two_lines_is_one_list() -> None:
    origin = Origin(full_response(b"max-age=60", (b"vary", b"accept"), (b"vary", b"accept-language")))
    edge = shared_edge(origin)
    await send_request(edge, headers=[*AVIF, (LANGUAGE, b"en")])
    assert words(await send_request(edge, headers=[*AVIF, (LANGUAGE, b"de")])) == LATER
    assert words(await send_request(edge, headers=[*AVIF, (LANGUAGE, b"en")])) == HIT


@pytest.mark.parametrize("vary", [b"", b" , ,"])
async def test_vary_that_names_nothing_is_none(vary: bytes) -> None:
    edge = shared_edge(Origin(full_response(b"max-age=60", (b"vary", vary))))
    await send_request(edge, headers=AVIF)
    assert words(await send_request(edge, headers=WEBP)) == HIT


@pytest.mark.parametrize("vary", [[b"*"], [b"accept, *"], [b"accept", b"*"], [b" * "]])
async def test_response_that_varies_by_everything_is_neither_stored_nor_shared(vary: list[bytes]) -> None:
    response = full_response(b"max-age=60", *((b"vary", value) for value in vary))
    origin = Origin(response, held=True)
    edge = shared_edge(origin)
    requests = [open_request(edge) for _ in range(3)]
    await wait_for_all(requests)
    await origin.release()
    assert [await each.response() for each in requests] == [
        ClientResponse(200, [*response.headers, (STATUS, not_stored())], b"picture")
    ] * 3
    assert len(origin.requests) == 3
    assert edge.stored_entries == 0


async def test_missing_header_and_empty_header_are_different() -> None:
    origin = Origin(Varying(ACCEPT))
    edge = shared_edge(origin)
    await send_request(edge)
    assert words(await send_request(edge, headers=[(ACCEPT, b"")])) == LATER
    assert words(await send_request(edge)) == HIT
    assert words(await send_request(edge, headers=[(ACCEPT, b"")])) == HIT
    assert len(origin.requests) == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([(ACCEPT, b"a, b")], [(ACCEPT, b"a,b")]),
        ([(ACCEPT, b"a, b")], [(ACCEPT, b"a"), (ACCEPT, b"b")]),
        ([(ACCEPT, b"a , b")], [(ACCEPT, b" a"), (b"host", b"other"), (ACCEPT, b"b\t")]),
    ],
)
async def test_header_on_other_lines_or_with_other_spaces_is_the_same(first: Headers, second: Headers) -> None:
    edge = shared_edge(Origin(Varying(ACCEPT)))
    await send_request(edge, headers=first)
    assert words(await send_request(edge, headers=second)) == HIT


@pytest.mark.parametrize(("first", "second"), [(b"a, b", b"b, a"), (b"a", b"A"), (b"a", b"a, a"), (b"a b", b"ab")])
async def test_header_with_another_value_is_different(first: bytes, second: bytes) -> None:
    edge = shared_edge(Origin(Varying(ACCEPT)))
    await send_request(edge, headers=[(ACCEPT, first)])
    assert words(await send_request(edge, headers=[(ACCEPT, second)])) == LATER


async def test_value_of_one_header_never_matches_that_of_another() -> None:
    edge = shared_edge(Origin(Varying(ACCEPT, LANGUAGE)))
    await send_request(edge, headers=[(ACCEPT, b"a"), (LANGUAGE, b"b")])
    for other in (
        [(ACCEPT, b"b"), (LANGUAGE, b"a")],
        [(ACCEPT, b"a,b")],
        [(LANGUAGE, b"a,b")],
        [(ACCEPT, b"a"), (LANGUAGE, b"b"), (ACCEPT, b"")],
    ):
        assert words(await send_request(edge, headers=other)) == LATER


async def test_normalizer_maps_many_values_to_one() -> None:
    origin = Origin(full_response(b"max-age=60", (b"vary", b"accept, accept-language")))
    edge = shared_edge(origin, vary_normalizers={ACCEPT: lambda value: b"avif" if b"image/avif" in value else b"any"})
    await send_request(edge, headers=[(ACCEPT, b"image/avif,image/webp")])
    assert words(await send_request(edge, headers=[(ACCEPT, b"*/*"), (ACCEPT, b"image/avif;q=0.5")])) == HIT
    assert words(await send_request(edge, headers=WEBP)) == LATER
    # The normalizer gets an empty value for a missing header.
    assert words(await send_request(edge)) == HIT
    # The other header has no normalizer, and is compared unchanged.
    assert words(await send_request(edge, headers=[*AVIF, (LANGUAGE, b"en")])) == LATER
    # The origin sees what the client sent.
    assert [get_header_values(scope["headers"], ACCEPT) for scope in origin.requests][:2] == [[b"image/avif,image/webp"], [b"image/webp"]]


# Coalescing


async def test_waiters_with_different_values_lead_one_request_for_each() -> None:
    origin = Origin(Varying(ACCEPT), held=True)
    edge = shared_edge(origin)
    requests = [open_request(edge, headers=headers) for headers in (AVIF, WEBP, [], AVIF, WEBP, [], WEBP)]
    await wait_for_all(requests)
    assert len(origin.requests) == 1
    await origin.release(first=1)
    await origin.until_requested(3)
    for _ in range(5):
        await asyncio.sleep(0)
    assert origin.concurrent == 2
    await origin.release()
    responses = [await each.response() for each in requests]
    bodies = [b"image/avif", b"image/webp", b""]
    assert [response.body for response in responses] == [*bodies, *bodies, b"image/webp"]
    later = b"fwd=vary-miss; collapsed; ttl=60"
    assert [words(response) for response in responses] == [FIRST, LATER, LATER, SHARED, later, later, later]
    assert len(origin.requests) == 3
    assert edge._miss_slots.in_use == 0


async def test_waiters_with_different_values_never_share_a_response_that_is_not_stored() -> None:
    momentary = Varying(ACCEPT, directives=b"max-age=1")
    origin = Origin(momentary, held=True)
    edge = shared_edge(origin)
    requests = [open_request(edge, headers=headers) for headers in (AVIF, AVIF, WEBP, WEBP)]
    await wait_for_all(requests)
    await origin.release()
    assert [(await each.response()).body for each in requests] == [b"image/avif", b"image/avif", b"image/webp", b"image/webp"]
    assert edge.stored_entries == 0


async def test_concurrent_requests_for_two_known_values_are_two_fetches() -> None:
    origin = Origin(Varying(ACCEPT), held=True)
    await origin.release(first=1)
    edge = shared_edge(origin)
    await send_request(edge, headers=AVIF)
    requests = [open_request(edge, headers=headers) for headers in (WEBP, [], WEBP, [])]
    await wait_for_all(requests)
    await origin.until_requested(3)
    await origin.release()
    assert [(await each.response()).body for each in requests] == [b"image/webp", b"", b"image/webp", b""]
    assert len(origin.requests) == 3


# Purges and changes


async def test_purge_of_a_path_removes_the_responses_for_all_values() -> None:
    origin = Origin(Varying(ACCEPT))
    edge = shared_edge(origin)
    for headers in (AVIF, WEBP):
        await send_request(edge, headers=headers)
    edge.purge(b"/i/picture")
    assert [words(await send_request(edge, headers=headers)) for headers in (AVIF, WEBP)] == [FIRST, LATER]
    assert [words(await send_request(edge, headers=headers)) for headers in (AVIF, WEBP)] == [HIT, HIT]
    assert len(origin.requests) == 4


async def test_purge_of_a_path_stores_no_response_on_its_way() -> None:
    origin = Origin(Varying(ACCEPT), held=True)
    await origin.release(first=1)
    edge = shared_edge(origin)
    await send_request(edge, headers=AVIF)
    coming = open_request(edge, headers=WEBP)
    await coming.until_waiting()
    await origin.until_requested(2)
    edge.purge(b"/i/picture")
    await origin.release()
    assert words(await coming.response()) == b"fwd=vary-miss"
    assert words(await send_request(edge, headers=WEBP)) == FIRST


async def test_purge_of_a_tag_removes_only_the_responses_with_it() -> None:
    origin = Origin(Varying(ACCEPT, tag=b"old"))
    edge = shared_edge(origin)
    await send_request(edge, headers=AVIF)
    origin.response = Varying(ACCEPT, tag=b"new")
    await send_request(edge, headers=WEBP)
    assert edge.purge_tags(["old"]) == 1
    assert words(await send_request(edge, headers=WEBP)) == HIT
    assert words(await send_request(edge, headers=AVIF)) == LATER


async def test_response_that_stops_varying_is_for_all() -> None:
    origin = Origin(Varying(ACCEPT))
    edge = shared_edge(origin)
    await send_request(edge, headers=AVIF)
    origin.response = full_response(b"max-age=60")
    assert words(await send_request(edge, headers=WEBP)) == LATER
    assert [(await send_request(edge, headers=headers)).body for headers in (AVIF, WEBP, [])] == [b"picture"] * 3
    assert len(origin.requests) == 2


async def test_response_that_starts_to_vary_is_no_longer_for_all(clock: ManualClock) -> None:
    origin = Origin(full_response(b"max-age=60"))
    edge = shared_edge(origin, clock)
    await send_request(edge, headers=AVIF)
    clock.now += 60
    origin.response = Varying(ACCEPT)
    assert words(await send_request(edge, headers=AVIF)) == b"fwd=stale; " + STORED
    assert words(await send_request(edge, headers=WEBP)) == LATER
    assert words(await send_request(edge, headers=AVIF)) == HIT


async def test_response_that_varies_by_other_headers_hides_earlier_ones() -> None:
    origin = Origin(Varying(ACCEPT))
    edge = shared_edge(origin)
    await send_request(edge, headers=AVIF)
    origin.response = Varying(ACCEPT, LANGUAGE)
    await send_request(edge, headers=WEBP)
    # It may vary by language, too, and its own language is unknown.
    assert words(await send_request(edge, headers=AVIF)) == LATER
    assert words(await send_request(edge, headers=[*AVIF, (LANGUAGE, b"de")])) == LATER
    assert words(await send_request(edge, headers=AVIF)) == HIT


async def test_stale_response_for_one_value_is_revalidated_separately(clock: ManualClock) -> None:
    origin = Origin(Varying(ACCEPT, directives=b"max-age=60, stale-while-revalidate=30"))
    edge = shared_edge(origin, clock)
    for headers in (AVIF, WEBP):
        await send_request(edge, headers=headers)
    clock.now += 65
    assert words(await send_request(edge, headers=WEBP)) == b"hit; ttl=-5"
    await settle(edge)
    assert words(await send_request(edge, headers=WEBP)) == HIT
    assert words(await send_request(edge, headers=AVIF)) == b"hit; ttl=-5"
    await settle(edge)
    assert [get_header_values(scope["headers"], ACCEPT) for scope in origin.requests] == [
        [b"image/avif"], [b"image/webp"], [b"image/webp"], [b"image/avif"],
    ]  # fmt: skip


async def test_error_that_does_not_vary_keeps_the_varying_responses(clock: ManualClock) -> None:
    origin = Origin(Varying(ACCEPT))
    edge = shared_edge(origin, clock)
    for headers in (AVIF, WEBP):
        await send_request(edge, headers=headers)
    origin.response = full_response(b"no-store", status=503)
    assert words(await send_request(edge)) == b"fwd=vary-miss"
    assert [words(await send_request(edge, headers=headers)) for headers in (AVIF, WEBP)] == [HIT, HIT]
