"""A machine that is frozen for ten minutes and loses its connections to the store: the first request succeeds quickly."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.promises.figures import RecordFigure
from tests.support import images
from tests.support.s3 import Bucket
from tests.support.s3_proxy import S3Proxy
from tests.support.server import Server, darkroom
from tests.support.waiting import compares_milliseconds, limit

SUSPENDED_SECONDS = 600
FIRST_REQUEST_SECONDS = 2.0

# Debian's libfaketime. The monotonic clock is not faked: it stands still while a machine is suspended.
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


class Frozen:
    """A server whose wall clock is controlled by a file."""

    def __init__(self, server: Server, clock: Path) -> None:
        self.server = server
        self._clock = clock
        self._ahead = 0

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Stop every process of the server for ten minutes of its clock."""
        processes = self.server.processes()
        for process in processes:
            os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
            self._ahead += SUSPENDED_SECONDS
            set_clock(self._clock, self._ahead)
        finally:
            for process in processes:
                os.kill(process.pid, signal.SIGCONT)


def set_clock(clock: Path, ahead_seconds: int) -> None:
    draft = clock.with_suffix(".draft")
    draft.write_text(f"+{ahead_seconds}s\n")
    draft.replace(clock)


@contextmanager
def freezable(folder: Path, s3_proxy: S3Proxy, bucket: Bucket) -> Iterator[Frozen]:
    if not LIBRARIES:
        pytest.skip("libfaketime is not installed: apt-get install libfaketime")
    clock = folder / "clock"
    set_clock(clock, 0)
    settings: dict[str, Any] = s3_proxy.environment | {
        "LD_PRELOAD": LIBRARIES[0],
        "FAKETIME_TIMESTAMP_FILE": clock,
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    with darkroom(folder / "data", store=f"s3://{bucket.name}", keys="0" * 64, **settings) as server:
        yield Frozen(server, clock)


@pytest.mark.long
@compares_milliseconds
def test_first_request_after_ten_frozen_minutes_succeeds_within_two_seconds_even_if_connections_were_lost(
    tmp_path: Path, s3: Bucket, s3_proxy: S3Proxy, record_figure: RecordFigure
) -> None:
    with freezable(tmp_path, s3_proxy, s3) as frozen, frozen.server.client() as client:
        document = client.post("/v1/images", content=images.photo_jpeg(1200, 900)).json()
        urls = [link["url"] for source in document["sources"][1:3] for link in source["renditions"]]
        with darkroom(tmp_path / "other", store=f"s3://{s3.name}", keys="0" * 64, **s3.environment) as other, other.client() as elsewhere:
            right = {url: elsewhere.get(url).content for url in urls}
        cached_url, *stored = urls
        client.get(cached_url).raise_for_status()
        rendered = iter(
            [client.post(f"/v1/images/{document['digest']}/urls", json=url_request(width)).json()["url"] for width in (200, 201)]
        )
        for lose in (s3_proxy.cut, s3_proxy.stun):
            for url, tier in ((cached_url, "memory"), (stored.pop(), "store"), (next(rendered), "render")):
                warm(client, document["digest"])
                with frozen.suspended():
                    assert lose() > 0
                response, seconds = timed(client, url)
                assert response.status_code == 200, frozen.server.log()
                assert response.headers["server-timing"].startswith(f"tier;desc={tier}")
                assert url not in right or response.content == right[url]
                record_figure("first response after {:.2f} s", seconds)
                assert seconds <= limit(FIRST_REQUEST_SECONDS)
                assert int(response.headers.get("age", "0")) >= (SUSPENDED_SECONDS if tier == "memory" else 0)
        assert int(client.get(cached_url).headers["age"]) >= 6 * SUSPENDED_SECONDS
        set_clock(tmp_path / "clock", 0)
        assert int(client.get(cached_url).headers["age"]) >= 0, "the clock was set right after it had been ahead"


def url_request(width: int) -> dict[str, object]:
    return {"transform": {"width": width}, "format": "webp"}


def warm(client: httpx.Client, digest: str) -> None:
    """Fill the server's pool with connections to the store."""
    client.get(f"/v1/images/{digest}").raise_for_status()


def timed(client: httpx.Client, url: str) -> tuple[httpx.Response, float]:
    started = time.monotonic()
    response = client.get(url)
    return response, time.monotonic() - started
