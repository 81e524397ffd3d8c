"""`/metrics` on a port of its own: what the server does, in Prometheus' format."""

from __future__ import annotations

import random
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from edge.counters import RESULTS
from service import instruments
from service.asgi import metric_label
from tests.support import images
from tests.support.prometheus import families, needs_prometheus, promtool, samples, scrape
from tests.support.server import HOST, Server, darkroom, free_port
from tests.support.waiting import PATIENCE_SECONDS, limit, wait_until

OPERATION = (Path(__file__).parents[2] / "docs" / "operation.md").read_text("utf-8")


def figures(port: int) -> dict[tuple[str, ...], float]:
    """Return every sample of the edge, keyed by its name and the values of its labels."""
    return {(name.removeprefix("edge_"), *labels): value for (name, *labels), value in samples(port).items() if name.startswith("edge_")}


class Metered(NamedTuple):
    """A server that several tests share, and the port of its metrics."""

    server: Server
    port: int


@pytest.fixture(scope="module")
def metered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metered]:
    port = free_port()
    with darkroom(tmp_path_factory.mktemp("metered"), metrics_port=port, sources=f"cms=http://{HOST}:1/") as server:
        yield Metered(server, port)


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
        refused = str(client.get(f"{path}x").status_code)
        found = figures(port)
        assert found["requests_total", "rendition", "hits", "200"] == 4
        assert found["requests_total", "rendition", "hits", "304"] == 1
        assert found["requests_total", "rendition", "hits", "206"] == 1
        assert found["requests_total", "rendition", "misses", "200"] == 1
        assert found["requests_total", "rendition", "misses", refused] == 1
        assert found["requests_total", "api", "bypassed", "201"] == 1
        assert found["requests_total", "health", "bypassed", "200"] >= 1
        assert (found["fetches_total", "rendition", "200"], found["fetches_total", "rendition", refused]) == (1, 1)
        # HEAD, the 304 and the range go the long way, apart from the first of them.
        assert 4 <= found["hit_seconds_count",] <= 6
        assert found["sent_bytes_total", "rendition"] == 3 * len(body) + 10
        assert found["evicted_total", "rendition"] == 0
        assert found["stored_entries",] == 1
        assert len(body) < found["stored_bytes",] < len(body) + 5_000
        assert (found["waiting_requests",], found["max_waiting_requests",]) == (0, 1_024)


def test_metrics_count_evictions(data: Path) -> None:
    port = free_port()
    with darkroom(data, metrics_port=port, cache_bytes=100_000) as server, server.client() as client:
        digest = client.post("/v1/images", content=images.photo_jpeg(800, 600)).json()["digest"]
        for width in range(200, 220):
            url = client.post(f"/v1/images/{digest}/urls", json={"transform": {"width": width}, "format": "webp"}).json()["url"]
            assert client.get(url).status_code == 200
        found = figures(port)
        assert found["evicted_total", "rendition"] + found["stored_entries",] == 20
        assert found["evicted_total", "rendition"] > 0
        assert found["stored_bytes",] <= 100_000


def render_processes(found: Mapping[tuple[str, ...], float]) -> int:
    """Return how many render processes have memory."""
    return sum(value > 0 for (name, *_), value in found.items() if name == "render_process_resident_memory_bytes")


def test_metrics_follow_an_image_from_its_upload_to_its_takedown(data: Path) -> None:
    port = free_port()
    photo = images.photo_jpeg(400, 300)
    with darkroom(data, metrics_port=port) as server, server.client() as client:
        document = client.post("/v1/images", content=photo).json()
        for content in (photo, b"not an image"):
            client.post("/v1/images", content=content)
        first = client.get(document["src"])
        client.get(document["src"].removesuffix(".jpg") + ".webp")
        client.delete(f"/v1/images/{document['digest']}")
        version = client.get("/health").json()["version"]
        found = samples(port)
    assert [found["uploads_total", result] for result in ("created", "known", "rejected", "failed")] == [1, 1, 1, 0]
    assert found["upload_bytes_total",] == 2 * len(photo)
    assert found["rendition_seconds_count", "render"] == 2
    assert found["rendition_bytes_total", "render"] > len(first.content)
    assert found["rendition_bytes_total", "store"] == 0
    assert found["render_seconds_count", "webp", "encode"] == 1
    assert found["render_queue_seconds_count", "uploads"] == 2
    assert found["render_jobs_total", "probe", "ok"] == found["render_jobs_total", "probe", "unsupported"] == 1
    assert found["render_jobs_total", "render", "ok"] == 2
    assert found["takedowns_total",] == 1
    assert found["store_seconds_count", "put"] >= 4
    assert not any(value for (name, *_), value in found.items() if name in {"store_errors_total", "render_process_ends_total"})
    assert found["info", "", "", "", version] == 1
    assert [found["health", status] for status in ("ok", "degraded", "unavailable")] == [1, 0, 0]
    assert 1 <= render_processes(found) <= found["render_slots",]


def test_metrics_of_a_render_process_that_is_killed_say_so(metered: Metered) -> None:
    server, port = metered
    with server.client() as client:
        document = client.post("/v1/images", content=images.photo_jpeg(400, 300)).json()
        for process in server.render_processes():
            process.kill()
        client.get(document["src"])
        assert samples(port)["render_process_ends_total", "crashed"] >= 1


def test_exemplar_of_a_slow_request_is_the_trace_that_its_client_has_sampled(metered: Metered) -> None:
    server, port = metered
    sampled, other = "0af7651916cd43dd8448eb211c80319c", "4bf92f3577b34da6a3ce929d0e0e4736"
    with server.client() as client:
        # Its renditions are not stored yet.
        document = client.post("/v1/images", content=images.photo_jpeg(380, 300)).json()
        client.get(document["src"], headers={"traceparent": f"00-{sampled}-b7ad6b7169203331-01"})
        client.get(document["src"].removesuffix(".jpg") + ".webp", headers={"traceparent": f"00-{other}-b7ad6b7169203331-00"})
        text = scrape(port, accept="application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    lines = [line for line in text.splitlines() if "# {" in line]
    assert any(line.startswith("darkroom_rendition_seconds_bucket") and f'trace_id="{sampled}"' in line for line in lines)
    assert any(line.startswith("darkroom_store_seconds_bucket") for line in lines)
    assert other not in text


@needs_prometheus
def test_promtool_finds_no_fault_in_the_metrics(metered: Metered) -> None:
    server, port = metered
    with server.client() as client:
        client.post("/v1/images", content=images.photo_jpeg(400, 300))
        assert promtool("check", "metrics", input_text=scrape(port)) == ""


class Documented(NamedTuple):
    """A row of the tables of metrics in docs/operation.md."""

    type: str
    labels: tuple[str, ...]
    meaning: str


def documented() -> dict[str, Documented]:
    """Return the tables of metrics by name."""
    rows = re.findall(r"^\| `(darkroom_\w+)(?:\{([\w,]+)\})?` \| (\w+) \| (.+) \|$", OPERATION, re.MULTILINE)
    assert len({name for name, *_ in rows}) == len(rows)
    return {name: Documented(kind, tuple(labels.split(",")) if labels else (), meaning) for name, labels, kind, meaning in rows}


def test_operation_page_has_every_metric_with_its_type_and_labels(metered: Metered) -> None:
    server, port = metered
    with server.client() as client:
        client.get(client.post("/v1/images", content=images.photo_jpeg(400, 300)).json()["src"])
        found = {f"{family.name}_total" if family.type == "counter" else family.name: family for family in families(port)}
    expected = documented()
    own = {name: family for name, family in found.items() if name.startswith("darkroom_")}
    assert set(own) == set(expected)
    # Prometheus adds these labels, and renames those of a metric that has them too.
    assert not [name for name, row in expected.items() if {"job", "instance"} & set(row.labels)]
    for name, family in own.items():
        assert (name, family.type) == (name, expected[name].type)
        for sample in family.samples:
            assert (name, set(sample.labels) - {"le"}) == (name, set(expected[name].labels))
    for instrument in instruments.declared():
        row = expected.get(instrument.name) or expected[f"{instrument.name}_total"]
        assert (instrument.name, row.labels) == (instrument.name, tuple(instrument.labels))
        values = {value for label in instrument.labels if label != "operation" for value in instrument.labels[label]}
        assert (instrument.name, {value for value in values if f"`{value}`" not in row.meaning}) == (instrument.name, set())


def test_operation_page_explains_every_kind_and_result_of_requests() -> None:
    kinds = {metric_label(path) for path in ("/i/x", "/from/x", "/v1/images", "/health", "/livez", "/", "/docs")}
    assert {kind for kind in kinds if f"`{kind}`" not in documented()["darkroom_edge_requests_total"].meaning} == set()
    table = OPERATION[OPERATION.index("| `result` | the request |") :].partition("\n\n")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \| (?!the request)", table, re.MULTILINE)) == RESULTS


def test_number_of_series_does_not_depend_on_what_clients_send(metered: Metered) -> None:
    server, port = metered
    rng = random.Random(7)
    names = {"Host": "{}.example", "Accept": "image/{}", "Authorization": "Bearer {}", "User-Agent": "{}", "X-Request-Id": "{}"}
    with server.client() as client:
        document = client.post("/v1/images", content=images.photo_jpeg(400, 300)).json()

        def attack(requests: int) -> set[tuple[str, ...]]:
            """Send requests that all differ, and return the series that there are afterwards."""
            for number in range(requests):
                word = f"x{rng.getrandbits(64):x}"
                path = (
                    f"/{word}",
                    f"/i/{word}",
                    f"{document['src']}?{word}",
                    f"/i/v3/{document['digest']}/width=640/{word}.webp",
                    f"/i/v3/{document['digest']}/width={number + 1}/-.{word}",
                    f"/from/{word}/a.jpg/width=640/-.webp",
                    f"/from/cms/{word}.jpg/width=7,height=3/-.webp",
                    f"/v1/images/{word}",
                    f"/v1/{word}",
                    f"/health/{word}",
                )[number % 10]
                trace = f"00-{rng.getrandbits(128):032x}-{rng.getrandbits(64):016x}-01"
                headers = {name: value.format(word) for name, value in names.items()} | {"traceparent": trace}
                method = ("GET", "HEAD", "POST", "DELETE", f"X{number}")[number // 10 % 5]
                client.request(method, path, headers=headers, content=word.encode() if method == "POST" else None)
            return set(samples(port))

        first = attack(50)
        second = attack(100)
    assert {series for series in second - first if not series[0].endswith("_bucket")} == set()
    assert len(second) < 1_000
    assert not any("x" in label and len(label) > 16 for _, *labels in second for label in labels)


def test_metrics_are_not_on_the_public_port(metered: Metered) -> None:
    with metered.server.client() as client:
        assert client.get("/metrics").status_code == 404


def test_metrics_200_silent_connections_do_not_keep_a_scrape_from_its_response(metered: Metered) -> None:
    server, port = metered
    with ExitStack() as connections:
        entries = figures(port)["stored_entries",]
        before = server.worker().num_threads()
        silent = [connections.enter_context(socket.create_connection((HOST, port), timeout=PATIENCE_SECONDS)) for _ in range(200)]
        assert figures(port)["stored_entries",] == entries
        # The oldest were closed: 32 are left, and the scrape is one of them.
        assert all(one.recv(1) == b"" for one in silent[: 200 - 32])
        # The thread of a closed connection ends a moment later.
        wait_until(lambda: server.worker().num_threads() <= before + 32)


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
        drip_until_closed(dripping, limit_seconds=limit(20))
        silent.settimeout(limit(5))
        assert silent.recv(1) == b""
        assert time.monotonic() - started > 9, "a scrape may take as long as Prometheus waits for it"
