"""deploy/nginx.conf: a real nginx with it, in front of a real server."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.support.images import photo_jpeg
from tests.support.processes import running
from tests.support.server import HOST, Server, darkroom, free_port
from tests.support.upload import upload
from tests.support.waiting import PATIENCE_SECONDS, wait_until

SITE = (Path(__file__).parents[2] / "deploy" / "nginx.conf").read_text("utf-8")


def program() -> str:
    found = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if found is None:
        pytest.skip("nginx is not installed")
    return found


def configuration(folder: Path, origin_port: int, port: int, fresh: str = "5m") -> Path:
    """Return a file like Debian's nginx.conf, with the site at another port, in front of that of the server.

    fresh: how long the cache stores a response before it asks again.
    """
    site = SITE
    for part, replacement in {
        "server darkroom:8080;": f"server {HOST}:{origin_port};",
        "listen 80 default_server;": f"listen {HOST}:{port} default_server;",
        "proxy_cache_path /var/cache/nginx/darkroom ": f"proxy_cache_path {folder}/cache ",
        "proxy_cache_valid 200 5m;": f"proxy_cache_valid 200 {fresh};",
    }.items():
        assert site.count(part) == 1, part
        site = site.replace(part, replacement)
    temporary = "".join(f"  {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    file = folder / "nginx.conf"
    events = "events { worker_connections 1024; }\n"
    file.write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\n{events}"
        f"http {{\n  access_log off;\n{temporary}{site}\n}}\n",
        "utf-8",
    )
    return file


@contextmanager
def in_front(folder: Path, server: Server, fresh: str = "5m") -> Iterator[httpx.Client]:
    """Yield a client of an nginx in front of a server."""
    folder.mkdir()
    port = free_port()
    file = configuration(folder, server.port, port, fresh)
    with (
        running([program(), "-c", file, "-p", folder, "-e", folder / "error.log"]),
        httpx.Client(base_url=f"http://{HOST}:{port}", timeout=PATIENCE_SECONDS, trust_env=False) as client,
    ):

        def answers() -> bool:
            with suppress(httpx.TransportError):
                return client.get("/livez").status_code == 200
            return False

        wait_until(answers)
        yield client


def statuses(response: httpx.Response) -> list[str]:
    """Return the members of Cache-Status without their parameters but the first: what Darkroom did, then what nginx did."""
    return [member.strip().partition("; key=")[0] for member in response.headers["cache-status"].split(", ")]


def test_nginx_accepts_the_configuration(tmp_path: Path) -> None:
    file = configuration(tmp_path, 8080, 8081)
    checked = subprocess.run(
        [program(), "-t", "-c", file, "-p", tmp_path], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.long
def test_nginx_in_front_caches_renditions_and_answers_ranges_and_conditional_requests_itself(tmp_path: Path) -> None:
    with darkroom(tmp_path / "server", trusted_proxies=HOST) as server, in_front(tmp_path / "nginx", server) as client:
        src = upload(client, photo_jpeg(1400, 900))["src"]
        first, second = client.get(src), client.get(src)
        assert (first.status_code, second.status_code) == (200, 200)
        assert statuses(first)[-1] == "nginx; fwd=uri-miss"
        assert statuses(second)[-1] == "nginx; hit"
        assert first.content == second.content
        assert second.headers["cache-control"] == "public, max-age=31536000, immutable"

        unchanged = client.get(src, headers={"If-None-Match": first.headers["etag"]})
        assert (unchanged.status_code, statuses(unchanged)[-1]) == (304, "nginx; hit")
        part = client.get(src, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content, statuses(part)[-1]) == (206, first.content[10:20], "nginx; hit")
        # A range of what is not stored yet is fetched as a whole.
        other = re.sub("/width=[0-9]+/", "/width=320/", src)
        assert client.get(other, headers={"Range": "bytes=0-9"}).status_code == 206
        assert statuses(client.get(other))[-1] == "nginx; hit"
        assert client.head(src).headers["content-length"] == str(len(first.content))

        # What may not be stored is not: errors, documents, and health.
        refused = re.sub("/width=[0-9]+/", "/width=333/", src)
        assert [client.get(refused).status_code for _ in range(2)] == [403, 403]
        assert statuses(client.get(refused))[-1] == "nginx; fwd=uri-miss"
        assert all(not status.startswith("nginx") for status in statuses(client.get("/health")))

        # While Darkroom is away, nginx serves what it has.
        server.stop()
        assert client.get(src).content == first.content
        assert client.get("/health").status_code == 502


@pytest.mark.long
def test_nginx_in_front_revalidates_and_drops_an_image_that_was_taken_down(tmp_path: Path) -> None:
    with darkroom(tmp_path / "server", trusted_proxies=HOST) as server, in_front(tmp_path / "nginx", server, fresh="1s") as client:
        document = upload(client, photo_jpeg(1400, 900))
        src = document["src"]
        etag = client.get(src).headers["etag"]

        def revalidated() -> bool:
            response = client.get(src)
            assert (response.status_code, response.headers["etag"]) == (200, etag)
            return statuses(response)[-1] == "nginx; fwd=stale; fwd-status=304"

        wait_until(revalidated)
        client.delete(f"/v1/images/{document['digest']}").raise_for_status()
        wait_until(lambda: client.get(src).status_code == 410)


@pytest.mark.long
def test_nginx_in_front_refuses_uploads_that_are_too_large_and_names_the_client(tmp_path: Path) -> None:
    tokens = "0123456789abcdef"
    with (
        darkroom(tmp_path / "server", trusted_proxies=HOST, tokens=tokens) as server,
        in_front(tmp_path / "nginx", server) as client,
    ):
        with socket.create_connection((HOST, client.base_url.port or 80)) as connection:
            connection.sendall(f"POST /v1/images HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {65 * 2**20}\r\n\r\n".encode())
            assert connection.recv(12) == b"HTTP/1.1 413"

        # Wrong tokens are counted for each client, and the client is the one that nginx saw: what the client wrote is not believed.
        def attempt(claimed: str) -> int:
            headers = {"Authorization": "Bearer wrong-wrong-wrong-wrong", "X-Forwarded-For": claimed}
            return client.get("/v1/images", headers=headers).status_code

        assert {attempt(f"203.0.113.{number}") for number in range(50)} == {401}
        good = {"Authorization": f"Bearer {tokens}"}
        assert client.get("/v1/images", headers=good).status_code == 200


@pytest.mark.long
def test_nginx_in_front_passes_on_why_an_upload_was_refused_before_it_was_read(tmp_path: Path) -> None:
    settings = {"trusted_proxies": HOST, "tokens": "0123456789abcdef", "max_upload_bytes": 1_000_000}
    body = bytes(30_000_000)
    with darkroom(tmp_path / "server", **settings) as server, in_front(tmp_path / "nginx", server) as client:
        for headers, expected in (({}, 401), ({"Authorization": "Bearer 0123456789abcdef"}, 413)):
            for _ in range(10):
                refused = client.post("/v1/images", content=body, headers=headers)
                assert (refused.status_code, refused.json()["status"]) == (expected, expected)


def test_nginx_waits_longer_than_a_render_and_bounds_what_darkroom_bounds() -> None:
    assert int(re.findall(r"proxy_read_timeout (\d+)s;", SITE)[0]) > 60
    assert "client_max_body_size 64m;" in SITE
