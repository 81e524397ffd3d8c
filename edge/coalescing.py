"""Request coalescing: many clients that want the same response wait for one request to the origin (`collapsed` in RFC 9211).

There are four parties:

- The **leader** is the client whose request started the fetch. The origin sees its headers, without conditions and ranges.
- **Waiters** are clients that requested the same key while the fetch was under way.
- The **fetch** (`InFlightFetch`) runs in a task of its own and belongs to no client.
- The **origin** sees one request, and knows nothing of the clients behind it.

Three things change during a fetch, independently of one another:

- It is *running* until the origin's response is there, and then *complete*. The response is whole, or a stream that is still arriving.
- While it runs, clients can *join* it or not. They never can if it was started for one client only (`Authorization`, `no-store`), and no
  longer after a purge of its URL, or of any tags, because the tags of the response are not known yet. Then newcomers start another fetch.
  The clients that wait already get the response, but it is not stored (`may_store`; `purged_tags` if it has one of them).
- Its leader is *connected* or has gone, which matters only for a stream.

When a fetch completes, each party sees this:

- The leader always gets the response: it was made from the leader's request.
- A waiter gets the same response if it is shareable and the waiter has the leader's values of the headers named by `Vary`.
- A waiter with other values, if the response was stored, looks into the store again. The `VaryMarker` that it finds there says under
  which key to join or start another fetch.
- If the response is for the leader only (`private`, `Set-Cookie`, `Vary: *`, a stream), or was not stored and differs, every waiter needs
  a response of its own. The waiters retry without joining anybody, at most `MAX_CONCURRENT_RETRIES` of them at a time. Each first looks
  into the store, because the one before may have received a response for everybody after all.
- If the origin raises or sends half a response, everybody gets the same 500: the origin failed once, not once per client. It is not
  stored, so the next request is a new attempt.

Disconnects:

- A waiter that disconnects only stops waiting.
- If the leader disconnects, or all clients do, the fetch continues: its response is stored, and newcomers can join it. A stream is the
  exception, because only the leader could receive it: it is canceled.
- The retry limit is a semaphore of the fetch. A waiter that disconnected while it queued for the semaphore finds that out when it gets
  its turn, and passes the turn on.

What is awkward:

- ASGI reports a disconnect only to a task that awaits `receive`. `WaitingClient` therefore reads from the client all the time that
  it waits, and discards the body of its request.
- A revalidation in the background has no leader from the start (`leader_disconnected` is called at once).
- A 304 for another entity tag than the stored one makes the fetch send a second request, without conditions. It stays running meanwhile.

What to beware of:

- Never await a client's own task from a fetch, nor cancel a fetch because a client has gone: others may depend on it.
- `completed` never has an exception. A failure of the origin is a `FetchResult` with a 500, so that it is shared like any other response.
- `clients` counts who still waits. `Edge` uses it to free the place of a fetch that nobody waits for only when the fetch ends: a client
  must not be able to start any number of fetches by disconnecting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from edge.asgi import Receive, Response, Scope
from edge.store import StoredResponse
from edge.streaming import BodyStream, StreamingResponse

# How many waiters may fetch a response of their own at a time, after that of the leader turned out to be for the leader only.
MAX_CONCURRENT_RETRIES = 8

# The body of a waiting client's request is discarded: its first messages at once, the others one per pause.
_UNPACED_MESSAGES = 16
_PAUSE_SECONDS = 0.1


class ClientDisconnectedError(Exception):
    """The client closed its connection before it got a response."""


class Lookup(NamedTuple):
    """The result of looking a request up in the store."""

    primary_key: bytes
    """The key of the URL."""
    key: bytes
    """The key of the response that the request selects: the primary key, or a secondary one."""
    stored: StoredResponse | None
    """The response under that key."""
    reason: bytes
    """Why the request has to be forwarded, as `fwd` of `Cache-Status` (RFC 9211 §2.2)."""


class FetchResult(NamedTuple):
    """The origin's response, and who may receive it."""

    response: Response | StreamingResponse
    shareable: bool
    """Whether waiters may receive it, if they have the leader's values of the headers in `vary`."""
    stored: StoredResponse | None = None
    """The entry that was stored."""
    validated: bool = False
    """Whether the origin confirmed the stored response with 304."""
    vary: tuple[bytes, ...] = ()
    """The request headers by which the origin chose the response."""
    is_replay: bool = False
    """Whether the origin wants the request to be replayed in another region."""


class InFlightFetch:
    """One request to the origin, for any number of clients. The module's opening explains it."""

    def __init__(self, primary_key: bytes, key: bytes, scope: Scope, stored: StoredResponse | None, *, may_store: bool) -> None:
        """Prepare a fetch.

        Parameters:
            primary_key: The key of the URL.
            key: The key of the response that the leader's request selects.
            scope: The leader's request.
            stored: The stored response to revalidate, if there is one.
            may_store: Whether the response may be stored, if its policy allows it.
        """
        self.primary_key = primary_key
        self.key = key
        self.scope = scope
        self.stored = stored
        self.may_store = may_store
        self.started_at = 0.0
        self.is_conditional = False
        self.task: asyncio.Task[None] | None = None
        self.purged_tags: set[bytes] = set()
        self.cancel_stream: Callable[[], None] | None = None
        self.retry_limit = asyncio.Semaphore(MAX_CONCURRENT_RETRIES)
        self.completed: asyncio.Future[FetchResult] = asyncio.get_running_loop().create_future()
        self.clients = 0
        self._has_leader = True

    def complete(self, result: FetchResult) -> None:
        """Give the result to the waiting clients. A stream without a leader is canceled."""
        self.completed.set_result(result)
        if not self._has_leader and self.cancel_stream is not None:
            self.cancel_stream()

    def leader_disconnected(self) -> None:
        """Note that the leader has gone, or that there never was one."""
        self._has_leader = False
        if self.completed.done() and self.cancel_stream is not None:
            self.cancel_stream()


class InFlightFetches:
    """The fetches in flight: by key the ones that clients may join, and the others."""

    def __init__(self) -> None:
        self._joinable: dict[bytes, InFlightFetch] = {}
        # Includes fetches that started before a purge: their responses must not undo it.
        self._all: set[InFlightFetch] = set()

    def __len__(self) -> int:
        return len(self._all)

    def get(self, key: bytes) -> InFlightFetch | None:
        """Return the fetch under `key` that a client may join."""
        return self._joinable.get(key)

    def add(self, fetch: InFlightFetch, *, joinable: bool) -> None:
        """Add a fetch that starts."""
        self._all.add(fetch)
        if joinable:
            self._joinable[fetch.key] = fetch

    def remove(self, fetch: InFlightFetch) -> None:
        """Remove a fetch that is complete."""
        self._all.discard(fetch)
        self._forbid_joining(fetch)

    def purge(self, primary_key: bytes) -> None:
        """Prevent the responses on their way for this URL from being stored, and newcomers from joining their fetches."""
        for fetch in self._all:
            if fetch.primary_key == primary_key:
                fetch.may_store = False
                self._forbid_joining(fetch)

    def purge_tags(self, tags: Iterable[bytes]) -> None:
        """Prevent responses on their way with any of `tags` from being stored, and newcomers from joining any fetch.

        The tags of a response are known only once it is there.
        """
        purged = set(tags)
        if purged:
            for fetch in self._all:
                fetch.purged_tags |= purged
                self._forbid_joining(fetch)

    def purge_all(self) -> None:
        """Prevent all responses on their way from being stored, and newcomers from joining their fetches."""
        for fetch in self._all:
            fetch.may_store = False
        self._joinable.clear()

    def _forbid_joining(self, fetch: InFlightFetch) -> None:
        if self._joinable.get(fetch.key) is fetch:
            del self._joinable[fetch.key]


class WaitingClient:
    """A client that waits for a response: notices when it disconnects."""

    def __init__(self, receive: Receive) -> None:
        """Watch a client until `close`.

        Parameters:
            receive: The ASGI `receive` of its request.
        """
        self._disconnected = asyncio.ensure_future(_wait_for_disconnect(receive))

    async def wait_for(self, future: asyncio.Future[Any]) -> None:
        """Return once `future` is done.

        Raises:
            ClientDisconnectedError: The client disconnected first. An exception of `receive` is raised unchanged.
        """
        either: set[asyncio.Future[Any]] = {future, self._disconnected}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            self.raise_if_disconnected()

    def raise_if_disconnected(self) -> None:
        """Return if the client is still connected.

        Raises:
            ClientDisconnectedError: It is not. An exception of `receive` is raised unchanged.
        """
        if self._disconnected.done():
            raise self._disconnected.exception() or ClientDisconnectedError

    async def next_message(self, stream: BodyStream) -> Any:
        """Return the next message of a stream.

        Raises:
            ClientDisconnectedError: The client disconnected first. An exception of `receive` is raised unchanged.
            OriginFailedError: The origin failed in the middle of the response.
        """
        message = asyncio.ensure_future(stream.next_message())
        try:
            await self.wait_for(message)
            return message.result()
        finally:
            message.cancel()

    def close(self) -> None:
        """Stop watching."""
        self._disconnected.cancel()


async def _wait_for_disconnect(receive: Receive) -> None:
    messages = 0
    while (await receive())["type"] != "http.disconnect":
        messages += 1
        # Nobody needs the body of a request that a cache answers. It is read only to see the disconnect behind it, so slowly is enough.
        if messages > _UNPACED_MESSAGES:
            await asyncio.sleep(_PAUSE_SECONDS)
