"""Ingest: check an uploaded file, probe it, and store it with its document."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, datetime
from typing import TypeAlias

import msgspec
import structlog

from service.errors import DamagedDocumentError, EmptyBodyError
from service.images.document import Document
from service.images.info import ImageInfo, Limits
from service.library.documents import Documents
from service.library.image_store import ImageStore
from service.library.intermediates import Intermediates
from service.library.takedowns import Takedowns
from service.library.uploads import Upload, UploadSpool
from service.library.warming_queue import WarmingQueue
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

    async def ingest(self, upload: Upload, admit: Admission = lambda _: nullcontext()) -> IngestResult:
        """Return the document of an upload once original and document are stored durably.

        admit: decides after the probe whether the upload may be stored.

        Raises `EmptyBodyError`; `GoneError` if the image is taken down; `UnsupportedFormatError`, `BrokenImageError`,
        `TooManyPixelsError` and `TooComplexError` from the probe; `OverloadedError`; `StorageUnavailableError` and `StorageFullError`;
        and what `admit` does. Nothing is stored if the probe fails, or if `admit` raises.
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
        if (stored := await self._read_document(digest)) is not None:
            async with admit(stored.info), self._images.writing(digest) as writer:
                await writer.repair_original(upload.path)
            return IngestResult(stored, created=False)
        probed = await self._pool.run(Probe(str(upload.path), self._limits, digest=digest), Probed)
        created = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        document = Document(digest, probed.info, upload.bytes, created, probed.placeholder, warnings=probed.warnings)
        async with admit(probed.info), self._images.writing(digest) as writer:
            if not await writer.create_original(upload.path):
                await writer.repair_original(upload.path)
            if probed.intermediate is not None:
                await self._intermediates.store(writer, probed.intermediate)
            if self._warming is not None:
                # Before the document: a crash in between must not leave an image that is never warmed.
                await self._warming.enqueue(writer)
            await writer.create_listing_entry(created, durable=True)
            is_first = await writer.create_document(document)
        if self._warming is not None:
            self._warming.add(digest)
        if not is_first:
            # Another upload of the same bytes was faster: its document is the one that counts.
            faster = await self._documents.get(digest)
            if faster.created != created:
                await self._images.delete_listing_entry(digest, created)
            return IngestResult(faster, created=False)
        log.info("ingested", digest=digest, format=probed.info.format, bytes=upload.bytes)
        return IngestResult(document, created=True)

    async def _read_document(self, digest: str) -> Document | None:
        """Return the document if the image is stored; `None` if there is no readable one."""
        try:
            return await self._images.read_document(digest)
        except DamagedDocumentError:
            return None
