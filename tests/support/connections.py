"""Connections of clients that are slow, silent or many."""

from __future__ import annotations

import resource
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support import images
from tests.support.server import HOST, Server
from tests.support.waiting import PATIENCE_SECONDS

# More than the kernel buffers for a client here, and for the server.
LARGE_BYTES = 1_200_000


@contextmanager
def many_descriptors(count: int) -> Iterator[None]:
    """Let this process open so many descriptors during the block; skip the test if it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        pytest.skip(f"the hard limit of open descriptors is {hard}: expected {count}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def large_hit(server: Server) -> str:
    """Return the path of a rendition of more than `LARGE_BYTES` that the edge has stored."""
    with server.client() as client:
        digest = client.post("/v1/images", content=images.noise_png(900, 600)).json()["digest"]
        path: str = client.post(f"/v1/images/{digest}/urls", json={"transform": {"width": 880}, "format": "png"}).json()["url"]
        client.get(path)
        response = client.get(path)
        assert "; hit; " in response.headers["cache-status"]
        assert len(response.content) > LARGE_BYTES
    return path


def connected(server: Server, path: str = "", *, source: str = HOST, buffer_bytes: int = 4_096) -> socket.socket:
    """Return a connection with so small a receive buffer; with a `path`, it has sent a GET for it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    connection.bind((source, 0))
    connection.settimeout(PATIENCE_SECONDS)
    connection.connect((HOST, server.port))
    if path:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Return whether the other side has closed or reset a connection, without reading from it."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))
