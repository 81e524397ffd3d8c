"""Removes garbage from a store: what killed writes, interrupted takedowns and servers that no longer exist have left."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from service.concurrency.for_each import for_each
from service.images.digest import is_digest
from service.ops.maintenance.progress import Progress
from service.ops.maintenance.retrying import list_all, retry_unavailable
from service.storage.keys import (
    DERIVED_PREFIXES,
    DOCUMENTS_PREFIX,
    ORIGINALS_PREFIX,
    RECENT_PREFIX,
    SIGNING_KEYS_PREFIX,
    TOMBSTONES_PREFIX,
    WARMING_PREFIX,
    digest_in,
    document_key,
    tombstone_key,
)
from service.storage.object_store import ObjectInfo, Storage

# The record of a signing key is removed if no server has renewed it for this long.
_SIGNING_KEY_RECORDS_EXPIRE_AFTER = timedelta(days=30)


class GarbageCollector:
    """One walk through a store that removes garbage. It may run beside servers, because it leaves young objects alone.

    It never removes an original or a document, unless a tombstone says that the image was taken down after they were written.
    """

    def __init__(self, storage: Storage, progress: Progress, *, older_than_seconds: float, concurrency: int) -> None:
        """Prepare a walk.

        `storage`: the store.
        `progress`: receives a step for each kind of garbage.
        `older_than_seconds`: the age from which an object may be garbage: longer than any upload takes.
        `concurrency`: how many objects are removed at a time.
        """
        self._storage = storage
        self._progress = progress
        self._older_than = timedelta(seconds=older_than_seconds)
        self._concurrency = concurrency
        self._removed: Counter[str] = Counter()

    async def run(self) -> dict[str, int]:
        """Return how many objects were removed, by kind of garbage; raises `StorageUnavailableError`."""
        await self._storage.ping()
        if orphans := await self._storage.remove_orphaned_temp_files(self._older_than.total_seconds()):
            self._removed["killed-writes"] = orphans
        tombstones = {digest_in(info.key): info for info in await list_all(self._storage, TOMBSTONES_PREFIX)}
        documents = await list_all(self._storage, DOCUMENTS_PREFIX)
        with_document = {digest_in(info.key) for info in documents}
        originals = await list_all(self._storage, ORIGINALS_PREFIX)
        others = [info for prefix in (WARMING_PREFIX, RECENT_PREFIX, *DERIVED_PREFIXES) for info in await list_all(self._storage, prefix)]
        # In the order of a takedown: the document first, the original last.
        taken_down = [info for info in (*documents, *others, *originals) if _is_taken_down(info, tombstones)]
        await self._remove("taken-down", taken_down)
        strays = [
            info
            for info in others
            if digest_in(info.key) not in with_document and not _is_taken_down(info, tombstones) and _age(info) > self._older_than
        ]
        await self._remove("strays", strays)
        records = await list_all(self._storage, SIGNING_KEYS_PREFIX)
        await self._remove("key-notes", [info for info in records if _age(info) > _SIGNING_KEY_RECORDS_EXPIRE_AFTER])
        return dict(self._removed)

    async def _remove(self, kind: str, objects: list[ObjectInfo]) -> None:
        self._progress.begin(kind, len(objects), sum(info.bytes for info in objects))

        async def remove(info: ObjectInfo) -> None:
            if await self._is_still_garbage(kind, digest_in(info.key)):
                await retry_unavailable(self._storage.delete, info.key)
                self._removed[kind] += 1
            self._progress.advance(info.bytes)

        await for_each(objects, remove, concurrency=self._concurrency)

    async def _is_still_garbage(self, kind: str, digest: str) -> bool:
        """Look again before removing: since the listing, the tombstone may have been deleted, or the image uploaded."""
        if kind == "taken-down":
            return await retry_unavailable(self._storage.exists, tombstone_key(digest), consistent=True)
        if kind == "strays":
            return not (is_digest(digest) and await retry_unavailable(self._storage.exists, document_key(digest), consistent=True))
        return True


def remove_abandoned_uploads(spool: Path, older_than_seconds: float) -> int:
    """Remove the uploads that a killed server has left in its spool, and return their number. An upload in progress is never that old."""
    removed = 0
    oldest = datetime.now(UTC).timestamp() - older_than_seconds
    for path in spool.iterdir() if spool.is_dir() else ():
        if path.is_file() and path.stat().st_mtime <= oldest:
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _is_taken_down(info: ObjectInfo, tombstones: dict[str, ObjectInfo]) -> bool:
    """Return whether an object was written before its image was taken down. Later ones belong to an upload after the takedown."""
    tombstone = tombstones.get(digest_in(info.key))
    return tombstone is not None and info.modified <= tombstone.modified


def _age(info: ObjectInfo) -> timedelta:
    return datetime.now(UTC) - info.modified
