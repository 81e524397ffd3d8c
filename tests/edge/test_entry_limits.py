"""Clients choose URLs: which of them make entries, and how much memory these may take."""

from __future__ import annotations

import pytest

from tests.edge.asgi import Origin, full_response, hit, not_stored, open_request, send_request, shared_edge, stored, wait_for_all

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left_behind")]

MAX_BYTES = 80_000
FRACTION = 1 / 16


def label_of(path: str) -> str:
    return "picture" if path.startswith("/i/") else "page"


# Queries


async def test_query_if_not_stored_makes_no_entry_and_keeps_stored_ones() -> None:
    origin = Origin()
    edge = shared_edge(origin, store_responses_to_queries=False)
    assert (await send_request(edge)).field(b"cache-status") == stored()
    for number in range(100):
        response = await send_request(edge, query=b"v=%d" % number, headers=[(b"range", b"bytes=0-0")])
        assert (response.status, response.body) == (206, b"p")
        assert response.field(b"cache-status") == not_stored(f"/i/picture?v={number}")
    assert edge.stored_entries == 1
    assert len(origin.requests) == 101
    assert (await send_request(edge)).field(b"cache-status") == hit(60)


async def test_query_if_not_stored_never_gets_the_response_without_a_query() -> None:
    origin = Origin(lambda scope: full_response(b"max-age=60", body=scope["query_string"] or b"none"))
    edge = shared_edge(origin, store_responses_to_queries=False)
    assert [(await send_request(edge, query=query)).body for query in (b"", b"a=1", b"", b"a=2", b"a=1")] == [
        b"none",
        b"a=1",
        b"none",
        b"a=2",
        b"a=1",
    ]


async def test_query_if_not_stored_is_one_origin_request_for_concurrent_clients() -> None:
    origin = Origin(held=True)
    edge = shared_edge(origin, store_responses_to_queries=False)
    requests = [open_request(edge, query=b"utm_source=mail") for _ in range(20)]
    await wait_for_all(requests)
    await origin.release()
    responses = [await each.response() for each in requests]
    assert len(origin.requests) == 1
    assert {response.body for response in responses} == {b"picture"}
    assert {response.field(b"cache-status") for response in responses[1:]} == {
        b'darkroom; fwd=uri-miss; collapsed; key="/i/picture?utm_source=mail"'
    }
    assert edge.stored_entries == 0


async def test_query_is_stored_by_default() -> None:
    edge = shared_edge(Origin())
    for query in (b"a", b"b"):
        assert (await send_request(edge, query=query)).field(b"cache-status") == stored(key=f"/i/picture?{query.decode()}")
    assert edge.stored_entries == 2


# Fractions of the budget


async def test_fraction_of_a_label_is_never_exceeded_and_takes_no_more_from_other_labels() -> None:
    origin = Origin(full_response(b"max-age=60", body=bytes(1_000)))
    edge = shared_edge(origin, max_bytes=MAX_BYTES, metric_label=label_of, max_fraction_by_label={"page": FRACTION})
    for number in range(30):
        await send_request(edge, f"/i/{number}")
    for number in range(400):
        await send_request(edge, f"/page/{number}")
    assert edge.stored_bytes <= MAX_BYTES
    assert (edge.counters["picture", 200].evicted, edge.stored_entries) == (0, 30 + 2)
    assert edge.counters["page", 200].evicted == 400 - 2
    for number in range(30):
        assert (await send_request(edge, f"/i/{number}")).field(b"cache-status") == hit(60, f"/i/{number}")


async def test_fraction_that_is_not_used_is_available_to_other_labels() -> None:
    origin = Origin(full_response(b"max-age=60", body=bytes(1_000)))
    edge = shared_edge(origin, max_bytes=MAX_BYTES, metric_label=label_of, max_fraction_by_label={"page": FRACTION})
    for number in range(200):
        await send_request(edge, f"/i/{number}")
    assert MAX_BYTES - 2_000 < edge.stored_bytes <= MAX_BYTES
    # A page evicts other entries as long as its label has not used up its fraction.
    await send_request(edge, "/page")
    assert (await send_request(edge, "/page")).field(b"cache-status") == hit(60, "/page")
    assert edge.stored_bytes <= MAX_BYTES


async def test_fraction_too_small_for_a_response_sends_it_without_storing_it() -> None:
    edge = shared_edge(
        Origin(full_response(b"max-age=60", body=bytes(6_000))),
        max_bytes=MAX_BYTES,
        metric_label=label_of,
        max_fraction_by_label={"page": FRACTION},
    )
    for _ in range(2):
        response = await send_request(edge, "/page")
        assert (len(response.body), response.field(b"cache-status")) == (6_000, not_stored("/page"))
    assert (await send_request(edge)).field(b"cache-status") == stored()


async def test_fraction_of_a_label_includes_varying_responses() -> None:
    origin = Origin(full_response(b"max-age=60", (b"vary", b"accept"), body=bytes(1_000)))
    edge = shared_edge(origin, max_bytes=MAX_BYTES, metric_label=label_of, max_fraction_by_label={"page": FRACTION})
    for number in range(100):
        await send_request(edge, "/page", headers=[(b"accept", b"text/%d" % number)])
        assert edge.stored_bytes <= MAX_BYTES * FRACTION


@pytest.mark.parametrize("times", [1, 2])
async def test_fraction_of_a_label_is_free_again_after_a_purge(times: int) -> None:
    edge = shared_edge(Origin(), metric_label=label_of, max_fraction_by_label={"page": FRACTION})
    await send_request(edge, "/page")
    for _ in range(times):
        edge.purge(b"/page")
    assert (edge.stored_bytes, edge.stored_entries) == (0, 0)
