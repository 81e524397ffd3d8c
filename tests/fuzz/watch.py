"""Observes the server from outside: its processes, their memory, CPU time and descriptors, its log, its spool, and its responsiveness."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import httpx
import msgspec
import psutil

from tests.support.server import Server
from tests.support.waiting import PATIENCE_SECONDS

MEBIBYTE = 1 << 20

# The resident memory that a worker may have, and the growth of its mean between the first and the last third of a run.
MAX_WORKER_BYTES = 400 * MEBIBYTE
MAX_GROWTH_BYTES = 64 * MEBIBYTE
MAX_MORE_DESCRIPTORS = 64
# A slow probe means that the event loop was blocked only if the worker used CPU time meanwhile: otherwise the machine was busy.
# The second limit holds in both cases.
MAX_FROZEN_CPU_SECONDS = 4.0
MAX_PROBE_SECONDS = 60.0

_SETTLE_SECONDS = PATIENCE_SECONDS
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

# Texts that must not appear in the log.
_WORDS = ("unexpected error", "Traceback", "Exception in ", "exception was never retrieved", "was never awaited")


class Memory(msgspec.Struct, frozen=True):
    """Resident bytes at a moment: of the worker, and of the largest render process."""

    worker_bytes: int
    renderer_bytes: int


class Watch:
    """Checks the processes, the memory and the log of one server."""

    def __init__(self, server: Server, slots: int, render_memory_bytes: int) -> None:
        """Watch a server that has just become healthy.

        slots: how many render processes it has. render_memory_bytes: the most that each may map.
        """
        self._server = server
        self._slots = slots
        self._render_memory_bytes = render_memory_bytes
        self._worker = server.worker()
        self._descriptors = self._worker.num_fds()
        self._log = server.data / "log.txt"
        self._log_bytes = 0
        self._renderers: list[int] = []
        self.memory: list[Memory] = []
        self.most_descriptors = 0

    @property
    def worker(self) -> psutil.Process:
        """The process that serves requests."""
        return self._worker

    def check(self) -> list[str]:
        """Return complaints about the server's current state; waits a while for temporary states, such as a process being replaced."""
        if not self.is_running():
            return [f"the server ended with {self._server.process.poll()}: {self._server.log()[-3_000:]}"]
        complaints = self._check_log()
        deadline = time.monotonic() + _SETTLE_SECONDS
        while (unsettled := self._unsettled()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return complaints + unsettled

    def finish(self) -> list[str]:
        """Return complaints at the end of a run: about memory that grew and files that were left in the spool."""
        complaints = []
        third = len(self.memory) // 3
        if third >= 2:
            first, last = (sum(sample.worker_bytes for sample in part) // third for part in (self.memory[:third], self.memory[-third:]))
            if last - first > MAX_GROWTH_BYTES:
                complaints.append(f"the worker grew from {first // MEBIBYTE} to {last // MEBIBYTE} MiB")
        deadline = time.monotonic() + _SETTLE_SECONDS
        while (left := sorted((self._server.data / "spool").iterdir())) and time.monotonic() < deadline:
            time.sleep(0.1)
        if left:
            complaints.append(f"{len(left)} files were left in the spool")
        return complaints

    def is_running(self) -> bool:
        """Return whether the supervisor and the first worker are still running."""
        return self._server.process.poll() is None and self._worker.is_running() and self._worker.status() != psutil.STATUS_ZOMBIE

    def render_cpu_seconds(self) -> float:
        """Return the CPU time that render processes have used so far, including those that have ended."""
        if not all(_exists(process_id) for process_id in self._renderers):
            self._renderers = [process.pid for process in self._server.render_processes()]
        return sum(cpu_seconds(process_id) for process_id in self._renderers) + ended_children_cpu_seconds(self._worker.pid)

    def _check_log(self) -> list[str]:
        with self._log.open("rb") as file:
            file.seek(self._log_bytes)
            new_text = file.read().decode("utf-8", "replace")
            self._log_bytes = file.tell()
        return [f"the log says: {line[:3_000]}" for line in new_text.splitlines() if any(word in line for word in _WORDS)]

    def _unsettled(self) -> list[str]:
        complaints = []
        zombies = [process.pid for process in self._server.processes() if _status(process) == psutil.STATUS_ZOMBIE]
        if zombies:
            complaints.append(f"{len(zombies)} processes that ended were not waited for")
        renderers = self._server.render_processes()
        self._renderers = [process.pid for process in renderers]
        if not 1 <= len(renderers) <= self._slots:
            complaints.append(f"{len(renderers)} render processes in place of 1 to {self._slots}")
        memory = Memory(_resident(self._worker), max((_resident(process) for process in renderers), default=0))
        self.memory.append(memory)
        if memory.worker_bytes > MAX_WORKER_BYTES:
            complaints.append(f"the worker holds {memory.worker_bytes // MEBIBYTE} MiB")
        if memory.renderer_bytes > self._render_memory_bytes:
            complaints.append(f"a render process holds {memory.renderer_bytes // MEBIBYTE} MiB")
        descriptors = self._worker.num_fds()
        self.most_descriptors = max(self.most_descriptors, descriptors)
        if descriptors > self._descriptors + MAX_MORE_DESCRIPTORS:
            complaints.append(f"the worker has {descriptors} open descriptors, at the start it had {self._descriptors}")
        return complaints


class LivenessProbe(threading.Thread):
    """Requests `/livez` every second over a new connection, and records when the event loop was blocked."""

    def __init__(self, server: Server, worker: psutil.Process) -> None:
        """Probe a server whose worker is `worker`."""
        super().__init__(daemon=True)
        self._url = f"{server.url}/livez"
        self._worker = worker
        self._over = threading.Event()
        self.complaints: list[str] = []
        self.slowest_seconds = 0.0

    def run(self) -> None:
        """Probe until `stop`."""
        while not self._over.wait(1.0):
            started, cpu_before = time.monotonic(), cpu_seconds(self._worker.pid)
            try:
                status = httpx.get(self._url, timeout=MAX_PROBE_SECONDS, trust_env=False).status_code
            except httpx.HTTPError as error:
                self.complaints.append(f"/livez: {error!r}")
                continue
            took, used = time.monotonic() - started, cpu_seconds(self._worker.pid) - cpu_before
            self.slowest_seconds = max(self.slowest_seconds, took)
            if status != 200:
                self.complaints.append(f"/livez is {status}")
            if took > MAX_FROZEN_CPU_SECONDS and used > MAX_FROZEN_CPU_SECONDS:
                self.complaints.append(f"/livez took {took:.1f} s, in which the worker used {used:.1f} s of CPU time")

    def stop(self) -> None:
        """Stop probing and wait for the last probe."""
        self._over.set()
        self.join()


def cpu_seconds(process_id: int) -> float:
    """Return the CPU time of a process in seconds (proc(5), `utime` and `stime` of `stat`), 0 for one that has ended."""
    return sum(_times(process_id)[:2])


def ended_children_cpu_seconds(process_id: int) -> float:
    """Return the CPU time in seconds of all children that a process has waited for (proc(5), `cutime` and `cstime` of `stat`)."""
    return sum(_times(process_id)[2:])


def _times(process_id: int) -> list[float]:
    try:
        fields = Path(f"/proc/{process_id}/stat").read_text("latin-1").rpartition(")")[2].split()
    except OSError:
        return []
    return [int(ticks) / _TICKS_PER_SECOND for ticks in fields[11:15]]


def _exists(process_id: int) -> bool:
    return Path(f"/proc/{process_id}").exists()


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        # The process ended after it was listed.
        return 0


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.Error:
        return ""
