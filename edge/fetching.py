"""What the origin is asked, and what becomes of its answers: kept if they may be, for as long as they may be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from email.utils import formatdate
from functools import partial

from edge.asgi import Answer, ASGIApp, Headers, Scope, field_values, problem
from edge.collapse import Fetched, Flight, Flights, Sought
from edge.conditional import CONDITIONS
from edge.counters import CacheCounters
from edge.exchange import Exchange, OriginFailedError, Streamed
from edge.freshness import ERRORS, Terms, Unsaid, forbids_sharing, initial_age, terms
from edge.keys import Keys, secondary_key, varies
from edge.memory import Kept, Memory, cache_tags
from edge.validation import has_validator, names_same, updated, validators

log = logging.getLogger(__name__)

# An answer that lives this long or less is shared by the clients that wait for it and then forgotten: it would be stale
# before it was of use, and the next client deserves a fresh try.
MOMENTARY_SECONDS = 1

# Of one request, one connection or this cache alone, and wrong for every later one (RFC 9111 §3.1).
_NOT_KEPT = frozenset({
    b"age", b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization",
    b"proxy-connection", b"server-timing", b"te", b"trailer", b"transfer-encoding", b"upgrade",
})  # fmt: skip

_FAILED = problem(500, "Internal error", "The server failed to answer. Try again; its log has the reason.")


class Fetching:
    """The origin, and the way of its answers into memory."""

    def __init__(
        self,
        app: ASGIApp,
        memory: Memory,
        keys: Keys,
        kind: Callable[[str], str],
        count: Callable[[str], CacheCounters],
        *,
        unsaid: Unsaid,
        own_field: bytes,
        replay_field: bytes,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """Take the origin, where its answers are kept and by what keys, their kind by path, what counts them by path, and the time.

        `unsaid` is what holds where a response says nothing. `own_field` is the targeted field for us alone, `replay_field` the one
        by which the origin says that something is in another region; neither is sent on.
        """
        self._app = app
        self._memory = memory
        self._keys = keys
        self._kind = kind
        self._count = count
        self._unsaid = unsaid
        self._private = frozenset({own_field, replay_field})
        self._replay_field = replay_field
        self._targeted = (own_field, b"cdn-cache-control")
        self._deciding = {*self._targeted, b"cache-control", b"expires"}
        self._clock = clock
        self._wall_clock = wall_clock
        # One field line for all responses of the same second, which memory then holds once.
        self._date_second, self._date = -1, (b"date", b"")
        self._flights = Flights()
        self._tasks: set[asyncio.Task[None]] = set()

    def under_way(self, key: bytes) -> Flight | None:
        """Return the request for what lies under `key` that a client may join."""
        return self._flights.get(key)

    def purge(self, address: bytes) -> None:
        """Drop what is kept for an address, and what is on its way to be."""
        self._flights.purge(address)
        self._memory.purge(address)

    def purge_tags(self, tags: list[bytes]) -> int:
        """Drop what carries any of `tags`, and what is on its way; return how many kept answers that were."""
        self._flights.purge_tags(tags)
        return self._memory.purge_tags(tags)

    def begin(self, sought: Sought, scope: Scope, *, keeps: bool = True, joinable: bool = True) -> Flight:
        """Ask the origin for what `scope` asks for, whether what is kept still holds if it can be asked that."""
        flight = Flight(sought.address, sought.key, scope, sought.kept, keeps=keeps)
        self._flights.add(flight, joinable=joinable)
        self._ask_origin(flight, validators(sought.kept))
        return flight

    def _ask_origin(self, flight: Flight, conditions: Headers) -> None:
        request = {
            **flight.scope,
            "method": "GET",
            "headers": [*(pair for pair in flight.scope["headers"] if pair[0] not in CONDITIONS), *conditions],
            # Offered `http.response.pathsend`, an application may send a path in place of the bytes that are collected here.
            "extensions": {},
        }
        flight.validates = bool(conditions)
        flight.began = self._clock()
        exchange = flight.exchange = Exchange(partial(self._streams, flight), self._max_entry_bytes(flight))
        exchange.answered.add_done_callback(partial(self._land, flight))
        flight.task = asyncio.create_task(exchange.run(self._app, request))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._tasks.discard)

    def _streams(self, flight: Flight, status: int, headers: Headers) -> bool:
        """Return whether an answer in pieces is handed on as it comes: one that others may not have, or too large to be kept."""
        if self.is_elsewhere(headers) or (status == 304 and flight.validates):
            return False
        lengths = [length for length in field_values(headers, b"content-length") if length.isdigit() and len(length) < 19]
        if any(int(length) > self._max_entry_bytes(flight) for length in lengths):
            return True
        agreed = self._terms(flight, status, headers)
        return not agreed.shares and not (flight.keeps and _is_worth_storing(status, headers, agreed, age=0.0))

    def _terms(self, flight: Flight, status: int, headers: Headers) -> Terms:
        authorized = any(name == b"authorization" for name, _ in flight.scope["headers"])
        return terms(status, headers, self._targeted, now=self._wall_clock(), authorized=authorized, unsaid=self._unsaid)

    def _max_entry_bytes(self, flight: Flight) -> int:
        return self._memory.max_entry_bytes(self._kind(flight.scope["path"]))

    def _land(self, flight: Flight, answered: asyncio.Future[Answer | Streamed]) -> None:
        """Take what the origin answered to a flight."""
        try:
            fetched = self._received(flight, answered.result())
        except Exception as error:
            if not isinstance(error, OriginFailedError):
                log.exception("an answer of the origin could not be used")
            fetched = Fetched(_FAILED, shared=True)
        if fetched is not None:
            self._flights.landed(flight)
            flight.land(fetched)

    def _received(self, flight: Flight, answer: Answer | Streamed) -> Fetched | None:
        """Return what a flight brought, kept if it may be; nothing if the origin has to be asked once more."""
        count = self._count(flight.scope["path"])
        if isinstance(answer, Streamed):
            count.misses += 1
            self._forget(flight, answer.status)
            return Fetched(answer._replace(headers=self.public(answer.headers)), shared=False)
        if self.is_elsewhere(answer.headers):
            # It says where to ask, and nothing of what there is: everybody may have it, nobody keeps it, and nothing is forgotten.
            count.misses += 1
            return Fetched(answer._replace(headers=self.public(answer.headers)), shared=True, elsewhere=True)
        validated = flight.validates and answer.status == 304 and flight.kept is not None
        whole, agreed = answer, self._terms(flight, answer.status, answer.headers)
        if validated and flight.kept is not None:
            if not names_same(flight.kept, answer.headers):
                # It holds for something else than what is kept (RFC 9111 §4.3.3).
                self._ask_origin(flight, ())
                return None
            whole = Answer(flight.kept.status, updated(flight.kept.headers, self._dated(answer.headers)), flight.kept.body)
            told_anew = forbids_sharing(whole.headers) or any(name in self._deciding for name, _ in answer.headers)
            agreed = self._terms(flight, whole.status, whole.headers) if told_anew else flight.kept.terms
            count.revalidated += 1
        else:
            count.misses += 1
            if whole.status == 200 and not field_values(whole.headers, b"accept-ranges"):
                whole = whole._replace(headers=[*whole.headers, (b"accept-ranges", b"bytes")])
        now = self._clock()
        age = initial_age(answer.headers, now=self._wall_clock(), delay=now - flight.began)
        fields = varies(whole.headers)
        kept = self._keep(flight, whole, agreed, born=now - age, fields=fields)
        public = self.public(whole.headers)
        if validated:
            public = [*(pair for pair in public if pair[0] != b"age"), (b"age", b"%d" % age)]
        # Those that wait asked before it was made: however long that took, it is new to them.
        arrived_fresh = initial_age(answer.headers, now=self._wall_clock(), delay=0) < agreed.lifetime
        shared = agreed.shares and (arrived_fresh or agreed.stale_while_revalidate > 0)
        return Fetched(whole._replace(headers=public), shared, kept, validated, varies=fields)

    def _keep(self, flight: Flight, answer: Answer, agreed: Terms, *, born: float, fields: tuple[bytes, ...]) -> Kept | None:
        """Keep an answer if it may be and is worth it; what it was to renew is gone if it is neither, nor an error."""
        allowed = flight.keeps and not flight.purged_tags & cache_tags(answer.headers)
        if not allowed or not _is_worth_storing(answer.status, answer.headers, agreed, age=self._clock() - born):
            self._forget(flight, answer.status)
            return None
        key, kind = flight.address, self._kind(flight.scope["path"])
        if fields:
            mark = self._memory.varies(flight.address, fields, kind)
            key = secondary_key(flight.address, mark.generation, self._keys.values(fields, flight.scope))
        listed = {name.strip().lower() for value in field_values(answer.headers, b"connection") for name in value.split(b",")}
        own = self._dated([pair for pair in answer.headers if pair[0] not in _NOT_KEPT | listed | self._private])
        received = self._wall_clock()
        kept = Kept(answer._replace(headers=own), agreed, key=key, born=born, received=received, count=self._count(flight.scope["path"]))
        return kept if self._memory.keep(key, kept, kind) else None

    def _dated(self, headers: Headers) -> Headers:
        """Return the fields of a response with the `Date` of its reception, which is now, if it has none (RFC 9110 §6.6.1).

        Without it the server would date a stored response anew each time that it is sent.
        """
        if field_values(headers, b"date"):
            return headers
        second = int(self._wall_clock())
        if second != self._date_second:
            self._date_second, self._date = second, (b"date", formatdate(second, usegmt=True).encode("ascii"))
        return [*headers, self._date]

    def _forget(self, flight: Flight, status: int) -> None:
        if flight.kept is not None and status not in ERRORS and self._memory.get(flight.key) is flight.kept:
            self._memory.purge(flight.key)

    def public(self, headers: Headers) -> Headers:
        """Return the fields of the origin's answer without those that are for this cache alone."""
        return [pair for pair in headers if pair[0] not in self._private]

    def is_elsewhere(self, headers: Headers) -> bool:
        """Return whether the origin says that what is asked for is not here but may be in another region."""
        return any(name == self._replay_field for name, _ in headers)


def _is_worth_storing(status: int, headers: Headers, agreed: Terms, *, age: float) -> bool:
    """Return whether a response may be stored and will be of use later: fresh for a while, or stale, or once it is validated."""
    later = agreed.stale_while_revalidate or agreed.stale_if_error or (status == 200 and has_validator(headers))
    return agreed.keeps and bool(later or agreed.lifetime - age > MOMENTARY_SECONDS)
