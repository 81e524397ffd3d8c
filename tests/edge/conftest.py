"""Fixtures of the edge's tests."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.edge.asgi import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """Give a clock that stands still until the test moves it."""
    return ManualClock()


@pytest.fixture
async def nothing_left_behind() -> AsyncIterator[None]:
    """Fail if a task outlives the test, or if asyncio has an error to report that nobody retrieved."""
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    # What was there before the test is not searched for garbage after it: that would take far longer than the test.
    gc.freeze()
    yield
    # A cancelled task ends at the loop's next turn, what waits for it at the one after.
    for _ in range(3):
        await asyncio.sleep(0)
    left_behind = [task for task in asyncio.all_tasks() if "TestRunner." not in repr(task.get_coro())]
    gc.collect()
    gc.unfreeze()
    loop.set_exception_handler(handler)
    assert not left_behind
    assert not reported
