"""The room on disk that renditions and intermediates may take: beyond it, those that were not read for longest go."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import structlog

from service.storage.disk import on_disk_bytes
from service.storage.keys import DERIVED_PREFIXES
from service.storage.object_store import Storage

log = structlog.get_logger(__name__)

# How often it is seen how much has been written, in seconds: by what is written in between the budget may be exceeded.
LOOK_EVERY_SECONDS = 2.0

# How often all files are counted anew, in seconds: a takedown, or somebody else, may have removed some.
COUNT_EVERY_SECONDS = 3_600.0

# What is left of the budget's room after a trim, so that the next one is not due at once.
_LEFT = 0.9


class _File(msgspec.Struct, frozen=True, order=True):
    """A file that can be made again: when it was last read, to the hour, in Unix nanoseconds, and what it takes on disk."""

    used: int
    bytes: int
    path: str


class DerivedQuota:
    """What keeps `renditions/` and `intermediates/` within a number of bytes. Nothing else of the store is ever touched."""

    def __init__(self, storage: Storage, most_bytes: int) -> None:
        """Take a store on disk, and what the two folders may take: whole blocks, as `du` counts."""
        self._storage = storage
        storage.track_access = True
        self._most_bytes = most_bytes

    async def watch(self) -> None:
        """Trim whenever the budget is exceeded, for as long as this process serves."""
        while True:
            written = self._storage.derived_bytes_written
            try:
                left = await anyio.to_thread.run_sync(self.trim)
            except OSError as error:
                log.warning("renditions could not be counted", cause=str(error))
                left = 0
            until = time.monotonic() + COUNT_EVERY_SECONDS
            while left + self._storage.derived_bytes_written - written <= self._most_bytes and time.monotonic() < until:  # noqa: ASYNC110 - no event
                await anyio.sleep(LOOK_EVERY_SECONDS)

    def trim(self) -> int:
        """Return what the files take on disk, in bytes, after the least recently read have been removed if they took too much.

        A file is read whole before it is answered with, and its name may go meanwhile. What obstore is still writing has another name.
        """
        root = self._storage.root
        if root is None:
            return 0
        files = [file for folder in DERIVED_PREFIXES for file in _files(root / folder)]
        taken = before = sum(file.bytes for file in files)
        if taken <= self._most_bytes:
            return taken
        files.sort()
        removed = 0
        for file in files:
            if taken <= self._most_bytes * _LEFT:
                break
            _remove(Path(file.path), root)
            taken -= file.bytes
            removed += 1
        log.info("renditions were removed to stay within the budget", files=removed, bytes=before - taken, left=taken)
        return taken


def _files(folder: Path) -> Iterator[_File]:
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            elif entry.is_file(follow_symlinks=False) and "#" not in entry.name:
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield _File(found.st_mtime_ns, on_disk_bytes(found.st_size), entry.path)


def _remove(path: Path, root: Path) -> None:
    """Remove a file, and its folder if it was the last in it."""
    path.unlink(missing_ok=True)
    if path.parent.parent != root:
        try:
            path.parent.rmdir()
        except OSError:
            # Something is in it, or being written to it.
            return
