"""Health: whether this process should get requests, and what is wrong if it should not, or if it can serve only some of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

import anyio
import anyio.to_thread
import msgspec
import structlog

from service.concurrency.polling import poll
from service.errors import ServiceError
from service.ops.regions import region_warnings
from service.ops.rotation import Rotation
from service.ops.signing_keys import HealthIssue, SigningKeyMonitor
from service.rendering.pool import RenderPool
from service.rendering.protocol import Sandbox
from service.settings.sections import Settings
from service.storage.disk import FULL_BELOW_BYTES, available_bytes
from service.storage.object_store import Storage

log = structlog.get_logger(__name__)

# How often the store is pinged, and how long it may take to respond, in seconds.
CHECK_INTERVAL_SECONDS = 5.0
CHECK_TIMEOUT_SECONDS = 6.0


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of `/health`.

    `status`: "ok"; "degraded" if hits are served, but requests that need the store or a render, or URLs that other servers sign, may fail;
    "unavailable" if this process should get no requests.
    `prefer_region`: the value of `fly-prefer-region` for requests that change something, if only one region has every original.
    `sandbox`: how render processes are confined; known when one has started.
    `warnings`: settings that contradict the region that this process runs in, missing protections, and traces that are not exported.
    `reason`, `remedy`: why the status is not "ok", and what to do about it.
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
    """The health of this process and of the parts that it depends on."""

    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        pool: RenderPool,
        signing_keys: SigningKeyMonitor,
        rotation: Rotation,
        *,
        version: str,
        issues: Callable[[], Sequence[str]],
    ) -> None:
        """Report on these parts; the store counts as unreachable until `check` has reached it.

        `version`: the version of Darkroom, for the report.
        `issues`: returns further warnings, about what fails without harm to any request.
        """
        self._settings = settings
        self._storage = storage
        self._pool = pool
        self._signing_keys = signing_keys
        self._rotation = rotation
        self._issues = issues
        self._version = version
        self._warnings = [str(warning) for warning in region_warnings(settings)]
        self._reached_once = False
        self._store_issue: HealthIssue | None = HealthIssue("the store has not been reached yet")
        self._disk_issue: HealthIssue | None = None
        self.draining = False

    def __repr__(self) -> str:
        return f"<Health: {self.report()[1].status}>"

    def report(self) -> tuple[int, Report]:
        """Return the current status code and report.

        Once the store has been reached, its outage is "degraded", with 200: a process that can serve hits must stay in rotation.
        """
        issue = None if self._pool.start_failure is None else HealthIssue(self._pool.start_failure)
        if self.draining:
            issue = HealthIssue("draining: this process is about to end")
        elif not self._reached_once:
            issue = self._store_issue
        if issue is not None:
            return 503, self._report("unavailable", issue)
        issue = self._store_issue or self._disk_issue or self._render_issue() or self._signing_keys.conflict or self._rotation.issue
        return 200, self._report("ok" if issue is None else "degraded", issue)

    async def watch(self) -> None:
        """Check the store regularly, for as long as this process serves."""
        await poll(self.check, every=CHECK_INTERVAL_SECONDS)

    async def watch_renders(self) -> None:
        """Test failing renders regularly, for as long as this process serves, so that it recovers even without requests."""
        await poll(self._pool.self_test, every=CHECK_INTERVAL_SECONDS)

    async def check(self) -> None:
        """Ping the store once, look at the room on the disks, and remember the results."""
        try:
            with anyio.fail_after(CHECK_TIMEOUT_SECONDS):
                await self._storage.ping()
        except Exception as error:
            # Any error is reported; none must end the polling.
            issue = HealthIssue(f"the store does not respond: {type(error).__name__}")
            if isinstance(error, ServiceError):
                issue = HealthIssue(error.detail, error.remedy)
            if issue != self._store_issue:
                log.warning("the store is unreachable", reason=issue.reason, remedy=issue.remedy)
            self._store_issue = issue
        else:
            if self._reached_once and self._store_issue is not None:
                log.warning("the store is reachable again")
            self._store_issue = None
            self._reached_once = True
        disk_issue = await anyio.to_thread.run_sync(self._find_full_disk)
        if disk_issue != self._disk_issue and disk_issue is not None:
            log.warning("a disk is full", reason=disk_issue.reason, remedy=disk_issue.remedy)
        self._disk_issue = disk_issue

    def _find_full_disk(self) -> HealthIssue | None:
        for variable, folder in (("DARKROOM_DATA", self._settings.storage.data), ("DARKROOM_STORE", self._storage.root)):
            with suppress(OSError):
                if folder is not None and available_bytes(folder) < FULL_BELOW_BYTES:
                    return HealthIssue(
                        f"The disk of {variable} is full.",
                        "Free room on it: uploads fail, and new renditions are not stored. Renditions that are stored are served.",
                    )
        return None

    def _render_issue(self) -> HealthIssue | None:
        """Return why renders fail, if they do. The process stays in rotation: it serves hits, and other images may render."""
        if (reason := self._pool.render_failure) is None:
            return None
        return HealthIssue(
            reason,
            "See the server's log for the causes. If no image renders, restart this server; if that does not help, report it with the log.",
        )

    def _report(self, status: Literal["ok", "degraded", "unavailable"], issue: HealthIssue | None) -> Report:
        sandbox = self._pool.sandbox
        return Report(
            status,
            self._version,
            region=self._settings.fly.region or None,
            machine=self._settings.fly.machine_id or None,
            regions=list(self._settings.fly.declared_regions),
            prefer_region=self._settings.originals_region or None,
            sandbox=sandbox,
            warnings=[*self._warnings, *_sandbox_warnings(sandbox), *self._issues()],
            reason=None if issue is None else issue.reason,
            remedy=None if issue is None else issue.remedy,
        )


def _sandbox_warnings(sandbox: Sandbox | None) -> list[str]:
    if sandbox is None or not sandbox.missing:
        return []
    warning = (
        f"Render processes run without {' and '.join(sandbox.missing)}: the kernel or the container runtime lacks it or does not allow it. "
        "An exploited image decoder could reach everything that this server can reach. Run it on Linux 5.13 or later with Landlock "
        "enabled, in a container whose seccomp profile allows the landlock_* system calls, as Docker's does."
    )
    return [warning]
