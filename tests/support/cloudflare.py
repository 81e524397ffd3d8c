"""A fake of Cloudflare's API on a free port of loopback. It purges by tag, and accepts only requests that its documentation allows."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from tests.support.server import HOST

ZONE = "023e105f4ecef8ad9ca31a8372d0c353"
TOKEN = "token-of-the-tests_0123456789"

# https://developers.cloudflare.com/cache/how-to/purge-cache/#availability-and-limits, and purge-by-tags/ next to it.
MAX_TAGS = 100
MAX_TAG_CHARACTERS = 1024

_CLIENT_SECONDS = 30.0


class Fault(msgspec.Struct, frozen=True):
    """How a call fails: by its status and body, without a response (`silent`), or by closing the connection (`hang_up`)."""

    status: int = 500
    body: Iterable[bytes] = (b"",)
    headers: Mapping[str, str] = {}
    silent: bool = False
    hang_up: bool = False


def errors(*codes_and_words: tuple[int, str]) -> bytes:
    """Return the body of an error in Cloudflare's form."""
    found = [{"code": code, "message": words} for code, words in codes_and_words]
    return json.dumps({"success": False, "errors": found, "messages": [], "result": None}).encode()


RATE_LIMITED = errors((10429, "Rate limited. Please wait and consider throttling your request speed"))
ONLY_ENTERPRISE = errors((1107, "Only enterprise zones can purge by tag."))


class FakeCloudflare:
    """The API of one zone with one token: the purges so far, the number of calls, and the faults to come."""

    def __init__(self, port: int) -> None:
        self.zone = ZONE
        self.token = TOKEN
        self.url = f"http://{HOST}:{port}/client/v4"
        self.purged: list[list[str]] = []
        self.calls = 0
        self.hung_up = threading.Event()
        self.ended = threading.Event()
        self._faults: deque[Fault] = deque()
        self._lock = threading.Lock()

    @property
    def purged_tags(self) -> list[str]:
        """The tags of all purges, in order."""
        return [tag for call in self.purged for tag in call]

    def fail(self, fault: Fault, times: int = 1) -> None:
        """Let the next `times` calls fail."""
        self._faults.extend([fault] * times)

    def called(self) -> Fault | None:
        """Count a call and return its fault."""
        with self._lock:
            self.calls += 1
            return self._faults.popleft() if self._faults else None

    def respond(self, method: str, path: str, headers: Message, body: bytes) -> tuple[int, bytes]:
        """Return status and body for a request, and record what it purges."""
        refusal = self._refusal(method, path, headers.get("Authorization", ""))
        if refusal is not None:
            return refusal
        tags = _tags(headers.get("Content-Type", ""), body)
        if tags is None:
            return 400, errors((1012, "Request must contain one of 'purge_everything', 'files', 'tags', 'hosts' or 'prefixes'"))
        self.purged.append(tags)
        return 200, json.dumps({"success": True, "errors": [], "messages": [], "result": {"id": self.zone}}).encode()

    def _refusal(self, method: str, path: str, authorization: str) -> tuple[int, bytes] | None:
        if not authorization:
            return 400, errors((9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers"))
        if not authorization.startswith("Bearer "):
            return 400, errors((6003, "Invalid request headers"), (6111, "Invalid format for Authorization header"))
        if path != f"/client/v4/zones/{self.zone}/purge_cache":
            # Cloudflare quotes the id, too.
            words = f"Could not route to {path}, perhaps your object identifier is invalid?"
            return 404, errors((7003, words), (7000, "No route for that URI"))
        if method != "POST":
            return 405, errors((10405, "Method not allowed"))
        if authorization != f"Bearer {self.token}":
            return 403, errors((10000, "Authentication error"))
        return None


def _tags(content_type: str, body: bytes) -> list[str] | None:
    """Return the tags of a request that the documentation allows, else `None`."""
    try:
        body_json = json.loads(body)
    except ValueError:
        return None
    if content_type != "application/json" or not isinstance(body_json, dict) or set(body_json) != {"tags"}:
        return None
    tags: Any = body_json["tags"]
    if not isinstance(tags, list) or not 1 <= len(tags) <= MAX_TAGS:
        return None
    return tags if all(_is_tag(tag) for tag in tags) else None


def _is_tag(tag: object) -> bool:
    return (
        isinstance(tag, str)
        and 1 <= len(tag) <= MAX_TAG_CHARACTERS
        and all("!" <= character <= "~" and character != "," for character in tag)
    )


class _Server(ThreadingHTTPServer):
    # The default backlog is too short for the number of clients that connect at once.
    request_queue_size = 128
    cloudflare: FakeCloudflare


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _CLIENT_SECONDS

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            # The client disconnected in the middle of the response.
            self.close_connection = True
            self.server.cloudflare.hung_up.set()

    def _any(self) -> None:
        cloudflare = self.server.cloudflare
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = cloudflare.called()
        if fault is None:
            status, content = cloudflare.respond(self.command, self.path, self.headers, body)
            self._send(status, [content], {})
        elif fault.silent:
            self.close_connection = True
            cloudflare.ended.wait(_CLIENT_SECONDS)
        elif fault.hang_up:
            self.close_connection = True
        else:
            self._send(fault.status, fault.body, fault.headers)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815 - http.server's names

    def _send(self, status: int, parts: Iterable[bytes], headers: Mapping[str, str]) -> None:
        # Closing the connection ends the body.
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Connection": "close"} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        for part in parts:
            self.wfile.write(part)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


@contextmanager
def fake_cloudflare() -> Iterator[FakeCloudflare]:
    """Yield a fake API for one test."""
    with _Server((HOST, 0), _Handler) as server:
        cloudflare = server.cloudflare = FakeCloudflare(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield cloudflare
        finally:
            cloudflare.ended.set()
            server.shutdown()
            thread.join()
