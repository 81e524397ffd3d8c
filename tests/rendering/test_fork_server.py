import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import psutil
import pytest

from service.errors import RenderFailedError
from service.process import adopt_orphans
from service.rendering import process as process_module
from service.rendering.fork_server import wait_for_orphan
from service.rendering.pool import RenderPool
from service.rendering.process import RenderProcess
from service.rendering.protocol import PROCESS_NAME, Ready
from tests.rendering.test_pool import is_gone
from tests.support import images
from tests.support.renders import MEBIBYTE, ready, render_pool, rendered, start_processes, taken, until, written
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("originals"), images.photo_jpeg(400, 300), "photo.jpg")


@asynccontextmanager
async def starting() -> AsyncIterator[RenderPool]:
    """Yield a pool whose two processes have not started yet."""
    pool = RenderPool(slots=2, queue_limit=9, memory_bytes=512 * MEBIBYTE, render_seconds=PATIENCE_SECONDS, wait_seconds=PATIENCE_SECONDS)
    async with pool.running():
        start_processes(pool)
        yield pool


async def healthy_until_ready(pool: RenderPool) -> None:
    """Wait until both processes of a pool are ready, and fail if it is reported meanwhile that none can be started."""

    def is_ready() -> bool:
        assert pool.start_failure is None
        return len(pool.process_ids) == 2

    await until(is_ready)


def fork_servers() -> list[int]:
    """Return the running fork servers of this process."""
    children = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child.pid for child in children if "service.worker" in child.cmdline() and child.name() != PROCESS_NAME]


async def test_render_processes_are_children_of_the_server_and_share_the_memory_of_one_fork_server(pool: RenderPool) -> None:
    for process_id in pool.process_ids:
        assert psutil.Process(process_id).ppid() == os.getpid()
        memory = psutil.Process(process_id).memory_full_info()
        assert memory.uss < memory.rss / 2


async def test_killed_fork_server_ends_no_render_process_and_is_replaced_when_a_process_is_needed(photo: Path) -> None:
    before = fork_servers()
    async with render_pool() as pool:
        (fork_server,) = set(fork_servers()) - set(before)
        os.kill(fork_server, signal.SIGKILL)
        await until(lambda: not psutil.pid_exists(fork_server))
        (process_id,) = pool.process_ids
        assert (await rendered(pool, photo, "width=100")).width == 100
        assert pool.process_ids == [process_id]
        pool._slots[0].replace("grown")
        await until(lambda: pool.process_ids not in ([], [process_id]))
        assert (await rendered(pool, photo, "width=100")).width == 100


async def test_crash_of_a_process_ends_the_fork_server_whose_memory_layout_it_had(photo: Path) -> None:
    before = fork_servers()
    async with render_pool() as pool, anyio.create_task_group() as tasks:
        (fork_server,) = set(fork_servers()) - set(before)
        (process_id,) = pool.process_ids

        async def fail() -> None:
            with pytest.raises(RenderFailedError):
                await rendered(pool, photo, "width=100")
            await ready(pool)
            await until(lambda: fork_server not in fork_servers())
            assert (await rendered(pool, photo, "width=100")).width == 100

        tasks.start_soon(fail)
        async with taken(pool):
            os.kill(process_id, signal.SIGSEGV)


# Starts that fail.


async def test_fork_server_killed_while_it_starts_is_replaced_at_once_and_not_reported(
    photo: Path, logged: list[dict[str, object]]
) -> None:
    before = set(fork_servers())
    async with starting() as pool:
        await until(lambda: bool(set(fork_servers()) - before))
        for process_id in set(fork_servers()) - before:
            os.kill(process_id, signal.SIGKILL)
        await healthy_until_ready(pool)
        assert (await rendered(pool, photo, "width=100")).width == 100
    assert {event["event"] for event in logged if event["log_level"] != "debug"} == {"the start of a render process is repeated"}


async def test_process_killed_while_it_starts_is_replaced_at_once_and_not_reported(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handshake = RenderProcess.handshake
    killed: list[int] = []

    async def kill(process: RenderProcess) -> Ready:
        if not killed:
            killed.append(process.pid)
            os.kill(process.pid, signal.SIGKILL)
        return await handshake(process)

    monkeypatch.setattr(RenderProcess, "handshake", kill)
    async with starting() as pool:
        await healthy_until_ready(pool)
        assert killed[0] not in pool.process_ids
        assert (await rendered(pool, photo, "width=100")).width == 100


async def test_start_that_failed_for_a_job_is_repeated_even_if_no_other_job_comes(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "_RETRY_START_SECONDS", 0.05)
    before = fork_servers()
    async with render_pool() as pool:
        process = pool._slots[0].process
        assert process is not None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "executable", "/no/python/here")
            ending = [process.pid, *set(fork_servers()) - set(before)]
            for process_id in ending:
                os.kill(process_id, signal.SIGKILL)
            await until(lambda: process.ended and all(map(is_gone, ending)))
            with pytest.raises(RenderFailedError, match="No render process"):
                await rendered(pool, photo, "width=100")
            assert pool.start_failure is not None
        await until(lambda: pool.start_failure is None)
        assert (await rendered(pool, photo, "width=100")).width == 100


async def test_process_is_waited_for_although_it_is_not_an_orphan_yet() -> None:
    adopt_orphans()
    # The shell becomes the process in between, and leaves one that ends after it.
    command = ["/bin/sh", "-c", "sleep 1 & echo $!; exec sleep 0.3 >&-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as in_between:  # noqa: ASYNC220 - that takes no time
        assert in_between.stdout is not None
        process_id = int(in_between.stdout.readline())
        with pytest.raises(ChildProcessError):
            os.waitpid(process_id, os.WNOHANG)  # noqa: ASYNC222 - it returns at once
        await wait_for_orphan(process_id)
        assert os.waitpid(process_id, os.WNOHANG) == (process_id, 0)  # noqa: ASYNC222 - it returns at once
        # Nothing is left to wait for.
        await wait_for_orphan(process_id)


async def test_pool_that_is_closed_while_its_processes_start_ends_without_an_error() -> None:
    for moment in range(16):
        async with starting():
            await anyio.sleep(0.02 * moment)
