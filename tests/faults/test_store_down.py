"""A store that is down, fails or is slow: hits continue, misses succeed or fail in time, and everything recovers without help."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.promises.figures import RecordFigure
from tests.support import images
from tests.support.s3 import Bucket
from tests.support.s3_proxy import S3Proxy
from tests.support.server import HOST, Server, darkroom, ladder_urls
from tests.support.waiting import CHECKS_SECONDS, PATIENCE_SECONDS, compares_milliseconds, limit

DOWN_SECONDS = 60
FAILURE_SECONDS = 5.0
RECOVERED_SECONDS = 10.0
STALL_SECONDS = 0.1
STORE_SECONDS = 2.0
MISS_EVERY_SECONDS = 0.1
BUSY_CLIENTS = 64


def urls_of(client: httpx.Client, count: int) -> list[str]:
    """Return the URLs of so many renditions of one image that were never requested."""
    digest = client.post("/v1/images", content=images.photo_jpeg(640, 480)).raise_for_status().json()["digest"]
    return ladder_urls(client, digest, range(16, 16 + count), "webp")


class Hits(msgspec.Struct):
    """The result of requesting a stored rendition all the time.

    statuses: the number of responses by status. slowest: the seconds of the slowest one. latest: how many seconds too late the machine
    continued the client after a pause, at most.
    """

    statuses: dict[int, int] = {}
    slowest: float = 0.0
    latest: float = 0.0

    @property
    def stalled(self) -> float:
        """How long the server may have stalled, in seconds: on a busy machine it may be continued as late as the client."""
        return max(0.0, self.slowest - self.latest)


@contextmanager
def hits(server: Server, path: str) -> Iterator[Hits]:
    """Request a path from another process during the block, and report the results at its end."""
    visitor = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("visitor.py"), HOST, str(server.port), path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    got = Hits()
    try:
        yield got
    finally:
        output, _ = visitor.communicate(timeout=PATIENCE_SECONDS)
    decoded = msgspec.json.decode(output, type=Hits, strict=False)
    got.statuses, got.slowest, got.latest = decoded.statuses, decoded.slowest, decoded.latest


def refuse(s3_proxy: S3Proxy) -> None:
    s3_proxy.refuse()


def fall_silent(s3_proxy: S3Proxy) -> None:
    s3_proxy.silent = True


def err(s3_proxy: S3Proxy) -> None:
    s3_proxy.error_share = 1.0


# The duration of each kind of outage in seconds.
OUTAGES: dict[Callable[[S3Proxy], None], int] = {refuse: DOWN_SECONDS, fall_silent: DOWN_SECONDS, err: 10}


def come_back(s3_proxy: S3Proxy) -> None:
    s3_proxy.silent, s3_proxy.error_share = False, 0.0
    s3_proxy.refuse()
    s3_proxy.start()


def outage(s3_proxy: S3Proxy, s3: Bucket, data: Path, fails: Callable[[S3Proxy], None], seconds: float) -> dict[str, Any]:
    """Return how long misses took to fail during an outage, and how long they took to recover; check that hits continue."""
    with darkroom(data, store=f"s3://{s3.name}", keys="0" * 64, **s3_proxy.environment) as server, server.client() as client:
        stored_url, *cold = urls_of(client, 200)
        before = client.get(stored_url).raise_for_status().content
        waits = []
        with hits(server, stored_url) as hit:
            fails(s3_proxy)
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                started = time.monotonic()
                miss = client.get(cold.pop())
                waits.append(time.monotonic() - started)
                assert (miss.status_code, miss.headers["retry-after"]) == (503, "5")
                assert miss.json()["type"] == "/problems/storage-unavailable"
                assert miss.headers["cache-control"] == "no-store"
            report = client.get("/health")
            assert (report.status_code, report.json()["status"]) == (200, "degraded")
            assert report.json()["remedy"]
            come_back(s3_proxy)
            back = time.monotonic()
            while client.get(cold.pop()).status_code != 200:
                assert time.monotonic() - back < PATIENCE_SECONDS
            recovered = time.monotonic() - back
            while client.get("/health").json()["status"] != "ok":
                assert time.monotonic() - back < PATIENCE_SECONDS
                time.sleep(0.1)
            healthy = time.monotonic() - back
        assert set(hit.statuses) == {200}
        assert client.get(stored_url).content == before
    return {
        "hits": hit.statuses[200],
        "stalled": hit.stalled,
        "slowest_failure": max(waits),
        "misses": len(waits),
        "recovered": recovered,
        "healthy": healthy,
    }


@pytest.mark.long
@pytest.mark.parametrize("fails", OUTAGES)
def test_store_that_is_down_for_a_minute_does_not_stop_hits_fails_misses_within_five_seconds_and_recovers(
    data: Path, s3: Bucket, s3_proxy: S3Proxy, fails: Callable[[S3Proxy], None], record_figure: RecordFigure
) -> None:
    seconds = OUTAGES[fails]
    found = outage(s3_proxy, s3, data, fails, seconds)
    record_figure("misses fail within {:.1f} s", found["slowest_failure"])
    record_figure("recovery within {:.1f} s", max(found["recovered"], found["healthy"]))
    assert found["hits"] > (10 * seconds if CHECKS_SECONDS else found["misses"])
    # No hit waited for the store.
    assert found["stalled"] < STORE_SECONDS
    assert found["misses"] >= seconds / limit(FAILURE_SECONDS) - 1
    assert found["slowest_failure"] < limit(FAILURE_SECONDS)
    assert found["recovered"] < limit(RECOVERED_SECONDS)
    assert found["healthy"] < limit(RECOVERED_SECONDS)


@pytest.mark.long
@compares_milliseconds
def test_store_that_fails_one_request_in_five_and_takes_two_seconds_for_each_serves_99_in_100_and_never_stalls(
    data: Path, s3: Bucket, s3_proxy: S3Proxy, record_figure: RecordFigure
) -> None:
    """A miss makes five requests to the store, one after another: at least ten of the thirty seconds that a client may wait."""
    with (
        darkroom(data, store=f"s3://{s3.name}", keys="0" * 64, **s3_proxy.environment) as server,
        server.client(limits=httpx.Limits()) as client,
    ):
        stored_url, *cold = urls_of(client, 301)
        client.get(stored_url).raise_for_status()
        s3_proxy.seen.clear()
        s3_proxy.error_share, s3_proxy.delay_seconds = 0.2, STORE_SECONDS
        # On a busy machine, so many requests at once would make the store slower than they may wait for it.
        with hits(server, stored_url) as hit, ThreadPoolExecutor(len(cold) if CHECKS_SECONDS else BUSY_CLIENTS) as threads:
            misses = []
            for url in cold:
                misses.append(threads.submit(client.get, url))
                time.sleep(MISS_EVERY_SECONDS)
            statuses = Counter(miss.result().status_code for miss in misses)
        s3_proxy.error_share = s3_proxy.delay_seconds = 0.0
    assert statuses[200] >= 0.99 * len(cold)
    assert set(hit.statuses) == {200}
    # On a busy machine only: no hit waited for the store.
    assert hit.stalled < (STALL_SECONDS if CHECKS_SECONDS else STORE_SECONDS)
    record_figure("{:.1f} % succeed", 100 * statuses[200] / len(cold), lowest=True)
    record_figure("the event loop stalls for {:.0f} ms", 1_000 * hit.stalled)
