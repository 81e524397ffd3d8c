"""One origin request for many waiting clients."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from edge.answer import Answer, Receive

# When the leader's answer turns out to be for the leader alone, the waiters ask for themselves, this many at a time.
RELEASED_AT_ONCE = 8


class ClientLeftError(Exception):
    """The client closed its connection before there was an answer for it."""


class Fetched(NamedTuple):
    """An answer of the origin, whether every client that waits for it may have it, and whether it was kept for later ones."""

    answer: Answer
    shared: bool
    kept: bool


class Outcome(NamedTuple):
    """What a client gets, and whether another client's request brought it."""

    fetched: Fetched
    collapsed: bool


class _Flight:
    """One origin request under way, and the gate through which its waiters go if they cannot share it."""

    __slots__ = ("gate", "landed")

    def __init__(self) -> None:
        self.landed: asyncio.Future[Fetched] = asyncio.get_running_loop().create_future()
        self.gate = asyncio.Semaphore(RELEASED_AT_ONCE)


class Collapse:
    """The origin requests under way, by key. A request belongs to no client: whoever leaves, it goes on for the others."""

    def __init__(self) -> None:
        self._flights: dict[bytes, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def fetch(self, key: bytes, fetch: Callable[[], Awaitable[Fetched]], receive: Receive) -> Outcome:
        """Return the answer for `key`, from one `fetch` for all that ask meanwhile.

        Raises `ClientLeftError` when `receive` tells that this client has gone, and what `fetch` raises.
        """
        flight = self._flights.get(key)
        leads = flight is None
        if flight is None:
            flight = self._flights[key] = _Flight()
            task = asyncio.create_task(self._fly(key, flight, fetch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        left = asyncio.ensure_future(_client_leaves(receive))
        either: set[asyncio.Future[Any]] = {flight.landed, left}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not flight.landed.done():
                raise left.exception() or ClientLeftError
            fetched = flight.landed.result()
            if leads or fetched.shared:
                return Outcome(fetched, collapsed=not leads)
            async with flight.gate:
                # The queue may have outlasted the client: then nobody wants what the origin would make.
                if left.done():
                    raise left.exception() or ClientLeftError
                return Outcome(await fetch(), collapsed=False)
        finally:
            left.cancel()

    async def _fly(self, key: bytes, flight: _Flight, fetch: Callable[[], Awaitable[Fetched]]) -> None:
        try:
            fetched = await fetch()
        except BaseException as error:
            flight.landed.set_exception(error)
            # Every client may have left: then nobody else retrieves the error, and asyncio would report it as forgotten.
            flight.landed.exception()
            if not isinstance(error, Exception):
                raise
        else:
            flight.landed.set_result(fetched)
        finally:
            del self._flights[key]


async def _client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
