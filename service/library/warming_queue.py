"""The images whose ladder is still to be rendered: noted in the store, so that no stop and no crash forgets one."""

from __future__ import annotations

from collections import deque

import anyio
import structlog

from service.errors import StorageFullError, StorageUnavailableError
from service.storage.keys import WARMING_PREFIX, warming_key
from service.storage.object_store import Storage

log = structlog.get_logger(__name__)

# How many are remembered; those beyond are found in the store again.
_MOST_IN_MEMORY = 1_000


class WarmingQueue:
    """Newest first: what has just been uploaded is what somebody is about to look at, and a long import must not stand before it."""

    def __init__(self, storage: Storage) -> None:
        """Take where images are kept."""
        self._storage = storage
        self._digests: deque[str] = deque(maxlen=_MOST_IN_MEMORY)
        self._added = anyio.Event()
        # Until it has been looked at, the store may have any number.
        self._more_in_store = True

    async def enqueue(self, digest: str) -> None:
        """Put into the store that an image is to be warmed. That this fails is logged alone: its renditions are made when asked for."""
        try:
            await self._storage.put(warming_key(digest), b"", durable=False)
        except (StorageFullError, StorageUnavailableError) as error:
            log.warning("an image was not noted for warming", digest=digest, problem=error.slug)

    def add(self, digest: str) -> None:
        """Have an image be the next one."""
        if len(self._digests) == self._digests.maxlen:
            self._more_in_store = True
        self._digests.append(digest)
        self._added.set()

    async def next(self) -> str:
        """Return the newest image once there is one, out of the queue; raises `StorageUnavailableError` where the store must be asked."""
        while not self._digests:
            if self._more_in_store:
                noted = await self._storage.list_names_after(WARMING_PREFIX, "", _MOST_IN_MEMORY)
                self._more_in_store = len(noted) == _MOST_IN_MEMORY
                # What was added meanwhile stays the newest.
                self._digests.extendleft(name for name in noted if name not in self._digests)
            else:
                self._added = anyio.Event()
                await self._added.wait()
        return self._digests.pop()

    async def acknowledge(self, digest: str) -> None:
        """Remove what the store has noted of an image."""
        await self._storage.delete(warming_key(digest))
