"""The cache entries that clients without a token can make: one for each page and file, and none evicts a rendition."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.test_metrics import figures
from tests.support import images
from tests.support.server import HOST, Server, darkroom, free_port
from tests.support.waiting import PATIENCE_SECONDS

PAGES = ("/", "/docs", "/problems", "/problems/not-found", "/darkroom.js", "/darkroom.d.ts", "/darkroom.js.tgz")
SPELLINGS = 400


class Attacked:
    """A server, its metrics, a rendition in its memory, and the URL of every page and of every file that pages link to."""

    def __init__(self, server: Server, metrics_port: int) -> None:
        self.server = server
        self.metrics_port = metrics_port
        with server.client() as client:
            self.rendition = client.post("/v1/images", content=images.photo_jpeg(320, 240)).json()["src"]
            client.get(self.rendition)
            found = [url for page in ("/", "/docs") for url in re.findall(r'"(/(?:web|docs/files)/[^"]+)"', client.get(page).text)]
            self.addresses = [*PAGES, *dict.fromkeys(found)]
            for address in self.addresses:
                assert client.get(address).status_code in {200, 302}, address
            assert any(len(client.get(address).content) > 1_000_000 for address in self.addresses)

    def entries(self) -> int:
        return int(figures(self.metrics_port)["stored_entries",])

    def rendition_status(self) -> str:
        with self.server.client() as client:
            return client.get(self.rendition).headers["cache-status"]

    def statuses(self, targets: list[str], method: str = "GET") -> set[int]:
        """Return the statuses of requests for the first byte of these targets, sent without normalization."""
        seen = set()
        with (
            socket.create_connection((HOST, self.server.port), timeout=PATIENCE_SECONDS) as connection,
            connection.makefile("rb") as responses,
        ):
            for target in targets:
                connection.sendall(f"{method} {target} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-0\r\n\r\n".encode("latin-1"))
                seen.add(int(responses.readline().split()[1]))
                length = 0
                while (line := responses.readline()) != b"\r\n":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                responses.read(0 if method == "HEAD" else length)
        return seen


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    port = free_port()
    # A sixteenth of it has room for the largest file once.
    with darkroom(tmp_path_factory.mktemp("entries"), metrics_port=port, cache_bytes=40_000_000) as server:
        yield Attacked(server, port)


def respelled(address: str, rng: random.Random) -> str:
    """Return another spelling of a path that is routed in the same way."""
    spelled = ""
    for character in address:
        if character == "/":
            spelled += "/" * rng.choice([1, 1, 1, 2, 3])
        elif rng.random() < 0.2:
            spelled += f"%{ord(character):02{rng.choice('xX')}}"
        else:
            spelled += character
    spelled += "/" * rng.choice([0, 0, 1, 2]) if spelled.strip("/") else ""
    return spelled + rng.choice(["", "", "?", f"?{rng.random()}", f"?v={rng.random()}&v=%00", "?/../"])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_file_with_queries_makes_no_cache_entries_and_evicts_no_rendition(attacked: Attacked, method: str) -> None:
    before, largest = attacked.entries(), next(address for address in attacked.addresses if "swagger-ui-bundle" in address)
    targets = [f"{address}?q={number}" for number in range(SPELLINGS // 4) for address in (largest, "/", "/problems", attacked.rendition)]
    assert attacked.statuses(targets, method) == {308}
    assert attacked.entries() == before
    assert "; hit; " in attacked.rendition_status()
    assert figures(attacked.metrics_port)["evicted_total", "rendition"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_page_or_file_in_other_spellings_makes_no_cache_entries(attacked: Attacked, seed: int) -> None:
    before, rng = attacked.entries(), random.Random(seed)
    targets = [respelled(rng.choice(attacked.addresses), rng) for _ in range(SPELLINGS)]
    statuses = attacked.statuses(targets)
    # 206: the canonical spelling, or one with an empty query.
    assert 308 in statuses
    assert statuses <= {206, 302, 308}
    assert attacked.entries() <= before
    assert "; hit; " in attacked.rendition_status()


def test_unknown_path_makes_no_cache_entry(attacked: Attacked) -> None:
    before = attacked.entries()
    places = ("", "web/", "docs/files/", "problems/", "i/", "from/", "from/cms/", "docs/openapi.json/", "i/1/", "%2e%2e/")
    targets = [f"/{place}nothing-{number}{query}" for number in range(30) for place in places for query in ("", "?a")]
    assert max(attacked.statuses(targets)) < 500
    assert attacked.entries() == before


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/?utm_source=mail", "./"),
        ("/docs?x", "./docs"),
        ("/problems/not-found?x", "./not-found"),
        ("/darkroom.js?v=2", "./darkroom.js"),
        ("//", "/"),
        ("//docs", "/docs"),
        ("/docs/", "/docs"),
        ("/%64ocs?x", "/docs"),
        ("//problems//not-found/", "/problems/not-found"),
        ("/problems/%0d%0aset-cookie:%20a", "/problems/%0D%0Aset-cookie%3A%20a"),
        ("/problems/%5c%5cexample.com", "/problems/%5C%5Cexample.com"),
    ],
)
def test_page_in_another_spelling_is_redirected_and_not_stored(attacked: Attacked, target: str, location: str) -> None:
    with socket.create_connection((HOST, attacked.server.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        response = b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
    assert response.startswith("HTTP/1.1 308 ")
    assert f"\r\nlocation: {location}\r\n" in response
    assert "\r\ncache-control: no-store\r\n" in response


def test_page_with_a_query_is_served_after_redirects(attacked: Attacked) -> None:
    with attacked.server.client(follow_redirects=True) as client:
        for address in attacked.addresses:
            shown = client.get(address, params={"utm_source": "mail"})
            assert (shown.status_code, shown.content) == (200, client.get(address).content), address


def test_pages_and_files_leave_renditions_most_of_a_small_cache(data: Path) -> None:
    port = free_port()
    with darkroom(data, metrics_port=port, cache_bytes=1_600_000) as server, server.client() as client:
        document = client.post("/v1/images", content=images.photo_jpeg(800, 600)).json()
        client.get(document["src"])
        found = [url for page in ("/", "/docs") for url in re.findall(r'"(/(?:web|docs/files)/[^"]+)"', client.get(page).text)]
        for _ in range(2):
            for address in (*PAGES, *found):
                assert client.get(address).status_code in {200, 302}
        samples = figures(port)
        assert samples["evicted_total", "page"] > 0
        assert samples["evicted_total", "rendition"] == 0
        assert "; hit; " in client.get(document["src"]).headers["cache-status"]
        assert samples["stored_bytes",] < 100_000 + len(client.get(document["src"]).content) + 5_000
