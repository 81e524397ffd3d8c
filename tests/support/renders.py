"""Render processes for tests, and jobs for them."""

from __future__ import annotations

import hashlib
import math
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio
import msgspec
import psutil
import pytest

from service.errors import ServiceError
from service.images.digest import digest_from_sha256
from service.images.formats import Format
from service.images.geometry import Plan
from service.images.info import ImageInfo, Limits
from service.images.render_request import RenderRequest
from service.images.transform import PIPELINE_VERSION, Transform, parse
from service.rendering import pool as pool_module
from service.rendering.pool import RenderPool
from service.rendering.process import RenderProcess
from service.rendering.protocol import InputFile, Job, Probe, Probed, Render, Rendered, Reply
from tests.support.waiting import PATIENCE_SECONDS

LIMITS = Limits(
    max_pixels=128_000_000, max_whole_pixels=100_000_000, max_output_pixels=40_000_000, max_frames=1_000, codec_bytes=335_544_320
)
MEBIBYTE = 1 << 20

# The time that a process may take for a file whose header shows that it is invalid; opening a small file takes some milliseconds.
HEADER_CPU_SECONDS = 0.2
HEADER_BYTES = 50_000_000


@asynccontextmanager
async def render_pool(
    *,
    slots: int = 1,
    queue_limit: int = 256,
    memory_bytes: int = 512 * MEBIBYTE,
    render_seconds: float = PATIENCE_SECONDS,
    wait_seconds: float = PATIENCE_SECONDS,
) -> AsyncIterator[RenderPool]:
    """Run a pool, and yield it when every slot has a process, which is never ended for being idle."""
    pool = RenderPool(
        slots=slots, queue_limit=queue_limit, memory_bytes=memory_bytes, render_seconds=render_seconds, wait_seconds=wait_seconds
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_module, "IDLE_SECONDS", math.inf)
        async with pool.running():
            start_processes(pool)
            await ready(pool, slots)
            yield pool


def start_processes(pool: RenderPool) -> None:
    """Have every slot of a running pool start its process, as jobs do that come at the same time."""
    for slot in pool._slots:
        slot._tasks.start_soon(slot.start_process)


async def ready(pool: RenderPool, processes: int = 1) -> list[int]:
    """Return the process ids of the pool when it has so many processes."""
    await until(lambda: len(pool.process_ids) >= processes)
    return pool.process_ids


async def until(condition: Callable[[], bool]) -> None:
    """Return as soon as a condition holds; raises `TimeoutError` if it does not in time."""
    with anyio.fail_after(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what other processes do sets no event
            await anyio.sleep(0.005)


@contextmanager
def halted(pool: RenderPool) -> Iterator[None]:
    """Stop the processes within the block, so that every job waits."""
    process_ids = pool.process_ids
    for process_id in process_ids:
        os.kill(process_id, signal.SIGSTOP)
    try:
        yield
    finally:
        _continue(process_ids)


@asynccontextmanager
async def taken(pool: RenderPool) -> AsyncIterator[None]:
    """Return once a render process has the job that was started before, on which it does nothing until it is ended.

    All others go on. The pool was idle before.
    """
    with halted(pool):
        await anyio.wait_all_tasks_blocked()
        _continue([slot.process.pid for slot in pool._free if slot.process is not None])
        yield


def _continue(process_ids: list[int]) -> None:
    for process_id in process_ids:
        with suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGCONT)


def running_first(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Have render processes that are started from now on run a script before anything else; its files go to `folder`.

    They do not get it by their environment, in which there is nothing of this process's own.
    """
    written(folder, script.encode(), "sitecustomize.py")
    python = written(folder, f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n'.encode(), "python")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))


def watched_jobs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which every job from now on adds the name of its type."""
    names: list[str] = []
    submit = RenderProcess.submit

    async def watched(process: RenderProcess, job: Job) -> Reply:
        names.append(type(job).__name__)
        return await submit(process, job)

    monkeypatch.setattr(RenderProcess, "submit", watched)
    return names


def watched_replies(monkeypatch: pytest.MonkeyPatch) -> list[Reply]:
    """Return a list to which every reply of a render process from now on is added; one that ends gives none."""
    replies: list[Reply] = []
    submit = RenderProcess.submit

    async def watched(process: RenderProcess, job: Job) -> Reply:
        replies.append(await submit(process, job))
        return replies[-1]

    monkeypatch.setattr(RenderProcess, "submit", watched)
    return replies


def written(folder: Path, body: bytes, name: str = "original") -> Path:
    """Return the path of a new file with the bytes of an original."""
    path = folder / name
    path.write_bytes(body)
    return path


def input_file_of(path: Path, intermediate_of: ImageInfo | None = None) -> InputFile:
    """Return the input for a job: the original in a file or, with `intermediate_of`, the intermediate of an original with that header."""
    return InputFile(str(path), digest_from_sha256(hashlib.sha256(path.read_bytes()).digest()), intermediate_of)


def unresolved(transform: Transform, image_format: Format, version: int = PIPELINE_VERSION) -> RenderRequest:
    """Return a request for an original whose header is not known yet; the render process reads it and resolves the request."""
    info = ImageInfo("", 1, 1, 1, alpha=False, needs_full_decode=False)
    plan = Plan.whole(1, 1, 1, 1)
    return RenderRequest(info=info, transform=transform, format=image_format, version=version, frames=1, plan=plan)


def render_job(
    path: Path,
    spelling: str = "full",
    image_format: Format = "jpeg",
    *,
    quality: int | None = None,
    version: int = PIPELINE_VERSION,
    limits: Limits = LIMITS,
    overlay: Path | None = None,
) -> Render:
    """Return the job that renders the original in a file; `quality` replaces the transform's own."""
    transform = parse(spelling)
    if quality is not None:
        transform = msgspec.structs.replace(transform, quality=quality)
    request = unresolved(transform, image_format, version)
    return Render(input_file_of(path), request, limits, None if overlay is None else input_file_of(overlay))


async def rendered(
    pool: RenderPool,
    path: Path,
    spelling: str = "full",
    image_format: Format = "jpeg",
    *,
    quality: int | None = None,
    version: int = PIPELINE_VERSION,
    limits: Limits = LIMITS,
    overlay: Path | None = None,
) -> Rendered:
    """Return a rendition of the original in a file."""
    job = render_job(path, spelling, image_format, quality=quality, version=version, limits=limits, overlay=overlay)
    return await pool.run(job, Rendered)


async def probed(pool: RenderPool, path: Path, *, limits: Limits = LIMITS) -> Probed:
    """Return the result of a probe of the original in a file."""
    return await pool.run(Probe(str(path), limits), Probed)


def check_words(error: ServiceError | None) -> None:
    """Fail unless an error is the client's fault and has a remedy."""
    assert error is not None
    assert 400 <= error.status_code < 500, repr(error)
    assert error.detail
    assert error.remedy
    assert "/tmp" not in f"{error.detail} {error.expected} {error.received} {error.remedy}"


class Spent:
    """The CPU seconds that the processes of a pool have used since the start, and the largest memory that any of them has had."""

    def __init__(self, pool: RenderPool) -> None:
        self._pool = pool
        self._processes = {process_id: self._cpu(process_id) for process_id in pool.process_ids}
        self._held = {process_id: self._peak(process_id) for process_id in pool.process_ids}

    def check(self, cpu_seconds: float, more_bytes: int, *, may_be_replaced: bool = False) -> tuple[float, int]:
        """Return the most CPU seconds and further bytes that a process has used; fail if it is more than given, or if one was lost.

        may_be_replaced: whether processes may have been replaced, because they had grown or because a job ran out of memory.
        """
        assert may_be_replaced or self._pool.process_ids == list(self._processes), "a process was lost"
        spent = max(self._cpu(process_id) - self._processes.get(process_id, 0.0) for process_id in self._pool.process_ids)
        more = max(self._peak(process_id) - self._held.get(process_id, 0) for process_id in self._pool.process_ids)
        assert spent < cpu_seconds
        assert more < more_bytes
        return spent, more

    @staticmethod
    def _cpu(process_id: int) -> float:
        times = psutil.Process(process_id).cpu_times()
        return float(times.user + times.system)

    @staticmethod
    def _peak(process_id: int) -> int:
        status = Path(f"/proc/{process_id}/status").read_text("ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
