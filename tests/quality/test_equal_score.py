"""The search for the bytes at a score, with encoders whose scores and bytes are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest

from tests.quality.equal_score import TARGET, Search

BYTES_AT_TARGET = 20_000


def search(first: int, score: Callable[[int], float], qualities: Sequence[int] = range(1, 101)) -> tuple[Search, list[int]]:
    """Search with an encoder that needs 5.5 % more bytes for each point of the score, and return the qualities that were tried too."""
    found, tried = Search(first, qualities), []
    while (quality := found.next_quality()) is not None:
        tried.append(quality)
        found.add(quality, round(BYTES_AT_TARGET * math.exp(0.055 * (score(quality) - TARGET))), score(quality))
    return found, tried


@pytest.mark.parametrize("first", [40, 75, 96])
def test_search_finds_the_bytes_at_the_target_from_any_first_quality(first: int) -> None:
    found, tried = search(first, lambda quality: 30 + 0.6 * quality)
    assert found.bytes_at_target() == pytest.approx(BYTES_AT_TARGET, rel=1e-3)
    assert found.nearest in tried
    assert abs(found.nearest - 75) <= 2


def test_search_tries_no_quality_that_cannot_be_had() -> None:
    qualities = range(60, 97, 3)
    found, tried = search(60, lambda quality: 20 + 0.7 * quality, qualities)
    assert set(tried) <= set(qualities)
    assert found.bytes_at_target() == pytest.approx(BYTES_AT_TARGET, rel=1e-3)


def test_search_ends_after_four_encodes_when_no_quality_is_near() -> None:
    found, tried = search(10, lambda _: 20.0)
    assert 1 < len(tried) <= 4
    assert found.next_quality() is None
