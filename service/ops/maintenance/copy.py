"""Copies the objects of one store to another: each is verified and written as a whole, and an interrupted copy can be resumed."""

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
    RECENT_PREFIX,
    SOURCE_MAPPINGS_PREFIX,
    TOMBSTONES_PREFIX,
    USED_UPLOADS_PREFIX,
    WARMING_PREFIX,
    digest_in,
    document_key,
    original_key,
)
from service.storage.object_store import ObjectInfo, Storage

# Objects that are replaced in place: the later version wins. All others are named after their contents, or never change.
_MUTABLE_PREFIXES = frozenset({DOCUMENTS_PREFIX, SOURCE_MAPPINGS_PREFIX})

Failure: TypeAlias = Literal["damaged", "no-original"]


class NotCopied(msgspec.Struct, frozen=True):
    """An object that was not copied, and why."""

    key: str
    reason: Failure


class CopyReport(msgspec.Struct, frozen=True):
    """The result of a copy.

    `copied`: how many objects were copied, by prefix. `bytes`: their size.
    `there_already`: how many objects the destination already had.
    `removed`: how many objects were removed from the destination because their image was taken down in the source.
    `not_copied`: the objects that could not be copied.
    """

    copied: dict[str, int]
    bytes: int
    there_already: int
    removed: int
    not_copied: list[NotCopied]


class Copier:
    """One copy from a source to a destination. If it is killed, the destination has only whole objects, and the next copy adds the rest."""

    def __init__(self, source: Storage, destination: Storage, progress: Progress, *, renditions: bool, concurrency: int) -> None:
        """Prepare a copy.

        `source`, `destination`: the stores. Nothing in the source is changed.
        `progress`: receives a step for each prefix.
        `renditions`: whether to copy renditions and intermediates, which can be made again from the originals.
        `concurrency`: how many objects are copied at a time, each of them in memory as a whole.
        """
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
        """Copy, and return the result; raises `StorageUnavailableError` and `StorageFullError`.

        Tombstones are copied first, so that no image is copied that was taken down; originals are copied before documents, so that the
        destination never has a document without its original.
        """
        await self._source.ping(writable=False)
        await self._destination.ping()
        existing = await _by_key(self._destination, TOMBSTONES_PREFIX)
        tombstones = await _by_key(self._source, TOMBSTONES_PREFIX)
        restored = await self._repeat_takedowns([key for key in tombstones if key not in existing])
        current = {key: info for key, info in tombstones.items() if digest_in(key) not in restored}
        await self._copy_all(TOMBSTONES_PREFIX, current, existing)
        taken_down = {digest_in(key) for key in (*tombstones, *existing)}
        derived = DERIVED_PREFIXES if self._renditions else ()
        for prefix in (
            ORIGINALS_PREFIX,
            DOCUMENTS_PREFIX,
            RECENT_PREFIX,
            SOURCE_MAPPINGS_PREFIX,
            WARMING_PREFIX,
            USED_UPLOADS_PREFIX,
            *derived,
        ):
            objects = await _by_key(self._source, prefix)
            wanted = {key: info for key, info in objects.items() if prefix == SOURCE_MAPPINGS_PREFIX or digest_in(key) not in taken_down}
            await self._copy_all(prefix, wanted, await _by_key(self._destination, prefix))
        not_copied = sorted(self._not_copied, key=lambda one: one.key)
        return CopyReport(dict(self._copied), self._bytes, self._there_already, self._removed, not_copied)

    async def _repeat_takedowns(self, tombstones: list[str]) -> set[str]:
        """Remove from the destination the images of `tombstones`, which were taken down in the source since the last copy.

        Returns the digests of images that were uploaded to the destination after their takedown: they stay.
        """
        restored: set[str] = set()

        async def repeat(key: str) -> None:
            digest = digest_in(key)
            tombstone = await retry_unavailable(self._source.get_from_any_region, key)
            body = await retry_unavailable(self._destination.get_from_any_region, document_key(digest))
            if tombstone is None:
                return
            document = None if body is None else opened_document(digest, body)
            if document is not None and datetime.fromisoformat(document.created) > _time_of_takedown(tombstone):
                restored.add(digest)
                return
            for image_key in await retry_unavailable(ImageStore(self._destination).keys_in_order_of_removal, digest):
                if await retry_unavailable(self._destination.exists, image_key, consistent=True):
                    await retry_unavailable(self._destination.delete, image_key)
                    self._removed += 1

        await for_each(tombstones, repeat, concurrency=self._concurrency)
        return restored

    async def _copy_all(self, prefix: str, objects: dict[str, ObjectInfo], existing: dict[str, ObjectInfo]) -> None:
        self._progress.begin(prefix, len(objects), sum(info.bytes for info in objects.values()))

        async def copy(info: ObjectInfo) -> None:
            present = existing.get(info.key)
            if present is not None and _is_up_to_date(prefix, info, present):
                self._there_already += 1
            else:
                await self._copy(prefix, info.key, replace=present is not None)
            self._progress.advance(info.bytes)

        await for_each(objects.values(), copy, concurrency=self._concurrency)

    async def _copy(self, prefix: str, key: str, *, replace: bool) -> None:
        body = await retry_unavailable(self._source.get_from_any_region, key)
        if body is None:
            # It was removed since it was listed: by a takedown, by a quota, or because its image has been warmed.
            return
        if not await anyio.to_thread.run_sync(_is_intact, prefix, key, body):
            self._not_copied.append(NotCopied(key, "damaged"))
            return
        if prefix == DOCUMENTS_PREFIX:
            original = original_key(digest_in(key))
            if not await retry_unavailable(self._destination.exists, original, consistent=True):
                self._not_copied.append(NotCopied(key, "no-original"))
                return
        if replace:
            is_copied = await self._replace(prefix, key, body)
        else:
            is_copied = await retry_unavailable(self._destination.put_if_absent, key, body, durable=True)
        if is_copied:
            self._copied[prefix] += 1
            self._bytes += len(body)
        else:
            self._there_already += 1

    async def _replace(self, prefix: str, key: str, body: bytes) -> bool:
        """Replace an object of the destination unless it is as good; return whether it was replaced."""
        stored = await retry_unavailable(self._destination.get, key, consistent=True)
        if stored == body or (stored is not None and prefix not in _MUTABLE_PREFIXES and _is_intact(prefix, key, stored)):
            return False
        await retry_unavailable(self._destination.put, key, body, durable=True)
        return True


async def _by_key(storage: Storage, prefix: str) -> dict[str, ObjectInfo]:
    return {info.key: info for info in await list_all(storage, prefix)}


def _is_up_to_date(prefix: str, source: ObjectInfo, destination: ObjectInfo) -> bool:
    """Return whether the destination's object equals the source's, or is a later version, judged by their listings.

    A mutable object is up to date if it was written later than the source's. Any other was verified when it was written, so the same key
    and size suffice.
    """
    if prefix in _MUTABLE_PREFIXES:
        return destination.modified > source.modified
    return destination.bytes == source.bytes or prefix == TOMBSTONES_PREFIX


def _is_intact(prefix: str, key: str, body: bytes) -> bool:
    """Return whether an object's bytes match its key or its checksum."""
    if prefix == ORIGINALS_PREFIX:
        return is_digest(digest_in(key)) and digest_from_sha256(hashlib.sha256(body).digest()) == digest_in(key)
    if prefix == DOCUMENTS_PREFIX:
        return opened_document(digest_in(key), body) is not None
    return prefix not in DERIVED_PREFIXES or checksum.verify(body) is not None


def _time_of_takedown(tombstone: bytes) -> datetime:
    return datetime.fromisoformat(msgspec.json.decode(tombstone, type=Tombstone).taken_down)
