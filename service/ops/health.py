"""Whether this process should get requests: the store reached once, render processes that start, not draining."""

from __future__ import annotations

from typing import Literal

import anyio
import msgspec
import structlog

from service.errors import ServiceError
from service.ops import regions
from service.ops.signing_keys import HealthIssue, SigningKeyMonitor
from service.rendering.pool import RenderPool
from service.rendering.protocol import Sandbox
from service.settings.sections import Settings
from service.storage.object_store import Storage

log = structlog.get_logger(__name__)

# How often the store is asked whether it is there, and how long it may take to say so, in seconds.
CHECK_EVERY_SECONDS = 5.0
CHECK_TIMEOUT_SECONDS = 6.0


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `/health` says. `degraded`: hits are served, what needs the store may fail, or what other servers sign is refused.

    `prefer_region` is what requests that change something are sent with as `fly-prefer-region`, where one region has every original;
    `warnings` are what does not fit in where this process stands; `sandbox` is how render processes are confined, once one has started.
    """

    status: Literal["ok", "degraded", "unavailable"]
    version: str
    region: str | None = None
    machine: str | None = None
    regions: list[str] = []
    prefer_region: str | None = None
    sandbox: Sandbox | None = None
    warnings: list[str] = []
    reason: str | None = None
    remedy: str | None = None


class Health:
    """What is known of the parts that this process depends on."""

    def __init__(self, settings: Settings, storage: Storage, pool: RenderPool, signing_keys: SigningKeyMonitor, version: str) -> None:
        """Take where this process stands and what it depends on."""
        self._settings = settings
        self._storage = storage
        self._pool = pool
        self._signing_keys = signing_keys
        self._version = version
        self._warnings = [str(finding) for finding in regions.region_warnings(settings)]
        self._reached_once = False
        self._store_failure: HealthIssue | None = HealthIssue("the store has not been reached yet")
        self.draining = False

    def report(self) -> tuple[int, Report]:
        """Return the status code and the report of this moment.

        A later outage of the store is 200: a process that still has hits must stay in rotation.
        """
        concern = None if self._pool.start_failure is None else HealthIssue(self._pool.start_failure)
        if self.draining:
            concern = HealthIssue("draining: this process is about to end")
        elif not self._reached_once:
            concern = self._store_failure
        if concern is not None:
            return 503, self._told("unavailable", concern)
        concern = self._store_failure or self._render_failure() or self._signing_keys.conflict
        return 200, self._told("ok" if concern is None else "degraded", concern)

    async def watch(self) -> None:
        """Ask the store again and again, for as long as this process serves."""
        while True:
            await self.check()
            await anyio.sleep(CHECK_EVERY_SECONDS)

    async def watch_renders(self) -> None:
        """Have renders that fail tested again and again, for as long as this process serves: it recovers without requests, too."""
        while True:
            await self._pool.self_test()
            await anyio.sleep(CHECK_EVERY_SECONDS)

    def _render_failure(self) -> HealthIssue | None:
        """Return that renders fail. It is no reason to be taken out of rotation: hits are served, and another image may do."""
        if (reason := self._pool.render_failure) is None:
            return None
        return HealthIssue(
            reason, "See the server's log for the causes. If no image renders, restart this server; if it stays, report it with the log."
        )

    async def check(self) -> None:
        """Ask the store once."""
        try:
            with anyio.fail_after(CHECK_TIMEOUT_SECONDS):
                await self._storage.ping()
        except Exception as error:
            # Whatever it is, it is told and must not end the watch.
            failure = HealthIssue(f"the store does not answer: {type(error).__name__}")
            if isinstance(error, ServiceError):
                failure = HealthIssue(error.detail, error.remedy)
            if failure != self._store_failure:
                log.warning("the store is out of reach", reason=failure.reason, remedy=failure.remedy)
            self._store_failure = failure
        else:
            if self._reached_once and self._store_failure is not None:
                log.warning("the store is back")
            self._store_failure = None
            self._reached_once = True

    def _told(self, status: Literal["ok", "degraded", "unavailable"], concern: HealthIssue | None) -> Report:
        sandbox = self._pool.sandbox
        return Report(
            status,
            self._version,
            region=self._settings.fly.region or None,
            machine=self._settings.fly.machine_id or None,
            regions=list(self._settings.fly.declared_regions),
            prefer_region=self._settings.originals_region or None,
            sandbox=sandbox,
            warnings=[*self._warnings, *_sandbox_warnings(sandbox)],
            reason=None if concern is None else concern.reason,
            remedy=None if concern is None else concern.remedy,
        )


def _sandbox_warnings(sandbox: Sandbox | None) -> list[str]:
    if sandbox is None or not sandbox.missing:
        return []
    warning = (
        f"Render processes run without {' and '.join(sandbox.missing)}: this kernel, or the container's runtime, does not have it or does "
        "not allow it. A flaw in an image decoder could reach as much as this server can. Run it on Linux 5.13 or later with Landlock "
        "enabled, in a container whose seccomp profile allows the landlock_* system calls, as Docker's does."
    )
    return [warning]
