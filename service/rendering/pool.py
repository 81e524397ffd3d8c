"""The render pool: which job gets which render process, when, and for how long.

Theory of operation
-------------------

libvips and the codecs run in processes of their own (`service/worker`), because a hostile image may crash them, occupy them or take them
over. The pool has as many slots as render processes may run, each with one process (`process.Slot`), and a process does one job at a time.
Jobs come in two lanes.

**The foreground lane** (`run`) is for jobs that a client waits for. *Admission* comes first: a job is refused at once, with
`OverloadedError`, when `queue_limit` jobs wait already, or when the queue would take longer than `wait_seconds` at the mean time of recent
renders. An early refusal costs nothing, while a late one costs the client its patience and the server a render. An admitted job waits for
a slot, first come, first served. Cache hits never come here.

**The background lane** (`run_in_background`, `render_ladder`) is for jobs that nobody waits for. It has no queue: a job waits until no
foreground job does and a slot is free, and where there are several slots it leaves one of them free, so that the next client need not
wait for it. A ladder is one job with many renditions: each is requested by itself (`NextRendition`), and as soon as somebody waits, the
pool stops requesting. The caller submits the remaining steps again later.

**Exclusive jobs.** Some originals need so much memory while they are decoded that two at once would exhaust a small machine. Only the
header shows which, so the process reads it and replies `NeedsExclusive` instead of a result. The pool then takes the one exclusive lock
and submits the job again with `exclusive=True`; it waits for a slot a second time. Other jobs run beside an exclusive one.

**Deadlines.** `render_seconds` limits the whole of a foreground job: the wait for a slot, the wait for the exclusive lock, and the work.
A job that still waits at the deadline only leaves the queue. A job at work is ended by killing its process, because a codec in a C loop
cannot be interrupted in any other way. In the background each reply has a deadline of its own, and waiting for a slot has none.

**Recycling.** After a job, a process that has grown too large is replaced (`process.RECYCLE_ABOVE_BYTES`, `RECYCLE_ABOVE_SHARE`); so is
one that crashed, was killed, or met an unforeseen exception. The new process starts while the slot is free, and slots with a
running process are taken first. A job that ran out of memory in a used process is tried once more in a new one, so that the result never
depends on earlier jobs.

**Failures** are counted twice. `circuit_breaker` counts them for each image, and refuses one that has ended its process twice within an
hour. The pool itself counts failures in a row, of any images: after `FAILING_AFTER` of them `render_failure` says so, and health
checks report it, until a job succeeds or `self_test` does.

Beware:

- Replies have no number, so nothing distinguishes a late reply from the reply to the next job. Code that stops waiting in the middle of a
  job must replace the process; `Slot` does, for any exception.
- `_slot_released` only says that something has changed: a slot became free, a waiter gave up, the exclusive lock was released. Check the
  condition again after each wait. `_replies_when_idle` may call `acquire_nowait` only because nothing is awaited after `wait_until_idle`.
- A slot in `_free` may have no process yet, or a dead one. `Slot` starts one when a job needs it.
- The mean that admission uses includes time that a job waited in its process for the disk or for CPU time, but never the queue.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import TypeVar

import anyio
import msgspec
import structlog

from service.errors import (
    BadTransformError,
    BrokenImageError,
    CannotFitError,
    DamagedOriginalError,
    DeadlineExceededError,
    OverloadedError,
    RenderFailedError,
    ServiceError,
    TooComplexError,
    TooCostlyError,
    TooManyPixelsError,
    UnsupportedFormatError,
    sanitize,
)
from service.rendering.circuit_breaker import CircuitBreaker, FailureMode
from service.rendering.process import Slot, not_started_error
from service.rendering.protocol import (
    CodecSupport,
    Failure,
    FailureKind,
    FindTrim,
    Intermediate,
    Job,
    MakeIntermediate,
    NeedsExclusive,
    NextRendition,
    Probe,
    Probed,
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

# After so many failures in a row, of any images, renders are reported to fail. After so many seconds without a job, a test is made to
# find out whether they still do.
FAILING_AFTER = 5
_QUIET_SECONDS = 5.0

# A job that was ended at the deadline is to blame if it computed for at least this share of the time.
_BUSY_SHARE = 0.5

# The mean time of a render before any has been measured, and the weight of the newest one in it.
_FIRST_GUESS_SECONDS = 0.2
_NEWEST_WEIGHT = 0.1

_ERRORS: dict[FailureKind, type[ServiceError]] = {
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


class RenderPool:
    """A fixed number of render processes, a bounded queue for jobs that clients wait for, and a background lane for all others."""

    def __init__(self, *, slots: int, queue_limit: int, memory_bytes: int, render_seconds: float, wait_seconds: float) -> None:
        """Create a pool whose processes `running` starts.

        slots: the number of render processes, 1 or more.
        queue_limit: how many foreground jobs may wait for a slot, 1 or more.
        memory_bytes: the cap on the address space of each process, 256 MiB or more.
        render_seconds: the deadline of a job, in seconds; its process is killed then.
        wait_seconds: the longest expected wait, in seconds, with which a foreground job is admitted.
        """
        self._slot_count = slots
        self._memory_bytes = memory_bytes
        self._queue_limit = queue_limit
        self._render_seconds = render_seconds
        self._wait_seconds = wait_seconds
        self._slots: list[Slot] = []
        self._free: list[Slot] = []
        self._gate = anyio.Semaphore(slots, fast_acquire=True)
        self._exclusive = anyio.Lock()
        self._waiting = 0
        self._mean_seconds = _FIRST_GUESS_SECONDS
        self._slot_released = anyio.Event()
        self._started = anyio.Event()
        self._failures_in_a_row = 0
        self._last_ended_at = 0.0
        self.circuit_breaker = CircuitBreaker()

    def __repr__(self) -> str:
        return (
            f"<RenderPool slots={self._slot_count} busy={len(self._slots) - len(self._free)} waiting={self._waiting} "
            f"exclusive={self._exclusive.locked()} mean_seconds={self._mean_seconds:.3f} failures_in_a_row={self._failures_in_a_row}>"
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RenderPool]:
        """Start the processes without waiting for them, and end them on exit."""
        async with anyio.create_task_group() as tasks:
            self._slots = [Slot(self._memory_bytes, tasks, self._started, self._record_end) for _ in range(self._slot_count)]
            self._free = list(self._slots)
            for slot in self._slots:
                tasks.start_soon(slot.start_process)
            try:
                yield self
            finally:
                for slot in self._slots:
                    slot.close()
                tasks.cancel_scope.cancel()

    @property
    def start_failure(self) -> str | None:
        """Why no render process can be started, `None` unless the latest start in every slot has failed."""
        failures = [slot.start_failure for slot in self._slots]
        return failures[0] if failures and all(failures) else None

    @property
    def render_failure(self) -> str | None:
        """Why renders of any image seem to fail, `None` while they do not."""
        if self._failures_in_a_row < FAILING_AFTER:
            return None
        return f"the last {self._failures_in_a_row} renders ended their render process"

    async def self_test(self) -> None:
        """Find out whether renders still fail, unless requests have shown it lately: a success resets `render_failure`."""
        if self._failures_in_a_row < FAILING_AFTER or anyio.current_time() - self._last_ended_at < _QUIET_SECONDS:
            return
        try:
            await self.run_in_background(SelfTest(), Rendered)
        except ServiceError as error:
            log.error("render processes fail a test with a picture of one pixel", problem=error.slug)  # noqa: TRY400 - its cause is logged

    @property
    def process_ids(self) -> list[int]:
        """The process ids of the running render processes."""
        return [slot.process.pid for slot in self._slots if slot.process is not None]

    @property
    def sandbox(self) -> Sandbox | None:
        """How the render processes are confined, `None` before one has started."""
        return next((slot.ready.sandbox for slot in self._slots if slot.ready is not None), None)

    async def codec_support(self) -> CodecSupport:
        """Wait for the first render process, and return what its libvips reads and writes; raises `RenderFailedError` if none starts."""
        await self._started.wait()
        ready = next((slot.ready for slot in self._slots if slot.ready is not None), None)
        if ready is None:
            raise not_started_error()
        return ready.codecs

    async def run(self, job: Job, expect: type[ReplyT]) -> ReplyT:
        """Return the result of a foreground job.

        expect: the type of the result.

        Raises `RenderGaveUpError` for an image that has ended its process twice (see `circuit_breaker`), `OverloadedError` if the job is
        not admitted, `DeadlineExceededError`, `RenderFailedError` or `TooCostlyError` if its process ended, and the error of `_ERRORS` that
        the process reported.
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
        return _result(reply, expect)

    async def run_in_background(self, job: Probe | Render | MakeIntermediate | FindTrim | SelfTest, expect: type[ReplyT]) -> ReplyT:
        """Return the result of a background job; raises as `run` does, except `OverloadedError`."""
        async with aclosing(self._replies_in_background(job)) as replies:
            return _result(await anext(replies), expect)

    async def render_ladder(self, job: RenderLadder) -> AsyncGenerator[Rendered, None]:
        """Give the renditions of a ladder, in the order of its widths and formats, in the background.

        It ends early, after the current rendition, when a foreground job waits. Raises as `run` does, except `OverloadedError`. Close it
        where it is used (`aclosing`), which releases its slot.
        """
        async with aclosing(self._replies_in_background(job)) as replies:
            for _ in range(len(job.widths) * len(job.formats)):
                reply = await anext(replies, None)
                if reply is None:
                    return
                yield _result(reply, Rendered)

    async def wait_until_idle(self, *, exclusive: bool = False) -> None:
        """Return once no foreground job waits and a background job could start: the best moment to read its files.

        With `exclusive`, once no other job is exclusive either.
        """
        # Where there are several slots one stays free for the next foreground job.
        needed = min(2, self._slot_count)
        while self._has_waiters or len(self._free) < needed or (exclusive and self._exclusive.locked()):
            if self._slot_released.is_set():
                self._slot_released = anyio.Event()
            await self._slot_released.wait()

    def _admit(self) -> None:
        """Return if a foreground job may wait for a slot; raises `OverloadedError`."""
        expected_seconds = (self._waiting + 1) / self._slot_count * self._mean_seconds if not self._free else 0.0
        if self._waiting < self._queue_limit and expected_seconds <= self._wait_seconds:
            return
        raise OverloadedError(
            "More renders are waiting than can be made in time.",
            expected=f"at most {self._queue_limit} waiting, and a wait of at most {self._wait_seconds:g} s",
            received=f"{self._waiting} waiting, about {expected_seconds:.1f} s",
            remedy="Try again after the seconds in Retry-After.",
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
                remedy="Request a smaller rendition or a format that is faster to encode, or try again when the server is less busy.",
                retry_after_seconds=10,
            ) from None

    async def _run_in_turn(self, job: Job) -> Reply:
        self._waiting += 1
        arrived = anyio.current_time()
        try:
            await self._gate.acquire()
        finally:
            self._waiting -= 1
            # If this waiter gave up, it may have been the last one.
            self._slot_released.set()
        slot = self._take_slot()
        started = anyio.current_time()
        try:
            reply = await slot.run(job)
            return msgspec.structs.replace(reply, queue_seconds=started - arrived) if isinstance(reply, Rendered) else reply
        finally:
            self._mean_seconds += _NEWEST_WEIGHT * (anyio.current_time() - started - self._mean_seconds)
            self._release_slot(slot)

    async def _replies_in_background(self, job: Job) -> AsyncGenerator[Reply, None]:
        """Give one reply after another, each but the first requested with `NextRendition`, until a foreground job waits."""
        self.circuit_breaker.raise_if_open(job)
        needs_exclusive = False
        async with aclosing(self._replies_when_idle(job, exclusive=False)) as replies:
            async for reply in replies:
                if isinstance(reply, NeedsExclusive):
                    needs_exclusive = True
                    break
                yield reply
        if needs_exclusive:
            async with aclosing(self._replies_when_idle(_exclusive(job), exclusive=True)) as replies:
                async for reply in replies:
                    yield reply

    async def _replies_when_idle(self, job: Job, *, exclusive: bool) -> AsyncGenerator[Reply, None]:
        await self.wait_until_idle(exclusive=exclusive)
        self._gate.acquire_nowait()
        slot = self._take_slot()
        if exclusive:
            self._exclusive.acquire_nowait()
        try:
            with self._deadline():
                reply = await slot.first_reply(job)
            yield reply
            while not self._has_waiters:
                with self._deadline():
                    reply = await slot.submit(NextRendition())
                if isinstance(reply, Failure) and reply.short_of_memory:
                    # A new process may have room for the rest, which the caller submits again as if a foreground job had come.
                    slot.replace()
                    return
                yield reply
        finally:
            slot.recycle_if_large()
            if exclusive:
                self._exclusive.release()
            self._release_slot(slot)

    def _record_end(self, job: Job, mode: FailureMode | None, cpu_seconds: float) -> None:
        """Record that a job succeeded, or ended its process in the given mode after `cpu_seconds` of CPU time."""
        self._last_ended_at = anyio.current_time()
        if mode is None:
            self._failures_in_a_row = 0
            return
        if mode == "timed-out" and cpu_seconds < self._render_seconds * _BUSY_SHARE:
            # It waited for a slot, for other programs or for the disk: the image is not to blame.
            return
        self._failures_in_a_row += 1
        self.circuit_breaker.record(job, mode)

    @property
    def _has_waiters(self) -> bool:
        """Whether a foreground job waits for what a background job occupies."""
        return self._waiting > 0 or self._exclusive.statistics().tasks_waiting > 0

    def _take_slot(self) -> Slot:
        """Take the slot that has been free for longest, preferably one with a process.

        In turn, so that a process that fails fast does not get every job.
        """
        slot = next((slot for slot in self._free if slot.process is not None), self._free[0])
        self._free.remove(slot)
        return slot

    def _release_slot(self, slot: Slot) -> None:
        self._free.append(slot)
        self._gate.release()
        self._slot_released.set()


def _exclusive(job: Job) -> Job:
    return job if isinstance(job, NextRendition | SelfTest) else msgspec.structs.replace(job, exclusive=True)


def _result(reply: Reply, expect: type[ReplyT]) -> ReplyT:
    """Return a reply that is a result; raises the error of a `Failure`, and `TypeError` for a reply of another type."""
    if isinstance(reply, Failure):
        log.info("a job failed", kind=reply.kind, cause=sanitize(reply.cause, 4_000))
        raise _ERRORS[reply.kind](reply.detail, expected=reply.expected, received=reply.received, remedy=reply.remedy)
    if not isinstance(reply, expect):
        raise TypeError(f"expected {expect.__name__} from the render process, received {type(reply).__name__}")
    return reply
