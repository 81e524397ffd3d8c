"""The histogram of hits: in which bucket a duration is counted."""

from __future__ import annotations

import pytest

from edge.counters import HIT_BOUNDS_SECONDS, LatencyHistogram


@pytest.mark.parametrize(
    ("seconds", "bound"),
    [(0.0, "5e-05"), (0.00005, "5e-05"), (0.000051, "0.0001"), (0.0001, "0.0001"), (9.9, "10.0"), (10.0, "10.0"), (10.1, "+Inf")],
)
def test_duration_is_counted_under_the_first_bound_that_it_does_not_exceed(seconds: float, bound: str) -> None:
    histogram = LatencyHistogram()
    histogram.observe(seconds)
    counted = [name for name, total in histogram.buckets() if total]
    assert counted == [name for name, _ in histogram.buckets()][-len(counted) :]
    assert counted[0] == bound
    assert sum(histogram.counts) == 1
    assert histogram.sum_seconds == seconds


def test_buckets_add_up_all_durations() -> None:
    histogram = LatencyHistogram()
    for seconds in (*HIT_BOUNDS_SECONDS, 11.0):
        histogram.observe(seconds)
    assert [total for _, total in histogram.buckets()] == list(range(1, len(HIT_BOUNDS_SECONDS) + 2))
