import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import anyio
import msgspec
import psutil
import pytest

from service import instruments
from service.errors import (
    BadTransformError,
    BrokenImageError,
    CannotFitError,
    DamagedOriginalError,
    DeadlineExceededError,
    FormatNotOfferedError,
    OverloadedError,
    RenderFailedError,
    ServiceError,
    TooCostlyError,
    TooManyPixelsError,
    UnsupportedFormatError,
)
from service.images.formats import Format
from service.images.transform import PIPELINE_VERSION
from service.rendering import pool as pool_module
from service.rendering import process as process_module
from service.rendering.circuit_breaker import CircuitBreaker
from service.rendering.cost import CostModel
from service.rendering.pool import RenderPool
from service.rendering.process import RenderProcess
from service.rendering.protocol import (
    CodecSupport,
    InputFile,
    Job,
    NeedsExclusive,
    NextRendition,
    Probe,
    Probed,
    Rendered,
    RenderLadder,
    Reply,
    SelfTest,
)
from tests.promises.figures import RecordFigure
from tests.support import images
from tests.support.images import REPOSITORY
from tests.support.renders import (
    LIMITS,
    MEBIBYTE,
    halted,
    input_file_of,
    probed,
    ready,
    render_job,
    render_pool,
    rendered,
    running_first,
    start_processes,
    taken,
    until,
    watched_jobs,
    written,
)
from tests.support.waiting import PATIENCE_SECONDS, within

pytestmark = pytest.mark.anyio

# A job that takes ten seconds and more when nothing ends it: AVIF of some megapixels.
SLOW = "width=3600,effort=4"


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("originals"), images.photo_jpeg(400, 300), "photo.jpg")


@pytest.fixture(scope="module")
def large_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("originals"), images.large_jpeg(3600, 2400), "large.jpg")


@pytest.fixture(scope="module")
async def lone_pool(anyio_backend: object) -> AsyncIterator[RenderPool]:
    async with render_pool() as running:
        yield running


@pytest.fixture
async def lone(lone_pool: RenderPool, monkeypatch: pytest.MonkeyPatch) -> RenderPool:
    """Return the shared pool of one process, reset: these tests are about its recovery from what earlier ones have done to it."""
    monkeypatch.setattr(lone_pool._queue, "costs", CostModel())
    monkeypatch.setattr(lone_pool, "circuit_breaker", CircuitBreaker())
    await ready(lone_pool)
    return lone_pool


def is_gone(process_id: int) -> bool:
    """Return whether a process has ended; a zombie has."""
    try:
        return psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def refused(pool: RenderPool, job: Job) -> ServiceError:
    """Return the failure of a job."""
    run = pool.run(job, Probed) if isinstance(job, Probe) else pool.run(job, Rendered)
    with pytest.raises(ServiceError) as caught:
        await run
    return caught.value


async def test_pool_renders_and_probes(pool: RenderPool, photo: Path) -> None:
    result = await rendered(pool, photo, "width=100", "webp")
    assert (result.width, result.height) == (100, 75)
    assert images.decode(result.body).format == "WEBP"
    assert (await probed(pool, photo)).info.width == 400


async def test_pool_runs_as_many_jobs_at_a_time_as_it_has_processes(pool: RenderPool, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = watched_jobs(monkeypatch)
    async with anyio.create_task_group() as tasks:
        with halted(pool):
            for _ in range(3):
                tasks.start_soon(probed, pool, photo)
            await anyio.wait_all_tasks_blocked()
            assert jobs == ["Probe"] * 2
    assert jobs == ["Probe"] * 3


# Properties of a render process.


def limits_of(process_id: int) -> dict[str, list[str]]:
    """Return the soft and the hard limit of each resource (proc(5), limits)."""
    lines = Path(f"/proc/{process_id}/limits").read_text("ascii").splitlines()
    return {line[:26].strip(): line[26:].split()[:2] for line in lines}


def opened_by(process_id: int) -> list[str]:
    return [str(link.readlink()) for link in Path(f"/proc/{process_id}/fd").iterdir()]


async def test_process_has_the_lowest_priority_a_memory_cap_and_no_core_files(pool: RenderPool) -> None:
    for process_id in pool.process_ids:
        assert psutil.Process(process_id).nice() == 19
        limits = limits_of(process_id)
        assert limits["Max address space"] == [str(512 * MEBIBYTE)] * 2
        assert limits["Max core file size"] == ["0", "0"]


async def test_process_leads_a_group_in_the_session_of_the_server_and_has_nothing_open_but_its_pipes(pool: RenderPool) -> None:
    for process_id in pool.process_ids:
        # Ctrl-C goes to the foreground group; niceness counts among the processes of one session (sched(7), autogroup).
        assert os.getpgid(process_id) == process_id
        assert os.getsid(process_id) == os.getsid(0)
        own = ("socket:", "pipe:", "/dev/null", f"/proc/{process_id}/statm")
        assert all(name.startswith(own) for name in opened_by(process_id))


PARENT = """
import sys, anyio
from pathlib import Path
from tests.support.renders import rendered, render_pool

async def main(original, told):
    async with render_pool(slots=2) as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(rendered, pool, original, "width=3600", "avif")
        told.write_text(" ".join(map(str, pool.process_ids)))
        await anyio.sleep_forever()

anyio.run(main, *map(Path, sys.argv[1:]), backend_options={"use_uvloop": True})
"""


async def test_processes_of_a_killed_server_are_gone_within_a_second_idle_or_at_work(large_photo: Path, tmp_path: Path) -> None:
    told = tmp_path / "process ids"
    command = [sys.executable, "-c", PARENT, str(large_photo), str(told)]
    async with await anyio.open_process(
        command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as parent:
        await until(lambda: told.exists() and len(told.read_text("ascii").split()) == 2)
        process_ids = [int(word) for word in told.read_text("ascii").split()]

        def one_is_at_work() -> bool:
            spent = [psutil.Process(process_id).cpu_times().user for process_id in process_ids]
            return abs(spent[0] - spent[1]) > 0.3

        await until(one_is_at_work)
        parent.kill()
        await parent.wait()
        with within(1):
            await until(lambda: all(is_gone(process_id) for process_id in process_ids))


async def test_closed_pool_has_no_process_and_no_zombie(photo: Path) -> None:
    async with render_pool() as pool:
        process_ids = pool.process_ids
        await rendered(pool, photo, "width=50")
    assert not any(psutil.pid_exists(process_id) for process_id in process_ids)


async def test_pool_closed_while_its_processes_start_has_none() -> None:
    pool = RenderPool(slots=1, queue_limit=1, memory_bytes=512 * MEBIBYTE, render_seconds=PATIENCE_SECONDS, wait_seconds=PATIENCE_SECONDS)
    children = psutil.Process().children
    before = {child.pid for child in children(recursive=True)}
    async with pool.running():
        await until(lambda: any("service.worker" in " ".join(child.cmdline()) for child in children() if child.pid not in before))
        assert pool.process_ids == []
    await until(lambda: {child.pid for child in children(recursive=True)} <= before)


# A process that ends in the middle of a job.


async def test_process_killed_in_the_middle_of_an_encode_fails_only_that_render(lone: RenderPool, large_photo: Path, photo: Path) -> None:
    (process_id,) = lone.process_ids
    idle_seconds = psutil.Process(process_id).cpu_times().user

    async def kill() -> None:
        await until(lambda: psutil.Process(process_id).cpu_times().user > idle_seconds + 0.3)
        os.kill(process_id, signal.SIGKILL)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kill)
        error = await refused(lone, render_job(large_photo, SLOW, "avif"))
    assert isinstance(error, RenderFailedError)
    assert (error.status_code, error.retry_after_seconds) == (500, 1)
    assert (await rendered(lone, photo, "width=100")).width == 100
    assert process_id not in lone.process_ids
    await until(lambda: is_gone(process_id))


@pytest.mark.parametrize(
    ("ending", "kind"),
    [(signal.SIGSEGV, RenderFailedError), (signal.SIGABRT, TooCostlyError)],
    ids=["crashes", "aborts for want of memory"],
)
async def test_process_that_ends_in_the_middle_of_a_job_fails_only_that_job(
    photo: Path, ending: signal.Signals, kind: type[ServiceError]
) -> None:
    async with render_pool() as pool, anyio.create_task_group() as tasks:

        async def ask() -> None:
            assert type(await refused(pool, Probe(str(photo), LIMITS))) is kind
            assert (await rendered(pool, photo, "width=100")).width == 100

        tasks.start_soon(ask)
        async with taken(pool):
            os.kill(pool.process_ids[0], ending)


async def test_process_killed_while_it_is_idle_is_replaced_for_the_next_job_but_one(lone: RenderPool, photo: Path) -> None:
    (process_id,) = lone.process_ids
    os.kill(process_id, signal.SIGKILL)
    await until(lambda: is_gone(process_id))
    try:
        await rendered(lone, photo, "width=100")
    except RenderFailedError:
        # The pool has not noticed yet.
        await ready(lone)
    assert (await rendered(lone, photo, "width=100")).width == 100


async def test_process_that_has_grown_is_replaced_after_its_job(lone: RenderPool, photo: Path) -> None:
    before = lone.process_ids
    assert (await rendered(lone, photo, "width=100")).width == 100
    assert lone.process_ids == before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process_module, "RECYCLE_ABOVE_BYTES", 1)
        assert (await rendered(lone, photo, "width=100")).width == 100
    await until(lambda: is_gone(before[0]))
    after = await ready(lone)
    assert after != before
    assert (await rendered(lone, photo, "width=100")).width == 100
    assert lone.process_ids == after


# Idle processes.


@asynccontextmanager
async def idle_pool(monkeypatch: pytest.MonkeyPatch, *, idle_seconds: float) -> AsyncIterator[RenderPool]:
    """Yield a pool of three slots that has started its first process."""
    monkeypatch.setattr(pool_module, "IDLE_SECONDS", idle_seconds)
    pool = RenderPool(slots=3, queue_limit=9, memory_bytes=512 * MEBIBYTE, render_seconds=PATIENCE_SECONDS, wait_seconds=PATIENCE_SECONDS)
    async with pool.running():
        await pool.codec_support()
        yield pool


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the reason is added for which a process has ended."""
    reasons: list[str] = []
    monkeypatch.setattr(instruments.RENDER_PROCESS_ENDS, "add", reasons.append)
    return reasons


async def test_pool_starts_a_process_only_for_a_job_that_finds_no_idle_one(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with idle_pool(monkeypatch, idle_seconds=math.inf) as pool, anyio.create_task_group() as tasks:
        for _ in range(3):
            await rendered(pool, photo, "width=100")
        (process_id,) = pool.process_ids
        async with taken(pool):
            tasks.start_soon(rendered, pool, photo, "width=100")
            await until(lambda: pool.busy_slots == 1)
            assert (await rendered(pool, photo, "width=100")).width == 100
            assert pool.process_ids[0] == process_id
            assert len(pool.process_ids) == 2


async def test_processes_that_no_job_needs_are_ended_but_one(photo: Path, monkeypatch: pytest.MonkeyPatch, ends: list[str]) -> None:
    async with idle_pool(monkeypatch, idle_seconds=0.2) as pool:
        start_processes(pool)
        await until(lambda: ends == ["idle"] * 2)
        (left,) = pool.process_ids
        assert pool.start_failure is None
        # Long enough for the pool to end one more, if it did.
        await anyio.sleep(0.5)
        assert (await rendered(pool, photo, "width=100")).width == 100
        assert pool.process_ids == [left]
        assert ends == ["idle"] * 2


async def test_as_many_processes_stay_as_jobs_have_run_at_the_same_time(
    photo: Path, monkeypatch: pytest.MonkeyPatch, ends: list[str]
) -> None:
    async with idle_pool(monkeypatch, idle_seconds=math.inf) as pool:
        start_processes(pool)
        before = await ready(pool, 3)
        async with anyio.create_task_group() as tasks:
            with halted(pool):
                for _ in range(2):
                    tasks.start_soon(rendered, pool, photo, "width=100")
                await until(lambda: pool.busy_slots == 2)
                for _ in range(3):
                    await pool._end_unneeded_processes()
                assert len(pool.process_ids) == 2
        await pool._end_unneeded_processes()
        assert len(pool.process_ids) == 2
        await pool._end_unneeded_processes()
        assert ends == ["idle"] * 2
        await until(lambda: sum(map(is_gone, before)) == 2)


async def test_start_of_a_process_is_not_learned_as_the_cost_of_its_first_job(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with idle_pool(monkeypatch, idle_seconds=math.inf) as pool:
        await rendered(pool, photo, "width=100")
        measured = pool.costs.measurements
        pool._slots[0].end_idle_process()
        await rendered(pool, photo, "width=100")
        assert pool.costs.measurements == measured
        await rendered(pool, photo, "width=100")
        assert pool.costs.measurements == measured + 1


# Deadline, queue, cancellation.


async def test_render_past_its_deadline_is_killed_in_the_middle_of_an_encode_and_its_slot_is_free_at_once(
    lone: RenderPool, large_photo: Path, photo: Path, record_figure: RecordFigure
) -> None:
    (process_id,) = lone.process_ids
    started = time.monotonic()
    with within(1.5), pytest.MonkeyPatch.context() as patch:
        patch.setattr(lone, "_render_seconds", 0.5)
        error = await refused(lone, render_job(large_photo, SLOW, "avif"))
    assert time.monotonic() - started >= 0.5
    record_figure("refused {:.0f} ms after the deadline", 1_000 * (time.monotonic() - started - 0.5))
    assert isinstance(error, DeadlineExceededError)
    assert (error.status_code, error.retry_after_seconds) == (503, 10)
    assert (await rendered(lone, photo, "width=100")).width == 100
    await until(lambda: is_gone(process_id))


async def test_job_that_waits_past_the_deadline_fails_and_so_does_the_one_before_it(
    lone: RenderPool, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lone, "_render_seconds", 0.3)
    errors: list[ServiceError] = []

    async def ask(job: Job) -> None:
        errors.append(await refused(lone, job))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, Probe(str(photo), LIMITS))
        # No other process is started for the second job, which could end it in time.
        async with taken(lone), lone._slots[0]._starting:
            tasks.start_soon(ask, render_job(photo))
            await until(lambda: len(errors) == 2)
    assert [type(error) for error in errors] == [DeadlineExceededError] * 2


async def test_job_beyond_the_queue_limit_is_refused_at_once_with_retry_after(
    lone: RenderPool, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lone._queue, "_queue_limit", 2)
    done: list[int] = []

    async def ask() -> None:
        done.append((await rendered(lone, photo, "width=50")).width)

    async with anyio.create_task_group() as tasks:
        with halted(lone):
            for _ in range(3):
                tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            with within(0.2):
                error = await refused(lone, render_job(photo))
            assert isinstance(error, OverloadedError)
            assert error.status_code == 503
            assert error.retry_after_seconds is not None
            assert 1 <= error.retry_after_seconds <= 60
            assert done == []
        await until(lambda: done == [50, 50, 50])
    assert (await rendered(lone, photo, "width=60")).width == 60


async def test_job_with_an_expected_wait_that_is_too_long_is_refused_at_once(
    lone: RenderPool, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With two renders before it, a third one would end after 60 s and a fourth after 80.
    monkeypatch.setattr(lone._queue, "_wait_seconds", 100)
    monkeypatch.setattr(lone._queue.costs, "estimate", lambda _: 20.0)
    began = time.monotonic()
    async with anyio.create_task_group() as tasks:
        with halted(lone):
            for _ in range(3):
                tasks.start_soon(rendered, lone, photo, "width=50")
            await anyio.wait_all_tasks_blocked()
            error = await refused(lone, render_job(photo))
            assert isinstance(error, OverloadedError)
            # It would be admitted when it would end within 70 of the 100 s that its client waits.
            since_the_first_began = math.ceil(time.monotonic() - began)
            assert error.retry_after_seconds is not None
            assert 10 - since_the_first_began <= error.retry_after_seconds <= 10


async def test_job_of_a_disconnected_client_is_ended_and_harms_no_other(lone: RenderPool, photo: Path) -> None:
    (process_id,) = lone.process_ids
    leaving = anyio.CancelScope()

    async def leave() -> None:
        with leaving:
            await probed(lone, photo)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        async with taken(lone):
            leaving.cancel()
            await until(lambda: is_gone(process_id))
            assert (await rendered(lone, photo, "width=100")).width == 100


async def test_job_whose_client_leaves_the_queue_gives_up_its_place(lone: RenderPool, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lone._queue, "_queue_limit", 1)
    leaving = anyio.CancelScope()

    async def leave() -> None:
        with leaving:
            await rendered(lone, photo)

    async with anyio.create_task_group() as tasks:
        with halted(lone):
            tasks.start_soon(rendered, lone, photo, "width=50")
            tasks.start_soon(leave)
            await anyio.wait_all_tasks_blocked()
            assert isinstance(await refused(lone, render_job(photo)), OverloadedError)
            leaving.cancel()
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(rendered, lone, photo, "width=50")
            await anyio.wait_all_tasks_blocked()
            assert isinstance(await refused(lone, render_job(photo)), OverloadedError)


# Output of codecs.

LOUD = """
import os, sys

def loud(event, arguments):
    if event == "mmap.__new__":
        os.write(1, b"\\x00\\x00\\x00\\x05printed on standard output\\n" * 100)
        for _ in range(64):
            os.write(2, b"a warning " * 6_400 + b"\\n")

sys.addaudithook(loud)
"""


async def test_process_that_prints_megabytes_in_a_job_neither_hangs_nor_garbles_its_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[dict[str, object]]
) -> None:
    """Four megabytes on standard error, far more than a pipe holds, and on standard output, which is for replies."""
    running_first(monkeypatch, tmp_path, LOUD)
    path = written(tmp_path, images.photo_jpeg(400, 300), "loud.jpg")
    async with render_pool() as pool:
        with anyio.fail_after(PATIENCE_SECONDS):
            assert (await rendered(pool, path, "width=100")).width == 100
            assert (await probed(pool, path)).info.height == 300
    lines = [str(event["line"]) for event in logged if event["event"] == "a render process wrote to its standard error"]
    assert any("printed on standard output" in line for line in lines)
    assert any("a warning a warning" in line for line in lines)
    assert max(map(len, lines)) <= 501


# Memory.


async def test_render_that_needs_more_memory_than_the_cap_is_too_costly_and_harms_no_other(tmp_path: Path, photo: Path) -> None:
    progressive = written(tmp_path, images.large_jpeg(9000, 6000, progressive=True), "progressive.jpg")
    camera = written(tmp_path, images.large_jpeg(6000, 4000), "camera.jpg")
    async with render_pool(memory_bytes=256 * MEBIBYTE) as pool:
        for job in (render_job(progressive, "width=640"), render_job(camera, "full", "avif"), Probe(str(progressive), LIMITS)):
            error = await refused(pool, job)
            assert isinstance(error, TooCostlyError), job
            assert error.status_code == 503
            assert error.remedy
        assert (await rendered(pool, camera, "width=640", "webp")).width == 640
        assert (await rendered(pool, photo, "width=100", "avif")).width == 100


async def test_original_that_needs_exclusive_use_is_the_only_such_job_while_others_go_on(
    pool: RenderPool, tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heavy = written(tmp_path, images.gray_tiff(6_400, 6_400), "heavy.tiff")
    at_work: list[object] = []
    replies: list[tuple[bool, bool]] = []
    submit = RenderProcess.submit

    async def watched(process: RenderProcess, job: Job) -> Reply:
        exclusive = not isinstance(job, NextRendition | SelfTest) and job.exclusive
        if exclusive:
            at_work.append(process)
            assert len(at_work) == 1
        try:
            reply = await submit(process, job)
        finally:
            if exclusive:
                at_work.remove(process)
        replies.append((exclusive, isinstance(reply, NeedsExclusive)))
        return reply

    monkeypatch.setattr(RenderProcess, "submit", watched)
    widths: list[int] = []

    async def render(path: Path) -> None:
        widths.append((await rendered(pool, path, "width=64")).width)

    async with anyio.create_task_group() as tasks:
        for path in (heavy, heavy, heavy, photo, photo):
            tasks.start_soon(render, path)
    assert widths == [64] * 5
    assert sorted(replies) == [(False, False)] * 2 + [(False, True)] * 3 + [(True, False)] * 3


# Ladders in the background.


def ladder_job(path: Path, widths: list[int], formats: list[Format]) -> RenderLadder:
    return RenderLadder(input_file_of(path), widths, formats, PIPELINE_VERSION, LIMITS)


async def all_of(pool: RenderPool, job: RenderLadder) -> list[Rendered]:
    """Return the renditions of a ladder until it ends."""
    async with aclosing(pool.render_ladder(job)) as renditions:
        return [rendition async for rendition in renditions]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which every job of a render process adds the name of its type."""
    return watched_jobs(monkeypatch)


async def test_ladder_yields_each_format_at_each_width_the_widest_first(pool: RenderPool, photo: Path, jobs: list[str]) -> None:
    renditions = await all_of(pool, ladder_job(photo, [320, 200, 64], ["webp", "jpeg"]))
    pictures = [images.decode(rendition.body) for rendition in renditions]
    assert [(picture.width, picture.format) for picture in pictures] == [
        (320, "WEBP"), (320, "JPEG"), (200, "WEBP"), (200, "JPEG"), (64, "WEBP"), (64, "JPEG"),
    ]  # fmt: skip
    assert [(rendition.width, rendition.height) for rendition in renditions[::2]] == [(320, 240), (200, 150), (64, 48)]
    assert jobs == ["RenderLadder"] + ["NextRendition"] * 5


async def test_ladder_ends_after_the_current_rendition_when_a_request_waits_and_the_rest_can_be_submitted_again(
    lone: RenderPool, photo: Path, jobs: list[str]
) -> None:
    done: list[int] = []

    async def ask() -> None:
        done.append((await rendered(lone, photo, "width=50")).width)

    async with aclosing(lone.render_ladder(ladder_job(photo, [320, 200, 64], ["webp"]))) as renditions, anyio.create_task_group() as tasks:
        assert (await anext(renditions)).width == 320
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert done == []
        assert [rendition async for rendition in renditions] == []
        await until(lambda: done == [50])
    assert [rendition.width for rendition in await all_of(lone, ladder_job(photo, [200, 64], ["webp"]))] == [200, 64]
    assert jobs == ["RenderLadder", "Render", "RenderLadder", "NextRendition"]


async def test_ladder_starts_when_no_request_waits_any_more(lone: RenderPool, photo: Path, jobs: list[str]) -> None:
    async with anyio.create_task_group() as tasks:
        with halted(lone):
            tasks.start_soon(rendered, lone, photo, "width=50")
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(all_of, lone, ladder_job(photo, [64], ["webp"]))
            await anyio.wait_all_tasks_blocked()
            for _ in range(3):
                tasks.start_soon(rendered, lone, photo, "width=50")
            await anyio.wait_all_tasks_blocked()
    assert jobs == ["Render"] * 4 + ["RenderLadder"]


async def test_ladder_leaves_one_of_several_slots_free_for_the_next_request(pool: RenderPool, photo: Path, jobs: list[str]) -> None:
    made: list[Rendered] = []

    async def climb() -> None:
        made.extend(await all_of(pool, ladder_job(photo, [64, 32], ["webp"])))

    leaving = anyio.CancelScope()

    async def occupy() -> None:
        with leaving:
            await probed(pool, photo)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(occupy)
        async with taken(pool):
            tasks.start_soon(climb)
            await anyio.wait_all_tasks_blocked()
            assert jobs == ["Probe"]
            assert (await rendered(pool, photo, "width=50")).width == 50
            assert jobs == ["Probe", "Render"]
            leaving.cancel()
    assert [rendition.width for rendition in made] == [64, 32]
    await ready(pool, 2)


async def test_ladder_goes_on_beside_a_request_that_has_a_slot(pool: RenderPool, photo: Path) -> None:
    async with aclosing(pool.render_ladder(ladder_job(photo, [64, 32, 16], ["webp"]))) as renditions:
        widths = [(await anext(renditions)).width]
        assert (await rendered(pool, photo, "width=50")).width == 50
        widths += [rendition.width async for rendition in renditions]
    assert widths == [64, 32, 16]


async def test_ladders_run_one_after_the_other(pool: RenderPool, photo: Path, jobs: list[str]) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(all_of, pool, ladder_job(photo, [64, 32], ["webp"]))
    assert jobs == ["RenderLadder", "NextRendition"] * 3


async def test_ladder_closed_after_one_rendition_releases_its_slot_and_leaves_its_process_running(lone: RenderPool, photo: Path) -> None:
    before = lone.process_ids
    async with aclosing(lone.render_ladder(ladder_job(photo, [64, 32], ["webp"]))) as renditions:
        await anext(renditions)
    assert (await rendered(lone, photo, "width=50")).width == 50
    assert lone.process_ids == before


async def test_ladder_whose_process_is_killed_between_two_renditions_is_a_failed_render_and_harms_no_other(
    lone: RenderPool, photo: Path
) -> None:
    (process_id,) = lone.process_ids
    async with aclosing(lone.render_ladder(ladder_job(photo, [64, 32], ["webp"]))) as renditions:
        await anext(renditions)
        os.kill(process_id, signal.SIGKILL)
        await until(lambda: is_gone(process_id))
        with pytest.raises(RenderFailedError):
            await anext(renditions)
    assert (await rendered(lone, photo, "width=50")).width == 50
    assert [rendition.width for rendition in await all_of(lone, ladder_job(photo, [64, 32], ["webp"]))] == [64, 32]


async def test_ladder_past_its_deadline_is_killed_and_its_slot_is_free(
    lone: RenderPool, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (process_id,) = lone.process_ids
    monkeypatch.setattr(lone, "_render_seconds", 0.3)
    with halted(lone), pytest.raises(DeadlineExceededError):
        await all_of(lone, ladder_job(photo, [64], ["webp"]))
    monkeypatch.undo()
    assert (await rendered(lone, photo, "width=50")).width == 50
    await until(lambda: is_gone(process_id))


async def test_canceled_ladder_is_ended_and_its_slot_is_free(lone: RenderPool, photo: Path) -> None:
    (process_id,) = lone.process_ids
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(all_of, lone, ladder_job(photo, [64], ["webp"]))
        async with taken(lone):
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await until(lambda: is_gone(process_id))
    assert (await rendered(lone, photo, "width=50")).width == 50


async def test_ladder_does_not_fill_the_queue_nor_wait_in_it(lone: RenderPool, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lone._queue, "_queue_limit", 1)
    async with anyio.create_task_group() as tasks:
        with halted(lone):
            tasks.start_soon(rendered, lone, photo, "width=50")
            for _ in range(3):
                tasks.start_soon(all_of, lone, ladder_job(photo, [64], ["webp"]))
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(rendered, lone, photo, "width=50")
            await anyio.wait_all_tasks_blocked()
            assert isinstance(await refused(lone, render_job(photo)), OverloadedError)


async def test_ladder_of_a_broken_original_is_the_error_of_its_kind(pool: RenderPool, tmp_path: Path) -> None:
    with pytest.raises(BrokenImageError):
        await all_of(pool, ladder_job(written(tmp_path, images.truncated(images.photo_jpeg(400, 300))), [64], ["webp"]))


async def test_ladder_of_an_exclusive_original_ends_when_another_exclusive_job_waits(pool: RenderPool, tmp_path: Path, photo: Path) -> None:
    heavy = written(tmp_path, images.gray_tiff(6_400, 6_400), "heavy.tiff")
    done: list[int] = []

    async def ask() -> None:
        done.append((await rendered(pool, heavy, "width=50")).width)

    async with aclosing(pool.render_ladder(ladder_job(heavy, [64, 32], ["webp"]))) as renditions, anyio.create_task_group() as tasks:
        assert (await anext(renditions)).width == 64
        tasks.start_soon(ask)
        await until(lambda: pool._exclusive.statistics().tasks_waiting == 1)
        assert done == []
        assert [rendition async for rendition in renditions] == []
        await until(lambda: done == [50])
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(ask)
            tasks.start_soon(all_of, pool, ladder_job(heavy, [64, 32], ["webp"]))
    assert done == [50] * 3


async def test_background_job_runs_when_no_request_waits(lone: RenderPool, photo: Path, jobs: list[str]) -> None:
    done: list[int] = []

    async def in_background() -> None:
        done.append((await lone.run_in_background(render_job(photo, "width=40"), Rendered)).width)

    async with anyio.create_task_group() as tasks:
        with halted(lone):
            tasks.start_soon(rendered, lone, photo, "width=50")
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(in_background)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(probed, lone, photo)
            await anyio.wait_all_tasks_blocked()
    assert done == [40]
    assert jobs == ["Render", "Probe", "Render"]


# Support of codecs.


async def test_codec_support_is_known_once_a_process_has_started() -> None:
    pool = RenderPool(slots=1, queue_limit=1, memory_bytes=512 * MEBIBYTE, render_seconds=PATIENCE_SECONDS, wait_seconds=PATIENCE_SECONDS)
    async with pool.running():
        assert pool.process_ids == []
        offered = await pool.codec_support()
    assert offered.libvips.startswith("8.")
    assert {"jpeg", "png", "webp"} <= set(offered.reads)
    assert {"jpeg", "png", "webp"} <= set(offered.writes)


async def test_format_that_libvips_cannot_write_is_refused_with_the_writable_ones() -> None:
    offered = CodecSupport("8.18.0", ["jpeg"], ["webp", "jpeg"])
    offered.require_writable("webp")
    with pytest.raises(FormatNotOfferedError) as caught:
        offered.require_writable("avif")
    assert (caught.value.status_code, caught.value.expected, caught.value.received) == (400, "webp, jpeg", "avif")


# Images that end their process.

POISONED = {
    "jpeg": images.photo_jpeg(320, 240),
    "progressive": images.photo_jpeg(320, 240, progressive=True),
    "camera": images.camera_jpeg(320, 240),
    "png": images.rgba_png(160, 120),
    "deep": images.png16(80, 60),
    "gif": images.animated_gif(64, 48),
    "webp": images.webp(320, 240, alpha=True),
    "animated": images.animated_webp(64, 48),
    "avif": images.avif(160, 120),
    "tiff": images.tiff(80, 60),
}


async def test_poison_images_one_after_the_other_leave_the_pool_usable(pool: RenderPool, tmp_path: Path, photo: Path) -> None:
    tolerated = (BrokenImageError, UnsupportedFormatError, TooManyPixelsError, TooCostlyError, RenderFailedError)

    async def feed(name: str, seed: int) -> None:
        path = written(tmp_path, images.mutated(POISONED[name], seed), f"{name}-{seed}")
        try:
            await probed(pool, path)
            await rendered(pool, path, "width=100,height=100,fit=cover,gravity=attention", "webp")
        except tolerated:
            return

    async with anyio.create_task_group() as tasks:
        for name in POISONED:
            for seed in (1, 2, 3):
                tasks.start_soon(feed, name, seed)
    await ready(pool, 2)
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(rendered, pool, photo, "width=100")
    assert pool.start_failure is None


# Failures of jobs, and of the start of processes.


async def test_failure_of_a_job_is_the_error_of_its_kind_with_expected_and_remedy(pool: RenderPool, tmp_path: Path) -> None:
    whole = images.photo_jpeg(400, 300)
    for text, kind_of_render in (("crop=300:0:200:100", BadTransformError), ("max_bytes=128", CannotFitError)):
        path = written(tmp_path, images.photo_jpeg(400, 300))
        failed = await refused(pool, render_job(path, text))
        assert type(failed) is kind_of_render
        assert failed.expected
    for body, kind in (
        (b"not an image", UnsupportedFormatError),
        (images.truncated(whole), BrokenImageError),
        (images.png_bomb(), TooManyPixelsError),
    ):
        error = await refused(pool, Probe(str(written(tmp_path, body)), LIMITS))
        assert type(error) is kind
        assert error.detail
        assert error.expected
        assert error.received
        assert error.remedy


async def test_render_of_an_original_whose_bytes_have_changed_is_damaged(pool: RenderPool, tmp_path: Path, photo: Path) -> None:
    for body in (images.photo_jpeg(404, 300), images.truncated(images.photo_jpeg(400, 300)), b"", b"not an image"):
        job = render_job(photo, "width=100")
        path = written(tmp_path, body)
        error = await refused(pool, msgspec.structs.replace(job, input_file=InputFile(str(path), job.input_file.digest)))
        assert isinstance(error, DamagedOriginalError)
        assert error.expected == job.input_file.digest
        assert "Upload" in str(error.remedy)


async def test_missing_original_is_a_failed_render_that_names_no_path(pool: RenderPool, tmp_path: Path) -> None:
    error = await refused(pool, Probe(str(tmp_path / "nothing"), LIMITS))
    assert isinstance(error, RenderFailedError)
    assert str(tmp_path) not in repr(error.problem())


async def test_pool_that_cannot_start_a_process_reports_it_until_one_starts(
    photo: Path, monkeypatch: pytest.MonkeyPatch, logged: list[object]
) -> None:
    monkeypatch.setattr(process_module, "_RETRY_START_SECONDS", 0.05)
    pool = RenderPool(slots=2, queue_limit=9, memory_bytes=512 * MEBIBYTE, render_seconds=PATIENCE_SECONDS, wait_seconds=PATIENCE_SECONDS)
    assert pool.start_failure is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", "/no/python/here")
        async with pool.running():
            await until(lambda: pool.start_failure is not None)
            assert "/no/python/here" not in str(pool.start_failure)
            error = await refused(pool, render_job(photo))
            assert isinstance(error, RenderFailedError)
            assert error.retry_after_seconds == 5
            with pytest.raises(RenderFailedError):
                await pool.codec_support()
            patch.undo()
            await until(lambda: pool.start_failure is None)
            await ready(pool)
            assert (await rendered(pool, photo, "width=100")).width == 100
            assert "jpeg" in (await pool.codec_support()).writes


async def test_pool_whose_processes_end_while_they_start_reports_it_and_logs_their_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[dict[str, object]]
) -> None:
    monkeypatch.setattr(process_module, "_RETRY_START_SECONDS", 0.05)
    running_first(monkeypatch, tmp_path, "import os\nos.write(2, b'no libvips here')\nos._exit(3)\n")
    pool = RenderPool(slots=1, queue_limit=9, memory_bytes=512 * MEBIBYTE, render_seconds=PATIENCE_SECONDS, wait_seconds=PATIENCE_SECONDS)
    async with pool.running():
        await until(lambda: pool.start_failure is not None)
        await until(lambda: any(event.get("line") == "no libvips here" for event in logged))
        monkeypatch.undo()
        await until(lambda: pool.start_failure is None)


async def test_render_process_is_started_without_python_code_between_fork_and_exec() -> None:
    # Such code takes locks that another thread may have held at the fork. Then the child hangs, and uvloop waits for it.
    read, write = os.pipe()
    observed = True
    os.register_at_fork(after_in_child=lambda: os.write(write, b"x") if observed else None)
    try:
        async with render_pool() as pool:
            assert pool.process_ids
    finally:
        observed = False
        os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b""
