"""A client of the running server: ingest, mint, get; over loopback, one connection each."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import msgspec

HOST = "127.0.0.1"
_TIMEOUT_SECONDS = 120.0

# Servers close a silent connection, ours after ten seconds; a new one is opened well before.
_IDLE_SECONDS = 3.0


class Got(msgspec.Struct, frozen=True):
    """An answer: its fields as sent, in order, names in lower case; its body; from request to its last byte in seconds."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    seconds: float

    def header(self, name: str) -> str:
        """Return the value of a field, "" if there is none."""
        return next((value for field, value in self.headers if field == name), "")

    @property
    def rendered(self) -> bool:
        """Whether this answer had to be rendered."""
        return self.header("server-timing").startswith("tier;desc=render")


class Image(msgspec.Struct, frozen=True):
    """An original that is stored: its digest, and its upright size in pixels."""

    digest: str
    width: int
    height: int


class Client:
    """One connection to a server."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection(HOST, port, timeout=_TIMEOUT_SECONDS)
        self._used = time.perf_counter()

    def close(self) -> None:
        self._connection.close()

    def get(self, path: str, headers: Mapping[str, str] = {}) -> Got:
        return self._ask("GET", path, None, headers)

    def rendition(self, path: str) -> Got:
        """Return a rendition that had to be rendered; raises `RuntimeError` for any other answer."""
        got = self.get(path)
        if got.status != 200 or not got.rendered:
            raise RuntimeError(f"{path} was to be rendered; received {got.status} {got.headers} {got.body[:300]!r}")
        return got

    def ingest(self, path: Path) -> Image:
        """Return a file as stored."""
        got = self._ask("POST", "/v1/images", path.read_bytes(), {"Content-Type": "application/octet-stream"})
        if got.status not in {200, 201}:
            raise RuntimeError(f"{path.name} was not taken: {got.status} {got.body[:300]!r}")
        return msgspec.json.decode(got.body, type=Image)

    def mint(self, image: Image, image_format: str, **transform: object) -> str:
        """Return the path of one rendition."""
        body = json.dumps({"transform": transform, "format": image_format}).encode()
        got = self._ask("POST", f"/v1/images/{image.digest}/urls", body, {"Content-Type": "application/json"})
        if got.status != 200:
            raise RuntimeError(f"no URL for {transform}: {got.status} {got.body[:300]!r}")
        url: str = json.loads(got.body)["url"]
        return url

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Got:
        started = time.perf_counter()
        if started - self._used > _IDLE_SECONDS:
            self._connection.close()
        self._connection.request(method, path, body=body, headers=dict(headers))
        response: HTTPResponse = self._connection.getresponse()
        content = response.read()
        self._used = time.perf_counter()
        fields = [(name.lower(), value) for name, value in response.getheaders()]
        return Got(response.status, fields, content, self._used - started)


@contextmanager
def connected(port: int) -> Iterator[Client]:
    """Give a client, its connection closed on leaving."""
    client = Client(port)
    try:
        yield client
    finally:
        client.close()


def answers(port: int, path: str) -> bool:
    """Return whether something answers 200 or 304 on `path`."""
    try:
        with socket.create_connection((HOST, port), timeout=_TIMEOUT_SECONDS) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode("ascii"))
            return connection.recv(64).split(b" ")[1:2] in ([b"200"], [b"304"])
    except OSError:
        return False
