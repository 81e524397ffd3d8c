"""One render process: start, handshake, framing, recycling; and the slot that gives it jobs.

The fork server (see `fork_server`) forks it with Unix sockets as its standard input, output and error. Jobs go to its input, because
only a socket can carry the open files of a job (unix(7), SCM_RIGHTS); replies come from its output, after its process id. The first
message of a process is `Ready`. Replies have no number: a process does one job at a time, and whoever stops waiting for a reply must
replace the process, or the next job would receive it.

A start that fails is repeated at once, because it may have been killed by somebody who wanted memory. Only after the second failure it is
reported, and then repeated every two seconds, whether there are jobs or not.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Literal, TypeAlias

import anyio
import anyio.abc
import anyio.to_thread
import structlog

from service import instruments
from service.errors import RenderFailedError, ServiceError, TooCostlyError
from service.rendering import process_stats, protocol
from service.rendering.circuit_breaker import FailureMode
from service.rendering.fork_server import ForkServer, log_standard_error, wait_for_orphan
from service.rendering.handover import open_files
from service.rendering.protocol import (
    LENGTH_BYTES,
    PROCESS_ID_BYTES,
    Failure,
    FindTrim,
    Job,
    MakeIntermediate,
    NeedsExclusive,
    NextRendition,
    Probe,
    Ready,
    Render,
    RenderLadder,
    Reply,
    SelfTest,
)

log = structlog.get_logger(__name__)

# A process with more than this in RAM after a job is replaced: fragmentation and the caches of codecs do not shrink by themselves.
RECYCLE_ABOVE_BYTES = 160 << 20

# So is one that has mapped more than this share of the address space that a new process has left, because pages that malloc gives back
# to the system stay mapped. After an animation of 140 frames a process has 430 of 512 MiB mapped and 45 in RAM.
RECYCLE_ABOVE_SHARE = 0.4

# Why a process has ended, for the metrics.
ProcessEnd: TypeAlias = Literal["crashed", "out-of-memory", "timed-out", "failed", "grown", "short-of-memory", "idle"]

_JOB_NAMES: Mapping[type[Job], str] = {
    Probe: "probe",
    Render: "render",
    RenderLadder: "ladder",
    NextRendition: "ladder",
    MakeIntermediate: "intermediate",
    FindTrim: "trim",
    SelfTest: "self-test",
}

# The exceptions of the sockets of a process that has ended.
_STREAM_ENDED = (anyio.BrokenResourceError, anyio.ClosedResourceError, asyncio.IncompleteReadError, ConnectionError)

# Those of a start that fails.
_START_FAILED = (OSError, *_STREAM_ENDED)

# Of a reply that has arrived and is not read yet.
_REPLY_BUFFER_BYTES = 1 << 20

_START_SECONDS = 20.0
_RETRY_START_SECONDS = 2.0

_TOO_COSTLY = "This image needs more memory to render than a render may have."
_TOO_COSTLY_REMEDY = "Request a smaller rendition, upload a smaller image, or raise DARKROOM_RENDER_MEMORY_BYTES on the server."


class RenderProcess:
    """One render process."""

    def __init__(
        self, pid: int, forked_by: int, jobs: anyio.abc.UNIXSocketStream, replies: asyncio.StreamReader, memory_bytes: int
    ) -> None:
        """Wrap a process that has just been started.

        pid: its process id. It is a child of this process.
        forked_by: the process id of the fork server that has forked it.
        jobs: the socket that takes jobs to it.
        replies: reads its standard output.
        memory_bytes: the cap on its address space.
        """
        self._exit_code: int | None = None
        self._reaped = anyio.Event()
        self._jobs = jobs
        self._replies = replies
        self._memory_bytes = memory_bytes
        self._mapped_when_new_bytes = 0
        self.pid = pid
        self.forked_by = forked_by
        # The jobs that may have left something behind in its memory.
        self.jobs = 0

    def __repr__(self) -> str:
        return f"<RenderProcess pid={self.pid} jobs={self.jobs}{' ended' if self.ended else ''}>"

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._exit_code is not None or os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

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
        if self._exit_code is None:
            os.kill(self.pid, signal.SIGKILL)

    async def exit_code(self) -> int:
        """Wait until the process has ended and return its exit code, the negated signal for one that was killed."""
        await self._reaped.wait()
        assert self._exit_code is not None  # noqa: S101 - `reap` sets it first
        return self._exit_code

    async def reap(self) -> None:
        """Wait until the process has ended, and release its process id."""
        await wait_for_orphan(self.pid)
        try:
            # Not in the thread: `kill` must never signal another process that has got the id.
            _, status = os.waitpid(self.pid, os.WNOHANG)  # noqa: ASYNC222 - it has ended
        except ChildProcessError:
            # It was killed before it had left the group of its fork server, and reaped with that.
            status = signal.SIGKILL
        self._exit_code = os.waitstatus_to_exitcode(status)
        self._reaped.set()

    async def _receive(self) -> Reply:
        length = int.from_bytes(await self._replies.readexactly(LENGTH_BYTES), "big")
        reply: Reply = protocol.decode_reply(await self._replies.readexactly(length))
        return reply

    def _reconsider(self, failure: Failure) -> Failure:
        """Return a failure, as one for want of memory if the process had nearly none left: codecs then report a broken file."""
        tightest_bytes = self._memory_bytes - process_stats.most_mapped_bytes(self.pid)
        if failure.kind not in {"broken", "unsupported", "failed"} or tightest_bytes > process_stats.NARROW_BYTES:
            return failure
        return Failure("too-costly", _TOO_COSTLY, remedy=_TOO_COSTLY_REMEDY, cause=failure.cause, short_of_memory=True)


class Slot:
    """The place of one render process; after a crash, a kill or too much growth it gets a new one.

    A slot without a process starts one as soon as a job needs it.
    """

    def __init__(
        self,
        memory_bytes: int,
        fork_server: ForkServer,
        tasks: anyio.abc.TaskGroup,
        started: anyio.Event,
        report: Callable[[Job, FailureMode | None, float], None],
    ) -> None:
        """Create a slot without a process; `start_process` starts one.

        memory_bytes: the cap on the address space of its process.
        fork_server: forks its processes.
        tasks: the task group that starts and observes processes.
        started: set once the first start of a process has succeeded, or has failed twice.
        report: called after each job with how it ended its process, if it did, and with the CPU time that it used, in seconds.
        """
        self._report = report
        self._job: Job = NextRendition()
        self._memory_bytes = memory_bytes
        self._fork_server = fork_server
        self._tasks = tasks
        self._started = started
        self._starting = anyio.Lock()
        self._repeats_start = False
        self._closed = False
        self.process: RenderProcess | None = None
        self.start_failure: str | None = None
        # The first message of its latest process.
        self.ready: Ready | None = None

    def __repr__(self) -> str:
        return f"<Slot {self.process!r}{' closed' if self._closed else ''}>"

    async def start_process(self) -> None:
        """Start a process before a job needs one, and try again until one starts."""
        if self._repeats_start:
            return
        self._repeats_start = True
        try:
            while not self._closed:
                try:
                    await self._running_process()
                except RenderFailedError:
                    await anyio.sleep(_RETRY_START_SECONDS)
                else:
                    return
        finally:
            self._repeats_start = False

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
        self.replace("short-of-memory")
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
            # An attack may have found out how the memory of this process is laid out, and all forks of one process share that.
            self._fork_server.discard(process.forked_by)
            self._start_another()
            exit_code = await process.exit_code()
            if not self._closed:
                end: ProcessEnd = "out-of-memory" if exit_code == -signal.SIGABRT else "crashed"
                self._count_job(end)
                instruments.RENDER_PROCESS_ENDS.add(end)
            if not self._closed and not (exit_code == -signal.SIGABRT and process.jobs > 0):
                self._report(self._job, "crashed", 0.0)
            raise _ended_error(exit_code) from error
        except BaseException:
            # Canceled in the middle of a job: its reply must not be taken for the next one's.
            self._report(self._job, "timed-out", process.cpu_seconds - cpu_seconds_before)
            self._count_job("timed-out")
            self.replace("timed-out")
            raise
        if not isinstance(reply, NeedsExclusive):
            self._count_job(reply.kind if isinstance(reply, Failure) else "ok")
        if isinstance(reply, Failure) and reply.kind == "failed":
            # An unforeseen exception may have left the process in any state.
            self.replace("failed")
            self._report(self._job, "failed", 0.0)
        elif not isinstance(reply, Failure | NeedsExclusive):
            self._report(self._job, None, 0.0)
        return reply

    def recycle_if_large(self) -> None:
        """Replace a process that has grown too large."""
        if self.process is not None and self.process.is_too_large:
            self.replace("grown")

    def replace(self, reason: ProcessEnd) -> None:
        """End the process and have a new one started; `reason` is for the metrics."""
        if self.process is not None and not self._closed:
            instruments.RENDER_PROCESS_ENDS.add(reason)
        self._start_another()

    def end_idle_process(self) -> None:
        """End the process, for which there is no job, until a job needs one."""
        if self.process is not None:
            instruments.RENDER_PROCESS_ENDS.add("crashed" if self.process.ended else "idle")
            self.process.kill()
            self.process = None

    def _start_another(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process = None
        if not self._closed:
            self._tasks.start_soon(self.start_process)

    def _count_job(self, result: str) -> None:
        instruments.RENDER_JOBS.add(_JOB_NAMES[type(self._job)], result)

    def close(self) -> None:
        """End the process, and start no other."""
        self._closed = True
        if self.process is not None:
            self.process.kill()

    async def _running_process(self) -> RenderProcess:
        async with self._starting:
            if self.process is not None and self.process.ended:
                # Between two jobs.
                instruments.RENDER_PROCESS_ENDS.add("crashed")
                self.process = None
            if self.process is None:
                try:
                    self.process = await self._start_twice()
                except _START_FAILED as error:
                    instruments.RENDER_START_FAILURES.add()
                    log.error("a render process did not start", cause=repr(error))  # noqa: TRY400 - its standard error is logged
                    self.start_failure = f"no render process can be started: {type(error).__name__}"
                    self._started.set()
                    # Whether the next job comes or not: while a server reports that it cannot render, it may get no requests.
                    self._tasks.start_soon(self.start_process)
                    raise not_started_error() from error
                self.start_failure = None
                self._started.set()
            return self.process

    async def _start_twice(self) -> RenderProcess:
        """Return a new process; raises the exception of the second start if both fail."""
        try:
            return await self._start()
        except _START_FAILED as error:
            instruments.RENDER_START_FAILURES.add()
            log.warning("the start of a render process is repeated", cause=repr(error))
            return await self._start()

    async def _start(self) -> RenderProcess:
        process, ready = await _start(self._fork_server, self._memory_bytes, self._tasks)
        self.ready = ready
        if ready.sandbox.missing and not self._started.is_set():
            log.warning("render processes are not fully confined", missing=ready.sandbox.missing)
        return process


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


async def _start(fork_server: ForkServer, memory_bytes: int, tasks: anyio.abc.TaskGroup) -> tuple[RenderProcess, Ready]:
    ours, theirs = zip(*(socket.socketpair() for _ in range(3)), strict=True)
    # Shielded, because nothing would close a socket that is handed over in part, or end a process whose id is not known.
    with anyio.fail_after(_START_SECONDS, shield=True):
        async with AsyncExitStack() as unless_forked:
            try:
                jobs = await unless_forked.enter_async_context(await anyio.abc.UNIXSocketStream.from_socket(ours[0]))
                replies, closing = await asyncio.open_unix_connection(sock=ours[1], limit=_REPLY_BUFFER_BYTES)
                unless_forked.callback(closing.close)
                errors = unless_forked.enter_context(ours[2])
                forked_by = fork_server.fork(theirs)
            finally:
                for one in theirs:
                    one.close()
            unless_forked.callback(fork_server.discard, forked_by)
            pid = int.from_bytes(await replies.readexactly(PROCESS_ID_BYTES), "big")
            unless_forked.pop_all()
    process = RenderProcess(pid, forked_by, jobs, replies, memory_bytes)
    tasks.start_soon(_log_and_reap, process, jobs, closing, errors)
    try:
        with anyio.fail_after(_START_SECONDS):
            ready = await process.handshake()
    except BaseException as error:
        process.kill()
        if isinstance(error, _START_FAILED):
            fork_server.discard(forked_by)
        raise
    log.debug("a render process is ready", pid=pid, libvips=ready.codecs.libvips)
    return process, ready


async def _log_and_reap(
    process: RenderProcess, jobs: anyio.abc.UNIXSocketStream, replies: asyncio.StreamWriter, errors: socket.socket
) -> None:
    """Log the standard error of a render process, and release its resources when it ends."""
    try:
        await log_standard_error(errors, process.pid)
    finally:
        with anyio.CancelScope(shield=True):
            await jobs.aclose()
            replies.close()
            await process.reap()
