"""The memory for the files of renders that are not on this machine's disk: originals from a bucket, and intermediates.

Such a file is fetched before its render gets a slot, so that no slot waits for a bucket, and it stays in memory until the render has ended.
A queue of hundreds of renders must not hold hundreds of originals, so a render first reserves as many bytes as its files have. The bytes
that are released go to the client that holds fewest, and in the order of their coming to the renders of one client.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from service.concurrency.current_client import current_client

# For each slot: as much as the largest upload has by default, so that every slot has a file at hand. It is some dozen photos.
INPUT_BYTES_PER_SLOT = 64 << 20


class _Waiter:
    """A render that waits for its bytes."""

    def __init__(self, client: str | None, size: int) -> None:
        self.client = client
        self.size = size
        self.granted = anyio.Event()


class InputMemory:
    """The bytes that are reserved, and the renders that wait for some."""

    def __init__(self, max_bytes: int) -> None:
        """Start with nothing reserved.

        max_bytes: how many bytes may be reserved at a time. A render that needs more gets them while nothing else is reserved.
        """
        self._max_bytes = max_bytes
        self._held: Counter[str | None] = Counter()
        self._waiting: list[_Waiter] = []
        self.reserved_bytes = 0

    def __repr__(self) -> str:
        return f"<InputMemory: {self.reserved_bytes} of {self._max_bytes} bytes reserved, {len(self._waiting)} waiting>"

    @asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[None]:
        """Wait for so many bytes, and hold them within the block. 0 bytes are there at once."""
        if size == 0:
            yield
            return
        waiter = _Waiter(current_client.get(), size)
        self._waiting.append(waiter)
        self._grant()
        try:
            await waiter.granted.wait()
            yield
        finally:
            if waiter.granted.is_set():
                self._held[waiter.client] -= size
                self._held += Counter()
                self.reserved_bytes -= size
            else:
                self._waiting.remove(waiter)
            self._grant()

    def _grant(self) -> None:
        while self._waiting:
            # The first one of those whose clients hold fewest. It waits for its bytes rather than let smaller ones pass for ever.
            waiter = min(self._waiting, key=lambda waiter: self._held[waiter.client])
            if self.reserved_bytes and self.reserved_bytes + waiter.size > self._max_bytes:
                return
            self._waiting.remove(waiter)
            self._held[waiter.client] += waiter.size
            self.reserved_bytes += waiter.size
            waiter.granted.set()
