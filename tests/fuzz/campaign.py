"""A run: it sends inputs to a server one after the other, and regularly checks good images and the server's processes."""

from __future__ import annotations

import itertools
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec

from service.urls.signing import Signer
from tests.fuzz.canaries import Canaries
from tests.fuzz.cases import Case, Cases
from tests.fuzz.client import Client
from tests.fuzz.report import MAX_FINDINGS, Cost, Finding, FindingsFolder, Report
from tests.fuzz.seeds import Seed, seeds
from tests.fuzz.watch import MEBIBYTE, LivenessProbe, Watch
from tests.support import images
from tests.support.server import Server, darkroom

# A good image is checked after every 6 inputs, the server's processes after every 60. After a finding both are checked at once.
CANARY_EVERY = 6
CHECK_EVERY = 60

_PROGRESS_SECONDS = 30

SLOTS = 2
RENDER_MEMORY_BYTES = 512 * MEBIBYTE

# An input that takes more CPU time of render processes than this could be used to stop the server.
MAX_CPU_SECONDS = 20.0
# The largest share of inputs that may be 503, as the server receives one request at a time.
MAX_BUSY_SHARE = 0.005
MIN_BUSY_COUNT = 5

# The settings of both servers. Their limits are small, so that inputs reach them.
SETTINGS: dict[str, object] = {
    "cache_bytes": 24 * MEBIBYTE,
    "max_upload_bytes": 700_000,
    "max_parts": 8,
    "max_frames": 128,
    "max_pixels": 64_000_000,
    "max_whole_pixels": 32_000_000,
    "max_output_pixels": 16_000_000,
    "render_processes": SLOTS,
    "render_memory_bytes": RENDER_MEMORY_BYTES,
    "renditions_bytes": 128 * MEBIBYTE,
    # Long enough that a busy machine causes no finding.
    "wait_seconds": 90,
    "render_seconds": 90,
    "variants": "card: width=64,height=48,fit=cover",
}


class Plan(msgspec.Struct, frozen=True):
    """The parameters of a run.

    seed: determines every input. seconds: how long inputs are sent. folder: for the servers' data. findings: a directory for the inputs
    that led to findings. only: the numbers of the inputs to send; empty for all. inputs: how many inputs are sent, however long that takes;
    0 for as many as `seconds` permit.
    """

    seed: int
    seconds: float
    folder: Path
    findings: Path
    only: tuple[int, ...] = ()
    inputs: int = 0


def run(plan: Plan, log: Callable[[str], None]) -> Report:
    """Run the plan against two servers in turn, of which only the second one warms renditions, and return the report."""
    report = Report(plan.seed)
    started = time.monotonic()
    for share, warm in ((0.6, "none"), (0.4, "webp,fallback")):
        seconds, inputs = (math.inf, round(plan.inputs * share)) if plan.inputs else (plan.seconds * share, 0)
        _Campaign(plan, report, log, seconds=seconds, inputs=inputs).run(warm)
        if len(report.findings) >= MAX_FINDINGS or plan.only:
            break
    report.seconds = time.monotonic() - started
    return report


def stored_images() -> list[bytes]:
    """Return good images that stay on the server, to which good and bad transforms are applied."""
    return [
        images.photo_jpeg(700, 500, orientation=5),
        images.rgba_png(150, 110),
        images.animation(images.film(70, 50), "GIF"),
        images.animation(images.film(70, 50), "WEBP"),
        images.pages_tiff([images.picture(50, 60), images.picture(70, 30)]),
        images.avif(150, 110),
        images.heic(150, 110),
        images.gray_png(90, 60, alpha=True),
        b'<svg xmlns="http://www.w3.org/2000/svg" width="50" height="90"><circle cx="25" cy="45" r="20" fill="#08f"/></svg>',
    ]


class _Campaign:
    """Sends inputs to one server for `seconds`, or until there were `inputs` unless that is 0, and adds the outcomes to `report`."""

    def __init__(self, plan: Plan, report: Report, log: Callable[[str], None], *, seconds: float, inputs: int) -> None:
        self._plan = plan
        self._report = report
        self._log = log
        self._seconds = seconds
        self._inputs = inputs
        self._findings = FindingsFolder(plan.findings)
        self._progress_at = time.monotonic()

    def run(self, warm: str) -> None:
        data = self._plan.folder / f"data-{warm}"
        # They are parts of inputs.
        rng = Random(f"{self._plan.seed} {warm}")
        key, owner_token, token = rng.randbytes(32).hex(), f"owner-{rng.randbytes(12).hex()}", f"stranger-{rng.randbytes(12).hex()}"
        settings = {"keys": key, "tokens": f"{owner_token},{token}:ingest+read", "warm": warm, **SETTINGS}
        with darkroom(data, **settings) as server:
            signer = Signer([bytes.fromhex(key)])
            hidden = [text.encode() for text in (key, owner_token, str(data))]
            client = Client(server, signer, owner_token=owner_token, token=token, secrets=hidden)
            try:
                self._use(server, client, seeds(), token)
            finally:
                client.close()
        shutil.rmtree(data, ignore_errors=True)

    def _use(self, server: Server, client: Client, good: list[Seed], token: str) -> None:
        digests = []
        for body in stored_images():
            status, document = client.upload(body)
            if status != 201:
                raise RuntimeError(f"the server refused a good image: {status} {document}")
            digests.append(document["digest"])
        canaries = Canaries(client)
        canaries.record()
        watch = Watch(server, SLOTS, RENDER_MEMORY_BYTES)
        probe = LivenessProbe(server, watch.worker)
        probe.start()
        cases = Cases(self._plan.seed, good, digests, client.signer, token.encode())
        try:
            self._send(cases, client, canaries, watch)
        finally:
            probe.stop()
        last = self._report.total
        for complaint in [*probe.complaints, *watch.finish(), *self._busy_share()]:
            self._find(last, "the whole run", complaint, None)
        self._note(watch, probe)

    def _send(self, cases: Cases, client: Client, canaries: Canaries, watch: Watch) -> None:
        watch.check()
        ends = time.monotonic() + self._seconds
        numbers = iter(self._plan.only) if self._plan.only else itertools.count(self._report.total + 1)
        last = self._report.total + self._inputs if self._inputs else math.inf
        since = number = 0
        for number in numbers:
            since = since or number
            is_suspect = self._try(number, cases.make(number), client, watch)
            is_due = is_suspect or self._report.total % CHECK_EVERY == 0
            if is_due or self._report.total % CANARY_EVERY == 0:
                good = canaries.check_all if is_suspect else canaries.check_next
                self._check(number, since, watch.check() if is_due else [], good, watch)
                since = 0
            is_over = time.monotonic() > ends or self._report.total >= last
            if is_over or not watch.is_running() or len(self._report.findings) >= MAX_FINDINGS:
                break
        self._check(number, since or number, watch.check(), canaries.check_all, watch)

    def _check(self, number: int, since: int, seen: list[str], good: Callable[[], list[str]], watch: Watch) -> None:
        """Record the complaints about the server in `seen`, and those of `good`; inputs from number `since` may be their cause."""
        for complaint in [*seen, *(good() if watch.is_running() else ())]:
            self._find(number, f"one of the inputs from {since}", complaint, None)
        self._report.canaries += 1

    def _try(self, number: int, case: Case, client: Client, watch: Watch) -> bool:
        """Send one input and return whether it led to a finding."""
        self._report.count(case)
        found, before = len(self._report.findings), watch.render_cpu_seconds()
        for outcome in client.run(case):
            self._report.add(outcome)
            if outcome.is_busy:
                self._report.notes.append(f"input {number}, {case.label}: 503 {outcome.problem}")
            if outcome.reason is not None:
                self._find(number, case.label, f"{outcome.kind}: {outcome.reason}", case)
        used = watch.render_cpu_seconds() - before
        self._report.add_cost(Cost(used, number, case.label))
        if used > MAX_CPU_SECONDS:
            self._find(number, case.label, f"render processes used {used:.1f} s of CPU time", case)
        if self._plan.only or time.monotonic() > self._progress_at + _PROGRESS_SECONDS:
            self._progress_at = time.monotonic()
            self._log(f"input {number}: {case.label}; {len(self._report.findings)} findings")
        return len(self._report.findings) > found

    def _find(self, number: int, label: str, reason: str, case: Case | None) -> None:
        finding = Finding(number, label, reason)
        self._report.findings.append(finding)
        self._findings.add(finding, case)
        self._log(f"FINDING after input {number}, {label}\n  {reason}")

    def _busy_share(self) -> list[str]:
        count = sum(count for name, count in self._report.statuses.items() if " 503 " in name)
        if count > max(MIN_BUSY_COUNT, MAX_BUSY_SHARE * self._report.total):
            return [f"{count} of {self._report.total} inputs were 503"]
        return []

    def _note(self, watch: Watch, probe: LivenessProbe) -> None:
        if watch.memory:
            workers = [sample.worker_bytes // MEBIBYTE for sample in watch.memory]
            renderers = max(sample.renderer_bytes for sample in watch.memory) // MEBIBYTE
            self._report.notes.append(
                f"worker: {workers[0]} MiB resident at first, {workers[-1]} at last, {max(workers)} at most; render processes: {renderers} "
                f"MiB at most; descriptors: {watch.most_descriptors} at most; slowest /livez: {probe.slowest_seconds:.2f} s"
            )
