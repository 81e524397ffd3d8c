"""Access to a store for commands that walk through all of it: an outage of a minute is waited out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.concurrency.retrying import retry
from service.errors import StorageUnavailableError
from service.storage.object_store import ObjectInfo, Storage

T = TypeVar("T")

# No client waits for a response: the store may be unavailable for about a minute.
_PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


async def retry_unavailable(function: Callable[[], Awaitable[T]]) -> T:
    """Return what `function` returns, retried for a minute while the store is unavailable; then raises `StorageUnavailableError`."""
    return await retry(
        function, pauses=_PAUSES_SECONDS, retry_after=lambda error: 0.0 if isinstance(error, StorageUnavailableError) else None
    )


async def list_all(storage: Storage, folder: str) -> list[ObjectInfo]:
    """Return every object in a folder of a store, retried in the same way."""

    async def list_once() -> list[ObjectInfo]:
        return [entry async for entry in storage.list_objects(folder)]

    return await retry_unavailable(list_once)
