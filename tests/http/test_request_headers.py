"""Headers that are too large, and Host fields that are missing or repeated, are refused even if the response is stored."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import pytest

from tests.support import images
from tests.support.server import HOST, Server, darkroom
from tests.support.waiting import PATIENCE_SECONDS


class Stored(NamedTuple):
    """A server, and the path of a rendition that it has in memory."""

    server: Server
    path: str
    body: bytes


class Got(NamedTuple):
    """A response as received."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document."""
        assert self.fields["content-type"] == "application/problem+json"
        problem: dict[str, Any] = msgspec.json.decode(self.body)
        return problem


@pytest.fixture(scope="module")
def stored(server: Server) -> Iterator[Stored]:
    logged_before = len(server.log())
    with server.client() as client:
        path = client.post("/v1/images", content=images.photo_jpeg(320, 240)).json()["src"]
        client.get(path)
        whole = client.get(path)
        assert "; hit; " in whole.headers["cache-status"]
        yield Stored(server, path, whole.content)
        again = client.get(path)
        assert (again.status_code, again.content) == (200, whole.content)
        assert "Traceback" not in server.log()[logged_before:]


def ask(stored: Stored, *fields: str, path: str = "", method: str = "GET", version: str = "1.1") -> Got:
    """Send a request with exactly these fields, and return the response; then close the connection."""
    lines = [f"{method} {path or stored.path} HTTP/{version}", *fields, "Connection: close"]
    received = b""
    with socket.create_connection((HOST, stored.server.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        while piece := connection.recv(65_536):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    start, *rest = head.decode("latin-1").split("\r\n")
    return Got(int(start.split(" ")[1]), dict(line.split(": ", 1) for line in rest), body)


# The edge has stored the root page, but not an unknown rendition.
COLD = f"/i/v3/{'a' * 32}/full/{'a' * 26}.jpg"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", COLD), ("GET", "/livez"), ("GET", "/v1/images"), ("POST", "/v1/images"), ("PUT", "/")]
)
@pytest.mark.parametrize("fields", [["X: " + "a" * 17_000], ["Cookie: " + "a" * 700] * 25, ["X-" + "a" * 17_000 + ": b"]])
def test_header_that_is_too_large_is_431_with_a_problem_document(stored: Stored, method: str, path: str, fields: list[str]) -> None:
    got = ask(stored, "Host: x", *fields, path=path, method=method)
    assert (got.status, got.fields["connection"], got.fields["cache-control"]) == (431, "close", "no-store")
    assert got.problem["type"] == "/problems/header-too-large"
    assert got.problem["expected"] == "at most 16384 bytes of target and fields"
    assert "DARKROOM_MAX_HEADER_BYTES" in got.problem["remedy"]
    assert got.fields["cache-status"] == "darkroom; detail=refused"
    assert got.fields["x-content-type-options"] == "nosniff"


def test_target_that_is_too_large_is_431(stored: Stored) -> None:
    assert ask(stored, "Host: x", path="/?" + "a" * 17_000).problem["type"] == "/problems/header-too-large"


@pytest.mark.parametrize("path", ["", COLD, "/", "/v1/images"])
def test_header_that_exceeds_the_buffer_is_an_empty_431_even_if_the_response_is_stored(stored: Stored, path: str) -> None:
    got = ask(stored, "Host: x", *[f"X-{number}: " + "a" * 1_000 for number in range(80)], path=path)
    assert (got.status, got.fields["connection"], got.body) == (431, "close", b"")


def test_header_just_below_the_limit_is_accepted(stored: Stored) -> None:
    got = ask(stored, "Host: x", "X: " + "a" * 16_000, path="/livez")
    assert (got.status, got.body) == (200, b"alive\n")
    hit = ask(stored, "Host: x", "X: " + "a" * 16_000)
    assert (hit.status, hit.body) == (200, stored.body)
    assert "; hit; " in hit.fields["cache-status"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("HEAD", ""), ("GET", COLD), ("GET", "/"), ("GET", "/livez"), ("POST", "/v1/images")]
)
@pytest.mark.parametrize("hosts", [[], ["Host:"], ["Host: x", "Host: x"], ["Host: x", "X: y", "host: z"], ["Host:", "Host: x"]])
def test_request_without_exactly_one_host_is_400(stored: Stored, method: str, path: str, hosts: list[str]) -> None:
    got = ask(stored, *hosts, path=path, method=method)
    assert (got.status, got.fields["connection"], got.fields["content-type"]) == (400, "close", "application/problem+json")
    if method != "HEAD":
        assert got.problem["expected"] == "one Host field (RFC 9112 §3.2)"


# Every page, and a path of each other kind.
PAGES = ["/", "/docs", "/docs/openapi.json", "/problems", "/problems/gone", "/health", "/livez"]
PAGES += ["/darkroom.js", "/darkroom.d.ts", "/darkroom.js.tgz"]
OTHERS = ["/docs/", "/nothing", "/problems/nothing", "/v1/images?limit=x", "/v1/images/x", "/web/x", "/docs/files/x", "/i/v3/x", "/from/x"]
NO_HOSTS = ["x:99999", "x:-1", "x:y", "x:", ":80", "[", "[::1", "[x]:80", "a b", "@", "x/y", "?#", "%zz", "\xff", "x" * 300]


@pytest.mark.parametrize("host", NO_HOSTS)
def test_request_with_an_invalid_host_is_400_or_gets_the_response_of_any_other(stored: Stored, host: str) -> None:
    for path in (*PAGES, *OTHERS):
        for target in (path, f"{path}{'&' if '?' in path else '?'}q=1"):
            # Nothing is served from memory.
            usual = ask(stored, "Host: x", "Cache-Control: no-cache", path=target).status
            assert usual < 500
            assert ask(stored, f"Host: {host}", "Cache-Control: no-cache", path=target).status in {400, usual}, target


@pytest.mark.parametrize("path", ["", COLD, "/livez"])
@pytest.mark.parametrize("hosts", [[], ["Host:"], ["Host: x"]])
def test_request_of_http_1_0_needs_no_host(stored: Stored, path: str, hosts: list[str]) -> None:
    assert ask(stored, *hosts, path=path, version="1.0").status == (403 if path == COLD else 200)


def test_conditional_hit_with_one_host_is_304(stored: Stored) -> None:
    etag = ask(stored, "Host: x").fields["etag"]
    got = ask(stored, "If-None-Match: " + etag, "Host: x")
    assert got.status == 304
    assert "; hit; " in got.fields["cache-status"]


def test_buffer_follows_the_setting(tmp_path_factory: pytest.TempPathFactory) -> None:
    with darkroom(tmp_path_factory.mktemp("small"), max_header_bytes=4_096) as server:
        small = Stored(server, "/livez", b"")
        assert ask(small, "Host: x", "X: " + "a" * 4_000).status == 200
        assert ask(small, "Host: x", "X: " + "a" * 4_100).problem["expected"] == "at most 4096 bytes of target and fields"
        assert ask(small, "Host: x", *["X: " + "a" * 1_000] * 40).body == b""
