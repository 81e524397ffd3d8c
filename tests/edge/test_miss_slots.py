"""How clients share the places of those that wait for the origin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.miss_slots import MissSlots
from tests.edge.asgi import Origin, open_request, send_request, shared_edge, wait_for_all


def fill(slots: MissSlots, *clients: str | None) -> list[int]:
    """Let clients take places in turn until all are refused, and return how many each got."""
    taken = dict.fromkeys(clients, 0)
    while True:
        before = sum(taken.values())
        for client in taken:
            taken[client] += slots.take(client) is None
        if sum(taken.values()) == before:
            return list(taken.values())


@pytest.mark.parametrize(
    ("total", "greedy", "each"),
    [(12, 1, 8), (12, 2, 5), (12, 3, 4), (256, 1, 171), (256, 2, 103), (256, 3, 74), (1, 1, 1), (2, 1, 2), (3, 1, 2)],
)
def test_greedy_clients_get_equal_shares_and_leave_a_place(total: int, greedy: int, each: int) -> None:
    slots = MissSlots(total)
    shares = fill(slots, *map(str, range(greedy)))
    assert max(shares) == each
    assert max(shares) - min(shares) <= 1
    assert total < 3 or slots.take("another") is None


def test_clients_that_are_not_known_share_all_places() -> None:
    slots = MissSlots(12)
    assert fill(slots, None) == [12]
    assert slots.take("another") == "full"


def test_places_beyond_the_shared_ones_are_one_for_each_client() -> None:
    slots = MissSlots(100, 12)
    assert fill(slots, "greedy") == [8]
    assert sum(slots.take(str(number)) is None for number in range(200)) == 92
    assert slots.take(None) == "full"


@given(st.lists(st.tuples(st.sampled_from([None, "a", "b", "c"]), st.booleans()), max_size=200), st.integers(0, 20), st.integers(1, 30))
def test_places_are_neither_lost_nor_doubled(events: list[tuple[str | None, bool]], total: int, shared: int) -> None:
    slots = MissSlots(total, shared)
    held: list[str | None] = []
    for client, arrives in events:
        if not arrives and client in held:
            held.remove(client)
            slots.release(client)
        elif arrives and slots.take(client) is None:
            held.append(client)
        assert slots.in_use == len(held) <= total
    for client in held:
        slots.release(client)
    assert repr(slots) == f"<MissSlots: 0 of {total}, 0 clients>"


@pytest.mark.anyio
@pytest.mark.usefixtures("nothing_left_behind")
async def test_client_with_its_share_is_429_and_others_and_hits_are_not() -> None:
    origin = Origin()
    edge = shared_edge(origin, max_concurrent_misses=3, client_key=lambda scope: scope["path"].split("/")[1])
    await send_request(edge, "/greedy/stored")
    await origin.hold()
    waiting = [open_request(edge, f"/greedy/{number}") for number in range(2)]
    await wait_for_all(waiting)
    refused = await send_request(edge, "/greedy/3")
    assert (refused.status, refused.field(b"retry-after")) == (429, b"1")
    assert refused.field(b"cache-status") == b'darkroom; fwd=uri-miss; detail=share; key="/greedy/3"'
    assert (await send_request(edge, "/greedy/stored")).status == 200
    other = open_request(edge, "/other")
    await other.until_waiting()
    assert (await send_request(edge, "/other/2")).status == 503
    await origin.release()
    assert [(await one.response()).status for one in (*waiting, other)] == [200] * 3
    assert (edge.counters["any", 429].rejected, edge.counters["any", 503].rejected) == (1, 1)
    assert edge.rejections == {"full": 1, "share": 1, "origin": 0}
    assert edge._miss_slots.in_use == 0
