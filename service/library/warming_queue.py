"""The images whose ladder is still to be rendered. Each is also noted in the store, so that no restart and no crash loses one.

The clients that uploaded the images take turns, as clients do in the queue for renders (`service.rendering.slot_queue`): the next image is
one of the client for whom fewest seconds were spent. So an upload of thousands of images delays the ladder of another client's image by one
image at most. Who uploaded the images that were noted before the start is not known; they count as one client's.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import anyio
import structlog

from service.errors import StorageFullError, StorageUnavailableError
from service.library.image_store import ImageStore, ImageWriter

log = structlog.get_logger(__name__)

# How many digests the queue holds in memory. The notes in the store lead to the others later.
_MAX_IN_MEMORY = 1_000


class WaitingImage(NamedTuple):
    """An image, and the client that uploaded it, `None` if that is not known."""

    digest: str
    client: str | None = None


class WarmingQueue:
    """A queue that returns the newest image of a client first: somebody is about to look at it, and a long import must not delay it."""

    def __init__(self, images: ImageStore) -> None:
        """Make an empty queue.

        images: where images that wait to be warmed are noted.
        """
        self._images = images
        # The digests of each client, and the seconds that were spent for it; only of clients with a digest.
        self._digests: dict[str | None, deque[str]] = {}
        self._seconds: dict[str | None, float] = {}
        self._count = 0
        self._added = anyio.Event()
        # At the start the store may have any number of notes.
        self._more_in_store = True

    @property
    def images_in_memory(self) -> int:
        """The number of images that wait, without those that only the store knows of. Any thread may read it."""
        return self._count

    def __repr__(self) -> str:
        return f"<WarmingQueue: {self._count} in memory{', more in the store' if self._more_in_store else ''}>"

    async def enqueue(self, writer: ImageWriter) -> None:
        """Note in the store that an image is to be warmed. A failure is only logged: the first requests will render the image."""
        try:
            await writer.put_warming_note()
        except (StorageFullError, StorageUnavailableError) as error:
            log.warning("an image was not noted for warming", digest=writer.digest, problem=error.slug)

    def add(self, image: WaitingImage) -> None:
        """Put an image at the front of its client's queue in memory."""
        self._of(image.client).append(image.digest)
        self._count += 1
        if self._count > _MAX_IN_MEMORY:
            # The oldest image of the client that has most comes back with the notes.
            longest = max(self._digests, key=lambda client: len(self._digests[client]))
            self._digests[longest].popleft()
            self._forget_if_empty(longest)
            self._count -= 1
            self._more_in_store = True
        self._added.set()

    async def next(self) -> WaitingImage:
        """Remove and return the newest image of the client whose turn it is, once there is one.

        Raises `StorageUnavailableError` if the notes cannot be listed.
        """
        while not self._digests:
            if self._more_in_store:
                noted = await self._images.warming_digests(_MAX_IN_MEMORY)
                self._more_in_store = len(noted) == _MAX_IN_MEMORY
                # Images that were added during the listing have their clients.
                known = {digest for digests in self._digests.values() for digest in digests}
                if new := [digest for digest in noted if digest not in known]:
                    # They stay newer than the noted ones.
                    self._of(None).extendleft(new)
                    self._count += len(new)
            else:
                self._added = anyio.Event()
                await self._added.wait()
        client = min(self._digests, key=self._seconds.__getitem__)
        digest = self._digests[client].pop()
        self._forget_if_empty(client)
        self._count -= 1
        return WaitingImage(digest, client)

    def charge(self, client: str | None, seconds: float) -> None:
        """Count the seconds that were spent for an image of a client."""
        if client in self._seconds:
            self._seconds[client] += seconds

    def _of(self, client: str | None) -> deque[str]:
        if client not in self._digests:
            # A client that had no image gets no credit for that time.
            self._seconds[client] = min(self._seconds.values(), default=0.0)
            self._digests[client] = deque()
        return self._digests[client]

    def _forget_if_empty(self, client: str | None) -> None:
        if not self._digests[client]:
            del self._digests[client], self._seconds[client]

    async def acknowledge(self, digest: str) -> None:
        """Remove the note of an image that has been warmed, or never can be; raises `StorageUnavailableError`."""
        await self._images.delete_warming_note(digest)
