"""Strangers choose addresses: which of them make entries, and of which entries how many there may be."""

from __future__ import annotations

import pytest

from tests.edge.asgi import Origin, all_wait, ask, hit, shared_edge, stored, unkept, visit, whole

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left_behind")]

MAX_BYTES = 80_000
SHARE = 1 / 16


def kind_of(path: str) -> str:
    return "picture" if path.startswith("/i/") else "page"


# Queries


async def test_query_where_queries_are_not_stored_makes_no_entry_and_leaves_what_is_stored() -> None:
    origin = Origin()
    edge = shared_edge(origin, store_responses_to_queries=False)
    assert (await ask(edge)).field(b"cache-status") == stored()
    for number in range(100):
        reply = await ask(edge, query=b"v=%d" % number, headers=[(b"range", b"bytes=0-0")])
        assert (reply.status, reply.body) == (206, b"p")
        assert reply.field(b"cache-status") == unkept(f"/i/picture?v={number}")
    assert edge.stored_entries == 1
    assert len(origin.requests) == 101
    assert (await ask(edge)).field(b"cache-status") == hit(60)


async def test_query_where_queries_are_not_stored_is_never_answered_with_what_has_none() -> None:
    origin = Origin(lambda scope: whole(b"max-age=60", body=scope["query_string"] or b"none"))
    edge = shared_edge(origin, store_responses_to_queries=False)
    assert [(await ask(edge, query=query)).body for query in (b"", b"a=1", b"", b"a=2", b"a=1")] == [
        b"none",
        b"a=1",
        b"none",
        b"a=2",
        b"a=1",
    ]


async def test_query_where_queries_are_not_stored_is_one_request_for_many_clients_at_once() -> None:
    origin = Origin(held=True)
    edge = shared_edge(origin, store_responses_to_queries=False)
    visits = [visit(edge, query=b"utm_source=mail") for _ in range(20)]
    await all_wait(visits)
    await origin.release()
    replies = [await each.reply() for each in visits]
    assert len(origin.requests) == 1
    assert {reply.body for reply in replies} == {b"picture"}
    assert {reply.field(b"cache-status") for reply in replies[1:]} == {
        b'darkroom; fwd=uri-miss; collapsed; key="/i/picture?utm_source=mail"'
    }
    assert edge.stored_entries == 0


async def test_query_is_stored_unless_the_edge_is_set_up_otherwise() -> None:
    edge = shared_edge(Origin())
    for query in (b"a", b"b"):
        assert (await ask(edge, query=query)).field(b"cache-status") == stored(key=f"/i/picture?{query.decode()}")
    assert edge.stored_entries == 2


# Shares


async def test_share_of_a_kind_is_never_exceeded_and_costs_the_other_kinds_no_more() -> None:
    origin = Origin(whole(b"max-age=60", body=bytes(1_000)))
    edge = shared_edge(origin, max_bytes=MAX_BYTES, metric_label=kind_of, max_fraction_by_label={"page": SHARE})
    for number in range(30):
        await ask(edge, f"/i/{number}")
    for number in range(400):
        await ask(edge, f"/page/{number}")
    assert edge.stored_bytes <= MAX_BYTES
    assert (edge.counters["picture"].evicted, edge.stored_entries) == (0, 30 + 2)
    assert edge.counters["page"].evicted == 400 - 2
    for number in range(30):
        assert (await ask(edge, f"/i/{number}")).field(b"cache-status") == hit(60, f"/i/{number}")


async def test_share_that_is_not_used_is_there_for_the_rest() -> None:
    origin = Origin(whole(b"max-age=60", body=bytes(1_000)))
    edge = shared_edge(origin, max_bytes=MAX_BYTES, metric_label=kind_of, max_fraction_by_label={"page": SHARE})
    for number in range(200):
        await ask(edge, f"/i/{number}")
    assert MAX_BYTES - 2_000 < edge.stored_bytes <= MAX_BYTES
    # A page finds room at the cost of the others, as far as its share goes.
    await ask(edge, "/page")
    assert (await ask(edge, "/page")).field(b"cache-status") == hit(60, "/page")
    assert edge.stored_bytes <= MAX_BYTES


async def test_share_too_small_for_a_response_has_it_sent_and_not_stored() -> None:
    edge = shared_edge(
        Origin(whole(b"max-age=60", body=bytes(6_000))), max_bytes=MAX_BYTES, metric_label=kind_of, max_fraction_by_label={"page": SHARE}
    )
    for _ in range(2):
        reply = await ask(edge, "/page")
        assert (len(reply.body), reply.field(b"cache-status")) == (6_000, unkept("/page"))
    assert (await ask(edge)).field(b"cache-status") == stored()


async def test_share_holds_what_varies_too() -> None:
    origin = Origin(whole(b"max-age=60", (b"vary", b"accept"), body=bytes(1_000)))
    edge = shared_edge(origin, max_bytes=MAX_BYTES, metric_label=kind_of, max_fraction_by_label={"page": SHARE})
    for number in range(100):
        await ask(edge, "/page", headers=[(b"accept", b"text/%d" % number)])
        assert edge.stored_bytes <= MAX_BYTES * SHARE


@pytest.mark.parametrize("times", [1, 2])
async def test_share_is_free_again_once_its_entries_are_purged(times: int) -> None:
    edge = shared_edge(Origin(), metric_label=kind_of, max_fraction_by_label={"page": SHARE})
    await ask(edge, "/page")
    for _ in range(times):
        edge.purge(b"/page")
    assert (edge.stored_bytes, edge.stored_entries) == (0, 0)
