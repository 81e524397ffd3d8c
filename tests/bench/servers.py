"""Starts and ends the processes that are measured: the real server, the bare ones, the bare renderer. Each is ended by its process id."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tests.bench import measure
from tests.bench.client import is_responding
from tests.support.processes import running
from tests.support.server import free_port

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

HOST = "127.0.0.1"


class MeasuredServer(msgspec.Struct, frozen=True):
    """A running server.

    `process_id`: its first process. `start_seconds`: the time from its start to its first 200 or 304.
    `log`: the file that holds its standard output and standard error.
    """

    process_id: int
    port: int
    start_seconds: float
    log: Path

    def tree(self) -> list[int]:
        """Return the process ids of the server and of all processes that it has started."""
        return measure.process_tree(self.process_id)

    def cpu_seconds(self) -> float:
        """Return user and system time of all its processes so far."""
        return measure.cpu_seconds(self.tree())

    def events(self, name: str) -> list[dict[str, object]]:
        """Return the log events of this name so far, each with its fields."""
        # Skips lines that a library prints, and the last line, which may be incomplete.
        lines = (line for line in self.log.read_bytes().split(b"\n")[:-1] if line.startswith(b"{"))
        return [event for line in lines if (event := msgspec.json.decode(line, type=dict[str, object]))["event"] == name]


@contextmanager
def darkroom(data: Path, **settings: object) -> Iterator[MeasuredServer]:
    """Yield the real server with the data folder `data`, configured only by `settings`. It is healthy and its render processes are idle."""
    with darkroom_of(BIN, data, settings) as server:
        yield server


@contextmanager
def darkroom_of(commands: Path, data: Path, settings: Mapping[str, object]) -> Iterator[MeasuredServer]:
    """Yield the server of any checkout as `darkroom` does. `commands`: the folder of its command `darkroom`."""
    with _starting(commands, data, settings) as server:
        _wait_for_render_processes(server)
        yield server


@contextmanager
def darkroom_starting(data: Path, **settings: object) -> Iterator[MeasuredServer]:
    """Yield the real server as soon as `/health` is 200. It warms nothing unless `settings` say so, as that would disturb measurements."""
    with _starting(BIN, data, settings) as server:
        yield server


@contextmanager
def _starting(commands: Path, data: Path, settings: Mapping[str, object]) -> Iterator[MeasuredServer]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
    for name, value in {"warm": "none", **settings}.items():
        environ[name if name.isupper() else f"DARKROOM_{name.upper()}"] = str(value)
    port = free_port()
    command = [str(commands / "darkroom"), "serve", "--port", str(port), "--data", str(data)]
    with serving(command, port, environ, within_seconds=30) as server:
        yield server


@contextmanager
def bare(target: str, environ: Mapping[str, str], *, within_seconds: float = 30) -> Iterator[MeasuredServer]:
    """Yield an application of `tests.bench.bare` under Granian with the real server's options; `environ` says what it sends."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.bare_server", target, str(port)]
    with serving(command, port, {**os.environ, **environ}, within_seconds) as server:
        yield server


@contextmanager
def bare_starting() -> Iterator[MeasuredServer]:
    """Yield the bare application of `tests.bench.bare_start` as soon as `/health` is 200."""
    port = free_port()
    with serving([sys.executable, "-m", "tests.bench.bare_start", str(port)], port, dict(os.environ), within_seconds=30) as server:
        yield server


@contextmanager
def serving(
    command: Sequence[str],
    port: int,
    environ: Mapping[str, str],
    within_seconds: float,
    *,
    ready: str = "/health",
    folder: Path = REPOSITORY,
) -> Iterator[MeasuredServer]:
    """Yield any server once it is ready, and end it on leaving.

    command, environ: start it, on `port`, in `folder`. within_seconds: raises `RuntimeError` if it takes longer. ready: a path that is 200
    or 304 when it is ready.
    """
    with tempfile.NamedTemporaryFile() as log:
        started = time.perf_counter()
        with running(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=environ) as process:
            while not is_responding(port, ready):
                if process.poll() is not None or time.perf_counter() - started > within_seconds:
                    log.seek(0)
                    output = log.read().decode("utf-8", "replace")[-2_000:]
                    raise RuntimeError(f"{' '.join(command)} did not respond with 200 on {ready} in {within_seconds:g} seconds: {output}")
                time.sleep(0.001)
            yield MeasuredServer(process.pid, port, time.perf_counter() - started, Path(log.name))


def _wait_for_render_processes(server: MeasuredServer) -> None:
    """Return as soon as the render processes have started and used no CPU time for 0.3 seconds."""
    before = -1.0
    deadline = time.perf_counter() + 30
    while time.perf_counter() < deadline:
        render_processes = measure.render_processes(server.process_id)
        now = measure.cpu_seconds(render_processes)
        if render_processes and now == before:
            return
        before = now
        time.sleep(0.3)
    raise RuntimeError("the render processes did not become idle within 30 seconds")
