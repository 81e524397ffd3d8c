"""A server that is stopped while an upload stalls: requests in flight end, new ones are refused, no process is left (promise 15)."""

from __future__ import annotations

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.cli.test_serve import wait_until_rendering
from tests.promises.figures import RecordFigure
from tests.support import images
from tests.support.server import HOST, darkroom
from tests.support.waiting import PATIENCE_SECONDS, wait_until


@pytest.mark.long
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_server_stopped_with_a_stalled_upload_ends_with_0_within_its_grace_period_and_leaves_no_process(
    tmp_path: Path, ending: signal.Signals, record_figure: RecordFigure
) -> None:
    with darkroom(tmp_path / "data") as server, server.client() as client, ThreadPoolExecutor(1) as threads:
        document = client.post("/v1/images", content=images.photo_jpeg(3_000, 2_000)).json()
        url = client.post(f"/v1/images/{document['digest']}/urls", json={"transform": {"width": 2_900}, "format": "avif"}).json()["url"]
        processes = server.processes()
        with socket.create_connection((HOST, server.port)) as stalled:
            stalled.sendall(b"POST /v1/images HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n\xff\xd8\xff")
            rendering = threads.submit(client.get, url)
            wait_until_rendering(server)
            server.process.send_signal(ending)
            stopped = time.monotonic()
            wait_until(lambda: _is_refused(server.port))
            assert server.process.wait(END_SECONDS) == 0
            record_figure("exit status 0 after {:.0f} s", time.monotonic() - stopped)
            # 408 after the grace period of bodies, or closed.
            stalled.settimeout(PATIENCE_SECONDS)
            assert stalled.recv(4_096)[:12] in {b"HTTP/1.1 408", b""}
        assert rendering.result().status_code == 200
        _, alive = psutil.wait_procs(processes, timeout=PATIENCE_SECONDS)
        assert alive == []
        assert list((tmp_path / "data" / "spool").iterdir()) == []


# The server's own grace period is 65 seconds (docs/architecture.md, budgets).
END_SECONDS = 75.0


def _is_refused(port: int) -> bool:
    try:
        httpx.get(f"http://{HOST}:{port}/livez", trust_env=False)
    except httpx.TransportError:
        return True
    return False
