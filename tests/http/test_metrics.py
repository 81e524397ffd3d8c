"""`/metrics` on a port of its own: the counters of the edge in Prometheus' format."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import images
from tests.support.server import HOST, darkroom, free_port
from tests.support.waiting import PATIENCE_SECONDS


def figures(port: int) -> dict[tuple[str, ...], float]:
    """Return every sample of the edge, keyed by its name and the values of its labels."""
    response = httpx.get(f"http://{HOST}:{port}/metrics", trust_env=False, verify=False)
    assert response.status_code == 200
    families = text_string_to_metric_families(response.text)
    return {
        (sample.name.removeprefix("darkroom_edge_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("darkroom_edge_")
    }


def test_metrics_count_requests_by_kind_of_response(data: Path) -> None:
    port = free_port()
    with darkroom(data, metrics_port=port) as server, server.client() as client:
        document = client.post("/v1/images", content=images.photo_jpeg(400, 300)).json()
        path = document["src"]
        body = client.get(path).content
        for _ in range(3):
            client.get(path)
        client.get(path, headers={"If-None-Match": "*"})
        client.get(path, headers={"Range": "bytes=0-9"})
        client.head(path)
        client.get(f"{path}x")
        samples = figures(port)
        assert samples["requests_total", "rendition", "hits"] == 6
        assert samples["requests_total", "rendition", "misses"] == 2
        assert samples["requests_total", "api", "bypassed"] == 1
        assert samples["requests_total", "health", "bypassed"] >= 1
        assert samples["sent_bytes_total", "rendition"] == 3 * len(body) + 10
        assert samples["evicted_total", "rendition"] == 0
        assert samples["kept_entries",] == 1
        assert len(body) < samples["kept_bytes",] < len(body) + 5_000


def test_metrics_count_evictions(data: Path) -> None:
    port = free_port()
    with darkroom(data, metrics_port=port, cache_bytes=400_000) as server, server.client() as client:
        digest = client.post("/v1/images", content=images.photo_jpeg(800, 600)).json()["digest"]
        for width in range(200, 260):
            url = client.post(f"/v1/images/{digest}/urls", json={"transform": {"width": width}, "format": "webp"}).json()["url"]
            assert client.get(url).status_code == 200
        samples = figures(port)
        assert samples["evicted_total", "rendition"] + samples["kept_entries",] == 60
        assert samples["evicted_total", "rendition"] > 0
        assert samples["kept_bytes",] <= 400_000


def test_metrics_are_not_on_the_public_port(data: Path) -> None:
    with darkroom(data, metrics_port=free_port()) as server, server.client() as client:
        assert client.get("/metrics").status_code == 404


def test_metrics_200_silent_connections_do_not_keep_a_scrape_from_its_response(data: Path) -> None:
    port = free_port()
    with darkroom(data, metrics_port=port) as server, ExitStack() as connections:
        before = server.worker().num_threads()
        silent = [connections.enter_context(socket.create_connection((HOST, port), timeout=PATIENCE_SECONDS)) for _ in range(200)]
        assert figures(port)["kept_entries",] == 0
        # The oldest were closed: 32 are left, and the scrape is one of them.
        assert all(one.recv(1) == b"" for one in silent[: 200 - 32])
        assert server.worker().num_threads() <= before + 32


def drip_until_closed(connection: socket.socket, *, limit_seconds: float) -> None:
    """Send a byte every half second until the other side closes; raises `TimeoutError` if it does not do so in time."""
    connection.settimeout(0.5)
    deadline = time.monotonic() + limit_seconds
    while time.monotonic() < deadline:
        try:
            connection.sendall(b"G")
            if connection.recv(1) == b"":
                return
        except TimeoutError:
            continue
        except ConnectionError:
            return
    raise TimeoutError


@pytest.mark.long
def test_metrics_silent_and_dripping_connections_are_closed_after_10_s(data: Path) -> None:
    port = free_port()
    with darkroom(data, metrics_port=port), ExitStack() as connections:
        silent, dripping = (connections.enter_context(socket.create_connection((HOST, port))) for _ in range(2))
        started = time.monotonic()
        drip_until_closed(dripping, limit_seconds=20)
        silent.settimeout(5)
        assert silent.recv(1) == b""
        assert time.monotonic() - started > 9, "a scrape may take as long as Prometheus waits for it"
