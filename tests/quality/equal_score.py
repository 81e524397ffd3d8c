"""Bytes at the same score: the qualities to try, and the bytes that a file of exactly that score would have."""

from __future__ import annotations

import math
from collections.abc import Sequence

TARGET = 75.0

# Encodes, how near to the target is near enough, the score that a step of quality is worth, about, and the steps at once. The rest is
# interpolated, by a factor that is much the same for all encoders near the target.
_MAX_ENCODES = 4
_NEAR = 1.0
_SCORE_PER_QUALITY = 0.65
_MAX_STEPS = 15
_LOG_BYTES_PER_SCORE = 0.055


class Search:
    """A search for the quality of an encoder at which a picture scores `TARGET`, in up to four encodes."""

    def __init__(self, first: int, qualities: Sequence[int] = range(1, 101)) -> None:
        """Begin a search. first: the quality to begin with, one of `qualities`. qualities: those that can be had, ascending."""
        self._first = first
        self._qualities = qualities
        self._tried: dict[int, tuple[int, float]] = {}

    @property
    def nearest(self) -> int:
        """The quality whose score is nearest to the target, of those that were tried."""
        return min(self._tried, key=lambda quality: abs(self._tried[quality][1] - TARGET))

    def next_quality(self) -> int | None:
        """Return the quality to try next, `None` if the nearest one is near enough, or no other is worth an encode."""
        if not self._tried:
            return self._first
        missing = TARGET - self._tried[self.nearest][1]
        if abs(missing) <= _NEAR or len(self._tried) == _MAX_ENCODES:
            return None
        steps = round(missing / _SCORE_PER_QUALITY) or 1
        wanted = self.nearest + max(-_MAX_STEPS, min(steps, _MAX_STEPS))
        quality = min(self._qualities, key=lambda each: abs(each - wanted))
        return None if quality in self._tried else quality

    def add(self, quality: int, size: int, score: float) -> None:
        """Take the bytes and the score of a file into account."""
        self._tried[quality] = size, score

    def bytes_at_target(self) -> float:
        """Return the bytes at the score `TARGET`."""
        size, score = self._tried[self.nearest]
        return size * math.exp(_LOG_BYTES_PER_SCORE * (TARGET - score))
