"""Edge: the ASGI layer; a request's way through memory, collapse and origin."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack

from edge.asgi import Answer, ASGIApp, Headers, Message, Receive, Scope, Send, field_values, problem
from edge.clock import SuspendAwareClock
from edge.collapse import Client, ClientLeftError, Fetched, Flight, Sought
from edge.conditional import CONDITIONS, none_match_fails
from edge.counters import CacheCounters
from edge.exchange import Streamed
from edge.fetching import Fetching
from edge.fly import FlyRegion
from edge.freshness import ERRORS, Unsaid, cache_control, refusal, stand_in_until
from edge.keys import Keys, key_text, secondary_key
from edge.memory import Kept, Memory, Varies
from edge.reply import SMALL_BODY_BYTES, MaxMessageBytes, send_answer, send_body, send_stream, whole

log = logging.getLogger(__name__)

# How long the edge waits for the purges that it may have missed, before it gives what it has.
CATCH_UP_SECONDS = 5.0

# What decides about more than the whole kept answer: a request with none of these is answered as it stands.
_DECIDING = CONDITIONS | {b"cache-control", b"host"}

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

_EMPTY_BODY: Message = {"type": "http.response.body", "body": b""}

_BUSY = problem(
    503,
    "Too many cold requests",
    "As many clients as are allowed wait for answers that are not in memory. Try again in a second.",
    (b"retry-after", b"1"),
)
_BROKEN_OFF = problem(
    400,
    "Bad request",
    "The request's body breaks off or is not valid in chunked encoding (RFC 9112 §7.1).",
    (b"connection", b"close"),
)
_NOT_HERE = problem(504, "Not kept", "The request asks for a kept answer alone (only-if-cached), and none that it accepts is kept.")


class _Visit:
    """A client's request on its way: where its answer goes, what it asks of caches, what it is for, and the flight that it is on."""

    __slots__ = ("asked", "flight", "leads", "scope", "send", "sent", "sought")

    def __init__(self, scope: Scope, send: Send, asked: Mapping[str, str], sought: Sought) -> None:
        self.scope = scope
        self.send = send
        self.asked = asked
        self.sought = sought
        self.flight: Flight | None = None
        self.leads = False
        self.sent = False

    def board(self, flight: Flight | None) -> None:
        """Wait for the answer to another flight, or for none any more."""
        if self.flight is not None:
            self.flight.clients -= 1
        self.flight = flight
        if flight is not None:
            flight.clients += 1


class Edge:
    """Any ASGI application with a shared HTTP cache in front of it (RFC 9111).

    What a client asks of caches is obeyed, with one exception: `no-cache`, `max-age` and `min-fresh` do not make the edge ask again for
    what the origin calls `immutable` and is fresh, because nothing else could come back (RFC 8246).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        name: str,
        max_bytes: int,
        max_concurrent_misses: int,
        bypass_paths: Sequence[str] = (),
        key_includes_host: bool = True,
        vary_normalizers: Mapping[bytes, Callable[[bytes], bytes]] | None = None,
        metric_label: Callable[[str], str] = lambda path: "any",  # noqa: ARG005
        max_fraction_by_label: Mapping[str, float] | None = None,
        store_responses_to_queries: bool = True,
        heuristic_fraction: float = 0.0,
        stale_if_error_seconds: int = 0,
        region: FlyRegion | None = None,
        check_request: Callable[[Scope], Answer | None] = lambda scope: None,  # noqa: ARG005
        sync_purges: Callable[[], Awaitable[object]] | None = None,
        max_purge_lag_seconds: float = 60.0,
        max_message_bytes: MaxMessageBytes = whole,
        clock: Callable[[], float] | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Wrap an ASGI application.

        Parameters:
            app: The origin, any ASGI application.
            name: The name of this cache in `Cache-Status`. The origin's targeted field `<name>-CDN-Cache-Control` (RFC 9213) takes
                precedence over every other field and is removed from responses.
            max_bytes: Maximum size of all stored responses in bytes, including bookkeeping; 0 stores nothing.
            max_concurrent_misses: Maximum number of clients that wait for the origin. Further ones get 503.
            bypass_paths: Requests whose path starts with one of these go straight to `app`: never stored, collapsed or rejected.
            key_includes_host: Whether the scheme and `Host` are part of the cache key. False if every host has the same responses.
            vary_normalizers: By name of a request header in lower case, a function that maps its values to a few equivalent ones;
                responses that vary by this header are stored once for each.
            metric_label: Returns the label under which requests for a path are counted. It must have few different results.
            max_fraction_by_label: By metric label, the maximum fraction of `max_bytes`, 0 to 1, that its responses may take.
            store_responses_to_queries: Whether responses to requests with a query are stored. False for an application whose stored
                responses do not depend on the query: otherwise anybody could multiply entries with one.
            heuristic_fraction: A response without an explicit lifetime is fresh for this fraction, 0 to 1, of the time since its
                `Last-Modified`, and for a day at most (RFC 9111 §4.2.2). 0 turns this off.
            stale_if_error_seconds: How long after its lifetime a stored response may be served in place of an error, unless it says so
                itself (RFC 5861 §4).
            region: Where this process runs on Fly. In a replica region, unsafe requests and responses with the field `<name>-Replay`
                are replayed in the primary region.
            check_request: Returns the response that rejects a request, or None. It is called before a body is read, for every request
                except a plain hit: one fresh stored response, exactly one `Host`, and no field that the edge obeys but `If-None-Match`.
            sync_purges: Called to make the purges that this process missed, before a stored response is served more than
                `max_purge_lag_seconds` after the last call of `purge_tags`.
            max_purge_lag_seconds: See `sync_purges`. Without that it has no effect.
            max_message_bytes: Returns the maximum number of body bytes in one ASGI message, for the scope of a request and the size of a
                body above 32 KiB. A server holds a copy of each message until the client has read it.
            clock: Returns seconds that never go back.
            wall_clock: Returns the Unix time in seconds.
        """
        self._app = app
        self._name = name.lower().encode("ascii")
        self._memory = Memory(max_bytes, max_fraction_by_label)
        self._keys = Keys(vary_normalizers or {}, key_includes_host=key_includes_host)
        # What every hit calls, found once.
        self._address, self._get = self._keys.address, self._memory.get
        self._max_cold_requests = max_concurrent_misses
        self._cold_requests = 0
        self._pass_paths = tuple(bypass_paths)
        self._metric_label = metric_label
        self._stores_queries = store_responses_to_queries
        self._region = region or FlyRegion()
        self._check_request = check_request
        self._tier = self._region.memory_timing
        self._catch_up = sync_purges
        self._catching_up: asyncio.Task[None] | None = None
        self._max_gap_seconds = max_purge_lag_seconds
        self._piece_bytes = max_message_bytes
        self._clock = clock or SuspendAwareClock()
        self._wall_clock = wall_clock
        self._fetching = Fetching(
            app,
            self._memory,
            self._keys,
            metric_label,
            self._count,
            unsaid=Unsaid(heuristic_fraction, stale_if_error_seconds),
            own_field=self._name + b"-cdn-cache-control",
            replay_field=self._name + b"-replay",
            clock=self._clock,
            wall_clock=wall_clock,
        )
        self._current_until = self._clock() + max_purge_lag_seconds if sync_purges else float("inf")
        self.counters: dict[str, CacheCounters] = {}

    @property
    def stored_bytes(self) -> int:
        """What the kept answers count for, in bytes, bookkeeping included."""
        return self._memory.used_bytes

    @property
    def stored_entries(self) -> int:
        """How many answers are kept."""
        return len(self._memory)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request from memory, or from the origin."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method != "GET" and method != "HEAD":  # noqa: PLR1714 - a set costs a hit more
            await self._handle_other_method(scope, receive, send)
            return
        address = self._address(scope)
        kept = self._get(address)
        now = self._clock()
        if now < self._current_until and isinstance(kept, Kept) and (age := now - kept.born) < kept.terms.lifetime:
            condition = host = None
            for name, value in scope["headers"]:
                if name in _DECIDING:
                    # Of two hosts, or two conditions, and of an empty host, the decision is not made here.
                    if name == b"host" and not host and value:
                        host = value
                    elif name == b"if-none-match" and condition is None:
                        condition = value
                    else:
                        break
            else:
                kept.used = True
                kept.count.hits += 1
                # Most conditions name the very tag, which only a 200 has; the others are read.
                if condition is not None and (condition == kept.etag or (kept.status == 200 and none_match_fails(kept.etag, condition))):
                    await send(kept.not_modified(int(age), self._name, self._tier))
                    await send(_EMPTY_BODY)
                    return
                await send(kept.start(int(age), self._name, self._tier))
                if method == "GET":
                    body = kept.body
                    kept.count.sent_bytes += len(body)
                    small = len(body) <= SMALL_BODY_BYTES
                    await (send({"type": "http.response.body", "body": body}) if small else send_body(body, scope, send, self._piece_bytes))
                else:
                    await send(_EMPTY_BODY)
                return
        await self._look_closer(address, scope, receive, send)

    def purge(self, path: bytes) -> None:
        """Drop what is kept for a path with its query, as `raw_path` spells it; with `key_includes_host`, its authority before it."""
        self._fetching.purge(path)

    def purge_tags(self, tags: Iterable[str]) -> int:
        """Drop what carries any of `tags` in `Cache-Tag`, on its way from the origin too; return how many entries were dropped.

        No tags at all say as well that there is nothing more to purge so far.
        """
        wanted = [tag.encode("ascii") for tag in tags]
        self._current_until = self._clock() + self._max_gap_seconds if self._catch_up else float("inf")
        return self._fetching.purge_tags(wanted)

    async def _look_closer(self, address: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for which there is no fresh answer, or one that asks for more than the answer."""
        if (refused := self._check_request(scope)) is not None:
            await self._refuse(refused, scope, send)
            return
        if self._clock() >= self._current_until:
            await self._catch_up_once()
        asked = cache_control(b", ".join(field_values(scope["headers"], b"cache-control")))
        visit = _Visit(scope, send, asked, self._find(address, scope))
        if await self._give_kept(visit):
            return
        if "only-if-cached" in asked:
            await send_answer(_NOT_HERE, self._told(visit.sought, b"detail=only-if-cached"), scope, send)
        elif scope["path"].startswith(self._pass_paths):
            await self._pass(scope, receive, send, b"bypass")
        elif self._cold_requests >= self._max_cold_requests:
            self._count(scope["path"]).rejected += 1
            await self._send_fetched(Fetched(_BUSY, shared=True), visit, word=b"detail=busy")
        else:
            self._cold_requests += 1
            client = Client(receive)
            try:
                await self._fetch(visit, client)
            except ClientLeftError:
                if not visit.sent and _has_body(scope):
                    # A server says the same of a client that has gone and of a body that is not valid.
                    await send_answer(_BROKEN_OFF, self._told(visit.sought, b"detail=body"), scope, send)
            finally:
                client.close()
                self._leave(visit)

    async def _fetch(self, visit: _Visit, client: Client) -> None:
        """Answer a request from the origin, with others that ask for the same if the answer allows it."""
        joinable = "no-store" not in visit.asked and not any(name == b"authorization" for name, _ in visit.scope["headers"])
        async with AsyncExitStack() as gates:
            while True:
                flight = self._fetching.under_way(visit.sought.key) if joinable else None
                visit.leads = flight is None
                if flight is None:
                    flight = self._fetching.begin(visit.sought, visit.scope, keeps=self._may_store(visit), joinable=joinable)
                visit.board(flight)
                await client.wait_for(flight.landed)
                fetched = flight.landed.result()
                if visit.leads:
                    await self._send_fetched(fetched, visit, client)
                    return
                if fetched.shared and self._keys.values(fetched.varies, flight.scope) == self._keys.values(fetched.varies, visit.scope):
                    self._count(visit.scope["path"]).collapsed += 1
                    await self._send_fetched(fetched, visit, word=b"collapsed")
                    return
                if not fetched.shared or fetched.kept is None:
                    # What it brought is for one client alone: the others ask for themselves, a few at a time.
                    await gates.enter_async_context(flight.gate)
                    client.check()
                    joinable = False
                # Those before may have brought what this one wants, or shown by which fields the answers differ.
                visit.sought = self._find(visit.sought.address, visit.scope)
                if await self._give_kept(visit):
                    return

    def _may_store(self, visit: _Visit) -> bool:
        """Return whether the response to a request may be stored, as far as the request has a say in it."""
        return "no-store" not in visit.asked and (self._stores_queries or not visit.scope["query_string"])

    def _leave(self, visit: _Visit) -> None:
        """Free the place of a client that is done; an origin request that nobody waits for any more keeps it until it ends."""
        flight = visit.flight
        visit.board(None)
        if flight is not None and visit.leads:
            flight.leader_leaves()
        if flight is None or flight.clients or flight.task is None or flight.task.done():
            self._cold_requests -= 1
        else:
            flight.task.add_done_callback(self._free_place)

    def _free_place(self, task: asyncio.Task[None]) -> None:
        del task
        self._cold_requests -= 1

    def _find(self, address: bytes, scope: Scope) -> Sought:
        entry = self._memory.get(address)
        if not isinstance(entry, Varies):
            return Sought(address, address, entry, b"uri-miss")
        entry.used = True
        key = secondary_key(address, entry.generation, self._keys.values(entry.fields, scope))
        kept = self._memory.get(key)
        return Sought(address, key, kept if isinstance(kept, Kept) else None, b"vary-miss")

    async def _give_kept(self, visit: _Visit) -> bool:
        """Answer from memory if what is kept may be given, and have it renewed where it is stale; else note why not."""
        kept = visit.sought.kept
        if kept is None:
            return False
        now = self._clock()
        age = now - kept.born
        reason = refusal(kept.terms, age, visit.asked)
        if reason:
            visit.sought = visit.sought._replace(reason=reason)
            return False
        kept.used = True
        count = self._count(visit.scope["path"])
        if age < kept.terms.lifetime:
            count.hits += 1
        else:
            count.stale += 1
            if age < kept.terms.lifetime + kept.terms.stale_while_revalidate:
                self._revalidate(visit)
        count.sent_bytes += await _send_kept(kept, kept.told(int(age), self._name, self._tier), visit, self._piece_bytes)
        return True

    def _revalidate(self, visit: _Visit) -> None:
        """Have a stale answer renewed for those to come, unless that is being done or the origin has enough to do (RFC 5861 §3).

        Not for a client that wants nothing kept of what its request brings.
        """
        if "no-store" in visit.asked:
            return
        if self._fetching.under_way(visit.sought.key) is None and self._cold_requests < self._max_cold_requests:
            self._cold_requests += 1
            flight = self._fetching.begin(visit.sought, visit.scope)
            flight.leader_leaves()
            if flight.task is not None:
                flight.task.add_done_callback(self._free_place)

    async def _send_fetched(self, fetched: Fetched, visit: _Visit, client: Client | None = None, *, word: bytes = b"stored") -> None:
        """Send what the origin answered, or what is kept in its place where that is an error and a stale answer may stand in.

        `word` is what `Cache-Status` says of an answer that could be kept, or of one that was not for this client first.
        """
        visit.sent = True
        if fetched.elsewhere and (handed_on := self._elsewhere(visit.scope)) is not None:
            fetched, word = fetched._replace(answer=handed_on), b"detail=elsewhere"
        answer, kept = fetched.answer, self._stand_in(fetched, visit)
        if kept is not None:
            age = self._clock() - kept.born
            if isinstance(answer, Streamed):
                answer.body.abandon()
            count = self._count(visit.scope["path"])
            count.stale += 1
            instead = b"fwd-status=%d; ttl=%d; detail=stale-if-error" % (answer.status, kept.terms.lifetime - int(age))
            count.sent_bytes += await _send_kept(
                kept, [(b"age", b"%d" % age), *self._told(visit.sought, instead)], visit, self._piece_bytes
            )
            return
        words = [b"fwd-status=304"] if fetched.validated else []
        if fetched.kept is not None or word != b"stored":
            words.append(word)
        if fetched.kept is not None:
            words.append(b"ttl=%d" % (fetched.kept.terms.lifetime - int(self._clock() - fetched.kept.born)))
        told = self._told(visit.sought, *words)
        if not isinstance(answer, Streamed):
            await send_answer(answer, told, visit.scope, visit.send, self._piece_bytes, received=self._wall_clock())
        elif client is not None:
            await send_stream(answer, told, visit.scope, visit.send, client, max_message_bytes=self._piece_bytes)

    def _stand_in(self, fetched: Fetched, visit: _Visit) -> Kept | None:
        """Return the stale answer to give in place of an error of the origin, if there is one that may (RFC 5861 §4)."""
        if visit.sought.kept is None or fetched.answer.status not in ERRORS:
            return None
        # It may have been purged while the origin was asked, or the error kept in its place.
        found = self._find(visit.sought.address, visit.scope).kept
        kept = visit.sought.kept if found is not None and found is fetched.kept else found
        return kept if kept is not None and self._clock() - kept.born < stand_in_until(kept.terms, visit.asked) else None

    def _told(self, sought: Sought, *words: bytes) -> Headers:
        """Return what is said of a request that was forwarded, or would have been (RFC 9211 §2), and where that was."""
        parts = (self._name, b"fwd=" + sought.reason, *words, b'key="%b"' % key_text(sought.key))
        return [(b"cache-status", b"; ".join(parts)), *self._region.timing]

    def _elsewhere(self, scope: Scope) -> Answer | None:
        """Return what hands a request on to the region that has what is not here; nothing where there is no such region."""
        answer = self._region.elsewhere(scope["headers"])
        if answer is not None:
            self._count(scope["path"]).replayed += 1
        return answer

    async def _hand_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that changes something, and so belongs to the region that has everything."""
        self._count(scope["path"]).replayed += 1
        answer = await self._region.hand_on(scope["headers"], receive) or (_BROKEN_OFF if _has_body(scope) else None)
        if answer is not None:
            told = [(b"cache-status", self._name + b"; fwd=method; detail=elsewhere"), *self._region.timing]
            await send_answer(answer, told, scope, send)

    async def _handle_other_method(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request that is neither GET nor HEAD: no stored response is for it."""
        if (refused := self._check_request(scope)) is not None:
            await self._refuse(refused, scope, send)
        elif self._region.is_replica and scope["method"] not in _SAFE:
            await self._hand_on(scope, receive, send)
        else:
            await self._pass(scope, receive, send, b"method")

    async def _refuse(self, answer: Answer, scope: Scope, send: Send) -> None:
        """Send a response of `check_request`: the request was not forwarded, and nothing stored was looked at for it."""
        await send_answer(answer, [(b"cache-status", self._name + b"; detail=refused"), *self._region.timing], scope, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, reason: bytes) -> None:
        """Hand a request to the origin as it is (HEAD as GET, its body dropped) and the answer back as it comes."""
        head = scope["method"] == "HEAD"
        told = [(b"cache-status", self._name + b"; fwd=" + reason), *self._region.timing]
        self._count(scope["path"]).bypassed += 1
        handed_on: Answer | None = None

        async def send_on(message: Message) -> None:
            nonlocal handed_on
            if handed_on is not None:
                return
            if message["type"] == "http.response.start":
                headers = [(name.lower(), value) for name, value in message.get("headers", ())]
                if self._fetching.is_elsewhere(headers) and (handed_on := self._elsewhere(scope)) is not None:
                    await send_answer(handed_on, told, scope, send)
                    return
                if scope["method"] not in _SAFE and 200 <= message["status"] < 400:
                    for address in self._keys.changed(scope, headers):
                        self._fetching.purge(address)
                message = {**message, "headers": [*self._fetching.public(headers), *told]}
            elif head and message["type"] == "http.response.body":
                if message.get("more_body"):
                    return
                message = _EMPTY_BODY
            elif len(message.get("body", b"")) > SMALL_BODY_BYTES:
                await send_body(message["body"], scope, send, self._piece_bytes, more=bool(message.get("more_body")))
                return
            await send(message)

        await self._app({**scope, "method": "GET", "extensions": {}} if head else scope, receive, send_on)

    def _count(self, path: str) -> CacheCounters:
        kind = self._metric_label(path)
        count = self.counters.get(kind)
        if count is None:
            count = self.counters[kind] = CacheCounters()
        return count

    async def _catch_up_once(self) -> None:
        """Have the purges made that were missed while this machine stood still; whoever comes meanwhile waits for the same."""
        if self._catching_up is None:
            self._catching_up = asyncio.create_task(self._caught_up())
        await asyncio.shield(self._catching_up)

    async def _caught_up(self) -> None:
        try:
            if self._catch_up is not None:
                await asyncio.wait_for(self._catch_up(), CATCH_UP_SECONDS)
        except Exception:
            log.exception("missed purges could not be asked for; what is kept is given as it is")
        finally:
            self._current_until = self._clock() + self._max_gap_seconds
            self._catching_up = None


async def _send_kept(kept: Kept, told: Headers, visit: _Visit, max_message_bytes: MaxMessageBytes) -> int:
    answer = Answer(kept.status, kept.headers, kept.body)
    return await send_answer(answer, told, visit.scope, visit.send, max_message_bytes, received=kept.received)


def _has_body(scope: Scope) -> bool:
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in scope["headers"])
