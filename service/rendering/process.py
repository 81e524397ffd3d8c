"""One render process: start, handshake, framing, recycling; and the slot that always has one.

The server starts `python -m service.worker` with Unix sockets as its standard input, output and error. Jobs go to its input, because
only a socket can carry the open files of a job (unix(7), SCM_RIGHTS); replies come from its output. The first message of a process is
`Ready`. Replies have no number: a process does one job at a time, and whoever stops waiting for a reply must replace the process, or the
next job would receive it.

Processes are started with `subprocess`, never through the event loop: uvloop runs Python's own code between fork and exec in the child,
which takes locks that another thread of the server may have held at the fork. Such a child hangs for good, and uvloop blocks the event
loop until the child has started its program. `subprocess` runs no Python code there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import NamedTuple

import anyio
import anyio.abc
import anyio.to_thread
import structlog

from service.errors import RenderFailedError, ServiceError, TooCostlyError, sanitize
from service.rendering import process_stats, protocol
from service.rendering.circuit_breaker import FailureMode
from service.rendering.handover import open_files
from service.rendering.protocol import LENGTH_BYTES, Failure, Job, NeedsExclusive, NextRendition, Ready, Reply

log = structlog.get_logger(__name__)

# A process with more than this in RAM after a job is replaced: fragmentation and the caches of codecs do not shrink by themselves.
RECYCLE_ABOVE_BYTES = 160 << 20

# So is one that has mapped more than this share of the address space that a new process has left, because pages that malloc gives back
# to the system stay mapped. After an animation of 140 frames a process has 430 of 512 MiB mapped and 45 in RAM.
RECYCLE_ABOVE_SHARE = 0.4

# The exceptions of the sockets of a process that has ended.
_STREAM_ENDED = (anyio.BrokenResourceError, anyio.ClosedResourceError, asyncio.IncompleteReadError, ConnectionError)

# Of a reply that has arrived and is not read yet.
_REPLY_BUFFER_BYTES = 1 << 20

_START_SECONDS = 20.0
_RETRY_START_SECONDS = 2.0

_TOO_COSTLY = "This image needs more memory to render than a render may have."
_TOO_COSTLY_REMEDY = "Request a smaller rendition, upload a smaller image, or raise DARKROOM_RENDER_MEMORY_BYTES on the server."

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


class _Output(NamedTuple):
    """The server's end of a socket that a render process writes to."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class RenderProcess:
    """One render process."""

    def __init__(
        self, process: subprocess.Popen[bytes], jobs: anyio.abc.UNIXSocketStream, replies: asyncio.StreamReader, memory_bytes: int
    ) -> None:
        """Wrap a process that has just been started.

        process: the process.
        jobs: the socket that takes jobs to it.
        replies: reads its standard output.
        memory_bytes: the cap on its address space.
        """
        self._process = process
        self._jobs = jobs
        self._replies = replies
        self._memory_bytes = memory_bytes
        self._mapped_when_new_bytes = 0
        self.pid = process.pid
        # The jobs that may have left something behind in its memory.
        self.jobs = 0

    def __repr__(self) -> str:
        return f"<RenderProcess pid={self.pid} jobs={self.jobs}{' ended' if self.ended else ''}>"

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    @property
    def cpu_seconds(self) -> float:
        """The CPU time that it has used so far."""
        return process_stats.cpu_seconds(self.pid)

    @property
    def is_too_large(self) -> bool:
        """Whether it has grown beyond `RECYCLE_ABOVE_BYTES` or `RECYCLE_ABOVE_SHARE`."""
        used = process_stats.memory_usage(self.pid)
        room_bytes = self._memory_bytes - self._mapped_when_new_bytes
        grown_bytes = used.mapped_bytes - self._mapped_when_new_bytes
        return used.resident_bytes > RECYCLE_ABOVE_BYTES or grown_bytes > RECYCLE_ABOVE_SHARE * room_bytes

    async def handshake(self) -> Ready:
        """Return the first message; raises `TypeError` if that is not `Ready`."""
        ready = await self._receive()
        if not isinstance(ready, Ready):
            raise TypeError(f"expected Ready from a new render process, received {type(ready).__name__}")
        self._mapped_when_new_bytes = process_stats.memory_usage(self.pid).mapped_bytes
        return ready

    async def submit(self, job: Job) -> Reply:
        """Return the reply to `job`; raises `RenderFailedError` before anything is sent if a file of the job cannot be opened."""
        with open_files(job) as (pathless, descriptors):
            message = protocol.framed(pathless)
            if descriptors:
                # The descriptors go with the length only, which is never sent in parts: each part would take them along.
                await self._jobs.send_fds(message[:LENGTH_BYTES], descriptors)
                message = message[LENGTH_BYTES:]
            await self._jobs.send(message)
        reply = await self._receive()
        # An original that needs exclusive use has only been looked at.
        self.jobs += not isinstance(reply, NeedsExclusive)
        return self._reconsider(reply) if isinstance(reply, Failure) else reply

    def kill(self) -> None:
        """End the process at once."""
        if not self.ended:
            self._process.kill()

    async def exit_code(self) -> int:
        """Wait until the process has ended and return its exit code, the negated signal for one that was killed."""
        return await _exit_code(self._process)

    async def _receive(self) -> Reply:
        length = int.from_bytes(await self._replies.readexactly(LENGTH_BYTES), "big")
        reply: Reply = protocol.decode_reply(await self._replies.readexactly(length))
        return reply

    def _reconsider(self, failure: Failure) -> Failure:
        """Return a failure, as one for want of memory if the process had nearly none left: codecs then report a broken file."""
        tightest_bytes = self._memory_bytes - process_stats.memory_usage(self.pid).most_mapped_bytes
        if failure.kind not in {"broken", "unsupported", "failed"} or tightest_bytes > process_stats.NARROW_BYTES:
            return failure
        return Failure("too-costly", _TOO_COSTLY, remedy=_TOO_COSTLY_REMEDY, cause=failure.cause, short_of_memory=True)


class Slot:
    """The place of one render process; after a crash, a kill or too much growth it gets a new one."""

    def __init__(
        self,
        memory_bytes: int,
        tasks: anyio.abc.TaskGroup,
        started: anyio.Event,
        report: Callable[[Job, FailureMode | None, float], None],
    ) -> None:
        """Create a slot without a process; `start_process` starts one.

        memory_bytes: the cap on the address space of its process.
        tasks: the task group that starts and observes processes.
        started: set once the first start of a process has succeeded or failed.
        report: called after each job with how it ended its process, if it did, and with the CPU time that it used, in seconds.
        """
        self._report = report
        self._job: Job = NextRendition()
        self._memory_bytes = memory_bytes
        self._tasks = tasks
        self._started = started
        self._starting = anyio.Lock()
        self._closed = False
        self.process: RenderProcess | None = None
        self.start_failure: str | None = None
        # The first message of its latest process.
        self.ready: Ready | None = None

    def __repr__(self) -> str:
        return f"<Slot {self.process!r}{' closed' if self._closed else ''}>"

    async def start_process(self) -> None:
        """Start a process before a job needs one, and try again until one starts."""
        while not self._closed:
            try:
                await self._running_process()
            except RenderFailedError:
                await anyio.sleep(_RETRY_START_SECONDS)
            else:
                return

    async def run(self, job: Job) -> Reply:
        """Return the only reply to `job`. Whether it fails or not, the slot can take the next job at once."""
        reply = await self.first_reply(job)
        self.recycle_if_large()
        return reply

    async def first_reply(self, job: Job) -> Reply:
        """Return the first reply to `job`, and leave the process as it is, because it may have more of them.

        A job that ran out of memory in a process that has done other jobs is done once more in a new one: the want may be their fault.
        """
        self._job = job
        is_new = (await self._running_process()).jobs == 0
        try:
            reply = await self.submit(job)
        except TooCostlyError:
            if is_new:
                raise
        else:
            if is_new or not (isinstance(reply, Failure) and reply.short_of_memory):
                return reply
        log.info("a job that ran out of memory is done again in a new process", job=type(job).__name__)
        self.replace()
        return await self.submit(job)

    async def submit(self, job: Job) -> Reply:
        """Return the next reply of the process to `job`; `NextRendition` continues the job of `first_reply`."""
        process = await self._running_process()
        cpu_seconds_before = process.cpu_seconds
        try:
            reply = await process.submit(job)
        except RenderFailedError:
            # A file could not be opened: nothing was sent.
            raise
        except _STREAM_ENDED as error:
            self.replace()
            exit_code = await process.exit_code()
            if not self._closed and not (exit_code == -signal.SIGABRT and process.jobs > 0):
                self._report(self._job, "crashed", 0.0)
            raise _ended_error(exit_code) from error
        except BaseException:
            # Canceled in the middle of a job: its reply must not be taken for the next one's.
            self._report(self._job, "timed-out", process.cpu_seconds - cpu_seconds_before)
            self.replace()
            raise
        if isinstance(reply, Failure) and reply.kind == "failed":
            # An unforeseen exception may have left the process in any state.
            self.replace()
            self._report(self._job, "failed", 0.0)
        elif not isinstance(reply, Failure | NeedsExclusive):
            self._report(self._job, None, 0.0)
        return reply

    def recycle_if_large(self) -> None:
        """Replace a process that has grown too large."""
        if self.process is not None and self.process.is_too_large:
            self.replace()

    def replace(self) -> None:
        """End the process and have a new one started."""
        if self.process is not None:
            self.process.kill()
            self.process = None
        if not self._closed:
            self._tasks.start_soon(self.start_process)

    def close(self) -> None:
        """End the process, and start no other."""
        self._closed = True
        if self.process is not None:
            self.process.kill()

    async def _running_process(self) -> RenderProcess:
        async with self._starting:
            if self.process is None or self.process.ended:
                self.process = None
                try:
                    self.process, ready = await _start(self._memory_bytes, self._tasks)
                except (OSError, *_STREAM_ENDED) as error:
                    self.start_failure = f"no render process can be started: {type(error).__name__}"
                    log.error("a render process did not start", cause=repr(error))  # noqa: TRY400 - its standard error is logged
                    self._started.set()
                    raise not_started_error() from error
                self.start_failure = None
                self.ready = ready
                if ready.sandbox.missing and not self._started.is_set():
                    log.warning("render processes are not fully confined", missing=ready.sandbox.missing)
                self._started.set()
            return self.process


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the server's environment that a render process gets: none is a secret, or leads to one."""
    return {name: value for name, value in environ.items() if name in _VARIABLES or name.startswith(_VARIABLE_PREFIXES)}


def not_started_error() -> ServiceError:
    """Return the error of a server that cannot start any render process."""
    return RenderFailedError("No render process can be started.", remedy="Read the reason in the server's log.", retry_after_seconds=5)


def _ended_error(exit_code: int) -> ServiceError:
    if exit_code == -signal.SIGABRT:
        # glib aborts the process when an allocation fails under the cap.
        return TooCostlyError(_TOO_COSTLY, remedy=_TOO_COSTLY_REMEDY)
    return RenderFailedError(
        "The render process ended in the middle of this render.",
        received=f"exit code {exit_code}",
        remedy="Try again; a new process has taken its place.",
        retry_after_seconds=1,
    )


async def _start(memory_bytes: int, tasks: anyio.abc.TaskGroup) -> tuple[RenderProcess, Ready]:
    ours, theirs = zip(*(socket.socketpair() for _ in range(3)), strict=True)
    try:
        async with AsyncExitStack() as unless_started:
            jobs = await unless_started.enter_async_context(await anyio.abc.UNIXSocketStream.from_socket(ours[0]))
            outputs: list[_Output] = []
            for one in ours[1:]:
                outputs.append(_Output(*await asyncio.open_unix_connection(sock=one, limit=_REPLY_BUFFER_BYTES)))
                unless_started.callback(outputs[-1].writer.close)
            replies, errors = outputs
            process = _spawn(memory_bytes, *theirs)
            unless_started.pop_all()
    finally:
        for one in theirs:
            one.close()
    tasks.start_soon(_log_and_reap, process, jobs, replies, errors)
    render_process = RenderProcess(process, jobs, replies.reader, memory_bytes)
    try:
        with anyio.fail_after(_START_SECONDS):
            ready = await render_process.handshake()
    except BaseException:
        render_process.kill()
        raise
    log.debug("a render process is ready", pid=process.pid, libvips=ready.codecs.libvips)
    return render_process, ready


def _spawn(memory_bytes: int, stdin: socket.socket, stdout: socket.socket, stderr: socket.socket) -> subprocess.Popen[bytes]:
    """Start a process from the thread of the event loop: it ends when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG)."""
    # -P: the module comes from the installed package, never from the folder that the server was started in.
    command = [sys.executable, "-P", "-m", "service.worker", str(os.getpid()), str(memory_bytes)]
    variables = {**environment(os.environ), **_ENVIRONMENT}
    return subprocess.Popen(command, stdin=stdin.fileno(), stdout=stdout.fileno(), stderr=stderr.fileno(), env=variables)  # noqa: S603


async def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """Wait until a process has ended, in a thread: it has closed its sockets or been killed, so this does not take long."""
    return await anyio.to_thread.run_sync(process.wait)


async def _log_and_reap(process: subprocess.Popen[bytes], jobs: anyio.abc.UNIXSocketStream, replies: _Output, errors: _Output) -> None:
    """Log the standard error of a render process, so that its buffer never fills, and release its resources when it ends."""
    try:
        with suppress(*_STREAM_ENDED):
            while chunk := await errors.reader.read(_REPLY_BUFFER_BYTES):
                for line in chunk.decode("utf-8", "replace").splitlines():
                    log.warning("a render process wrote to its standard error", pid=process.pid, line=sanitize(line, 500))
    finally:
        with anyio.CancelScope(shield=True):
            await jobs.aclose()
            for output in (replies, errors):
                output.writer.close()
            await _exit_code(process)
