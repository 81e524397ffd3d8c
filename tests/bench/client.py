"""A client of the running server over one connection on loopback: it uploads images, requests signed paths and fetches renditions."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import quote

import msgspec

HOST = "127.0.0.1"
_TIMEOUT_SECONDS = 120.0

# Servers close an idle connection, Darkroom after ten seconds, so the client opens a new one well before that.
_IDLE_SECONDS = 3.0


class Response(msgspec.Struct, frozen=True):
    """A response.

    `headers`: in the order in which they were sent, names in lower case. `seconds`: from the request to the last byte of the body.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    seconds: float

    def header(self, name: str) -> str:
        """Return the value of a header, or "" if there is none."""
        return next((value for field, value in self.headers if field == name), "")

    @property
    def rendered(self) -> bool:
        """Whether this response had to be rendered."""
        return self.header("server-timing").startswith("tier;desc=render")


class Image(msgspec.Struct, frozen=True):
    """A stored original: its digest, its name, and its upright size in pixels."""

    digest: str
    name: str
    width: int
    height: int


class Client:
    """One connection to a server."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection(HOST, port, timeout=_TIMEOUT_SECONDS)
        self._used = time.perf_counter()

    def close(self) -> None:
        self._connection.close()

    def get(self, path: str, headers: Mapping[str, str] = {}) -> Response:
        return self._request("GET", path, None, headers)

    def rendition(self, path: str) -> Response:
        """Return a rendition that had to be rendered; raises `RuntimeError` for any other response."""
        response = self.get(path)
        if response.status != 200 or not response.rendered:
            raise RuntimeError(f"expected {path} to be rendered, received {response.status} {response.headers} {response.body[:300]!r}")
        return response

    def ingest(self, path: Path) -> Image:
        """Upload a file and return its image; raises `RuntimeError` if the server refuses it."""
        upload_path = f"/v1/images?name={quote(path.name)}"
        response = self._request("POST", upload_path, path.read_bytes(), {"Content-Type": "application/octet-stream"})
        if response.status not in {200, 201}:
            raise RuntimeError(f"{path.name} was refused: {response.status} {response.body[:300]!r}")
        return msgspec.json.decode(response.body, type=Image)

    def rendition_path(self, image: Image, image_format: str, **transform: object) -> str:
        """Return the signed path of one rendition."""
        body = json.dumps({"transform": transform, "format": image_format}).encode()
        response = self._request("POST", f"/v1/images/{image.digest}/urls", body, {"Content-Type": "application/json"})
        if response.status != 200:
            raise RuntimeError(f"no URL for {transform}: {response.status} {response.body[:300]!r}")
        url: str = json.loads(response.body)["url"]
        return url

    def _request(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Response:
        started = time.perf_counter()
        if started - self._used > _IDLE_SECONDS:
            self._connection.close()
        self._connection.request(method, path, body=body, headers=dict(headers))
        received: HTTPResponse = self._connection.getresponse()
        content = received.read()
        self._used = time.perf_counter()
        fields = [(name.lower(), value) for name, value in received.getheaders()]
        return Response(received.status, fields, content, self._used - started)


@contextmanager
def connected(port: int) -> Iterator[Client]:
    """Yield a client and close its connection on leaving."""
    client = Client(port)
    try:
        yield client
    finally:
        client.close()


def is_responding(port: int, path: str) -> bool:
    """Return whether a server on this port responds with 200 or 304 to a GET of `path`."""
    try:
        with socket.create_connection((HOST, port), timeout=_TIMEOUT_SECONDS) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode("ascii"))
            return connection.recv(64).split(b" ")[1:2] in ([b"200"], [b"304"])
    except OSError:
        return False
