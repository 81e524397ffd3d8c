"""Several calls at the same time, of which none is left running."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def together(*calls: Coroutine[Any, Any, T]) -> list[T]:
    """Run calls at the same time, and return their results in order once all have ended.

    Raises the error of the first call in order that failed. The others are not canceled: what they were writing is written, or has failed,
    when this returns.
    """
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
