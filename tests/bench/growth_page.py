"""docs/growth.md and its picture: how costs grow with entries, originals, clients and render processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import msgspec

from tests.bench.report import MAX_BUSY_CORES, figure
from tests.bench.sides import DARKROOM
from tests.support import chart, panels
from tests.support.panels import Box, Panel, Series

CHART = "growth.svg"

_WIDTH, _HEIGHT = 400, 230
_LEFT, _TOP, _GAP, _BELOW, _RIGHT = 62, 70, 84, 122, 24
_COLUMNS = 2

_COLORS = {"first": chart.BLUE, "second": chart.GREEN}

_INTRODUCTION = """\
Written by `{command}` at the end of a run of {minutes:.0f} minutes, on {date}. No figure is written by hand. All lines of a panel are
measured in turn, in rounds that begin with another one each time. The figures are medians, ± half the interquartile range of the rounds."""

_EXPLANATION = """\
- *Stored entries*: the edge with that many responses of 2,000 bytes, each with headers of its own, which are requested at random over 32
  connections. The bare limit is an ASGI function that looks the same bodies up in a dict. Both grow with the memory that they touch,
  because less and less of it is in the caches of the processor.
- *Clients*: connections of wrk to one hit of about 20 kB, each of which requests it again as soon as it has the response. The server is
  fully loaded all the time, so that latencies grow with the number of clients. The bare limit is an ASGI function that sends the same
  response.
- *Render processes*: renditions per second of one server, each of them never requested before, with one client more than there are
  processes. libvips makes the same calls in as many threads.
- *Originals*: a page of the list of images, and the documents of given digests, from a store on disk. All originals but the newest 50 are
  names without content. A bucket sends a page of the list in one request, however many there are, and is not measured here."""


_BUSY = """\
**The machine had other work at the same time.** Times on the clock and throughputs are those of that machine, and say little. CPU times are
higher than on an idle machine, for all lines."""

_OVERLOAD = "[Another page](overload.md) shows what clients see when more renditions are requested than can be rendered."


class Curve(msgspec.Struct, frozen=True):
    """How a figure grows.

    title: of the figure, with its unit. steps: the numbers of `steps_title`. values, spreads: of each line, one for each step.
    ticks: of a logarithmic scale, empty for a linear one.
    """

    title: str
    steps_title: str
    steps: list[int]
    values: dict[str, list[float]]
    spreads: dict[str, list[float]]
    ticks: list[float]


class Growth(msgspec.Struct, frozen=True):
    """A whole run: the command that repeats it, when it ended, in UTC, how many seconds it took, how many cores other programs used
    on average, its conditions, and the curves.
    """

    command: str
    finished: str
    seconds: float
    busy_cores: float
    conditions: Mapping[str, str]
    curves: list[Curve]


def page(growth: Growth) -> str:
    """Return the page."""
    introduction = _INTRODUCTION.format(command=growth.command, minutes=growth.seconds / 60, date=growth.finished[:10])
    conditions = "\n".join(f"- {name}: {value}" for name, value in growth.conditions.items())
    sections = chain.from_iterable((f"## {curve.title}, by {curve.steps_title}", summary(curve), table(curve)) for curve in growth.curves)
    busy = [_BUSY] if growth.busy_cores > MAX_BUSY_CORES else []
    parts = ["# Growth", introduction, *busy, conditions, f"![How costs grow]({CHART})", _EXPLANATION, *sections, _OVERLOAD]
    return "\n\n".join(parts) + "\n"


def summary(curve: Curve) -> str:
    """Return how far each line grows, as a sentence."""
    last, first = curve.steps[-1], curve.steps[0]
    grown = " and ".join(f"{name} {figure(values[-1] / values[0])} times" for name, values in curve.values.items() if values[0])
    return f"At {last:,}, compared with {first:,}: {grown}."


def table(curve: Curve) -> str:
    """Return the figures of a curve as a table in Markdown."""
    names = list(curve.values)
    lines = [f"| {curve.steps_title} | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]
    for number, step in enumerate(curve.steps):
        cells = (f"{figure(curve.values[name][number])} ± {figure(curve.spreads[name][number] / 2)}" for name in names)
        lines.append(f"| {step:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(curves: Sequence[Curve]) -> str:
    """Return the chart: a panel for each curve."""
    rows = -(-len(curves) // _COLUMNS)
    parts: list[str] = []
    for number, curve in enumerate(curves):
        row, column = divmod(number, _COLUMNS)
        box = Box(_LEFT + column * (_WIDTH + _GAP), _TOP + row * (_HEIGHT + _BELOW), _WIDTH, _HEIGHT)
        parts += panels.draw(_panel(curve), box)
    width = _LEFT + _COLUMNS * _WIDTH + (_COLUMNS - 1) * _GAP + _RIGHT
    return chart.page(width, _TOP + rows * (_HEIGHT + _BELOW) - _BELOW + 58, "How costs grow", _COLORS, parts)


def _panel(curve: Curve) -> Panel:
    lines = [
        Series(name, kind, values, dashed=name != DARKROOM and DARKROOM in curve.values)
        for (name, values), kind in zip(curve.values.items(), _COLORS, strict=False)
    ]
    return Panel(curve.title, [f"{step:,}" for step in curve.steps], curve.steps_title, lines, curve.ticks)
