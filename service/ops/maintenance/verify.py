"""What is wrong in a store, found by reading all of it: every digest, every seal, every document."""

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
from service.pull.sources import PullMapping
from service.storage import checksum
from service.storage.disk import orphaned_temp_files
from service.storage.keys import (
    DERIVED_PREFIXES,
    DOCUMENTS_PREFIX,
    ORIGINALS_PREFIX,
    PULL_MAPPINGS_PREFIX,
    RECENT_PREFIX,
    TOMBSTONES_PREFIX,
    WARMING_PREFIX,
    digest_in,
    original_key,
    pull_mapping_key,
)
from service.storage.object_store import ObjectInfo, Storage

FindingKind: TypeAlias = Literal[
    "damaged-original", "missing-original", "damaged-document", "missing-document", "taken-down-remains",
    "damaged-rendition", "stray", "damaged-pointer", "leftover", "unknown-object",
]  # fmt: skip

_REMEDIES: Mapping[FindingKind, str] = {
    "damaged-original": "Upload the file again (POST /v1/images puts it in place of what is damaged), or bring it from another store with "
    "`darkroom store copy`.",
    "missing-original": "Upload the file again (POST /v1/images), or take the image down (DELETE /v1/images/{digest}).",
    "damaged-document": "Upload the file again (POST /v1/images makes the document anew).",
    "missing-document": "Nobody was told that this was stored: upload the file again to have it, or remove the object.",
    "taken-down-remains": "`darkroom store sweep` ends the takedown.",
    "damaged-rendition": "Nothing: it is made again from the original when it is asked for.",
    "stray": "`darkroom store sweep` removes it.",
    "damaged-pointer": "Nothing: the source is asked again when the address is.",
    "leftover": "`darkroom store sweep` removes it.",
    "unknown-object": "Darkroom did not put it there: remove it, or leave it.",
}

# What is younger may belong to an upload that is still under way.
SETTLED_AFTER = timedelta(minutes=10)


_Look: TypeAlias = Callable[[ObjectInfo, bytes], Awaitable[None]]


class Finding(msgspec.Struct, frozen=True):
    """One thing that is not as it should be: what, where, and what to do."""

    kind: FindingKind
    key: str
    detail: str
    remedy: str


class VerifyReport(msgspec.Struct, frozen=True):
    """What was looked at, objects by their folder and bytes in all, and what was found."""

    objects: dict[str, int]
    bytes: int
    findings: list[Finding]


class Verifier:
    """One walk through a store. It changes nothing, and may run beside a server."""

    def __init__(self, storage: Storage, progress: Progress, *, concurrency: int) -> None:
        """Take what is checked, who is told, and how many objects are read at a time."""
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
        """Return what was found; raises `StorageUnavailableError`."""
        await self._storage.ping(writable=False)
        # Originals before documents: one whose document is not listed has none.
        self._originals = await self._listed(ORIGINALS_PREFIX)
        self._documents = await self._listed(DOCUMENTS_PREFIX)
        self._tombstones = await self._listed(TOMBSTONES_PREFIX)
        await self._look(ORIGINALS_PREFIX, list(self._originals.values()), self._original)
        await self._look(DOCUMENTS_PREFIX, list(self._documents.values()), self._document)
        for folder in DERIVED_PREFIXES:
            await self._look(folder, await list_all(self._storage, folder), self._remade)
        await self._look(PULL_MAPPINGS_PREFIX, await list_all(self._storage, PULL_MAPPINGS_PREFIX), self._pointer)
        for folder in (WARMING_PREFIX, RECENT_PREFIX):
            for entry in await list_all(self._storage, folder):
                if digest_in(entry.key) not in self._documents and _settled(entry):
                    self._add("stray", entry.key, "The note is of an image that is not here.")
        for path in await anyio.to_thread.run_sync(orphaned_temp_files, self._storage.root, SETTLED_AFTER.total_seconds()):
            self._add("leftover", path, "A write that was killed left this.")
        return VerifyReport(dict(self._objects), self._bytes, sorted(self._findings, key=lambda finding: (finding.kind, finding.key)))

    async def _listed(self, folder: str) -> dict[str, ObjectInfo]:
        found = {}
        for entry in await list_all(self._storage, folder):
            if is_digest(_name(entry)):
                found[_name(entry)] = entry
            else:
                self._add("unknown-object", entry.key, "Its name is no digest.")
        return found

    async def _look(self, folder: str, entries: list[ObjectInfo], look: _Look) -> None:
        self._progress.begin(folder, len(entries), sum(entry.bytes for entry in entries))

        async def one(entry: ObjectInfo) -> None:
            body = await retry_unavailable(lambda: self._storage.get_from_any_region(entry.key))
            # What is gone by now was taken down, or trimmed, since it was listed.
            if body is not None:
                self._objects[folder] += 1
                self._bytes += len(body)
                await look(entry, body)
            self._progress.advance(entry.bytes)

        await for_each(entries, one, concurrency=self._concurrency)

    async def _original(self, entry: ObjectInfo, body: bytes) -> None:
        digest = _name(entry)
        if self._taken_down(entry, digest):
            return
        sha256 = await anyio.to_thread.run_sync(hashlib.sha256, body)
        if digest_from_sha256(sha256.digest()) != digest:
            self._add("damaged-original", entry.key, f"Its {len(body)} bytes have another digest.")
        elif digest not in self._documents and _settled(entry):
            self._add("missing-document", entry.key, "The original has no document.")

    async def _document(self, entry: ObjectInfo, body: bytes) -> None:
        digest = _name(entry)
        if self._taken_down(entry, digest):
            return
        document = opened_document(digest, body)
        if document is None:
            self._add("damaged-document", entry.key, "The document cannot be read, or is another image's.")
        elif not (
            digest in self._originals or await retry_unavailable(lambda: self._storage.exists(original_key(digest), consistent=True))
        ):
            self._add("missing-original", entry.key, "The document has no original.")

    async def _remade(self, entry: ObjectInfo, body: bytes) -> None:
        digest = digest_in(entry.key)
        if digest not in self._documents and _settled(entry):
            self._add("stray", entry.key, "It is of an image that is not here.")
        elif await anyio.to_thread.run_sync(checksum.verify, body) is None:
            self._add("damaged-rendition", entry.key, "Its seal does not fit its bytes.")

    async def _pointer(self, entry: ObjectInfo, body: bytes) -> None:
        try:
            pointer = msgspec.json.decode(body, type=PullMapping)
        except msgspec.DecodeError:
            pointer = None
        if pointer is None or pull_mapping_key(pointer.url) != entry.key:
            self._add("damaged-pointer", entry.key, "The pointer cannot be read, or is another source's.")

    def _taken_down(self, entry: ObjectInfo, digest: str) -> bool:
        tombstone = self._tombstones.get(digest)
        if tombstone is None or not _settled(tombstone):
            return tombstone is not None
        if entry.modified <= tombstone.modified:
            self._add("taken-down-remains", entry.key, "The image was taken down, and this is left of it.")
        return True

    def _add(self, kind: FindingKind, key: str, detail: str) -> None:
        self._findings.append(Finding(kind, key, detail, _REMEDIES[kind]))


def _name(entry: ObjectInfo) -> str:
    return entry.key.rpartition("/")[2]


def _settled(entry: ObjectInfo) -> bool:
    return datetime.now(UTC) - entry.modified > SETTLED_AFTER
