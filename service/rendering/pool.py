"""The render processes: slots, queue, deadline, recycling."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import TypeVar

import anyio
import anyio.abc
import msgspec
import structlog
from anyio.streams.buffered import BufferedByteReceiveStream

from service.errors import (
    BadTransformError,
    BrokenImageError,
    CannotFitError,
    DamagedOriginalError,
    DeadlineExceededError,
    FormatNotOfferedError,
    OverloadedError,
    RenderFailedError,
    ServiceError,
    TooComplexError,
    TooCostlyError,
    TooManyPixelsError,
    UnsupportedFormatError,
    sanitize,
)
from service.images.formats import Format
from service.rendering import process_stats, protocol
from service.rendering.circuit_breaker import CircuitBreaker, FailureMode
from service.rendering.handover import handed_over
from service.rendering.protocol import (
    LENGTH_BYTES,
    Failure,
    FindTrim,
    Intermediate,
    Job,
    MakeIntermediate,
    NeedsExclusive,
    NextRendition,
    Probe,
    Probed,
    Ready,
    Render,
    Rendered,
    RenderLadder,
    Reply,
    Sandbox,
    SelfTest,
    Trimmed,
)

log = structlog.get_logger(__name__)

ReplyT = TypeVar("ReplyT", Probed, Rendered, Intermediate, Trimmed)

# A process that has grown past this between jobs is replaced: fragmentation and codec caches do not shrink by themselves.
RECYCLE_ABOVE_BYTES = 160 << 20

# And one that has mapped more than this share of the address space that a new process has left: pages that malloc gives back to the
# system stay mapped. After an animation of 140 frames a process has 430 of 512 MiB mapped and 45 in RAM.
RECYCLE_ABOVE_SHARE = 0.4

# How the pipes to a process say that it has ended.
_PIPE_ENDED = (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError)

_TOO_COSTLY = "This image needs more memory to render than a render may have."
_TOO_COSTLY_REMEDY = "Ask for a smaller rendition, send a smaller image, or raise DARKROOM_RENDER_MEMORY_BYTES on the server."

# After so many failures in a row, of whatever images, the process is reported as one that cannot render; and as long without a job, in
# seconds, a test is made to find out whether that is still so.
FAILING_AFTER = 5
_QUIET_SECONDS = 5.0

# A job that is ended at the deadline has computed for this share of the time at least, if the time is its own fault.
_BUSY_SHARE = 0.5

_START_SECONDS = 20.0
_RETRY_START_SECONDS = 2.0

# What a render is thought to take until some have been seen, and how much of the mean the newest one makes up.
_FIRST_GUESS_SECONDS = 0.2
_NEWEST_WEIGHT = 0.1

_ERRORS: dict[str, type[ServiceError]] = {
    "unsupported": UnsupportedFormatError,
    "broken": BrokenImageError,
    "too-many-pixels": TooManyPixelsError,
    "too-complex": TooComplexError,
    "too-costly": TooCostlyError,
    "damaged": DamagedOriginalError,
    "failed": RenderFailedError,
    "bad-transform": BadTransformError,
    "cannot-fit": CannotFitError,
}

# What a render process is given of the server's environment, by name or by how the name begins.
_VARIABLES = ("PATH", "LANG")
_VARIABLE_PREFIXES = ("MALLOC_", "VIPS_")

_ENVIRONMENT = {
    # One arena per core is what fragments glibc's heap, and each but the first reserves 64 MB of the address space that is capped.
    "MALLOC_ARENA_MAX": "1",
    # As many processes as cores run already; a second thread in each gains nothing when both are busy.
    "VIPS_CONCURRENCY": "1",
    # Above any cap: an image that does not fit is refused rather than spooled, to a file that a render process may not write. In g, the
    # largest unit that libvips reads: of `1t` it takes the 1 only, as bytes.
    "VIPS_DISC_THRESHOLD": "1024g",
}


class CodecSupport(msgspec.Struct, frozen=True):
    """What the libvips of the render processes can do: its version, and the formats that it reads and writes."""

    libvips: str
    reads: list[str]
    writes: list[Format]

    def require_writable(self, image_format: Format) -> None:
        """Return if renditions can be made in `image_format`; raises `FormatNotOfferedError`."""
        if image_format not in self.writes:
            raise FormatNotOfferedError(
                f"The libvips of this server writes no {image_format}.",
                expected=", ".join(self.writes),
                received=image_format,
                remedy="Ask for one of the formats above, or run a libvips that has this one.",
            )


class RenderPool:
    """As many render processes as slots, each doing one job at a time, and a bounded queue before them.

    Behind the queue is a lane for what nobody waits for: see `ladder`.
    """

    def __init__(self, *, slots: int, queue_limit: int, memory_bytes: int, render_seconds: float, wait_seconds: float) -> None:
        """Take how many processes run, how many jobs may wait, the address space of each process, and two times in seconds.

        After `render_seconds` a job is ended by killing its process; `wait_seconds` is how long a client is kept waiting.
        """
        self._slot_count = slots
        self._memory_bytes = memory_bytes
        self._queue_limit = queue_limit
        self._render_seconds = render_seconds
        self._wait_seconds = wait_seconds
        self._slots: list[_Slot] = []
        self._free: list[_Slot] = []
        self._gate = anyio.Semaphore(slots, fast_acquire=True)
        self._exclusive = anyio.Lock()
        self._waiting = 0
        self._mean_seconds = _FIRST_GUESS_SECONDS
        self._slot_released = anyio.Event()
        self._started = anyio.Event()
        self._failures_in_a_row = 0
        self._last_ended_at = 0.0
        self.circuit_breaker = CircuitBreaker()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RenderPool]:
        """Start the processes, without waiting for them, and end them on leaving."""
        async with anyio.create_task_group() as tasks:
            self._slots = [_Slot(self._memory_bytes, tasks, self._started, self._process_ended) for _ in range(self._slot_count)]
            self._free = list(self._slots)
            for slot in self._slots:
                tasks.start_soon(slot.warm)
            try:
                yield self
            finally:
                for slot in self._slots:
                    slot.close()
                tasks.cancel_scope.cancel()

    @property
    def start_failure(self) -> str | None:
        """Why no render process can be started, `None` while that is not known to be so."""
        failures = [slot.start_failure for slot in self._slots]
        return failures[0] if failures and all(failures) else None

    @property
    def render_failure(self) -> str | None:
        """Why renders seem to fail whatever is rendered, `None` while they do not."""
        if self._failures_in_a_row < FAILING_AFTER:
            return None
        return f"the last {self._failures_in_a_row} renders ended their render process"

    async def self_test(self) -> None:
        """Find out whether renders still fail, unless requests show it: `render_failure` is `None` after a test that succeeds."""
        if self._failures_in_a_row < FAILING_AFTER or anyio.current_time() - self._last_ended_at < _QUIET_SECONDS:
            return
        try:
            await self.run_in_background(SelfTest(), Rendered)
        except ServiceError as error:
            log.error("render processes fail a test with a picture of one pixel", problem=error.slug)  # noqa: TRY400 - its cause is logged

    @property
    def process_ids(self) -> list[int]:
        """The render processes that run now."""
        return [slot.process.pid for slot in self._slots if slot.process is not None]

    @property
    def sandbox(self) -> Sandbox | None:
        """How the render processes are confined, `None` before one has started."""
        return next((slot.sandbox for slot in self._slots if slot.sandbox is not None), None)

    async def codec_support(self) -> CodecSupport:
        """Return what a render process has said of its libvips, once one has started; raises `RenderFailedError` when none can be."""
        await self._started.wait()
        told = next((slot.codec_support for slot in self._slots if slot.codec_support is not None), None)
        if told is None:
            raise _not_started()
        return told

    async def run(self, job: Job, expect: type[ReplyT]) -> ReplyT:
        """Return what a render process makes of `job`.

        Raises `OverloadedError` at once when the queue is full or could not be worked off in time, `DeadlineExceededError` when the job was
        killed, `RenderFailedError` or `TooCostlyError` when its process ended, `RenderGaveUpError` when that has happened twice (see
        `circuit`), and the error that the job itself met.
        """
        self.circuit_breaker.raise_if_open(job)
        self._admit()
        with self._deadline():
            reply = await self._run_in_turn(job)
            if isinstance(reply, NeedsExclusive):
                try:
                    async with self._exclusive:
                        reply = await self._run_in_turn(_exclusive(job))
                finally:
                    self._slot_released.set()
        return _checked(reply, expect)

    async def run_in_background(self, job: Probe | Render | MakeIntermediate | FindTrim | SelfTest, expect: type[ReplyT]) -> ReplyT:
        """Return what a render process makes of `job` when no one else needs it; raises as `run` does, save `OverloadedError`."""
        async with aclosing(self._replies_in_background(job)) as replies:
            return _checked(await anext(replies), expect)

    async def render_ladder(self, job: RenderLadder) -> AsyncGenerator[Rendered, None]:
        """Give the renditions of a ladder in the order of its widths and formats, when no one else needs a render process.

        It starts when nobody waits and, where there are several slots, leaves one of them free. When somebody waits it ends after the
        rendition at work: who wants the others asks again. Each rendition may take as long as any render. Raises as `run` does, save
        `OverloadedError`. Close it where it is asked for (`aclosing`): its slot is free then.
        """
        async with aclosing(self._replies_in_background(job)) as replies:
            for _ in range(len(job.widths) * len(job.formats)):
                reply = await anext(replies, None)
                if reply is None:
                    return
                yield _checked(reply, Rendered)

    async def wait_until_idle(self, *, exclusive: bool = False) -> None:
        """Return once nobody waits and a job in the background has a slot: what it works on is best read then.

        With `exclusive`, once no other heavy original is worked on either.
        """
        # Where there are several slots one stays free: who comes next finds it.
        needed = min(2, self._slot_count)
        while self._has_waiters or len(self._free) < needed or (exclusive and self._exclusive.locked()):
            if self._slot_released.is_set():
                self._slot_released = anyio.Event()
            await self._slot_released.wait()

    def _admit(self) -> None:
        expected_seconds = (self._waiting + 1) / self._slot_count * self._mean_seconds if not self._free else 0.0
        if self._waiting < self._queue_limit and expected_seconds <= self._wait_seconds:
            return
        raise OverloadedError(
            "More renders are waiting than can be made in time.",
            expected=f"at most {self._queue_limit} waiting, and a wait of at most {self._wait_seconds:g} s",
            received=f"{self._waiting} waiting, about {expected_seconds:.1f} s",
            remedy="Try again after the time that Retry-After gives.",
            retry_after_seconds=max(1, math.ceil(min(expected_seconds, self._wait_seconds) / 2)),
        )

    @contextmanager
    def _deadline(self) -> Iterator[None]:
        try:
            with anyio.fail_after(self._render_seconds):
                yield
        except TimeoutError:
            raise DeadlineExceededError(
                f"The render was ended after {self._render_seconds:g} seconds.",
                remedy="Ask for a smaller rendition or a cheaper format, or try again when the server is less busy.",
                retry_after_seconds=10,
            ) from None

    async def _run_in_turn(self, job: Job) -> Reply:
        self._waiting += 1
        arrived = anyio.current_time()
        try:
            await self._gate.acquire()
        finally:
            self._waiting -= 1
            # The last one who waited may have given up.
            self._slot_released.set()
        slot = self._take()
        started = anyio.current_time()
        try:
            reply = await slot.run(job)
            return msgspec.structs.replace(reply, queue_seconds=started - arrived) if isinstance(reply, Rendered) else reply
        finally:
            self._mean_seconds += _NEWEST_WEIGHT * (anyio.current_time() - started - self._mean_seconds)
            self._give_back(slot)

    async def _replies_in_background(self, job: Job) -> AsyncGenerator[Reply, None]:
        """Give one reply after another, each but the first asked for by `NextRendition`, until somebody waits."""
        self.circuit_breaker.raise_if_open(job)
        heavy = False
        async with aclosing(self._replies_in_spare_time(job, exclusive=False)) as replies:
            async for reply in replies:
                if isinstance(reply, NeedsExclusive):
                    heavy = True
                    break
                yield reply
        if heavy:
            async with aclosing(self._replies_in_spare_time(_exclusive(job), exclusive=True)) as replies:
                async for reply in replies:
                    yield reply

    async def _replies_in_spare_time(self, job: Job, *, exclusive: bool) -> AsyncGenerator[Reply, None]:
        await self.wait_until_idle(exclusive=exclusive)
        self._gate.acquire_nowait()
        slot = self._take()
        if exclusive:
            self._exclusive.acquire_nowait()
        try:
            with self._deadline():
                reply = await slot.begin(job)
            yield reply
            while not self._has_waiters:
                with self._deadline():
                    reply = await slot.submit(NextRendition())
                if isinstance(reply, Failure) and reply.short_of_memory:
                    # A new process may have room for the rest, which is asked for again as if somebody waited.
                    slot.replace()
                    return
                yield reply
        finally:
            slot.recycle_if_large()
            if exclusive:
                self._exclusive.release()
            self._give_back(slot)

    def _process_ended(self, job: Job, mode: FailureMode | None, busy_seconds: float) -> None:
        """Take note of a job that has a reply, or that ended its process and how. `busy_seconds`: the CPU time that it took."""
        self._last_ended_at = anyio.current_time()
        if mode is None:
            self._failures_in_a_row = 0
            return
        if mode == "timed-out" and busy_seconds < self._render_seconds * _BUSY_SHARE:
            # It waited for a slot, for others on this machine or for the disk: that is no fault of the image.
            return
        self._failures_in_a_row += 1
        self.circuit_breaker.record(job, mode)

    @property
    def _has_waiters(self) -> bool:
        """Whether somebody waits whom the end of a job in the background would help."""
        return self._waiting > 0 or self._exclusive.statistics().tasks_waiting > 0

    def _take(self) -> _Slot:
        """Take the slot that has been free for longest; one that waits for a new process only where no other is free.

        In turn, so that a process that fails fast does not get every job.
        """
        slot = next((slot for slot in self._free if slot.process is not None), self._free[0])
        self._free.remove(slot)
        return slot

    def _give_back(self, slot: _Slot) -> None:
        self._free.append(slot)
        self._gate.release()
        self._slot_released.set()


class _Slot:
    """A place for one render process; after a crash, a kill or too much growth it gets a new one."""

    def __init__(
        self,
        memory_bytes: int,
        tasks: anyio.abc.TaskGroup,
        started: anyio.Event,
        report: Callable[[Job, FailureMode | None, float], None],
    ) -> None:
        """Create a slot whose process is started by `warm`.

        memory_bytes: the cap on the address space of its process.
        tasks: where what runs beside a job is started.
        started: set once the first start of a process has succeeded or failed.
        report: called after each job with how it ended its process, if it did, and the CPU time it took, in seconds.
        """
        self._report = report
        self._job: Job = NextRendition()
        self._memory_bytes = memory_bytes
        self._tasks = tasks
        self._started = started
        self._starting = anyio.Lock()
        self._closed = False
        self.process: _RenderProcess | None = None
        self.start_failure: str | None = None
        self.codec_support: CodecSupport | None = None
        self.sandbox: Sandbox | None = None

    async def warm(self) -> None:
        """Have a process ready before a job needs one, trying until one starts."""
        while not self._closed:
            try:
                await self._ready()
            except RenderFailedError:
                await anyio.sleep(_RETRY_START_SECONDS)
            else:
                return

    async def run(self, job: Job) -> Reply:
        """Return the reply of this slot's process to `job`; whatever goes wrong, the slot is usable again at once."""
        reply = await self.begin(job)
        self.recycle_if_large()
        return reply

    async def begin(self, job: Job) -> Reply:
        """Return the first reply to `job`, and keep the process: it may have more to say of this job.

        What failed for want of memory in a process that has done other jobs is done once more in a new one.
        """
        self._job = job
        is_new = (await self._ready()).jobs == 0
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
        """Return the next reply of this slot's process to `job`, with which it goes on if that is `NextRendition`."""
        process = await self._ready()
        busy_before_seconds = process.cpu_seconds
        try:
            reply = await process.submit(job)
        except RenderFailedError:
            # Its file cannot be opened: nothing was sent.
            raise
        except _PIPE_ENDED as error:
            self.replace()
            exit_code = await process.exit_code()
            if not self._closed and not (exit_code == -signal.SIGABRT and process.jobs > 0):
                self._report(self._job, "crashed", 0.0)
            raise _ended(exit_code) from error
        except BaseException:
            self._report(self._job, "timed-out", process.cpu_seconds - busy_before_seconds)
            # In the middle of a job: nothing that this process says later can be told from what was asked.
            self.replace()
            raise
        if isinstance(reply, Failure) and reply.kind == "failed":
            # Nobody foresaw this, so nobody knows in what state it has left the process.
            self.replace()
            self._report(self._job, "failed", 0.0)
        elif not isinstance(reply, Failure | NeedsExclusive):
            self._report(self._job, None, 0.0)
        return reply

    def recycle_if_large(self) -> None:
        """Replace a process that has grown too large."""
        if self.process is not None and self.process.is_too_large:
            self.replace()

    def close(self) -> None:
        """End the process for good."""
        self._closed = True
        if self.process is not None:
            self.process.kill()

    def replace(self) -> None:
        """End the process and have a new one started."""
        if self.process is not None:
            self.process.kill()
            self.process = None
        if not self._closed:
            self._tasks.start_soon(self.warm)

    async def _ready(self) -> _RenderProcess:
        async with self._starting:
            if self.process is None or self.process.ended:
                self.process = None
                try:
                    self.process, ready = await _start(self._memory_bytes, self._tasks)
                except (OSError, *_PIPE_ENDED) as error:
                    self.start_failure = f"no render process can be started: {type(error).__name__}"
                    log.error("a render process did not start", cause=repr(error))  # noqa: TRY400 - its standard error is logged
                    self._started.set()
                    raise _not_started() from error
                self.start_failure = None
                self.codec_support = CodecSupport(ready.libvips, ready.reads, ready.writes)
                self.sandbox = ready.sandbox
                if ready.sandbox.missing and not self._started.is_set():
                    log.warning("render processes are not fully confined", missing=ready.sandbox.missing)
                self._started.set()
            return self.process


class _RenderProcess:
    """One process, the socket that takes jobs to it with their open files, and the pipe that its replies come through."""

    def __init__(self, process: anyio.abc.Process, jobs: anyio.abc.UNIXSocketStream, memory_bytes: int) -> None:
        if process.stdout is None:
            raise ValueError("a render process needs a pipe for its replies")
        self._process = process
        self._jobs = jobs
        self._replies = BufferedByteReceiveStream(process.stdout)
        self._memory_bytes = memory_bytes
        self._mapped_when_new_bytes = 0
        self.pid = process.pid
        # How many replies it gave that may have left something behind.
        self.jobs = 0

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    @property
    def cpu_seconds(self) -> float:
        """The CPU time that it has taken so far."""
        return process_stats.cpu_seconds(self.pid)

    @property
    def is_too_large(self) -> bool:
        used = process_stats.memory_usage(self.pid)
        room_bytes = self._memory_bytes - self._mapped_when_new_bytes
        grown_bytes = used.mapped_bytes - self._mapped_when_new_bytes
        return used.resident_bytes > RECYCLE_ABOVE_BYTES or grown_bytes > RECYCLE_ABOVE_SHARE * room_bytes

    async def ready(self) -> Ready:
        """Return the first message; raises `TypeError` for another one."""
        ready = await self.reply()
        if not isinstance(ready, Ready):
            raise TypeError(f"expected Ready from a new render process, received {type(ready).__name__}")
        self._mapped_when_new_bytes = process_stats.memory_usage(self.pid).mapped_bytes
        return ready

    async def submit(self, job: Job) -> Reply:
        with handed_over(job) as (nameless, descriptors):
            message = protocol.framed(nameless)
            if descriptors:
                # With the length alone, which is never sent in parts: each part would take them along.
                await self._jobs.send_fds(message[:LENGTH_BYTES], descriptors)
                message = message[LENGTH_BYTES:]
            await self._jobs.send(message)
        reply = await self.reply()
        # A heavy original has been looked at, no more.
        self.jobs += not isinstance(reply, NeedsExclusive)
        return self._doubted(reply) if isinstance(reply, Failure) else reply

    async def reply(self) -> Reply:
        length = int.from_bytes(await self._replies.receive_exactly(LENGTH_BYTES), "big")
        reply: Reply = protocol.decode_reply(await self._replies.receive_exactly(length))
        return reply

    def _doubted(self, failure: Failure) -> Failure:
        """Return a failure, as one for want of memory where the process had nearly none left: codecs report that as a broken file."""
        tightest_bytes = self._memory_bytes - process_stats.memory_usage(self.pid).most_mapped_bytes
        if failure.kind not in {"broken", "unsupported", "failed"} or tightest_bytes > process_stats.NARROW_BYTES:
            return failure
        return Failure("too-costly", _TOO_COSTLY, remedy=_TOO_COSTLY_REMEDY, cause=failure.cause, short_of_memory=True)

    def kill(self) -> None:
        if not self.ended:
            self._process.kill()

    async def exit_code(self) -> int:
        return await self._process.wait()


async def _start(memory_bytes: int, tasks: anyio.abc.TaskGroup) -> tuple[_RenderProcess, Ready]:
    ours, theirs = socket.socketpair()
    jobs = await anyio.abc.UNIXSocketStream.from_socket(ours)
    try:
        with theirs:
            # -P: the module comes from the installed package, never from the folder that the server was started in.
            process = await anyio.open_process(
                [sys.executable, "-P", "-m", "service.worker", str(os.getpid()), str(memory_bytes)],
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**environment(os.environ), **_ENVIRONMENT},
            )
    except BaseException:
        await jobs.aclose()
        raise
    tasks.start_soon(_log_and_reap, process, jobs)
    render_process = _RenderProcess(process, jobs, memory_bytes)
    try:
        with anyio.fail_after(_START_SECONDS):
            ready = await render_process.ready()
    except BaseException:
        render_process.kill()
        raise
    log.debug("a render process is ready", pid=process.pid, libvips=ready.libvips)
    return render_process, ready


async def _log_and_reap(process: anyio.abc.Process, jobs: anyio.abc.UNIXSocketStream) -> None:
    """Log what a render process writes on its standard error, so that its pipe never fills, and collect what is left when it ends."""
    if process.stderr is None:
        raise ValueError("a render process needs its standard error read")
    try:
        with suppress(*_PIPE_ENDED):
            async for chunk in process.stderr:
                for line in chunk.decode("utf-8", "replace").splitlines():
                    log.warning("a render process says", pid=process.pid, line=sanitize(line, 500))
    finally:
        with anyio.CancelScope(shield=True):
            await jobs.aclose()
            await process.aclose()


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a render process is given of the server's environment: no secret, and nothing that leads to one."""
    return {name: value for name, value in environ.items() if name in _VARIABLES or name.startswith(_VARIABLE_PREFIXES)}


def _exclusive(job: Job) -> Job:
    return job if isinstance(job, NextRendition | SelfTest) else msgspec.structs.replace(job, exclusive=True)


def _checked(reply: Reply, expect: type[ReplyT]) -> ReplyT:
    if isinstance(reply, Failure):
        log.info("a job failed", kind=reply.kind, cause=sanitize(reply.cause, 4_000))
        raise _ERRORS[reply.kind](reply.detail, expected=reply.expected, received=reply.received, remedy=reply.remedy)
    if not isinstance(reply, expect):
        raise TypeError(f"expected {expect.__name__} from the render process, received {type(reply).__name__}")
    return reply


def _not_started() -> ServiceError:
    return RenderFailedError("No render process can be started.", remedy="The server's log has the reason.", retry_after_seconds=5)


def _ended(exit_code: int) -> ServiceError:
    if exit_code == -signal.SIGABRT:
        # glib ends the process when an allocation fails under the cap.
        return TooCostlyError(_TOO_COSTLY, remedy=_TOO_COSTLY_REMEDY)
    return RenderFailedError(
        "The render process ended in the middle of this render.",
        received=f"exit code {exit_code}",
        remedy="Try again; a new process has taken its place.",
        retry_after_seconds=1,
    )
