"""Values that are remembered for a while."""

from __future__ import annotations

from service.concurrency.recent import Recent


def test_recent_values_are_limited_in_number_and_expire() -> None:
    now = 0.0
    recent: Recent[str, int] = Recent(10.0, 3, lambda: now)
    for number in range(5):
        recent.add(f"key {number}", number)
    assert [recent.get(f"key {number}") for number in range(5)] == [None, None, 2, 3, 4]
    assert len(recent) == 3
    now = 9.9
    recent.add("key 4", 7)
    now = 10.0
    assert [recent.get("key 3"), recent.get("key 4")] == [None, 7]
    recent.add("key 9", 9)
    # The first ones have expired.
    assert len(recent) == 2
    recent.discard("key 4")
    recent.discard("key 5")
    assert recent.get("key 4") is None
