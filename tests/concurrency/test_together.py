"""Calls that run at the same time."""

from __future__ import annotations

import anyio
import pytest

from service.concurrency.together import together

pytestmark = pytest.mark.anyio


async def test_together_returns_the_results_in_order_whichever_ends_first() -> None:
    second_ended = anyio.Event()

    async def first() -> int:
        await second_ended.wait()
        return 1

    async def second() -> int:
        second_ended.set()
        return 2

    with anyio.fail_after(60):
        assert await together(first(), second()) == [1, 2]
    assert await together() == []


async def test_together_raises_the_first_error_in_order_after_every_call_has_ended() -> None:
    ended: list[str] = []

    async def fail(name: str, pauses: int) -> None:
        for _ in range(pauses):
            await anyio.lowlevel.checkpoint()
        ended.append(name)
        raise ValueError(name)

    async def succeed() -> None:
        await anyio.lowlevel.checkpoint()
        ended.append("success")

    with pytest.raises(ValueError, match="late"):
        await together(succeed(), fail("late", 5), fail("early", 0))
    assert ended == ["early", "success", "late"]


async def test_together_that_is_canceled_cancels_every_call() -> None:
    canceled: list[str] = []

    async def wait(name: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            canceled.append(name)

    with anyio.move_on_after(0.01):
        await together(wait("one"), wait("other"))
    assert canceled == ["one", "other"]
