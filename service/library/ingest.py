"""Ingest: check an uploaded file, probe it, and store it with its document."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec
import structlog

from service import instruments
from service.concurrency.current_client import current_client
from service.concurrency.together import together
from service.errors import DamagedDocumentError, EmptyBodyError, ServiceError
from service.images.document import Document
from service.images.info import ImageInfo, Limits
from service.images.name import name_of_file
from service.library.documents import Documents
from service.library.image_store import ImageStore, ImageWriter
from service.library.intermediates import Intermediates
from service.library.takedowns import Takedowns
from service.library.uploads import Upload, UploadSpool
from service.library.warming_queue import WaitingImage, WarmingQueue
from service.rendering.pool import RenderPool
from service.rendering.protocol import Probe, Probed

log = structlog.get_logger(__name__)

# Called with what an upload is. It raises if the upload is refused; the image is stored within the block of the result.
Admission: TypeAlias = Callable[[ImageInfo], AbstractAsyncContextManager[None]]


class IngestResult(msgspec.Struct, frozen=True):
    """The document of an image that is stored, and whether this upload created it."""

    document: Document
    created: bool


class Ingester:
    """Ingests uploads: each is probed and stored, together with its document."""

    def __init__(
        self,
        images: ImageStore,
        documents: Documents,
        pool: RenderPool,
        intermediates: Intermediates,
        takedowns: Takedowns,
        *,
        spool: UploadSpool,
        warming: WarmingQueue | None,
        limits: Limits,
    ) -> None:
        """Ingest into a store.

        images: where originals and documents are stored.
        documents: reads the document of an image that another upload has stored meanwhile.
        pool: probes uploads.
        intermediates: stores the intermediate that a probe makes of some originals.
        takedowns: the images that are taken down; their bytes are refused.
        spool: where uploads are written before they are ingested; a public attribute of this object.
        warming: the queue that new images are added to; `None` if no image is warmed.
        limits: the pixels and frames that an upload may have.
        """
        self._images = images
        self._documents = documents
        self._pool = pool
        self._intermediates = intermediates
        self._takedowns = takedowns
        self.spool = spool
        self._warming = warming
        self._limits = limits

    def raise_if_full(self) -> None:
        """Raise `OverloadedError` if any upload would be refused now: a client should not send megabytes to learn that."""
        self._pool.raise_if_full("uploads")

    async def ingest(self, upload: Upload, admit: Admission = lambda _: nullcontext(), *, file_name: str = "") -> IngestResult:
        """Return the document of an upload once original and document are stored durably.

        admit: decides after the probe whether the upload may be stored.
        file_name: of the upload, from which a new image gets its name. An image that is stored keeps the one that it has.

        Raises `EmptyBodyError`; `GoneError` if the image is taken down; `UnsupportedFormatError`, `BrokenImageError`,
        `TooManyPixelsError` and `TooComplexError` from the probe; `OverloadedError`; `StorageUnavailableError` and `StorageFullError`;
        and what `admit` does. Nothing is stored if the probe fails, or if `admit` raises.
        """
        try:
            result = await self._ingest(upload, admit, file_name)
        except ServiceError as error:
            instruments.UPLOADS.add("failed" if error.status_code >= 500 else "rejected")
            raise
        instruments.UPLOADS.add("created" if result.created else "known")
        instruments.UPLOAD_BYTES.add(amount=upload.bytes)
        return result

    async def _ingest(self, upload: Upload, admit: Admission, file_name: str) -> IngestResult:
        if upload.bytes == 0:
            raise EmptyBodyError(
                "The upload has no bytes.",
                expected="the bytes of an image",
                received="an empty body",
                remedy="Send the file as the body; with curl: --data-binary @photo.jpg (the @ is needed).",
            )
        await upload.flush()
        digest = upload.digest
        _, stored = await together(self._takedowns.raise_if_tombstoned([digest]), self._read_document(digest))
        if stored is not None:
            async with admit(stored.info), self._images.writing(digest) as writer:
                await writer.repair_original(upload.path)
            return IngestResult(stored, created=False)
        probed = await self._pool.run(Probe(str(upload.path), self._limits, digest=digest), Probed)
        created = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        name = name_of_file(file_name)
        document = Document(digest, probed.info, upload.bytes, created, probed.placeholder, warnings=probed.warnings, name=name)
        async with admit(probed.info), self._images.writing(digest) as writer:
            await self._store_before_document(writer, upload, created, probed.intermediate)
            is_first = await writer.create_document(document)
        if self._warming is not None:
            self._warming.add(WaitingImage(digest, current_client.get()))
        if not is_first:
            # Another upload of the same bytes was faster: its document is the one that counts.
            faster = await self._documents.get(digest)
            if faster.created != created:
                await self._images.delete_listing_entry(digest, created)
            return IngestResult(faster, created=False)
        self._documents.remember(document)
        log.info("ingested", digest=digest, format=probed.info.format, bytes=upload.bytes)
        return IngestResult(document, created=True)

    async def _store_before_document(self, writer: ImageWriter, upload: Upload, created: str, intermediate: bytes | None) -> None:
        """Store everything that must be there before the document is, in any order and therefore at the same time.

        A crash before the document is stored must not leave an image that is never listed, or never warmed.
        """
        calls: list[Coroutine[Any, Any, None]] = [
            writer.create_original(upload.path),
            writer.create_listing_entry(created, durable=True),
        ]
        if intermediate is not None:
            calls.append(self._intermediates.store(writer, intermediate))
        if self._warming is not None:
            calls.append(self._warming.enqueue(writer))
        try:
            await together(*calls)
        except ServiceError:
            # A full disk takes these empty objects, but not the original, at every attempt of a client.
            with suppress(ServiceError):
                await self._images.delete_listing_entry(writer.digest, created)
                await self._images.delete_warming_note(writer.digest)
            raise

    async def _read_document(self, digest: str) -> Document | None:
        """Return the document if the image is stored; `None` if there is no readable one."""
        try:
            return await self._images.read_document(digest)
        except DamagedDocumentError:
            return None
