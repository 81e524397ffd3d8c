"""`/metrics` on a port of its own: what the edge counted, in Prometheus' words."""

from __future__ import annotations

from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests import images
from tests.servers import HOST, darkroom, free_port


def figures(port: int) -> dict[tuple[str, ...], float]:
    """Return every sample of the edge by its name and the values of its labels."""
    answer = httpx.get(f"http://{HOST}:{port}/metrics", trust_env=False)
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    return {
        (sample.name.removeprefix("darkroom_edge_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("darkroom_edge_")
    }


def test_metrics_tell_what_the_edge_counted_by_kind_of_answer(data: Path) -> None:
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
        told = figures(port)
        assert told["requests_total", "rendition", "hits"] == 6
        assert told["requests_total", "rendition", "misses"] == 2
        assert told["requests_total", "api", "passed"] == 1
        assert told["requests_total", "health", "passed"] >= 1
        assert told["sent_bytes_total", "rendition"] == 3 * len(body) + 10
        assert told["evicted_total", "rendition"] == 0
        assert told["kept_entries",] == 1
        assert len(body) < told["kept_bytes",] < len(body) + 5_000


def test_metrics_count_what_had_to_go(data: Path) -> None:
    port = free_port()
    with darkroom(data, metrics_port=port, cache_bytes=400_000) as server, server.client() as client:
        digest = client.post("/v1/images", content=images.photo_jpeg(800, 600)).json()["digest"]
        for width in range(200, 260):
            url = client.post(f"/v1/images/{digest}/urls", json={"transform": {"width": width}, "format": "webp"}).json()["url"]
            assert client.get(url).status_code == 200
        told = figures(port)
        assert told["evicted_total", "rendition"] + told["kept_entries",] == 60
        assert told["evicted_total", "rendition"] > 0
        assert told["kept_bytes",] <= 400_000


def test_metrics_are_not_on_the_public_port(data: Path) -> None:
    with darkroom(data, metrics_port=free_port()) as server, server.client() as client:
        assert client.get("/metrics").status_code == 404
