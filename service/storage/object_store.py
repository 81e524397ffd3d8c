"""The object store, on obstore: a directory on disk, memory, or an S3 bucket. `s3.py` explains how a bucket is called."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

import anyio.to_thread
import msgspec
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PermissionDeniedError
from obstore.store import LocalStore, MemoryStore, S3Store

from service import instruments
from service.concurrency.retrying import retry
from service.errors import SettingsError, StorageUnavailableError
from service.files import fsync_path
from service.instruments import StoreOperation
from service.storage.disk import (
    link_if_absent,
    makedirs_durable,
    remove_empty_folders,
    remove_orphaned_temp_files,
    size_on_disk,
    unusable_folder,
)
from service.storage.errors import require_bucket, translate_errors
from service.storage.keys import is_derived
from service.storage.layout import key_of, names_after, path_of, spread_list
from service.storage.s3 import S3Client, open_s3_client

if TYPE_CHECKING:
    from obstore import ObjectMeta

T = TypeVar("T")

# While a body is uploaded the store sends nothing: a larger body than this is not bound by the read time-out.
_LARGE_BODY_BYTES = 1 << 20

# The pauses between the downloads of a body from S3 that breaks off.
_DOWNLOAD_PAUSES_SECONDS = (0.0, 0.0)

# The shortest time between two updates of a file's time of last access: a quota needs no finer order.
_ACCESS_INTERVAL = timedelta(hours=1)

# How many directories are remembered as synced. Beyond that, all are forgotten, and each is synced once more.
_MAX_SYNCED_DIRECTORIES = 1_000


class ObjectInfo(msgspec.Struct, frozen=True):
    """An object in a listing: its key, its size in bytes, and when it was last put, by the store's own clock."""

    key: str
    bytes: int
    modified: datetime


class Storage:
    """Objects by key, each written as a whole or not at all.

    Every method raises `StorageUnavailableError` if the store cannot be used, and methods that write raise `StorageFullError`.
    """

    def __init__(self, store: LocalStore | MemoryStore | S3Store, *, root: Path | None = None, s3: S3Client | None = None) -> None:
        """Wrap an obstore store.

        `store`: where objects are stored, unless `s3` is given.
        `root`: the directory of `store` if it is on disk.
        `s3`: the client to use if it is a bucket.
        """
        self._store = store
        self._root = root
        self._s3 = s3
        self._synced_directories: set[Path] = set()
        # For a quota: whether to record when a derived object was last read, and how many bytes of them have been put so far.
        self.track_access = False
        self.derived_bytes_written = 0

    def __repr__(self) -> str:
        return f"<Storage: {self._s3 or self._root or 'memory'}>"

    @property
    def root(self) -> Path | None:
        """The directory of a store on disk."""
        return self._root

    def local_path(self, key: str) -> Path | None:
        """Return the file of the object under `key`, `None` if this store is not on disk."""
        return None if self._root is None else self._root / path_of(self._root, key)

    async def get(self, key: str, *, consistent: bool = False) -> bytes | None:
        """Return the bytes under `key`, `None` if there is no such object.

        `consistent`: read the latest version that any region has written, which is slower.
        """
        async with _operation("get", key):
            if self._is_absent(key):
                return None
            try:
                body, modified = await self._download(key, consistent=consistent)
            except FileNotFoundError as error:
                require_bucket(error)
                return None
            await self._record_access(key, modified)
            return body

    async def file_in_place(self, key: str) -> Path | None:
        """Return the file of the object under `key`, which the caller is about to read; `None` if there is none on this machine's disk."""
        if self._root is None:
            return None
        async with _operation("get", key):
            path = self._root / path_of(self._root, key)
            found = _stat(path)
            if found is None:
                return None
            await self._record_access(key, datetime.fromtimestamp(found.st_mtime, UTC))
            return path

    async def get_from_any_region(self, key: str) -> bytes | None:
        """Return the bytes under `key`, `None` only if no region has written any: a miss is confirmed by a consistent read."""
        body = await self.get(key)
        return body if body is not None or self._s3 is None else await self.get(key, consistent=True)

    async def exists(self, key: str, *, consistent: bool = False) -> bool:
        """Return whether there is an object under `key`; with `consistent`, whether any region has written one."""
        async with _operation("exists", key):
            if self._is_absent(key):
                return False
            try:
                location = self._location(key)
                await self._read("exists", lambda store: obstore.head_async(store, location), consistent=consistent)
            except FileNotFoundError:
                return False
            except PermissionDeniedError:
                # A response to HEAD has no body, so its error does not say why.
                await self._download(key, consistent=consistent)
                raise
            return True

    async def list_objects(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield every object whose key begins with `prefix` and a slash, in every region."""
        async with translate_errors("list"):
            async for page in self._list_pages(f"{prefix}/"):
                for meta in page:
                    key = meta["path"] if self._root is None else key_of(meta["path"])
                    yield ObjectInfo(key, meta["size"], meta["last_modified"])

    async def list_names(self, prefix: str) -> AsyncGenerator[str]:
        """Yield the rest of every key that begins with `prefix` and a slash, in every region."""
        async for entry in self.list_objects(prefix):
            yield entry.key.removeprefix(f"{prefix}/")

    async def list_names_after(self, prefix: str, after: str, limit: int) -> list[str]:
        """Return the first `limit` names under `prefix` that sort after `after`, in order; "" for the first of all."""
        async with translate_errors("list"):
            if self._root is not None:
                return await anyio.to_thread.run_sync(names_after, self._root / prefix, after, limit)
            found: list[str] = []
            # S3 and the memory store list keys in order: no more pages are requested than needed.
            async for page in self._list_pages(f"{prefix}/", after=f"{prefix}/{after}", page_size=max(limit, 50)):
                found += [meta["path"].rpartition("/")[2] for meta in page]
                if len(found) >= limit:
                    break
            return found[:limit]

    async def put_if_absent(self, key: str, body: bytes | Path, *, durable: bool) -> bool:
        """Put bytes, or the contents of a file, under `key` unless there is an object; return whether they were put.

        `body`: a file must not change any more: on disk, the object is the same file under a second name if that is possible.
        `durable`: when this returns, the object under `key` survives a power failure, whoever has put it; obstore does not sync.
        """
        async with _operation("put", key):
            created = None
            path = self.local_path(key)
            if path is not None and isinstance(body, Path):
                created = await anyio.to_thread.run_sync(link_if_absent, body, path)
            if created is None:
                created = await self._create(key, body)
            if created:
                self._count_derived(key, body)
            if durable and path is not None:
                await anyio.to_thread.run_sync(self._fsync, path)
            return created

    async def put(self, key: str, body: bytes | Path, *, durable: bool) -> None:
        """Put bytes, or the contents of a file, under `key`, in place of any object there. `durable`: as in `put_if_absent`."""
        async with _operation("put", key):
            location = self._location(key)
            await self._put(lambda store: obstore.put_async(store, location, body, mode="overwrite", use_multipart=False), body)
            self._count_derived(key, body)
            if durable and self._root is not None:
                await anyio.to_thread.run_sync(self._fsync, self._root / location)

    async def delete(self, key: str) -> None:
        """Delete the object under `key`, if there is one."""
        async with _operation("delete", key):
            try:
                if self._s3 is None:
                    await self._delete(key)
                else:
                    await self._s3.write("delete", lambda store: obstore.delete_async(store, key))
            except FileNotFoundError as error:
                require_bucket(error)

    async def remove_orphaned_temp_files(self, older_than_seconds: float = 0.0) -> int:
        """Remove the temporary files that killed writes have left on disk, and return their number; see `disk.orphaned_temp_files`."""
        async with translate_errors("delete"):
            return await anyio.to_thread.run_sync(remove_orphaned_temp_files, self._root, older_than_seconds)

    async def spread_list(self) -> int:
        """Move the entries that earlier versions wrote to the list of images on disk, and return their number; see `layout`."""
        if self._root is None:
            return 0
        async with translate_errors("put"):
            return await anyio.to_thread.run_sync(spread_list, self._root)

    async def ping(self, *, writable: bool = True) -> None:
        """Check that the store can be read. `writable`: on disk, that it can be written as well."""
        if writable and self._root is not None and not (self._root.is_dir() and os.access(self._root, os.W_OK | os.X_OK)):
            raise StorageUnavailableError(
                f"The folder of the store {'cannot be written' if self._root.is_dir() else 'does not exist'}.",
                remedy="Mount it writable at the path in DARKROOM_STORE, and make the user that the server runs as its owner.",
                retry_after_seconds=5,
            )
        # Not `exists`: a response to HEAD does not say why it fails.
        await self.get("documents/reached")

    async def _list_pages(self, prefix: str, *, after: str | None = None, page_size: int = 1_000) -> AsyncIterator[Sequence[ObjectMeta]]:
        pages: AsyncIterator[Sequence[ObjectMeta]]
        if self._s3 is None:
            pages = aiter(obstore.list(self._store, prefix, offset=after, chunk_size=page_size))
        else:
            pages = self._s3.list_pages(prefix, after=after, page_size=page_size)
        while True:
            # Each page by itself: in between the caller works with the objects of the one before.
            with instruments.STORE_SECONDS.measuring("list"):
                page = await anext(pages, None)
            if page is None:
                return
            yield page

    def _is_absent(self, key: str) -> bool:
        """Return whether a store on disk has no file for `key`, which takes neither a thread nor obstore; raises `OSError`."""
        # Not a `Path`, which takes longer than the kernel.
        return self._root is not None and _stat(f"{self._root}/{self._location(key)}") is None

    def _location(self, key: str) -> str:
        """Return the path of an object in obstore's store."""
        return key if self._root is None else path_of(self._root, key)

    async def _delete(self, key: str) -> None:
        """Delete an object that is not in a bucket, and on disk the folders that are empty then."""
        location = self._location(key)
        await obstore.delete_async(self._store, location)
        if self._root is not None:
            self._synced_directories.difference_update(remove_empty_folders(self._root / location, self._root))

    async def _read(self, operation: StoreOperation, request: Callable[[Any], Awaitable[T]], *, consistent: bool) -> T:
        if self._s3 is None:
            return await request(self._store)
        return await self._s3.read(operation, request, consistent=consistent)

    async def _download(self, key: str, *, consistent: bool) -> tuple[bytes, datetime]:
        """Return the bytes under a key and when they were put; from S3, a body that breaks off is downloaded again."""
        location = self._location(key)

        async def download() -> tuple[bytes, datetime]:
            result = await self._read("get", lambda store: obstore.get_async(store, location), consistent=consistent)
            try:
                return bytes(await result.bytes_async()), result.meta["last_modified"]
            except GenericError as error:
                if self._s3 is not None:
                    instruments.STORE_RETRIES.add("get")
                raise _BrokenBodyError(str(error)) from error

        return await retry(
            download,
            pauses=_DOWNLOAD_PAUSES_SECONDS if self._s3 is not None else (),
            retry_after=lambda error: 0.0 if isinstance(error, _BrokenBodyError) else None,
        )

    async def _create(self, key: str, body: bytes | Path) -> bool:
        """Put bytes, or a copy of a file, under a key unless there is an object; return whether they were put."""
        location = self._location(key)
        attempts = 0

        async def put(store: LocalStore | MemoryStore | S3Store) -> None:
            nonlocal attempts
            attempts += 1
            await obstore.put_async(store, location, body, mode="create", use_multipart=False)

        try:
            await self._put(put, body)
        except AlreadyExistsError:
            # It may be ours: the response to the first attempt may have been lost.
            return attempts > 1 and isinstance(body, bytes) and await self.get(key, consistent=True) == body
        return True

    async def _put(self, put: Callable[[Any], Awaitable[object]], body: bytes | Path) -> None:
        if self._s3 is None:
            await put(self._store)
            return
        await self._s3.write("put", put, large=_size(body) > _LARGE_BODY_BYTES)

    async def _record_access(self, key: str, modified: datetime) -> None:
        """Set the time of a derived object's file to now, at most once an hour: many disks are mounted without access times."""
        if not self.track_access or not is_derived(key) or datetime.now(UTC) - modified < _ACCESS_INTERVAL:
            return
        if (path := self.local_path(key)) is not None:
            with suppress(OSError):
                await anyio.to_thread.run_sync(os.utime, path)

    def _count_derived(self, key: str, body: bytes | Path) -> None:
        if is_derived(key):
            self.derived_bytes_written += size_on_disk(_size(body))

    def _fsync(self, path: Path) -> None:
        fsync_path(path)
        directory = path.parent
        # The directory of a new file must be synced each time. If the directory itself is new, its parent must be synced too, once.
        fsync_path(directory)
        if len(self._synced_directories) >= _MAX_SYNCED_DIRECTORIES:
            self._synced_directories.clear()
        while directory != self._root and directory not in self._synced_directories:
            fsync_path(directory.parent)
            self._synced_directories.add(directory)
            directory = directory.parent


@asynccontextmanager
async def _operation(operation: StoreOperation, key: str = "") -> AsyncIterator[None]:
    """Measure an operation, and translate its errors. `key` is as in `translate_errors`."""
    with instruments.STORE_SECONDS.measuring(operation):
        async with translate_errors(operation, key):
            yield


class _BrokenBodyError(GenericError):
    """The body of a response broke off."""


def open_storage(url: str, environ: Mapping[str, str], *, prefix: str = "", create: bool = True) -> Storage:
    """Return the store at the URL of `DARKROOM_STORE`; raises `SettingsError`.

    `prefix`: what the names of a bucket's variables begin with if this is not the main store, such as `SOURCE_`.
    `create`: whether to create a directory that does not exist.
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
            if create:
                makedirs_durable(root)
            elif not root.is_dir():
                raise SettingsError(f"{url}: there is no such folder. Correct the URL of the store.")
            return Storage(LocalStore(root), root=root)
        except OSError as error:
            raise unusable_folder(root, f"DARKROOM_STORE={url}", error) from error
        except (BaseError, ValueError) as error:
            raise SettingsError(f"DARKROOM_STORE={url}: the folder cannot be created: {str(error).splitlines()[0]}") from error
    if parts.scheme == "s3" and parts.path in {"", "/"}:
        s3 = open_s3_client(parts.netloc or environ.get(f"{prefix}BUCKET_NAME", ""), environ, prefix)
        return Storage(s3.store("default"), s3=s3)
    raise SettingsError.invalid("DARKROOM_STORE", "file:///folder, memory:// or s3://bucket", repr(url))


def _stat(path: Path | str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116 - a string is enough
    except FileNotFoundError:
        return None


def _size(body: bytes | Path) -> int:
    return len(body) if isinstance(body, bytes) else body.stat().st_size
