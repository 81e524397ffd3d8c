"""What is left over in a store, removed: by killed writes, by takedowns that did not end, by servers that are gone."""

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

# The key of a server that has not been seen for so long is noted no more.
_KEYS_KEPT = timedelta(days=30)


class GarbageCollector:
    """One walk through a store that removes leftovers. It may run beside servers: what is younger than an age is left alone.

    An original is never removed, and a document neither, unless a tombstone says that the image was taken down after they were written.
    """

    def __init__(self, storage: Storage, progress: Progress, *, older_than_seconds: float, concurrency: int) -> None:
        """Take what is swept, who is told, the age in seconds from which a thing is left over, and how much is done at a time."""
        self._storage = storage
        self._progress = progress
        self._older_than = timedelta(seconds=older_than_seconds)
        self._concurrency = concurrency
        self._removed: Counter[str] = Counter()

    async def run(self) -> dict[str, int]:
        """Return how many objects were removed, by what they were; raises `StorageUnavailableError`."""
        await self._storage.ping()
        if orphans := await self._storage.remove_orphaned_temp_files(self._older_than.total_seconds()):
            self._removed["killed-writes"] = orphans
        tombstones = {digest_in(entry.key): entry for entry in await list_all(self._storage, TOMBSTONES_PREFIX)}
        documents = await list_all(self._storage, DOCUMENTS_PREFIX)
        here = {digest_in(entry.key) for entry in documents}
        originals = await list_all(self._storage, ORIGINALS_PREFIX)
        remade = [entry for folder in DERIVED_PREFIXES for entry in await list_all(self._storage, folder)]
        notes = [entry for folder in (WARMING_PREFIX, RECENT_PREFIX) for entry in await list_all(self._storage, folder)]
        await self._remove("taken-down", [entry for entry in (*documents, *notes, *remade, *originals) if _remains(entry, tombstones)])
        unknown = [entry for entry in (*notes, *remade) if digest_in(entry.key) not in here and not _remains(entry, tombstones)]
        await self._remove("strays", [entry for entry in unknown if self._old(entry)])
        keys = await list_all(self._storage, SIGNING_KEYS_PREFIX)
        await self._remove("key-notes", [entry for entry in keys if datetime.now(UTC) - entry.modified > _KEYS_KEPT])
        return dict(self._removed)

    async def _remove(self, what: str, entries: list[ObjectInfo]) -> None:
        self._progress.begin(what, len(entries), sum(entry.bytes for entry in entries))

        async def one(entry: ObjectInfo) -> None:
            if await self._still_left_over(what, digest_in(entry.key)):
                await retry_unavailable(lambda: self._storage.delete(entry.key))
                self._removed[what] += 1
            self._progress.advance(entry.bytes)

        await for_each(entries, one, concurrency=self._concurrency)

    async def _still_left_over(self, what: str, digest: str) -> bool:
        """Return whether a thing is left over still: the takedown may have been lifted, or the image uploaded, since it was listed."""
        if what == "taken-down":
            return await retry_unavailable(lambda: self._storage.exists(tombstone_key(digest), consistent=True))
        if what == "strays":
            return not (is_digest(digest) and await retry_unavailable(lambda: self._storage.exists(document_key(digest), consistent=True)))
        return True

    def _old(self, entry: ObjectInfo) -> bool:
        return datetime.now(UTC) - entry.modified > self._older_than


def remove_abandoned_uploads(folder: Path, older_than_seconds: float) -> int:
    """Remove the uploads that an ended server has left in a spool, and return how many those were; a slow one is written to all along."""
    removed = 0
    oldest = datetime.now(UTC).timestamp() - older_than_seconds
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_file() and path.stat().st_mtime <= oldest:
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _remains(entry: ObjectInfo, tombstones: dict[str, ObjectInfo]) -> bool:
    """Return whether a thing was there when its image was taken down: nothing is stored of it later, unless that is lifted."""
    tombstone = tombstones.get(digest_in(entry.key))
    return tombstone is not None and entry.modified <= tombstone.modified
