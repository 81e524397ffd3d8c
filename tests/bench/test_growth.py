"""The page and the chart of growth, and the panels that charts share, from figures that nobody has to measure."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from tests.bench import growth_page
from tests.bench.growth_page import Curve, Growth
from tests.bench.sides import DARKROOM
from tests.support import panels
from tests.support.panels import Box, Panel, Series

ENTRIES = Curve(
    title="Hit, µs of CPU per request",
    steps_title="stored entries",
    steps=[1, 1_000, 100_000],
    values={DARKROOM: [20.0, 22.0, 30.0], "bare ASGI": [18.0, 19.0, 27.0]},
    spreads={DARKROOM: [1.0, 2.0, 3.0], "bare ASGI": [1.0, 1.0, 1.0]},
    ticks=[],
)
BOX = Box(100, 100, 300, 200)


def circles(parts: list[str]) -> list[tuple[float, float]]:
    """Return the centers of the dots of a panel."""
    root = ET.fromstring(f"<svg>{''.join(parts)}</svg>")
    return [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.iter("circle")]


def test_page_of_growth_has_each_step_with_its_spread_and_how_far_each_line_grows() -> None:
    text = growth_page.page(Growth("make bench-growth", "2026-11-29T12:00:00+00:00", 300.0, 0.1, {"cores": "2"}, [ENTRIES]))
    assert "| 100,000 | 30 ± 1.50 | 27 ± 0.50 |" in text
    assert f"At 100,000, compared with 1: {DARKROOM} 1.50 times and bare ASGI 1.50 times." in text
    assert "- cores: 2" in text
    assert f"]({growth_page.CHART})" in text


def test_chart_of_growth_has_a_panel_for_each_curve_with_a_dot_for_each_step_of_each_line() -> None:
    root = ET.fromstring(growth_page.draw([ENTRIES, ENTRIES, ENTRIES]))
    namespace = "{http://www.w3.org/2000/svg}"
    assert len([frame for frame in root.iter(f"{namespace}rect") if frame.attrib["class"] == "frame"]) == 3
    assert len(list(root.iter(f"{namespace}circle"))) == 3 * 3 * 2


def test_linear_panel_begins_with_0_and_places_higher_values_higher() -> None:
    parts = panels.draw(Panel("title", ["1", "2", "3"], "steps", [Series("line", "first", [0.0, 5.0, 10.0])]), BOX)
    (x0, y0), (x1, y1), (x2, y2) = circles(parts)
    assert (x0, x1, x2) == (150, 250, 350)
    assert y0 == 300
    assert y0 - y1 == pytest.approx(y1 - y2)
    assert y2 > 100


def test_logarithmic_panel_places_factors_of_ten_equally_far_apart_and_stays_within_its_ticks() -> None:
    series = Series("line", "first", [1.0, 10.0, 100.0, 5_000.0])
    parts = panels.draw(Panel("title", ["1", "2", "3", "4"], "steps", [series], ticks=[1, 10, 100]), BOX)
    assert [y for _, y in circles(parts)] == [300, 200, 100, 100]


def test_panel_draws_no_dot_for_a_step_without_a_value() -> None:
    parts = panels.draw(Panel("title", ["1", "2", "3"], "steps", [Series("line", "first", [1.0, None, 3.0])]), BOX)
    assert [x for x, _ in circles(parts)] == [150, 350]
