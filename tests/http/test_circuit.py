"""An upload that ends its render process twice: refused by every server of the store, without harm to other requests."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.rendering.circuit_breaker import EXPIRES_AFTER_SECONDS
from service.storage.keys import RENDER_FAILURES_PREFIX, render_failure_key
from tests.support import images
from tests.support.prometheus import samples
from tests.support.server import Server, darkroom, free_port
from tests.support.waiting import wait_until


def uploaded(server: Server, body: bytes) -> httpx.Response:
    with server.client() as client:
        return client.post("/v1/images", content=body)


def wait_until_a_process_is_ready(metrics_port: int) -> None:
    """Return when the only slot has a render process that has started."""
    wait_until(lambda: samples(metrics_port)["render_process_resident_memory_bytes", "0"] > 0)


def upload_whose_process_is_killed(server: Server, metrics_port: int, body: bytes) -> httpx.Response:
    """Return the response to an upload during whose probe its render process is killed."""
    wait_until_a_process_is_ready(metrics_port)
    (process,) = server.render_processes()
    with ThreadPoolExecutor(1) as threads, server.suspended_renders():
        upload = threads.submit(uploaded, server, body)
        wait_until(lambda: samples(metrics_port)["render_busy_slots",] == 1)
        process.kill()
        return upload.result()


def wait_until_failures_are_read(store: Path) -> None:
    """Return when the only server of a store has read the failures that are in it now: one that has expired is deleted then."""
    expired = store / render_failure_key("a" * 32, f"{int(time.time() - 2 * EXPIRES_AFTER_SECONDS)}-crashed-00000000")
    expired.parent.mkdir()
    expired.touch()
    wait_until(lambda: not expired.exists())


def check_refused(server: Server, bad: bytes) -> None:
    """Check that an upload is refused because its process ended twice, and that no other is."""
    response = uploaded(server, bad)
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    problem = response.json()
    assert (problem["type"], problem["title"]) == ("/problems/render-gave-up", "Rendering gave up")
    assert problem["received"] == "2 failed attempts within the last hour"
    assert uploaded(server, images.photo_jpeg(64, 48)).status_code in {200, 201}


@pytest.mark.long
def test_upload_that_ends_its_process_twice_is_422_on_every_server_of_the_store_without_a_third_process(tmp_path: Path) -> None:
    bad, store, metrics_port = images.photo_jpeg(640, 480), tmp_path / "store", free_port()
    settings = {"render_processes": 1, "store": store.as_uri(), "warm": "none", "keys": "0" * 64}
    with darkroom(tmp_path / "two", **settings) as two:
        with darkroom(tmp_path / "one", metrics_port=metrics_port, **settings) as one, one.client() as client:
            for _ in range(2):
                response = upload_whose_process_is_killed(one, metrics_port, bad)
                assert (response.status_code, response.json().get("type")) == (500, "/problems/render-failed"), response.text
            wait_until_a_process_is_ready(metrics_port)
            process_ids = [process.pid for process in one.render_processes()]
            check_refused(one, bad)
            assert [process.pid for process in one.render_processes()] == process_ids
            assert client.get("/health").json()["status"] == "ok"
            assert client.get("/problems/render-gave-up").status_code == 200
            wait_until(lambda: sum(path.is_file() for path in (store / RENDER_FAILURES_PREFIX).rglob("*")) == 2)
        wait_until_failures_are_read(store)
        check_refused(two, bad)
