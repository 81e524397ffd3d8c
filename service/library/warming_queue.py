"""The images whose ladder is still to be rendered. Each is also noted in the store, so that no restart and no crash loses one."""

from __future__ import annotations

from collections import deque

import anyio
import structlog

from service.errors import StorageFullError, StorageUnavailableError
from service.library.image_store import ImageStore, ImageWriter

log = structlog.get_logger(__name__)

# How many digests the queue holds in memory. The notes in the store lead to the others later.
_MAX_IN_MEMORY = 1_000


class WarmingQueue:
    """A queue that returns the newest image first: somebody is about to look at it, and a long import must not delay it."""

    def __init__(self, images: ImageStore) -> None:
        """Make an empty queue.

        images: where images that wait to be warmed are noted.
        """
        self._images = images
        self._digests: deque[str] = deque(maxlen=_MAX_IN_MEMORY)
        self._added = anyio.Event()
        # At the start the store may have any number of notes.
        self._more_in_store = True

    def __repr__(self) -> str:
        return f"<WarmingQueue: {len(self._digests)} in memory{', more in the store' if self._more_in_store else ''}>"

    async def enqueue(self, writer: ImageWriter) -> None:
        """Note in the store that an image is to be warmed. A failure is only logged: the first requests will render the image."""
        try:
            await writer.put_warming_note()
        except (StorageFullError, StorageUnavailableError) as error:
            log.warning("an image was not noted for warming", digest=writer.digest, problem=error.slug)

    def add(self, digest: str) -> None:
        """Put an image at the front of the queue in memory."""
        if len(self._digests) == self._digests.maxlen:
            self._more_in_store = True
        self._digests.append(digest)
        self._added.set()

    async def next(self) -> str:
        """Remove and return the newest image, once there is one; raises `StorageUnavailableError` if the notes cannot be listed."""
        while not self._digests:
            if self._more_in_store:
                noted = await self._images.warming_digests(_MAX_IN_MEMORY)
                self._more_in_store = len(noted) == _MAX_IN_MEMORY
                # Images that were added during the listing stay the newest.
                self._digests.extendleft(digest for digest in noted if digest not in self._digests)
            else:
                self._added = anyio.Event()
                await self._added.wait()
        return self._digests.pop()

    async def acknowledge(self, digest: str) -> None:
        """Remove the note of an image that has been warmed, or never can be; raises `StorageUnavailableError`."""
        await self._images.delete_warming_note(digest)
