"""The dashboard for Grafana and the alerts: every query is valid, has data while everything fails, and every alert fires and resolves."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.dashboard import panels
from tests.dashboard.drawing import Band, Span, draw
from tests.dashboard.observation import observe
from tests.dashboard.panels import Line
from tests.dashboard.scenario import ALERTS, run, scaled_alerts, watched
from tests.support.prometheus import needs_prometheus, promtool
from tests.support.waiting import CHECKS_SECONDS

OPERATION = (panels.ROOT / "docs" / "operation.md").read_text("utf-8")
METRICS = dict(re.findall(r"^\| `(darkroom_\w+)(?:\{[\w,]+\})?` \| (\w+) \|", OPERATION, re.MULTILINE))

# The share of its full length at which the scenario runs in the test: some 80 seconds.
SCALE = 0.12


def queries() -> list[str]:
    """Return all queries of the dashboard and of the alerts."""
    of_panels = [panels.expression(target, scrape_seconds=5) for panel in panels.load().panels for target in panel.targets]
    return [*of_panels, ALERTS.read_text("utf-8")]


def test_queries_name_only_metrics_of_the_operation_page() -> None:
    named = {name for query in queries() for name in re.findall(r"\bdarkroom_\w+", query)}
    samples = {
        f"{metric}{end}" for metric, kind in METRICS.items() for end in (("_bucket", "_count", "_sum") if kind == "histogram" else ("",))
    }
    assert named - samples == set()


def test_dashboard_shows_every_metric_but_those_that_say_when_something_was_used_last() -> None:
    text = " ".join(queries())
    missing = {metric for metric in METRICS if metric not in text}
    assert missing == {
        "darkroom_edge_max_waiting_requests",
        "darkroom_signing_key_last_used_timestamp_seconds",
        "darkroom_token_bytes_today",
        "darkroom_token_last_used_timestamp_seconds",
    }


def test_panels_have_different_ids_a_description_and_places_that_do_not_overlap() -> None:
    found = panels.load().panels
    assert len({panel.id for panel in found}) == len(found)
    assert [panel.title for panel in found if panel.type != "row" and not (panel.description and panel.targets)] == []
    cells = [
        (x, y)
        for panel in found
        for x in range(panel.grid_pos.x, panel.grid_pos.x + panel.grid_pos.w)
        for y in range(panel.grid_pos.y, panel.grid_pos.y + panel.grid_pos.h)
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


@needs_prometheus
def test_alerts_of_a_shorter_run_differ_only_in_their_durations(tmp_path: Path) -> None:
    assert scaled_alerts(tmp_path, 1) == ALERTS
    text = scaled_alerts(tmp_path, 0.1).read_text("utf-8")
    assert "rules found" in promtool("check", "rules", tmp_path / "alerts.yml")
    assert set(re.findall(r"\[\d+\w\]|for: \w+", text)) == {"[3s]", "[12s]", "for: 6s"}
    assert text.count("[12s]") == ALERTS.read_text("utf-8").count("[2m]")


def test_picture_has_every_panel_and_what_was_wrong() -> None:
    dashboard = panels.load()
    lines = {panel.id: [Line("one", [(at, at % 7) for at in range(60)])] for panel in dashboard.panels}
    root = ET.fromstring(draw(dashboard, lines, Span(0.0, 60.0, [Band("store outage", 10.0, 20.0)])))
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [panel.title for panel in dashboard.panels if panel.title not in words] == []
    assert words.count("store outage") == 1
    assert words.count("one") == sum(panel.type != "row" for panel in dashboard.panels)


@pytest.mark.long
@needs_prometheus
def test_every_query_has_data_and_every_alert_fires_and_resolves_while_everything_fails_once(tmp_path: Path) -> None:
    with watched(tmp_path, scale=SCALE) as servers:
        span = asyncio.run(run(servers, scale=SCALE))
        observation = observe(servers, span)
    assert observation.without_data == []
    # An alert that has to be true for a second needs a machine that is not busy for that second.
    if CHECKS_SECONDS:
        assert observation.alerts == []
