"""Fixtures that the tests of the HTTP API share."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support.server import Server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    """Yield a client of the server that all tests share."""
    with server.client() as client:
        yield client
