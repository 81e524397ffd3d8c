"""Verifies a store by reading all of it: every digest, every checksum, every document."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

import anyio.to_thread
import msgspec

from service.concurrency.for_each import for_each
from service.images.digest import digest_from_sha256, is_digest
from service.images.document import opened_document
from service.ops.maintenance.progress import Progress
from service.ops.maintenance.retrying import list_all, retry_unavailable
from service.sources.sources import SourceMapping
from service.storage import checksum
from service.storage.disk import orphaned_temp_files
from service.storage.keys import (
    DERIVED_PREFIXES,
    DOCUMENTS_PREFIX,
    ORIGINALS_PREFIX,
    RECENT_PREFIX,
    SOURCE_MAPPINGS_PREFIX,
    TOMBSTONES_PREFIX,
    WARMING_PREFIX,
    digest_in,
    original_key,
    source_mapping_key,
)
from service.storage.object_store import ObjectInfo, Storage

FindingKind: TypeAlias = Literal[
    "damaged-original", "missing-original", "damaged-document", "missing-document", "taken-down-remains",
    "damaged-rendition", "stray", "damaged-source-mapping", "leftover", "unknown-object",
]  # fmt: skip

_REMEDIES: Mapping[FindingKind, str] = {
    "damaged-original": "Upload the file again (POST /v1/images replaces the damaged one), or copy it from another store with "
    "`darkroom store copy`.",
    "missing-original": "Upload the file again (POST /v1/images), or take the image down (DELETE /v1/images/{digest}).",
    "damaged-document": "Upload the file again (POST /v1/images creates a new document).",
    "missing-document": "The upload of this file was never confirmed. Upload it again, or remove the object.",
    "taken-down-remains": "`darkroom store sweep` completes the takedown.",
    "damaged-rendition": "None needed: it is made again from the original at the next request.",
    "stray": "`darkroom store sweep` removes it.",
    "damaged-source-mapping": "None needed: the source is fetched again at the next request for its URL.",
    "leftover": "`darkroom store sweep` removes it.",
    "unknown-object": "Darkroom did not create it. Remove it, or leave it.",
}

# A younger object may belong to an upload in progress.
SETTLED_AFTER = timedelta(minutes=10)

_Verify: TypeAlias = Callable[[ObjectInfo, bytes], Awaitable[None]]


class Finding(msgspec.Struct, frozen=True):
    """A fault in a store: its kind, the key of the object, and what to do about it."""

    kind: FindingKind
    key: str
    detail: str
    remedy: str


class VerifyReport(msgspec.Struct, frozen=True):
    """The result: how many objects were read, by prefix, their size in bytes, and the faults that were found."""

    objects: dict[str, int]
    bytes: int
    findings: list[Finding]


class Verifier:
    """One walk through a store that reads every object. It changes nothing, and may run beside servers."""

    def __init__(self, storage: Storage, progress: Progress, *, concurrency: int) -> None:
        """Prepare a walk.

        `storage`: the store.
        `progress`: receives a step for each prefix.
        `concurrency`: how many objects are read at a time, each of them in memory as a whole.
        """
        self._storage = storage
        self._progress = progress
        self._concurrency = concurrency
        self._objects: Counter[str] = Counter()
        self._bytes = 0
        self._findings: list[Finding] = []
        self._originals: dict[str, ObjectInfo] = {}
        self._documents: dict[str, ObjectInfo] = {}
        self._tombstones: dict[str, ObjectInfo] = {}

    async def run(self) -> VerifyReport:
        """Return the faults that were found; raises `StorageUnavailableError`."""
        await self._storage.ping(writable=False)
        # Originals before documents: an original whose document is not in the later listing has none.
        self._originals = await self._list_by_digest(ORIGINALS_PREFIX)
        self._documents = await self._list_by_digest(DOCUMENTS_PREFIX)
        self._tombstones = await self._list_by_digest(TOMBSTONES_PREFIX)
        await self._verify_all(ORIGINALS_PREFIX, list(self._originals.values()), self._verify_original)
        await self._verify_all(DOCUMENTS_PREFIX, list(self._documents.values()), self._verify_document)
        for prefix in DERIVED_PREFIXES:
            await self._verify_all(prefix, await list_all(self._storage, prefix), self._verify_derived)
        await self._verify_all(SOURCE_MAPPINGS_PREFIX, await list_all(self._storage, SOURCE_MAPPINGS_PREFIX), self._verify_source_mapping)
        for prefix in (WARMING_PREFIX, RECENT_PREFIX):
            for info in await list_all(self._storage, prefix):
                if digest_in(info.key) not in self._documents and _is_settled(info):
                    self._add("stray", info.key, "It belongs to an image that this store does not have.")
        for path in await anyio.to_thread.run_sync(orphaned_temp_files, self._storage.root, SETTLED_AFTER.total_seconds()):
            self._add("leftover", path, "A write that was killed has left this file.")
        return VerifyReport(dict(self._objects), self._bytes, sorted(self._findings, key=lambda finding: (finding.kind, finding.key)))

    async def _list_by_digest(self, prefix: str) -> dict[str, ObjectInfo]:
        found = {}
        for info in await list_all(self._storage, prefix):
            if is_digest(_name(info)):
                found[_name(info)] = info
            else:
                self._add("unknown-object", info.key, "Its name is not a digest.")
        return found

    async def _verify_all(self, prefix: str, objects: list[ObjectInfo], verify: _Verify) -> None:
        self._progress.begin(prefix, len(objects), sum(info.bytes for info in objects))

        async def read_and_verify(info: ObjectInfo) -> None:
            body = await retry_unavailable(self._storage.get_from_any_region, info.key)
            # If it is gone, a takedown or a quota has removed it since it was listed.
            if body is not None:
                self._objects[prefix] += 1
                self._bytes += len(body)
                await verify(info, body)
            self._progress.advance(info.bytes)

        await for_each(objects, read_and_verify, concurrency=self._concurrency)

    async def _verify_original(self, info: ObjectInfo, body: bytes) -> None:
        digest = _name(info)
        if self._is_taken_down(info, digest):
            return
        sha256 = await anyio.to_thread.run_sync(hashlib.sha256, body)
        if digest_from_sha256(sha256.digest()) != digest:
            self._add("damaged-original", info.key, f"Its {len(body)} bytes have another digest.")
        elif digest not in self._documents and _is_settled(info):
            self._add("missing-document", info.key, "The original has no document.")

    async def _verify_document(self, info: ObjectInfo, body: bytes) -> None:
        digest = _name(info)
        if self._is_taken_down(info, digest):
            return
        if opened_document(digest, body) is None:
            self._add("damaged-document", info.key, "The document cannot be read, or belongs to another image.")
        elif digest in self._originals:
            return
        elif not await retry_unavailable(self._storage.exists, original_key(digest), consistent=True):
            self._add("missing-original", info.key, "The document has no original.")

    async def _verify_derived(self, info: ObjectInfo, body: bytes) -> None:
        digest = digest_in(info.key)
        if digest not in self._documents and _is_settled(info):
            self._add("stray", info.key, "It belongs to an image that this store does not have.")
        elif await anyio.to_thread.run_sync(checksum.verify, body) is None:
            self._add("damaged-rendition", info.key, "Its checksum does not match its bytes.")

    async def _verify_source_mapping(self, info: ObjectInfo, body: bytes) -> None:
        try:
            mapping = msgspec.json.decode(body, type=SourceMapping)
        except msgspec.DecodeError:
            mapping = None
        if mapping is None or source_mapping_key(mapping.source, mapping.url) != info.key:
            self._add("damaged-source-mapping", info.key, "The source mapping cannot be read, or belongs to another object.")

    def _is_taken_down(self, info: ObjectInfo, digest: str) -> bool:
        """Return whether the image of an object is taken down, and report the object if the takedown should have removed it."""
        tombstone = self._tombstones.get(digest)
        if tombstone is None or not _is_settled(tombstone):
            return tombstone is not None
        if info.modified <= tombstone.modified:
            self._add("taken-down-remains", info.key, "The image was taken down, but this object was not removed.")
        return True

    def _add(self, kind: FindingKind, key: str, detail: str) -> None:
        self._findings.append(Finding(kind, key, detail, _REMEDIES[kind]))


def _name(info: ObjectInfo) -> str:
    return info.key.rpartition("/")[2]


def _is_settled(info: ObjectInfo) -> bool:
    return datetime.now(UTC) - info.modified > SETTLED_AFTER
