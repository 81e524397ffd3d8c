"""Many small pieces of work side by side, and for commands that go through a whole store each tried again with patience."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Protocol, TypeVar

import anyio

from service.errors import StorageUnavailableError
from service.storage.object_store import Entry, Storage

T = TypeVar("T")

# Nobody waits for an answer: a store may be away for a minute.
_PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class Progress(Protocol):
    """Who is told how far a command has come."""

    def begin(self, what: str, objects: int, size: int) -> None:
        """Take what comes next: so many objects with so many bytes in all."""

    def advance(self, size: int) -> None:
        """Take that one more object is done, of `size` bytes."""


async def for_each(items: Iterable[T], work: Callable[[T], Awaitable[None]], *, at_a_time: int) -> None:
    """Do `work` with every item, so many at a time; the first error ends it."""
    remaining = iter(items)
    try:
        async with anyio.create_task_group() as tasks:
            for _ in range(at_a_time):
                tasks.start_soon(_work_through, remaining, work)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Return what `ask` gives, asked again for a minute while the store is out of reach; then raises `StorageUnavailableError`."""
    for pause in _PAUSES_SECONDS:
        try:
            return await ask()
        except StorageUnavailableError:
            await anyio.sleep(pause)
    return await ask()


async def listed(storage: Storage, folder: str) -> list[Entry]:
    """Return all that lies in a folder of a store, asked for as patiently."""

    async def ask() -> list[Entry]:
        return [entry async for entry in storage.entries(folder)]

    return await patiently(ask)


async def _work_through(remaining: Iterator[T], work: Callable[[T], Awaitable[None]]) -> None:
    for item in remaining:
        await work(item)
