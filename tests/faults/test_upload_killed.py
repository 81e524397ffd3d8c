"""A server that is killed at any moment of an upload keeps whole what it acknowledged, and nothing partial (promise 8)."""

from __future__ import annotations

import hashlib
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from service.images.digest import digest_from_sha256
from tests.promises.figures import RecordFigure
from tests.support import images
from tests.support.server import darkroom
from tests.support.waiting import CHECKS_SECONDS, wait_until


def digest(body: bytes) -> str:
    return digest_from_sha256(hashlib.sha256(body).digest())


def kill_during_uploads(data: Path, seed: int, acknowledged: dict[str, bytes], sent: dict[str, bytes]) -> None:
    """Upload pictures until the server is killed, at a moment that the seed chooses."""
    moment = random.Random(seed)
    with darkroom(data, render_processes=1) as server, server.client() as client:

        def upload() -> None:
            with suppress(httpx.TransportError):
                for number in range(1_000):
                    body = images.photo_jpeg(64 + number, 48 + seed)
                    sent[digest(body)] = body
                    if client.post("/v1/images", content=body).status_code in {200, 201}:
                        acknowledged[digest(body)] = body

        before = len(acknowledged)
        thread = threading.Thread(target=upload)
        thread.start()
        # The first upload takes longest. After it, another one is under way at any moment.
        wait_until(lambda: len(acknowledged) > before)
        time.sleep(moment.uniform(0, 0.5))
        server.stop(signal.SIGKILL)
        thread.join()


def check(data: Path, acknowledged: dict[str, bytes], sent: dict[str, bytes]) -> None:
    """Check what a server that starts after the kills has."""
    with darkroom(data) as server, server.client() as client:
        assert list((data / "spool").iterdir()) == []
        originals = {path.name: path.read_bytes() for path in server.stored("originals")}
        assert {name: digest(body) for name, body in originals.items() if digest(body) != name} == {}
        assert acknowledged.items() <= originals.items()
        assert originals.keys() <= sent.keys()
        for name in acknowledged:
            assert client.get(client.get(f"/v1/images/{name}").json()["src"]).status_code == 200
        # An upload that was not acknowledged is there as a whole or not at all.
        for name in sent.keys() - acknowledged.keys():
            assert client.get(f"/v1/images/{name}").status_code in {200, 404}


def kill_again_and_again(data: Path, seeds: range) -> int:
    """Kill a server with each of the seeds, always on the same store, and return how many uploads it acknowledged."""
    acknowledged: dict[str, bytes] = {}
    sent: dict[str, bytes] = {}
    for seed in seeds:
        kill_during_uploads(data, seed, acknowledged, sent)
    assert len(acknowledged) >= len(seeds)
    check(data, acknowledged, sent)
    return len(acknowledged)


# A hundred kills are promised; CI, whose time is short, has forty.
# Most of it goes into starts of servers: two stores at a time keep two cores busy.
@pytest.mark.parametrize("times", [2, pytest.param(100 if CHECKS_SECONDS else 40, marks=pytest.mark.long)])
def test_server_killed_during_uploads_has_every_acknowledged_image_and_no_partial_object(
    tmp_path: Path, times: int, record_figure: RecordFigure
) -> None:
    stores = 2
    with ThreadPoolExecutor(stores) as threads:
        acknowledged = threads.map(lambda store: kill_again_and_again(tmp_path / str(store), range(store, times, stores)), range(stores))
        record_figure("{:,.0f} acknowledged uploads, all whole", sum(acknowledged))
    record_figure("{:,.0f} kills", times)
