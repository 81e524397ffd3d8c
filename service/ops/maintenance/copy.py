"""All that one store has, brought into another: whole objects or none, verified on the way, gone on with where it ended."""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import datetime
from typing import Literal, TypeAlias

import anyio.to_thread
import msgspec

from service.concurrency.for_each import for_each
from service.images.digest import digest_from_sha256, is_digest
from service.images.document import opened_document
from service.library.image_store import ImageStore
from service.library.takedowns import Tombstone
from service.ops.maintenance.progress import Progress
from service.ops.maintenance.retrying import list_all, retry_unavailable
from service.storage import checksum
from service.storage.keys import (
    DERIVED_PREFIXES,
    DOCUMENTS_PREFIX,
    ORIGINALS_PREFIX,
    PULL_MAPPINGS_PREFIX,
    RECENT_PREFIX,
    TOMBSTONES_PREFIX,
    WARMING_PREFIX,
    digest_in,
    document_key,
    original_key,
)
from service.storage.object_store import ObjectInfo, Storage

# What may change in place: there the later one counts.
_MUTABLE = frozenset({DOCUMENTS_PREFIX, PULL_MAPPINGS_PREFIX})

Failure: TypeAlias = Literal["damaged", "no-original"]


class NotCopied(msgspec.Struct, frozen=True):
    """An object that was left where it was, and why."""

    key: str
    reason: Failure


class CopyReport(msgspec.Struct, frozen=True):
    """How many objects were copied, by folder, were there already, or removed because they were taken down; and what was not copied."""

    copied: dict[str, int]
    bytes: int
    there_already: int
    removed: int
    not_copied: list[NotCopied]


class Copier:
    """One run from a source to a destination. Killed at any moment it leaves whole objects alone, and the next run brings the rest."""

    def __init__(self, source: Storage, destination: Storage, progress: Progress, *, renditions: bool, concurrency: int) -> None:
        """Take the two stores, who is told, whether to bring what can be made again, and how many objects are under way at a time."""
        self._source = source
        self._destination = destination
        self._progress = progress
        self._renditions = renditions
        self._concurrency = concurrency
        self._copied: Counter[str] = Counter()
        self._bytes = 0
        self._there_already = 0
        self._removed = 0
        self._not_copied: list[NotCopied] = []

    async def run(self) -> CopyReport:
        """Return what was done; raises `StorageUnavailableError` and `StorageFullError`.

        Tombstones come first, so that nothing that was taken down is brought; originals before documents, so that where a document is,
        the original is.
        """
        await self._source.ping(writable=False)
        await self._destination.ping()
        there = await _by_key(self._destination, TOMBSTONES_PREFIX)
        tombstones = await _by_key(self._source, TOMBSTONES_PREFIX)
        lifted = await self._take_down(tombstones, there)
        await self._bring(TOMBSTONES_PREFIX, {key: entry for key, entry in tombstones.items() if digest_in(key) not in lifted}, there)
        gone = {digest_in(key) for key in (*tombstones, *there)}
        for folder in (ORIGINALS_PREFIX, DOCUMENTS_PREFIX, RECENT_PREFIX, PULL_MAPPINGS_PREFIX, WARMING_PREFIX, *self._remade_folders()):
            entries = await _by_key(self._source, folder)
            staying = {key: entry for key, entry in entries.items() if folder == PULL_MAPPINGS_PREFIX or digest_in(key) not in gone}
            await self._bring(folder, staying, await _by_key(self._destination, folder))
        not_copied = sorted(self._not_copied, key=lambda one: one.key)
        return CopyReport(dict(self._copied), self._bytes, self._there_already, self._removed, not_copied)

    def _remade_folders(self) -> tuple[str, ...]:
        return DERIVED_PREFIXES if self._renditions else ()

    async def _take_down(self, tombstones: dict[str, ObjectInfo], there: dict[str, ObjectInfo]) -> set[str]:
        """Remove from the destination what was taken down in the source since the last run.

        Returns the digests of what the destination took in again after that: there the takedown has been lifted.
        """
        lifted: set[str] = set()

        async def one(key: str) -> None:
            digest = digest_in(key)
            body = await retry_unavailable(lambda: self._source.get_from_any_region(key))
            document = await retry_unavailable(lambda: self._destination.get_from_any_region(document_key(digest)))
            if body is None:
                return
            known = None if document is None else opened_document(digest, document)
            if known is not None and datetime.fromisoformat(known.created) > _taken_down(body):
                lifted.add(digest)
                return
            for left in await retry_unavailable(lambda: ImageStore(self._destination).keys_in_order_of_removal(digest)):
                if await retry_unavailable(lambda left=left: self._destination.exists(left, consistent=True)):  # type: ignore[misc]
                    await retry_unavailable(lambda left=left: self._destination.delete(left))  # type: ignore[misc]
                    self._removed += 1

        await for_each([key for key in tombstones if key not in there], one, concurrency=self._concurrency)
        return lifted

    async def _bring(self, folder: str, entries: dict[str, ObjectInfo], there: dict[str, ObjectInfo]) -> None:
        self._progress.begin(folder, len(entries), sum(entry.bytes for entry in entries.values()))

        async def one(entry: ObjectInfo) -> None:
            already = there.get(entry.key)
            if already is not None and _stays(folder, entry, already):
                self._there_already += 1
            else:
                await self._bring_one(folder, entry, already)
            self._progress.advance(entry.bytes)

        await for_each(entries.values(), one, concurrency=self._concurrency)

    async def _bring_one(self, folder: str, entry: ObjectInfo, already: ObjectInfo | None) -> None:
        key = entry.key
        body = await retry_unavailable(lambda: self._source.get_from_any_region(key))
        if body is None:
            # Taken down, trimmed or warmed since it was listed.
            return
        if not await anyio.to_thread.run_sync(_is_whole, folder, key, body):
            self._not_copied.append(NotCopied(key, "damaged"))
            return
        original = original_key(digest_in(key))
        if folder == DOCUMENTS_PREFIX and not await retry_unavailable(lambda: self._destination.exists(original, consistent=True)):
            self._not_copied.append(NotCopied(key, "no-original"))
            return
        if already is None:
            brought = await retry_unavailable(lambda: self._destination.put_if_absent(key, body, durable=True))
        else:
            brought = await self._bring_over(folder, key, body)
        if brought:
            self._copied[folder] += 1
            self._bytes += len(body)
        else:
            self._there_already += 1

    async def _bring_over(self, folder: str, key: str, body: bytes) -> bool:
        """Put an object in place of another; return whether it was another."""
        stored = await retry_unavailable(lambda: self._destination.get(key, consistent=True))
        if stored == body or (stored is not None and folder not in _MUTABLE and _is_whole(folder, key, stored)):
            return False
        await retry_unavailable(lambda: self._destination.put(key, body, durable=True))
        return True


async def _by_key(storage: Storage, folder: str) -> dict[str, ObjectInfo]:
    return {entry.key: entry for entry in await list_all(storage, folder)}


def _stays(folder: str, entry: ObjectInfo, already: ObjectInfo) -> bool:
    """Return whether an object of the destination is the one of the source, or a later one.

    What is named by its content is the same at the same size: it was verified when it was put there. What may change was put there, or
    changed there, after the source had it, unless the source has changed it since.
    """
    if folder in _MUTABLE:
        return already.modified > entry.modified
    return already.bytes == entry.bytes or folder == TOMBSTONES_PREFIX


def _is_whole(folder: str, key: str, body: bytes) -> bool:
    """Return whether the bytes are what their key says."""
    if folder == ORIGINALS_PREFIX:
        return is_digest(digest_in(key)) and digest_from_sha256(hashlib.sha256(body).digest()) == digest_in(key)
    if folder == DOCUMENTS_PREFIX:
        return opened_document(digest_in(key), body) is not None
    return folder not in DERIVED_PREFIXES or checksum.verify(body) is not None


def _taken_down(body: bytes) -> datetime:
    return datetime.fromisoformat(msgspec.json.decode(body, type=Tombstone).taken_down)
