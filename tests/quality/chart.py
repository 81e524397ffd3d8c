"""The chart of efforts as SVG: a panel for each width, a line for each format, a point for each effort."""

from __future__ import annotations

import math
from collections.abc import Sequence

from service.images.formats import Format
from service.images.transform import PIPELINE_VERSION
from tests.quality.efforts import FORMATS, Effort
from tests.quality.equal_score import TARGET
from tests.support import chart

_PANEL_WIDTH, _PANEL_HEIGHT = 300, 330
_LEFT, _TOP, _GAP, _BOTTOM = 62, 78, 26, 62
_TICKS = (1, 3, 10, 30, 100, 300, 1_000, 3_000)
_NAMES: dict[Format, str] = {"jxl": "JPEG XL", "avif": "AVIF", "webp": "WebP", "jpeg": "JPEG"}

# From a point down to the baseline of its label. The lines of JPEG XL and AVIF are close to each other.
_LABEL_DISTANCE: dict[Format, int] = {"jxl": -10, "avif": 19, "webp": -10, "jpeg": -10}

_COLORS = {"jxl": chart.PURPLE, "avif": chart.GREEN, "webp": chart.BLUE, "jpeg": chart.ORANGE}


def draw(rows: Sequence[Effort]) -> str:
    """Return the chart: CPU milliseconds to the right, bytes relative to WebP by default upwards."""
    widths = sorted({row.width for row in rows})
    low, high = _bounds([100 * row.relative for row in rows])
    width = _LEFT + len(widths) * (_PANEL_WIDTH + _GAP)
    height = _TOP + _PANEL_HEIGHT + _BOTTOM
    parts = _legend()
    for number, panel_width in enumerate(widths):
        of_width = [row for row in rows if row.width == panel_width]
        parts += _panel(of_width, _LEFT + number * (_PANEL_WIDTH + _GAP), low, high, labeled=number == 0)
    return chart.page(width, height, f"Bytes and CPU time of each encoder at SSIMULACRA2 {TARGET:g}", _COLORS, parts)


def _legend() -> list[str]:
    parts = [chart.text(_LEFT, 22, f"Bytes at SSIMULACRA2 {TARGET:g}, in percent of WebP, and the CPU time that they take", "")]
    left = _LEFT
    for name in FORMATS:
        parts += [chart.dot(left + 5, 41, f"full {name}"), chart.text(left + 15, 46, _NAMES[name], name)]
        left += 30 + 9 * len(_NAMES[name])
    parts.append(chart.text(left, 46, "filled: the default · hollow: other efforts · square: the previous version", "faint"))
    return parts


def _panel(rows: Sequence[Effort], left: float, low: int, high: int, *, labeled: bool) -> list[str]:
    fastest, slowest = (choose(row.milliseconds for row in rows) for choose in (min, max))
    begin, end = math.log(fastest / 1.5), math.log(slowest * 1.6)

    def x(milliseconds: float) -> float:
        return left + _PANEL_WIDTH * (math.log(milliseconds) - begin) / (end - begin)

    def y(percent: float) -> float:
        return _TOP + _PANEL_HEIGHT * (high - percent) / (high - low)

    parts = [chart.frame(left, _TOP, _PANEL_WIDTH, _PANEL_HEIGHT)]
    for percent in range(low, high + 1, 20):
        parts += chart.line_of_grid(left, y(percent), _PANEL_WIDTH, f"{percent} %" if labeled else "")
    for tick in _TICKS:
        if begin <= math.log(tick) <= end:
            parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP}" y2="{_TOP + _PANEL_HEIGHT}"/>')
            parts.append(chart.text(x(tick), _TOP + _PANEL_HEIGHT + 18, f"{tick:,}", "faint", "middle"))
    parts.append(chart.text(left + _PANEL_WIDTH / 2, _TOP - 8, f"{rows[0].width:,} pixels wide", "", "middle"))
    parts.append(chart.text(left + _PANEL_WIDTH / 2, _TOP + _PANEL_HEIGHT + 40, "CPU milliseconds", "faint", "middle"))
    for name in FORMATS:
        current = sorted((row for row in rows if row.format == name and row.version == PIPELINE_VERSION), key=lambda row: row.milliseconds)
        points = [(x(row.milliseconds), y(100 * row.relative)) for row in current]
        parts += chart.line(points, name)
        for row, (right, down) in zip(current, points, strict=True):
            parts.append(chart.dot(right, down, f"{'full' if row.effort is None else 'hollow'} {name}"))
            if row.effort is not None:
                parts.append(chart.text(right, down + _LABEL_DISTANCE[name], f"{row.effort}", name, "middle"))
        for row in rows:
            if row.format == name and row.version != PIPELINE_VERSION:
                right, down = x(row.milliseconds), y(100 * row.relative)
                parts.append(f'<rect class="hollow {name}" x="{right - 5:.1f}" y="{down - 5:.1f}" width="10" height="10"/>')
                parts.append(chart.text(right, down + 1.2 * _LABEL_DISTANCE[name], f"v{row.version}", name, "middle"))
    return parts


def _bounds(percents: Sequence[float]) -> tuple[int, int]:
    """Return multiples of 20 around all values."""
    return 20 * math.floor(min(percents) / 20), 20 * math.ceil(max(percents) / 20)
