"""What happens to two servers while Prometheus watches them: each alert gets a reason to fire, and later none any more.

One server has the load of the soak (`tests.soak`). The other one starts while its store is down, and is stopped for a while.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import msgspec

from tests.bench import measure
from tests.dashboard.drawing import Band, Span
from tests.soak.load import run_load
from tests.soak.phases import Phase
from tests.soak.system import System, running_system
from tests.support.prometheus import Prometheus, prometheus
from tests.support.s3 import moto_bucket
from tests.support.s3_proxy import Request, S3Proxy, s3_proxy_of
from tests.support.server import free_port, started

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"

# All times are in seconds of a run at full length.
PHASES = (
    Phase("quiet", 40),
    Phase("killed renders", 90),
    Phase("quiet", 40),
    Phase("store outage", 90),
    Phase("quiet", 50),
    Phase("overload", 90),
    Phase("quiet", 150),
)
_FORGED = 40, 130
_FORGED_PER_SECOND = 30
_FULL = 402, 412
_RENDERS_FAIL = 410, 475
_SLOW = 475, 550
_SLOW_SECONDS = 1.5
_OTHER_STORE_DOWN_UNTIL = 100
_OTHER_STOPPED = 440, 530
# Until the last alert has resolved.
_QUIET_SECONDS = 165
_KILL_EVERY_SECONDS = 0.05

# Durations in the file of alerts: `[2m]`, `for: 1m`.
_DURATION = re.compile(r"(?<=\[|\s)(\d+)([sm])(?=\]|\n)")
_SECONDS = {"s": 1, "m": 60}


class Watched(msgspec.Struct, frozen=True):
    """Two servers and the Prometheus that watches them. scrape_seconds: how often it scrapes."""

    prometheus: Prometheus
    system: System
    other: Other
    scrape_seconds: int


class Other(msgspec.Struct):
    """The second server, which can be stopped and started again: the proxy in front of its store, and its metrics port."""

    folder: Path
    store: S3Proxy
    metrics_port: int
    variables: dict[str, object]
    running: ExitStack

    def start(self) -> None:
        """Start it with a store that does not respond yet, or again."""
        self.running.enter_context(started(self.folder, metrics_port=self.metrics_port, **self.variables))

    def stop(self) -> None:
        """Stop it."""
        self.running.close()


def scaled_alerts(folder: Path, scale: float) -> Path:
    """Return a file with the alerts in which each duration is multiplied by `scale`; the alerts themselves for 1."""
    if scale == 1:
        return ALERTS
    text = _DURATION.sub(lambda found: f"{max(2, round(int(found[1]) * _SECONDS[found[2]] * scale))}s", ALERTS.read_text("utf-8"))
    path = folder / "alerts.yml"
    path.write_text(text, "utf-8")
    return path


@contextmanager
def watched(folder: Path, *, scale: float = 1.0) -> Iterator[Watched]:
    """Yield the servers and Prometheus before anything happens to them. `scale`: as in `run`."""
    scrape_seconds = max(1, round(5 * scale))
    with ExitStack() as stack:
        bucket = stack.enter_context(moto_bucket())
        store = stack.enter_context(s3_proxy_of(bucket))
        store.refuse()
        other = Other(
            folder / "other",
            store,
            free_port(),
            {"store": f"s3://{bucket.name}", **store.environment},
            stack.enter_context(ExitStack()),
        )
        metrics_port = free_port()
        system = stack.enter_context(running_system(folder / "data", metrics_port=metrics_port))
        other.start()
        watching = stack.enter_context(
            prometheus(folder, [metrics_port, other.metrics_port], scaled_alerts(folder, scale), scrape_seconds=scrape_seconds)
        )
        yield Watched(watching, system, other, scrape_seconds)


async def run(servers: Watched, *, scale: float = 1.0, log: Callable[[str], None] = lambda _: None) -> Span:
    """Let everything happen, and return when it did, and when the load was disturbed.

    scale: the length of the run as a share of its full length, which is 11 minutes.
    """
    phases = [Phase(phase.disturbance, phase.seconds * scale) for phase in PHASES]
    scenario = _Scenario(servers, scale)
    begins: list[float] = []

    def note(line: str) -> None:
        """Note the beginning of a phase, the first of which begins when the load has prepared itself."""
        begins.append(time.time())
        scenario.begin()
        log(line)

    async with asyncio.TaskGroup() as tasks:
        for happening in (scenario.forge, scenario.fill_store, scenario.end_renders, scenario.slow_store, scenario.restart_other):
            tasks.create_task(happening())
        tasks.create_task(run_load(servers.system, phases, is_busy=True, log=note))
    log("no load")
    await asyncio.sleep(_QUIET_SECONDS * scale)
    bands = [
        Band(phase.disturbance, at, at + phase.seconds) for phase, at in zip(phases, begins, strict=True) if phase.disturbance != "quiet"
    ]
    return Span(begins[0], time.time(), bands)


class _Scenario:
    def __init__(self, servers: Watched, scale: float) -> None:
        self._system = servers.system
        self._other = servers.other
        self._scale = scale
        self._began: float | None = None
        self._has_begun = asyncio.Event()

    def begin(self) -> None:
        """Begin, unless it has begun before."""
        if self._began is None:
            self._began = time.monotonic()
            self._has_begun.set()

    async def forge(self) -> None:
        """Send forged signatures, however long the responses take."""
        await self._until(_FORGED[0])
        async with (
            httpx.AsyncClient(base_url=self._system.server.url, trust_env=False, verify=False) as client,
            asyncio.TaskGroup() as requests,
        ):
            number = 0
            while self._now < _FORGED[1]:
                number += 1
                requests.create_task(_forge(client, number))
                await asyncio.sleep(1 / _FORGED_PER_SECOND)

    async def fill_store(self) -> None:
        """Refuse writes as a full bucket does."""
        if (store := self._system.store) is not None:
            await self._until(_FULL[0])
            store.error_for = _full
            await self._until(_FULL[1])
            store.error_for = lambda _: None

    async def end_renders(self) -> None:
        """Kill each render process, and the fork server, as soon as it has started."""
        await self._until(_RENDERS_FAIL[0])
        while self._now < _RENDERS_FAIL[1]:
            for process_id in await asyncio.to_thread(measure.rendering_processes, self._system.server.process.pid):
                with suppress(ProcessLookupError):
                    os.kill(process_id, signal.SIGKILL)
            await asyncio.sleep(_KILL_EVERY_SECONDS)

    async def slow_store(self) -> None:
        """Delay each response of the store."""
        if (store := self._system.store) is not None:
            await self._until(_SLOW[0])
            store.delay_seconds = _SLOW_SECONDS
            await self._until(_SLOW[1])
            store.delay_seconds = 0.0

    async def restart_other(self) -> None:
        """Give the other server its store, then stop it, and start it again."""
        await self._until(_OTHER_STORE_DOWN_UNTIL)
        await asyncio.to_thread(self._other.store.start)
        await self._until(_OTHER_STOPPED[0])
        await asyncio.to_thread(self._other.stop)
        await self._until(_OTHER_STOPPED[1])
        await asyncio.to_thread(self._other.start)

    @property
    def _now(self) -> float:
        """The seconds since the beginning, as if the run had its full length."""
        return 0.0 if self._began is None else (time.monotonic() - self._began) / self._scale

    async def _until(self, at: float) -> None:
        await self._has_begun.wait()
        await asyncio.sleep(max(0.0, (at - self._now) * self._scale))


async def _forge(client: httpx.AsyncClient, number: int) -> None:
    with suppress(httpx.TransportError):
        await client.get(f"/i/v3/{'a' * 32}/width={number},height=7/{'a' * 26}.webp")


def _full(request: Request) -> tuple[int, str] | None:
    return (507, "InsufficientStorage") if request.method == "PUT" else None
