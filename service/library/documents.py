"""Documents in the store: read one, change one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio

from service.concurrency.recent import Recent
from service.errors import RenderFailedError, UnknownImageError
from service.images.digest import is_digest
from service.images.document import Document, OriginalFacts
from service.library.image_store import ImageStore
from service.library.takedowns import Takedowns

# For how long the facts of an original are remembered, and of how many originals.
_FACTS_SECONDS = 3_600.0
_MAX_FACTS = 4_096


class Documents:
    """The documents of images that are not taken down."""

    def __init__(self, images: ImageStore, takedowns: Takedowns) -> None:
        """Read and write documents.

        images: where they are stored.
        takedowns: the images that are taken down, whose documents are not returned.
        """
        self._images = images
        self._takedowns = takedowns
        self._updating = anyio.Lock()
        self._facts: Recent[str, OriginalFacts] = Recent(_FACTS_SECONDS, _MAX_FACTS)

    async def get(self, digest: str) -> Document:
        """Return the document of an image; it may be an earlier version if another region has just changed it.

        Raises `UnknownImageError`, `GoneError`, `DamagedDocumentError` and `StorageUnavailableError`.
        """
        return await self._get(digest, consistent=False)

    async def facts(self, digest: str) -> OriginalFacts:
        """Return the facts of an original, from memory if its document was read or stored lately.

        If another process has taken the image down since, its original is missing, and `or_gone` says why. Raises the errors of `get`.
        """
        self._takedowns.raise_if_taken_down([digest])
        return self._facts.get(digest) or (await self.get(digest)).facts

    def remembered_facts(self, digest: str) -> OriginalFacts | None:
        """Return the facts of an original if they are in memory."""
        return self._facts.get(digest)

    def remember(self, document: Document) -> None:
        """Remember the facts of an original whose document is stored."""
        self._facts.add(document.digest, document.facts)

    @asynccontextmanager
    async def or_gone(self, digests: Sequence[str]) -> AsyncIterator[None]:
        """Raise the reason if a render fails because one of its images was taken down while it waited: their files are gone.

        digests: the images whose files the block reads.

        Raises `GoneError` in place of `UnknownImageError` and `RenderFailedError`.
        """
        try:
            yield
        except UnknownImageError:
            self._takedowns.raise_if_taken_down(digests)
            # Only for images that existed is anything read again: anyone can request images that never did.
            for digest in digests:
                if self._facts.get(digest) is not None:
                    await self.get(digest)
            raise
        except RenderFailedError:
            for digest in digests:
                await self.get(digest)
            raise

    async def update(self, digest: str, change: Callable[[Document], Document]) -> Document:
        """Store what `change` makes of an image's document, and return that. This process makes one change at a time.

        Raises what `get` raises, `StorageFullError`, and the errors of `change`.
        """
        async with self._updating:
            # Consistently: another region may have changed the document a moment ago.
            changed = change(await self._get(digest, consistent=True))
            async with self._images.writing(digest) as writer:
                await writer.put_document(changed)
            return changed

    async def _get(self, digest: str, *, consistent: bool) -> Document:
        self._takedowns.raise_if_taken_down([digest])
        if not is_digest(digest):
            raise UnknownImageError.for_digest(digest)
        # If the document is missing or damaged, that is to be found out again.
        self._facts.discard(digest)
        document = await (self._images.read_document(digest, consistent=True) if consistent else self._images.find_document(digest))
        if document is None:
            await self._takedowns.raise_if_tombstoned([digest])
            raise UnknownImageError.for_digest(digest)
        self.remember(document)
        return document
