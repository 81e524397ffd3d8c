"""What Prometheus has seen of a run: the picture of the dashboard, the queries without data, and the alerts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tests.dashboard import drawing, panels
from tests.dashboard.drawing import Span
from tests.dashboard.scenario import Watched
from tests.support.prometheus import Series

# An alert that fired within the last steps has not resolved.
_STEPS = 3


class Observation(msgspec.Struct, frozen=True):
    """The picture as SVG, and one sentence for each query without data, and for each alert that did not fire or has not resolved."""

    picture: str
    without_data: Sequence[str]
    alerts: Sequence[str]


def observe(servers: Watched, span: Span) -> Observation:
    """Return what Prometheus has seen of a span."""
    begins, ends = span.begins, span.ends
    dashboard = panels.load()
    lines, without_data, alerts = {}, [], []
    for panel in dashboard.panels:
        found = panels.lines(panel, servers.prometheus, begins, ends, scrape_seconds=servers.scrape_seconds)
        lines[panel.id] = [line for of_target in found for line in of_target]
        for target, of_target in zip(panel.targets, found, strict=True):
            if not of_target:
                without_data.append(f"{panel.title}: no data for {target.expr}")
    for name, query in servers.prometheus.rules():
        firing = servers.prometheus.query_range(f'ALERTS{{alertname="{name}", alertstate="firing"}}', begins, ends, servers.scrape_seconds)
        if not servers.prometheus.query_range(query, begins, ends, servers.scrape_seconds):
            without_data.append(f"{name}: no data for {query}")
        if not firing:
            alerts.append(f"{name} did not fire")
        elif _last(firing) > ends - _STEPS * servers.scrape_seconds:
            alerts.append(f"{name} has not resolved")
    return Observation(drawing.draw(dashboard, lines, span), without_data, alerts)


def _last(series: Sequence[Series]) -> float:
    return max(at for one in series for at, _ in one.values)
