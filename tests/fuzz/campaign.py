"""A run: inputs one after the other against one server, good images every so often, and a close look at the server each time."""

from __future__ import annotations

import itertools
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path

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

# Every so many inputs a good image comes, and every so many the server is looked at; after a finding both come at once.
CANARY_EVERY = 6
CHECK_EVERY = 60

_PROGRESS_SECONDS = 30

SLOTS = 2
RENDER_MEMORY_BYTES = 512 * MEBIBYTE

# More CPU time of render processes than this for one small file is a way to stop the server.
MAX_CPU_SECONDS = 20.0
# A server that receives one request at a time has no reason to call itself busy more often than this.
MAX_BUSY_SHARE = 0.005
MIN_BUSY_COUNT = 5

# What both halves of a run have in common: small bounds are met sooner.
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
    # A machine that has much else to do is no finding.
    "wait_seconds": 90,
    "render_seconds": 90,
    "variants": "card: width=64,height=48,fit=cover",
}


class Plan(msgspec.Struct, frozen=True):
    """What a run does.

    seed: decides every input. seconds: how long inputs are sent. folder: for the servers' data. findings: a folder for inputs that broke
    something. only: numbers of inputs to send in place of all.
    """

    seed: int
    seconds: float
    folder: Path
    findings: Path
    only: tuple[int, ...] = ()


def run(plan: Plan, log: Callable[[str], None]) -> Report:
    """Return what came of a run: two servers one after the other, the second one warming what it takes in."""
    report = Report(plan.seed)
    started = time.monotonic()
    for share, warm in ((0.6, "none"), (0.4, "webp,fallback")):
        _Campaign(plan, report, log, seconds=plan.seconds * share).run(warm)
        if len(report.findings) >= MAX_FINDINGS or plan.only:
            break
    report.seconds = time.monotonic() - started
    return report


def good_exhibits() -> list[bytes]:
    """Return good images that stay on the server, for transforms that are not good."""
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
    """One server, and what is sent to it for some seconds."""

    def __init__(self, plan: Plan, report: Report, log: Callable[[str], None], *, seconds: float) -> None:
        self._plan = plan
        self._report = report
        self._log = log
        self._seconds = seconds
        self._findings = FindingsFolder(plan.findings)
        self._progress_at = time.monotonic()

    def run(self, warm: str) -> None:
        data = self._plan.folder / f"data-{warm}"
        key, owner_token, token = secrets.token_hex(32), f"owner-{secrets.token_hex(12)}", f"stranger-{secrets.token_hex(12)}"
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
        for body in good_exhibits():
            status, document = client.upload(body)
            if status != 201:
                raise RuntimeError(f"the server did not take a good image: {status} {document}")
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
        watch.look()
        ends = time.monotonic() + self._seconds
        numbers = iter(self._plan.only) if self._plan.only else itertools.count(self._report.total + 1)
        since = number = 0
        for number in numbers:
            since = since or number
            is_suspect = self._try(number, cases.make(number), client, watch)
            is_due = is_suspect or self._report.total % CHECK_EVERY == 0
            if is_due or self._report.total % CANARY_EVERY == 0:
                good = canaries.round if is_suspect else canaries.next
                self._check(number, since, watch.look() if is_due else [], good, watch)
                since = 0
            if not watch.is_running() or time.monotonic() > ends or len(self._report.findings) >= MAX_FINDINGS:
                break
        self._check(number, since or number, watch.look(), canaries.round, watch)

    def _check(self, number: int, since: int, seen: list[str], good: Callable[[], list[str]], watch: Watch) -> None:
        """Note what was seen of the server, and what good images have to complain of; the inputs from `since` may be why."""
        for complaint in [*seen, *(good() if watch.is_running() else ())]:
            self._find(number, f"one of the inputs from {since}", complaint, None)
        self._report.canaries += 1

    def _try(self, number: int, case: Case, client: Client, watch: Watch) -> bool:
        """Send one input; return whether anything about it was wrong."""
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
