"""Memory of render processes: earlier jobs change no result, and a lack of memory is never reported as a broken file."""

from __future__ import annotations

import os
import signal
from contextlib import aclosing
from pathlib import Path

import anyio
import psutil
import pytest

from service.errors import BrokenImageError, ServiceError, TooCostlyError
from service.images.formats import Format
from service.images.transform import PIPELINE_VERSION
from service.rendering import process as process_module
from service.rendering import process_stats
from service.rendering.pool import RenderPool
from service.rendering.process import RenderProcess
from service.rendering.protocol import Failure, Job, RenderLadder, Reply
from tests.support import images
from tests.support.renders import LIMITS, MEBIBYTE, input_file_of, probed, ready, render_pool, rendered, taken, until, watched_jobs, written

pytestmark = pytest.mark.anyio

CAP_BYTES = 512 * MEBIBYTE


def animation(frames: int) -> bytes:
    """Return a GIF of 400 × 300 pixels with `frames` frames."""
    return images.animated_gif(400, 300, frames=frames)


def mapped_bytes(pool: RenderPool) -> int:
    return max(process_stats.memory_usage(process_id).mapped_bytes for process_id in pool.process_ids)


async def outcomes(pool: RenderPool, folder: Path) -> dict[str, str]:
    """Return the outcomes of renditions of an original in each format, and of broken ones."""
    originals = {
        "heic": images.heic(800, 600),
        "avif": images.avif(800, 600),
        "webp": images.webp(800, 600),
        "jpeg": images.photo_jpeg(800, 600),
        "broken webp": images.truncated(images.webp(800, 600)),
        "broken heic": images.truncated(images.heic(800, 600)),
    }
    found = {}
    for name, body in originals.items():
        formats: tuple[Format, ...] = ("avif", "webp")
        for image_format in formats:
            try:
                await rendered(pool, written(folder, body), "width=400", image_format)
            except ServiceError as error:
                found[f"{name} as {image_format}"] = type(error).__name__
            else:
                found[f"{name} as {image_format}"] = "ok"
    return found


@pytest.mark.long
async def test_process_that_has_made_animations_renders_every_format_like_a_new_one(tmp_path: Path) -> None:
    async with render_pool() as pool:
        when_new = await outcomes(pool, tmp_path)
        assert set(when_new.values()) == {"ok", "BrokenImageError"}
    async with render_pool() as pool:
        for frames in (20, 60, 140, 300):
            path = written(tmp_path, animation(frames), f"{frames}.gif")
            for image_format in ("webp", "gif"):
                await rendered(pool, path, "width=200", image_format)
        assert await outcomes(pool, tmp_path) == when_new


async def test_animation_leaves_most_of_the_address_space_free(tmp_path: Path) -> None:
    async with render_pool() as pool:
        new_bytes = mapped_bytes(pool)
        path = written(tmp_path, images.animated_gif(320, 240, frames=80))
        await rendered(pool, path, "width=160", "webp")
        await ready(pool)
        assert mapped_bytes(pool) - new_bytes < (CAP_BYTES - new_bytes) * process_module.RECYCLE_ABOVE_SHARE


async def test_process_with_little_address_space_left_is_replaced_even_if_little_is_resident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, images.photo_jpeg(64, 48))
    async with render_pool() as pool:
        before = pool.process_ids
        await rendered(pool, path, "width=40")
        assert pool.process_ids == before
        used = process_stats.memory_usage(before[0])
        grown = used._replace(mapped_bytes=CAP_BYTES - 8 * MEBIBYTE)
        with monkeypatch.context() as patch:
            patch.setattr(process_stats, "memory_usage", lambda _: grown)
            await rendered(pool, path, "width=40")
        await until(lambda: before[0] not in pool.process_ids)
        await ready(pool)


async def test_render_after_a_pause_of_a_second_gets_no_memory_from_the_system_again(tmp_path: Path) -> None:
    path = written(tmp_path, images.photo_jpeg(3_000, 2_000))
    async with render_pool() as pool:
        (process_id,) = pool.process_ids
        first = await page_faults(pool, process_id, path)
        await page_faults(pool, process_id, path)
        await anyio.sleep(1.2)
        assert await page_faults(pool, process_id, path) < first / 4
        assert pool.process_ids == [process_id]


async def page_faults(pool: RenderPool, process_id: int, path: Path) -> int:
    """Render, and return for how many pages the process needed the system meanwhile (proc_pid_stat(5): minflt)."""

    def faults() -> int:
        return int(Path(f"/proc/{process_id}/stat").read_bytes().rpartition(b")")[2].split()[7])

    before = faults()
    await rendered(pool, path, "width=640", "webp")
    return faults() - before


async def test_new_process_has_its_codecs_loaded(pool: RenderPool) -> None:
    for process_id in pool.process_ids:
        loaded = [mapped.path for mapped in psutil.Process(process_id).memory_maps()]
        assert any("pillow_heif" in path for path in loaded)
        assert any("libvips" in path for path in loaded)


def failing_once(monkeypatch: pytest.MonkeyPatch, failure: Failure) -> list[int]:
    """Make the job after the next fail with `failure`, and return a list that records the process of each job from now on."""
    used: list[int] = []
    submit = RenderProcess.submit

    async def noted(process: RenderProcess, job: Job) -> Reply:
        used.append(process.pid)
        reply = await submit(process, job)
        return failure if len(used) == 2 else reply

    monkeypatch.setattr(RenderProcess, "submit", noted)
    return used


async def test_job_that_ran_out_of_memory_in_a_used_process_is_repeated_in_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, images.photo_jpeg(64, 48))
    async with render_pool() as pool:
        used = failing_once(monkeypatch, Failure("too-costly", "No memory.", short_of_memory=True))
        await probed(pool, path)
        assert (await rendered(pool, path, "width=40")).width == 40
        assert len(used) == 3
        assert used[0] == used[1] != used[2]


async def test_job_whose_used_process_aborts_out_of_memory_is_repeated_in_a_new_one(tmp_path: Path) -> None:
    path = written(tmp_path, images.photo_jpeg(64, 48))
    async with render_pool() as pool, anyio.create_task_group() as tasks:
        await probed(pool, path)

        async def render() -> None:
            assert (await rendered(pool, path, "width=40")).width == 40

        tasks.start_soon(render)
        async with taken(pool):
            os.kill(pool.process_ids[0], signal.SIGABRT)


async def test_job_that_exceeds_the_memory_of_a_new_process_is_too_costly_after_one_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, images.large_jpeg(9000, 6000, progressive=True))
    async with render_pool(memory_bytes=256 * MEBIBYTE) as pool:
        attempts = watched_jobs(monkeypatch)
        with pytest.raises(TooCostlyError):
            await rendered(pool, path, "width=640", "webp")
        # Once to find that it needs to run exclusively, and once exclusively.
        assert attempts == ["Render", "Render"]


async def test_broken_file_in_a_process_short_of_address_space_is_checked_by_a_new_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = written(tmp_path, images.truncated(images.photo_jpeg(200, 150)), "broken")
    good = written(tmp_path, images.photo_jpeg(64, 48), "good")
    async with render_pool() as pool:
        await probed(pool, good)
        (aged,) = pool.process_ids
        most_mapped = process_stats.most_mapped_bytes

        def tight(process_id: int) -> int:
            return CAP_BYTES if process_id == aged else most_mapped(process_id)

        monkeypatch.setattr(process_stats, "most_mapped_bytes", tight)
        with pytest.raises(BrokenImageError):
            await probed(pool, broken)
        assert aged not in pool.process_ids


async def widths_of(pool: RenderPool, job: RenderLadder) -> list[int]:
    async with aclosing(pool.render_ladder(job)) as renditions:
        return [rendition.width async for rendition in renditions]


async def test_ladder_that_runs_out_of_memory_ends_early_and_continues_in_a_new_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = RenderLadder(input_file_of(written(tmp_path, images.photo_jpeg(64, 48))), [40, 20], ["webp"], PIPELINE_VERSION, LIMITS)
    async with render_pool() as pool:
        used = failing_once(monkeypatch, Failure("too-costly", "No memory.", short_of_memory=True))
        assert await widths_of(pool, job) == [40]
        await until(lambda: bool(pool.process_ids) and used[0] not in pool.process_ids)
        assert await widths_of(pool, job) == [40, 20]
