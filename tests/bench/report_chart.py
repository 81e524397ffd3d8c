"""The chart of a report as SVG: how far each row is from its target, with the spread of its rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.bench.measure import spread
from tests.bench.report import Row
from tests.support import chart

_NAMES_WIDTH, _WIDTH, _ROW_HEIGHT = 360, 460, 22
_TOP, _BOTTOM, _RIGHT = 76, 50, 30

# The axis: a row's figure as a multiple of its target, of which less is better.
_TICKS = (0.25, 0.5, 0.7, 1.0, 1.4, 2.0)

_COLORS = {"met": chart.GREEN, "missed": chart.RED, "unclear": chart.GRAY, "goal": chart.BLUE}
_LEGEND = {"met": "met", "missed": "missed", "unclear": "no verdict: a large spread, or a busy machine"}
_KINDS = {"met": "met", "missed": "missed", "no verdict": "unclear"}


def draw(rows: Sequence[Row]) -> str:
    """Return the chart: a line for each row whose target is not zero, good on the left of its target."""
    shown = [row for row in rows if row.limit]
    height = _ROW_HEIGHT * len(shown)
    below = _TOP + height
    parts = [
        chart.text(20, 26, "Each figure as a multiple of its target: on the left of the line it is met", ""),
        *_legend(),
        chart.frame(_NAMES_WIDTH, _TOP, _WIDTH, height),
    ]
    for tick in _TICKS:
        kind = "line goal" if tick == 1 else "grid"
        parts.append(f'<line class="{kind}" x1="{_x(tick):.1f}" x2="{_x(tick):.1f}" y1="{_TOP}" y2="{below}"/>')
        parts.append(chart.text(_x(tick), below + 18, f"{tick:g}", "faint", "middle"))
    for number, row in enumerate(shown):
        parts += _row(row, _TOP + _ROW_HEIGHT * (number + 0.5))
    return chart.page(_NAMES_WIDTH + _WIDTH + _RIGHT, below + _BOTTOM, "Darkroom's figures and their targets", _COLORS, parts)


def relative(row: Row) -> tuple[float, float, float]:
    """Return a row's figure as a multiple of its target, of which less is better, and half its spread below and above it."""
    if not row.limit:
        raise ValueError(f"{row.name} has no target, or one of 0")
    measured, half = row.measured, spread(row.rounds) / 2
    low, high = max(measured - half, 1e-9), measured + half
    if row.at_most:
        return low / row.limit, measured / row.limit, high / row.limit
    return row.limit / high, row.limit / max(measured, 1e-9), row.limit / low


def _legend() -> list[str]:
    parts, left = [], 20.0
    for kind, name in _LEGEND.items():
        parts += [chart.dot(left + 5, 47, f"full {kind}"), chart.text(left + 16, 52, name, "faint")]
        left += 40 + 8 * len(name)
    return parts


def _row(row: Row, y: float) -> list[str]:
    kind = _KINDS[row.verdict]
    low, middle, high = relative(row)
    return [
        chart.text(_NAMES_WIDTH - 10, y + 4, row.name, "", "end"),
        *chart.line([(_x(low), y), (_x(high), y)], kind),
        chart.dot(_x(middle), y, f"full {kind}"),
    ]


def _x(multiple: float) -> float:
    low, high = math.log(_TICKS[0]), math.log(_TICKS[-1])
    return _NAMES_WIDTH + _WIDTH * (min(max(math.log(multiple), low), high) - low) / (high - low)
