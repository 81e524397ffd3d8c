"""The quota on disk: which files are removed first, which are never touched, and that removed ones are rendered again."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from service.rendering.pool import RenderPool
from service.storage import quota
from service.storage.disk import size_on_disk
from service.storage.keys import document_key, intermediate_key, original_key, rendition_key
from service.storage.object_store import Storage, open_storage
from service.storage.quota import DerivedQuota
from tests.support import images
from tests.support.library import Library, open_library
from tests.support.renders import until

pytestmark = pytest.mark.anyio

DIGEST = "a" * 32
OTHER = "b" * 32
HOUR = 3_600


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage((tmp_path / "store").as_uri(), {})


def file_of(storage: Storage, key: str) -> Path:
    path = storage.local_path(key)
    assert path is not None
    return path


def age(storage: Storage, key: str, seconds: float) -> None:
    """Make a file look as if it was last read so many seconds ago."""
    then = time.time() - seconds
    os.utime(file_of(storage, key), (then, then))


async def filled(storage: Storage, count: int, size: int = 8_192) -> list[str]:
    """Return the keys of `count` new renditions, each last read an hour after the one before."""
    keys = [rendition_key(DIGEST if number % 2 else OTHER, f"{number:064}") for number in range(count)]
    for number, key in enumerate(keys):
        await storage.put_if_absent(key, bytes(size), durable=False)
        age(storage, key, (count - number) * HOUR)
    return keys


@pytest.mark.parametrize(("size", "taken"), [(0, 0), (1, 4_096), (4_096, 4_096), (4_097, 8_192)])
def test_size_on_disk_is_whole_blocks(size: int, taken: int) -> None:
    assert size_on_disk(size) == taken


async def test_quota_that_is_not_exceeded_removes_nothing(storage: Storage) -> None:
    keys = await filled(storage, 10)
    assert DerivedQuota(storage, 10 * 8_192).trim() == 10 * 8_192
    assert all([await storage.exists(key) for key in keys])


async def test_exceeded_quota_removes_the_least_recently_read_files_and_leaves_some_room(storage: Storage) -> None:
    keys = await filled(storage, 20)
    left = DerivedQuota(storage, 10 * 8_192).trim()
    assert left == 9 * 8_192
    assert [await storage.exists(key) for key in keys] == [False] * 11 + [True] * 9


async def test_quota_counts_renditions_and_intermediates_and_touches_nothing_else(storage: Storage) -> None:
    kept = [original_key(DIGEST), document_key(DIGEST), "sources/one", "tombstones/one", "warming/one", "keys/one"]
    for key in kept:
        await storage.put_if_absent(key, bytes(1 << 20), durable=False)
        age(storage, key, 1_000 * HOUR)
    await storage.put_if_absent(intermediate_key(DIGEST), bytes(100_000), durable=False)
    await storage.put_if_absent(rendition_key(DIGEST, "0"), bytes(100_000), durable=False)
    half_written = file_of(storage, rendition_key(DIGEST, "1")).with_name("1#1")
    half_written.write_bytes(bytes(100_000))
    os.utime(half_written, (0, 0))
    assert DerivedQuota(storage, 1).trim() == 0
    assert half_written.exists()
    assert all([await storage.exists(key) for key in kept])
    assert not await storage.exists(intermediate_key(DIGEST))
    assert not await storage.exists(rendition_key(DIGEST, "0"))


async def test_quota_removes_emptied_directories_which_can_be_written_again(storage: Storage) -> None:
    await filled(storage, 4)
    DerivedQuota(storage, 1).trim()
    folder = file_of(storage, "renditions")
    assert list(folder.iterdir()) == []
    assert await storage.put_if_absent(rendition_key(DIGEST, "0"), b"bytes", durable=False)
    assert await storage.get(rendition_key(DIGEST, "0")) == b"bytes"


async def test_access_is_recorded_at_most_once_an_hour_and_recently_read_files_stay(storage: Storage) -> None:
    keys = await filled(storage, 4)
    budget = DerivedQuota(storage, 2 * 8_192 + 4_096)
    for key in (keys[0], keys[3]):
        age(storage, key, HOUR / 2 if key == keys[3] else 9 * HOUR)
        young = file_of(storage, key).stat().st_mtime
        assert await storage.get(key) == bytes(8_192)
    assert file_of(storage, keys[3]).stat().st_mtime == young
    assert time.time() - file_of(storage, keys[0]).stat().st_mtime < 60
    budget.trim()
    assert [await storage.exists(key) for key in keys] == [True, False, False, True]


async def test_access_to_a_file_in_place_is_recorded(storage: Storage) -> None:
    (key,) = await filled(storage, 1)
    DerivedQuota(storage, 8_192)
    age(storage, key, 9 * HOUR)
    assert await storage.file_in_place(key) == file_of(storage, key)
    assert time.time() - file_of(storage, key).stat().st_mtime < 60


async def test_access_to_originals_is_not_recorded(storage: Storage) -> None:
    DerivedQuota(storage, 1)
    await storage.put_if_absent(original_key(DIGEST), b"bytes", durable=False)
    age(storage, original_key(DIGEST), 9 * HOUR)
    before = file_of(storage, original_key(DIGEST)).stat().st_mtime
    await storage.get(original_key(DIGEST))
    assert file_of(storage, original_key(DIGEST)).stat().st_mtime == before


async def test_trim_during_reads_and_writes_breaks_neither(storage: Storage) -> None:
    body = bytes(20_000)
    budget = DerivedQuota(storage, 10 * size_on_disk(len(body)))
    ended = False

    async def trim() -> None:
        while not ended:
            await anyio.to_thread.run_sync(budget.trim)

    async def there_and_back(number: int) -> None:
        for turn in range(30):
            key = rendition_key(f"{number:a>32}", f"{turn}")
            await storage.put_if_absent(key, body, durable=False)
            assert await storage.get(key) in {body, None}
            await storage.put(key, body, durable=False)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(trim)
        async with anyio.create_task_group() as users:
            for number in range(8):
                users.start_soon(there_and_back, number)
        ended = True
    assert budget.trim() <= 10 * size_on_disk(len(body))


@pytest.fixture
async def origin(tmp_path: Path, pool: RenderPool) -> AsyncIterator[Library]:
    async with open_library(tmp_path, pool) as built:
        yield built


async def test_watch_trims_new_files_and_removed_renditions_are_rendered_again(origin: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "POLL_INTERVAL_SECONDS", 0.02)
    digest = await origin.ingest(images.photo_jpeg(640, 480))
    first = await origin.rendition(digest, "width=320")
    (name,) = [name async for name in origin.storage.list_names("renditions")]
    age(origin.storage, f"renditions/{name}", 9 * HOUR)
    bytes_of_one = size_on_disk(len(first.body) + 36)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(DerivedQuota(origin.storage, bytes_of_one + 4_096).watch)
        await anyio.sleep(0.1)
        assert len([name async for name in origin.storage.list_names("renditions")]) == 1
        await origin.rendition(digest, "width=300")
        await until(lambda: len(list(file_of(origin.storage, f"renditions/{digest}").iterdir())) == 1)
        again = await origin.rendition(digest, "width=320")
        assert (again.body, again.etag, again.tier) == (first.body, first.etag, "render")
        tasks.cancel_scope.cancel()
