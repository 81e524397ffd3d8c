"""The folders of the list of images on disk: what a page of it reads, and that its order does not depend on them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.storage import layout
from service.storage.keys import RECENT_PREFIX, document_key, recent_key, recent_name
from service.storage.object_store import Storage, open_storage

pytestmark = pytest.mark.anyio

START = datetime(2026, 1, 1, tzinfo=UTC)
PAGE = 100


class CountedEntries:
    """Stands in for `os.scandir`, and counts the folders that are opened and the entries that are read."""

    def __init__(self) -> None:
        self.folders = 0
        self.entries = 0
        self._scandir = os.scandir

    @contextmanager
    def __call__(self, directory: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
        self.folders += 1
        with self._scandir(directory) as entries:
            yield self._count(entries)

    def _count(self, entries: Iterator[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
        for entry in entries:
            self.entries += 1
            yield entry


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def storage(root: Path) -> Storage:
    return open_storage(root.as_uri(), {})


def name(number: int, *, every: timedelta) -> str:
    return recent_name(f"{number:032}", (START + number * every).isoformat())


def add(root: Path, names: list[str], *, spread: bool = True) -> None:
    """List images with these names, or, unless `spread`, as earlier versions did."""
    for listed in names:
        key = f"{RECENT_PREFIX}/{listed}"
        path = root / (layout.path_of(root, key) if spread else key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


async def read(storage: Storage, after: str, monkeypatch: pytest.MonkeyPatch) -> CountedEntries:
    """Return what a page of the list reads."""
    counted = CountedEntries()
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", counted)
        assert len(await storage.list_names_after(RECENT_PREFIX, after, PAGE)) == PAGE
    return counted


@pytest.mark.parametrize("every", [timedelta(seconds=1), timedelta(minutes=3)], ids=["many in a folder", "one in a folder"])
async def test_page_of_a_list_reads_no_more_folders_and_entries_of_a_hundred_times_as_many_images(
    storage: Storage, root: Path, every: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(root, [name(number, every=every) for number in range(PAGE)])
    few = await read(storage, "", monkeypatch)
    names = [name(number, every=every) for number in range(100 * PAGE)]
    add(root, names)
    for after in ("", names[50 * PAGE], names[2 * PAGE]):
        many = await read(storage, after, monkeypatch)
        # At either end of a page, a folder of each level may have other images as well; the first level has a folder for every twelve days.
        assert many.folders <= few.folders + 6
        assert many.entries <= few.entries + 3 * 100


async def test_order_of_the_list_is_that_of_its_names_in_whatever_folders_they_are(storage: Storage, root: Path) -> None:
    rng = random.Random(3)
    names = [recent_name(f"{number:032}", (START + timedelta(seconds=rng.expovariate(1e-5))).isoformat()) for number in range(300)]
    add(root, names[::2])
    add(root, names[1::2], spread=False)
    # As if `spread_list` were moving it.
    add(root, [names[2]], spread=False)
    add(root, [f"{names[4]}#1"], spread=False)
    ordered = sorted(names)
    for after in ("", "8", "8" * 13, "9", *ordered, *(listed[: rng.randint(1, 20)] for listed in ordered)):
        expected = [listed for listed in ordered if listed > after]
        limit = rng.choice((1, 7, 1_000))
        assert await storage.list_names_after(RECENT_PREFIX, after, limit) == expected[:limit]


async def test_entries_of_an_earlier_version_are_moved_and_can_be_used_before(storage: Storage, root: Path) -> None:
    names = sorted(name(number, every=timedelta(hours=5)) for number in range(50))
    add(root, names, spread=False)
    keys = [f"{RECENT_PREFIX}/{listed}" for listed in names]
    assert {entry.key async for entry in storage.list_objects(RECENT_PREFIX)} == set(keys)
    assert await storage.exists(keys[0])
    assert await storage.get(keys[1]) == b""
    assert not await storage.put_if_absent(keys[2], b"", durable=True)
    await storage.delete(keys[3])
    del names[3], keys[3]
    assert await storage.spread_list() == 49
    assert [path for path in (root / RECENT_PREFIX).iterdir() if path.is_file()] == []
    assert await storage.list_names_after(RECENT_PREFIX, "", 100) == names
    assert {entry.key async for entry in storage.list_objects(RECENT_PREFIX)} == set(keys)
    assert [await storage.get(key) for key in keys] == [b""] * 49
    assert await storage.spread_list() == 0


async def test_deleted_entry_leaves_no_empty_folder_and_can_be_put_again(storage: Storage, root: Path) -> None:
    key = recent_key("a" * 32, "2026-11-01T12:00:00Z")
    for _ in range(2):
        assert await storage.put_if_absent(key, b"", durable=True)
        assert (root / layout.path_of(root, key)).is_file()
        await storage.delete(key)
        assert list((root / RECENT_PREFIX).iterdir()) == []


def test_only_entries_of_the_list_have_another_path_than_their_key(root: Path) -> None:
    assert layout.path_of(root, f"recent/8220000123456-{'a' * 32}") == f"recent/8220/00/01/8220000123456-{'a' * 32}"
    for key in (document_key("a" * 32), "recent-complete", "recent/short", "recents/8220000123456-a"):
        assert layout.path_of(root, key) == layout.key_of(key) == key
