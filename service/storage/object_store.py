"""What is kept, over obstore: memory, disk, S3. How a bucket is asked stands in `bucket.py`."""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

import anyio.to_thread
import msgspec
import obstore
import structlog
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PermissionDeniedError
from obstore.store import LocalStore, MemoryStore, S3Store

from service.errors import SettingsError, StorageUnavailableError
from service.storage.disk import make_folder, on_disk_bytes, sync_one, whose
from service.storage.errors import failures, require_bucket
from service.storage.keys import is_derived
from service.storage.s3 import S3Client, open_s3_client

if TYPE_CHECKING:
    from obstore import ObjectMeta

log = structlog.get_logger(__name__)

T = TypeVar("T")

# While a body is sent the store is silent: one larger than this is not held to the time-out for silence.
_LARGE_BYTES = 1 << 20

# How often a body is read that breaks off on the way.
_MOST_TRANSFERS = 3

# How often a file's time is set to when it was last read: a budget needs to know which have not been for long, not more.
_USE_NOTED_EVERY = timedelta(hours=1)


class ObjectInfo(msgspec.Struct, frozen=True):
    """What a listing tells of an object: its key, its size in bytes, and when the store took it in, by the store's own clock."""

    key: str
    bytes: int
    modified: datetime


class Storage:
    """Objects by key, written whole or not at all. Raises `StorageUnavailableError` and `StorageFullError`."""

    def __init__(self, store: LocalStore | MemoryStore | S3Store, *, root: Path | None = None, bucket: S3Client | None = None) -> None:
        """Take an obstore store, and its folder if it is on this machine's disk, or what asks it if it is a bucket."""
        self._store = store
        self._root = root
        self._bucket = bucket
        self._synced_folders: set[Path] = set()
        # For a budget: whether what can be made again is to tell when it was last read, and how many bytes of it have been put so far.
        self.track_access = False
        self.derived_bytes_written = 0

    @property
    def root(self) -> Path | None:
        """The folder of a store on this machine's disk."""
        return self._root

    def local_path(self, key: str) -> Path | None:
        """Return the file that holds `key`, `None` in a store without files."""
        return None if self._root is None else self._root / key

    async def get(self, key: str, *, consistent: bool = False) -> bytes | None:
        """Return the bytes under `key`, `None` if there are none; with `consistent`, what was written last in whichever region."""
        async with failures("read"):
            try:
                body, modified = await self._transferred(key, consistent=consistent)
            except FileNotFoundError as error:
                require_bucket(error)
                return None
            await self._note_use(key, modified)
            return body

    async def get_from_any_region(self, key: str) -> bytes | None:
        """Return the bytes under `key`, `None` if no region has put any there: what is not seen is looked for once more, consistently."""
        body = await self.get(key)
        return body if body is not None or self._bucket is None else await self.get(key, consistent=True)

    async def exists(self, key: str, *, consistent: bool = False) -> bool:
        """Return whether there is something under `key`; with `consistent`, whichever region has put it there."""
        async with failures("read"):
            try:
                await self._ask(lambda store: obstore.head_async(store, key), consistent=consistent)
            except FileNotFoundError:
                return False
            except PermissionDeniedError:
                # The answer to HEAD has no body that could say why.
                await self._transferred(key, consistent=consistent)
                raise
            return True

    async def list_objects(self, folder: str) -> AsyncIterator[ObjectInfo]:
        """Give all that lies in a folder and the folders in it, whichever region has put it there."""
        async with failures("list"):
            async for page in self._pages(f"{folder}/"):
                for meta in page:
                    yield ObjectInfo(meta["path"], meta["size"], meta["last_modified"])

    async def list_names_after(self, prefix: str, after: str, limit: int) -> list[str]:
        """Return the first `limit` names behind `after` of what lies in a folder, in the order of their characters."""
        async with failures("list"):
            if self._root is not None:
                return await anyio.to_thread.run_sync(_names_on_disk, self._root / prefix, after, limit)
            found: list[str] = []
            # S3 and the memory store list in the order of keys: nothing behind the limit is requested.
            async for page in self._pages(f"{prefix}/", after=f"{prefix}/{after}", page_size=max(limit, 50)):
                found += [meta["path"].rpartition("/")[2] for meta in page]
                if len(found) >= limit:
                    break
            return found[:limit]

    async def list_names(self, folder: str) -> AsyncGenerator[str]:
        """Give the names of all that lies in a folder and the folders in it, relative to it, whichever region has put them there."""
        async for entry in self.list_objects(folder):
            yield entry.key.removeprefix(f"{folder}/")

    async def put_if_absent(self, key: str, body: bytes | Path, *, durable: bool) -> bool:
        """Put bytes, or a file's, under `key` unless something is there; return whether they were put.

        With `durable`, what is there when this returns, whoever put it, survives a power cut: obstore writes to disk but does not sync.
        """
        async with failures("write"):
            attempts = 0

            async def put(store: LocalStore | MemoryStore | S3Store) -> None:
                nonlocal attempts
                attempts += 1
                await obstore.put_async(store, key, body, mode="create", use_multipart=False)

            created = True
            try:
                await self._put(put, body)
            except AlreadyExistsError:
                # An attempt whose answer was lost may have been what put it.
                created = attempts > 1 and isinstance(body, bytes) and await self.get(key, consistent=True) == body
            if created:
                self._count(key, body)
            if durable and self._root is not None:
                await anyio.to_thread.run_sync(self._sync, self._root / key)
            return created

    async def put(self, key: str, body: bytes | Path, *, durable: bool) -> None:
        """Put bytes, or a file's, under `key`, whatever is there."""
        async with failures("write"):
            await self._put(lambda store: obstore.put_async(store, key, body, mode="overwrite", use_multipart=False), body)
            self._count(key, body)
            if durable and self._root is not None:
                await anyio.to_thread.run_sync(self._sync, self._root / key)

    async def delete(self, key: str) -> None:
        """Remove what is under `key`, if anything is."""
        async with failures("delete"):
            try:
                if self._bucket is None:
                    await obstore.delete_async(self._store, key)
                else:
                    await self._bucket.write(lambda store: obstore.delete_async(store, key))
            except FileNotFoundError as error:
                require_bucket(error)

    async def ping(self, *, to_write: bool = True) -> None:
        """Return if the store answers, and, on disk, may be written to."""
        if to_write and self._root is not None and not (self._root.is_dir() and os.access(self._root, os.W_OK | os.X_OK)):
            raise StorageUnavailableError(
                f"The store's folder {'cannot be written' if self._root.is_dir() else 'is not there'}.",
                remedy="Mount it writable where DARKROOM_STORE says, and let the user that the server runs as own it.",
                retry_after_seconds=5,
            )
        # Not whether there is something: that is answered without a word of why it fails.
        await self.get("documents/reached")

    async def remove_orphaned_temp_files(self, older_than_seconds: float = 0.0) -> int:
        """Remove what killed writes have left on disk, and return how many files that were."""
        keys = await anyio.to_thread.run_sync(self.orphaned_temp_files, older_than_seconds)
        for key in keys:
            await self.remove_leftover(key)
        return len(keys)

    def orphaned_temp_files(self, older_than_seconds: float) -> list[str]:
        """Return what killed writes have left on disk.

        obstore writes `<key>#<n>` and links it; its own listings do not show such files. Beside a server that writes, only what is older
        than any write takes is left over.
        """
        found: list[str] = []
        youngest = time.time() - older_than_seconds
        for path in [] if self._root is None else self._root.rglob("*#*"):
            with suppress(FileNotFoundError):
                if path.name.rpartition("#")[2].isdigit() and path.is_file() and path.stat().st_mtime <= youngest:
                    found.append(str(path.relative_to(self._root or path)))
        return found

    async def remove_leftover(self, key: str) -> None:
        """Remove a file that a killed write has left: its name is no key for obstore."""
        async with failures("delete"):
            if self._root is not None:
                await anyio.to_thread.run_sync(partial((self._root / key).unlink, missing_ok=True))

    def _pages(self, prefix: str, *, after: str | None = None, page_size: int = 1_000) -> AsyncIterator[Sequence[ObjectMeta]]:
        if self._bucket is None:
            return aiter(obstore.list(self._store, prefix, offset=after, chunk_size=page_size))
        return self._bucket.pages(prefix, after=after, page_size=page_size)

    async def _ask(self, question: Callable[[Any], Awaitable[T]], *, consistent: bool) -> T:
        if self._bucket is None:
            return await question(self._store)
        return await self._bucket.read(question, "consistent" if consistent else "usual")

    async def _transferred(self, key: str, *, consistent: bool) -> tuple[bytes, datetime]:
        """Return the bytes under a key and when they were put there; a body that breaks off on the way is read again."""
        for left in reversed(range(_MOST_TRANSFERS)):
            result = await self._ask(lambda store: obstore.get_async(store, key), consistent=consistent)
            try:
                return bytes(await result.bytes_async()), result.meta["last_modified"]
            except GenericError:
                if self._bucket is None or not left:
                    raise
        raise AssertionError("a transfer ends with bytes or an error")

    async def _put(self, put: Callable[[Any], Awaitable[object]], body: bytes | Path) -> None:
        if self._bucket is None:
            await put(self._store)
            return
        await self._bucket.write(put, large=_size(body) > _LARGE_BYTES)

    async def _note_use(self, key: str, modified: datetime) -> None:
        """Have a file that can be made again say when it was last read, to the hour: the access time is switched off on many disks."""
        if not self.track_access or not is_derived(key) or datetime.now(UTC) - modified < _USE_NOTED_EVERY:
            return
        if (path := self.local_path(key)) is not None:
            with suppress(OSError):
                await anyio.to_thread.run_sync(os.utime, path)

    def _count(self, key: str, body: bytes | Path) -> None:
        if is_derived(key):
            self.derived_bytes_written += on_disk_bytes(_size(body))

    def _sync(self, path: Path) -> None:
        sync_one(path)
        folder = path.parent
        # A new entry needs its folder synced; a folder that is itself new needs its own parent synced once.
        sync_one(folder)
        while folder != self._root and folder not in self._synced_folders:
            sync_one(folder.parent)
            self._synced_folders.add(folder)
            folder = folder.parent


def open_storage(url: str, environ: Mapping[str, str], *, prefix: str = "", make: bool = True) -> Storage:
    """Return the store that `DARKROOM_STORE` names; raises `SettingsError` for one that it cannot name.

    `prefix` stands before the variables of a bucket that is not the only store. Unless it may be made, a folder must be there.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if url == "memory://":
        return Storage(MemoryStore())
    if parts.scheme == "file" and parts.netloc == "" and parts.path.startswith("/"):
        root = Path(unquote(parts.path))
        try:
            if make:
                make_folder(root)
            elif not root.is_dir():
                raise SettingsError(f"{url}: there is no such folder. Correct the address of the store.")
            return Storage(LocalStore(root), root=root)
        except (BaseError, OSError, ValueError) as error:
            owner = whose(root) if isinstance(error, PermissionError) else ""
            raise SettingsError(f"DARKROOM_STORE={url}: the folder cannot be made: {str(error).splitlines()[0]}{owner}") from error
    if parts.scheme == "s3" and parts.path in {"", "/"}:
        bucket = open_s3_client(parts.netloc or environ.get(f"{prefix}BUCKET_NAME", ""), environ, prefix)
        return Storage(bucket.client("usual"), bucket=bucket)
    raise SettingsError(f"DARKROOM_STORE={url!r}: expected file:///folder, memory:// or s3://bucket.")


def _size(body: bytes | Path) -> int:
    return len(body) if isinstance(body, bytes) else body.stat().st_size


def _names_on_disk(folder: Path, after: str, limit: int) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            # Not what obstore is writing.
            return heapq.nsmallest(limit, (entry.name for entry in entries if entry.name > after and "#" not in entry.name))
    except FileNotFoundError:
        return []
