"""Panels of a chart with lines over steps that are equally far apart: offered loads, numbers of clients, numbers of entries."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from tests.support import chart

_LINES = 4
_LEGEND_GAP = 22

# About what a letter of the charts' font takes.
_LETTER_WIDTH = 7


class Series(msgspec.Struct, frozen=True):
    """A line.

    name: in the legend; "" for a line that has no place there. kind: its color, a class of the chart. values: one for each step, `None`
    where there is none. labels: a text above each point, or none at all.
    """

    name: str
    kind: str
    values: Sequence[float | None]
    dashed: bool = False
    labels: Sequence[str] = ()


class Panel(msgspec.Struct, frozen=True):
    """A panel.

    title: with the unit. steps: below the panel. steps_title: below them. ticks: of a logarithmic scale; without them the scale is linear
    and begins with 0.
    """

    title: str
    steps: Sequence[str]
    steps_title: str
    series: Sequence[Series]
    ticks: Sequence[float] = ()


class Box(msgspec.Struct, frozen=True):
    """Where a panel is drawn. Above it are 60 pixels for the title and the legend, on the left 60 for the scale, and below it 46."""

    left: float
    top: float
    width: float
    height: float


def draw(panel: Panel, box: Box) -> list[str]:
    """Return the elements of a panel."""
    y, grid = _logarithmic(panel, box) if panel.ticks else _linear(panel, box)
    count = len(panel.steps)

    def x(number: int) -> float:
        return box.left + box.width * (number + 0.5) / count

    below = box.top + box.height
    parts = [
        chart.frame(box.left, box.top, box.width, box.height),
        chart.text(box.left, box.top - 40, panel.title, ""),
        chart.text(box.left + box.width / 2, below + 40, panel.steps_title, "faint", "middle"),
        *grid,
        *(chart.text(x(number), below + 18, step, "faint", "middle") for number, step in enumerate(panel.steps)),
    ]
    right = box.left
    for series in panel.series:
        if series.name:
            parts.append(chart.text(right, box.top - 16, series.name, series.kind))
            right += len(series.name) * _LETTER_WIDTH + _LEGEND_GAP
        points = {number: (x(number), y(value)) for number, value in enumerate(series.values) if value is not None}
        parts += chart.line(list(points.values()), series.kind + (" dashed" if series.dashed else ""), dots=True)
        parts += [chart.text(*_above(points[number]), series.labels[number], series.kind, "middle") for number in points if series.labels]
    return parts


def _above(point: tuple[float, float]) -> tuple[float, float]:
    return point[0], point[1] - 9


def _linear(panel: Panel, box: Box) -> tuple[Callable[[float], float], list[str]]:
    """Return the function from a value to its height, and the grid."""
    highest = max((value for series in panel.series for value in series.values if value is not None), default=1.0)
    step = chart.round_step(highest * 1.15, _LINES)
    top = step * _LINES

    def y(value: float) -> float:
        return box.top + box.height * (1 - min(value, top) / top)

    return y, [part for line in range(_LINES + 1) for part in chart.line_of_grid(box.left, y(line * step), box.width, f"{line * step:,g}")]


def _logarithmic(panel: Panel, box: Box) -> tuple[Callable[[float], float], list[str]]:
    """Return the same for a logarithmic scale."""
    low, high = math.log10(panel.ticks[0]), math.log10(panel.ticks[-1])

    def y(value: float) -> float:
        return box.top + box.height * (1 - (min(max(math.log10(max(value, 1e-9)), low), high) - low) / (high - low))

    return y, [part for tick in panel.ticks for part in chart.line_of_grid(box.left, y(tick), box.width, f"{tick:,g}")]
