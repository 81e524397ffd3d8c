"""A render process that is killed, crashes or takes too long fails one request, never the server."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from tests.cli.test_serve import wait_until_rendering
from tests.support import images
from tests.support.server import darkroom


def slow_url(client: httpx.Client, width: int = 2900) -> str:
    """Return the URL of a rendition that takes long: a large AVIF."""
    digest = client.post("/v1/images", content=images.photo_jpeg(max(3000, width), 2 * max(3000, width) // 3)).json()["digest"]
    url: str = client.post(f"/v1/images/{digest}/urls", json={"transform": {"width": width}, "format": "avif"}).json()["url"]
    return url


def test_render_process_killed_in_the_middle_is_a_clear_500_and_the_next_request_succeeds(data: Path) -> None:
    with darkroom(data) as server, server.client() as client, ThreadPoolExecutor(1) as threads:
        url = slow_url(client)
        worker = server.worker()
        answer = threads.submit(client.get, url)
        wait_until_rendering(server).kill()
        failed = answer.result()
        assert (failed.status_code, failed.json()["type"]) == (500, "/problems/render-failed")
        assert failed.json()["remedy"] == "Try again; a new process has taken its place."
        assert failed.headers["cache-control"] == "no-store"
        assert client.get(url).status_code == 200
        assert server.worker() == worker


def test_waiting_clients_share_the_error_of_a_killed_render(data: Path) -> None:
    with darkroom(data) as server, server.client() as client, ThreadPoolExecutor(20) as threads:
        url = slow_url(client)
        answers = [threads.submit(client.get, url) for _ in range(20)]
        wait_until_rendering(server).kill()
        statuses = [answer.result().status_code for answer in answers]
        assert statuses.count(500) >= 1
        assert set(statuses) <= {200, 500}
        assert server.log().count("render-failed") == 1


def test_render_past_its_deadline_is_killed_and_503(data: Path) -> None:
    with darkroom(data) as server, server.client() as client:
        document = client.post("/v1/images", content=images.photo_jpeg(64, 48)).json()
        url = slow_url(client, 4000)
    with darkroom(data, render_seconds=1, wait_seconds=1) as server, server.client() as client:
        before = server.render_processes()
        answer = client.get(url)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/deadline-exceeded")
        assert int(answer.headers["retry-after"]) >= 1
        assert client.get(document["src"]).status_code == 200
        deadline = time.monotonic() + 10
        while all(process.is_running() for process in before):
            assert time.monotonic() < deadline, "the render goes on after its deadline"
            time.sleep(0.01)


def test_client_kept_waiting_too_long_gets_503_and_finds_the_rendition_later(data: Path) -> None:
    with darkroom(data, wait_seconds=0.2) as server, server.client() as client:
        url = slow_url(client)
        answer = client.get(url)
        assert answer.status_code == 503
        for _ in range(200):
            answer = client.get(url)
            if answer.status_code == 200:
                break
        assert answer.status_code == 200
        assert len(server.stored("renditions")) == 1


def test_full_queue_is_503_with_retry_after_while_hits_and_health_go_on(data: Path) -> None:
    with darkroom(data, render_queue=1, render_processes=1) as server, server.client() as client, ThreadPoolExecutor(12) as threads:
        document: dict[str, Any] = client.post("/v1/images", content=images.photo_jpeg(64, 48)).json()
        client.get(document["src"])
        urls = [slow_url(client, width) for width in range(2800, 2812)]
        answers = [answer.result() for answer in [threads.submit(client.get, url) for url in urls]]
        refused = [answer for answer in answers if answer.status_code == 503]
        assert {answer.status_code for answer in answers} == {200, 503}
        for answer in refused:
            assert answer.json()["type"] == "/problems/overloaded"
            assert int(answer.headers["retry-after"]) >= 1
            assert "at most 1 waiting" in answer.json()["expected"]
        assert "hit" in client.get(document["src"]).headers["cache-status"]
        assert client.get("/health").status_code == 200


def test_more_cold_requests_than_are_allowed_are_503_while_hits_go_on(data: Path) -> None:
    with darkroom(data, max_cold_requests=2, render_processes=1) as server, server.client() as client, ThreadPoolExecutor(8) as threads:
        document: dict[str, Any] = client.post("/v1/images", content=images.photo_jpeg(64, 48)).json()
        client.get(document["src"])
        urls = [slow_url(client, width) for width in range(2800, 2806)]
        pending = [threads.submit(client.get, url) for url in urls]
        wait_until_rendering(server)
        assert "hit" in client.get(document["src"]).headers["cache-status"]
        assert client.get("/health").status_code == 200
        busy = [answer.result() for answer in pending if answer.result().status_code == 503]
        assert len(busy) == 4
        for answer in busy:
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["content-type"] == "application/problem+json"
