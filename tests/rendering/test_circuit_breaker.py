"""The circuit breaker: an image that ended its process twice is refused for an hour by every server of the store, and no other is."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import anyio
import msgspec
import pytest

from service.errors import DeadlineExceededError, RenderFailedError, RenderGaveUpError, ServiceError
from service.images.transform import parse
from service.library.render_failures import RenderFailures
from service.rendering import circuit_breaker as circuit_module
from service.rendering import pool as pool_module
from service.rendering.circuit_breaker import EXPIRES_AFTER_SECONDS, CircuitBreaker, FailureMode, RenderFailure
from service.rendering.pool import RenderPool
from service.rendering.protocol import FindTrim, InputFile, Job, MakeIntermediate, Probe, Probed, Render, Rendered, RenderLadder
from service.storage.object_store import Storage, open_storage
from tests.support import images
from tests.support.library import open_library
from tests.support.renders import LIMITS, halted, ready, render_job, render_pool, rendered, taken, unresolved, until, written

pytestmark = pytest.mark.anyio

ORIGINAL, OVERLAY, OTHER = "a" * 32, "b" * 32, "c" * 32


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def render(text: str = "width=100", *, overlay: str | None = None, original: str = ORIGINAL) -> Render:
    return Render(InputFile("", original), unresolved(parse(text), "webp"), LIMITS, None if overlay is None else InputFile("", overlay))


def is_refused(circuit: CircuitBreaker, job: Job) -> bool:
    try:
        circuit.raise_if_open(job)
    except RenderGaveUpError:
        return True
    return False


def test_refusal_names_the_failure_and_the_time_of_the_next_attempt() -> None:
    clock = Clock()
    circuit = CircuitBreaker(clock)
    for _ in range(2):
        circuit.record(render(), "crashed")
        clock.now += 60
    with pytest.raises(RenderGaveUpError) as caught:
        circuit.raise_if_open(render())
    error = caught.value
    assert error.status_code == 422
    assert error.received == "2 failed attempts within the last hour"
    assert error.expected
    # The first attempt failed at 2027-01-15 08:00 UTC.
    assert "not tried again before 09:00 UTC" in str(error.remedy)


IMAGE_JOBS: list[Job] = [
    Probe("", LIMITS, digest=ORIGINAL),
    render(),
    render("width=50"),
    render(overlay=OVERLAY),
    RenderLadder(InputFile("", ORIGINAL), [100], ["webp"], 2, LIMITS),
    MakeIntermediate(InputFile("", ORIGINAL), LIMITS),
    FindTrim(InputFile("", ORIGINAL), parse("trim=10"), LIMITS),
]


def test_image_is_refused_after_two_failures_of_any_job_in_every_job() -> None:
    for failing in IMAGE_JOBS:
        if isinstance(failing, Render) and failing.overlay is not None:
            continue
        for mode in get_args(FailureMode):
            circuit = CircuitBreaker()
            circuit.record(failing, mode)
            assert not any(is_refused(circuit, job) for job in IMAGE_JOBS)
            circuit.record(failing, mode)
            assert all(is_refused(circuit, job) for job in IMAGE_JOBS)
            assert not is_refused(circuit, render(original=OTHER))


def test_image_is_tried_again_an_hour_after_the_first_of_two_failures() -> None:
    clock = Clock()
    circuit = CircuitBreaker(clock)
    circuit.record(render(), "crashed")
    clock.now += EXPIRES_AFTER_SECONDS / 2
    circuit.record(render(), "crashed")
    assert is_refused(circuit, render())
    clock.now += EXPIRES_AFTER_SECONDS / 2
    assert not is_refused(circuit, render())


def test_failures_with_an_overlay_are_held_against_the_two_together_only() -> None:
    circuit = CircuitBreaker()
    for _ in range(2):
        circuit.record(render(overlay=OVERLAY), "crashed")
    assert is_refused(circuit, render("width=50", overlay=OVERLAY))
    assert not is_refused(circuit, render())
    assert not is_refused(circuit, render(original=OVERLAY))
    assert not is_refused(circuit, render(overlay=OVERLAY, original=OTHER))


@pytest.mark.parametrize("text", ["full", "width=4000", "width=100,effort=6", "width=100,quality=auto", "width=100,max_bytes=5000"])
def test_only_the_rendition_is_refused_if_it_is_expensive_by_the_clients_choice(text: str) -> None:
    circuit = CircuitBreaker()
    for _ in range(2):
        circuit.record(render(text), "timed-out")
    assert is_refused(circuit, render(text))
    assert not is_refused(circuit, render("width=100"))
    for _ in range(2):
        circuit.record(render(text), "crashed")
    assert is_refused(circuit, render("width=100"))


def test_circuit_breaker_has_a_bounded_number_of_failures_and_drops_expired_ones_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_module, "_MAX_FAILURES", 10)
    clock = Clock()
    circuit = CircuitBreaker(clock)
    for number in range(50):
        circuit.record(render(original=f"{number:032}"), "crashed")
    assert sum(map(len, circuit._failures.values())) == 10
    clock.now += EXPIRES_AFTER_SECONDS
    for _ in range(2):
        circuit.record(render(), "crashed")
    assert is_refused(circuit, render())


# Render processes.


@pytest.fixture
async def lone(anyio_backend: object) -> AsyncIterator[RenderPool]:
    async with render_pool() as running:
        yield running


async def ended_with(pool: RenderPool, job: Job, ending: signal.Signals = signal.SIGKILL) -> ServiceError:
    """Return the error of a job whose process is killed in the middle of it."""
    errors: list[ServiceError] = []

    async def ask() -> None:
        with pytest.raises(ServiceError) as caught:
            await (pool.run(job, Probed) if isinstance(job, Probe) else pool.run(job, Rendered))
        errors.append(caught.value)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        async with taken(pool):
            os.kill(pool.process_ids[0], ending)
    await ready(pool)
    return errors[0]


async def test_image_whose_process_ended_twice_costs_no_third_process(lone: RenderPool, tmp_path: Path) -> None:
    bad = render_job(written(tmp_path, images.photo_jpeg(64, 48), "bad"), "width=40")
    good = written(tmp_path, images.photo_jpeg(80, 60), "good")
    for _ in range(2):
        assert isinstance(await ended_with(lone, bad), RenderFailedError)
    process_ids = lone.process_ids
    for text in ("width=40", "width=20"):
        with pytest.raises(RenderGaveUpError):
            await lone.run(msgspec.structs.replace(bad, request=unresolved(parse(text), bad.request.format)), Rendered)
    assert (await rendered(lone, good, "width=40")).width == 40
    assert lone.process_ids == process_ids


async def test_image_that_computes_until_the_deadline_twice_is_refused_and_one_that_waits_is_not(
    lone: RenderPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = written(tmp_path, images.large_jpeg(9000, 6000, progressive=True), "large")
    busy = render_job(large, "width=40")
    idle = render_job(written(tmp_path, images.photo_jpeg(64, 48), "idle"), "width=40")
    monkeypatch.setattr(lone, "_render_seconds", 0.3)
    for _ in range(3):
        # Its process does nothing, as on a machine on which other programs use all processors.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waits_in_vain, lone, idle)
            async with taken(lone):
                await anyio.sleep(0.5)
        await ready(lone)
    lone.circuit_breaker.raise_if_open(idle)
    # CPU time counts, because wall time depends on how busy the machine is.
    monkeypatch.setattr(pool_module, "_BUSY_SHARE", 0.01)
    deadlines = 0
    # On a machine on which other programs use all processors, some attempts get too little CPU time to count.
    while not is_refused(lone.circuit_breaker, busy):
        await waits_in_vain(lone, busy)
        await ready(lone)
        deadlines += 1
    assert deadlines >= 2
    with pytest.raises(RenderGaveUpError, match="longer than a render may take"):
        await lone.run(busy, Rendered)


async def waits_in_vain(pool: RenderPool, job: Job) -> None:
    with pytest.raises(DeadlineExceededError):
        await pool.run(job, Rendered)


async def test_upload_whose_probe_ended_its_process_twice_is_refused(lone: RenderPool, tmp_path: Path) -> None:
    async with open_library(tmp_path, lone) as home:
        errors: list[ServiceError] = []

        async def upload() -> None:
            with pytest.raises(ServiceError) as caught:
                await home.ingest(images.photo_jpeg(64, 48))
            errors.append(caught.value)

        for _ in range(2):
            async with anyio.create_task_group() as tasks:
                with halted(lone):
                    tasks.start_soon(upload)
                    await until(lambda: not lone._free)
                    os.kill(lone.process_ids[0], signal.SIGKILL)
            await ready(lone)
        await upload()
        assert [type(error) for error in errors] == [RenderFailedError, RenderFailedError, RenderGaveUpError]


# Failures that servers share.


def shared(folder: Path, clock: Clock) -> tuple[Storage, CircuitBreaker, RenderFailures]:
    storage = open_storage((folder / "store").as_uri(), {})
    circuit = CircuitBreaker(clock)
    return storage, circuit, RenderFailures(storage, circuit)


async def test_failures_are_shared_by_every_server_of_the_store_and_deleted_when_they_expire(tmp_path: Path) -> None:
    clock = Clock()
    storage, here, notes_here = shared(tmp_path, clock)
    _, there, notes_there = shared(tmp_path, clock)
    here.record(render(), "crashed")
    there.record(render(), "timed-out")
    await notes_here.sync()
    await notes_there.sync()
    await notes_here.sync()
    assert is_refused(here, render())
    assert is_refused(there, render())
    # They are read again, but not counted again.
    await notes_there.sync()
    assert len(there._failures[ORIGINAL]) == 2
    _, late, notes_late = shared(tmp_path, clock)
    await notes_late.sync()
    assert is_refused(late, render())
    clock.now += EXPIRES_AFTER_SECONDS
    await notes_late.sync()
    assert not is_refused(late, render())
    assert [entry async for entry in storage.list_objects("render-failures")] == []


async def test_failure_that_cannot_be_stored_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, circuit, notes = shared(tmp_path, Clock())

    async def fail(*_: object, **__: object) -> None:
        raise RenderFailedError("no store")

    circuit.record(render(), "crashed")
    with monkeypatch.context() as patch:
        patch.setattr(storage, "put", fail)
        with pytest.raises(RenderFailedError):
            await notes.sync()
    circuit.record(render(), "crashed")
    await notes.sync()
    assert len([entry async for entry in storage.list_objects("render-failures")]) == 2


def test_synchronize_preserves_failures_that_are_not_in_the_store_yet() -> None:
    circuit = CircuitBreaker()
    circuit.record(render(), "crashed")
    circuit.record(render(), "crashed")
    circuit.synchronize([RenderFailure(OTHER, "crashed", circuit._clock())] * 2)
    assert is_refused(circuit, render())
    assert is_refused(circuit, render(original=OTHER))


# Health.


async def test_pool_whose_renders_end_their_processes_reports_it_until_a_self_test_succeeds(
    lone: RenderPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(pool_module.FAILING_AFTER):
        assert lone.render_failure is None
        await ended_with(lone, render_job(written(tmp_path, images.photo_jpeg(60 + number, 48)), "width=40"))
    assert lone.render_failure is not None
    # No self-test while requests show that renders fail.
    await lone.self_test()
    assert lone.render_failure is not None
    monkeypatch.setattr(pool_module, "_QUIET_SECONDS", 0.0)
    await lone.self_test()
    assert lone.render_failure is None


async def test_pool_recovers_with_the_next_render_that_succeeds(lone: RenderPool, tmp_path: Path) -> None:
    good = written(tmp_path, images.photo_jpeg(64, 48), "good")
    for number in range(pool_module.FAILING_AFTER):
        await ended_with(lone, render_job(written(tmp_path, images.photo_jpeg(70 + number, 48)), "width=40"))
    assert lone.render_failure is not None
    await rendered(lone, good, "width=40")
    assert lone.render_failure is None
