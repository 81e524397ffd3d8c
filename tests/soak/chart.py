"""The chart of a soak as SVG: memory, latencies and outcomes over time, and what was disturbed when."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tests.bench.measure import percentile
from tests.soak.load import Result
from tests.soak.phases import Disturbance, Span
from tests.soak.report import MEBIBYTE, Memory, memory, windows
from tests.soak.visitors import Measured
from tests.support import chart

_WIDTH, _HEIGHT = 860, 190
_LEFT, _TOP, _GAP, _BOTTOM = 70, 60, 66, 46
_MAX_GRID_LINES = 5
_LATENCY_TICKS = (1, 10, 100, 1_000, 10_000)

# The number of points of a line.
_BINS = 100

_COLORS = {
    "server": chart.BLUE,
    "renders": chart.GREEN,
    "hits": chart.BLUE,
    "misses": chart.GREEN,
    "wanted": chart.BLUE,
    "disturbed": chart.ORANGE,
    "unexpected": chart.RED,
    "compared": chart.ORANGE,
}

_LABELS: dict[Disturbance, str] = {
    "quiet": "",
    "killed renders": "kills",
    "failing store": "store fails",
    "store outage": "outage",
    "overload": "overload",
}


def draw(result: Result) -> str:
    """Return the chart: the time to the right, in all panels."""
    panels = (_memory, _latencies, _outcomes)
    tops = [_TOP + number * (_HEIGHT + _GAP) for number in range(len(panels))]
    parts = [part for panel, top in zip(panels, tops, strict=True) for part in (*_background(result, top), *panel(result, top))]
    height = tops[-1] + _HEIGHT + _BOTTOM
    return chart.page(_LEFT + _WIDTH + 24, height, "Memory, latencies and outcomes during a soak", _COLORS, parts)


def _background(result: Result, top: float) -> list[str]:
    """Return the frame of a panel, the minutes below it, and a band for each disturbance."""
    seconds = result.schedule.seconds
    parts = [chart.frame(_LEFT, top, _WIDTH, _HEIGHT)]
    step = chart.round_step(seconds / 60, 10)
    minutes = [number * step for number in range(int(seconds / 60 / step) + 1)]
    parts += [chart.text(_x(result, minute * 60), top + _HEIGHT + 18, f"{minute:g} min", "faint", "middle") for minute in minutes]
    for span in result.schedule.spans:
        if span.disturbance != "quiet":
            parts += _band(result, span, top)
    return parts


def _band(result: Result, span: Span, top: float) -> list[str]:
    left, right = _x(result, span.begins), _x(result, span.ends)
    middle = (left + right) / 2
    place = f'font-size="10" transform="translate({middle - 3:.1f} {top + 6}) rotate(90)"'
    label = f'<text class="faint" {place}>{_LABELS[span.disturbance]}</text>'
    return [f'<rect class="band" x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="{_HEIGHT}"/>', label]


def _memory(result: Result, top: float) -> list[str]:
    samples = [sample for sample in result.samples if sample.at <= result.schedule.seconds]
    scale = _Scale(top, max(sample.bytes for sample in samples) / MEBIBYTE * 1.1)
    parts = _title(top, "Memory in MiB (proportional set size):", {"server": "server", "renders": "render processes"})
    parts += scale.grid
    bottom = [(_x(result, sample.at), scale.y(0)) for sample in samples]
    server = [(_x(result, sample.at), scale.y(sample.server_bytes / MEBIBYTE)) for sample in samples]
    total = [(_x(result, sample.at), scale.y(sample.bytes / MEBIBYTE)) for sample in samples]
    parts += [chart.area(server, bottom, "server"), chart.area(total, server, "renders")]
    compared: Memory = memory(result)
    at_one_third, at_the_end = windows(result.schedule.seconds)
    for (begins, ends), figure in ((at_one_third, compared.at_one_third), (at_the_end, compared.at_the_end)):
        height = scale.y(figure / MEBIBYTE)
        parts += chart.line([(_x(result, begins), height), (_x(result, ends), height)], "compared")
        parts.append(chart.text(_x(result, ends), height - 8, f"{figure / MEBIBYTE:.0f}", "compared", "end"))
    return parts


def _latencies(result: Result, top: float) -> list[str]:
    low, high = math.log10(_LATENCY_TICKS[0]), math.log10(_LATENCY_TICKS[-1])

    def y(milliseconds: float) -> float:
        return top + _HEIGHT * (1 - (min(max(math.log10(max(milliseconds, 1e-9)), low), high) - low) / (high - low))

    parts = _title(top, "Latency in ms, p50 and p99 (dashed):", {"hits": "hits", "misses": "renders"})
    for tick in _LATENCY_TICKS:
        parts += chart.line_of_grid(_LEFT, y(tick), _WIDTH, f"{tick:,}")
    for kind, prefix in (("hits", "hit"), ("misses", "miss")):
        bins = _bins(result, lambda request, prefix=prefix: request.wanted and request.kind.startswith(prefix))  # type: ignore[misc]
        for share, style in ((0.5, ""), (0.99, " dashed")):
            points = [(_x(result, at), y(percentile([request.seconds * 1e3 for request in found], share))) for at, found in bins if found]
            parts += chart.line(points, kind + style)
    return parts


def _outcomes(result: Result, top: float) -> list[str]:
    kinds: dict[str, Callable[[Measured], bool]] = {
        "wanted": lambda request: request.wanted,
        "disturbed": lambda request: request.expected and not request.wanted,
        "unexpected": lambda request: not request.expected,
    }
    lines = {kind: [(at, len(found)) for at, found in _bins(result, chooses)] for kind, chooses in kinds.items()}
    seconds = result.schedule.seconds / _BINS
    scale = _Scale(top, max(number for points in lines.values() for _, number in points) / seconds * 1.1)
    labels = {"wanted": "as requested", "disturbed": "failed by a disturbance", "unexpected": "unexpected"}
    parts = [*_title(top, "Responses per second:", labels), *scale.grid]
    for kind, points in lines.items():
        parts += chart.line([(_x(result, at), scale.y(number / seconds)) for at, number in points], kind)
    return parts


class _Scale:
    """The values of a panel that begins with 0: how far down each is, and the lines of the grid."""

    def __init__(self, top: float, highest: float) -> None:
        self._top = top
        step = chart.round_step(highest, _MAX_GRID_LINES)
        lines = math.ceil(highest / step)
        self._highest = step * lines
        self.grid = [
            part for line in range(lines + 1) for part in chart.line_of_grid(_LEFT, self.y(line * step), _WIDTH, f"{line * step:g}")
        ]

    def y(self, value: float) -> float:
        """Return how far down a value is."""
        return self._top + _HEIGHT * (1 - min(value, self._highest) / self._highest)


def _title(top: float, title: str, kinds: dict[str, str]) -> list[str]:
    """Return the title of a panel, and the names of its lines in their colors."""
    parts = [chart.text(_LEFT, top - 12, title)]
    right = _LEFT + 7.0 * len(title) + 14
    for kind, words in kinds.items():
        parts.append(chart.text(right, top - 12, words, kind))
        right += 7.0 * len(words) + 16
    return parts


def _bins(result: Result, chooses: Callable[[Measured], bool]) -> Sequence[tuple[float, list[Measured]]]:
    """Return the chosen requests in equal spans of time, each with the time of its middle."""
    seconds = result.schedule.seconds / _BINS
    bins: list[list[Measured]] = [[] for _ in range(_BINS)]
    for request in result.measured:
        if chooses(request) and request.at < result.schedule.seconds:
            bins[int(request.at / seconds)].append(request)
    return [((number + 0.5) * seconds, found) for number, found in enumerate(bins)]


def _x(result: Result, at: float) -> float:
    return _LEFT + _WIDTH * at / result.schedule.seconds
