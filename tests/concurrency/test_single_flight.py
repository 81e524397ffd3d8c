"""Single flight: one task for callers that want the same thing at the same time."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import anyio
import pytest

from service.concurrency.single_flight import SingleFlight

pytestmark = pytest.mark.anyio


class Work:
    """A factory that counts its calls, and whose tasks wait for `release`."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls = 0
        self.release = asyncio.Event()
        self.canceled = 0
        self._error = error

    async def __call__(self) -> int:
        self.calls += 1
        call = self.calls
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.canceled += 1
            raise
        if self._error is not None:
            raise self._error
        return call


@pytest.fixture
def unretrieved() -> list[dict[str, Any]]:
    """What asyncio reports to the exception handler of the loop."""
    return []


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_concurrent_callers_of_one_key_share_one_task() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    callers = [asyncio.create_task(flights.run("a", work)) for _ in range(5)]
    await settle()
    assert repr(flights) == "<SingleFlight: 1 in flight>"
    work.release.set()
    assert await asyncio.gather(*callers) == [1] * 5
    assert work.calls == 1
    await settle()
    assert repr(flights) == "<SingleFlight: 0 in flight>"


async def test_different_keys_run_side_by_side() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    first, second = Work(), Work()
    callers = [asyncio.create_task(flights.run(key, work)) for key, work in (("a", first), ("b", second))]
    await settle()
    assert (first.calls, second.calls) == (1, 1)
    first.release.set()
    second.release.set()
    await asyncio.gather(*callers)


async def test_call_after_the_task_has_ended_starts_a_new_one() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    work.release.set()
    assert await flights.run("a", work) == 1
    await settle()
    assert await flights.run("a", work) == 2


async def test_canceled_caller_harms_neither_the_task_nor_the_others() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    leader, follower = (asyncio.create_task(flights.run("a", work)) for _ in range(2))
    await settle()
    leader.cancel()
    await settle()
    assert leader.cancelled()
    work.release.set()
    assert await follower == 1
    assert work.canceled == 0


async def test_task_goes_on_when_every_caller_has_left() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    with anyio.move_on_after(0.01):
        await flights.run("a", work)
    late = asyncio.create_task(flights.run("a", work))
    await settle()
    work.release.set()
    assert await late == 1


async def test_error_reaches_every_caller() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work(ValueError("broken"))
    callers = [asyncio.create_task(flights.run("a", work)) for _ in range(3)]
    await settle()
    work.release.set()
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert [str(error) for error in errors] == ["broken"] * 3


async def test_error_that_nobody_waits_for_is_not_reported(unretrieved: list[dict[str, Any]]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unretrieved.append(context))
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work(ValueError("broken"))
    with anyio.move_on_after(0.01):
        await flights.run("a", work)
    work.release.set()
    await settle()
    gc.collect()
    await settle()
    assert unretrieved == []


async def test_wait_returns_when_the_task_has_ended_even_with_an_error() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    await flights.wait("a")
    work = Work(ValueError("broken"))
    caller = asyncio.create_task(flights.run("a", work))
    await settle()
    waiting = asyncio.create_task(flights.wait("a"))
    await settle()
    assert not waiting.done()
    work.release.set()
    await waiting
    with pytest.raises(ValueError, match="broken"):
        await caller


async def test_aclose_cancels_what_is_in_flight_and_waits_for_its_end() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    caller = asyncio.create_task(flights.run("a", work))
    await settle()
    await flights.aclose()
    assert work.canceled == 1
    with pytest.raises(asyncio.CancelledError):
        await caller
