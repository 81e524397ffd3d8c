"""The picture of a dashboard as SVG: each panel at its place, with the series that Prometheus has for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from tests.dashboard.panels import Dashboard, Line, Panel
from tests.support import chart

_COLUMN, _ROW = 52, 26
_AXIS, _TITLE, _LEGEND_LINE = 44, 24, 13
_LEGEND_LINES = 3
_CHARACTER = 5.9
_GRID_LINES = 4

# Colors of similar lightness on both backgrounds, in the order in which the series of a panel get them.
_COLORS = {
    f"c{number}": pair
    for number, pair in enumerate((
        chart.BLUE,
        chart.ORANGE,
        chart.GREEN,
        ("#8250df", "#a78bfa"),
        ("#cf222e", "#ff7b72"),
        ("#9a6700", "#d29922"),
        ("#bf3989", "#f778ba"),
        ("#1b7c83", "#39c5cf"),
        chart.GRAY,
    ))
}  # fmt: skip


class Band(msgspec.Struct, frozen=True):
    """What was wrong between two Unix times."""

    words: str
    begins: float
    ends: float


class Span(msgspec.Struct, frozen=True):
    """The times that a picture shows, in Unix seconds, and what was wrong meanwhile."""

    begins: float
    ends: float
    bands: Sequence[Band]

    def share(self, at: float) -> float:
        """Return where a time is, from 0 to 1."""
        return (at - self.begins) / (self.ends - self.begins)


class _Box(msgspec.Struct, frozen=True):
    """The place of a plot in pixels."""

    left: float
    top: float
    width: float
    height: float

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def x(self, span: Span, at: float) -> float:
        return self.left + self.width * span.share(at)


def draw(dashboard: Dashboard, lines: Mapping[int, Sequence[Line]], span: Span) -> str:
    """Return the picture. `lines`: the series of each panel by its id."""
    parts: list[str] = []
    height = 0.0
    for panel in dashboard.panels:
        place = panel.grid_pos
        left, top = place.x * _COLUMN + 10, place.y * _ROW + 10
        height = max(height, top + place.h * _ROW)
        if panel.type == "row":
            parts.append(f'<text font-weight="bold" x="{left}" y="{top + 18}">{panel.title}</text>')
            continue
        box = _Box(left + _AXIS, top + _TITLE, place.w * _COLUMN - _AXIS - 14, place.h * _ROW - _TITLE - 12)
        parts.append(chart.text(left, top + 15, panel.title))
        parts += _DRAWN[panel.type](panel, lines[panel.id], span, box)
    style = "<style>text { font-size: 11px; }</style>"
    return chart.page(24 * _COLUMN + 20, height + 10, f"{dashboard.title}: the dashboard", _COLORS, [style, *parts])


def _timeseries(panel: Panel, lines: Sequence[Line], span: Span, box: _Box) -> list[str]:
    rows = _legend_rows([line.name for line in lines], box.width + _AXIS)
    box = msgspec.structs.replace(box, height=box.height - _LEGEND_LINE * len(rows) - 16)
    highest = max((value for line in lines for _, value in line.values if math.isfinite(value)), default=0.0) or 1.0
    step = chart.round_step(highest, _GRID_LINES)
    ceiling = step * math.ceil(highest / step)

    def y(value: float) -> float:
        return box.bottom - box.height * min(value, ceiling) / ceiling

    parts = [*_bands(span, box), chart.frame(box.left, box.top, box.width, box.height)]
    for number in range(round(ceiling / step) + 1):
        parts += chart.line_of_grid(box.left, y(number * step), box.width, _value(number * step, panel.field_config.defaults.unit))
    parts += _minutes(span, box)
    for number, line in enumerate(lines):
        for run in _runs(line, span):
            parts.append(chart.polyline([(box.x(span, at), y(value)) for at, value in run], f"c{number % len(_COLORS)}"))
    return parts + _legend(rows, box.left - _AXIS, box.bottom + 28)


def _state_timeline(_: Panel, lines: Sequence[Line], span: Span, box: _Box) -> list[str]:
    """Return a row for each series, with a bar while its value is not 0."""
    names = max((len(line.name) for line in lines), default=0) * 6.2 + 8
    plot = _Box(box.left - _AXIS + names, box.top, box.width + _AXIS - names, box.height - 14)
    parts = [*_bands(span, plot, labeled=box.width > 600), chart.frame(plot.left, plot.top, plot.width, plot.height), *_minutes(span, plot)]
    row = plot.height / max(1, len(lines))
    for number, line in enumerate(lines):
        middle = plot.top + row * (number + 0.5)
        parts.append(chart.text(plot.left - 6, middle + 4, line.name, "", "end"))
        for run in _runs(line, span):
            for first, last in _bars(run):
                begin, end = plot.x(span, first), plot.x(span, last)
                kind = f"c{number % len(_COLORS)}"
                size = f'x="{begin:.1f}" y="{middle - row * 0.35:.1f}" width="{max(2.0, end - begin):.1f}" height="{row * 0.7:.1f}"'
                parts.append(f'<rect class="area {kind}" {size}/>')
    return parts


def _stat(panel: Panel, lines: Sequence[Line], span: Span, box: _Box) -> list[str]:
    values = [value for line in lines for _, value in line.values if math.isfinite(value)]
    last = _value(values[-1], panel.field_config.defaults.unit) if values else "no data"
    return [
        *_timeseries(panel, lines, span, box),
        chart.text(box.left + box.width, box.top - 9, last, "", "end"),
    ]


def _table(_: Panel, lines: Sequence[Line], span: Span, box: _Box) -> list[str]:
    return [chart.text(box.left - _AXIS + 6, box.top + 18 + 18 * number, line.name) for number, line in enumerate(lines)]


_DRAWN = {"timeseries": _timeseries, "state-timeline": _state_timeline, "stat": _stat, "table": _table}


def _runs(line: Line, span: Span) -> list[list[tuple[float, float]]]:
    """Return the values in runs without a gap."""
    step = min((later - earlier for (earlier, _), (later, _) in zip(line.values, line.values[1:], strict=False)), default=1.0)
    runs: list[list[tuple[float, float]]] = []
    last = -math.inf
    for at, value in line.values:
        if not math.isfinite(value) or not span.begins <= at <= span.ends:
            continue
        if at - last > 1.5 * step:
            runs.append([])
        runs[-1].append((at, value))
        last = at
    return runs


def _bars(run: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return when the values of a run are not 0: the first and the last time of each stretch."""
    bars: list[tuple[float, float]] = []
    is_on = False
    for at, value in run:
        if value:
            bars = [*bars[:-1], (bars[-1][0], at)] if is_on else [*bars, (at, at)]
        is_on = bool(value)
    return bars


def _bands(span: Span, box: _Box, *, labeled: bool = False) -> list[str]:
    parts = []
    for band in span.bands:
        left, right = box.x(span, band.begins), box.x(span, band.ends)
        parts.append(f'<rect class="band" x="{left:.1f}" y="{box.top}" width="{right - left:.1f}" height="{box.height:.1f}"/>')
        if labeled:
            parts.append(chart.text((left + right) / 2, box.top - 4, band.words, "faint", "middle"))
    return parts


def _minutes(span: Span, box: _Box) -> list[str]:
    minutes = (span.ends - span.begins) / 60
    step = max(1, round(chart.round_step(minutes, 6)))
    return [
        chart.text(box.x(span, span.begins + 60 * minute), box.bottom + 13, f"{minute} min", "faint", "middle")
        for minute in range(0, math.floor(minutes) + 1, step)
    ]


def _legend_rows(names: Sequence[str], width: float) -> list[list[str]]:
    rows: list[list[str]] = [[]]
    used = 0.0
    for name in names:
        needed = _CHARACTER * len(name) + 12
        if used + needed > width and rows[-1]:
            if len(rows) == _LEGEND_LINES:
                rows[-1].append("…")
                break
            rows.append([])
            used = 0.0
        rows[-1].append(name)
        used += needed
    return rows


def _legend(rows: Sequence[Sequence[str]], left: float, top: float) -> list[str]:
    parts = []
    number = 0
    for line, row in enumerate(rows):
        x = left
        for name in row:
            parts.append(chart.text(x, top + line * _LEGEND_LINE, name, f"c{number % len(_COLORS)}"))
            x += _CHARACTER * len(name) + 12
            number += 1
    return parts


def _value(value: float, unit: str) -> str:
    """Return a value as short as Grafana writes it."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        return f"{1e6 * value:.3g} µs" if 0 < value < 1e-3 else f"{1e3 * value:.3g} ms" if 0 < value < 1 else f"{value:.3g} s"
    if unit in {"decbytes", "Bps"}:
        power = max(0, min(3, int(math.log10(value) / 3))) if value >= 1 else 0
        return f"{value / 1000**power:.3g} {('B', 'kB', 'MB', 'GB')[power]}"
    return f"{value:.3g}"
