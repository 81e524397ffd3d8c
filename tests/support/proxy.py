"""What may stand between a client and a server: it hands requests on, notes what came, and does wrong what it is told to."""

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

_CHUNK_BYTES = 16 << 10
_SECONDS = 30.0


class Came(msgspec.Struct, frozen=True):
    """A request: how much of its body came, under which name that would be stored, and whether it was all."""

    method: str
    path: str
    headers: Mapping[str, str]
    bytes: int
    digest: str
    whole: bool


class Fault(msgspec.Struct, frozen=True):
    """What goes wrong with the next request for `path`.

    `status`: it is answered so, and goes no further. `cut_after`: the connection ends after so many bytes of the body. `lose_answer`: it
    goes on to the server, and the connection ends instead of the answer.
    """

    path: str = "/v1/images"
    status: int = 0
    headers: Mapping[str, str] = {}
    body: bytes = b""
    cut_after: int = -1
    lose_answer: bool = False


class Front:
    """A server's front: where it answers, what came in the order in which it ended, what is to go wrong."""

    def __init__(self, port: int, behind: int) -> None:
        self.url = f"http://{HOST}:{port}"
        self.behind = behind
        self.came: list[Came] = []
        self.faults: deque[Fault] = deque()
        # Told of every upload that begins, before its body is read.
        self.at_upload: Callable[[], object] = lambda: None
        # Told when a client has asked which images are there, before it is answered.
        self.after_known: Callable[[], object] = lambda: None
        self._lock = threading.Lock()
        self._busy = 0
        self._idle = threading.Condition(self._lock)

    @property
    def uploads(self) -> list[Came]:
        """The uploads that came, cut-off ones included."""
        return [came for came in self.came if (came.method, came.path) == ("POST", "/v1/images")]

    def wait_until_idle(self) -> None:
        """Return when nothing is on its way to the server any more."""
        with self._idle:
            if not self._idle.wait_for(lambda: self._busy == 0, _SECONDS):
                raise TimeoutError("requests are still on their way")

    def begin(self) -> None:
        with self._lock:
            self._busy += 1

    def end(self) -> None:
        with self._idle:
            self._busy -= 1
            self._idle.notify_all()

    def fault(self, path: str) -> Fault | None:
        """Return the next fault, if it is of a request for this path."""
        with self._lock:
            return self.faults.popleft() if self.faults and self.faults[0].path == path else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    front: Front

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self._hand_on()

    def do_POST(self) -> None:
        self._hand_on()

    def do_DELETE(self) -> None:
        self._hand_on()

    def _hand_on(self) -> None:
        self.front.begin()
        try:
            self._handed_on()
        except (OSError, HTTPException):
            self.close_connection = True
        finally:
            self.front.end()

    def _handed_on(self) -> None:
        fields = {name.lower(): value for name, value in self.headers.items()}
        fault = self.front.fault(self.path)
        if (self.command, self.path) == ("POST", "/v1/images"):
            self.front.at_upload()
        elif self.path == "/v1/images/known":
            self.front.after_known()
        body = self._body(fields, fault.cut_after if fault else -1)
        if body is None:
            self.close_connection = True
            return
        if fault is not None and fault.status:
            self._answer(fault.status, dict(fault.headers), fault.body)
            return
        connection = HTTPConnection(HOST, self.front.behind, timeout=_SECONDS)
        try:
            connection.request(self.command, self.path, body, {**fields, "connection": "close"})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, HTTPException):
            # As a proxy says that nobody is there behind it: the connection ends.
            self.close_connection = True
            return
        finally:
            connection.close()
        if fault is not None and fault.lose_answer:
            self.close_connection = True
            return
        self._answer(response.status, {name: value for name, value in response.getheaders() if name.lower() in _KEPT}, answer)

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
        self.front.came.append(Came(self.command, self.path, fields, len(body), digest, whole))
        return bytes(body) if whole else None

    def _answer(self, status: int, fields: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


_KEPT = frozenset({"content-type", "cache-control", "etag", "location", "link", "retry-after", "fly-prefer-region"})


@contextmanager
def front_of(port: int, tls: ssl.SSLContext | None = None) -> Iterator[Front]:
    """Give a front of the server that listens on a port of loopback, on a free port of its own; with `tls` it speaks that."""
    handler = type("Handler", (_Handler,), {})
    with serving(handler, tls=tls) as own_port:
        front = handler.front = Front(own_port, port)  # type: ignore[attr-defined]
        if tls is not None:
            front.url = front.url.replace("http:", "https:")
        yield front
