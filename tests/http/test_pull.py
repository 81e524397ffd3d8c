"""Pulling over HTTP: mutable source URLs, immutable renditions; with a real server in a network namespace of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import images
from tests.support.network import PUBLIC_ADDRESS, in_own_network
from tests.support.server import Server, darkroom, was_stored
from tests.support.threads import serving
from tests.support.waiting import wait_until


class Source:
    """A host with one image at every path: its bytes, its entity tag, the status of its responses, and the requests so far."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.tag = '"v1"'
        self.status = 200
        self.requests: list[dict[str, str]] = []
        self.port = 0

    def url(self, path: str = "/photo.jpg", host: str = PUBLIC_ADDRESS) -> str:
        """Return the URL of the image."""
        return f"http://{host}:{self.port}{path}"


@contextmanager
def source(body: bytes) -> Iterator[Source]:
    """Give a source that listens on the public address and on loopback."""
    running = Source(body)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            running.requests.append({name.lower(): value for name, value in self.headers.items()})
            if self.headers.get("If-None-Match") == running.tag and running.status == 200:
                status, body = 304, b""
            else:
                status, body = running.status, running.body if running.status == 200 else b"no"
            self.send_response(status)
            self.send_header("ETag", running.tag)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: Any) -> None:
            pass

    with serving(Handler, "0.0.0.0") as running.port:
        yield running


def pulling(data: Path, test: Callable[[Server, httpx.Client, Source], None], **settings: object) -> None:
    """Run a test with a server that may fetch from a source, in a network namespace of its own."""

    def body() -> None:
        with source(images.photo_jpeg(800, 600)) as running:
            hosts = settings.pop("pull_hosts", f"http://{PUBLIC_ADDRESS}:{running.port}")
            with darkroom(data, pull_hosts=hosts, **settings) as server, server.client() as client:
                test(server, client, running)

    in_own_network(body)


def pull_path(client: httpx.Client, url: str, **wanted: object) -> str:
    response = client.post("/v1/pull", json={"url": url, **wanted})
    assert response.status_code == 200, response.text
    path: str = response.json()["url"]
    return path


def check_problem(response: httpx.Response, status: int, kind: str) -> None:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert response.headers["cache-control"] == "no-store"
    problem = response.json()
    assert problem["type"] == f"/problems/{kind}"
    assert problem["expected"]
    assert problem["remedy"]


def test_pull_redirects_to_an_immutable_rendition_of_the_source_image(data: Path) -> None:
    def test(server: Server, client: httpx.Client, running: Source) -> None:
        path = pull_path(client, running.url(), transform={"width": 200}, format="webp")
        assert path.startswith("/pull/v1/")
        response = client.get(path)
        assert (response.status_code, response.content) == (302, b"")
        location = response.headers["location"]
        digest = location.split("/")[3]
        assert location.startswith(f"/i/v3/{digest}/width=200/")
        fields = {
            "cache-control": "public, max-age=60",
            "cdn-cache-control": "max-age=300, stale-while-revalidate=86400, stale-if-error=604800",
            "cache-tag": digest,
            "access-control-allow-origin": "*",
        }
        assert {name: response.headers[name] for name in fields} == fields
        assert was_stored(response, path, 300)
        rendition = client.get(location)
        assert (rendition.status_code, rendition.headers["content-type"]) == (200, "image/webp")
        assert images.decode(rendition.content).size == (200, 150)
        assert rendition.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert "; hit; " in client.get(path).headers["cache-status"]
        other = pull_path(client, running.url(), transform={"width": 100})
        assert client.get(other).headers["location"].endswith(".auto")
        assert len(running.requests) == 1
        assert client.get(f"/v1/images/{digest}").json()["digest"] == digest

    pulling(data, test)


def test_pull_revalidates_in_the_background_and_follows_the_source(data: Path) -> None:
    def test(server: Server, client: httpx.Client, running: Source) -> None:
        path = pull_path(client, running.url(), format="jpeg")
        first = client.get(path).headers["location"]
        time.sleep(1.1)
        stale = client.get(path)
        assert stale.headers["location"] == first
        assert "; hit; ttl=-" in stale.headers["cache-status"] or "; hit; ttl=0;" in stale.headers["cache-status"]
        wait_until(lambda: len(running.requests) == 2)
        assert running.requests[1]["if-none-match"] == '"v1"'
        running.body, running.tag = images.photo_jpeg(640, 480), '"v2"'
        time.sleep(1.1)
        wait_until(lambda: bool(client.get(path).headers["location"] != first))
        assert images.decode(client.get(client.get(path).headers["location"]).content).size == (640, 480)
        assert client.get(first).status_code == 200

    pulling(data, test, pull_seconds=1)


def test_pull_from_a_failing_source_shows_its_last_image_even_after_a_restart(data: Path) -> None:
    def test(server: Server, client: httpx.Client, running: Source) -> None:
        path = pull_path(client, running.url(), format="jpeg")
        first = client.get(path).headers["location"]
        running.status = 503
        time.sleep(1.1)
        server.stop()
        hosts = f"http://{PUBLIC_ADDRESS}:{running.port}"
        with darkroom(server.data, pull_hosts=hosts, pull_seconds=1) as again, again.client() as anew:
            response = anew.get(path)
            assert (response.status_code, response.headers["location"]) == (302, first)
            assert response.headers["cdn-cache-control"].startswith("max-age=30, ")
            assert "if-none-match" in running.requests[-1]
            assert '"event": "a source failed; the image it had is shown"' in again.log()

    pulling(data, test, pull_seconds=1)


def test_pull_of_a_missing_image_is_404_and_from_a_failing_source_502(data: Path) -> None:
    def test(server: Server, client: httpx.Client, running: Source) -> None:
        path = pull_path(client, running.url())
        running.status = 404
        check_problem(client.get(path), 404, "not-found")
        running.status = 500
        check_problem(client.get(path), 502, "source-failed")
        running.status = 200
        running.body = b"no image at all"
        check_problem(client.get(path), 415, "unsupported-format")
        running.body = images.photo_jpeg(100, 100)
        assert client.get(path).status_code == 302

    pulling(data, test)


def test_pull_of_a_taken_down_image_is_410_until_the_source_has_another(data: Path) -> None:
    def test(server: Server, client: httpx.Client, running: Source) -> None:
        path = pull_path(client, running.url(), format="jpeg")
        location = client.get(path).headers["location"]
        digest = location.split("/")[3]
        assert client.get(location).status_code == 200
        assert client.delete(f"/v1/images/{digest}").status_code == 200
        check_problem(client.get(path), 410, "gone")
        check_problem(client.get(location), 410, "gone")
        running.body, running.tag = images.photo_jpeg(300, 200), '"v2"'
        assert client.get(path).status_code == 302

    pulling(data, test)


def test_ingest_by_url_stores_the_image(data: Path) -> None:
    def test(server: Server, client: httpx.Client, running: Source) -> None:
        response = client.post("/v1/images", json={"url": running.url()})
        assert response.status_code == 201
        assert (response.json()["width"], response.json()["height"]) == (800, 600)
        assert client.post("/v1/images", json={"url": running.url()}).status_code == 200
        assert client.post("/v1/images", content=running.body).status_code == 200
        for body in ({}, {"url": 7}, {"url": running.url(), "more": 1}):
            check_problem(client.post("/v1/images", json=body), 400, "bad-request")

    pulling(data, test)


def test_pull_fetches_only_from_allowed_hosts_and_never_from_private_addresses(data: Path) -> None:
    def test(server: Server, client: httpx.Client, running: Source) -> None:
        for url in (running.url(host="127.0.0.1"), running.url(host="localhost")):
            path = pull_path(client, url)
            check_problem(client.get(path), 502, "source-failed")
            check_problem(client.post("/v1/images", json={"url": url}), 502, "source-failed")
        for url in (running.url(), "http://other.test/", "ftp://localhost/", "nonsense", "http://localhost:1/"):
            check_problem(client.post("/v1/pull", json={"url": url}), 403, "source-refused")
            check_problem(client.post("/v1/images", json={"url": url}), 403, "source-refused")
        assert running.requests == []

    # The names are allowed, so that only their addresses can be the reason.
    def with_names() -> None:
        with source(b"") as running:
            hosts = f"http://127.0.0.1:{running.port},http://localhost:{running.port}"
            with darkroom(data, pull_hosts=hosts) as server, server.client() as client:
                test(server, client, running)

    in_own_network(with_names)


def test_pull_from_an_internal_host_has_the_response_of_one_that_does_not_exist(data: Path) -> None:
    def test(server: Server, client: httpx.Client, running: Source) -> None:
        hosts = ("localhost", "no-such-host.test")
        posts = [client.post("/v1/images", json={"url": f"http://{host}:7/a.jpg"}) for host in hosts]
        pulls = [client.get(pull_path(client, f"http://{host}:7/a.jpg")) for host in hosts]
        for inside, nowhere in (posts, pulls):
            check_problem(inside, 502, "source-failed")
            assert inside.content == nowhere.content
            assert inside.headers["retry-after"] == nowhere.headers["retry-after"] == "30"
            assert (inside.status_code, list(inside.headers)) == (nowhere.status_code, list(nowhere.headers))
        assert "a source was refused by its address" in server.log()

    pulling(data, test, pull_hosts="http://localhost:7,http://*.test:7")


def test_pull_url_that_is_not_signed_exactly_is_refused(data: Path) -> None:
    def test(server: Server, client: httpx.Client, running: Source) -> None:
        path = pull_path(client, running.url(), format="jpeg")
        _, _, _, encoded, transform, last = path.split("/")
        for wrong in (
            path.replace(".jpg", ".png"),
            path.replace("/full/", "/width=1/"),
            f"/pull/v1/{encoded[:-1]}A/{transform}/{last}",
            f"/pull/v1/{encoded}/{transform}/-.jpg",
            f"/pull/v1/{encoded}=/{transform}/{last}",
            f"/pull/v2/{encoded}/{transform}/{last}",
            f"/pull/v1//{transform}/{last}",
            path.replace("/pull/", "/PULL/"),
            path.replace("/pull/", "//pull/"),
        ):
            assert client.get(wrong).status_code in {400, 403, 404}, wrong
        response = client.get(f"{path}?x=1")
        assert (response.status_code, response.headers["location"]) == (308, path)
        assert running.requests == []

    pulling(data, test)


def test_pull_of_many_at_once_requests_the_source_once(data: Path) -> None:
    def test(server: Server, client: httpx.Client, running: Source) -> None:
        paths = [pull_path(client, running.url(), transform={"width": width}) for width in range(100, 120)]
        statuses: list[int] = []

        def ask(path: str) -> None:
            with server.client() as own:
                statuses.append(own.get(path).status_code)

        threads = [threading.Thread(target=ask, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [302] * len(paths)
        assert len(running.requests) == 1

    pulling(data, test)


def test_server_without_pull_hosts_refuses_to_fetch(data: Path) -> None:
    with darkroom(data) as server, server.client() as client:
        for response in (
            client.post("/v1/pull", json={"url": "https://a.test/"}),
            client.post("/v1/images", json={"url": "https://a.test/"}),
        ):
            check_problem(response, 403, "source-refused")
            assert "DARKROOM_PULL_HOSTS" in response.json()["remedy"]


@pytest.mark.parametrize("entry", ["ftp://a.test", "a.test/path", "*"])
def test_server_with_an_invalid_pull_host_does_not_start(data: Path, entry: str) -> None:
    with (
        pytest.raises(RuntimeError, match=r"DARKROOM_PULL_HOSTS: .* is not a host\. Expected images\.example\.com"),
        darkroom(data, pull_hosts=entry),
    ):
        pass
