"""Runs the visitors of a soak against a system, with its phases, and measures the processes meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import anyio
import msgspec
import psutil

from tests.soak.memory import Sample, Sampler
from tests.soak.phases import Phase, Schedule
from tests.soak.system import CACHE_BYTES, System
from tests.soak.visitors import Measured, Visitors
from tests.support.waiting import CHECKS_SECONDS, PATIENCE_SECONDS

# Visits per second.
_RATES: dict[str, float] = {
    "hit": 30.0,
    "health": 2.0,
    "page": 1.0,
    "miss": 2.5,
    "page_of_a_photo": 1.0,
    "upload": 0.5,
    "ticket": 0.3,
    "document": 2.0,
    "listing": 0.3,
    "change": 0.3,
    "takedown": 1.2,
    "gone": 3.0,
    "source": 1.0,
    "failing_source": 1.0,
    "bad_request": 4.0,
    "large_upload": 0.1,
    "malformed": 1.0,
    "poison": 0.6,
}
_CROWD_PER_SECOND = 40.0
_KILL_EVERY_SECONDS = 2.5

# Of the requests to a store that fails.
_ERROR_SHARE = 0.2
_DELAY_SECONDS = 0.3


class Result(msgspec.Struct, frozen=True):
    """What was measured: every request, and the samples of the processes.

    killed: how many render processes were killed. replaced: how many the server replaced, by reason.
    """

    schedule: Schedule
    measured: Sequence[Measured]
    samples: Sequence[Sample]
    killed: int
    replaced: Mapping[str, int]


async def run_load(
    system: System, phases: Sequence[Phase], *, is_busy: bool = not CHECKS_SECONDS, log: Callable[[str], None] = lambda _: None
) -> Result:
    """Send mixed requests to a system while `phases` disturb it one after the other, and return what was measured.

    is_busy: whether the machine may have other work; see `Schedule`. log: called with one line for each phase.

    Apart from the crowd of an overload, the requests are the same in every phase. The server's memory for responses is full before the
    first phase. After the last one the server has to be healthy and to render again; otherwise this raises `TimeoutError`.
    """
    schedule = Schedule(phases, is_busy=is_busy)
    visitors = Visitors(system, schedule)
    try:
        await visitors.prepare(CACHE_BYTES)
        result = await _Load(system, schedule, visitors, log).run()
        with anyio.fail_after(PATIENCE_SECONDS):
            await visitors.wait_until_recovered()
        return result
    finally:
        await visitors.aclose()


class _Load:
    def __init__(self, system: System, schedule: Schedule, visitors: Visitors, log: Callable[[str], None]) -> None:
        self._system = system
        self._schedule = schedule
        self._visitors = visitors
        self._log = log
        self._killed = 0
        self._dice = random.Random(4)

    async def run(self) -> Result:
        before = await asyncio.to_thread(self._system.replaced_render_processes)
        sampler = Sampler(self._system.server.process.pid)
        visits = [self._stream(name, rate) for name, rate in _RATES.items()]
        async with asyncio.TaskGroup() as tasks:
            sampling = tasks.create_task(sampler.run(lambda: self._visitors.now))
            running = [tasks.create_task(visit) for visit in visits]
            await self._disturb()
            await asyncio.gather(*running)
            sampling.cancel()
        after = await asyncio.to_thread(self._system.replaced_render_processes)
        replaced = {reason: number - before.get(reason, 0) for reason, number in after.items()}
        return Result(self._schedule, self._visitors.measured, sampler.samples, self._killed, replaced)

    async def _stream(self, name: str, rate: float, until: float | None = None) -> None:
        """Begin a visit whenever one is due, however long the visits before it take: visitors do not wait for each other.

        They are due at the same times in every run.
        """
        visit = getattr(self._visitors, f"visit_{name}")
        ends = self._schedule.seconds if until is None else until
        dice = random.Random(name)
        due = self._visitors.now
        async with asyncio.TaskGroup() as tasks:
            while (due := due + dice.expovariate(rate)) < ends:
                await asyncio.sleep(due - self._visitors.now)
                tasks.create_task(visit())

    async def _disturb(self) -> None:
        """Go through the phases."""
        for span in self._schedule.spans:
            self._log(f"{span.begins:5.0f} s: {span.disturbance}")
            store = self._system.store
            match span.disturbance:
                case "killed renders":
                    await self._kill_until(span.ends)
                case "overload":
                    await self._stream("crowd", _CROWD_PER_SECOND, span.ends)
                case "failing store" if store is not None:
                    store.error_share, store.delay_seconds = _ERROR_SHARE, _DELAY_SECONDS
                    await self._until(span.ends)
                    store.error_share = store.delay_seconds = 0.0
                case "store outage" if store is not None:
                    await asyncio.to_thread(store.refuse)
                    await self._until(span.ends)
                    await asyncio.to_thread(store.start)
            await self._until(span.ends)

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self._visitors.now))

    async def _kill_until(self, ends: float) -> None:
        while True:
            await asyncio.sleep(_KILL_EVERY_SECONDS)
            processes = await asyncio.to_thread(self._system.server.render_processes)
            with suppress(psutil.NoSuchProcess, IndexError):
                self._dice.choice(processes).kill()
                self._killed += 1
            # Each phase has at least one, however late this process is continued on a busy machine.
            if self._visitors.now + _KILL_EVERY_SECONDS >= ends:
                return
