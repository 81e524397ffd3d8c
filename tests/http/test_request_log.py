"""The log of requests of a real server: which requests have a line, what is in it, and what is not."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.request_log import cache_result, request_ids
from service.images.digest import is_digest
from tests.support import images
from tests.support.server import HOST, Server, darkroom
from tests.support.waiting import PATIENCE_SECONDS, wait_until

KEY = "5ca1ab1e" * 8
TOKEN = "a-Token-of-the-Tests_0189"
HOSTILE_PATHS = (
    "/", "//", "/..%2f..%2fetc/passwd", "/%", "/%00", "/%ff%fe", "/%e2%80%ae", "/i/", "/i/v3////", "/i/v3/x/y/%22%7d%0a%7b", "/from/",
    "/from/x/?/y", "/v1/uploads/1.2.any.x." + "s" * 26, "/v1/images/%0d%0aSet-Cookie:x", "/docs/%7b%7b7*7%7d%7d", "*", "http://a/b",
    "/\x7f", "/" + "%41" * 1_000,
)  # fmt: skip
ID = re.compile(r"[0-9a-f]{32}")


def lines(server: Server) -> list[dict[str, Any]]:
    """Return all lines of the log, each of which must be one JSON object of printable ASCII."""
    found = []
    for line in server.log().splitlines():
        assert line.isascii()
        assert line.isprintable()
        found.append(json.loads(line))
        assert isinstance(found[-1], dict)
    return found


def requests(server: Server, **fields: object) -> list[dict[str, Any]]:
    """Return the lines of requests whose fields are these."""
    return [line for line in lines(server) if line["event"] == "request" and fields.items() <= line.items()]


def raw(server: Server, head: bytes) -> bytes:
    """Return the response to a request that no client library would send."""
    received = b""
    with socket.create_connection((HOST, server.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(head)
        while piece := connection.recv(65_536):
            received += piece
    return received


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server with secrets, whose log has no hits."""
    with darkroom(tmp_path_factory.mktemp("locked") / "data", keys=KEY, tokens=TOKEN, log_hits="0", unsigned="none") as server:
        yield server


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server whose log has all hits and the addresses of clients, and at most five lines of a kind per second."""
    settings = {"log_hits": "1", "log_clients": "true", "trusted_proxies": "127.0.0.0/8", "log_lines_per_second": "5"}
    with darkroom(tmp_path_factory.mktemp("bounded") / "data", **settings) as server:
        yield server


def test_requests_have_one_line_each_with_their_id_and_hits_have_none(locked: Server) -> None:
    with locked.client() as client:
        uploaded = client.post(
            "/v1/images",
            content=images.photo_jpeg(320, 240),
            headers={"authorization": f"Bearer {TOKEN}", "x-request-id": "upload:17", "fly-request-id": "01HZX0-ams"},
        )
        assert uploaded.headers["x-request-id"] == "upload:17"
        path = uploaded.json()["src"]
        signature = re.findall(r"/([a-z2-7]{26})\.", path)[0]
        cold = client.get(path, headers={"fly-request-id": "01HZY0-ams"})
        assert cold.headers["x-request-id"] == "01HZY0-ams"
        for _ in range(3):
            hit = client.get(path)
            assert "; hit" in hit.headers["cache-status"]
            assert "x-request-id" not in hit.headers
        forged = client.get(path.replace(signature, signature[::-1]), headers={"x-request-id": "spaces are not allowed"})
        assert ID.fullmatch(forged.headers["x-request-id"])
    # A line is written when the response has been sent, which its client may see first.
    wait_until(lambda: {forged.headers["x-request-id"], "01HZY0-ams", "upload:17"} <= {line["request_id"] for line in requests(locked)})
    (upload,) = requests(locked, path="/v1/images")
    assert upload == upload | {
        "level": "info", "method": "POST", "kind": "api", "status": 201, "cache": "method", "bytes": len(uploaded.content),
        "request_id": "upload:17", "fly_request_id": "01HZX0-ams",
    }  # fmt: skip
    assert 0 < upload["seconds"] < PATIENCE_SECONDS
    (rendered,) = requests(locked, kind="rendition", status=200)
    masked = path.replace(signature, "***")
    assert rendered == rendered | {"path": masked, "cache": "uri-miss", "tier": "render", "bytes": len(cold.content)}
    (refused,) = requests(locked, request_id=forged.headers["x-request-id"])
    assert refused == refused | {"path": masked, "status": 403, "problem": "bad-signature"}
    # What is logged far below a request has its id too.
    assert [line["request_id"] for line in lines(locked) if line["event"] == "rendered"] == ["01HZY0-ams"]
    assert not requests(locked, kind="health")
    log = locked.log().replace(locked.url, "")
    for secret in (KEY, TOKEN, signature, signature[::-1], "127.0.0.1", '"client"'):
        assert secret not in log


def test_hostile_requests_have_lines_of_json_without_their_secrets(locked: Server) -> None:
    signature = "s" * 26
    for path in HOSTILE_PATHS:
        raw(locked, f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode("utf-8", "surrogateescape"))
    for head in (
        f"GET /i/v3/x/width=1/{signature}.webp?token={TOKEN} HTTP/1.1\r\nHost: a\r\nX-Request-Id: {TOKEN}\r\n",
        f"GET /{TOKEN} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nCookie: {TOKEN}\r\n",
        f"GET /%{ord(TOKEN[0]):02x}{TOKEN[1:]} HTTP/1.1\r\nHost: {TOKEN}\r\nX-Request-Id: {signature}\r\n",
        f"GET /from/a/%73{signature[1:]}.webp HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\r\nX-Request-Id: b\r\n",
        f"{'M' * 500} /{'x' * 6_000} HTTP/1.1\r\nHost: a\r\nX-Request-Id: {'i' * 2_000}\r\n",
        "GET /%00%0a%0d%1b%5b31m%ff%ed%a0%80 HTTP/1.1\r\nHost: a\r\nX-Request-Id: \x1b[31m\r\n",
        "POST /v1/images HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n",
        "GET /last HTTP/1.1\r\nHost: a\r\n",
    ):
        raw(locked, f"{head}Connection: close\r\n\r\n".encode("latin-1"))
    wait_until(lambda: bool(requests(locked, path="/last")))
    written = requests(locked)
    assert len(written) >= len(HOSTILE_PATHS) // 2
    log = locked.log()
    for secret in (KEY, TOKEN, TOKEN.lower(), signature):
        assert secret not in log
    assert max(map(len, log.splitlines())) < 2_000
    for line in written:
        assert {"timestamp", "level", "method", "path", "kind", "status", "bytes", "seconds", "request_id"} <= line.keys()
        assert len(line["path"]) <= 501
        assert "client" not in line


def test_sampled_hits_and_health_checks_have_lines_with_the_address_of_the_client_if_asked(bounded: Server) -> None:
    with bounded.client() as client:
        path = client.post("/v1/images", content=images.photo_jpeg(320, 240)).json()["src"]
        client.get(path)
        hits: dict[str, httpx.Response] = {}

        def has_a_line() -> bool:
            # The health checks of a start that takes long may have used all lines of this second.
            hit = client.get(path, headers={"x-forwarded-for": "192.0.2.7, 127.0.0.1"})
            assert "; hit" in hit.headers["cache-status"]
            hits[hit.headers["x-request-id"]] = hit
            return bool(requests(bounded, cache="hit"))

        wait_until(has_a_line)
    line = requests(bounded, cache="hit")[0]
    size = len(hits[line["request_id"]].content)
    assert line == line | {"path": path, "status": 200, "tier": "memory", "client": "192.0.2.7", "bytes": size}
    assert requests(bounded, kind="health", status=200)


def test_client_that_leaves_before_its_response_has_a_line(bounded: Server) -> None:
    with bounded.client() as client:
        path = client.post("/v1/images", content=images.photo_jpeg(640, 480, seed=41)).json()["src"]
    with bounded.suspended_renders():
        with socket.create_connection((HOST, bounded.port)) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        wait_until(lambda: len(requests(bounded, path=path, incomplete=True, status=None)) == 1)


def test_flood_of_bad_requests_is_cut_in_the_log_and_counted(bounded: Server) -> None:
    with bounded.client() as client:
        for number in range(300):
            assert client.get(f"/nothing/{number}").status_code == 404
        assert client.get("/v1/images").status_code == 200
    wait_until(lambda: len(requests(bounded, path="/v1/images", method="GET")) == 1)
    # At the latest when the server ends, every line is accounted for.
    bounded.stop()
    written = requests(bounded, status=404)
    # Fifty at once, and five more in each second that the requests took.
    assert 50 <= len(written) < 250
    omitted = sum(line["kinds"].get("request 404", 0) for line in lines(bounded) if line["event"] == "log lines omitted")
    assert omitted + len(written) == 300


@given(st.lists(st.tuples(st.sampled_from([b"x-request-id", b"fly-request-id", b"accept"]), st.binary(max_size=200)), max_size=4))
def test_id_of_a_request_is_safe_in_a_header_and_in_a_log_whatever_comes(headers: list[tuple[bytes, bytes]]) -> None:
    ids = request_ids(headers)
    assert set(ids) <= {"request_id", "fly_request_id"}
    for value in ids.values():
        assert re.fullmatch(r"[A-Za-z0-9._:/+=@-]{4,128}", value)


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ([(b"x-request-id", b"7d44ebae-ee6f-4c1f-9d3a-0f2e8b3b7a10")], "7d44ebae-ee6f-4c1f-9d3a-0f2e8b3b7a10"),
        ([(b"fly-request-id", b"01JDX3M5TQ0GJ6-arn")], "01JDX3M5TQ0GJ6-arn"),
        ([(b"fly-request-id", b"01JDX3M5TQ0GJ6-arn"), (b"x-request-id", b"mine")], "mine"),
    ],
)
def test_id_that_a_proxy_has_given_is_kept(headers: list[tuple[bytes, bytes]], request_id: str) -> None:
    assert request_ids(headers)["request_id"] == request_id


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"x-request-id", b"")],
        [(b"x-request-id", b"abc")],
        [(b"x-request-id", b"x" * 129)],
        [(b"x-request-id", b"two words")],
        [(b"x-request-id", b"s" * 26)],
        [(b"x-request-id", b"first"), (b"x-request-id", b"second")],
        [(b"x-request-id", b"line\nbreak")],
        [(b"x-request-id", b"break\n")],
    ],
)
def test_id_that_is_none_is_replaced(headers: list[tuple[bytes, bytes]]) -> None:
    request_id = request_ids(headers)["request_id"]
    assert ID.fullmatch(request_id)
    assert not is_digest(request_id) or request_ids(headers)["request_id"] != request_id


@pytest.mark.parametrize(
    ("field", "result"),
    [
        (b'darkroom; hit; ttl=10; key="/a"', "hit"),
        (b'darkroom; hit; ttl=-10; key="/a"', "stale"),
        (b'darkroom; fwd=uri-miss; stored; ttl=10; key="/a; hit"', "uri-miss"),
        (b'darkroom; fwd=uri-miss; collapsed; ttl=10; key="/a"', "collapsed"),
        (b'darkroom; fwd=uri-miss; detail=busy; key="/a"', "busy"),
        (b'darkroom; fwd=stale; fwd-status=503; ttl=-3; detail=stale-if-error; key="/a"', "stale-if-error"),
        (b"darkroom; fwd=bypass", "bypass"),
        (b"darkroom; detail=refused", "refused"),
        (b"darkroom", "none"),
    ],
)
def test_cache_result_is_what_the_edge_did(field: bytes, result: str) -> None:
    assert cache_result(field) == result
