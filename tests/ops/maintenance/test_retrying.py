"""Commands that walk through a store wait out an outage."""

from __future__ import annotations

import pytest

from service.errors import StorageUnavailableError
from service.ops.maintenance import retrying
from service.ops.maintenance.retrying import retry_unavailable

pytestmark = pytest.mark.anyio


async def test_unavailable_store_is_retried_until_it_is_back_or_a_minute_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 60 <= sum(retrying._PAUSES_SECONDS) < 120
    monkeypatch.setattr(retrying, "_PAUSES_SECONDS", (0.0, 0.0, 0.0))
    calls = 0

    async def function() -> int:
        nonlocal calls
        calls += 1
        if calls < back:
            raise StorageUnavailableError("away")
        return calls

    back = 4
    assert await retry_unavailable(function) == 4
    calls, back = 0, 5
    with pytest.raises(StorageUnavailableError):
        await retry_unavailable(function)
    assert calls == 4
