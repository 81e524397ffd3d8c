"""Bounded concurrency: many items, a limited number at a time."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from service.concurrency.for_each import for_each
from service.errors import StorageUnavailableError

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("items", "concurrency"), [(0, 4), (1, 4), (4, 4), (100, 7), (10, 1)])
async def test_each_item_is_processed_once_with_bounded_concurrency(items: int, concurrency: int) -> None:
    done: list[int] = []
    running = most = 0

    async def work(item: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.lowlevel.checkpoint()
        running -= 1
        done.append(item)

    await for_each(range(items), work, concurrency=concurrency)
    assert sorted(done) == list(range(items))
    assert most == min(items, concurrency)


async def test_first_error_cancels_the_rest_and_is_raised_unwrapped() -> None:
    done: list[int] = []

    async def work(item: int) -> None:
        await anyio.lowlevel.checkpoint()
        if item == 5:
            raise StorageUnavailableError("away")
        done.append(item)

    with pytest.raises(StorageUnavailableError, match="away"):
        await for_each(range(1_000), work, concurrency=4)
    assert len(done) < 12
