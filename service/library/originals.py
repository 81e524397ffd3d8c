"""Ingest: bytes in, digest, probe, placeholder, stored."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import structlog

from service.errors import (
    DamagedDocumentError,
    EmptyBodyError,
    StorageFullError,
    UnknownImageError,
    body_too_large,
)
from service.images.digest import digest_from_sha256, is_digest
from service.images.document import Document, opened_document
from service.images.info import Limits
from service.library.intermediates import Intermediates
from service.library.takedowns import Takedowns
from service.library.warming_queue import WarmingQueue
from service.rendering.pool import RenderPool
from service.rendering.protocol import Probe, Probed
from service.storage.keys import document_key, intermediate_key, original_key, recent_key, warming_key
from service.storage.object_store import Storage

log = structlog.get_logger(__name__)

# What is written to the spool at a time: a thread's hop costs as much as writing this.
_WRITE_BYTES = 1 << 20

_ENOSPC_NUMBERS = frozenset({28, 122})


class IngestResult(msgspec.Struct, frozen=True):
    """An image that is stored, and whether it was not before."""

    document: Document
    created: bool


class Upload:
    """An upload on its way in: a file of the spool, its size and the digest of its bytes so far."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.bytes = 0
        self._max_bytes = max_bytes
        self._sha256 = hashlib.sha256()
        self._file = path.open("wb", buffering=0)
        self._pending = bytearray()

    @property
    def digest(self) -> str:
        """The name that the bytes so far would have."""
        return digest_from_sha256(self._sha256.digest())

    async def write(self, chunk: bytes) -> None:
        """Add bytes; raises `TooLargeError` and `StorageFullError`."""
        self.bytes += len(chunk)
        if self.bytes > self._max_bytes:
            raise body_too_large(self._max_bytes, f"more than {self._max_bytes} bytes")
        self._sha256.update(chunk)
        self._pending += chunk
        if len(self._pending) >= _WRITE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Have everything so far in the file."""
        pending, self._pending = self._pending, bytearray()
        try:
            await anyio.to_thread.run_sync(_write_all, self._file.fileno(), pending)
        except OSError as error:
            if error.errno in _ENOSPC_NUMBERS:
                raise StorageFullError(
                    "The spool has no room for this upload.", remedy="Free room on the server, then send it again."
                ) from error
            raise

    def close(self) -> None:
        """Close and remove the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class Originals:
    """The images that are here."""

    def __init__(
        self,
        storage: Storage,
        pool: RenderPool,
        intermediates: Intermediates,
        takedowns: Takedowns,
        *,
        warming: WarmingQueue | None,
        spool: Path,
        limits: Limits,
        max_upload_bytes: int,
    ) -> None:
        """Take where images are kept, what probes them, where intermediates go, what is taken down, what is warmed, the uploads' folder."""
        self._storage = storage
        self._pool = pool
        self._intermediates = intermediates
        self._warming = warming
        self._takedowns = takedowns
        self._spool = spool
        self._limits = limits
        self._changing = anyio.Lock()
        self.max_upload_bytes = max_upload_bytes

    def clear_spool(self) -> None:
        """Make the spool, without what an ended process may have left there."""
        self._spool.mkdir(parents=True, exist_ok=True)
        for path in self._spool.iterdir():
            path.unlink()

    @asynccontextmanager
    async def spooled(self) -> AsyncIterator[Upload]:
        """Give a place for one upload, gone when it is done with."""
        descriptor, name = tempfile.mkstemp(dir=self._spool)
        os.close(descriptor)
        upload = Upload(Path(name), self.max_upload_bytes)
        try:
            yield upload
        finally:
            upload.close()

    async def ingest(self, upload: Upload) -> IngestResult:
        """Return the document of an upload once original and document are stored durably.

        Raises `EmptyBodyError`, `GoneError` for what has been taken down, and what a probe finds: `UnsupportedFormatError`,
        `BrokenImageError`, `TooManyPixelsError`; nothing is stored then.
        """
        if upload.bytes == 0:
            raise EmptyBodyError(
                "The upload has no bytes.",
                expected="the bytes of an image",
                received="an empty body",
                remedy="Send the file as the body; with curl: --data-binary @photo.jpg (the @ is needed).",
            )
        await upload.flush()
        digest = upload.digest
        await self._takedowns.raise_if_tombstoned([digest])
        if (known := await self._known(digest, upload)) is not None:
            return IngestResult(known, created=False)
        probed = await self._pool.run(Probe(str(upload.path), self._limits, digest=digest), Probed)
        created = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        document = Document(digest, probed.info, upload.bytes, created, probed.placeholder)
        if not await self._storage.put_if_absent(original_key(digest), upload.path, durable=True):
            await self._repair_original(digest, upload)
        if probed.intermediate is not None:
            await self._intermediates.store(digest, probed.intermediate)
        if self._warming is not None:
            # Before the document: nothing is forgotten by a crash in between.
            await self._warming.enqueue(digest)
        listed = recent_key(digest, created)
        await self._storage.put_if_absent(listed, b"", durable=True)
        is_first = await self._store_document(document)
        keys = (document_key(digest), listed, warming_key(digest), intermediate_key(digest), original_key(digest))
        await self._takedowns.require_after_writing([digest], *keys)
        if self._warming is not None:
            self._warming.add(digest)
        if not is_first:
            # Another upload of the same bytes was faster; its document is the one that counts.
            faster = await self.document(digest)
            if recent_key(digest, faster.created) != listed:
                await self._storage.delete(listed)
            return IngestResult(faster, created=False)
        log.info("ingested", digest=digest, format=probed.info.format, bytes=upload.bytes)
        return IngestResult(document, created=True)

    async def document(self, digest: str) -> Document:
        """Return the facts of an image; raises `UnknownImageError`, `GoneError` and `DamagedDocumentError`."""
        return await self._document(digest, consistent=False)

    async def _document(self, digest: str, *, consistent: bool) -> Document:
        self._takedowns.raise_if_taken_down([digest])
        body = None
        if is_digest(digest):
            key = document_key(digest)
            body = await (self._storage.get(key, consistent=True) if consistent else self._storage.get_from_any_region(key))
        if body is None:
            if is_digest(digest):
                await self._takedowns.raise_if_tombstoned([digest])
            raise UnknownImageError(
                "No image has this digest.",
                expected="a digest that an upload was answered with",
                received=digest,
                remedy="Upload the image with POST /v1/images.",
            )
        document = opened_document(digest, body)
        if document is None:
            raise DamagedDocumentError(
                "The stored document of this image is damaged.",
                expected="a document that names its image",
                received=digest,
                remedy="Upload the file again with POST /v1/images: that makes the document anew, without alternative text or focal point.",
            )
        return document

    async def change(self, digest: str, change: Callable[[Document], Document]) -> Document:
        """Return the facts of an image after `change`, stored durably: one change at a time, each of what the last one left.

        Raises `UnknownImageError`, and whatever `change` does.
        """
        async with self._changing:
            # Another region may have changed it a moment ago.
            changed = change(await self._document(digest, consistent=True))
            await self._storage.put(document_key(digest), msgspec.json.encode(changed), durable=True)
            await self._takedowns.require_after_writing([digest], document_key(digest))
            return changed

    async def _known(self, digest: str, upload: Upload) -> Document | None:
        body = await self._storage.get(document_key(digest))
        document = None if body is None else opened_document(digest, body)
        if document is None:
            return None
        await self._repair_original(digest, upload)
        await self._takedowns.require_after_writing([digest], original_key(digest))
        return document

    async def _store_document(self, document: Document) -> bool:
        """Store a document unless there is one; return whether it was stored. One that is damaged is no document."""
        key, body = document_key(document.digest), msgspec.json.encode(document)
        if await self._storage.put_if_absent(key, body, durable=True):
            return True
        stored = await self._storage.get_from_any_region(key)
        if stored is not None and opened_document(document.digest, stored) is not None:
            return False
        log.warning("a damaged document was replaced", digest=document.digest)
        await self._storage.put(key, body, durable=True)
        return True

    async def _repair_original(self, digest: str, upload: Upload) -> None:
        """Put the upload in place of a stored original that is missing or no longer what its name says."""
        stored = await self._storage.get(original_key(digest))
        if stored is not None:
            sha256 = await anyio.to_thread.run_sync(hashlib.sha256, stored)
            if digest_from_sha256(sha256.digest()) == digest:
                return
        log.warning("a damaged original was replaced", digest=digest, missing=stored is None)
        await self._storage.put(original_key(digest), upload.path, durable=True)


def _write_all(descriptor: int, data: bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
