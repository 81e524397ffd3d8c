"""Which connections are closed: by the bytes that clients acknowledge, by the number of connections, by the address."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.connections import WINDOW_BYTES, WINDOW_SECONDS, ConnectionPolicy, ConnectionState, WholeBodies, network_of


def state(
    number: int, acked: int = 1, *, unread: bool = True, idle_milliseconds: int | None = None, address: str = "192.0.2.1"
) -> ConnectionState:
    """Return connection `number` as a scan finds it."""
    return ConnectionState(
        descriptor=number,
        cookie=number.to_bytes(8, "little"),
        peer=(address, number),
        is_unread=unread and idle_milliseconds is None,
        acked=acked,
        is_idle=idle_milliseconds is not None,
        silent_milliseconds=idle_milliseconds or 0,
    )


def closed_at(acked: list[int], *, drained: frozenset[int] = frozenset()) -> int | None:
    """Return the second at which a connection is closed that has acknowledged `acked[second]` bytes; at `drained` it has them all."""
    policy = ConnectionPolicy(max_connections=100)
    for second, bytes_ in enumerate(acked):
        closed = policy.select([state(1, bytes_, unread=second not in drained)], float(second))
        if closed["stalled"]:
            return second
        assert not closed["crowded"]
        assert not closed["excess"]
    return None


def test_reader_that_acknowledges_nothing_is_closed_after_one_window() -> None:
    assert closed_at([1] * 60) == WINDOW_SECONDS + 1


def test_reader_that_drips_is_closed_after_one_window() -> None:
    assert closed_at(list(range(60))) == WINDOW_SECONDS + 1


def test_reader_that_stops_after_much_has_no_credit() -> None:
    stops_at = 10
    assert closed_at([1 + 10_000_000 * min(second, stops_at) for second in range(90)]) == stops_at + WINDOW_SECONDS + 1


def test_reader_that_has_everything_begins_a_new_window() -> None:
    drained = frozenset(range(0, 200, 20))
    assert closed_at([second for second in range(200)], drained=drained) is None  # noqa: C416 - as in the lines above


@given(factor=st.floats(1, 1_000), step=st.integers(1, 20))
def test_reader_faster_than_the_minimum_in_every_window_is_never_closed(factor: float, step: int) -> None:
    """It reads nothing for `step` seconds, then all that it has missed at once."""
    rate = factor * WINDOW_BYTES / (WINDOW_SECONDS - step)
    assert closed_at([math.ceil(rate * (second // step * step)) for second in range(200)]) is None


def test_descriptor_of_another_connection_has_a_window_of_its_own() -> None:
    policy = ConnectionPolicy(max_connections=100)
    for second in range(20):
        policy.select([state(1)], float(second))
    another = state(1)._replace(cookie=b"another ")
    for second in range(20, 45):
        assert not policy.select([another], float(second))["stalled"]


def test_crowd_of_readers_is_cut_to_a_quarter_longest_without_progress_first() -> None:
    policy = ConnectionPolicy(max_connections=40)
    early, late = [state(number) for number in range(8)], [state(number) for number in range(8, 16)]
    assert policy.select(early, 0.0)["crowded"] == []
    assert policy.select([*late, *early], 1.0)["crowded"] == early[:6]
    assert policy.select([*late, *early[6:]], 2.0)["crowded"] == []


def test_crowd_in_its_first_scan_is_not_closed() -> None:
    policy = ConnectionPolicy(max_connections=40)
    crowd = [state(number) for number in range(40)]
    assert policy.select(crowd, 0.0)["crowded"] == []
    assert len(policy.select(crowd, 1.0)["crowded"]) == 30


def test_reader_in_a_crowd_that_makes_progress_stays() -> None:
    policy = ConnectionPolicy(max_connections=40)
    stalled = [state(number) for number in range(30)]
    policy.select([state(99), *stalled], 0.0)
    closed = policy.select([state(99, 1 + WINDOW_BYTES), *stalled], 1.0)["crowded"]
    assert len(closed) == 21
    assert 99 not in {one.descriptor for one in closed}


def test_idle_connections_make_room_beyond_three_quarters_longest_idle_first() -> None:
    policy = ConnectionPolicy(max_connections=40)
    waiting = [state(number, unread=False) for number in range(5)]
    idle = [state(number, idle_milliseconds=number * 1_000) for number in range(5, 31)]
    assert policy.select([*waiting, *idle], 0.0)["crowded"] == idle[:-22:-1]
    assert policy.select([*waiting, *idle[:25]], 1.0)["crowded"] == []


def test_connections_that_wait_for_a_response_make_no_room() -> None:
    waiting = [state(number, unread=False) for number in range(39)]
    idle = state(39, idle_milliseconds=5_000)
    assert ConnectionPolicy(max_connections=40).select([*waiting, idle], 0.0)["crowded"] == [idle]


def test_connections_idle_for_less_than_a_second_stay() -> None:
    fresh = [state(number, idle_milliseconds=999) for number in range(40)]
    assert ConnectionPolicy(max_connections=40).select(fresh, 0.0)["crowded"] == []


def test_connections_beyond_the_bound_of_an_address_are_closed_newest_first() -> None:
    policy = ConnectionPolicy(max_connections=100, max_per_address=3)
    old = [state(number) for number in (5, 6, 7)]
    other = [state(number, address="192.0.2.2") for number in (1, 2, 3)]
    assert policy.select([*old, *other], 0.0)["excess"] == []
    new = [state(number) for number in (2, 3)]
    assert policy.select([*new, *old, *other], 1.0)["excess"] == new


def test_connections_without_a_bound_may_all_have_one_address() -> None:
    assert ConnectionPolicy(max_connections=1_000).select([state(number) for number in range(200)], 0.0)["excess"] == []


@pytest.mark.parametrize(
    ("one", "another", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_client_is_an_address_of_ipv4_or_a_network_of_ipv6(one: str, another: str, same: bool) -> None:
    assert (network_of(one) == network_of(another)) is same


def test_bodies_are_handed_over_whole_to_so_many_clients_that_memory_is_bounded() -> None:
    whole = WholeBodies()
    admitted = [client for client in ((f"192.0.2.{number}", 1) for number in range(200)) if whole.admit(client, 2 << 20)]
    assert len(admitted) == 64
    assert whole.total_bytes == 128 << 20
    assert all(whole.admit(client, 1 << 20) for client in admitted), "a connection has one response at a time"
    whole.release(admitted[:10])
    assert whole.clients() == set(admitted[10:])
    assert whole.admit(("192.0.2.250", 1), 2 << 20)


def test_body_of_more_than_2_mebibytes_is_not_handed_over_whole() -> None:
    assert not WholeBodies().admit(("192.0.2.1", 1), (2 << 20) + 1)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3 << 20), st.booleans()), max_size=50))
def test_whole_bodies_count_what_each_client_may_hold(steps: list[tuple[int, int, bool]]) -> None:
    whole, largest = WholeBodies(), dict[tuple[str, int], int]()
    for number, size, releases in steps:
        client = ("192.0.2.1", number)
        if releases:
            whole.release([client])
            largest.pop(client, None)
        elif whole.admit(client, size):
            largest[client] = max(size, largest.get(client, 0))
        assert whole.total_bytes == sum(largest.values())
