"""One origin request for many waiting clients."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

from edge.asgi import Answer, Receive, Scope
from edge.exchange import BodyStream, Exchange, Streamed
from edge.memory import Kept

# When the leader's answer turns out to be for the leader alone, the waiters ask for themselves, this many at a time.
RELEASED_AT_ONCE = 8

# Of the body of a waiting client's request, so many messages are read as they come, the others one in so many seconds.
_QUICK_MESSAGES = 16
_PAUSE_SECONDS = 0.1


class ClientLeftError(Exception):
    """The client closed its connection before there was an answer for it."""


class Sought(NamedTuple):
    """What a request asks for: its address, the key of the answer that it selects, it if it is kept, and why to fetch it."""

    address: bytes
    key: bytes
    kept: Kept | None
    reason: bytes


class Fetched(NamedTuple):
    """What the origin answered, and who may have it."""

    answer: Answer | Streamed
    shared: bool
    """Whether every client that waits may have it, if it asked alike in the fields by which the answer varies."""
    kept: Kept | None = None
    """The entry that has been made of it."""
    validated: bool = False
    """Whether the origin only said that what was kept still holds."""
    varies: tuple[bytes, ...] = ()
    """The request's fields by which it was chosen."""
    elsewhere: bool = False
    """Whether the origin said that it is not here but may be in another region."""


class Flight:
    """One request to the origin under way. It belongs to no client: whoever leaves, it goes on for the others."""

    def __init__(self, address: bytes, key: bytes, scope: Scope, kept: Kept | None, *, keeps: bool) -> None:
        """Take what is asked for, the key to keep it under, the request that leads, what is to be validated, and whether to keep at all."""
        self.address = address
        self.key = key
        self.scope = scope
        self.kept = kept
        self.keeps = keeps
        self.began = 0.0
        self.validates = False
        self.task: asyncio.Task[None] | None = None
        self.purged_tags: set[bytes] = set()
        self.exchange: Exchange | None = None
        self.gate = asyncio.Semaphore(RELEASED_AT_ONCE)
        self.landed: asyncio.Future[Fetched] = asyncio.get_running_loop().create_future()
        self.clients = 0
        self._led = True

    def land(self, fetched: Fetched) -> None:
        """Let those that wait have it. A stream is for the client that leads alone: without one it ends."""
        self.landed.set_result(fetched)
        if not self._led and self.exchange is not None:
            self.exchange.abandon()

    def leader_leaves(self) -> None:
        """Note that the client that leads has gone, or that there has never been one."""
        self._led = False
        if self.landed.done() and self.exchange is not None:
            self.exchange.abandon()


class Flights:
    """The requests to the origin under way that others may join, by key."""

    def __init__(self) -> None:
        self._flights: dict[bytes, Flight] = {}
        # Those that began before a purge, too: what they bring must not undo it.
        self._all: set[Flight] = set()

    def get(self, key: bytes) -> Flight | None:
        """Return the flight that a client may join."""
        return self._flights.get(key)

    def add(self, flight: Flight, *, joinable: bool) -> None:
        """Take note of a flight, that others may join unless it is for one client alone."""
        self._all.add(flight)
        if joinable:
            self._flights[flight.key] = flight

    def landed(self, flight: Flight) -> None:
        """Forget a flight whose answer is there."""
        self._all.discard(flight)
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    def purge(self, address: bytes) -> None:
        """Have nothing kept of what is on its way to this address, and nobody join it any more."""
        for flight in [flight for flight in self._all if flight.address == address]:
            flight.keeps = False
            self._detach(flight)

    def purge_tags(self, tags: Iterable[bytes]) -> None:
        """Have nothing kept that is on its way and turns out to carry any of `tags`; whoever comes now asks anew."""
        purged = set(tags)
        if purged:
            for flight in self._all:
                flight.purged_tags |= purged
                self._detach(flight)

    def _detach(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]


class Client:
    """The other end of a request: whether it is still there while an answer is waited for."""

    def __init__(self, receive: Receive) -> None:
        """Take the client's `receive`; listens from now on, until `close`."""
        self._left = asyncio.ensure_future(_client_leaves(receive))

    async def wait_for(self, future: asyncio.Future[Any]) -> None:
        """Return once `future` is done; raises `ClientLeftError`, or what `receive` raised, when the client is gone before."""
        either: set[asyncio.Future[Any]] = {future, self._left}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            self.check()

    def check(self) -> None:
        """Raise `ClientLeftError` if the client has gone."""
        if self._left.done():
            raise self._left.exception() or ClientLeftError

    async def take(self, stream: BodyStream) -> Any:
        """Return the next message of a stream; raises `ClientLeftError` when there is nobody to have it."""
        taken = asyncio.ensure_future(stream.take())
        try:
            await self.wait_for(taken)
            return taken.result()
        finally:
            taken.cancel()

    def close(self) -> None:
        """Listen no longer."""
        self._left.cancel()


async def _client_leaves(receive: Receive) -> None:
    messages = 0
    while (await receive())["type"] != "http.disconnect":
        messages += 1
        # Nobody wants the body of a request that is answered from a cache: it is read to see what comes after it, not at any speed.
        if messages > _QUICK_MESSAGES:
            await asyncio.sleep(_PAUSE_SECONDS)
