"""Many clients of one cold rendition: one render, one read of the original, and a response for every client that stays."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

from tests.caches.running import counting
from tests.promises.figures import RecordFigure
from tests.support import images
from tests.support.prometheus import samples
from tests.support.s3 import moto_bucket
from tests.support.server import HOST, darkroom, free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

CROWD = 1_000
LEAVING = 100


def waiting(metrics_port: int) -> float:
    """Return how many requests wait for a rendition that is not in memory."""
    return samples(metrics_port)["edge_waiting_requests",]


def collapsed(port: int) -> float:
    """Return how many requests for renditions shared the response of another request."""
    return sum(value for series, value in samples(port).items() if series[:3] == ("edge_requests_total", "rendition", "collapsed"))


def read_response(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return the head and the body of the response that ends when the server closes."""
    received = b""
    while piece := connection.recv(65_536):
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


def test_1000_clients_of_one_cold_rendition_cause_one_render_and_one_read_even_if_the_first_100_disconnect(
    tmp_path: Path, record_figure: RecordFigure
) -> None:
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
                wait_until(lambda: waiting(metrics) == CROWD)
                for one in crowd[:LEAVING]:
                    one.close()
                wait_until(lambda: waiting(metrics) == CROWD - LEAVING)
            responses = [read_response(one) for one in crowd[LEAVING:]]
            log = server.log()
            shared = collapsed(metrics)
            hedges = samples(metrics)["store_hedged_requests_total", "get"]
        assert {head.split(b"\r\n")[0] for head, _ in responses} == {b"HTTP/1.1 200 OK"}
        assert len({body for _, body in responses}) == 1
        renders, reads = log.count('"transform": "width=300", "extension": "webp"'), store.fetches(original) - read_before
        record_figure("{:.0f} render", renders)
        record_figure("{:.0f} read", reads)
        record_figure("{:.0f} clients served", len(responses), lowest=True)
        assert renders == 1, "each render is one line of the log"
        # If a machine is so busy that its bucket responds late, a read is requested a second time.
        assert 1 <= reads <= 1 + hedges
        assert shared == CROWD - LEAVING, "they waited for one response; none was a hit"
