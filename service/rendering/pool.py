"""The render pool: which job gets which render process, when, and for how long.

Theory of operation
-------------------

libvips and the codecs run in processes of their own (`service/worker`), because a hostile image may crash them, occupy them or take them
over. The pool has as many slots as render processes may run, each with at most one process (`process.Slot`), and a process does one job at
a time. Jobs come in two lanes.

**The foreground** (`run`) is for jobs that a client waits for. *Admission* comes first (`slot_queue`): a job is refused at once, with
`OverloadedError`, when `queue_limit` jobs wait already, or when it is not expected to end while its client still waits. An early refusal
costs nothing, while a late one costs the client its patience and the server a render. `admit` can be called before the files of a job are
opened, and `raise_if_full` before anything is known of it. Admitted jobs wait for a slot in two lanes of equal right, renditions and
uploads. Cache hits never come here.

**The background** (`run_in_background`, `render_ladder`) is for jobs that nobody waits for. It has no queue: a job waits until no
foreground job does and a slot is free, and where there are several slots it leaves one of them free, so that the next client need not
wait for it. A ladder is one job with many renditions: each is requested by itself (`NextRendition`), and as soon as somebody waits, the
pool stops requesting. The caller submits the remaining steps again later.

**Exclusive jobs.** Some originals need so much memory while they are decoded that two at once would exhaust a small machine. Only the
header shows which, so the process reads it and replies `NeedsExclusive` instead of a result. The pool then takes the one exclusive lock
and submits the job again with `exclusive=True`; it waits for a slot a second time, ahead of the others. Other jobs run beside an exclusive
one.

**Deadlines.** `render_seconds` limits the whole of a foreground job: the wait for a slot, the wait for the exclusive lock, and the work.
A job that still waits at the deadline only leaves the queue. A job at work is ended by killing its process, because a codec in a C loop
cannot be interrupted in any other way. In the background each reply has a deadline of its own, and waiting for a slot has none.

**Recycling.** After a job, a process that has grown too large is replaced (`process.RECYCLE_ABOVE_BYTES`, `RECYCLE_ABOVE_SHARE`); so is
one that crashed, was killed, or met an unforeseen exception. The new process starts while the slot is free, and slots with a
running process are taken first. A job that ran out of memory in a used process is tried once more in a new one, so that the result never
depends on earlier jobs.

**Idle processes.** At first, only one slot has a process. The others start theirs when a job needs it, which costs that job as much time as
a fork and loading the codecs take. Every `IDLE_SECONDS`, the pool ends the processes that were not needed: as many as there are more than
jobs have run at the same time. One always remains, so that the next client need not wait for a start.

**Failures** are counted twice. `circuit_breaker` counts them for each image, and refuses one that has ended its process twice within an
hour. The pool itself counts failures in a row, of any images: after `FAILING_AFTER` of them `render_failure` says so, and health
checks report it, until a job succeeds or `self_test` does.

Beware:

- Replies have no number, so nothing distinguishes a late reply from the reply to the next job. Code that stops waiting in the middle of a
  job must replace the process; `Slot` does, for any exception.
- `_slot_released` only says that something has changed: a slot became free, a waiter gave up, the exclusive lock was released. Check the
  condition again after each wait. `_replies_when_idle` may take a free slot only because nothing is awaited after `wait_until_idle`.
- A slot in `_free` may have no process, or a dead one. `Slot` starts one when a job needs it.
- The costs that admission learns include time that a job waited in its process for the disk or for CPU time, but never the queue, nor the
  start of a process.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from typing import TypeVar

import anyio
import msgspec
import structlog

from service import instruments
from service.concurrency.polling import poll
from service.concurrency.spans import Attribute, Span, stage
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
from service.rendering import process_stats
from service.rendering.circuit_breaker import CircuitBreaker, FailureMode
from service.rendering.cost import CostModel, Work, work_of
from service.rendering.fork_server import ForkServer
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
    Tested,
    Trimmed,
)
from service.rendering.slot_queue import Lane, Place, Refused, SlotQueue

log = structlog.get_logger(__name__)

ReplyT = TypeVar("ReplyT", Probed, Rendered, Intermediate, Trimmed, Tested)

# After so many failures in a row, of any images, renders are reported to fail. After so many seconds without a job, a test is made to
# find out whether they still do.
FAILING_AFTER = 5
_QUIET_SECONDS = 5.0

# A job that was ended at the deadline is to blame if it computed for at least this share of the time.
_BUSY_SHARE = 0.5

# How often the processes are ended that were not needed since the last time. One takes 9 MB, and a new one 45 ms of CPU time.
IDLE_SECONDS = 60.0

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
    """A limited number of render processes, a bounded queue for jobs that clients wait for, and a background lane for all others."""

    def __init__(self, *, slots: int, queue_limit: int, memory_bytes: int, render_seconds: float, wait_seconds: float) -> None:
        """Create a pool whose first process `running` starts.

        slots: the largest number of render processes, 1 or more.
        queue_limit: how many foreground jobs may wait for a slot, 1 or more.
        memory_bytes: the cap on the address space of each process, 256 MiB or more.
        render_seconds: the deadline of a job, in seconds; its process is killed then.
        wait_seconds: how long a client waits for a foreground job, in seconds.
        """
        self._slot_count = slots
        self._memory_bytes = memory_bytes
        self._render_seconds = render_seconds
        self.costs = CostModel()
        self._queue = SlotQueue(self.costs, slots=slots, queue_limit=queue_limit, wait_seconds=wait_seconds)
        self._slots: list[Slot] = []
        self._free: list[Slot] = []
        self._exclusive = anyio.Lock()
        # The largest number of slots with a job since unneeded processes were ended.
        self._most_busy = 0
        self._slot_released = anyio.Event()
        self._started = anyio.Event()
        self._failures_in_a_row = 0
        self._last_ended_at = 0.0
        self.circuit_breaker = CircuitBreaker()

    def __repr__(self) -> str:
        return (
            f"<RenderPool {self._queue!r} {self.costs!r} exclusive={self._exclusive.locked()} failures_in_a_row={self._failures_in_a_row}>"
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RenderPool]:
        """Start the first process without waiting for it, and end all of them on exit."""
        async with anyio.create_task_group() as tasks:
            fork_server = ForkServer(self._memory_bytes, tasks)
            self._slots = [Slot(self._memory_bytes, fork_server, tasks, self._started, self._record_end) for _ in range(self._slot_count)]
            self._free = list(self._slots)
            tasks.start_soon(self._slots[0].start_process)
            tasks.start_soon(partial(poll, self._end_unneeded_processes, every=IDLE_SECONDS))
            try:
                yield self
            finally:
                for slot in self._slots:
                    slot.close()
                tasks.cancel_scope.cancel()

    @property
    def start_failure(self) -> str | None:
        """Why no render process can be started, `None` while there is one, or none has failed to start."""
        if any(slot.process is not None for slot in self._slots):
            return None
        return next((slot.start_failure for slot in self._slots if slot.start_failure is not None), None)

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
            await self.run_in_background(SelfTest(), Tested)
        except ServiceError as error:
            log.error("render processes fail a test with a picture of one pixel", problem=error.slug)  # noqa: TRY400 - its cause is logged

    @property
    def process_ids(self) -> list[int]:
        """The process ids of the running render processes."""
        return [slot.process.pid for slot in self._slots if slot.process is not None]

    @property
    def busy_slots(self) -> int:
        """The number of slots with a job."""
        return self._slot_count - self._queue.free_slots

    @property
    def slot_count(self) -> int:
        """The number of slots."""
        return self._slot_count

    def waiting(self) -> dict[Lane, tuple[int, float]]:
        """Return by lane the number of foreground jobs that wait, and their expected work in seconds. Any thread may call it."""
        return self._queue.waiting()

    def resident_bytes(self) -> list[int]:
        """Return the memory of the render process in each slot in bytes, 0 for a slot without one. Any thread may call it."""
        processes = [slot.process for slot in self._slots]
        return [0 if process is None else process_stats.memory_usage(process.pid).resident_bytes for process in processes]

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

    def refusal(self, work: Work | None = None) -> Refused | None:
        """Return how a render would be refused now; without `work`, how even the cheapest of those at present would."""
        return self._queue.refusal(work=work)

    @property
    def has_much_work(self) -> bool:
        """Whether so much work waits that renders may be refused for their cost, although cheaper ones would be admitted."""
        return self._queue.has_much_work

    def overloaded_error(self, refused: Refused) -> OverloadedError:
        """Return the error of a render that is refused."""
        return self._queue.overloaded_error(refused)

    def raise_if_full(self, lane: Lane = "renditions", work: Work | None = None) -> None:
        """Raise `OverloadedError` if a job would be refused now; without `work`, if even the cheapest of the lane would."""
        self._queue.raise_if_full(lane, work)

    @asynccontextmanager
    async def until_late(self, place: Place | None) -> AsyncIterator[None]:
        """Wait within the block no longer than until it is too late to start an admitted job; raises `OverloadedError` then."""
        if place is None:
            yield
            return
        with anyio.move_on_at(place.start_by) as scope:
            yield
        if scope.cancelled_caught:
            raise self._queue.late_error(place)

    @contextmanager
    def admit(self, work: Work, *, end_by: float) -> Iterator[Place]:
        """Give a place for a render that the block will `run`; raises `OverloadedError` if it is not expected to end in time.

        end_by: the time of the event loop at which the client leaves.
        """
        place = self._queue.admit(work, end_by=end_by)
        try:
            yield place
        finally:
            self._leave(place)

    async def run(self, job: Job, expect: type[ReplyT], place: Place | None = None, *, admitted: bool = False) -> ReplyT:
        """Return the result of a foreground job.

        expect: the type of the result. place: that of the job, if it was admitted before.
        admitted: whether the job is a part of one that was admitted, and needs a place of its own.

        Raises `RenderGaveUpError` for an image that has ended its process twice (see `circuit_breaker`), `OverloadedError` if the job is
        not admitted, or was and has waited too long, `DeadlineExceededError`, `RenderFailedError` or `TooCostlyError` if its process
        ended, and the error of `_ERRORS` that the process reported.
        """
        self.circuit_breaker.raise_if_open(job)
        if place is None:
            work, lane = work_of(job), _lane(job)
            place = self._queue.add(work, lane) if admitted else self._queue.admit(work, lane)
        try:
            with self._deadline():
                reply = await self._run_in_turn(place, job)
                if isinstance(reply, NeedsExclusive):
                    self._queue.give_up_slot(place)
                    async with self._exclusive:
                        reply = await self._run_in_turn(place, _exclusive(job), again=True)
        finally:
            self._leave(place)
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
        while self._queue.has_waiters or self._queue.free_slots < needed or (exclusive and self._exclusive.locked()):
            if self._slot_released.is_set():
                self._slot_released = anyio.Event()
            await self._slot_released.wait()

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

    async def _run_in_turn(self, place: Place, job: Job, *, again: bool = False) -> Reply:
        arrived = anyio.current_time()
        with stage("render queue", render_lane=place.lane):
            await self._queue.take_slot(place, again=again)
        slot = self._take_slot()
        was_running = slot.process is not None
        started = anyio.current_time()
        instruments.RENDER_QUEUE_SECONDS.observe(started - arrived, place.lane)
        reply: Reply | None = None
        try:
            with stage("render", render_job=type(job).__name__) as span:
                reply = await slot.run(job)
                if span is not None and isinstance(reply, Rendered):
                    _record_stages(span, job, reply)
        finally:
            self._free.append(slot)
            if was_running:
                self._learn(place, reply)
        return msgspec.structs.replace(reply, queue_seconds=started - arrived) if isinstance(reply, Rendered) else reply

    def _learn(self, place: Place, reply: Reply | None) -> None:
        """Learn what a job cost. One without a result has been stopped early: only if it took longer than expected, it cost that much."""
        if isinstance(reply, NeedsExclusive):
            return
        has_result = reply is not None and not isinstance(reply, Failure)
        if has_result or anyio.current_time() - place.started_at > place.seconds:
            self._queue.learn(place)

    def _leave(self, place: Place) -> None:
        self._queue.leave(place)
        # If this job never had a slot, it may have been the last one that waited.
        self._slot_released.set()

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
        place = self._queue.take_free_slot(work_of(job))
        slot = self._take_slot()
        was_running = slot.process is not None
        if exclusive:
            self._exclusive.acquire_nowait()
        try:
            with self._deadline():
                reply = await slot.first_reply(job)
            if was_running:
                self._learn(place, reply)
            yield reply
            while not self._queue.has_waiters:
                place.started_at = anyio.current_time()
                with self._deadline():
                    reply = await slot.submit(NextRendition())
                if isinstance(reply, Failure) and reply.short_of_memory:
                    # A new process may have room for the rest, which the caller submits again as if a foreground job had come.
                    slot.replace("short-of-memory")
                    return
                self._learn(place, reply)
                yield reply
        finally:
            slot.recycle_if_large()
            if exclusive:
                self._exclusive.release()
            self._free.append(slot)
            self._leave(place)

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

    def _take_slot(self) -> Slot:
        """Take the slot that has been free for longest, preferably one with a process.

        In turn, so that a process that fails fast does not get every job.
        """
        slot = next((slot for slot in self._free if slot.process is not None), self._free[0])
        self._free.remove(slot)
        self._most_busy = max(self._most_busy, self._slot_count - len(self._free))
        return slot

    async def _end_unneeded_processes(self) -> None:
        """End the processes that jobs have not needed since the last call, but never the only one."""
        needed = max(1, self._most_busy)
        self._most_busy = self._slot_count - len(self._free)
        unneeded = sum(slot.process is not None for slot in self._slots) - needed
        for slot in [slot for slot in self._free if slot.process is not None][: max(0, unneeded)]:
            slot.end_idle_process()


def _lane(job: Job) -> Lane:
    return "uploads" if isinstance(job, Probe) else "renditions"


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


def _record_stages(span: Span, job: Job, rendered: Rendered) -> None:
    """Record the stages of a render, which its process measured. libvips decodes and applies all operations in one pass."""
    request: dict[str, Attribute] = {}
    if isinstance(job, Render):
        request = {"render_format": job.request.format, "render_bytes": len(rendered.body)}
    decoded_at = rendered.started_at + rendered.decode_seconds
    if rendered.decode_seconds:
        span.record("decode and operations", rendered.started_at, decoded_at, request)
    span.record("encode", decoded_at, decoded_at + rendered.encode_seconds, request)
