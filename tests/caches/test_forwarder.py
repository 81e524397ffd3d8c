"""The forwarder of the public suite of cache tests: what it passes on, and what is for one connection only."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import pytest

from tests.caches.forwarder import Forwarder, edge_before, end_to_end
from tests.support.server import HOST
from tests.support.threads import serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class _Origin(BaseHTTPRequestHandler):
    """Responds with its request in the headers of the response, and closes the connection of requests for /broken."""

    protocol_version = "HTTP/1.1"
    requests = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        if self.path == "/broken":
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        for name, value in {
            "Seen": f"{self.command} {self.path}", "X-Hop": self.headers.get("X-Hop", "none"), "Cache-Control": "max-age=60",
            "Connection": "X-Secret", "X-Secret": "for one connection", "Content-Length": str(len(body)),
        }.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self.do_GET()

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def origin() -> Iterator[str]:
    _Origin.requests = 0
    with serving(_Origin) as port:
        yield f"http://{HOST}:{port}"


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge.test")


async def test_forwarder_passes_on_method_target_and_body(origin: str) -> None:
    async with client_of(Forwarder(origin)) as client:
        response = await client.put("/a%2Fb?c=%20d", content=b"a body")
    assert (response.status_code, response.headers["seen"], response.content) == (200, "PUT /a%2Fb?c=%20d", b"a body")


async def test_forwarder_removes_headers_of_one_connection_both_ways(origin: str) -> None:
    async with client_of(Forwarder(origin)) as client:
        response = await client.get("/", headers={"Connection": "X-Hop", "X-Hop": "for one connection"})
    assert response.headers["x-hop"] == "none"
    assert not {"connection", "x-secret"} & response.headers.keys()


async def test_forwarder_of_an_origin_that_closes_the_connection_responds_with_502(origin: str) -> None:
    async with client_of(Forwarder(origin)) as client:
        response = await client.get("/broken")
    assert (response.status_code, response.headers["cache-control"]) == (502, "no-store")


async def test_edge_before_the_forwarder_stores_responses_but_not_those_to_the_suite_itself(origin: str) -> None:
    async with client_of(edge_before(Forwarder(origin))) as client:
        for path in ("/test/1", "/test/1", "/state/1", "/state/1"):
            assert (await client.get(path)).status_code == 200
    assert _Origin.requests == 3


def test_end_to_end_headers_are_those_that_connection_does_not_name() -> None:
    assert end_to_end([(b"connection", b"close, X-A"), (b"x-a", b"1"), (b"te", b"trailers"), (b"x-b", b"2")]) == [(b"x-b", b"2")]
