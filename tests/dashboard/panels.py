"""The panels of deploy/grafana/darkroom.json, and the series that Prometheus has for each, queried as Grafana does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from tests.support.prometheus import Prometheus

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "darkroom.json"

# Grafana's interval for rates is at least four scrapes.
_SCRAPES = 4


class Target(msgspec.Struct, frozen=True, rename="camel"):
    """A query, and how its series are named: `{{label}}` stands for the value of a label."""

    ref_id: str
    expr: str
    legend_format: str


class Defaults(msgspec.Struct, frozen=True):
    """The unit of a panel in Grafana's words."""

    unit: str = "none"


class GridPos(msgspec.Struct, frozen=True):
    """The place of a panel: the grid has 24 columns, and rows of 30 pixels."""

    x: int
    y: int
    w: int
    h: int


class FieldConfig(msgspec.Struct, frozen=True):
    """How the values of a panel are shown."""

    defaults: Defaults


class Panel(msgspec.Struct, frozen=True, rename="camel"):
    """A panel, or the title of a row of panels."""

    id: int
    type: Literal["row", "timeseries", "stat", "state-timeline", "table"]
    title: str
    grid_pos: GridPos
    description: str = ""
    targets: tuple[Target, ...] = ()
    field_config: FieldConfig = FieldConfig(Defaults())


class Dashboard(msgspec.Struct, frozen=True):
    """A dashboard."""

    title: str
    panels: tuple[Panel, ...]


class Line(msgspec.Struct, frozen=True):
    """A series of a panel: its name in the legend, and its values with their Unix times."""

    name: str
    values: Sequence[tuple[float, float]]


def load() -> Dashboard:
    """Return the dashboard."""
    return msgspec.json.decode(DASHBOARD.read_bytes(), type=Dashboard)


def expression(target: Target, *, scrape_seconds: int) -> str:
    """Return a query with Grafana's variables replaced: all jobs and instances, and an interval for rates."""
    return target.expr.replace("$job", ".*").replace("$instance", ".*").replace("$__rate_interval", f"{_SCRAPES * scrape_seconds}s")


def lines(panel: Panel, prometheus: Prometheus, start: float, end: float, *, scrape_seconds: int) -> list[list[Line]]:
    """Return the series of each query of a panel between two Unix times; none where there are no data."""
    return [
        [
            Line(_name(target.legend_format, series.labels), series.values)
            for series in prometheus.query_range(expression(target, scrape_seconds=scrape_seconds), start, end, scrape_seconds)
        ]
        for target in panel.targets
    ]


def _name(template: str, labels: object) -> str:
    values = msgspec.convert(labels, dict[str, str])
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values.get(match[1], ""), template).strip()
