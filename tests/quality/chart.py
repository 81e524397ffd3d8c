"""The chart of efforts as SVG: a panel for each width, a line for each format, a point for each effort."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from xml.sax.saxutils import escape

from service.images.formats import Format
from service.images.transform import PIPELINE_VERSION
from tests.quality.efforts import FORMATS, TARGET, Effort

_PANEL_WIDTH, _PANEL_HEIGHT = 300, 330
_LEFT, _TOP, _GAP, _BOTTOM = 62, 78, 26, 62
_TICKS = (1, 3, 10, 30, 100, 300, 1_000, 3_000)
_NAMES: dict[Format, str] = {"jxl": "JPEG XL", "avif": "AVIF", "webp": "WebP", "jpeg": "JPEG"}

# From a point down to the baseline of its label. The lines of JPEG XL and AVIF are close to each other.
_LABEL_DISTANCE: dict[Format, int] = {"jxl": -10, "avif": 19, "webp": -10, "jpeg": -10}

# Colors of similar lightness, each with 3:1 contrast or more on both backgrounds.
_STYLE = """
svg { font: 13px system-ui, sans-serif; }
.page { fill: #ffffff; } text { fill: #24292f; }
.faint { fill: #6e7781; } .grid { stroke: #d0d7de; } .frame { fill: none; stroke: #8c959f; }
.line { fill: none; stroke-width: 2; } .hollow { fill: #ffffff; stroke-width: 2; }
.jxl { stroke: #8250df; } .avif { stroke: #0a7f5a; } .webp { stroke: #0969da; } .jpeg { stroke: #bc4c00; }
text.jxl { fill: #8250df; stroke: none; } text.avif { fill: #0a7f5a; stroke: none; } text.webp { fill: #0969da; stroke: none; }
text.jpeg { fill: #bc4c00; stroke: none; } .full.jxl { fill: #8250df; } .full.avif { fill: #0a7f5a; } .full.webp { fill: #0969da; }
.full.jpeg { fill: #bc4c00; }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117; } text { fill: #e6edf3; } .faint { fill: #8b949e; } .grid { stroke: #30363d; } .frame { stroke: #6e7681; }
.hollow { fill: #0d1117; } .jxl { stroke: #a78bfa; } .avif { stroke: #34c08b; } .webp { stroke: #58a6ff; } .jpeg { stroke: #f0883e; }
text.jxl { fill: #a78bfa; } text.avif { fill: #34c08b; } text.webp { fill: #58a6ff; } text.jpeg { fill: #f0883e; }
.full.jxl { fill: #a78bfa; } .full.avif { fill: #34c08b; } .full.webp { fill: #58a6ff; } .full.jpeg { fill: #f0883e; }
}
"""


def draw(rows: Sequence[Effort]) -> str:
    """Return the chart: CPU milliseconds to the right, bytes relative to WebP by default upwards."""
    widths = sorted({row.width for row in rows})
    low, high = _bounds([100 * row.relative for row in rows])
    width = _LEFT + len(widths) * (_PANEL_WIDTH + _GAP)
    height = _TOP + _PANEL_HEIGHT + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>Bytes and CPU time of each encoder at SSIMULACRA2 {TARGET:g}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
        *_legend(),
    ]
    for number, panel_width in enumerate(widths):
        of_width = [row for row in rows if row.width == panel_width]
        parts += _panel(of_width, _LEFT + number * (_PANEL_WIDTH + _GAP), low, high, labeled=number == 0)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _legend() -> list[str]:
    parts = [_text(_LEFT, 22, f"Bytes at SSIMULACRA2 {TARGET:g}, in percent of WebP, and the CPU time that they take", "")]
    left = _LEFT
    for name in FORMATS:
        parts += [f'<circle class="full {name}" cx="{left + 5}" cy="41" r="5"/>', _text(left + 15, 46, _NAMES[name], name)]
        left += 30 + 9 * len(_NAMES[name])
    parts.append(_text(left, 46, "filled: the default · hollow: other efforts · square: the previous version", "faint"))
    return parts


def _panel(rows: Sequence[Effort], left: float, low: int, high: int, *, labeled: bool) -> list[str]:
    fastest, slowest = (choose(row.milliseconds for row in rows) for choose in (min, max))
    begin, end = math.log(fastest / 1.5), math.log(slowest * 1.6)

    def x(milliseconds: float) -> float:
        return left + _PANEL_WIDTH * (math.log(milliseconds) - begin) / (end - begin)

    def y(percent: float) -> float:
        return _TOP + _PANEL_HEIGHT * (high - percent) / (high - low)

    parts = [f'<rect class="frame" x="{left}" y="{_TOP}" width="{_PANEL_WIDTH}" height="{_PANEL_HEIGHT}"/>']
    for percent in range(low, high + 1, 20):
        parts.append(f'<line class="grid" x1="{left}" x2="{left + _PANEL_WIDTH}" y1="{y(percent):.1f}" y2="{y(percent):.1f}"/>')
        if labeled:
            parts.append(_text(left - 8, y(percent) + 4, f"{percent} %", "faint", "end"))
    for tick in _TICKS:
        if begin <= math.log(tick) <= end:
            parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP}" y2="{_TOP + _PANEL_HEIGHT}"/>')
            parts.append(_text(x(tick), _TOP + _PANEL_HEIGHT + 18, f"{tick:,}", "faint", "middle"))
    parts.append(_text(left + _PANEL_WIDTH / 2, _TOP - 8, f"{rows[0].width:,} pixels wide", "", "middle"))
    parts.append(_text(left + _PANEL_WIDTH / 2, _TOP + _PANEL_HEIGHT + 40, "CPU milliseconds", "faint", "middle"))
    for name in FORMATS:
        current = sorted((row for row in rows if row.format == name and row.version == PIPELINE_VERSION), key=lambda row: row.milliseconds)
        points = [(x(row.milliseconds), y(100 * row.relative)) for row in current]
        parts += [
            f'<line class="line {name}" x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}"/>' for a, b in pairwise(points)
        ]
        for row, (right, down) in zip(current, points, strict=True):
            parts.append(f'<circle class="{"full" if row.effort is None else "hollow"} {name}" cx="{right:.1f}" cy="{down:.1f}" r="5"/>')
            if row.effort is not None:
                parts.append(_text(right, down + _LABEL_DISTANCE[name], f"{row.effort}", name, "middle"))
        for row in rows:
            if row.format == name and row.version != PIPELINE_VERSION:
                right, down = x(row.milliseconds), y(100 * row.relative)
                parts.append(f'<rect class="hollow {name}" x="{right - 5:.1f}" y="{down - 5:.1f}" width="10" height="10"/>')
                parts.append(_text(right, down + 1.2 * _LABEL_DISTANCE[name], f"v{row.version}", name, "middle"))
    return parts


def _bounds(percents: Sequence[float]) -> tuple[int, int]:
    """Return multiples of 20 around all values."""
    return 20 * math.floor(min(percents) / 20), 20 * math.ceil(max(percents) / 20)


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
