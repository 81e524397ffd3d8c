"""Failures do not affect later jobs: neither an unexpected exception nor a message that stays in libvips' error buffer."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import BrokenImageError, RenderFailedError, ServiceError, UnsupportedFormatError
from service.rendering.pool import RenderPool
from service.rendering.process import RenderProcess
from service.rendering.protocol import Job, Reply
from tests.support import images
from tests.support.renders import probed, ready, render_pool, rendered, until, written

pytestmark = pytest.mark.anyio

LATER_UPLOADS = 10


def files_with_messages_not_in_utf8() -> dict[str, bytes]:
    """Return files for which libvips or a codec reports a message that is not UTF-8."""
    files = {
        "profile of a jpeg": images.rgb_jpeg(64, 48, profile=images.unreadable_profile()),
        "profile of a png": images.rgb_png(64, 48, profile=images.unreadable_profile()),
    }
    faults = images.corpus()
    if faults is not None:
        files["corpus"] = (faults / "faults" / "icc-curve-name-not-utf8.jpg").read_bytes()
    return files


async def outcome(pool: RenderPool, path: Path) -> str:
    """Return the outcomes of a probe and a rendition of a file."""
    try:
        await probed(pool, path)
        await rendered(pool, path, "width=40", "webp")
    except ServiceError as error:
        return type(error).__name__
    return "ok"


@pytest.mark.parametrize("name", files_with_messages_not_in_utf8())
async def test_file_with_an_error_message_that_is_not_utf8_is_a_client_error_and_later_uploads_work(tmp_path: Path, name: str) -> None:
    bad = written(tmp_path, files_with_messages_not_in_utf8()[name], "bad")
    good = written(tmp_path, images.photo_jpeg(64, 48), "good")
    async with render_pool() as pool:
        assert await outcome(pool, bad) in {"ok", "BrokenImageError", "UnsupportedFormatError"}
        assert [await outcome(pool, good) for _ in range(LATER_UPLOADS)] == ["ok"] * LATER_UPLOADS
        # Later uploads work in the same process, not because it was replaced.
        process_ids = pool.process_ids
        assert await outcome(pool, bad) != "RenderFailedError"
        assert pool.process_ids == process_ids


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "avif"])
async def test_broken_file_is_broken_regardless_of_earlier_error_messages(tmp_path: Path, kind: str) -> None:
    # libvips adds a message with the name of a file that it cannot identify, which nothing reads.
    unknown = written(tmp_path, b"neither image nor text", "cannot allocate memory")
    whole = {
        "jpeg": images.photo_jpeg(200, 150),
        "png": images.rgb_png(200, 150),
        "webp": images.webp(200, 150),
        "avif": images.avif(200, 150),
    }
    broken = written(tmp_path, images.truncated(whole[kind]), "broken")
    async with render_pool() as pool:
        for _ in range(3):
            with pytest.raises(UnsupportedFormatError):
                await probed(pool, unknown)
            with pytest.raises(BrokenImageError):
                await probed(pool, broken)
            with pytest.raises(UnsupportedFormatError):
                await probed(pool, unknown)
            with pytest.raises(BrokenImageError):
                await rendered(pool, broken, "width=100")


async def test_process_with_an_unexpected_failure_is_replaced(tmp_path: Path) -> None:
    good = written(tmp_path, images.photo_jpeg(64, 48))
    async with render_pool() as pool:
        before = pool.process_ids
        with pytest.raises(RenderFailedError):
            # No such pipeline version exists; the server would refuse it before it requests a render.
            await rendered(pool, good, "width=40", version=99)
        await until(lambda: before[0] not in pool.process_ids)
        await ready(pool)
        assert await outcome(pool, good) == "ok"


async def test_jobs_are_given_to_processes_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = written(tmp_path, images.photo_jpeg(64, 48))
    used: list[int] = []
    submit = RenderProcess.submit

    async def recorded(process: RenderProcess, job: Job) -> Reply:
        used.append(process.pid)
        return await submit(process, job)

    monkeypatch.setattr(RenderProcess, "submit", recorded)
    async with render_pool(slots=2) as pool:
        for _ in range(6):
            await probed(pool, good)
        assert sorted(used[:2]) == sorted(pool.process_ids)
        assert used == used[:2] * 3
