"""The files for Prometheus in deploy/prometheus: their syntax, their alerts, and the runbook of each alert."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.prometheus import needs_prometheus, promtool

ROOT = Path(__file__).parents[2]
ALERTS = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text("utf-8")
NAMES = re.findall(r"- alert: (\w+)", ALERTS)
OPERATION = (ROOT / "docs" / "operation.md").read_text("utf-8")


@needs_prometheus
def test_promtool_finds_no_fault_in_the_configuration_and_the_alerts() -> None:
    assert promtool("check", "config", ROOT / "deploy" / "prometheus" / "prometheus.yml").count("SUCCESS") == 3
    assert f"SUCCESS: {len(NAMES)} rules found" in promtool("check", "rules", ROOT / "deploy" / "prometheus" / "alerts.yml")


@needs_prometheus
def test_alerts_fire_while_something_is_wrong_and_resolve_afterwards() -> None:
    assert "SUCCESS" in promtool("test", "rules", ROOT / "tests" / "deploy" / "alerts_test.yml")


def test_every_alert_is_tested_before_during_and_after() -> None:
    cases = re.split(r"^- name: ", (ROOT / "tests" / "deploy" / "alerts_test.yml").read_text("utf-8"), flags=re.MULTILINE)[1:]
    assert [case.partition("\n")[0] for case in cases] == NAMES
    for case, name in zip(cases, NAMES, strict=True):
        assert re.findall(r"alertname: (\w+)", case) == [name] * 3
        assert [alerts == "" for alerts in re.findall(r"exp_alerts:(.*)", case)] == [False, True, False]


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    section = OPERATION[OPERATION.index("\n## Alerts\n") :].partition("\n## ")[2].partition("\n## ")[0]
    assert re.findall(r"^### (Darkroom\w+)$", section, re.MULTILINE) == NAMES
    assert re.findall(r"runbook_url: docs/operation.md#(\w+)", ALERTS) == [name.lower() for name in NAMES]
