"""An HTTP proxy between a client and a server. It records the requests, forwards them, and fails in the ways that a test wants."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler

import msgspec

from service.images.digest import digest_from_sha256
from tests.support.server import HOST
from tests.support.threads import serving
from tests.support.waiting import PATIENCE_SECONDS

_CHUNK_BYTES = 16 << 10


class ReceivedRequest(msgspec.Struct, frozen=True):
    """A request: its path without the query, how many bytes of its body arrived, their digest, and whether it is complete (`whole`)."""

    method: str
    path: str
    headers: Mapping[str, str]
    bytes: int
    digest: str
    whole: bool


class Fault(msgspec.Struct, frozen=True):
    """How the next request for `path` fails.

    `status`: the proxy responds with it, and does not forward the request. `cut_after`: the proxy closes the connection after so many bytes
    of the body. `lose_response`: the proxy forwards the request, and closes the connection in place of responding.
    """

    path: str = "/v1/images"
    status: int = 0
    headers: Mapping[str, str] = {}
    body: bytes = b""
    cut_after: int = -1
    lose_response: bool = False


class Proxy:
    """A running proxy: its URL, the requests received so far in the order in which they ended, and the faults to come."""

    def __init__(self, port: int, upstream_port: int) -> None:
        self.url = f"http://{HOST}:{port}"
        self.upstream_port = upstream_port
        self.received: list[ReceivedRequest] = []
        self.faults: deque[Fault] = deque()
        # Called for every upload, before its body is read.
        self.on_upload: Callable[[], object] = lambda: None
        # Called when a client has requested which images the server has, before the response.
        self.after_lookup: Callable[[], object] = lambda: None
        self._lock = threading.Lock()
        self._busy = 0
        self._idle = threading.Condition(self._lock)

    @property
    def uploads(self) -> list[ReceivedRequest]:
        """The uploads received so far, including incomplete ones."""
        return [request for request in self.received if (request.method, request.path) == ("POST", "/v1/images")]

    def wait_until_idle(self) -> None:
        """Wait until no request is in flight."""
        with self._idle:
            if not self._idle.wait_for(lambda: self._busy == 0, PATIENCE_SECONDS):
                raise TimeoutError("requests are still in flight")

    def begin(self) -> None:
        with self._lock:
            self._busy += 1

    def end(self) -> None:
        with self._idle:
            self._busy -= 1
            self._idle.notify_all()

    def fault(self, path: str) -> Fault | None:
        """Return and remove the next fault if it is for this path."""
        with self._lock:
            return self.faults.popleft() if self.faults and self.faults[0].path == path else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        self.proxy.begin()
        try:
            self._forward()
        except (OSError, HTTPException):
            self.close_connection = True
        finally:
            self.proxy.end()

    def _forward(self) -> None:
        fields = {name.lower(): value for name, value in self.headers.items()}
        path = self.path.partition("?")[0]
        fault = self.proxy.fault(path)
        if (self.command, path) == ("POST", "/v1/images"):
            self.proxy.on_upload()
        elif path == "/v1/images/known":
            self.proxy.after_lookup()
        body = self._body(fields, fault.cut_after if fault else -1)
        if body is None:
            self.close_connection = True
            return
        if fault is not None and fault.status:
            self._respond(fault.status, dict(fault.headers), fault.body)
            return
        connection = HTTPConnection(HOST, self.proxy.upstream_port, timeout=PATIENCE_SECONDS)
        try:
            connection.request(self.command, self.path, body, {**fields, "connection": "close"})
            response = connection.getresponse()
            content = response.read()
        except (OSError, HTTPException):
            # A proxy whose upstream server is not reachable closes the connection.
            self.close_connection = True
            return
        finally:
            connection.close()
        if fault is not None and fault.lose_response:
            self.close_connection = True
            return
        self._respond(response.status, {name: value for name, value in response.getheaders() if name.lower() in _FORWARDED_FIELDS}, content)

    def _body(self, fields: Mapping[str, str], cut_after: int) -> bytes | None:
        declared = int(fields.get("content-length", "0"))
        body = bytearray()
        while len(body) < declared:
            if 0 <= cut_after <= len(body):
                break
            with suppress(OSError):
                if chunk := self.rfile.read1(min(_CHUNK_BYTES, declared - len(body))):
                    body += chunk
                    continue
            break
        whole = len(body) == declared
        digest = digest_from_sha256(hashlib.sha256(body).digest())
        self.proxy.received.append(ReceivedRequest(self.command, self.path.partition("?")[0], fields, len(body), digest, whole))
        return bytes(body) if whole else None

    def _respond(self, status: int, fields: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


_FORWARDED_FIELDS = frozenset({"content-type", "cache-control", "etag", "location", "link", "retry-after", "fly-prefer-region"})


@contextmanager
def proxy_of(port: int, tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    """Yield a proxy, on a free port of loopback, for the server on `port`; with `tls` it speaks TLS."""
    handler = type("Handler", (_Handler,), {})
    with serving(handler, tls=tls) as own_port:
        proxy = handler.proxy = Proxy(own_port, port)  # type: ignore[attr-defined]
        if tls is not None:
            proxy.url = proxy.url.replace("http:", "https:")
        yield proxy
