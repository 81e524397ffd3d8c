"""Prometheus of Debian's package in tests: `promtool`, and a server that scrapes and evaluates rules."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import running
from tests.support.server import HOST, free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

needs_prometheus = pytest.mark.skipif(shutil.which("promtool") is None, reason="prometheus is not installed")


def promtool(*arguments: str | Path, input_text: str = "") -> str:
    """Return the output of promtool, which must succeed and print no warning."""
    done = subprocess.run(["promtool", *map(str, arguments)], input=input_text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def scrape(port: int, *, accept: str = "text/plain") -> str:
    """Return the metrics of a server whose `DARKROOM_METRICS_PORT` is `port`."""
    url, headers = f"http://{HOST}:{port}/metrics", {"Accept": accept}
    response = httpx.get(url, headers=headers, trust_env=False, verify=False, timeout=PATIENCE_SECONDS)
    assert response.status_code == 200
    return response.text


def families(port: int) -> Sequence[Metric]:
    """Return the metrics of a server as Prometheus' client parses them."""
    return list(text_string_to_metric_families(scrape(port)))


def samples(port: int) -> Mapping[tuple[str, ...], float]:
    """Return every sample of Darkroom's own metrics, keyed by its name without `darkroom_` and the values of its labels.

    The labels are in the alphabetical order of their names.
    """
    return {
        (sample.name.removeprefix("darkroom_"), *sample.labels.values()): sample.value
        for family in families(port)
        for sample in family.samples
        if sample.name.startswith("darkroom_")
    }


class Series(NamedTuple):
    """The labels of a time series, and its values with their Unix times."""

    labels: Mapping[str, str]
    values: Sequence[tuple[float, float]]


class Prometheus:
    """A running server of Prometheus."""

    def __init__(self, port: int) -> None:
        self._client = httpx.Client(base_url=f"http://{HOST}:{port}", trust_env=False, verify=False, timeout=PATIENCE_SECONDS)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[Series]:
        """Return the series of an expression between two Unix times, with a value every `step` seconds."""
        found = self._get("/query_range", query=expression, start=start, end=end, step=step)["result"]
        return [Series(series["metric"], [(at, float(value)) for at, value in series["values"]]) for series in found]

    def rules(self) -> list[tuple[str, str]]:
        """Return the name and the expression of each alert."""
        return [(rule["name"], rule["query"]) for group in self._get("/rules")["groups"] for rule in group["rules"]]

    def is_ready(self) -> bool:
        """Return whether it has found its targets."""
        try:
            return self._client.get("/-/ready").status_code == 200 and bool(self._get("/targets")["activeTargets"])
        except httpx.TransportError:
            return False

    def _get(self, path: str, **parameters: str | float) -> Any:
        response = self._client.get(f"/api/v1{path}", params=parameters).json()
        assert response["status"] == "success", response
        return response["data"]


@contextmanager
def prometheus(folder: Path, ports: Sequence[int], alerts: Path, *, scrape_seconds: int) -> Iterator[Prometheus]:
    """Yield Prometheus with its data in `folder`, which scrapes the metrics ports of servers and evaluates alerts."""
    targets = ", ".join(f'"{HOST}:{port}"' for port in ports)
    (folder / "prometheus.yml").write_text(f"""
global: {{scrape_interval: {scrape_seconds}s, scrape_timeout: {scrape_seconds}s, evaluation_interval: {scrape_seconds}s}}
rule_files: ["{alerts}"]
scrape_configs:
  - job_name: darkroom
    static_configs: [{{targets: [{targets}]}}]
""")
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={HOST}:{port}",
        "--enable-feature=exemplar-storage",
    ]
    with (folder / "prometheus.log").open("wb") as log, running(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log):
        client = Prometheus(port)
        try:
            wait_until(client.is_ready)
            yield client
        finally:
            client.close()
