"""A quota for derived objects on disk: beyond it, the least recently read ones are removed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import anyio.to_thread
import msgspec
import structlog

from service.concurrency.polling import poll
from service.storage.disk import is_temp_file, remove_empty_folders, size_on_disk
from service.storage.keys import DERIVED_PREFIXES
from service.storage.object_store import Storage

log = structlog.get_logger(__name__)

# How often the bytes written are compared with the quota, in seconds: what is written in between may exceed it.
POLL_INTERVAL_SECONDS = 2.0

# How often all files are counted again, in seconds: a takedown, or somebody else, may have removed some.
COUNT_INTERVAL_SECONDS = 3_600.0

# A trim goes down to this fraction of the quota, so that the next one is not due at once.
_TRIM_TO = 0.9


class _File(msgspec.Struct, frozen=True, order=True):
    """A derived object's file: when it was last read, to the hour, in Unix nanoseconds, and its size on disk in bytes."""

    accessed: int
    bytes: int
    path: str


class DerivedQuota:
    """Keeps `renditions/` and `intermediates/` of a store on disk within a number of bytes. Nothing else in the store is touched."""

    def __init__(self, storage: Storage, max_bytes: int) -> None:
        """Limit a store.

        `storage`: the store; if it is not on disk, nothing is limited. From now on it records when derived objects are read.
        `max_bytes`: what the two folders may occupy, in whole blocks, as `du` counts.
        """
        self._storage = storage
        storage.track_access = True
        self._max_bytes = max_bytes
        self._size = 0
        self._written_at_count = 0
        self._count_at = float("-inf")

    def __repr__(self) -> str:
        return f"<DerivedQuota: {self._estimate()} of {self._max_bytes} bytes>"

    async def watch(self) -> None:
        """Trim the store whenever it exceeds the quota, for as long as this process serves."""
        await poll(self._trim_if_due, every=POLL_INTERVAL_SECONDS)

    def trim(self) -> int:
        """Remove the least recently read files if the quota is exceeded; return how many bytes the remaining ones occupy.

        A removed file harms no request: files are read as a whole before a response begins. Files that are being written are left alone.
        """
        root = self._storage.root
        if root is None:
            return 0
        files = [file for prefix in DERIVED_PREFIXES for file in _files(root / prefix)]
        size = before = sum(file.bytes for file in files)
        if size <= self._max_bytes:
            return size
        files.sort()
        removed = 0
        for file in files:
            if size <= self._max_bytes * _TRIM_TO:
                break
            path = Path(file.path)
            path.unlink(missing_ok=True)
            remove_empty_folders(path, root)
            size -= file.bytes
            removed += 1
        log.info("removed renditions to stay within the quota", files=removed, bytes=before - size, left=size)
        return size

    def _estimate(self) -> int:
        return self._size + self._storage.derived_bytes_written - self._written_at_count

    async def _trim_if_due(self) -> None:
        if self._estimate() <= self._max_bytes and time.monotonic() < self._count_at:
            return
        self._written_at_count = self._storage.derived_bytes_written
        try:
            self._size = await anyio.to_thread.run_sync(self.trim)
        except OSError as error:
            log.warning("renditions could not be counted", cause=str(error))
            self._size = 0
        self._count_at = time.monotonic() + COUNT_INTERVAL_SECONDS


def _files(directory: Path) -> Iterator[_File]:
    try:
        entries = os.scandir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            elif entry.is_file(follow_symlinks=False) and not is_temp_file(entry.name):
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield _File(found.st_mtime_ns, size_on_disk(found.st_size), entry.path)
