"""Promise 2 under real load: ten times the renditions that the server can make."""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path

import pytest

from tests.bench import servers
from tests.bench.client import connected
from tests.bench.overload import KEY, capacity, cold_paths, level, offer
from tests.promises.figures import RecordFigure
from tests.support import images
from tests.support.prometheus import samples
from tests.support.server import free_port
from tests.support.waiting import CHECKS_SECONDS

SECONDS = 12.0
WAIT_SECONDS = 10.0


def renders_per_cpu_second(begin: tuple[float, float], end: tuple[float, float]) -> float:
    """Return how many renders ended for each second of CPU time between two measurements."""
    return (end[0] - begin[0]) / (end[1] - begin[1])


@pytest.mark.long
@pytest.mark.exclusive
def test_ten_times_the_capacity_is_served_as_much_as_the_capacity_and_refusals_do_not_wait(
    tmp_path: Path, record_figure: RecordFigure
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(images.photo_jpeg(2_000, 1_500))
    metrics_port = free_port()
    settings = {"keys": KEY, "wait_seconds": WAIT_SECONDS, "metrics_port": metrics_port}
    with servers.darkroom(tmp_path / "data", **settings) as server, connected(server.port) as client:

        def work() -> tuple[float, float]:
            """Return how many renders have ended, and the CPU time in seconds of the server and its render processes."""
            return samples(metrics_port)["render_jobs_total", "render", "ok"], server.cpu_seconds()

        image = client.ingest(photo)
        cold = cold_paths([image])
        warm = next(cold)
        client.rendition(warm)
        # The first renders teach the server what they cost here.
        clients = 2 * len(os.sched_getaffinity(0))
        asyncio.run(capacity(server.port, cold, clients, 3))
        before = work()
        best = asyncio.run(capacity(server.port, cold, clients, 6))
        at_capacity = work()
        document = itertools.repeat(f"/v1/images/{image.digest}")
        paths = {"miss": cold, "hit": itertools.repeat(warm), "document": document, "health": itertools.repeat("/health")}
        responses = asyncio.run(offer(server.port, paths, 10 * best, SECONDS))
        in_overload = work()
        found = level(10, 10 * best, SECONDS, responses)
    record_figure("refusals p99 {:.0f} ms", found.refusals[1])
    record_figure("hits p99 {:.0f} ms", found.hits[1])
    record_figure("`/health` p99 {:.0f} ms", found.health[1])
    record_figure("{:.2f} of the best goodput", found.goodput / best, lowest=True)
    assert found.failed == 0
    if CHECKS_SECONDS:
        assert found.refusals[1] <= 50
        assert found.hits[1] < 100
        assert found.health[1] < 100
        assert found.late == 0
        assert found.goodput >= 0.9 * best
    # A machine that has other work may have less time for the server than before. Its CPU time must go into renders as before.
    assert renders_per_cpu_second(at_capacity, in_overload) > 0.75 * renders_per_cpu_second(before, at_capacity)
    assert found.refused > found.goodput * SECONDS
    waited = found.misses[0]
    for kind in (found.refusals, found.hits, found.documents, found.health):
        assert kind[0] < waited / 10
    assert all(1 <= response.retry_after <= 60 for response in responses if response.status == 503)
