"""An upload that ends its render process twice: refused by every server of the store, without harm to other requests."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx
import pytest

from service.library.render_failures import SYNC_EVERY_SECONDS
from tests.support import images
from tests.support.server import Server, darkroom
from tests.support.waiting import PATIENCE_SECONDS


def uploaded(server: Server, body: bytes) -> httpx.Response:
    with server.client() as client:
        return client.post("/v1/images", content=body)


# Less than the coefficients of a progressive JPEG of 54 megapixels take, and more than a process takes to warm up.
HELD_BYTES = 64 << 20


def upload_whose_process_is_killed(server: Server, body: bytes) -> httpx.Response:
    """Return the response to an upload during whose probe its render process is killed."""
    responses: list[httpx.Response] = []
    upload = threading.Thread(target=lambda: responses.append(uploaded(server, body)))
    (process,) = server.render_processes()
    idle_bytes = process.memory_info().rss
    upload.start()
    until = time.monotonic() + PATIENCE_SECONDS
    # An idle process uses CPU time too, while it warms up, but not the memory of a large picture.
    while process.memory_info().rss < idle_bytes + HELD_BYTES and time.monotonic() < until:
        time.sleep(0.005)
    process.kill()
    upload.join()
    while not server.render_processes() and time.monotonic() < until:
        time.sleep(0.02)
    return responses[0]


@pytest.mark.long
def test_upload_that_ends_its_process_twice_is_422_on_every_server_of_the_store_without_a_third_process(tmp_path: Path) -> None:
    bad, good = images.large_jpeg(9000, 6000, progressive=True), images.photo_jpeg(64, 48)
    store = (tmp_path / "store").as_uri()
    with (
        darkroom(tmp_path / "one", render_processes=1, store=store, warm="none") as one,
        darkroom(tmp_path / "two", render_processes=1, store=store, warm="none") as two,
    ):
        for _ in range(2):
            response = upload_whose_process_is_killed(one, bad)
            assert (response.status_code, response.json().get("type")) == (500, "/problems/render-failed"), response.text
        process_ids = [process.pid for process in one.render_processes()]
        for server in (one, two):
            if server is two:
                # It reads the failures of other servers every ten seconds: an upload before that would be accepted.
                time.sleep(SYNC_EVERY_SECONDS + 2)
            response = uploaded(server, bad)
            assert response.status_code == 422
            assert response.headers["Content-Type"] == "application/problem+json"
            assert response.headers["Cache-Control"] == "no-store"
            problem = response.json()
            assert (problem["type"], problem["title"]) == ("/problems/render-gave-up", "Rendering gave up")
            assert problem["received"] == "2 failed attempts within the last hour"
            assert uploaded(server, good).status_code in {200, 201}
        assert [process.pid for process in one.render_processes()] == process_ids
        with one.client() as client:
            assert client.get("/health").json()["status"] == "ok"
            assert client.get("/problems/render-gave-up").status_code == 200
