"""What was found out a moment ago, so that it need not be found out again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by key. Each is forgotten after some seconds, or earlier if there are too many."""

    def __init__(self, seconds: float, max_values: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without values.

        seconds: how long a value is remembered.
        max_values: how many values are remembered; the one that was added first is forgotten first.
        clock: returns seconds that never go back.
        """
        self._seconds = seconds
        self._max_values = max_values
        self._clock = clock
        # In the order in which they expire.
        self._values: dict[K, tuple[float, V]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def add(self, key: K, value: V) -> None:
        """Remember a value, in place of an earlier one of the same key."""
        now = self._clock()
        self._values.pop(key, None)
        self._values[key] = (now + self._seconds, value)
        while len(self._values) > self._max_values or now >= next(iter(self._values.values()))[0]:
            del self._values[next(iter(self._values))]

    def discard(self, key: K) -> None:
        """Forget the value of a key."""
        self._values.pop(key, None)

    def get(self, key: K) -> V | None:
        """Return the value of a key, `None` if there was none lately."""
        found = self._values.get(key)
        return found[1] if found is not None and self._clock() < found[0] else None
