"""Ten thousand different renditions: the memory of the server and the renditions on disk stay within their limits (promise 4)."""

from __future__ import annotations

import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from statistics import quantiles

import httpx
import pytest

from tests.promises.figures import RecordFigure
from tests.support import images
from tests.support.server import HOST, Server, darkroom
from tests.support.waiting import CHECKS_SECONDS, PATIENCE_SECONDS, compares_milliseconds, wait_until

_CACHE_BYTES = 8 << 20
_DISK_BYTES = 16 << 20

# Beside the stored responses: connections, allocators and the interpreter.
_OTHER_BYTES = 64 << 20

_COUNT = 10_000
_QUALITIES = 100
_WIDTHS_AT_ONCE = 25


def urls(client: httpx.Client, digest: str, count: int) -> list[str]:
    """Return the URLs of so many different renditions: of 100 qualities, at as many widths as are needed."""
    found: list[str] = []
    for first in range(1, 1 + count // _QUALITIES, _WIDTHS_AT_ONCE):
        widths = list(range(first, min(first + _WIDTHS_AT_ONCE, 1 + count // _QUALITIES)))
        for quality in range(1, 1 + _QUALITIES):
            body = {"transform": {"quality": quality}, "widths": widths, "formats": ["webp"]}
            document = client.post(f"/v1/images/{digest}/urls", json=body).raise_for_status().json()
            found += [rendition["url"] for source in document["sources"] for rendition in source["renditions"]]
    return found


def p99_of_hits(server: Server, path: str) -> float:
    """Return the lowest of five p99s, because whatever else the machine does only makes hits slower."""
    found = []
    with closing(http.client.HTTPConnection(HOST, server.port, timeout=PATIENCE_SECONDS)) as connection:
        for _ in range(5):
            taken = []
            for _ in range(1_000):
                started = time.perf_counter()
                connection.request("GET", path)
                response = connection.getresponse()
                response.read()
                taken.append(time.perf_counter() - started)
                assert response.status == 200
            found.append(quantiles(taken, n=100)[98])
    return min(found)


def statuses(server: Server, paths: list[str]) -> set[int]:
    """Return the statuses of many requests, which four clients make."""

    def get_all(share: list[str]) -> set[int]:
        # An httpx.Client would take longer than the server does.
        with closing(http.client.HTTPConnection(HOST, server.port, timeout=PATIENCE_SECONDS)) as connection:
            found = set()
            for path in share:
                connection.request("GET", path)
                response = connection.getresponse()
                response.read()
                found.add(response.status)
        return found

    with ThreadPoolExecutor(4) as threads:
        return set().union(*threads.map(get_all, [paths[first::4] for first in range(4)]))


@pytest.mark.long
@compares_milliseconds
def test_ten_thousand_renditions_leave_memory_and_disk_within_their_limits_and_hits_fast(
    tmp_path: Path, record_figure: RecordFigure
) -> None:
    settings = {"cache_bytes": _CACHE_BYTES, "renditions_bytes": _DISK_BYTES}
    with darkroom(tmp_path / "data", **settings) as server, server.client() as client:
        # So small that most of the time is the server's own, and not libvips'.
        document = client.post("/v1/images", content=images.photo_jpeg(128, 96)).json()
        wanted = urls(client, document["digest"], _COUNT)
        assert len(set(wanted)) == _COUNT
        hit = document["src"]
        client.get(hit)
        before = p99_of_hits(server, hit)
        memory = server.worker().memory_info().rss
        assert statuses(server, wanted) == {200}
        growth = server.worker().memory_info().rss - memory
        assert growth < _CACHE_BYTES + _OTHER_BYTES
        wait_until(lambda: bytes_on_disk(server) <= _DISK_BYTES)
        # Those that were removed from memory and disk are made again.
        assert client.get(wanted[0]).status_code == 200
        client.get(hit)
        slowdown = p99_of_hits(server, hit) / before
        if CHECKS_SECONDS:
            assert slowdown < 2
        record_figure("memory grows by {:.0f} MB", growth / 1e6)
        record_figure(f"{{:.0f}} of {_DISK_BYTES / 1e6:.0f} MB on disk", bytes_on_disk(server) / 1e6)
        record_figure("p99 of hits {:.1f} ×", slowdown)


def bytes_on_disk(server: Server) -> int:
    """Return the bytes that the renditions take on disk; some may be removed meanwhile."""
    total = 0
    for path in server.stored("renditions"):
        with suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total
