"""Polling: a function called again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

from service.concurrency.polling import poll
from service.errors import ServiceError, StorageUnavailableError

pytestmark = pytest.mark.anyio


class StopError(Exception):
    """Ends polling from inside the function."""


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, none of which takes time."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep)
    return made


def failing(*outcomes: Exception | None) -> Callable[[], Awaitable[object]]:
    """Return a function whose calls have these outcomes."""
    following = iter(outcomes)

    async def function() -> None:
        if (error := next(following)) is not None:
            raise error

    return function


async def test_poll_pauses_for_every_after_success_and_for_retry_after_after_an_error(pauses: list[float]) -> None:
    errors: list[ServiceError] = []
    away = StorageUnavailableError("away")
    with pytest.raises(StopError):
        await poll(failing(None, away, None, StopError()), every=20.0, retry_after=5.0, on_error=errors.append)
    assert pauses == [20.0, 5.0, 20.0]
    assert errors == [away]


async def test_poll_without_retry_after_pauses_for_every_after_an_error(pauses: list[float]) -> None:
    with pytest.raises(StopError):
        await poll(failing(StorageUnavailableError("away"), StopError()), every=20.0, on_error=lambda _: None)
    assert pauses == [20.0]


async def test_poll_without_a_handler_ends_with_the_error(pauses: list[float]) -> None:
    with pytest.raises(StorageUnavailableError):
        await poll(failing(None, StorageUnavailableError("away")), every=20.0)
    assert pauses == [20.0]
