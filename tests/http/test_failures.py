"""The limit of wrong tokens and signatures for each client."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.http.failures import FAILURES_PER_SECOND, MAX_CLIENTS, MAX_FAILURES, Failures


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_client_may_fail_so_many_times_and_then_once_a_second() -> None:
    clock = Clock()
    failures = Failures(clock)
    for _ in range(MAX_FAILURES):
        assert failures.retry_after_seconds("a") == 0
        failures.add("a", "token")
    assert failures.retry_after_seconds("a") == 1
    assert failures.retry_after_seconds("b") == 0
    clock.now += 1 / FAILURES_PER_SECOND
    assert failures.retry_after_seconds("a") == 0
    failures.add("a", "signature")
    assert failures.retry_after_seconds("a") == 1
    assert failures.failed == {"token": MAX_FAILURES, "signature": 1}


def test_failures_of_the_past_are_forgotten() -> None:
    clock = Clock()
    failures = Failures(clock)
    failures.add("a", "token")
    assert failures
    clock.now += MAX_FAILURES / FAILURES_PER_SECOND
    assert not failures
    assert failures.retry_after_seconds("a") == 0


def test_clients_that_are_not_known_are_not_limited() -> None:
    failures = Failures(Clock())
    for _ in range(2 * MAX_FAILURES):
        failures.add(None, "token")
    assert failures.retry_after_seconds(None) == 0
    assert not failures


def test_very_many_clients_take_bounded_memory() -> None:
    failures = Failures(Clock())
    for number in range(2 * MAX_CLIENTS):
        failures.add(str(number), "signature")
    assert repr(failures) == f"<Failures of {MAX_CLIENTS} clients>"


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 30)), max_size=300))
def test_client_that_waits_as_long_as_it_is_told_may_fail_again(events: list[tuple[str, float]]) -> None:
    clock = Clock()
    failures = Failures(clock)
    for client, pause in events:
        clock.now += pause
        failures.add(client, "token")
    for client in "ab":
        clock.now += failures.retry_after_seconds(client)
        assert failures.retry_after_seconds(client) == 0
