"""Retries: pauses, errors that do not pass, the other side's wish, and the deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

from service.concurrency.retrying import retry

pytestmark = pytest.mark.anyio


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, none of which takes time."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep)
    return made


class BusyError(Exception):
    """Passes after some seconds."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(f"busy for {seconds:g} seconds")
        self.seconds = seconds


def retry_after(error: Exception) -> float | None:
    return error.seconds if isinstance(error, BusyError) else None


def failing(*errors: Exception) -> tuple[list[int], Callable[[], Awaitable[str]]]:
    """Return the list of calls and a function that raises these errors in turn, then returns."""
    calls: list[int] = []

    async def function() -> str:
        calls.append(1)
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return "done"

    return calls, function


async def test_retry_pauses_between_attempts_until_one_succeeds(pauses: list[float]) -> None:
    calls, function = failing(BusyError(), BusyError())
    assert await retry(function, pauses=(1.0, 2.0, 4.0), retry_after=retry_after) == "done"
    assert (len(calls), pauses) == (3, [1.0, 2.0])


async def test_retry_raises_the_last_error_when_the_pauses_are_used_up(pauses: list[float]) -> None:
    errors = [BusyError(), BusyError(), BusyError()]
    calls, function = failing(*errors)
    with pytest.raises(BusyError) as raised:
        await retry(function, pauses=(1.0, 2.0), retry_after=retry_after)
    assert raised.value is errors[-1]
    assert (len(calls), pauses) == (3, [1.0, 2.0])


async def test_retry_raises_a_permanent_error_at_once(pauses: list[float]) -> None:
    calls, function = failing(ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        await retry(function, pauses=(1.0,), retry_after=retry_after)
    assert (len(calls), pauses) == (1, [])


async def test_retry_waits_longer_if_the_error_says_so(pauses: list[float]) -> None:
    _, function = failing(BusyError(5.0), BusyError(0.5))
    await retry(function, pauses=(1.0, 2.0), retry_after=retry_after)
    assert pauses == [5.0, 2.0]


async def test_retry_begins_no_pause_that_would_outlast_the_deadline(pauses: list[float]) -> None:
    calls, function = failing(BusyError(), BusyError(60.0))
    with pytest.raises(BusyError, match="60"):
        await retry(function, pauses=(1.0, 2.0), retry_after=retry_after, deadline=anyio.current_time() + 30.0)
    assert (len(calls), pauses) == (2, [1.0])
