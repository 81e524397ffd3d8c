"""Documents in the store: read one, change one."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from service.errors import UnknownImageError
from service.images.digest import is_digest
from service.images.document import Document
from service.library.image_store import ImageStore
from service.library.takedowns import Takedowns


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

    async def get(self, digest: str) -> Document:
        """Return the document of an image; it may be an earlier version if another region has just changed it.

        Raises `UnknownImageError`, `GoneError`, `DamagedDocumentError` and `StorageUnavailableError`.
        """
        return await self._get(digest, consistent=False)

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
        document = await (self._images.read_document(digest, consistent=True) if consistent else self._images.find_document(digest))
        if document is None:
            await self._takedowns.raise_if_tombstoned([digest])
            raise UnknownImageError.for_digest(digest)
        return document
