"""Requests to the origin, and what becomes of its responses: stored if they may be, for as long as they may be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from email.utils import formatdate
from functools import partial

from edge.asgi import ASGIApp, Headers, Message, Response, Scope, get_header_values, problem_response
from edge.cache_key import CacheKeys, secondary_key
from edge.coalescing import FetchResult, InFlightFetch, InFlightFetches, Lookup
from edge.conditional import CONDITIONAL_HEADERS
from edge.counters import CacheCounters
from edge.fields import parse_cache_tags, parse_vary
from edge.policy import (
    ERROR_STATUSES,
    CachePolicy,
    PolicyDefaults,
    evaluate_policy,
    freshen_headers,
    has_validator,
    initial_age,
    is_for_one_client,
    revalidation_headers,
    validator_matches,
)
from edge.store import MemoryStore, StoredResponse
from edge.streaming import BodyStream, OriginFailedError, StreamingResponse

log = logging.getLogger(__name__)

# A response that lives this long or less is shared by the clients that wait for it and then forgotten: it would be stale before it was
# of use, and the next client deserves a new attempt.
MIN_STORED_LIFETIME_SECONDS = 1

# Headers of one request, one connection or this cache only, which would be wrong for every later request (RFC 9111 §3.1).
_NEVER_STORED_HEADERS = frozenset({
    b"age", b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization",
    b"proxy-connection", b"server-timing", b"te", b"trailer", b"transfer-encoding", b"upgrade",
})  # fmt: skip

# RFC 9110 §8.6: responses without a body, whose `Content-Length` does not describe one.
_STATUSES_WITHOUT_BODY = frozenset({204, 304})

_INTERNAL_ERROR = problem_response(
    500, "Internal error", "The server could not respond because of an internal error. Try again. The reason is in its log."
)


class OriginRequest:
    """One call of the application, without a request body. Its response is collected whole, or becomes a stream."""

    def __init__(self, should_stream: Callable[[int, Headers], bool], max_collected_bytes: int) -> None:
        """Prepare a request.

        Parameters:
            should_stream: Returns whether a response with a status and headers that arrives in several messages becomes a stream.
            max_collected_bytes: A response becomes a stream once it is larger than this, in bytes.
        """
        self._should_stream = should_stream
        self._max_collected_bytes = max_collected_bytes
        self._status = 0
        self._headers: Headers | None = None
        self._chunks: list[bytes] = []
        self._bytes = 0
        self._stream: BodyStream | None = None
        self._body_was_read = False
        self._is_complete = False
        self._disconnected = asyncio.Event()
        self.response: asyncio.Future[Response | StreamingResponse] = asyncio.get_running_loop().create_future()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Call `app`. When this returns, `response` is done, with an `OriginFailedError` if the application failed."""
        failure: BaseException | None = None
        try:
            await app(scope, self._receive, self._send)
        except Exception as error:
            failure = error
            log.exception("the application failed")
        except BaseException as error:
            # The process is ending. Waiting clients get an error, and the exception goes on.
            failure = error
            raise
        finally:
            if not self.response.done():
                reported = OriginFailedError("the application failed" if failure else "the application returned without a whole response")
                reported.__cause__ = failure
                if failure is None:
                    log.error(str(reported))
                self._fail(reported)
            if self._stream is not None and not self._is_complete:
                await self._stream.put(None)

    def cancel_stream(self) -> None:
        """Report a disconnect to the application if its response is a stream; collect the response to the end otherwise."""
        if self._stream is not None:
            self._stream.cancel()
            self._disconnected.set()

    def _fail(self, error: OriginFailedError) -> None:
        self.response.set_exception(error)
        # All clients may have disconnected. Then nobody else retrieves the exception, and asyncio would log that.
        self.response.exception()

    async def _receive(self) -> Message:
        if not self._body_was_read:
            self._body_was_read = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
        elif message["type"] == "http.response.body" and self._headers is not None and not self._is_complete:
            more_body = bool(message.get("more_body"))
            self._is_complete = not more_body
            if self._stream is not None:
                await self._stream.put(message)
            else:
                self._collect(self._headers, message.get("body", b""), more_body=more_body)
            if self._is_complete:
                self._disconnected.set()

    def _collect(self, headers: Headers, chunk: bytes, *, more_body: bool) -> None:
        self._chunks.append(chunk)
        self._bytes += len(chunk)
        if not more_body:
            self._finish(Response(self._status, headers, b"".join(self._chunks)))
        elif self._bytes > self._max_collected_bytes or (len(self._chunks) == 1 and self._should_stream(self._status, headers)):
            self._stream = BodyStream(b"".join(self._chunks))
            self._chunks.clear()
            self.response.set_result(StreamingResponse(self._status, headers, self._stream))

    def _finish(self, response: Response) -> None:
        lengths = get_header_values(response.headers, b"content-length")
        if response.status in _STATUSES_WITHOUT_BODY:
            self.response.set_result(response)
        elif not lengths:
            headers = [*response.headers, (b"content-length", b"%d" % len(response.body))]
            self.response.set_result(response._replace(headers=headers))
        elif all(length == b"%d" % len(response.body) for length in lengths):
            self.response.set_result(response)
        else:
            log.error("the application sent a body of %d bytes with a Content-Length of %s", len(response.body), lengths)
            self._fail(OriginFailedError("the length of the body differs from its Content-Length"))


class OriginFetcher:
    """Fetches responses from the origin and stores them."""

    def __init__(
        self,
        app: ASGIApp,
        store: MemoryStore,
        keys: CacheKeys,
        metric_label: Callable[[str], str],
        counters_for: Callable[[str, int], CacheCounters],
        *,
        defaults: PolicyDefaults,
        targeted_field: bytes,
        replay_field: bytes,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """Configure the fetcher.

        Parameters:
            app: The origin.
            store: Where responses are stored.
            keys: Makes their keys.
            metric_label: Returns the metric label of a path.
            counters_for: Returns the counters of a path and a status.
            defaults: The policy where a response has no directive of its own.
            targeted_field: The targeted field for this cache only (RFC 9213), in lower case; not sent to clients.
            replay_field: The field by which the origin asks for a replay in another region, in lower case; not sent to clients.
            clock: Returns seconds that never go back.
            wall_clock: Returns the Unix time in seconds.
        """
        self._app = app
        self._store = store
        self._keys = keys
        self._metric_label = metric_label
        self._counters_for = counters_for
        self._defaults = defaults
        self._private_fields = frozenset({targeted_field, replay_field})
        self._replay_field = replay_field
        self._targeted_fields = (targeted_field, b"cdn-cache-control")
        self._policy_fields = {*self._targeted_fields, b"cache-control", b"expires"}
        self._clock = clock
        self._wall_clock = wall_clock
        # One `Date` header for all responses of the same second, which are then one object in the store.
        self._date_second, self._date_header = -1, (b"date", b"")
        self._in_flight = InFlightFetches()
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self._in_flight)} fetches in flight, {len(self._tasks)} calls of the application>"

    def get_in_flight(self, key: bytes) -> InFlightFetch | None:
        """Return the fetch under `key` that a client may join."""
        return self._in_flight.get(key)

    def purge(self, primary_key: bytes) -> None:
        """Remove the stored responses to a URL, and do not store those on their way."""
        self._in_flight.purge(primary_key)
        self._store.purge(primary_key)

    def purge_tags(self, tags: list[bytes]) -> int:
        """Remove the stored responses with any of `tags`, and do not store those on their way; return how many were removed."""
        self._in_flight.purge_tags(tags)
        return self._store.purge_tags(tags)

    def purge_all(self) -> None:
        """Remove every stored response, and do not store those on their way."""
        self._in_flight.purge_all()
        self._store.purge_all()

    def start_fetch(self, lookup: Lookup, scope: Scope, *, may_store: bool = True, joinable: bool = True) -> InFlightFetch:
        """Fetch the response to a request, or revalidate the stored one if it has a validator."""
        fetch = InFlightFetch(lookup.primary_key, lookup.key, scope, lookup.stored, may_store=may_store)
        self._in_flight.add(fetch, joinable=joinable)
        stored = lookup.stored
        self._send_request(fetch, revalidation_headers(stored.headers) if stored is not None and stored.status == 200 else ())
        return fetch

    def remove_private_fields(self, headers: Headers) -> Headers:
        """Return the headers of the origin's response that are not for this cache only."""
        return [pair for pair in headers if pair[0] not in self._private_fields]

    def wants_replay(self, headers: Headers) -> bool:
        """Return whether the origin wants the request to be replayed in another region."""
        return any(name == self._replay_field for name, _ in headers)

    def _send_request(self, fetch: InFlightFetch, conditions: Headers) -> None:
        scope = {
            **fetch.scope,
            "method": "GET",
            "headers": [*(pair for pair in fetch.scope["headers"] if pair[0] not in CONDITIONAL_HEADERS), *conditions],
            # With `http.response.pathsend`, an application could send a path in place of the bytes that are collected.
            "extensions": {},
        }
        fetch.is_conditional = bool(conditions)
        fetch.started_at = self._clock()
        request = OriginRequest(partial(self._should_stream, fetch), self._max_entry_bytes(fetch))
        fetch.cancel_stream = request.cancel_stream
        request.response.add_done_callback(partial(self._complete, fetch))
        fetch.task = asyncio.create_task(request.run(self._app, scope))
        self._tasks.add(fetch.task)
        fetch.task.add_done_callback(self._tasks.discard)

    def _should_stream(self, fetch: InFlightFetch, status: int, headers: Headers) -> bool:
        """Return whether a response in several messages becomes a stream: it is for one client only, or too large to be stored."""
        if self.wants_replay(headers) or (status == 304 and fetch.is_conditional):
            return False
        lengths = [length for length in get_header_values(headers, b"content-length") if length.isdigit() and len(length) < 19]
        if any(int(length) > self._max_entry_bytes(fetch) for length in lengths):
            return True
        policy = self._policy(fetch, status, headers)
        return not policy.shareable and not (fetch.may_store and _is_worth_storing(status, headers, policy, age=0.0))

    def _policy(self, fetch: InFlightFetch, status: int, headers: Headers) -> CachePolicy:
        authorized = any(name == b"authorization" for name, _ in fetch.scope["headers"])
        now = self._wall_clock()
        return evaluate_policy(status, headers, self._targeted_fields, now=now, authorized=authorized, defaults=self._defaults)

    def _max_entry_bytes(self, fetch: InFlightFetch) -> int:
        return self._store.max_entry_bytes(self._metric_label(fetch.scope["path"]))

    def _complete(self, fetch: InFlightFetch, response: asyncio.Future[Response | StreamingResponse]) -> None:
        """Complete a fetch with the origin's response."""
        try:
            result = self._process(fetch, response.result())
        except Exception as error:
            if not isinstance(error, OriginFailedError):
                log.exception("a response of the application could not be processed")
            result = FetchResult(_INTERNAL_ERROR, shareable=True)
        if result is not None:
            self._in_flight.remove(fetch)
            fetch.complete(result)

    def _process(self, fetch: InFlightFetch, response: Response | StreamingResponse) -> FetchResult | None:
        """Store a response if it may be, and return the result of the fetch; `None` if a second request was necessary."""
        self._counters_for(fetch.scope["path"], response.status).fetches += 1
        if isinstance(response, StreamingResponse):
            self._remove_outdated(fetch, response.status)
            return FetchResult(response._replace(headers=self.remove_private_fields(response.headers)), shareable=False)
        if self.wants_replay(response.headers):
            # It says nothing about the resource: every waiter gets it, it is not stored, and it outdates nothing that is stored.
            public = self.remove_private_fields(response.headers)
            return FetchResult(response._replace(headers=public), shareable=True, is_replay=True)
        validated = fetch.is_conditional and response.status == 304 and fetch.stored is not None
        full, policy = response, self._policy(fetch, response.status, response.headers)
        if validated and fetch.stored is not None:
            if not validator_matches(fetch.stored.etag, response.headers):
                # The 304 is not about the stored response (RFC 9111 §4.3.3).
                self._send_request(fetch, ())
                return None
            full = Response(fetch.stored.status, freshen_headers(fetch.stored.headers, self._dated(response.headers)), fetch.stored.body)
            has_new_policy = is_for_one_client(full.headers) or any(name in self._policy_fields for name, _ in response.headers)
            policy = self._policy(fetch, full.status, full.headers) if has_new_policy else fetch.stored.policy
        elif full.status == 200 and not get_header_values(full.headers, b"accept-ranges"):
            full = full._replace(headers=[*full.headers, (b"accept-ranges", b"bytes")])
        now = self._clock()
        age = initial_age(response.headers, now=self._wall_clock(), delay=now - fetch.started_at)
        vary = parse_vary(full.headers)
        stored = self._store_response(fetch, full, policy, generated_at=now - age, vary=vary)
        public = self.remove_private_fields(full.headers)
        if validated:
            public = [*(pair for pair in public if pair[0] != b"age"), (b"age", b"%d" % age)]
        # The waiters made their requests before it was generated: however long that took, it is new to them.
        was_fresh_on_arrival = initial_age(response.headers, now=self._wall_clock(), delay=0) < policy.lifetime
        shareable = policy.shareable and (was_fresh_on_arrival or policy.stale_while_revalidate > 0)
        return FetchResult(full._replace(headers=public), shareable, stored, validated, vary)

    def _store_response(
        self, fetch: InFlightFetch, response: Response, policy: CachePolicy, *, generated_at: float, vary: tuple[bytes, ...]
    ) -> StoredResponse | None:
        """Store a response if it may be and is worth it. Otherwise it outdates the stored response, unless it is an error."""
        may_store = fetch.may_store and not fetch.purged_tags & parse_cache_tags(response.headers)
        if not may_store or not _is_worth_storing(response.status, response.headers, policy, age=self._clock() - generated_at):
            self._remove_outdated(fetch, response.status)
            return None
        key, label = fetch.primary_key, self._metric_label(fetch.scope["path"])
        if vary:
            marker = self._store.mark_varying(fetch.primary_key, vary, label)
            key = secondary_key(fetch.primary_key, marker.generation, self._keys.vary_values(vary, fetch.scope))
        hop_by_hop = {name.strip().lower() for value in get_header_values(response.headers, b"connection") for name in value.split(b",")}
        excluded = _NEVER_STORED_HEADERS | hop_by_hop | self._private_fields
        stored = StoredResponse(
            response._replace(headers=self._dated([pair for pair in response.headers if pair[0] not in excluded])),
            policy,
            key=key,
            generated_at=generated_at,
            received_at=self._wall_clock(),
            counters=self._counters_for(fetch.scope["path"], response.status),
        )
        return stored if self._store.store(key, stored, label) else None

    def _dated(self, headers: Headers) -> Headers:
        """Return the headers of a response that has just arrived, with the present time as `Date` if it has none (RFC 9110 §6.6.1).

        Without it, the server would add the current date to a stored response each time that it is sent.
        """
        if get_header_values(headers, b"date"):
            return headers
        second = int(self._wall_clock())
        if second != self._date_second:
            self._date_second, self._date_header = second, (b"date", formatdate(second, usegmt=True).encode("ascii"))
        return [*headers, self._date_header]

    def _remove_outdated(self, fetch: InFlightFetch, status: int) -> None:
        """Remove the stored response for which `fetch` has brought another one that is not stored, unless that is an error."""
        if fetch.stored is not None and status not in ERROR_STATUSES and self._store.entries.get(fetch.key) is fetch.stored:
            self._store.purge(fetch.key)


def _is_worth_storing(status: int, headers: Headers, policy: CachePolicy, *, age: float) -> bool:
    """Return whether a response may be stored and will be of use: fresh for a while, served stale, or revalidated."""
    useful_when_stale = policy.stale_while_revalidate or policy.stale_if_error or (status == 200 and has_validator(headers))
    return policy.storable and bool(useful_when_stale or policy.lifetime - age > MIN_STORED_LIFETIME_SECONDS)
