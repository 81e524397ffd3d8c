"""`Edge`, the ASGI middleware: the way of a request through the store, coalescing and the origin, and of the response to the client."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from math import floor
from random import random
from typing import Literal, TypeAlias

from edge.asgi import ASGIApp, Headers, Message, Receive, Response, Scope, Send, get_header_values, problem_response
from edge.cache_key import CacheKeys, cache_status_key, secondary_key
from edge.clock import SuspendAwareClock
from edge.coalescing import ClientDisconnectedError, FetchResult, InFlightFetch, Lookup, WaitingClient
from edge.conditional import (
    CONDITIONAL_HEADERS,
    FULL,
    evaluate_preconditions,
    none_match_fails,
    not_modified_headers,
    partial_headers,
)
from edge.counters import CacheCounters, LatencyHistogram
from edge.early_response import EarlyResponse
from edge.fields import parse_cache_control
from edge.fly import FlyRegion
from edge.miss_slots import MissSlots
from edge.origin import OriginFetcher
from edge.policy import ERROR_STATUSES, PolicyDefaults, reuse_denied_reason, stale_if_error_until
from edge.store import MemoryStore, StoredResponse, VaryMarker, hit_status_format
from edge.streaming import StreamingResponse

log = logging.getLogger(__name__)

# The results under which `Edge` counts the responses to clients that are not plain hits.
Result: TypeAlias = Literal["hits", "stale", "misses", "revalidated", "collapsed", "replayed", "rejected"]

# Why a request does not get to the origin: there is no place, its client has its share of them, or the origin refuses it in advance.
Rejection: TypeAlias = Literal["full", "share", "origin"]

# Maximum number of body bytes in one ASGI message, for the scope of a request and the size of the body.
MaxMessageBytes: TypeAlias = Callable[[Scope, int], int]

# Bodies up to this size are always sent as one message.
SMALL_BODY_BYTES = 32_768

# How long the edge waits for missed purges before it serves what is stored.
SYNC_PURGES_SECONDS = 5.0

# A request without these headers gets the whole stored response if that is fresh.
_DECISIVE_HEADERS = CONDITIONAL_HEADERS | {b"cache-control", b"host"}

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

_EMPTY_BODY: Message = {"type": "http.response.body", "body": b""}

_TOO_MANY_MISSES = problem_response(
    503,
    "Too many cold requests",
    "The maximum number of clients is waiting for responses that are not in memory. Try again in a second.",
    (b"retry-after", b"1"),
)
_SHARE_USED = problem_response(
    429,
    "Too many requests at the same time",
    "Your address has its share of the clients that wait for responses that are not in memory. "
    "Wait for some of them, and try again in a second.",
    (b"retry-after", b"1"),
)
_INVALID_BODY = problem_response(
    400,
    "Bad request",
    "The request's body is incomplete or not valid in chunked encoding (RFC 9112 §7.1).",
    (b"connection", b"close"),
)
_NOT_CACHED = problem_response(
    504, "Not in cache", "The request accepts only a stored response (only-if-cached), and no stored response satisfies it."
)
_PRECONDITION_FAILED = problem_response(412, "Precondition failed", "The request's If-Match or If-Unmodified-Since is false.")


class _ClientRequest:
    """A request that is not a plain hit, on its way to a response."""

    __slots__ = ("client", "directives", "fetch", "is_leader", "lookup", "response_started", "scope", "send")

    def __init__(self, scope: Scope, send: Send, directives: Mapping[str, str], lookup: Lookup) -> None:
        """Begin the way of a request.

        Parameters:
            scope: Its ASGI scope.
            send: Sends messages to its client.
            directives: Its `Cache-Control`.
            lookup: The result of looking it up in the store.
        """
        self.scope = scope
        self.send = send
        self.directives = directives
        self.lookup = lookup
        self.fetch: InFlightFetch | None = None
        self.client: str | None = None
        self.is_leader = False
        self.response_started = False

    def wait_on(self, fetch: InFlightFetch | None) -> None:
        """Wait on another fetch, or on none any more."""
        if self.fetch is not None:
            self.fetch.clients -= 1
        self.fetch = fetch
        if fetch is not None:
            fetch.clients += 1


class Edge:
    """A shared HTTP cache (RFC 9111) in front of any ASGI application.

    It obeys the `Cache-Control` of requests, with one exception: `no-cache`, `max-age` and `min-fresh` do not revalidate a response
    that is `immutable` and fresh, because revalidation could not change it (RFC 8246).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        name: str,
        max_bytes: int,
        max_concurrent_misses: int,
        shared_misses: int | None = None,
        client_key: Callable[[Scope], str | None] = lambda scope: None,  # noqa: ARG005
        bypass_paths: Sequence[str] = (),
        key_includes_host: bool = True,
        vary_normalizers: Mapping[bytes, Callable[[bytes], bytes]] | None = None,
        metric_label: Callable[[str], str] = lambda path: "any",  # noqa: ARG005
        max_fraction_by_label: Mapping[str, float] | None = None,
        store_responses_to_queries: bool = True,
        heuristic_fraction: float = 0.0,
        stale_if_error_seconds: int = 0,
        region: FlyRegion | None = None,
        check_request: Callable[[Scope], Response | None] = lambda scope: None,  # noqa: ARG005
        refuse_miss: Callable[[Scope], Response | None] = lambda scope: None,  # noqa: ARG005
        sync_purges: Callable[[], Awaitable[object]] | None = None,
        max_purge_lag_seconds: float = 60.0,
        max_message_bytes: MaxMessageBytes = lambda scope, size: size,  # noqa: ARG005
        observe: Callable[[ASGIApp], ASGIApp] | None = None,
        observed_hits: float = 0.0,
        measure_hits: bool = False,
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
            shared_misses: How many of them clients share fairly, at most `max_concurrent_misses`, which is the default. A client that has
                its share gets 429 (see `miss_slots.py`).
            client_key: Returns the client that a request counts for, such as its address, or None if that is not known. It is called
                only for requests that wait for the origin.
            bypass_paths: Requests whose path starts with one of these go straight to `app`: never stored, collapsed, or limited by
                `max_concurrent_misses`.
            key_includes_host: Whether the scheme and `Host` are part of the cache key. False if every host has the same responses.
            vary_normalizers: By name of a request header in lower case, a function that maps its values to a few equivalent ones;
                responses that vary by this header are stored once for each.
            metric_label: Returns the label under which requests for a path are counted. It must have few different results.
            max_fraction_by_label: By metric label, the maximum fraction of `max_bytes`, 0 to 1, that its responses may take.
            store_responses_to_queries: Whether responses to requests with a query are stored. False for an application whose responses
                do not depend on the query, because clients could otherwise multiply entries.
            heuristic_fraction: A response without an explicit lifetime is fresh for this fraction, 0 to 1, of the time since its
                `Last-Modified`, and for a day at most (RFC 9111 §4.2.2). 0 turns this off.
            stale_if_error_seconds: How long after its lifetime a stored response without a `stale-if-error` of its own may be served in
                place of an error (RFC 5861 §4).
            region: Where this process runs on Fly. In a replica region, unsafe requests and responses with the field `<name>-Replay`
                are replayed in the primary region.
            check_request: Returns the response that rejects a request, or None. It is called before a body is read, for every request
                except a plain hit, which has a fresh stored response, one `Host`, at most one `If-None-Match`, and no other header that
                the edge obeys.
            refuse_miss: Returns the error with which a request is refused that would start a fetch, or None. A stale response is served
                in its place if that is allowed. It is called while the origin is busy, so it must be fast.
            sync_purges: Called to make the purges that this process missed, before a stored response is served more than
                `max_purge_lag_seconds` after the last call of `purge_tags`.
            max_purge_lag_seconds: How long stored responses are served without a call of `purge_tags`, if there is `sync_purges`.
            max_message_bytes: Returns the maximum number of body bytes in one ASGI message, for the scope of a request and the size of a
                body above 32 KiB. A server holds a copy of each message until the client has read it.
            observe: Returns an ASGI middleware around an application, such as one that writes a log. Everything except plain hits goes
                through it, also the lifespan.
            observed_hits: The fraction of the plain hits, 0 to 1, that go through it too, chosen at random.
            measure_hits: Whether to measure how long plain hits take.
            clock: Returns seconds that never go back.
            wall_clock: Returns the Unix time in seconds.
        """
        self._app = app
        self._name = name.lower().encode("ascii")
        self._hit_format = hit_status_format(self._name)
        self._store = MemoryStore(max_bytes, max_fraction_by_label)
        self._keys = CacheKeys(vary_normalizers or {}, key_includes_host=key_includes_host)
        self._entries = self._store.entries
        self._miss_slots = MissSlots(max_concurrent_misses, shared_misses)
        self._client_key = client_key
        self._bypass_paths = tuple(bypass_paths)
        self._metric_label = metric_label
        self._store_responses_to_queries = store_responses_to_queries
        self._region = region or FlyRegion()
        self._check_request = check_request
        self._refuse_miss = refuse_miss
        self._memory_server_timing = self._region.memory_server_timing
        self._sync_purges = sync_purges
        self._purge_sync: asyncio.Task[None] | None = None
        self._max_purge_lag_seconds = max_purge_lag_seconds
        self._max_message_bytes = max_message_bytes
        # What handles requests that are not plain hits, and observed hits.
        self._handle = observe(self._handle_others) if observe else self._handle_others
        self._handle_observed_hit = observe(self._serve_hit) if observe else self._serve_hit
        self._observed_hits = observed_hits if observe else 0.0
        self._clock = clock or SuspendAwareClock().now
        self._wall_clock = wall_clock
        self._origin = OriginFetcher(
            app,
            self._store,
            self._keys,
            metric_label,
            self._counters_for,
            defaults=PolicyDefaults(heuristic_fraction, stale_if_error_seconds),
            targeted_field=self._name + b"-cdn-cache-control",
            replay_field=self._name + b"-replay",
            clock=self._clock,
            wall_clock=wall_clock,
        )
        # Until this time, the stored responses can be served without another call of `sync_purges`.
        self._purges_synced_until = self._clock() + max_purge_lag_seconds if sync_purges else float("inf")
        self.counters: dict[tuple[str, int], CacheCounters] = {}
        """The counters by metric label and status."""
        self.hit_seconds = LatencyHistogram() if measure_hits else None
        """How long plain hits take, from the call of this object until the server has taken over the response."""
        self.rejections: dict[Rejection, int] = {"full": 0, "share": 0, "origin": 0}
        """The number of rejected requests by reason."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name.decode('ascii')!r}: {self._store!r}, {self._origin!r}, {self._miss_slots!r}>"

    @property
    def stored_bytes(self) -> int:
        """The size of the stored responses in bytes, including bookkeeping."""
        return self._store.used_bytes

    @property
    def stored_entries(self) -> int:
        """The number of stored responses and markers of varying ones."""
        return len(self._store)

    @property
    def waiting_requests(self) -> int:
        """The number of requests that wait for the origin, and of fetches that no client waits for any more."""
        return self._miss_slots.in_use

    @property
    def max_waiting_requests(self) -> int:
        """The largest number of `waiting_requests`."""
        return self._miss_slots.total

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request from memory or from the origin. A fresh stored response is sent by this method, without further calls."""
        # The scope of the lifespan has none.
        method = scope.get("method")
        if method != "GET" and method != "HEAD":  # noqa: PLR1714 - a set is slower
            await self._handle(scope, receive, send)
            return
        stored = self._entries.get(self._keys.primary_key(scope))
        now = self._clock()
        if (
            now < self._purges_synced_until
            and isinstance(stored, StoredResponse)
            and (age := floor(now - stored.generated_at)) < stored.lifetime
        ):
            condition = host = None
            for name, value in scope["headers"]:
                if name in _DECISIVE_HEADERS:
                    # Two hosts, two conditions and an empty host are handled below.
                    if name == b"host" and not host and value:
                        host = value
                    elif name == b"if-none-match" and condition is None:
                        condition = value
                    else:
                        break
            else:
                if self._observed_hits and random() < self._observed_hits:  # noqa: S311 - not for cryptography
                    await self._handle_observed_hit(scope, receive, send)
                    return
                stored.used = True
                # Most conditions consist of exactly this tag, which only a 200 has. The others are parsed.
                if condition is not None and (
                    condition == stored.etag or (stored.status == 200 and none_match_fails(stored.etag, condition))
                ):
                    stored.counters.not_modified.hits += 1
                    await send(stored.not_modified_message(age, self._hit_format, self._memory_server_timing))
                    await send(_EMPTY_BODY)
                    if self.hit_seconds is not None:
                        self.hit_seconds.observe(self._clock() - now)
                    return
                counters = stored.counters
                counters.hits += 1
                await send(stored.start_message(age, self._hit_format, self._memory_server_timing))
                body = stored.body if method == "GET" else b""
                counters.sent_bytes += len(body)
                small = len(body) <= SMALL_BODY_BYTES
                body_message: Message = {"type": "http.response.body", "body": body}
                await (send(body_message) if small else _send_body(body, scope, send, self._max_message_bytes))
                if self.hit_seconds is not None:
                    self.hit_seconds.observe(self._clock() - now)
                return
        await self._handle(scope, receive, send)

    def purge(self, path: bytes) -> None:
        """Remove the stored responses for a path and query, spelled as in `raw_path`.

        If keys include the host, `path` begins with scheme and host.
        """
        self._origin.purge(path)

    def purge_tags(self, tags: Iterable[str]) -> int:
        """Remove the responses with any of `tags` in `Cache-Tag`; return how many were stored. Those on their way will not be stored.

        A call says that there are no other purges up to now, even if `tags` is empty.
        """
        encoded = [tag.encode("ascii") for tag in tags]
        self._purges_synced_until = self._clock() + self._max_purge_lag_seconds if self._sync_purges else float("inf")
        return self._origin.purge_tags(encoded)

    def purge_all(self) -> None:
        """Remove every stored response. Those on their way will not be stored."""
        self._origin.purge_all()

    async def _serve_hit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request that was found to be a plain hit, as `__call__` would."""
        if not await self._serve_stored(_ClientRequest(scope, send, {}, self._look_up(self._keys.primary_key(scope), scope))):
            await self._handle_others(scope, receive, send)

    async def _handle_others(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request that is not a plain hit, and pass everything on that is no request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] in {"GET", "HEAD"}:
            await self._handle_miss_or_conditional(self._keys.primary_key(scope), scope, receive, send)
        else:
            await self._handle_other_method(scope, receive, send)

    async def _handle_miss_or_conditional(self, key: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request that no fresh response is stored for, or that has conditions, a range or `Cache-Control`."""
        if (rejection := self._check_request(scope)) is not None:
            await self._reject(rejection, scope, send)
            return
        if self._clock() >= self._purges_synced_until:
            await self._sync_missed_purges()
        directives = parse_cache_control(b", ".join(get_header_values(scope["headers"], b"cache-control")))
        request = _ClientRequest(scope, send, directives, self._look_up(key, scope))
        if await self._serve_stored(request):
            return
        if "only-if-cached" in directives:
            self._counters_for(scope["path"], _NOT_CACHED.status).misses += 1
            await send_response(_NOT_CACHED, self._forward_headers(request.lookup, b"detail=only-if-cached"), scope, send)
        elif scope["path"].startswith(self._bypass_paths):
            await self._bypass(scope, receive, send, b"bypass")
        else:
            await self._wait_for_origin(request, receive)

    async def _wait_for_origin(self, request: _ClientRequest, receive: Receive) -> None:
        """Respond from the origin if a place is free, and the client has not its share of them."""
        scope = request.scope
        # A client that joins a fetch costs the origin nothing.
        if self._origin.get_in_flight(request.lookup.key) is None and (response := self._refuse_miss(scope)) is not None:
            self.rejections["origin"] += 1
            await self._respond(FetchResult(response, shareable=True), request, count="rejected", detail=b"detail=busy")
            return
        request.client = self._client_key(scope)
        refusal = self._miss_slots.take(request.client)
        if refusal is not None:
            self.rejections[refusal] += 1
            response, detail = (_SHARE_USED, b"detail=share") if refusal == "share" else (_TOO_MANY_MISSES, b"detail=busy")
            await self._respond(FetchResult(response, shareable=True), request, count="rejected", detail=detail)
        else:
            client = WaitingClient(receive)
            try:
                await self._fetch(request, client)
            except ClientDisconnectedError:
                if not request.response_started and _has_body(scope):
                    # A server reports an invalid body in the same way as a client that has disconnected.
                    self._counters_for(scope["path"], _INVALID_BODY.status).refused += 1
                    await send_response(_INVALID_BODY, self._forward_headers(request.lookup, b"detail=body"), scope, request.send)
            finally:
                client.close()
                self._leave(request)

    async def _fetch(self, request: _ClientRequest, client: WaitingClient) -> None:
        """Respond from the origin, together with other requests for the same response if possible. See `edge/coalescing.py`."""
        joinable = "no-store" not in request.directives and not any(name == b"authorization" for name, _ in request.scope["headers"])
        async with AsyncExitStack() as retry_limits:
            while True:
                fetch = self._origin.get_in_flight(request.lookup.key) if joinable else None
                request.is_leader = fetch is None
                if fetch is None:
                    may_store = self._may_store(request)
                    fetch = self._origin.start_fetch(request.lookup, request.scope, may_store=may_store, joinable=joinable)
                request.wait_on(fetch)
                await client.wait_for(fetch.completed)
                result = fetch.completed.result()
                if request.is_leader:
                    await self._respond(result, request, client, count="revalidated" if result.validated else "misses")
                    return
                if result.shareable and self._same_vary_values(result.vary, fetch.scope, request.scope):
                    await self._respond(result, request, count="collapsed", detail=b"collapsed")
                    return
                if not result.shareable or result.stored is None:
                    # Everybody needs a response of their own: a few at a time.
                    await retry_limits.enter_async_context(fetch.retry_limit)
                    client.raise_if_disconnected()
                    joinable = False
                # Other clients may have fetched what this one wants, or the store now knows by which headers the responses vary.
                request.lookup = self._look_up(request.lookup.primary_key, request.scope)
                if await self._serve_stored(request):
                    return

    def _same_vary_values(self, vary: tuple[bytes, ...], one: Scope, other: Scope) -> bool:
        return self._keys.vary_values(vary, one) == self._keys.vary_values(vary, other)

    def _may_store(self, request: _ClientRequest) -> bool:
        """Return whether the response to a request may be stored, as far as that depends on the request."""
        return "no-store" not in request.directives and (self._store_responses_to_queries or not request.scope["query_string"])

    def _leave(self, request: _ClientRequest) -> None:
        """Free the place of a client that is done. A fetch that nobody waits for any more occupies the place until it ends."""
        fetch = request.fetch
        request.wait_on(None)
        if fetch is not None and request.is_leader:
            fetch.leader_disconnected()
        if fetch is None or fetch.clients or fetch.task is None or fetch.task.done():
            self._miss_slots.release(request.client)
        else:
            self._release_after(fetch.task, request.client)

    def _release_after(self, task: asyncio.Task[None], client: str | None) -> None:
        """Free the place of a client, or of none, when a fetch ends."""
        task.add_done_callback(lambda _: self._miss_slots.release(client))

    def _look_up(self, primary_key: bytes, scope: Scope) -> Lookup:
        entry = self._entries.get(primary_key)
        if not isinstance(entry, VaryMarker):
            return Lookup(primary_key, primary_key, entry, b"uri-miss")
        entry.used = True
        key = secondary_key(primary_key, entry.generation, self._keys.vary_values(entry.names, scope))
        stored = self._entries.get(key)
        return Lookup(primary_key, key, stored if isinstance(stored, StoredResponse) else None, b"vary-miss")

    async def _serve_stored(self, request: _ClientRequest) -> bool:
        """Respond with the stored response if it may be reused, and revalidate a stale one in the background.

        Otherwise return False, and note the reason in `request.lookup`.
        """
        stored = request.lookup.stored
        if stored is None:
            return False
        age = self._clock() - stored.generated_at
        reason = reuse_denied_reason(stored.policy, age, request.directives)
        if reason:
            request.lookup = request.lookup._replace(reason=reason)
            return False
        stored.used = True
        is_fresh = age < stored.policy.lifetime
        if not is_fresh and age < stored.policy.lifetime + stored.policy.stale_while_revalidate:
            self._revalidate_in_background(request)
        added = stored.hit_headers(int(age), self._hit_format, self._memory_server_timing)
        await self._send_stored(stored, added, request, count="hits" if is_fresh else "stale")
        return True

    def _revalidate_in_background(self, request: _ClientRequest) -> None:
        """Revalidate a stale response for later clients (RFC 5861 §3), unless a fetch is under way or the origin has enough to do.

        Not for a client with `no-store`: nothing that its request fetches may be stored.
        """
        if "no-store" in request.directives:
            return
        if self._origin.get_in_flight(request.lookup.key) is None and self._miss_slots.take(None) is None:
            fetch = self._origin.start_fetch(request.lookup, request.scope)
            fetch.leader_disconnected()
            if fetch.task is not None:
                self._release_after(fetch.task, None)

    async def _respond(
        self, result: FetchResult, request: _ClientRequest, client: WaitingClient | None = None, *, count: Result, detail: bytes = b"stored"
    ) -> None:
        """Send the origin's response, or in place of an error a stale one if that is allowed.

        `count` is the result under which the request is counted if neither is the case: it was replayed, or a stale response was sent.
        `detail` is a parameter of `Cache-Status`. "stored" is sent only if the response was.
        """
        request.response_started = True
        if result.is_replay and (replay := self._region.replay_response(request.scope["headers"])) is not None:
            result, count, detail = result._replace(response=replay), "replayed", b"detail=elsewhere"
        response, stored = result.response, self._stale_if_error(result, request)
        if stored is not None:
            age = self._clock() - stored.generated_at
            if isinstance(response, StreamingResponse):
                response.body.cancel()
            forwarded = b"fwd-status=%d; ttl=%d; detail=stale-if-error" % (response.status, stored.policy.lifetime - int(age))
            added = [(b"age", b"%d" % age), *self._forward_headers(request.lookup, forwarded)]
            await self._send_stored(stored, added, request, count="stale")
            return
        parameters = [b"fwd-status=304"] if result.validated else []
        if result.stored is not None or detail != b"stored":
            parameters.append(detail)
        if result.stored is not None:
            parameters.append(b"ttl=%d" % (result.stored.policy.lifetime - int(self._clock() - result.stored.generated_at)))
        headers = self._forward_headers(request.lookup, *parameters)
        if not isinstance(response, StreamingResponse):
            selected = select_response(response, headers, request.scope, received_at=self._wall_clock())
            self._count(count, request.scope, selected.status)
            await _send_selected(selected, request.scope, request.send, self._max_message_bytes)
        elif client is not None:
            self._count(count, request.scope, response.status)
            await _send_stream(response, headers, request.scope, request.send, client, max_message_bytes=self._max_message_bytes)

    def _stale_if_error(self, result: FetchResult, request: _ClientRequest) -> StoredResponse | None:
        """Return the stale response to serve in place of an error of the origin, if there is one (RFC 5861 §4)."""
        if request.lookup.stored is None or result.response.status not in ERROR_STATUSES:
            return None
        # During the fetch it may have been purged, renewed, or replaced by the error.
        current = self._look_up(request.lookup.primary_key, request.scope).stored
        stored = request.lookup.stored if current is not None and current is result.stored else current
        if stored is None or self._clock() - stored.generated_at >= stale_if_error_until(stored.policy, request.directives):
            return None
        return stored

    async def _send_stored(self, stored: StoredResponse, headers: Headers, request: _ClientRequest, *, count: Result) -> None:
        response = Response(stored.status, stored.headers, stored.body)
        selected = select_response(response, headers, request.scope, received_at=stored.received_at)
        self._count(count, request.scope, selected.status).sent_bytes += len(selected.body)
        await _send_selected(selected, request.scope, request.send, self._max_message_bytes)

    def _forward_headers(self, lookup: Lookup, *parameters: bytes) -> Headers:
        """Return the headers that are added to a request that was forwarded, or would have been (RFC 9211 §2)."""
        parts = (self._name, b"fwd=" + lookup.reason, *parameters, b'key="%b"' % cache_status_key(lookup.key))
        return [(b"cache-status", b"; ".join(parts)), *self._region.server_timing]

    async def _handle_other_method(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request that is neither GET nor HEAD: no stored response can be used."""
        if _has_body(scope):
            early = EarlyResponse(receive, send)
            receive, send = early.receive, early.send
        if (rejection := self._check_request(scope)) is not None:
            await self._reject(rejection, scope, send)
        elif self._region.is_replica and scope["method"] not in _SAFE_METHODS:
            await self._replay_to_primary(scope, receive, send)
        else:
            await self._bypass(scope, receive, send, b"method")

    async def _replay_to_primary(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to an unsafe request, which belongs to the primary region."""
        response = await self._region.replay_request(scope["headers"], receive) or (_INVALID_BODY if _has_body(scope) else None)
        if response is not None:
            self._counters_for(scope["path"], response.status).replayed += 1
            headers = [(b"cache-status", self._name + b"; fwd=method; detail=elsewhere"), *self._region.server_timing]
            await send_response(response, headers, scope, send)

    async def _reject(self, response: Response, scope: Scope, send: Send) -> None:
        """Send a response of `check_request`: the request was not forwarded, and the store was not looked into."""
        self._counters_for(scope["path"], response.status).refused += 1
        await send_response(response, [(b"cache-status", self._name + b"; detail=refused"), *self._region.server_timing], scope, send)

    async def _bypass(self, scope: Scope, receive: Receive, send: Send, reason: bytes) -> None:
        """Forward a request unchanged (HEAD as GET, without the response's body), and its response message by message."""
        is_head = scope["method"] == "HEAD"
        added = [(b"cache-status", self._name + b"; fwd=" + reason), *self._region.server_timing]
        replay: Response | None = None

        async def forward(message: Message) -> None:
            nonlocal replay
            if replay is not None:
                return
            if message["type"] == "http.response.start":
                headers = [(name.lower(), value) for name, value in message.get("headers", ())]
                if self._origin.wants_replay(headers) and (replay := self._region.replay_response(scope["headers"])) is not None:
                    self._counters_for(scope["path"], replay.status).replayed += 1
                    await send_response(replay, added, scope, send)
                    return
                self._counters_for(scope["path"], message["status"]).bypassed += 1
                if scope["method"] not in _SAFE_METHODS and 200 <= message["status"] < 400:
                    for key in self._keys.invalidation_targets(scope, headers):
                        self._origin.purge(key)
                message = {**message, "headers": [*self._origin.remove_private_fields(headers), *added]}
            elif is_head and message["type"] == "http.response.body":
                if message.get("more_body"):
                    return
                message = _EMPTY_BODY
            elif len(message.get("body", b"")) > SMALL_BODY_BYTES:
                await _send_body(message["body"], scope, send, self._max_message_bytes, more_body=bool(message.get("more_body")))
                return
            await send(message)

        await self._app({**scope, "method": "GET", "extensions": {}} if is_head else scope, receive, forward)

    def _count(self, result: Result, scope: Scope, status: int) -> CacheCounters:
        """Count a request by its result, and return the counters."""
        counters = self._counters_for(scope["path"], status)
        setattr(counters, result, getattr(counters, result) + 1)
        return counters

    def _counters_for(self, path: str, status: int) -> CacheCounters:
        key = self._metric_label(path), status
        counters = self.counters.get(key)
        if counters is None:
            not_modified = None if status == 304 else self._counters_for(path, 304)
            counters = self.counters[key] = CacheCounters(not_modified)
        return counters

    async def _sync_missed_purges(self) -> None:
        """Make the purges that were missed while the machine was suspended. Concurrent requests wait for the same task."""
        if self._purge_sync is None:
            self._purge_sync = asyncio.create_task(self._call_sync_purges())
        await asyncio.shield(self._purge_sync)

    async def _call_sync_purges(self) -> None:
        try:
            if self._sync_purges is not None:
                await asyncio.wait_for(self._sync_purges(), SYNC_PURGES_SECONDS)
        except Exception:
            log.exception("missed purges could not be fetched: stored responses are served without them")
        finally:
            self._purges_synced_until = self._clock() + self._max_purge_lag_seconds
            self._purge_sync = None


async def send_response(response: Response, added: Headers, scope: Scope, send: Send) -> None:
    """Send an error, or another response that this cache has made, with the headers `added`."""
    await _send_selected(select_response(response, added, scope, received_at=0.0), scope, send)


def select_response(response: Response, added: Headers, scope: Scope, *, received_at: float) -> Response:
    """Return the whole response or what the request's method, conditions and range select of it, with the headers `added`.

    `received_at` is the Unix time at which it arrived.
    """
    status, headers, body = response
    # Other statuses are the origin's own, even 206, 412 and 416: the request's conditions and range never reached it.
    conditions = _conditions(scope) if status == 200 else {}
    length, method = len(body), scope["method"]
    evaluation = evaluate_preconditions(conditions, headers, length, received_at=received_at, method=method) if conditions else FULL
    if evaluation.status == 304:
        own = [pair for pair in headers if pair[0] in {b"age", b"cache-status", b"server-timing"}]
        status, headers, body = 304, [*not_modified_headers(headers), *own], b""
    elif evaluation.status == 206:
        status, headers = 206, partial_headers(headers, evaluation, length)
        body = body[evaluation.first : evaluation.last + 1]
    elif evaluation.status == 412:
        status, headers, body = _PRECONDITION_FAILED
    elif evaluation.status == 416:
        status, headers, body = _range_not_satisfiable(length)
    return Response(status, [*headers, *added], b"" if method == "HEAD" else body)


async def _send_selected(
    response: Response,
    scope: Scope,
    send: Send,
    max_message_bytes: MaxMessageBytes = lambda scope, size: size,  # noqa: ARG005
) -> None:
    await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
    await _send_body(response.body, scope, send, max_message_bytes)


async def _send_stream(
    response: StreamingResponse, added: Headers, scope: Scope, send: Send, client: WaitingClient, *, max_message_bytes: MaxMessageBytes
) -> None:
    """Send a response while it arrives. A range is ignored, because its position in the whole is not known yet."""
    status, headers, stream = response
    conditions = {name: value for name, value in _conditions(scope).items() if name not in {b"range", b"if-range"}} if status == 200 else {}
    evaluation = evaluate_preconditions(conditions, headers, 0, received_at=0.0, method=scope["method"])
    if scope["method"] == "HEAD" or (conditions and evaluation.status in {304, 412}):
        stream.cancel()
        await send_response(Response(status, headers, b""), added, scope, send)
        return
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *added]})
    more_body = True
    while more_body:
        message = await client.next_message(stream)
        more_body = bool(message.get("more_body"))
        body = message.get("body", b"")
        if len(body) <= SMALL_BODY_BYTES:
            await send(message)
        else:
            await _send_body(body, scope, send, max_message_bytes, more_body=more_body)


async def _send_body(body: bytes, scope: Scope, send: Send, max_message_bytes: MaxMessageBytes, *, more_body: bool = False) -> None:
    """Send a body, or a part of one if there is `more_body`, in messages of at most `max_message_bytes`.

    The server waits for its client between messages, but copies and holds each of them.
    """
    size = len(body)
    step = size if size <= SMALL_BODY_BYTES else max_message_bytes(scope, size)
    start = 0
    while start + step < size:
        await send({"type": "http.response.body", "body": body[start : start + step], "more_body": True})
        start += step
    last: Message = {"type": "http.response.body", "body": body[start:] if start else body}
    await send({**last, "more_body": True} if more_body else last)


def _conditions(scope: Scope) -> dict[bytes, bytes]:
    """Return a request's conditional headers and range, several lines of one header joined by commas (RFC 9110 §5.3)."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in CONDITIONAL_HEADERS:
            found[name] = found[name] + b", " + value if name in found else value
    return found


def _range_not_satisfiable(length: int) -> Response:
    return problem_response(
        416,
        "Range not satisfiable",
        f"The response has {length} bytes, counted from 0, and the requested range has none of them.",
        (b"content-range", b"bytes */%d" % length),
    )


def _has_body(scope: Scope) -> bool:
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in scope["headers"])
