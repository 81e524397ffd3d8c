"""Many pieces of work side by side, and patience with a store that is away."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from service import concurrency
from service.concurrency import for_each, patiently
from service.errors import StorageUnavailableError

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("items", "at_a_time"), [(0, 4), (1, 4), (4, 4), (100, 7), (10, 1)])
async def test_each_item_is_worked_on_once_and_never_more_than_so_many_at_a_time(items: int, at_a_time: int) -> None:
    done: list[int] = []
    running = most = 0

    async def work(item: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.lowlevel.checkpoint()
        running -= 1
        done.append(item)

    await for_each(range(items), work, at_a_time=at_a_time)
    assert sorted(done) == list(range(items))
    assert most == min(items, at_a_time)


async def test_first_error_ends_the_work_and_is_raised_as_it_is() -> None:
    done: list[int] = []

    async def work(item: int) -> None:
        await anyio.lowlevel.checkpoint()
        if item == 5:
            raise StorageUnavailableError("away")
        done.append(item)

    with pytest.raises(StorageUnavailableError, match="away"):
        await for_each(range(1_000), work, at_a_time=4)
    assert len(done) < 12


async def test_store_that_is_away_is_asked_again_until_it_is_back_or_a_minute_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 60 <= sum(concurrency._PAUSES_SECONDS) < 120
    monkeypatch.setattr(concurrency, "_PAUSES_SECONDS", (0.0, 0.0, 0.0))
    asked = 0

    async def ask() -> int:
        nonlocal asked
        asked += 1
        if asked < back:
            raise StorageUnavailableError("away")
        return asked

    back = 4
    assert await patiently(ask) == 4
    asked, back = 0, 5
    with pytest.raises(StorageUnavailableError):
        await patiently(ask)
    assert asked == 4
