"""The process from which render processes are forked (see `service.worker.fork_server`), as the server sees it.

It is started with `subprocess`, never through the event loop: uvloop runs Python's own code between fork and exec in the child, which takes
locks that another thread of the server may have held at the fork. Such a child hangs for good, and uvloop blocks the event loop until the
child has started its program. `subprocess` runs no Python code there.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import structlog

from service.concurrency.spans import current_span
from service.errors import sanitize
from service.process import adopt_orphans

log = structlog.get_logger(__name__)

# Of its standard error, how much is logged of what has arrived at once: a codec that loops must not occupy the server.
_MAX_LOGGED_BYTES = 16_384
_READ_BYTES = 1 << 20

# For the end of a process that does nothing more than to end.
_ORPHAN_SECONDS = 5.0

# The variables of the server's environment that a render process gets, by name or by the beginning of the name: none holds a secret.
_VARIABLES = ("PATH", "LANG")
_VARIABLE_PREFIXES = ("MALLOC_", "VIPS_")

_ENVIRONMENT = {
    # One arena for each core would fragment glibc's heap, and each but the first reserves 64 MB of the capped address space.
    "MALLOC_ARENA_MAX": "1",
    # There are as many processes as cores: a second thread in each gains nothing when all are busy.
    "VIPS_CONCURRENCY": "1",
    # Above any cap: an image that does not fit into memory is refused, not spooled to a file, which a render process may not write. In g,
    # the largest unit that libvips reads: it takes `1t` for one byte.
    "VIPS_DISC_THRESHOLD": "1024g",
}


class ForkServer:
    """Forks render processes, in a process that is started when it is needed first, and again after it has ended."""

    def __init__(self, memory_bytes: int, tasks: anyio.abc.TaskGroup) -> None:
        """Create it without a process.

        memory_bytes: the cap on the address space of each render process.
        tasks: the task group that observes the process.
        """
        self._memory_bytes = memory_bytes
        self._tasks = tasks
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket

    def __repr__(self) -> str:
        return f"<ForkServer pid={None if self._process is None else self._process.pid}>"

    def fork(self, streams: Sequence[socket.socket]) -> int:
        """Request a render process with these standard streams, and return the id of the process that forks it.

        The new process becomes a child of this one. Its id is sent on its standard output, before anything else. Never waits. Raises
        `OSError` if the request cannot be made. Call it in the thread of the event loop.
        """
        if self._process is None or self._process.poll() is not None:
            self._process, self._requests = self._start()
        socket.send_fds(self._requests, [b"f"], [stream.fileno() for stream in streams])
        return self._process.pid

    def discard(self, process_id: int) -> None:
        """Use the process with this id no more: the next `fork` starts another. It does what was requested, and ends.

        Render processes that it has forked stay.
        """
        if self._process is not None and self._process.pid == process_id:
            self._process = None
            self._requests.close()

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """Return a new process, and the socket for requests to it.

        It ends when the thread that calls this ends (prctl(2), PR_SET_PDEATHSIG).
        """
        adopt_orphans()
        (requests, stdin), (errors, stderr) = socket.socketpair(), socket.socketpair()
        # -P: the module comes from the installed package, never from the folder that the server was started in.
        command = [sys.executable, "-P", "-m", "service.worker", str(os.getpid()), str(self._memory_bytes)]
        variables = {**environment(os.environ), **_ENVIRONMENT}
        with ExitStack() as unless_started, stdin, stderr:
            unless_started.callback(requests.close)
            unless_started.callback(errors.close)
            process = subprocess.Popen(command, stdin=stdin.fileno(), stdout=stderr.fileno(), stderr=stderr.fileno(), env=variables)  # noqa: S603
            unless_started.pop_all()
        requests.setblocking(False)
        self._tasks.start_soon(_log_and_reap, process, requests, errors)
        return process, requests


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the server's environment that a render process gets: none is a secret, or leads to one."""
    return {name: value for name, value in environ.items() if name in _VARIABLES or name.startswith(_VARIABLE_PREFIXES)}


async def log_standard_error(errors: socket.socket, process_id: int) -> None:
    """Log the standard error of a process until all of its writers have closed it, so that its buffer never fills."""
    # The request for which the process was started is not the one that it writes about.
    structlog.contextvars.clear_contextvars()
    current_span.set(None)
    try:
        reader, writer = await asyncio.open_unix_connection(sock=errors, limit=_READ_BYTES)
    except BaseException:
        errors.close()
        raise
    try:
        with suppress(ConnectionError):
            while chunk := await reader.read(_READ_BYTES):
                for line in chunk[:_MAX_LOGGED_BYTES].decode("utf-8", "replace").splitlines():
                    log.warning("a render process wrote to its standard error", pid=process_id, line=sanitize(line, 500))
    finally:
        writer.close()


async def wait_for_orphan(process_id: int) -> None:
    """Wait until a process that a fork server has forked has ended, without reaping it. Returns soon if something else has reaped it.

    For a moment after its id is known it is the child of the process in between, and not yet of this one.
    """
    with anyio.move_on_after(_ORPHAN_SECONDS):
        while _is_child_of_another(process_id):  # noqa: ASYNC110 - the kernel notifies nobody
            await anyio.sleep(0.01)
    with suppress(ChildProcessError):
        await anyio.to_thread.run_sync(os.waitid, os.P_PID, process_id, os.WEXITED | os.WNOWAIT)


def _is_child_of_another(process_id: int) -> bool:
    try:
        os.waitid(os.P_PID, process_id, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return Path(f"/proc/{process_id}").exists()
    return False


async def _log_and_reap(process: subprocess.Popen[bytes], requests: socket.socket, errors: socket.socket) -> None:
    try:
        await log_standard_error(errors, process.pid)
    finally:
        requests.close()
        process.kill()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(process.wait)
            await _reap_orphans(process.pid)


async def _reap_orphans(group: int) -> None:
    """Reap the process in between that a fork server may leave if it is killed. It has its process group, and ends at once."""
    with suppress(ChildProcessError), anyio.move_on_after(_ORPHAN_SECONDS):
        while True:
            process_id, _ = os.waitpid(-group, os.WNOHANG)  # noqa: ASYNC222 - it returns at once
            if process_id == 0:
                await anyio.sleep(0.01)
