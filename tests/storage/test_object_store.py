"""The contract of the object store, over memory, disk and S3; then disks, S3 servers and URLs of stores."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream

from service.errors import ServiceError, SettingsError, StorageFullError, StorageUnavailableError
from service.storage.keys import (
    TOMBSTONES_PREFIX,
    WARMING_PREFIX,
    document_key,
    intermediate_key,
    original_key,
    rendition_key,
    tombstone_key,
    warming_key,
)
from service.storage.object_store import Storage, open_storage
from tests.support.s3 import PAGE_OBJECTS, Bucket
from tests.support.server import HOST, free_port
from tests.support.waiting import within

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("without_foreign_variables")]

DIGEST = "k5x7q2" + "a" * 26
NAME = "0" * 64
LARGE_BYTES = 9 << 20

S3_KEYS = {"AWS_ACCESS_KEY_ID": "key-for-tests", "AWS_SECRET_ACCESS_KEY": "secret-for-tests"}

numbers = count()


@pytest.fixture
def disk(tmp_path: Path) -> Storage:
    return open_storage((tmp_path / "store").as_uri(), {})


@pytest.fixture
def bucket(s3: Bucket) -> Storage:
    """Give the store of an empty bucket."""
    name = f"bucket-{next(numbers)}"
    s3.add_bucket(name)
    return open_storage(f"s3://{name}", s3.environment)


@pytest.fixture(params=["memory", "disk", "s3"])
def storage(request: pytest.FixtureRequest) -> Storage:
    if request.param == "memory":
        return open_storage("memory://", {})
    found: Storage = request.getfixturevalue("disk" if request.param == "disk" else "bucket")
    return found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


# The contract of every store.


async def test_get_of_a_missing_key_is_none(storage: Storage) -> None:
    assert await storage.get(original_key(DIGEST)) is None
    assert await storage.get(original_key(DIGEST), consistent=True) is None
    assert await storage.get_from_any_region(original_key(DIGEST)) is None
    assert not await storage.exists(original_key(DIGEST))
    assert not await storage.exists(original_key(DIGEST), consistent=True)


@pytest.mark.parametrize("durable", [True, False])
async def test_put_if_absent_of_a_new_key_stores_the_bytes(storage: Storage, durable: bool) -> None:
    assert await storage.put_if_absent(original_key(DIGEST), b"bytes", durable=durable)
    assert await storage.get(original_key(DIGEST)) == b"bytes"
    assert await storage.get(original_key(DIGEST), consistent=True) == b"bytes"
    assert await storage.get_from_any_region(original_key(DIGEST)) == b"bytes"
    assert await storage.exists(original_key(DIGEST))


@pytest.mark.parametrize("durable", [True, False])
async def test_put_if_absent_of_an_existing_key_stores_nothing_and_returns_false(storage: Storage, durable: bool) -> None:
    assert await storage.put_if_absent(original_key(DIGEST), b"first", durable=durable)
    assert not await storage.put_if_absent(original_key(DIGEST), b"second", durable=durable)
    assert await storage.get(original_key(DIGEST)) == b"first"


async def test_list_names_after_returns_the_next_names_in_order(storage: Storage) -> None:
    names = [f"{number:03}" for number in range(0, 120, 2)]
    for name in reversed(names):
        await storage.put_if_absent(f"recent/{name}", b"", durable=False)
    await storage.put_if_absent("recentmost/000", b"", durable=False)
    assert await storage.list_names_after("recent", "", 5) == names[:5]
    assert await storage.list_names_after("recent", "008", 3) == ["010", "012", "014"]
    assert await storage.list_names_after("recent", "009", 55) == names[5:]
    assert await storage.list_names_after("recent", "118", 5) == []
    assert await storage.list_names_after("nowhere", "", 5) == []


async def test_put_if_absent_by_sixteen_concurrent_writers_has_one_winner(storage: Storage) -> None:
    key = rendition_key(DIGEST, NAME)
    bodies = [bytes([number]) * 50_000 for number in range(16)]
    created = await asyncio.gather(*(storage.put_if_absent(key, body, durable=True) for body in bodies))
    assert created.count(True) == 1
    assert await storage.get(key) == bodies[created.index(True)]


async def test_put_if_absent_of_many_keys_at_once_stores_all(storage: Storage) -> None:
    keys = [rendition_key(DIGEST, f"{number:064}") for number in range(24)]
    created = await asyncio.gather(*(storage.put_if_absent(key, key.encode(), durable=True) for key in keys))
    assert all(created)
    assert await asyncio.gather(*(storage.get(key) for key in keys)) == [key.encode() for key in keys]


async def test_put_if_absent_of_an_empty_body_creates_an_object(storage: Storage) -> None:
    assert await storage.put_if_absent(document_key(DIGEST), b"", durable=True)
    assert await storage.get(document_key(DIGEST)) == b""
    assert not await storage.put_if_absent(document_key(DIGEST), b"more", durable=True)


async def test_put_if_absent_of_a_large_file_stores_all_of_it_and_leaves_the_file(storage: Storage, tmp_path: Path) -> None:
    spooled = tmp_path / "spooled"
    spooled.write_bytes(os.urandom(LARGE_BYTES))
    assert await storage.put_if_absent(original_key(DIGEST), spooled, durable=True)
    assert not await storage.put_if_absent(original_key(DIGEST), spooled, durable=True)
    assert await storage.get(original_key(DIGEST)) == spooled.read_bytes()


async def test_put_of_any_key_stores_the_bytes(storage: Storage, tmp_path: Path) -> None:
    await storage.put(document_key(DIGEST), b"first", durable=True)
    await storage.put(document_key(DIGEST), b"second, longer", durable=False)
    assert await storage.get(document_key(DIGEST)) == b"second, longer"
    spooled = tmp_path / "spooled"
    spooled.write_bytes(b"third")
    await storage.put(document_key(DIGEST), spooled, durable=True)
    assert await storage.get(document_key(DIGEST)) == b"third"


async def test_delete_of_an_existing_or_missing_key_leaves_no_object(storage: Storage) -> None:
    await storage.put_if_absent(original_key(DIGEST), b"bytes", durable=False)
    await storage.delete(original_key(DIGEST))
    assert await storage.get(original_key(DIGEST)) is None
    assert not await storage.exists(original_key(DIGEST))
    await storage.delete(original_key(DIGEST))
    assert await storage.put_if_absent(original_key(DIGEST), b"again", durable=False)


async def test_keys_with_a_common_beginning_are_different_objects(storage: Storage) -> None:
    keys = [
        original_key(DIGEST),
        document_key(DIGEST),
        rendition_key(DIGEST, NAME),
        rendition_key(DIGEST, NAME + "0"),
        rendition_key(DIGEST, "1"),
    ]
    for key in keys:
        assert await storage.put_if_absent(key, key.encode(), durable=False)
    await storage.delete(keys[2])
    assert [await storage.get(key) for key in keys] == [None if key == keys[2] else key.encode() for key in keys]


async def test_list_names_after_nothing_returns_names_under_the_prefix_up_to_the_limit(storage: Storage) -> None:
    assert await storage.list_names_after(WARMING_PREFIX, "", 10) == []
    digests = [f"{number:a>32}" for number in range(5)]
    for digest in digests:
        await storage.put_if_absent(warming_key(digest), b"", durable=False)
    await storage.put_if_absent(intermediate_key(digests[0]), b"bytes", durable=False)
    await storage.put_if_absent(f"{WARMING_PREFIX}s/{NAME}", b"bytes", durable=False)
    assert sorted(await storage.list_names_after(WARMING_PREFIX, "", 5)) == digests
    assert sorted(await storage.list_names_after(WARMING_PREFIX, "", 1_000)) == digests
    some = await storage.list_names_after(WARMING_PREFIX, "", 3)
    assert len(some) == 3
    assert set(some) <= set(digests)
    await storage.delete(warming_key(digests[0]))
    assert sorted(await storage.list_names_after(WARMING_PREFIX, "", 10)) == digests[1:]


async def test_list_objects_yields_key_size_and_time_of_the_last_put(storage: Storage) -> None:
    assert [entry async for entry in storage.list_objects("renditions")] == []
    before = datetime.now(UTC) - timedelta(seconds=2)
    sizes = {rendition_key(digest * 32, name): size for size, (digest, name) in enumerate([("a", "0"), ("a", "1"), ("b", "0")])}
    for key, size in sizes.items():
        await storage.put(key, b"first", durable=False)
        await storage.put(key, bytes(size), durable=False)
    await storage.put_if_absent(original_key(DIGEST), b"bytes", durable=False)
    entries = [entry async for entry in storage.list_objects("renditions")]
    assert {entry.key: entry.bytes for entry in entries} == sizes
    assert all(before < entry.modified <= datetime.now(UTC) + timedelta(seconds=1) for entry in entries)


async def test_list_names_after_of_more_than_a_page_returns_all_names(storage: Storage) -> None:
    """S3 lists some objects at a time."""
    digests = [f"{number:a>32}" for number in range(PAGE_OBJECTS + 10)]
    for start in range(0, len(digests), 20):
        await asyncio.gather(*(storage.put_if_absent(warming_key(digest), b"", durable=False) for digest in digests[start : start + 20]))
    assert sorted(await storage.list_names_after(WARMING_PREFIX, "", 2 * PAGE_OBJECTS)) == sorted(digests)


async def test_ping_of_a_reachable_store_returns_and_leaves_no_object(storage: Storage) -> None:
    await storage.ping()
    await storage.ping()
    assert not await storage.exists("documents/reached")


async def test_remove_orphaned_temp_files_without_any_removes_nothing(storage: Storage) -> None:
    await storage.put_if_absent(original_key(DIGEST), b"bytes", durable=True)
    assert await storage.remove_orphaned_temp_files() == 0
    assert await storage.get(original_key(DIGEST)) == b"bytes"


# Only on disk.


async def test_disk_put_if_absent_of_a_file_gives_it_a_second_name_and_the_mode_of_any_object(disk: Storage, tmp_path: Path) -> None:
    descriptor, name = tempfile.mkstemp(dir=tmp_path)
    os.write(descriptor, b"bytes")
    os.close(descriptor)
    assert await disk.put_if_absent(original_key(DIGEST), Path(name), durable=True)
    await disk.put_if_absent(document_key(DIGEST), b"document", durable=True)
    original, document = (disk.root / key for key in (original_key(DIGEST), document_key(DIGEST)) if disk.root)
    assert original.samefile(name)
    assert original.stat().st_mode == document.stat().st_mode
    await anyio.Path(name).unlink()
    assert await disk.get(original_key(DIGEST)) == b"bytes"


async def test_disk_put_if_absent_of_a_file_in_another_file_system_copies_it(
    disk: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: list[Path]
) -> None:
    def link(*names: object, **options: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", link)
    spooled = tmp_path / "spooled"
    spooled.write_bytes(b"bytes")
    assert await disk.put_if_absent(original_key(DIGEST), spooled, durable=True)
    assert not await disk.put_if_absent(original_key(DIGEST), spooled, durable=True)
    path = disk.local_path(original_key(DIGEST))
    assert path is not None
    assert (path.read_bytes(), path.samefile(spooled), path in synced) == (b"bytes", False, True)


async def test_local_path_is_the_file_on_disk_and_none_in_other_stores(disk: Storage, bucket: Storage, tmp_path: Path) -> None:
    await disk.put_if_absent(original_key(DIGEST), b"bytes", durable=False)
    path = disk.local_path(original_key(DIGEST))
    assert path == tmp_path / "store" / "originals" / DIGEST
    assert path.read_bytes() == b"bytes"
    assert bucket.local_path(original_key(DIGEST)) is None
    assert open_storage("memory://", {}).local_path(original_key(DIGEST)) is None


async def test_file_in_place_is_the_file_of_an_object_on_disk_and_none_without_one(disk: Storage, bucket: Storage) -> None:
    key, memory = intermediate_key(DIGEST), open_storage("memory://", {})
    for store in (disk, bucket, memory):
        assert await store.file_in_place(key) is None
        await store.put(key, b"bytes", durable=False)
    assert await disk.file_in_place(key) == disk.local_path(key)
    assert await bucket.file_in_place(key) is None
    assert await memory.file_in_place(key) is None


async def test_disk_durable_put_syncs_the_file_and_each_new_directory(disk: Storage, tmp_path: Path, synced: list[Path]) -> None:
    root = tmp_path / "store"
    key = rendition_key(DIGEST, NAME)
    await disk.put_if_absent(key, b"bytes", durable=True)
    assert synced[0] == root / key
    assert set(synced[1:]) == {root / "renditions" / DIGEST, root / "renditions", root}


async def test_disk_durable_put_in_a_known_directory_syncs_the_file_and_that_directory(
    disk: Storage, tmp_path: Path, synced: list[Path]
) -> None:
    root = tmp_path / "store"
    await disk.put_if_absent(original_key(DIGEST), b"bytes", durable=True)
    synced.clear()
    other = original_key("b" * 32)
    await disk.put_if_absent(other, b"bytes", durable=True)
    assert synced == [root / other, root / "originals"]


async def test_disk_durable_put_if_absent_of_an_existing_key_syncs_the_existing_file(
    disk: Storage, tmp_path: Path, synced: list[Path]
) -> None:
    key = original_key(DIGEST)
    await disk.put_if_absent(key, b"bytes", durable=False)
    assert synced == []
    assert not await disk.put_if_absent(key, b"bytes", durable=True)
    assert {tmp_path / "store" / key, tmp_path / "store" / "originals", tmp_path / "store"} <= set(synced)


async def test_disk_durable_replacement_syncs_the_file_and_its_directory(disk: Storage, tmp_path: Path, synced: list[Path]) -> None:
    key = document_key(DIGEST)
    await disk.put(key, b"bytes", durable=False)
    assert synced == []
    await disk.put(key, b"other bytes", durable=True)
    assert {tmp_path / "store" / key, tmp_path / "store" / "documents"} <= set(synced)


async def test_disk_concurrent_durable_puts_in_a_new_directory_all_wait_for_its_sync(
    disk: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    finished: list[Path] = []
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path == root and not finished:
            time.sleep(0.2)
        fsync(descriptor)
        finished.append(path)

    monkeypatch.setattr(os, "fsync", slow)

    async def create(digest: str) -> None:
        await disk.put_if_absent(original_key(digest), b"bytes", durable=True)
        assert root in finished

    async with anyio.create_task_group() as tasks:
        for letter in "abcd":
            tasks.start_soon(create, letter * 32)


async def test_disk_directory_of_a_new_store_is_synced_in_its_parents(tmp_path: Path, synced: list[Path]) -> None:
    open_storage((tmp_path / "new" / "store").as_uri(), {})
    assert synced == [tmp_path, tmp_path / "new"]
    synced.clear()
    open_storage((tmp_path / "new" / "store").as_uri(), {})
    assert synced == []


async def test_disk_durable_put_whose_sync_fails_is_an_error(disk: Storage, monkeypatch: pytest.MonkeyPatch, logged: list[object]) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFullError):
        await disk.put_if_absent(original_key(DIGEST), b"bytes", durable=True)


async def test_disk_remove_orphaned_temp_files_removes_only_those(disk: Storage, tmp_path: Path) -> None:
    root = tmp_path / "store"
    for key in (original_key(DIGEST), document_key(DIGEST), rendition_key(DIGEST, NAME)):
        await disk.put_if_absent(key, b"bytes", durable=False)
    kept = sorted(path for path in root.rglob("*") if path.is_file())
    for name in (f"originals/{DIGEST}#1", f"originals/{'b' * 32}#12", f"renditions/{DIGEST}/{NAME}#3"):
        (root / name).write_bytes(b"half")
    for name in ("originals/a#b", "originals/#", "originals/a#1.txt"):
        (root / name).write_bytes(b"somebody's")
        kept.append(root / name)
    (root / "folder#1").mkdir()
    assert await disk.remove_orphaned_temp_files() == 3
    assert sorted(path for path in root.rglob("*") if path.is_file()) == sorted(kept)
    assert (root / "folder#1").is_dir()
    assert await disk.remove_orphaned_temp_files() == 0


async def test_disk_temp_file_of_a_killed_write_is_not_the_object(disk: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "store" / "originals"
    folder.mkdir()
    (folder / f"{DIGEST}#1").write_bytes(b"half")
    assert await disk.get(original_key(DIGEST)) is None
    assert await disk.put_if_absent(original_key(DIGEST), b"whole", durable=True)
    assert await disk.get(original_key(DIGEST)) == b"whole"


async def test_full_disk_refuses_a_put_with_a_remedy_and_recovers_when_space_is_freed(small_disk: Path, logged: list[object]) -> None:
    storage = open_storage((small_disk / "store").as_uri(), {})
    assert await storage.put_if_absent(original_key(DIGEST), bytes(1 << 20), durable=True)
    with pytest.raises(StorageFullError) as caught:
        await storage.put_if_absent(original_key("b" * 32), bytes(2 << 20), durable=True)
    assert caught.value.status_code == 507
    assert caught.value.remedy
    assert await storage.get(original_key("b" * 32)) is None
    assert await storage.get(original_key(DIGEST)) == bytes(1 << 20)
    await storage.delete(original_key(DIGEST))
    assert await storage.remove_orphaned_temp_files() == 0
    assert await storage.put_if_absent(original_key("b" * 32), bytes(1 << 20), durable=True)


async def test_read_only_disk_fails_ping_but_can_be_read(small_disk: Path, logged: list[object]) -> None:
    storage = open_storage((small_disk / "store").as_uri(), {})
    await storage.put_if_absent(original_key(DIGEST), b"bytes", durable=True)
    await anyio.run_process(["mount", "-o", "remount,ro", str(small_disk)])
    with pytest.raises(StorageUnavailableError):
        await storage.ping()
    with pytest.raises(StorageUnavailableError):
        await storage.put_if_absent(original_key("b" * 32), b"bytes", durable=True)
    assert await storage.get(original_key(DIGEST)) == b"bytes"
    await anyio.run_process(["mount", "-o", "remount,rw", str(small_disk)])
    await storage.ping()


async def test_disk_whose_directory_is_missing_or_a_file_fails_ping(disk: Storage, tmp_path: Path, logged: list[object]) -> None:
    root = tmp_path / "store"
    shutil.rmtree(root)
    with pytest.raises(StorageUnavailableError):
        await disk.ping()
    root.write_bytes(b"a file")
    with pytest.raises(StorageUnavailableError):
        await disk.ping()
    with pytest.raises(StorageUnavailableError):
        await disk.get(original_key(DIGEST))
    root.unlink()
    root.mkdir()
    await disk.ping()


async def test_disk_whose_directory_belongs_to_another_user_fails_ping(disk: Storage, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere; a read-only file system is tested instead")
    (tmp_path / "store").chmod(0o500)
    with pytest.raises(StorageUnavailableError):
        await disk.ping()


# Only on S3.


Operation = Callable[[Storage], Awaitable[object]]
OPERATIONS: dict[str, Operation] = {
    "get": lambda storage: storage.get(original_key(DIGEST)),
    "exists": lambda storage: storage.exists(original_key(DIGEST)),
    "put_if_absent": lambda storage: storage.put_if_absent(original_key(DIGEST), b"bytes", durable=True),
    "put": lambda storage: storage.put(original_key(DIGEST), b"bytes", durable=True),
    "delete": lambda storage: storage.delete(original_key(DIGEST)),
    "list_names_after": lambda storage: storage.list_names_after(WARMING_PREFIX, "", 10),
    "ping": lambda storage: storage.ping(),
}


async def failed_within(seconds: float, storage: Storage, operation: Operation) -> ServiceError:
    with within(seconds), pytest.raises(StorageUnavailableError) as caught:
        await operation(storage)
    return caught.value


async def test_unreachable_s3_server_fails_every_operation_within_six_seconds(logged: list[object]) -> None:
    storage = open_storage("s3://bucket", {**S3_KEYS, "AWS_ENDPOINT_URL_S3": f"http://{HOST}:{free_port()}"})
    async with anyio.create_task_group() as tasks:
        for operation in OPERATIONS.values():
            tasks.start_soon(failed_within, 6, storage, operation)


@asynccontextmanager
async def s3_server(respond: Callable[[ByteStream], Awaitable[None]]) -> AsyncIterator[Storage]:
    """Give a store whose server runs `respond` for each connection, and leave no connection open."""

    async def serve(stream: ByteStream) -> None:
        async with stream:
            with suppress(anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead):
                await respond(stream)

    async with await anyio.create_tcp_listener(local_host=HOST) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        port = listener.extra(SocketAttribute.local_port)
        yield open_storage("s3://bucket", {**S3_KEYS, "AWS_ENDPOINT_URL_S3": f"http://{HOST}:{port}"})
        tasks.cancel_scope.cancel()


async def test_s3_failure_has_retry_after_and_reveals_nothing_private(logged: list[object]) -> None:
    port = free_port()
    storage = open_storage("s3://bucket", {**S3_KEYS, "AWS_ENDPOINT_URL_S3": f"http://{HOST}:{port}"})
    error = await failed_within(6, storage, OPERATIONS["get"])
    assert (error.status_code, error.retry_after_seconds) == (503, 5)
    assert str(port) not in repr(error.problem())
    assert str(port) in repr(logged)
    assert "secret" not in repr(logged)


async def test_missing_s3_bucket_is_unavailable_for_writing(s3: Bucket, logged: list[object]) -> None:
    storage = open_storage("s3://no-such-bucket", s3.environment)
    await failed_within(6, storage, OPERATIONS["put_if_absent"])


async def test_s3_reads_for_takedowns_are_consistent_and_others_are_not() -> None:
    requests: list[tuple[str, bool]] = []

    async def listening(stream: ByteStream) -> None:
        buffered = BufferedByteReceiveStream(stream)
        while True:
            head = (await buffered.receive_until(b"\r\n\r\n", 1 << 16)).decode("latin-1")
            lists = "list-type" in head
            requests.append(("LIST" if lists else head.split(" ")[0], "x-tigris-consistent: true" in head.lower()))
            body = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>" if lists else b""
            status = b"200 OK" if lists else b"404 Not Found"
            await stream.send(b"HTTP/1.1 %b\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))

    digest = "a" * 32
    async with s3_server(listening) as storage:
        assert [name async for name in storage.list_names(TOMBSTONES_PREFIX)] == []
        assert not await storage.exists(tombstone_key(digest), consistent=True)
        assert not await storage.exists(document_key(digest))
        assert await storage.get(document_key(digest)) is None
    assert requests == [("LIST", True), ("HEAD", True), ("HEAD", False), ("GET", False)]


async def test_slow_s3_transfer_completes() -> None:
    """Over a slow line, a large original takes longer in both directions than the read time-out."""
    body = os.urandom(3 << 20)
    part_bytes = len(body) // 6

    async def slow(stream: ByteStream) -> None:
        incoming = BufferedByteReceiveStream(stream)
        head = await incoming.receive_until(b"\r\n\r\n", 65_536)
        answer = b'HTTP/1.1 200 OK\r\nETag: "one"\r\nLast-Modified: Mon, 23 Nov 2026 15:00:00 GMT\r\nConnection: close\r\n'
        if head.startswith(b"PUT"):
            for _ in range(6):
                await anyio.sleep(0.5)
                await incoming.receive_exactly(part_bytes)
            await stream.send(answer + b"Content-Length: 0\r\n\r\n")
        else:
            await stream.send(answer + b"Content-Length: %d\r\n\r\n" % len(body))
            for start in range(0, len(body), part_bytes):
                await anyio.sleep(0.5)
                await stream.send(body[start : start + part_bytes])

    async with s3_server(slow) as storage:
        created, read = await asyncio.gather(
            storage.put_if_absent(original_key(DIGEST), body, durable=True), storage.get(original_key("b" * 32))
        )
    assert created
    assert read == body


# URLs of stores.


@pytest.mark.parametrize(
    "url",
    [
        "",
        "store",
        "/var/darkroom",
        "file:store",
        "file:./store",
        "file://store",
        "file://host/store",
        "memory:",
        "memory://name",
        "s3:bucket",
        "s3://bucket/folder",
        "s3://[",
        "file://[",
        "gs://bucket",
        "https://example.com",
    ],
)
def test_open_storage_of_an_invalid_url_names_the_setting(url: str) -> None:
    with pytest.raises(SettingsError, match="DARKROOM_STORE"):
        open_storage(url, S3_KEYS)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/null/store", "/proc/no/such/folder", "/tmp/a%00b"])
def test_open_storage_of_a_folder_that_cannot_be_created_says_so(path: str) -> None:
    with pytest.raises(SettingsError, match=r"cannot be created|expected a folder"):
        open_storage(f"file://{path}", {})


@pytest.mark.parametrize(
    ("url", "environ", "message"),
    [
        ("s3://", {}, "no bucket"),
        ("s3://", S3_KEYS, "BUCKET_NAME"),
        ("s3://a", S3_KEYS, "not a valid bucket name"),
        ("s3://my bucket", S3_KEYS, "not a valid bucket name"),
        ("s3://", {**S3_KEYS, "BUCKET_NAME": "my/bucket"}, "not a valid bucket name"),
        ("s3://bucket", {}, "needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("s3://bucket", {"AWS_ACCESS_KEY_ID": "key-for-tests"}, "needs AWS_SECRET_ACCESS_KEY"),
        ("s3://bucket", {**S3_KEYS, "AWS_ENDPOINT_URL_S3": "fly.storage.tigris.dev"}, "AWS_ENDPOINT_URL_S3"),
        ("s3://bucket", {**S3_KEYS, "AWS_ENDPOINT_URL_S3": "http://"}, "AWS_ENDPOINT_URL_S3"),
        ("s3://bucket", {**S3_KEYS, "AWS_ENDPOINT_URL_S3": "https://user:word@example.com"}, "AWS_ENDPOINT_URL_S3"),
    ],
)
def test_open_storage_of_an_incomplete_bucket_configuration_names_the_variable(url: str, environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        open_storage(url, environ)


def test_open_storage_of_s3_accepts_the_variables_of_fly_and_aws() -> None:
    open_storage("s3://bucket", S3_KEYS)
    open_storage("s3://", {**S3_KEYS, "BUCKET_NAME": "summer-photos-1234"})
    open_storage("s3://bucket", {**S3_KEYS, "AWS_ENDPOINT_URL_S3": "https://fly.storage.tigris.dev", "AWS_REGION": "auto"})
    open_storage("s3://bucket", {**S3_KEYS, "AWS_ENDPOINT_URL_S3": "http://[::1]:9000/"})


async def test_open_storage_decodes_percent_escapes_in_the_folder(tmp_path: Path) -> None:
    storage = open_storage((tmp_path / "my store #1 \N{LATIN SMALL LETTER O WITH DIAERESIS}").as_uri(), {})
    await storage.put_if_absent(original_key(DIGEST), b"bytes", durable=True)
    assert (tmp_path / "my store #1 \N{LATIN SMALL LETTER O WITH DIAERESIS}" / "originals" / DIGEST).read_bytes() == b"bytes"
    assert await storage.get(original_key(DIGEST)) == b"bytes"
