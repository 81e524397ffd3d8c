"""Access to a store for commands that walk through all of it: an outage of a minute does not end them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import ParamSpec, TypeVar

from service.concurrency.retrying import retry
from service.errors import StorageUnavailableError
from service.storage.object_store import ObjectInfo, Storage

P = ParamSpec("P")
T = TypeVar("T")

# No client waits for a response, so the store may be unavailable for about a minute.
_PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


async def retry_unavailable(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return the result of a call, retried while the store is unavailable; after a minute, raises `StorageUnavailableError`."""
    return await retry(
        partial(function, *args, **kwargs),
        pauses=_PAUSES_SECONDS,
        retry_after=lambda error: 0.0 if isinstance(error, StorageUnavailableError) else None,
    )


async def list_all(storage: Storage, prefix: str) -> list[ObjectInfo]:
    """Return every object under a prefix, retried in the same way."""

    async def list_once() -> list[ObjectInfo]:
        return [info async for info in storage.list_objects(prefix)]

    return await retry_unavailable(list_once)
