"""A full disk: uploads are 507, hits and stored renditions are served, and uploads succeed again once there is room (promise 10)."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.promises.figures import RecordFigure
from tests.support import images
from tests.support.processes import running
from tests.support.server import DARKROOM, HOST, environment, free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until, within

# A file system of its own, which only the server's mount namespace has; --map-root-user lets an ordinary user mount it.
_MOUNT = 'mount -t tmpfs -o size=16m tmpfs "$0" && exec "$@"'
_UNSHARE = ["unshare", "--map-root-user", "--mount", "sh", "-c", _MOUNT]


@contextmanager
def darkroom_on_a_small_disk(data: Path, log: Path) -> Iterator[tuple[httpx.Client, Path, str]]:
    """Yield a client of a server whose data folder has 16 MiB, the folder as seen from here, and the URL of its metrics."""
    data.mkdir()
    possible = subprocess.run([*_UNSHARE, data, "true"], capture_output=True, check=False)
    if possible.returncode:
        pytest.skip(f"mounting a file system in a namespace of its own is not permitted here: {possible.stderr.decode()}")
    port, metrics_port = free_port(), free_port()
    command: list[str | Path] = [*_UNSHARE, data, DARKROOM, "serve", "--port", str(port), "--data", data]
    with (
        log.open("wb") as output,
        running(command, env=environment(metrics_port=metrics_port), stdin=subprocess.DEVNULL, stdout=output, stderr=output) as server,
        httpx.Client(base_url=f"http://{HOST}:{port}", timeout=PATIENCE_SECONDS, trust_env=False, verify=False) as client,
    ):

        def is_healthy() -> bool:
            with suppress(httpx.TransportError):
                return client.get("/health").status_code == 200
            return False

        wait_until(is_healthy)
        yield client, Path(f"/proc/{server.pid}/root{data}"), f"http://{HOST}:{metrics_port}/metrics"


def fill(folder: Path) -> Path:
    """Return a file that takes all the room of the disk."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    return ballast


def test_full_disk_is_507_for_uploads_while_everything_stored_is_served_and_uploads_succeed_once_there_is_room(
    tmp_path: Path, record_figure: RecordFigure
) -> None:
    with darkroom_on_a_small_disk(tmp_path / "data", tmp_path / "log.txt") as (client, folder, metrics):
        stored = client.post("/v1/images", content=images.photo_jpeg(640, 480)).json()
        picture = client.get(stored["src"])
        other = images.photo_jpeg(800, 600)
        ballast = fill(folder)
        refused = client.post("/v1/images", content=other)
        assert refused.status_code == 507
        assert refused.headers["content-type"] == "application/problem+json"
        assert client.get(stored["src"]).content == picture.content
        assert client.get(f"/v1/images/{stored['digest']}").json() == stored
        assert client.get("/health").status_code == 200
        wait_until(lambda: client.get("/health").json()["status"] == "degraded")
        assert client.get("/health").json()["reason"] == "The disk of DARKROOM_DATA is full."
        assert 'darkroom_health{status="degraded"} 1.0' in httpx.get(metrics, trust_env=False, timeout=PATIENCE_SECONDS, verify=False).text
        ballast.unlink()
        there_is_room = time.monotonic()
        with within(5):
            wait_until(lambda: client.post("/v1/images", content=other).status_code == 201)
        record_figure("recovery within {:.1f} s", time.monotonic() - there_is_room)
        wait_until(lambda: client.get("/health").json()["status"] == "ok")
        assert client.get(stored["src"]).content == picture.content
        assert [path for path in (folder / "spool").iterdir() if path.is_file()] == []
