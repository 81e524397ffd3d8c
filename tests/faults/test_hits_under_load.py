"""Hits at 70 % of what the machine can do, for a minute: every response is a hit, nothing grows, and none is slow (promise 1)."""

from __future__ import annotations

import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import quantiles

import pytest

from tests.promises.figures import RecordFigure
from tests.support import images
from tests.support.server import HOST, Server, darkroom
from tests.support.waiting import CHECKS_SECONDS

_CLIENTS = 4
_LOAD = 0.7


def hits(server: Server, path: str, seconds: float, per_second: float) -> list[float]:
    """Return how long each hit of one client took, in seconds; `per_second` is the rate at which they begin, infinite for no pause."""
    taken = []
    connection = http.client.HTTPConnection(HOST, server.port)
    started = time.perf_counter()
    while (at := time.perf_counter()) - started < seconds:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.status == 200
        assert "; hit; " in response.headers["cache-status"]
        taken.append(time.perf_counter() - at)
        time.sleep(max(0.0, started + len(taken) / per_second - time.perf_counter()))
    connection.close()
    return taken


def p99(taken: list[float]) -> float:
    return quantiles(taken, n=100)[98]


@pytest.mark.long
@pytest.mark.exclusive
def test_minute_of_hits_at_70_percent_of_the_machine_has_no_error_grows_by_less_than_5_percent_and_stays_fast(
    tmp_path: Path, record_figure: RecordFigure
) -> None:
    with darkroom(tmp_path / "data") as server, server.client() as client, ThreadPoolExecutor(_CLIENTS) as threads:
        path: str = client.post("/v1/images", content=images.photo_jpeg(640, 480)).json()["src"]
        client.get(path)

        def load(seconds: float, per_second: float) -> list[float]:
            running = [threads.submit(hits, server, path, seconds, per_second) for _ in range(_CLIENTS)]
            return [one for client in running for one in client.result()]

        capacity = len(load(3, float("inf"))) / 3
        idle = hits(server, path, 3, 100)
        worker = server.worker()
        load(20, _LOAD * capacity / _CLIENTS)
        memory = worker.memory_info().rss
        loaded = load(40, _LOAD * capacity / _CLIENTS)
        growth = worker.memory_info().rss / memory - 1
        slowdown = p99(loaded) / p99(idle)
        assert growth < 0.05
        assert "Traceback" not in server.log()
        if CHECKS_SECONDS:
            assert slowdown < 3
    record_figure("{:,.0f} hits and no error", len(loaded))
    record_figure("p99 {:.1f} ms", 1_000 * p99(loaded))
    record_figure("{:.1f} × that of an idle server", slowdown)
    record_figure("memory grows by {:.1f} %", max(0.0, 100 * growth))
