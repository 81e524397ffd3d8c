"""Bodies that are hostile to the server: what they cost, which response they get, and that good requests continue."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import pytest

from tests.support import images
from tests.support.server import HOST, Server, darkroom
from tests.support.waiting import PATIENCE_SECONDS

# The most CPU time that each request of this module may take; without the limits, the cheapest one took seconds.
MOST_SECONDS = 1.5


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server that fetches images from URLs too."""
    with darkroom(tmp_path_factory.mktemp("bodies"), sources="cms=https://images.example.com") as running:
        yield running
        log = running.log()
        assert "Traceback" not in log
        assert "unexpected error" not in log


@pytest.fixture(scope="module")
def digest(attacked: Server) -> str:
    """Give the digest of a stored photo."""
    with attacked.client() as client:
        return str(client.post("/v1/images", content=images.photo_jpeg(640, 480)).json()["digest"])


@pytest.fixture(autouse=True)
def good_upload_afterwards(attacked: Server) -> Iterator[None]:
    """Check that an upload still works."""
    yield
    with attacked.client() as client:
        assert client.post("/v1/images", content=images.photo_jpeg(320, 200)).status_code in {200, 201}


class Got(NamedTuple):
    """A response, and the CPU time in seconds that it took."""

    status: int
    connection: str
    problem: dict[str, Any]
    cpu_seconds: float


def head(path: str, *fields: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def send(server: Server, raw: bytes, *, breaks_off: bool = False) -> Got:
    """Send bytes over a new connection, and close it for sending if the body `breaks_off`; return the response."""
    worker = server.worker()
    before = worker.cpu_times()
    received = b""
    with socket.create_connection((HOST, server.port), timeout=PATIENCE_SECONDS) as connection:
        # The server may respond and close while the client still sends.
        with suppress(ConnectionError):
            connection.sendall(raw)
            if breaks_off:
                connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while piece := connection.recv(65_536):
                received += piece
    after = worker.cpu_times()
    head, _, body = received.partition(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines)
    problem = msgspec.json.decode(body) if fields["content-type"] == "application/problem+json" else {}
    cpu_seconds = after.user + after.system - before.user - before.system
    return Got(int(start.split(" ")[1]), fields.get("connection", ""), problem, cpu_seconds)


def chunked(body: bytes, size: int) -> bytes:
    """Return a body in chunked encoding, in chunks of `size` bytes."""
    parts = (body[start : start + size] for start in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("path", ["/v1/images", "/v1/images/{}/urls", "/v1/images/known", "/v1/sources/cms/urls"])
def test_body_in_one_byte_chunks_is_400_at_little_cost(attacked: Server, digest: str, path: str) -> None:
    raw = head(path.format(digest), "Content-Type: text/plain", "Transfer-Encoding: chunked") + chunked(b" " * 60_000, 1)
    got = send(attacked, raw)
    assert (got.status, got.connection, got.problem["type"]) == (400, "close", "/problems/bad-request")
    assert got.problem["expected"] == "chunks of 512 bytes or more on average, after the first 1024"
    assert got.cpu_seconds < MOST_SECONDS


def test_multipart_body_in_one_byte_chunks_is_400_at_little_cost(attacked: Server) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + bytes(60_000) + b"\r\n--x--"
    fields = ("Content-Type: multipart/form-data; boundary=x", "Transfer-Encoding: chunked")
    got = send(attacked, head("/v1/images", *fields) + chunked(body, 1))
    assert (got.status, got.connection, got.problem["type"]) == (400, "close", "/problems/bad-request")
    assert got.cpu_seconds < MOST_SECONDS


@pytest.mark.parametrize("size", [536, 1_024, 1_460, 4_096])
def test_body_in_chunks_as_small_as_segments_is_accepted(attacked: Server, size: int) -> None:
    photo = images.photo_jpeg(640, 480)
    padded = photo + bytes(2_000_000 + size - len(photo))
    got = send(attacked, head("/v1/images", "Transfer-Encoding: chunked") + chunked(padded, size))
    assert got.status == 201


@pytest.mark.parametrize("declared", [True, False])
def test_white_space_declared_as_json_is_413_at_little_cost(attacked: Server, *, declared: bool) -> None:
    body = b" " * 30_000_000
    length = (f"Content-Length: {len(body)}", body) if declared else ("Transfer-Encoding: chunked", chunked(body, 100_000))
    got = send(attacked, head("/v1/images", "Content-Type: application/json", length[0]) + length[1])
    assert (got.status, got.connection, got.problem["type"]) == (413, "close", "/problems/too-large")
    assert got.problem["expected"] == "at most 65536 bytes"
    assert got.cpu_seconds < MOST_SECONDS


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/images/{}/urls"), ("PATCH", "/v1/images/{}"), ("POST", "/v1/images/known")])
def test_json_of_too_many_bytes_is_413_before_it_is_read(attacked: Server, digest: str, method: str, path: str) -> None:
    got = send(attacked, head(path.format(digest), "Content-Length: 65537", method=method))
    assert (got.status, got.problem["received"]) == (413, "65537 bytes")


MALFORMED = {
    "no hexadecimal size": b"zz\r\nabc\r\n0\r\n\r\n",
    "empty size": b"\r\nabc\r\n0\r\n\r\n",
    "negative size": b"-3\r\nabc\r\n0\r\n\r\n",
    "size with a prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "size that overflows": b"f" * 17 + b"\r\nabc\r\n0\r\n\r\n",
    "size too small": b"3\r\nabcd\r\n0\r\n\r\n",
    "size too large": b"5\r\nabc\r\n0\r\n\r\n",
    "size without CR": b"3\nabc\n0\n\n",
    "CR without LF": b"3\rabc\r0\r\r",
    "end without a size": b"3\r\nabc\r\n\r\n",
    "extension that never ends": b"3;" + b"a" * 20_000 + b"\r\nabc\r\n0\r\n\r\n",
    "extension with a line break": b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "signed size": b"+3\r\nabc\r\n0\r\n\r\n",
    "size with an underscore": b"1_0\r\nabcdefghijklmnop\r\n0\r\n\r\n",
    "space before the size": b" 3\r\nabc\r\n0\r\n\r\n",
    "NUL as the size": b"\0\r\nabc\r\n0\r\n\r\n",
    "second chunk without a size": b"3\r\nabc\r\n" * 5 + b"zz\r\n",
    "trailer without a colon": b"3\r\nabc\r\n0\r\nabc\r\n\r\n",
    "trailer that is no field": b"3\r\nabc\r\n0\r\n: : :\0\r\n\r\n",
    "trailers too large": b"3\r\nabc\r\n0\r\n" + b"a: b\r\n" * 5_000 + b"\r\n",
}
BROKEN_OFF = {
    "nothing": b"",
    "no last chunk": b"3\r\nabc\r\n",
    "half a chunk": b"ff\r\nabc",
    "half a size": b"f",
    "chunk of the largest size": b"7fffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "trailer without CR": b"3\r\nabc\r\n0\r\nA: b\n\n",
    "body that is not chunked": b'{"width": 640}',
}
WITH_BODIES = [
    "POST /v1/images",
    "POST /v1/images/{}/urls",
    *(
        pytest.param(route, marks=pytest.mark.long)
        for route in ("POST /v1/images/known", "POST /v1/sources/cms/urls", "PATCH /v1/images/{}")
    ),
]


@pytest.mark.parametrize("name", [*MALFORMED, *BROKEN_OFF])
@pytest.mark.parametrize("route", WITH_BODIES)
def test_malformed_chunks_are_400_and_close_the_connection(attacked: Server, digest: str, route: str, name: str) -> None:
    method, path = route.format(digest).split()
    body = MALFORMED.get(name) or BROKEN_OFF[name]
    got = send(attacked, head(path, "Transfer-Encoding: chunked", method=method) + body, breaks_off=name in BROKEN_OFF)
    assert (got.status, got.connection) == (400, "close")
    assert got.problem["type"] == "/problems/bad-request"


@pytest.mark.parametrize("name", [*MALFORMED, *BROKEN_OFF])
@pytest.mark.parametrize("media_type", ["application/json", pytest.param("multipart/form-data; boundary=x", marks=pytest.mark.long)])
def test_malformed_chunks_of_a_structured_body_are_400(attacked: Server, media_type: str, name: str) -> None:
    body = MALFORMED.get(name) or BROKEN_OFF[name]
    raw = head("/v1/images", f"Content-Type: {media_type}", "Transfer-Encoding: chunked") + body
    got = send(attacked, raw, breaks_off=name in BROKEN_OFF)
    assert (got.status, got.connection, got.problem["type"]) == (400, "close", "/problems/bad-request")


VALID = {
    "trailer": b"0\r\nX-Checksum: 1\r\n\r\n",
    "extension": b"0;name=value\r\n\r\n",
    "several zeros": b"000\r\n\r\n",
    "space after the size": b"0 \r\n\r\n",
}


@pytest.mark.parametrize("end", VALID.values(), ids=VALID)
def test_chunks_with_any_valid_end_are_accepted(attacked: Server, end: bytes) -> None:
    photo = images.photo_jpeg(64, 48)
    got = send(attacked, head("/v1/images", "Transfer-Encoding: chunked") + b"%X;a=b\r\n%b\r\n" % (len(photo), photo) + end)
    assert got.status in {200, 201}


def test_body_shorter_than_its_length_is_400(attacked: Server) -> None:
    got = send(attacked, head("/v1/images", "Content-Length: 1000") + b"abc", breaks_off=True)
    assert (got.status, got.problem["received"]) == (400, "3 bytes, then something else")


TOKEN = "a-token-that-may-take-images-in"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server in a replica region."""
    fly = {"FLY_REGION": "lhr", "FLY_MACHINE_ID": "148e21ea246389", "PRIMARY_REGION": "arn"}
    with darkroom(tmp_path_factory.mktemp("reader"), store="memory://", keys="ab" * 32, tokens=TOKEN, **fly) as running:
        yield running


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_body_in_a_replica_region_is_not_read_without_a_token(reader: Server, method: str) -> None:
    raw = head("/v1/images", "Transfer-Encoding: chunked", method=method) + chunked(bytes(60_000), 1)
    got = send(reader, raw)
    assert (got.status, got.connection, got.problem["type"]) == (401, "close", "/problems/unauthorized")
    assert got.cpu_seconds < 0.5


def test_body_in_a_replica_region_in_one_byte_chunks_is_400_at_little_cost(reader: Server) -> None:
    raw = head("/v1/images", f"Authorization: Bearer {TOKEN}", "Transfer-Encoding: chunked") + chunked(bytes(60_000), 1)
    got = send(reader, raw)
    assert (got.status, got.connection, got.problem["status"]) == (400, "close", 400)
    assert got.cpu_seconds < MOST_SECONDS


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_chunks_in_a_replica_region_are_400(reader: Server, name: str) -> None:
    fields = (f"Authorization: Bearer {TOKEN}", "Transfer-Encoding: chunked")
    got = send(reader, head("/v1/images", *fields) + MALFORMED[name])
    assert (got.status, got.connection) == (400, "close")


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("path", ["/", "/i/v3/none", f"/i/v3/{'a' * 32}/full/{'a' * 26}.jpg", "/v1/images", "/livez"])
def test_malformed_chunks_of_a_request_that_needs_no_body_are_never_500(attacked: Server, path: str, name: str) -> None:
    got = send(attacked, head(path, "Transfer-Encoding: chunked", method="GET") + MALFORMED[name])
    assert got.status in {200, 400, 403}
