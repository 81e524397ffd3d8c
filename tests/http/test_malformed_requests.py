"""Requests that are malformed, huge, repeated or old, over a plain socket: they get what the RFCs say, never a 500, and hits continue."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import pytest

from tests.support import images
from tests.support.server import HOST, Server
from tests.support.waiting import PATIENCE_SECONDS


class StoredRendition(NamedTuple):
    """A server, and a rendition that its edge has stored."""

    server: Server
    path: bytes
    body: bytes
    etag: bytes


class Got(NamedTuple):
    """One response as received."""

    version: bytes
    status: int
    fields: dict[bytes, bytes]
    body: bytes


@pytest.fixture(scope="module")
def stored(server: Server) -> Iterator[StoredRendition]:
    logged_before = len(server.log())
    with server.client() as client:
        path = client.post("/v1/images", content=images.photo_jpeg(320, 240)).json()["src"]
        client.get(path)
        whole = client.get(path)
        assert "; hit; " in whole.headers["cache-status"]
        yield StoredRendition(server, path.encode(), whole.content, whole.headers["etag"].encode())
        # After all requests the server works as before.
        again = client.get(path)
        assert (again.status_code, again.content) == (200, whole.content)
        assert "; hit; " in again.headers["cache-status"]
        log = server.log()[logged_before:]
        assert "Traceback" not in log
        assert "exception" not in log


def request(path: bytes, *fields: bytes, method: bytes = b"GET", version: bytes = b"1.1", host: bytes = b"Host: x\r\n") -> bytes:
    lines = b"".join(field + b"\r\n" for field in fields)
    return method + b" " + path + b" HTTP/" + version + b"\r\n" + host + lines + b"\r\n"


def exchange(stored: StoredRendition, raw: bytes) -> list[Got]:
    """Send bytes and return the responses until the server closes: the last request must ask for that, or be refused.

    A server that refuses a request while it is being sent resets the connection (RFC 9112 §9.6), and the response is then read as clients
    do it: it has arrived before the reset.
    """
    received = b""
    with socket.create_connection((HOST, stored.server.port), timeout=PATIENCE_SECONDS) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(raw)
        with suppress(ConnectionResetError):
            while piece := connection.recv(65_536):
                received += piece
    responses = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        start, *lines = head.split(b"\r\n")
        fields = dict(line.split(b": ", 1) for line in lines)
        assert len(fields) == len(lines), "a field is there twice"
        status = int(start.split(b" ")[1])
        length = 0 if status == 304 else int(fields.get(b"content-length", b"0"))
        responses.append(Got(start.split(b" ")[0], status, fields, received[:length]))
        received = received[length:]
    return responses


CLOSE = b"Connection: close"


def send(stored: StoredRendition, *fields: bytes, **line: bytes) -> Got:
    (got,) = exchange(stored, request(line.pop("path", stored.path), *fields, CLOSE, **line))
    return got


@pytest.mark.parametrize(
    "value",
    [
        b"", b"bytes", b"bytes=", b"bytes=-", b"bytes=a-b", b"bytes=5-2", b"bytes=1-2-3", b"bytes=--5", b"bytes=0x0-5", b"bytes 0-5",
        b"items=0-5", b"bytes=0-1,3-4", b"bytes=0-" + b",0-" * 5_000, b"bytes=\xb2-\xb3", b"bytes=+1-2", b"bytes=1.5-2", b"=0-5",
        b"\xff\xfe",
        b'"bytes=0-5"',
    ],
)  # fmt: skip
def test_range_that_is_malformed_or_not_served_gets_the_whole(stored: StoredRendition, value: bytes) -> None:
    got = send(stored, b"Range: " + value)
    assert (got.status, got.body) == (200, stored.body)


@pytest.mark.parametrize("value", [b"bytes=99999999-", b"bytes=" + b"9" * 5_000 + b"-", b"bytes=-0"])
def test_range_of_nothing_is_416_with_the_length(stored: StoredRendition, value: bytes) -> None:
    got = send(stored, b"Range: " + value)
    assert (got.status, got.fields[b"content-range"]) == (416, b"bytes */%d" % len(stored.body))
    assert got.fields[b"content-type"] == b"application/problem+json"
    assert got.fields[b"cache-control"] == b"no-store"


@pytest.mark.parametrize(
    ("value", "part"), [(b"bytes=0-" + b"9" * 5_000, slice(None)), (b"bytes=-" + b"9" * 5_000, slice(None)), (b"BYTES=0-0", slice(1))]
)
def test_range_of_huge_numbers_ends_with_the_last_byte(stored: StoredRendition, value: bytes, part: slice) -> None:
    got = send(stored, b"Range: " + value)
    assert (got.status, got.body) == (206, stored.body[part])


def test_repeated_range_field_gets_the_whole(stored: StoredRendition) -> None:
    got = send(stored, *[b"Range: bytes=0-%d" % number for number in range(80)])
    assert (got.status, got.body) == (200, stored.body)


@pytest.mark.parametrize(
    "field",
    [
        b"If-Modified-Since: ", b"If-Modified-Since: yesterday", b"If-Modified-Since: Mon, 32 Nov 2026 12:00:00 GMT",
        b"If-Modified-Since: Mon, 23 Nov 99999 12:00:00 GMT", b"If-Modified-Since: \xff", b"If-Unmodified-Since: soon",
        b"If-None-Match: ", b'If-None-Match: "', b"If-None-Match: unquoted", b"If-None-Match: ,,,", b'If-None-Match: W/"other", "',
        b"If-None-Match: " + b'"a", ' * 3_000, b"Cache-Control: ,,=;max-age", b"Cache-Control: " + b"no-cache, " * 1_600,
        b"Cache-Control: max-age=" + b"9" * 5_000, b"Cache-Control: max-age=-1", b'Cache-Control: x="', b"Cache-Control: \xff",
        b"If-Range: nonsense", b"X: " + b"a" * 16_000, b"X: \xff\xfe", b"Accept: " + b"image/webp," * 1_400, b"Authorization: nonsense",
        b"Expect: something", b"Connection: x, y", b"TE: trailers", b"Pragma: no-cache",
    ],
)  # fmt: skip
def test_malformed_or_huge_field_gets_the_stored_response(stored: StoredRendition, field: bytes) -> None:
    got = send(stored, field)
    assert (got.status, got.body) == (200, stored.body)
    assert b"; hit; " in got.fields[b"cache-status"]


@pytest.mark.parametrize("value", [b"*", b' "x" ,W/%b', b"%b, unquoted", b"%b" + b', "a"' * 3_000])
def test_condition_in_an_odd_spelling_that_matches_is_304(stored: StoredRendition, value: bytes) -> None:
    got = send(stored, b"If-None-Match: " + value.replace(b"%b", stored.etag))
    assert (got.status, got.body, got.fields[b"etag"]) == (304, b"", stored.etag)


@pytest.mark.parametrize("value", [b"", b"unquoted", b'"other"', b'W/"other"', b'"'])
def test_failed_precondition_is_412(stored: StoredRendition, value: bytes) -> None:
    got = send(stored, b"If-Match: " + value)
    assert (got.status, got.fields[b"content-type"]) == (412, b"application/problem+json")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (request(b"/", b"X: a\r\n folded"), 400), (request(b"/", b"X: a\0b"), 400), (request(b"/", b"X: a\rb"), 400),
        (request(b"/", b"X : a"), 400), (request(b"/", b"no colon"), 400), (request(b"/", b"Content-Length: x"), 400),
        (request(b"/", b"Content-Length: 3", b"Content-Length: 4"), 400), (request(b"/", version=b"2.0"), 400), (b"GET /\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400), (request(b"/\xff"), 400),
        (request(b"/", *[b"X-%d: 1" % number for number in range(300)]), 431),
        (request(b"/", b"X: " + b"a" * 2_000_000), 431), (request(b"/?" + b"a" * 70_000), 431),
    ],
)  # fmt: skip
def test_request_that_is_not_http_is_refused_and_the_connection_closed(stored: StoredRendition, raw: bytes, status: int) -> None:
    (got,) = exchange(stored, raw)
    assert (got.status, got.fields[b"connection"], got.body) == (status, b"close", b"")


@pytest.mark.parametrize("host", [b"", b"Host: x\r\n"])
def test_http_1_0_request_gets_the_stored_response_and_a_closed_connection(stored: StoredRendition, host: bytes) -> None:
    (got,) = exchange(stored, request(stored.path, version=b"1.0", host=host))
    assert (got.version, got.status, got.body) == (b"HTTP/1.0", 200, stored.body)
    assert got.fields[b"content-length"] == b"%d" % len(stored.body)


def test_http_1_0_range_and_condition_work_as_in_http_1_1(stored: StoredRendition) -> None:
    (part,) = exchange(stored, request(stored.path, b"Range: bytes=0-9", version=b"1.0"))
    assert (part.status, part.body) == (206, stored.body[:10])
    (same,) = exchange(stored, request(stored.path, b"If-None-Match: " + stored.etag, version=b"1.0"))
    assert (same.status, same.body) == (304, b"")


SMUGGLED = request(b"/nothing")


@pytest.mark.parametrize(
    ("field", "body"),
    [
        (b"Content-Length: %d" % len(SMUGGLED), SMUGGLED),
        (b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
    ],
)
@pytest.mark.parametrize("where", ["stored", "cold"])
def test_body_of_a_get_is_skipped_and_never_read_as_a_request(stored: StoredRendition, field: bytes, body: bytes, where: str) -> None:
    path = stored.path if where == "stored" else b"/i/v3/cold"
    status = 200 if where == "stored" else 400
    responses = exchange(stored, request(path, field) + body + request(b"/livez", CLOSE))
    assert [got.status for got in responses] == [status, 200]
    assert responses[1].body != responses[0].body


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (b"/i%2F", 400), (b"//i/", 400), (b"/i/../i/", 400), (b"/./i/", 404), (b"/%69/", 400), (b"/i/%2e%2e/i/", 400),
    ],
)  # fmt: skip
def test_path_in_another_spelling_is_not_a_rendition_url(stored: StoredRendition, path: bytes, status: int) -> None:
    got = send(stored, path=path + stored.path.removeprefix(b"/i/"))
    assert (got.status, got.fields[b"content-type"]) == (status, b"application/problem+json")


@pytest.mark.parametrize("end", [b"%0d%0aX-Injected:%20y", b"%00", b"%zz", b"%", b"%ff", b"%e2%80%ae", b'"', b"\\", b";a=b"])
def test_path_with_an_odd_end_is_not_a_rendition_url_and_its_key_is_a_string(stored: StoredRendition, end: bytes) -> None:
    got = send(stored, path=stored.path + end)
    assert (got.status, got.fields[b"content-type"]) == (400, b"application/problem+json")
    assert b"x-injected" not in got.fields
    assert re.fullmatch(rb'darkroom; fwd=uri-miss; key="[\x20-\x21\x23-\x5b\x5d-\x7e]*"', got.fields[b"cache-status"])


def test_target_with_an_authority_or_a_fragment_means_only_its_path(stored: StoredRendition) -> None:
    for path in (b"http://elsewhere" + stored.path, stored.path + b"#part"):
        got = send(stored, path=path)
        assert (got.status, got.body) == (200, stored.body)


@pytest.mark.parametrize("method", [b"get", b"TRACE", b"BREW", b"PUT", b"DELETE"])
def test_unsupported_method_of_a_rendition_is_405_and_evicts_nothing(stored: StoredRendition, method: bytes) -> None:
    got = send(stored, method=method)
    assert got.status == 405
    assert b"; hit; " in send(stored).fields[b"cache-status"]
