"""Single flight: callers that want the same thing at the same time share one task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Runs at most one task per key at a time; every caller gets its result, or its error.

    The task belongs to no caller: a caller that is canceled stops waiting, and the task goes on for the others, or for nobody.
    Results are not cached: a call after the task has ended starts a new one.
    """

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[V]] = {}

    def __repr__(self) -> str:
        return f"<SingleFlight: {len(self._tasks)} in flight>"

    def __len__(self) -> int:
        """Return the number of tasks in flight."""
        return len(self._tasks)

    def __contains__(self, key: K) -> bool:
        """Return whether a task is in flight for `key`."""
        return key in self._tasks

    async def run(self, key: K, factory: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """Return the result of the task in flight for `key`, or of a new one that runs `factory()`; raises the task's error.

        Raises `asyncio.CancelledError` if `aclose` cancels the task.
        """
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(factory())
            task.add_done_callback(lambda done: self._forget(key, done))
        # Unlike `await task`, this does not cancel the task when the caller is canceled.
        await asyncio.wait([task])
        return task.result()

    async def wait(self, key: K) -> None:
        """Return when no task is in flight for `key`, whether it succeeded or failed."""
        while (task := self._tasks.get(key)) is not None:
            await asyncio.wait([task])
            # The callback that forgets the task runs in the next turn of the event loop.
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        """Cancel the tasks in flight, and return when they have ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, key: K, task: asyncio.Task[V]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            # Mark the error as retrieved: if every caller has left, asyncio would report it as never retrieved.
            task.exception()
