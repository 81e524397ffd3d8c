"""A render process that is killed, crashes or takes too long fails one request, never the server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.cli.test_serve import wait_until_rendering
from tests.http.test_ingest import digest_of
from tests.support import images
from tests.support.server import darkroom, ladder_urls
from tests.support.upload import upload
from tests.support.waiting import wait_until


def slow_url(client: httpx.Client) -> str:
    """Return the URL of a rendition that takes ten seconds, so that its process is killed long before it is done."""
    digest = upload(client, images.photo_jpeg(3000, 2000))["digest"]
    wanted = {"transform": {"width": 2900, "effort": 4}, "format": "avif"}
    url: str = client.post(f"/v1/images/{digest}/urls", json=wanted).json()["url"]
    return url


def test_render_process_killed_while_it_renders_is_500_and_the_next_request_succeeds(data: Path) -> None:
    with darkroom(data) as server, server.client() as client, ThreadPoolExecutor(1) as threads:
        url = slow_url(client)
        worker = server.worker()
        response = threads.submit(client.get, url)
        wait_until_rendering(server).kill()
        failed = response.result()
        assert (failed.status_code, failed.json()["type"]) == (500, "/problems/render-failed")
        assert failed.json()["remedy"] == "Try again; a new process has taken its place."
        assert failed.headers["cache-control"] == "no-store"
        assert client.get(upload(client, images.photo_jpeg(64, 48))["src"]).status_code == 200
        assert server.worker() == worker


def test_waiting_clients_share_the_error_of_a_killed_render(data: Path) -> None:
    with darkroom(data) as server, server.client() as client, ThreadPoolExecutor(20) as threads:
        url = slow_url(client)
        responses = [threads.submit(client.get, url) for _ in range(20)]
        wait_until_rendering(server).kill()
        statuses = [response.result().status_code for response in responses]
        assert statuses.count(500) >= 1
        assert set(statuses) <= {200, 500}
        assert server.log().count('"event": "request failed"') == 1


def test_render_past_its_deadline_is_killed_and_503(data: Path) -> None:
    body = images.photo_jpeg(64, 48)
    with darkroom(data, render_seconds=1, wait_seconds=1) as server, server.client() as client:
        # On a busy machine even a small image may take longer than this deadline.
        wait_until(lambda: client.post("/v1/images", content=body).is_success)
        url = client.get(f"/v1/images/{digest_of(body)}").json()["src"]
        before = server.render_processes()
        with server.suspended_renders():
            response = client.get(url)
            assert (response.status_code, response.json()["type"]) == (503, "/problems/deadline-exceeded")
            assert int(response.headers["retry-after"]) >= 1
            wait_until(lambda: not all(process.is_running() for process in before))
        wait_until(lambda: client.get(url).status_code == 200)


def test_client_kept_waiting_too_long_gets_503_and_finds_the_rendition_later(data: Path) -> None:
    body = images.photo_jpeg(64, 48)
    with darkroom(data, wait_seconds=0.2) as server, server.client() as client:
        # On a busy machine even the probe of a small image may take longer than a client waits.
        wait_until(lambda: client.post("/v1/images", content=body).is_success)
        url = client.get(f"/v1/images/{digest_of(body)}").json()["src"]
        with server.suspended_renders():
            assert client.get(url).status_code == 503
        wait_until(lambda: client.get(url).status_code == 200)
        assert len(server.stored("renditions")) == 1


def renditions_of_one_image(client: httpx.Client, count: int) -> list[str]:
    """Return the URLs of `count` renditions of a small image that are not rendered yet."""
    digest = upload(client, images.photo_jpeg(640, 480))["digest"]
    return ladder_urls(client, digest, range(300, 300 + count), "webp")


def test_full_queue_is_503_with_retry_after_while_hits_and_health_continue(data: Path) -> None:
    with darkroom(data, render_queue=1, render_processes=1) as server, server.client() as client, ThreadPoolExecutor(12) as threads:
        document = upload(client, images.photo_jpeg(64, 48))
        client.get(document["src"])
        urls = renditions_of_one_image(client, 12)
        with server.suspended_renders():
            pending = [threads.submit(client.get, url) for url in urls]
            # One render is in progress, and one waits.
            wait_until(lambda: sum(response.done() for response in pending) == 10)
            assert "hit" in client.get(document["src"]).headers["cache-status"]
            assert client.get("/health").status_code == 200
        responses = [response.result() for response in pending]
        refused = [response for response in responses if response.status_code == 503]
        assert sorted(response.status_code for response in responses) == [200] * 2 + [503] * 10
        for response in refused:
            assert response.json()["type"] == "/problems/overloaded"
            assert int(response.headers["retry-after"]) >= 1
            assert "at most 1 waiting" in response.json()["expected"]
        assert "hit" in client.get(document["src"]).headers["cache-status"]
        assert client.get("/health").status_code == 200


def test_too_many_cold_requests_are_503_while_hits_continue(data: Path) -> None:
    with darkroom(data, max_cold_requests=2, render_processes=1) as server, server.client() as client, ThreadPoolExecutor(8) as threads:
        document = upload(client, images.photo_jpeg(64, 48))
        client.get(document["src"])
        urls = renditions_of_one_image(client, 6)
        with server.suspended_renders():
            pending = [threads.submit(client.get, url) for url in urls]
            wait_until(lambda: sum(response.done() for response in pending) == 4)
            assert "hit" in client.get(document["src"]).headers["cache-status"]
            assert client.get("/health").status_code == 200
        responses = [response.result() for response in pending]
        busy = [response for response in responses if response.status_code == 503]
        assert sorted(response.status_code for response in responses) == [200] * 2 + [503] * 4
        assert len(busy) == 4
        for response in busy:
            assert response.headers["retry-after"] == "1"
            assert response.headers["content-type"] == "application/problem+json"
