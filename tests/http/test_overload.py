"""Promise 2: more renditions are requested than can be rendered. The excess is refused at once, and nothing else waits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from service.images.info import ImageInfo
from service.images.render_request import resolve
from service.images.transform import parse
from service.rendering.cost import CostModel, Work, render_work
from tests.support import images
from tests.support.renders import LIMITS
from tests.support.server import darkroom, ladder_urls, reported_sandbox
from tests.support.upload import upload
from tests.support.waiting import PATIENCE_SECONDS, wait_until

WIDTHS = range(300, 316)


def expect_slow_renders(data: Path) -> None:
    """Have a server that starts with this data folder expect several seconds of each WebP of a small JPEG, which take milliseconds.

    So the queue is full of very little work, and no admitted render is late on however busy a machine.
    """
    costs = CostModel()
    info = ImageInfo("jpeg", 640, 480, 1, alpha=False, needs_full_decode=False)
    for width in WIDTHS:
        work = render_work(resolve(info, parse(f"width={width}"), "webp", LIMITS))
        for _ in range(40):
            costs.learn(work, 8.0)
            costs.learn(Work("probe", 0.05, rates_machine=False), 0.1)
    data.mkdir(parents=True, exist_ok=True)
    (data / "render-costs.json").write_bytes(costs.encode())


def test_excess_is_refused_at_once_with_retry_after_while_everything_else_is_served(data: Path) -> None:
    body = images.photo_jpeg(640, 480)
    settings = {"render_processes": 1, "wait_seconds": PATIENCE_SECONDS / 3}
    with darkroom(data, **settings) as server, server.client() as client:
        digest = upload(client, body)["digest"]
        stored, *urls = ladder_urls(client, digest, WIDTHS, "webp")
        client.get(stored).raise_for_status()
    expect_slow_renders(data)
    with darkroom(data, **settings) as server, server.client() as client, ThreadPoolExecutor(len(urls)) as threads:
        reported_sandbox(server)
        with server.suspended_renders():
            pending = {url: threads.submit(client.get, url) for url in urls}

            def refused() -> list[httpx.Response]:
                return [response.result() for response in pending.values() if response.done()]

            # One is being rendered, and as many wait as can be rendered in 0.7 of 40 s.
            wait_until(lambda: len(refused()) >= len(urls) - 5)
            for response in refused():
                assert (response.status_code, response.json()["type"]) == (503, "/problems/overloaded")
                assert 1 <= int(response.headers["retry-after"]) <= 60
            # A refusal is repeated before the service sees the request, and one that nobody may make is still 403.
            again = client.get(next(url for url, response in pending.items() if response.done()))
            assert again.status_code == 503
            assert "detail=busy" in again.headers["cache-status"]
            assert again.json()["type"] == "/problems/overloaded"
            assert int(again.headers["retry-after"]) >= 1
            forged = client.get(f"/i/v3/{digest}/width=17/{'a' * 26}.webp")
            assert forged.status_code == 403
            # What is stored on disk or in memory, documents and health do not wait, and uploads have a lane of their own.
            assert client.get(stored).raise_for_status().headers["server-timing"].startswith("tier;desc=store")
            assert "hit" in client.get(stored).headers["cache-status"]
            for path in (f"/v1/images/{digest}", "/health", "/livez", "/docs"):
                client.get(path).raise_for_status()
            uploaded = threads.submit(upload, client, images.photo_jpeg(50, 40))
        statuses = [response.result().status_code for response in pending.values()]
        assert uploaded.result()["width"] == 50
    # Whatever was admitted was served: no refusal is later than those above.
    assert 1 <= statuses.count(200) <= 5
    assert statuses.count(503) == len(urls) - statuses.count(200)
    assert "deadline-exceeded" not in server.log()


def test_client_that_comes_back_after_retry_after_is_served(data: Path) -> None:
    body = images.photo_jpeg(640, 480)
    expect_slow_renders(data)
    with darkroom(data, render_processes=1, render_queue=1) as server, server.client() as client, ThreadPoolExecutor(3) as threads:
        urls = ladder_urls(client, upload(client, body)["digest"], WIDTHS, "webp")[:3]
        with server.suspended_renders():
            pending = [threads.submit(client.get, url) for url in urls]
            wait_until(lambda: any(response.done() for response in pending))
        responses = [response.result() for response in pending]
        (refused,) = [response for response in responses if response.status_code == 503]
        # It was told to wait for a whole render, and all of them are done already.
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        assert client.get(refused.url.path).status_code == 200


def test_upload_that_would_be_refused_is_refused_before_its_body_is_read_and_one_that_is_too_large_as_such(data: Path) -> None:
    settings = {"render_processes": 1, "render_queue": 1, "max_upload_bytes": 1_000_000}
    with darkroom(data, **settings) as server, server.client() as client, ThreadPoolExecutor(4) as threads:
        reported_sandbox(server)
        with server.suspended_renders():
            pending = [threads.submit(client.post, "/v1/images", content=images.photo_jpeg(60 + number, 40)) for number in range(2)]
            wait_until(lambda: len(list((data / "spool").iterdir())) == 2)

            # An empty body is 400 where it is read.
            wait_until(lambda: client.post("/v1/images", content=b"").status_code != 400)
            response = client.post("/v1/images", content=b"")
            assert (response.status_code, response.json()["type"]) == (503, "/problems/overloaded")
            assert int(response.headers["retry-after"]) >= 1
            # This one would be too large at any time.
            assert client.post("/v1/images", content=bytes(1_000_001)).status_code == 413
        assert [response.result().status_code for response in pending] == [201, 201]
