"""Raw requests that are malformed, repeated, huge or unusual, and a socket that delivers them in ways in which no good client does."""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Literal, TypeAlias, get_args

import msgspec

from tests.fuzz.mutate import ANY, NUMBERS
from tests.support.server import HOST

# How the bytes are sent: all at once, in pieces, byte by byte, only the first half, with a close or a reset before the response, or
# over a connection that stays open and is never read.
Delivery: TypeAlias = Literal["whole", "pieces", "bytes", "half", "early close", "reset", "unread"]

_STATUS = re.compile(rb"^HTTP/1\.[01] (\d{3}) ", re.MULTILINE)
_READ_SECONDS = 2.0
_SILENCE_SECONDS = 0.3
_MAX_SLOW_BYTES = 600
_MAX_UNREAD = 30

_METHODS = (b"GET",) * 8 + (
    b"HEAD",
    b"POST",
    b"POST",
    b"PUT",
    b"DELETE",
    b"PATCH",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"BREW",
    b"get",
    b"",
    b"G\0T",
    b"\xff",
    b"M" * 500,
)
_VERSIONS = (b"HTTP/1.1",) * 12 + (
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"HTTP/0.9",
    b"HTTP/1.2",
    b"http/1.1",
    b"",
    b"HTTP/1.1 x",
    b"HTTP/11",
    b"HTTP/1.1\t",
)
_HOSTS: tuple[tuple[bytes, ...], ...] = ((b"Host: x",),) * 10 + (
    (), (b"Host: x", b"Host: y"), (b"Host:",), (b"Host: \xff",), (b"Host: x/../y",), (b"Host: " + b"h" * 5_000,), (b"Host: x:99999",),
    (b"Host: [::1", b"X: y"), (b"host: a@b",), (b"Host: x\r\n y",), (b"Host : x",),
)  # fmt: skip

_FIELDS = (
    b"Range: bytes=0-", b"Range: bytes=-1", b"Range: bytes=5-2", b"Range: bytes=0-0,2-3," + b"9-9," * 300,
    b"Range: bytes=%d-" % (1 << 64), b"Range: \xff", b"If-Range: x", b'If-None-Match: "', b"If-None-Match: *",
    b'If-None-Match: W/"' + b"a" * 3_000, b"If-Match: *", b'If-Match: "a", b', b"If-Modified-Since: Sun, 99 Foo 99999 99:99:99 GMT",
    b"If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", b"If-Unmodified-Since: 0", b"Accept: */*;q=9", b"Accept: image/avif;q=\xff, ,,;",
    b"Accept: " + b"image/webp," * 900, b"Accept-Encoding: gzip, br;q=0", b"Cache-Control: only-if-cached",
    b"Cache-Control: max-age=99999999999999999999, no-cache, min-fresh=-1", b'Cache-Control: x="', b"Pragma: no-cache",
    b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: +5", b"Content-Length: 5, 5",
    b"Content-Length: 99999999999999999999", b"Content-Length: 0x5", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding: identity", b"Expect: 100-continue", b"Expect: 200-ok", b"Connection: close",
    b"Connection: keep-alive, upgrade", b"Upgrade: h2c", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"HTTP2-Settings: AAMAAABkAAQAAP__", b"Content-Encoding: gzip", b"Trailer: X",
    b"Content-Type: multipart/form-data", b"Content-Type: multipart/form-data; boundary=",
    b"Content-Type: multipart/form-data; boundary=b", b"Content-Type: application/json",
    b"Content-Type: multipart/form-data; boundary=" + b"b" * 3_000, b'Content-Type: multipart/form-data; boundary="\xff"',
    b"Content-Type: application/json; charset=utf-16", b"Content-Type: \xff\xfe", b"Authorization: Bearer", b"Authorization: Bearer \xff",
    b"Authorization: Basic YTpi", b"Authorization: Bearer " + b"t" * 3_000, b"Cookie: " + b"a=b; " * 800, b"X-Forwarded-For: \0",
    b"X: a\0b", b"X: a\rb", b"X : a", b": a", b"no colon", b" folded: x", b"X\xff: a", b"X: " + b"a" * 30_000, b"Origin: null",
    b"Access-Control-Request-Method: GET", b"TE: trailers, x;q=2", b"Fly-Prefer-Region: x", b"fly-replay-src: instance=x",
    b"Via: 1.1 x, 1.1 darkroom", b"Max-Forwards: 0", b"Date: x", b"Age: -1",
)  # fmt: skip

_BOUNDARY_BODIES = (
    b"--b\r\n", b"--b--", b"--b\r\n\r\n\r\n--b--\r\n", b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc',
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="\xff\r\n\r\nabc\r\n--b--\r\n',
    b'--b\r\nContent-Disposition: form-data; name="file"\r\n' + b"X: y\r\n" * 500 + b"\r\nabc\r\n--b--\r\n",
    b"--b\r\nX: " + b"y" * 20_000 + b"\r\n\r\n\r\n--b--",
    b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc\r\n' * 50 + b"--b--",
    b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\nabc\r\n' * 300 + b"--b--", b"--b" * 3_000, b"\r\n--b" * 2_000,
    b'--b\r\nContent-Disposition: attachment; name*=utf-8\'\'%ff\r\nContent-Transfer-Encoding: base64\r\n\r\n\xff\r\n--b--',
    b"--b\r\n--b\r\n--b\r\n--b--",
)  # fmt: skip
_CHUNKED_BODIES = (
    b"0\r\n\r\n", b"5\r\nabcde\r\n0\r\n\r\n", b"1\r\na\r\n" * 400 + b"0\r\n\r\n", b"5\nabcde\n0\n\n", b"-1\r\n\r\n", b"x\r\n",
    b"ffffffffffffffff\r\na", b"fffffffffffffffff\r\na", b"5;" + b"e" * 9_000 + b"\r\nabcde\r\n0\r\n\r\n", b"5\r\nabcdeX\r\n0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n", b"0\r\nContent-Length: 5\r\nX\r\n\r\n", b"0\r\n" + b"X: y\r\n" * 300 + b"\r\n", b"+5\r\nabcde\r\n0\r\n\r\n",
    b"0x5\r\nabcde\r\n0\r\n\r\n", b"5 \r\nabcde\r\n0\r\n\r\n", b"\r\n\r\n", b"5\r\nab", b"",
)  # fmt: skip
_JSON_BODIES = (
    b"{}", b"[]", b"null", b"{", b'{"url":', b'{"a":' * 3_000, b"[" * 50_000, b" " * 20_000, b'{"widths":[' + b"1," * 5_000 + b"1]}",
    b'{"digests":[' + b'"a",' * 1_500 + b'"a"]}', b'{"url":"\\ud800"}', b"\xff\xfe{\0}\0", b'{"url":"http://127.0.0.1/"}', b'{"a":1e999}',
    b'{"a":' + b"9" * 5_000 + b"}", b'{"transform":{"width":NaN}}', b'{"alt":"' + b"x" * 30_000 + b'"}', b'{"":""}', b"\0",
)  # fmt: skip


class RawRequest(msgspec.Struct, frozen=True):
    """Bytes for a connection, and how they are to be sent."""

    body: bytes
    delivery: Delivery


def random_request(rng: Random, targets: Sequence[bytes], token: bytes) -> RawRequest:
    """Return one or several requests for one connection, most of them with one or two errors; `targets` are valid paths."""
    raw = b"".join(_random_request(rng, targets, token) for _ in range(rng.choice((1, 1, 1, 1, 2, 5, 30))))
    if rng.random() < 0.25:
        raw = rng.choice(ANY)(raw, rng, ())
    if rng.random() < 0.02:
        raw = rng.choice(
            (
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64),
                b"\x16\x03\x01\x02\x00\x01" + bytes(64),
                b"\r\n" * 400 + raw,
                bytes(3_000),
                b"\0",
                b"GET",
            )
        )
    kinds: tuple[Delivery, ...] = get_args(Delivery)
    return RawRequest(raw, rng.choices(kinds, (60, 12, 6, 8, 8, 6, 5))[0])


def send(port: int, request: RawRequest) -> bytes:
    """Send the bytes over a new connection, and return all bytes received until the server closes it or is silent for a while."""
    # The server may close the connection at any moment.
    with suppress(OSError), socket.create_connection((HOST, port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):
            _deliver(connection, request)
        if request.delivery == "early close":
            return b""
        if request.delivery == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return b""
        return _receive(connection)
    return b""


class UnreadConnections:
    """Connections whose responses are never read; only the latest ones stay open."""

    def __init__(self, port: int) -> None:
        """Connect to a port of the loopback interface."""
        self._port = port
        self._open: deque[socket.socket] = deque()

    def send(self, raw: bytes) -> None:
        """Send as many bytes over a new connection as it accepts without blocking, and leave it open."""
        with suppress(OSError):
            connection = socket.create_connection((HOST, self._port), timeout=10)
            self._open.append(connection)
            connection.setblocking(False)
            connection.send(raw)
        while len(self._open) > _MAX_UNREAD:
            self._open.popleft().close()

    def close(self) -> None:
        """Close all of them."""
        while self._open:
            self._open.pop().close()


def statuses(received: bytes) -> list[int]:
    """Return the status codes of the responses in the bytes received over a connection."""
    return [int(code) for code in _STATUS.findall(received)]


def change_path(path: str, rng: Random) -> bytes:  # noqa: PLR0911 - one for each change
    """Return a changed path, which may be equivalent to the original one."""
    raw = path.encode()
    at = rng.randrange(len(raw) + 1)
    match rng.randrange(9):
        case 0:
            return raw[:at] + bytes([rng.randrange(33, 256)]) + raw[at + 1 :]
        case 1:
            return raw[:at] + b"%%%02x" % raw[at] + raw[at + 1 :] if at < len(raw) else raw + b"%"
        case 2:
            return (
                raw[:at]
                + rng.choice(
                    (
                        b"/",
                        b"//",
                        b"/./",
                        b"/../",
                        b"%2f",
                        b"%00",
                        b"%0d%0a",
                        b"%ff",
                        b"%",
                        b"%zz",
                        b";",
                        b"#",
                        b"\\",
                        b"..",
                        b"%2e%2e/",
                        b"\xc3\xa9",
                    )
                )
                + raw[at:]
            )
        case 3:
            return (
                raw
                + b"?"
                + rng.choice(
                    (
                        b"",
                        b"a=b",
                        b"q=" + b"x" * 2_000,
                        b"&&&==",
                        b"%00",
                        b"limit=%d" % rng.choice(NUMBERS),
                        b"cursor=x",
                        b"limit=1&limit=2",
                        b"\xff",
                    )
                )
            )
        case 4:
            # At least `/i/`, so that the result is not the path of a page.
            return raw[: max(at, len(b"/i/"))]
        case 5:
            return raw.swapcase()
        case 6:
            return raw[:at] + raw[at + 1 :]
        case 7:
            return raw[:at] + str(rng.choice(NUMBERS)).encode() + raw[at:]
        case _:
            return rng.choice((b"http://x", b"https://a:b@x:1", b"//x", b"")) + raw


def _random_request(rng: Random, targets: Sequence[bytes], token: bytes) -> bytes:
    target = rng.choice(targets)
    if rng.random() < 0.3:
        target = change_path(target.decode("latin-1"), rng)
    fields = [*rng.choice(_HOSTS)]
    if rng.random() < 0.7:
        fields.append(b"Authorization: Bearer " + token)
    fields += rng.sample(_FIELDS, rng.choice((0, 1, 1, 2, 3, 6)))
    if rng.random() < 0.03:
        fields += [b"X-%d: 1" % number for number in range(rng.choice((90, 150, 400)))]
    if rng.random() < 0.02:
        fields.append(b"X: " + b"a" * rng.choice((8_000, 60_000, 300_000)))
    body = b""
    if rng.random() < 0.4:
        body = rng.choice(rng.choice((_BOUNDARY_BODIES, _CHUNKED_BODIES, _JSON_BODIES)))
        match rng.randrange(4):
            case 0:
                fields.append(b"Content-Length: %d" % len(body))
            case 1:
                fields.append(b"Transfer-Encoding: chunked")
                body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            case 2:
                fields.append(b"Transfer-Encoding: chunked")
            case _:
                fields.append(b"Content-Length: %d" % rng.choice((0, 1, len(body) + 1, len(body) // 2)))
    rng.shuffle(fields)
    end = b"\r\n" if rng.random() < 0.95 else rng.choice((b"\n", b"\r", b"\r\r\n", b""))
    version = rng.choice(_VERSIONS)
    line = b" ".join((rng.choice(_METHODS), target, version) if version else (b"GET", target))
    return line + end + b"".join(field + end for field in fields) + end + body


def _deliver(connection: socket.socket, request: RawRequest) -> None:
    raw = request.body
    match request.delivery:
        case "bytes":
            # Only the first bytes are sent singly, as the rest would only take time.
            for at in range(min(len(raw), _MAX_SLOW_BYTES)):
                connection.sendall(raw[at : at + 1])
            connection.sendall(raw[_MAX_SLOW_BYTES:])
        case "pieces":
            step = max(1, len(raw) // 7)
            for at in range(0, len(raw), step):
                connection.sendall(raw[at : at + step])
                time.sleep(0.001)
        case "half":
            connection.sendall(raw[: len(raw) // 2])
        case _:
            connection.sendall(raw)
    if request.delivery == "half":
        connection.shutdown(socket.SHUT_WR)


def _receive(connection: socket.socket) -> bytes:
    received, deadline = b"", time.monotonic() + _READ_SECONDS
    connection.settimeout(_SILENCE_SECONDS)
    with suppress(OSError):
        while time.monotonic() < deadline and (piece := connection.recv(262_144)):
            received += piece
    return received


def encode_json(value: object) -> bytes:
    """Return a value as JSON; NaN and infinities are written too."""
    return json.dumps(value).encode()
