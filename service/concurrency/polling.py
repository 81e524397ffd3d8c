"""Polling: a function that is called again and again for as long as the process serves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn

import anyio

from service.errors import ServiceError


async def poll(
    function: Callable[[], Awaitable[object]],
    *,
    every: float,
    retry_after: float | None = None,
    on_error: Callable[[ServiceError], object] | None = None,
) -> NoReturn:
    """Call `function` until this task is canceled, with a pause of `every` seconds after each call.

    If `function` raises a `ServiceError`, `on_error` gets the error, usually to log it, and the pause is `retry_after` seconds
    (default: `every`). Without `on_error`, and for any other exception, polling ends with that exception.
    """
    while True:
        pause = every
        try:
            await function()
        except ServiceError as error:
            if on_error is None:
                raise
            on_error(error)
            pause = every if retry_after is None else retry_after
        await anyio.sleep(pause)
