"""Retries, with one policy for the whole service: a list of pauses, longer if the other side asks for it, within a deadline.

Libraries such as tenacity and stamina do not shorten this: "the longer of our pause and the server's Retry-After, but no pause that
outlasts the deadline" needs a wait and a stop function of our own there too, and importing them takes some 25 ms at each start.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio

T = TypeVar("T")


async def retry(
    function: Callable[[], Awaitable[T]],
    *,
    pauses: Iterable[float],
    retry_after: Callable[[Exception], float | None],
    deadline: float = math.inf,
) -> T:
    """Return what `function` returns, called again after a pause if it fails with an error that may pass; raises its last error.

    `pauses`: the seconds to wait between two attempts, so that there is one attempt more than pauses.
    `retry_after`: decides about an error. It returns how many seconds to wait at least, or `None` if another attempt would fail too.
    `deadline`: a time of `anyio.current_time()`. A pause that would end after it is not begun.
    """
    for pause in pauses:
        try:
            return await function()
        except Exception as error:
            at_least = retry_after(error)
            if at_least is None:
                raise
            seconds = max(pause, at_least)
            if anyio.current_time() + seconds > deadline:
                raise
        await anyio.sleep(seconds)
    return await function()
