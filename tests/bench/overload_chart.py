"""The chart of an overload as SVG: what is served at each offered load, and how long hits, renders and refusals take."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tests.support import chart, panels
from tests.support.panels import Box, Panel, Series

_PANEL_WIDTH, _PANEL_HEIGHT = 380, 280
_LEFT, _TOP, _GAP, _BOTTOM = 62, 70, 76, 58
_LATENCY_TICKS = (1, 10, 100, 1_000, 10_000, 100_000)

_LOAD = "offered load, as a multiple of the capacity"

_COLORS = {"hits": chart.GREEN, "misses": chart.BLUE, "refusals": chart.ORANGE}


class Level(msgspec.Struct, frozen=True):
    """What was measured at one offered load, a multiple of the capacity. Latencies are p50 and p99 in ms, 0 where nothing responded.

    `offered`, `goodput`: renditions requested and served per second. `late`: refusals that were not made at once.
    `failed`: responses that are neither a success nor a refusal.
    """

    factor: float
    offered: float
    goodput: float
    hits: tuple[float, float]
    documents: tuple[float, float]
    health: tuple[float, float]
    misses: tuple[float, float]
    refusals: tuple[float, float]
    refused: int
    late: int
    failed: int


def draw(levels: Sequence[Level]) -> str:
    """Return the chart: the offered load to the right, in both panels."""
    width = _LEFT + 2 * _PANEL_WIDTH + _GAP + 30
    height = _TOP + _PANEL_HEIGHT + _BOTTOM
    boxes = [Box(left, _TOP, _PANEL_WIDTH, _PANEL_HEIGHT) for left in (_LEFT, _LEFT + _PANEL_WIDTH + _GAP)]
    parts = [*panels.draw(_goodput(levels), boxes[0]), *panels.draw(_latencies(levels), boxes[1])]
    return chart.page(width, height, "Renditions served, and latencies, at rising load", _COLORS, parts)


def _goodput(levels: Sequence[Level]) -> Panel:
    values = [level.goodput for level in levels]
    series = Series("", "misses", values, labels=[f"{value:.1f}" for value in values])
    return Panel("Renditions served per second", _steps(levels), _LOAD, [series])


def _latencies(levels: Sequence[Level]) -> Panel:
    series = []
    for kind, name in (("hits", "hits"), ("misses", "renders"), ("refusals", "refusals")):
        p50, p99 = ([getattr(level, kind)[index] if getattr(level, kind)[1] > 0 else None for level in levels] for index in (0, 1))
        series += [Series(name, kind, p50), Series("", kind, p99, dashed=True)]
    return Panel("Latency in milliseconds, p50 and p99 (dashed)", _steps(levels), _LOAD, series, _LATENCY_TICKS)


def _steps(levels: Sequence[Level]) -> list[str]:
    return [f"{level.factor:g} ×" for level in levels]
