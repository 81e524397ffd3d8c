"""What is kept, over obstore: memory, disk, S3."""

from __future__ import annotations

import hashlib
import heapq
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import anyio.to_thread
import obstore
import structlog
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, MemoryStore, S3Store

from service.errors import StorageFullError, StorageUnavailableError
from service.settings import SettingsError

log = structlog.get_logger(__name__)

# Two attempts at a silent store end within five seconds; the library's own defaults retry for three minutes.
_SILENCE_TIMEOUT = timedelta(seconds=2.3)
_CONNECT_TIMEOUT = timedelta(seconds=1.5)
_RETRY_TIMEOUT = timedelta(seconds=2.4)
_TRANSFER_TIMEOUT = timedelta(seconds=60)

# While a body is sent the store is silent: one larger than this is not held to the time-out for silence.
_LARGE_BYTES = 1 << 20

# ENOSPC and EDQUOT as obstore and as Python spell them, and what S3 servers say.
_FULL = ("os error 28", "os error 122", "[Errno 28]", "[Errno 122]", "QuotaExceeded", "InsufficientStorage")

WARMING_FOLDER = "warming"
TOMBSTONES_FOLDER = "tombstones"
PURGES_FOLDER = "purges"
DOCUMENTS_FOLDER = "documents"
RECENT_FOLDER = "recent"

# Where it is noted when every document was last seen to have its entry in `RECENT_FOLDER`.
RECENT_COMPLETE_KEY = "recent-complete"

# Milliseconds since 1970 that no clock shows before the year 2286: what is taken from it has thirteen digits, fewer the later it is.
_END_OF_TIME = 10**13 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Tigris reads from the nearest region unless it is asked not to; other stores ignore the field.
_CONSISTENT = {"X-Tigris-Consistent": "true"}

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?/?|https?://\[[0-9a-fA-F:.]+\](:[0-9]+)?/?")


def original_key(digest: str) -> str:
    """Return where an original lies."""
    return f"originals/{digest}"


def document_key(digest: str) -> str:
    """Return where the facts of an image lie. They are written after the original: where they are, it is."""
    return f"{DOCUMENTS_FOLDER}/{digest}"


def renditions_folder(digest: str) -> str:
    """Return where the renditions of an image lie."""
    return f"renditions/{digest}"


def rendition_key(digest: str, name: str) -> str:
    """Return where a rendition lies; `name` tells version, transform and extension."""
    return f"{renditions_folder(digest)}/{name}"


def intermediate_key(digest: str) -> str:
    """Return where the intermediate of an original lies."""
    return f"intermediates/{digest}"


def warming_key(digest: str) -> str:
    """Return where it is noted that an image is to be warmed."""
    return f"{WARMING_FOLDER}/{digest}"


def tombstone_key(digest: str) -> str:
    """Return where it is noted that an image has been taken down."""
    return f"{TOMBSTONES_FOLDER}/{digest}"


def purge_key(digest: str) -> str:
    """Return where it is noted that a CDN is to be purged of an image once more."""
    return f"{PURGES_FOLDER}/{digest}"


def recent_name(digest: str, created: str) -> str:
    """Return the name under which an image that was taken in at `created` (RFC 3339) is listed: in the order of names, newest first."""
    milliseconds = (datetime.fromisoformat(created) - _EPOCH) // timedelta(milliseconds=1)
    return f"{_END_OF_TIME - milliseconds:013}-{digest}"


def recent_key(digest: str, created: str) -> str:
    """Return where an image is listed among the others, newest first."""
    return f"{RECENT_FOLDER}/{recent_name(digest, created)}"


def pointer_key(url: str) -> str:
    """Return where it is noted what a remote source had when it was last asked."""
    return f"pointers/{hashlib.sha256(url.encode()).hexdigest()}"


class Storage:
    """Objects by key, written whole or not at all. Raises `StorageUnavailableError` and `StorageFullError`."""

    def __init__(
        self,
        store: LocalStore | MemoryStore | S3Store,
        root: Path | None = None,
        *,
        patient: S3Store | None = None,
        consistent: S3Store | None = None,
    ) -> None:
        """Take an obstore store and its folder if it is on this machine's disk.

        The same store again for bodies that take long to send, and for reads that must see what any region has written.
        """
        self._store = store
        self._patient = patient or store
        self._consistent = consistent or store
        self._root = root
        self._synced_folders: set[Path] = set()

    def local_path(self, key: str) -> Path | None:
        """Return the file that holds `key`, `None` in a store without files."""
        return None if self._root is None else self._root / key

    async def read(self, key: str) -> bytes | None:
        """Return the bytes under `key`, `None` if there are none."""
        async with _failures("read"):
            try:
                result = await obstore.get_async(self._store, key)
                return bytes(await result.bytes_async())
            except FileNotFoundError:
                return None

    async def exists(self, key: str, *, consistent: bool = False) -> bool:
        """Return whether there is something under `key`; with `consistent`, whichever region has put it there."""
        async with _failures("read"):
            try:
                await obstore.head_async(self._consistent if consistent else self._store, key)
            except FileNotFoundError:
                return False
            return True

    async def names(self, folder: str, limit: int) -> list[str]:
        """Return the names of what lies in a folder, in no order, `limit` of them at most."""
        async with _failures("list"):
            found: list[str] = []
            async for page in obstore.list(self._store, f"{folder}/"):
                found += [entry["path"].rpartition("/")[2] for entry in page]
                if len(found) >= limit:
                    break
            return found[:limit]

    async def names_after(self, folder: str, after: str, limit: int) -> list[str]:
        """Return the first `limit` names behind `after` of what lies in a folder, in the order of their characters."""
        if self._root is not None:
            return await anyio.to_thread.run_sync(_names_on_disk, self._root / folder, after, limit)
        async with _failures("list"):
            found: list[str] = []
            # S3 and the memory store list in the order of keys: what lies behind the limit is not asked for.
            async for page in obstore.list(self._store, f"{folder}/", offset=f"{folder}/{after}", chunk_size=max(limit, 50)):
                found += [entry["path"].rpartition("/")[2] for entry in page]
                if len(found) >= limit:
                    break
            return found[:limit]

    async def all_names(self, folder: str) -> AsyncIterator[str]:
        """Give the names of all that lies in a folder and the folders in it, relative to it, whichever region has put them there."""
        async with _failures("list"):
            async for page in obstore.list(self._consistent, f"{folder}/"):
                for entry in page:
                    yield entry["path"].removeprefix(f"{folder}/")

    async def create(self, key: str, body: bytes | Path, *, durable: bool) -> bool:
        """Put bytes, or a file's, under `key` unless something is there; return whether they were put.

        With `durable`, what is there when this returns, whoever put it, survives a power cut: obstore writes to disk but does not sync.
        """
        async with _failures("write"):
            created = True
            try:
                await obstore.put_async(self._writer(body), key, body, mode="create", use_multipart=False)
            except AlreadyExistsError:
                created = False
            if durable and self._root is not None:
                await anyio.to_thread.run_sync(self._sync, self._root / key)
            return created

    async def replace(self, key: str, body: bytes | Path, *, durable: bool) -> None:
        """Put bytes, or a file's, under `key`, whatever is there."""
        async with _failures("write"):
            await obstore.put_async(self._writer(body), key, body, mode="overwrite", use_multipart=False)
            if durable and self._root is not None:
                await anyio.to_thread.run_sync(self._sync, self._root / key)

    async def delete(self, key: str) -> None:
        """Remove what is under `key`, if anything is."""
        async with _failures("delete"):
            with suppress(FileNotFoundError):
                await obstore.delete_async(self._store, key)

    async def reach(self) -> None:
        """Return if the store answers."""
        if self._root is not None and not os.access(self._root, os.W_OK):
            raise StorageUnavailableError("The store's folder cannot be written.")
        await self.exists("documents/reached")

    async def sweep(self) -> int:
        """Remove what killed writes have left on disk, and return how many files that were.

        obstore writes `<key>#<n>` and links it; its own listings do not show such files.
        """
        return 0 if self._root is None else await anyio.to_thread.run_sync(_remove_leftovers, self._root)

    def _writer(self, body: bytes | Path) -> LocalStore | MemoryStore | S3Store:
        size = body.stat().st_size if isinstance(body, Path) else len(body)
        return self._patient if size > _LARGE_BYTES else self._store

    def _sync(self, path: Path) -> None:
        _sync_one(path)
        folder = path.parent
        # A new entry needs its folder synced; a folder that is itself new needs its own parent synced once.
        _sync_one(folder)
        while folder != self._root and folder not in self._synced_folders:
            _sync_one(folder.parent)
            self._synced_folders.add(folder)
            folder = folder.parent


def open_storage(url: str, environ: Mapping[str, str]) -> Storage:
    """Return the store that `DARKROOM_STORE` names; raises `SettingsError` for one that it cannot name."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if url == "memory://":
        return Storage(MemoryStore())
    if parts.scheme == "file" and parts.netloc == "" and parts.path.startswith("/"):
        root = Path(unquote(parts.path))
        try:
            _make_folder(root)
            return Storage(LocalStore(root), root)
        except (BaseError, OSError, ValueError) as error:
            raise SettingsError(f"DARKROOM_STORE={url}: the folder cannot be made: {str(error).splitlines()[0]}") from error
    if parts.scheme == "s3" and parts.path in {"", "/"}:
        bucket = parts.netloc or environ.get("BUCKET_NAME", "")
        return Storage(
            _s3(bucket, environ, _SILENCE_TIMEOUT),
            patient=_s3(bucket, environ, _TRANSFER_TIMEOUT),
            consistent=_s3(bucket, environ, _SILENCE_TIMEOUT, _CONSISTENT),
        )
    raise SettingsError(f"DARKROOM_STORE={url!r}: expected file:///folder, memory:// or s3://bucket.")


def _s3(bucket: str, environ: Mapping[str, str], silence_timeout: timedelta, fields: Mapping[str, str] | None = None) -> S3Store:
    if not bucket:
        raise SettingsError("DARKROOM_STORE=s3://: no bucket. Expected s3://bucket, or BUCKET_NAME set, as `fly storage create` does.")
    if _BUCKET.fullmatch(bucket) is None:
        raise SettingsError(f"DARKROOM_STORE=s3://: {bucket!r} is no name of a bucket. Expected 2 to 63 of A-Z a-z 0-9 . _ -.")
    keys = {name: environ.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    if missing := [name for name, key in keys.items() if not key]:
        raise SettingsError(f"DARKROOM_STORE=s3://{bucket} needs {' and '.join(missing)}, as `fly storage create` sets them.")
    configured = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    if configured and _ENDPOINT.fullmatch(configured) is None:
        raise SettingsError(
            f"AWS_ENDPOINT_URL_S3={configured!r}: expected http:// or https:// and a host, such as https://fly.storage.tigris.dev."
        )
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or ("auto" if configured else "us-east-1")
    endpoint = configured or f"https://s3.{region}.amazonaws.com"
    return S3Store(
        bucket,
        endpoint=endpoint,
        region=region,
        access_key_id=keys["AWS_ACCESS_KEY_ID"],
        secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        virtual_hosted_style_request=False,
        conditional_put="etag",
        client_options={
            "timeout": _TRANSFER_TIMEOUT,
            "read_timeout": silence_timeout,
            "connect_timeout": _CONNECT_TIMEOUT,
            "allow_http": endpoint.startswith("http://"),
            "default_headers": dict(fields or {}),
        },
        retry_config={
            "max_retries": 2,
            "retry_timeout": _RETRY_TIMEOUT,
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(milliseconds=200), "base": 2},
        },
    )


@asynccontextmanager
async def _failures(doing: str) -> AsyncIterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        log.warning("the store failed", doing=doing, cause=str(error).splitlines()[0])
        if any(sign in str(error) for sign in _FULL):
            raise StorageFullError(
                "The store has no room for this.", remedy="Free room in the store, then send it again; nothing of it was kept."
            ) from error
        raise StorageUnavailableError(
            "The store does not answer as it should.", remedy="Try again in a few seconds.", retry_after_seconds=5
        ) from error


def _make_folder(path: Path) -> None:
    """Make a folder and those above it, each synced where it is listed, so that what is stored in it cannot vanish with it."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync_one(path.parent)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _names_on_disk(folder: Path, after: str, limit: int) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            # Not what obstore is writing.
            return heapq.nsmallest(limit, (entry.name for entry in entries if entry.name > after and "#" not in entry.name))
    except FileNotFoundError:
        return []


def _remove_leftovers(root: Path) -> int:
    leftovers = [path for path in root.rglob("*#*") if path.is_file() and path.name.rpartition("#")[2].isdigit()]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)
