"""Many clients of one cold rendition: one render, one read of the original, and a response for every client that stays."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.caches.running import counting
from tests.support import images
from tests.support.s3 import moto_bucket
from tests.support.server import HOST, darkroom, free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

CROWD = 1_000
LEAVING = 100


def established(port: int) -> int:
    """Return how many connections to a local port are open on the clients' side."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def collapsed(port: int) -> float:
    """Return how many requests for renditions shared the response of another request."""
    text = httpx.get(f"http://{HOST}:{port}/metrics", trust_env=False, verify=False).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.labels == {"kind": "rendition", "result": "collapsed"})


def read_response(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return the head and the body of the response that ends when the server closes."""
    received = b""
    while piece := connection.recv(65_536):
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


def test_1000_clients_of_one_cold_rendition_cause_one_render_and_one_read_even_if_the_first_100_disconnect(tmp_path: Path) -> None:
    metrics = free_port()
    with moto_bucket() as bucket, counting(bucket.endpoint) as store, ExitStack() as connections:
        settings = bucket.environment | {"AWS_ENDPOINT_URL_S3": f"http://{HOST}:{store.port}", "store": f"s3://{bucket.name}"}
        with darkroom(tmp_path, metrics_port=metrics, **settings) as server, server.client() as client:
            digest = client.post("/v1/images", content=images.photo_jpeg(640, 480)).json()["digest"]
            wanted = {"transform": {"width": 300}, "format": "webp"}
            path = client.post(f"/v1/images/{digest}/urls", json=wanted).json()["url"]
            original = f"/{bucket.name}/originals/{digest}"
            read_before = store.fetches(original)
            # Nothing can be rendered before all clients are connected.
            with server.suspended_renders():
                request = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
                crowd = []
                for _ in range(CROWD):
                    crowd.append(connections.enter_context(socket.create_connection((HOST, server.port), timeout=PATIENCE_SECONDS)))
                    crowd[-1].sendall(request)
                # The server accepts requests in order: a later response shows that it has these.
                assert client.get("/livez").status_code == 200
                for one in crowd[:LEAVING]:
                    one.close()
                wait_until(lambda: established(server.port) <= CROWD - LEAVING + 1)
                assert client.get("/livez").status_code == 200
            responses = [read_response(one) for one in crowd[LEAVING:]]
            log = server.log()
            shared = collapsed(metrics)
        assert {head.split(b"\r\n")[0] for head, _ in responses} == {b"HTTP/1.1 200 OK"}
        assert len({body for _, body in responses}) == 1
        assert log.count('"transform": "width=300", "extension": "webp"') == 1, "each render is one line of the log"
        assert store.fetches(original) - read_before == 1
        assert shared == CROWD - LEAVING, "they waited for one response; none was a hit"
