"""The parts of charts that commands draw as SVG: a page in the light and the dark colors of GitHub, panels, grids, lines and text."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from itertools import pairwise
from xml.sax.saxutils import escape

# Colors of similar lightness, each with 3:1 contrast or more on its background: (on white, on black).
BLUE, GREEN, ORANGE = ("#0969da", "#58a6ff"), ("#0a7f5a", "#34c08b"), ("#bc4c00", "#f0883e")
PURPLE, RED, GRAY = ("#8250df", "#a78bfa"), ("#cf222e", "#ff7b72"), ("#6e7781", "#8b949e")


def page(width: float, height: float, title: str, colors: Mapping[str, tuple[str, str]], parts: Sequence[str]) -> str:
    """Return the SVG of a chart.

    colors: those of each kind of line, area and text, by the name of its class. parts: the elements.
    """
    light, dark = (_rules({name: pair[index] for name, pair in colors.items()}) for index in (0, 1))
    style = f"""
svg {{ font: 13px system-ui, sans-serif; }}
.page {{ fill: #ffffff; }} text {{ fill: #24292f; }} .faint {{ fill: #6e7781; }}
.grid {{ stroke: #d0d7de; }} .frame {{ fill: none; stroke: #8c959f; }} .band {{ fill: #8c959f; opacity: 0.16; }}
.line {{ fill: none; stroke-width: 2; }} .dashed {{ stroke-dasharray: 5 4; }} .area {{ stroke: none; opacity: 0.75; }}
.hollow {{ fill: #ffffff; stroke-width: 2; }}
{light}
@media (prefers-color-scheme: dark) {{
.page {{ fill: #0d1117; }} text {{ fill: #e6edf3; }} .faint {{ fill: #8b949e; }} .grid {{ stroke: #30363d; }} .frame {{ stroke: #6e7681; }}
.hollow {{ fill: #0d1117; }}
{dark}
}}
"""
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{style}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
        *parts,
        "</svg>\n",
    ])  # fmt: skip


def _rules(colors: Mapping[str, str]) -> str:
    return "\n".join(
        f".{name} {{ stroke: {color}; }} .full.{name} {{ fill: {color}; }} text.{name}, .area.{name} {{ fill: {color}; stroke: none; }}"
        for name, color in colors.items()
    )


def frame(left: float, top: float, width: float, height: float) -> str:
    """Return the frame of a panel."""
    return f'<rect class="frame" x="{left}" y="{top}" width="{width}" height="{height}"/>'


def line_of_grid(left: float, y: float, width: float, label: str) -> list[str]:
    """Return a horizontal line of a panel's grid with its label on the left, if it has one."""
    line = f'<line class="grid" x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return [line, text(left - 8, y + 4, label, "faint", "end")] if label else [line]


def line(points: Sequence[tuple[float, float]], kind: str, *, dots: bool = False) -> list[str]:
    """Return a line through points. `kind`: its classes, the one that has a color first. `dots`: whether each point has one."""
    return [f'<line class="line {kind}" x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}"/>' for a, b in pairwise(points)] + [
        f'<circle class="line {kind.split(maxsplit=1)[0]}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points if dots
    ]


def polyline(points: Sequence[tuple[float, float]], kind: str) -> str:
    """Return a line through many points, in less text than `line`."""
    return f'<polyline class="line {kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def dot(x: float, y: float, kind: str) -> str:
    """Return a dot. `kind`: its classes, among them `full` or `hollow`."""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'


def area(upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], kind: str) -> str:
    """Return the area between two lines."""
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in (*upper, *reversed(lower)))
    return f'<polygon class="area {kind}" points="{corners}"/>'


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Return text at a point. `anchor`: `start`, `middle` or `end`, whichever of it is there."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def round_step(highest: float, lines: int) -> float:
    """Return the smallest step of 1, 2 or 5 times a power of ten with which so many lines reach the highest value, from 0.001 on."""
    steps = (base * 10.0**power for power in itertools.count(-3) for base in (1, 2, 5))
    return next(step for step in steps if step * lines >= highest)
