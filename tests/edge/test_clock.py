"""The clock of the edge: never back, and on through a suspend."""

from __future__ import annotations

import pytest

from edge.clock import SuspendAwareClock


class Clocks:
    """A monotonic clock and a wall clock that are set by hand."""

    def __init__(self) -> None:
        self.monotonic, self.wall = 50.0, 1_795_435_200.0
        self.clock = SuspendAwareClock(lambda: self.monotonic, lambda: self.wall)
        self.began = self.clock.now()

    def elapsed(self, *, monotonic: float = 0.0, wall: float = 0.0) -> float:
        """Let so many seconds pass on each clock, and return how many the clock has counted since its start."""
        self.monotonic += monotonic
        self.wall += wall
        return self.clock.now() - self.began


def test_clock_counts_the_seconds_of_the_monotonic_clock() -> None:
    assert Clocks().elapsed(monotonic=10, wall=10) == 10


def test_clock_after_a_suspend_has_counted_it() -> None:
    clocks = Clocks()
    assert clocks.elapsed(wall=3_600) == 3_600
    assert clocks.elapsed(monotonic=10, wall=10) == 3_610


def test_clock_whose_wall_clock_is_set_back_goes_on() -> None:
    clocks = Clocks()
    assert clocks.elapsed(monotonic=10, wall=-3_600) == 10
    assert clocks.elapsed(monotonic=10, wall=10) == 20
    # The new difference is remembered, so that a later suspend is counted in full.
    assert clocks.elapsed(wall=60) == 80


def test_clock_whose_wall_clock_is_set_forward_and_back_keeps_the_jump() -> None:
    clocks = Clocks()
    assert clocks.elapsed(wall=3_600) == 3_600
    assert clocks.elapsed(wall=-3_600) == 3_600


@pytest.mark.parametrize("drift", [-0.9, 0.9])
def test_clock_whose_wall_clock_drifts_follows_the_monotonic_clock(drift: float) -> None:
    assert Clocks().elapsed(monotonic=10, wall=10 + drift) == 10


def test_clock_whose_wall_clock_drifts_ahead_for_long_counts_it_once_it_is_more_than_a_second() -> None:
    clocks = Clocks()
    assert clocks.elapsed(monotonic=10, wall=10.75) == 10
    assert clocks.elapsed(monotonic=10, wall=10.75) == 21.5
