"""Bounded concurrency: one function applied to many items, a limited number at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

import anyio

T = TypeVar("T")


async def for_each(items: Iterable[T], function: Callable[[T], Awaitable[None]], *, concurrency: int) -> None:
    """Call `function` with every item, at most `concurrency` calls at a time; the first error cancels the others and is raised."""
    remaining = iter(items)
    try:
        async with anyio.create_task_group() as tasks:
            for _ in range(concurrency):
                tasks.start_soon(_work_through, remaining, function)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _work_through(remaining: Iterator[T], function: Callable[[T], Awaitable[None]]) -> None:
    for item in remaining:
        await function(item)
