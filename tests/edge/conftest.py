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
    """Return a clock that stands still until the test sets it."""
    return ManualClock()


@pytest.fixture
async def nothing_left_behind() -> AsyncIterator[None]:
    """Fail if a task outlives the test, or if asyncio reports an exception that was never retrieved."""
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    # Objects from before the test are excluded from garbage collection after it, which would otherwise take far longer than the test.
    gc.freeze()
    yield
    # A canceled task ends in the next iteration of the loop, and tasks that wait for it in the one after.
    for _ in range(3):
        await asyncio.sleep(0)
    left_behind = [task for task in asyncio.all_tasks() if "TestRunner." not in repr(task.get_coro())]
    gc.collect()
    gc.unfreeze()
    loop.set_exception_handler(handler)
    assert not left_behind
    assert not reported
