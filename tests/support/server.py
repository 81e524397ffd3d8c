"""The real server in tests: `darkroom serve` on a free port of loopback, stopped by its process id."""

from __future__ import annotations

import atexit
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import psutil

from service.http.schemas import MAX_WIDTHS
from service.rendering.protocol import PROCESS_NAME
from tests.support.waiting import CHECKS_SECONDS, PATIENCE_SECONDS, wait_until

DARKROOM = Path(sys.executable).parent / "darkroom"
HOST = "127.0.0.1"

# Bounds a hang on however busy a machine, and is less than a server's grace period, after which its worker is killed.
END_SECONDS = 60.0

# The start of each render process takes a third of a second of CPU time. What is measured has as many as servers have by default.
_FEW_PROCESSES: dict[str, object] = {} if CHECKS_SECONDS else {"render_processes": 1}

_PORTS_IN_A_BLOCK = 500
_choosing_a_port = threading.Lock()


class Server:
    """A running server: its process, URL, data folder and log."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, data: Path, log: Path) -> None:
        self.process = process
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self.data = data
        self._log = log

    def client(self, **options: Any) -> httpx.Client:
        """Return a client of this server that does not follow redirects."""
        # Reading the certificates that HTTPS would need takes 36 ms of CPU time.
        return httpx.Client(base_url=self.url, timeout=PATIENCE_SECONDS, trust_env=False, verify=False, **options)

    def log(self) -> str:
        """Return what the server has written so far to standard output and standard error."""
        return self._log.read_text("utf-8", "replace")

    def processes(self) -> list[psutil.Process]:
        """Return all processes of the server: the supervisor, the worker, the fork server and the render processes."""
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def render_processes(self) -> list[psutil.Process]:
        """Return the render processes."""
        return [process for process in self.processes() if _name(process) == PROCESS_NAME]

    def worker(self) -> psutil.Process:
        """Return the process that serves requests."""
        (worker,) = psutil.Process(self.process.pid).children()
        return worker

    def stored(self, kind: str) -> list[Path]:
        """Return the files of the default store under `kind`, such as `renditions`."""
        return sorted(path for path in (self.data / "store" / kind).rglob("*") if path.is_file())

    @contextmanager
    def suspended_renders(self) -> Iterator[None]:
        """Stop the render processes and the fork server within the block, so that every render takes as long as the test wants."""
        processes = [process for process in self.processes() if "service.worker" in process.cmdline()]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def stop(self, kind: signal.Signals = signal.SIGTERM) -> int:
        """Stop the server and return its exit code; SIGKILL goes to all its processes, as when a machine is lost."""
        if kind == signal.SIGKILL:
            for process in self.processes():
                # The death of one process may end another before its turn.
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        elif self.process.poll() is None:
            self.process.send_signal(kind)
        return self.process.wait(END_SECONDS)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        # The process ended after it was listed.
        return ""


def was_stored(response: httpx.Response, path: str, lifetime_seconds: int = 31_536_000) -> bool:
    """Return whether `Cache-Status` says that the response was fetched for this request and stored under `path`.

    Its age at that time is at most as long as the request took: a slow render takes that much off its lifetime.
    """
    found = re.fullmatch(rf'darkroom; fwd=uri-miss; stored; ttl=(\d+); key="{re.escape(path)}"', response.headers["cache-status"])
    return found is not None and 0 <= lifetime_seconds - int(found[1]) <= math.ceil(response.elapsed.total_seconds())


def ladder_urls(client: httpx.Client, digest: str, widths: range, image_format: str) -> list[str]:
    """Return the URLs of an image at many widths in one format, with as many requests as the limit on widths requires."""
    found: list[str] = []
    for first in range(0, len(widths), MAX_WIDTHS):
        body = {"widths": list(widths[first : first + MAX_WIDTHS]), "formats": [image_format]}
        response = client.post(f"/v1/images/{digest}/urls", json=body).raise_for_status().json()
        found += [rendition["url"] for source in response["sources"] for rendition in source["renditions"]]
    return found


def environment(**settings: object) -> dict[str, str]:
    """Return this environment without settings of Darkroom, and with `settings` as its variables.

    Unless they say otherwise nothing is warmed, as tests count what is rendered and stored, no render of a busy machine is too slow, and no
    line of the log is omitted.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DARKROOM_", "FLY_"))}
    return (
        inherited
        | {"DARKROOM_WARM": "none", "DARKROOM_RENDER_SECONDS": str(PATIENCE_SECONDS), "DARKROOM_WAIT_SECONDS": str(PATIENCE_SECONDS)}
        | {"DARKROOM_LOG_LINES_PER_SECOND": "10000"}
        | {name if name.isupper() else f"DARKROOM_{name.upper()}": str(value) for name, value in settings.items()}
    )


def free_port() -> int:
    """Return a port of loopback that is free, and that no other process of the tests takes before it is used.

    Its range is below the one from which the kernel takes ports for clients and for servers that leave the choice to it (ip(7):
    ip_local_port_range), and no other process of tests takes ports of the same block.
    """
    # A test may start servers in several threads.
    with _choosing_a_port:
        for port in islice(_block_of_ports(), _PORTS_IN_A_BLOCK):
            with suppress(OSError), socket.socket() as probe:
                probe.bind((HOST, port))
                return port
    raise RuntimeError(f"all {_PORTS_IN_A_BLOCK} ports of this process's block are taken")


@cache
def _block_of_ports() -> Iterator[int]:
    """Return the ports that are this process's own until it ends: the name of a socket in the abstract namespace reserves them."""
    for first in range(10_000, 32_000, _PORTS_IN_A_BLOCK):
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0darkroom-tests-ports-{first}")
        except OSError:
            reservation.close()
        else:
            atexit.register(reservation.close)
            return cycle(range(first, first + _PORTS_IN_A_BLOCK))
    raise RuntimeError("other processes of tests have reserved all blocks of ports")


@contextmanager
def darkroom(data: Path, **settings: object) -> Iterator[Server]:
    """Yield a server with the data folder `data` that is healthy and has a render process; `settings` become its variables.

    It has one render process unless they say otherwise.
    """
    with started(data, **settings) as server:
        _wait_until_healthy(server)
        yield server


@contextmanager
def darkroom_with_descriptors(data: Path, limit: int) -> Iterator[Server]:
    """Yield a server with default settings in which every process may open at most `limit` descriptors (util-linux' prlimit)."""
    with _started(data, ("prlimit", f"--nofile={limit}:{limit}"), {}) as server:
        _wait_until_healthy(server)
        yield server


@contextmanager
def started(data: Path, **settings: object) -> Iterator[Server]:
    """Yield a server that has just been started and may never become healthy."""
    with _started(data, (), settings) as server:
        yield server


@contextmanager
def _started(data: Path, before: tuple[str, ...], settings: dict[str, object]) -> Iterator[Server]:
    port = free_port()
    data.mkdir(parents=True, exist_ok=True)
    log = data / "log.txt"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*before, DARKROOM, "serve", "--port", str(port), "--data", str(data)],
            env=environment(**(_FEW_PROCESSES | settings)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    server = Server(process, port, data, log)
    try:
        yield server
    finally:
        left = server.processes() if process.poll() is None else []
        try:
            server.stop()
        except subprocess.TimeoutExpired:
            for one in left:
                one.kill()
            raise


def reported_sandbox(server: Server) -> object:
    """Return how /health describes the confinement of render processes after the first one has started."""
    with server.client() as client:
        wait_until(lambda: client.get("/health").json().get("sandbox") is not None)
        return client.get("/health").json()["sandbox"]


def _wait_until_healthy(server: Server) -> None:
    with server.client() as client:

        def is_healthy() -> bool:
            # Asks only a server that listens: failed requests would take a good part of the CPU time of a start.
            with socket.socket() as probe:
                if probe.connect_ex((HOST, server.port)) != 0:
                    return False
            with suppress(httpx.TransportError):
                response = client.get("/health")
                # On a very busy machine, a render process may not start in time, and is started again.
                return response.status_code == 200 and response.json().get("sandbox") is not None
            return False

        with suppress(TimeoutError):
            wait_until(lambda: server.process.poll() is not None or is_healthy())
            if server.process.poll() is None:
                return
    raise RuntimeError(f"the server did not become healthy:\n{server.log()}")


def refused_start(data: Path, *options: str, **settings: str) -> str:
    """Return the error message of a start that must fail. Assert that it is not a traceback."""
    ended = subprocess.run(
        [DARKROOM, "serve", "--data", data, *options],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    return ended.stderr
