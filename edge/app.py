"""Edge: the ASGI layer; a request's way through memory, collapse and origin."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from urllib.parse import quote

from edge.answer import Answer, ASGIApp, Headers, Message, Receive, Scope, Send, field_values, problem
from edge.collapse import ClientLeftError, Collapse, Fetched
from edge.conditional import none_match_fails, not_modified_headers
from edge.freshness import age_seconds, lifetime_seconds
from edge.memory import Kept, Memory

log = logging.getLogger(__name__)

# An answer that lives this long or less is shared by the clients that wait for it and then forgotten: it would be stale
# before it was of use, and the next client deserves a fresh try.
MOMENTARY_SECONDS = 1

# What a client says about its own copy concerns the edge, which evaluates it against the answer; the origin answers in full.
_CLIENT_CONDITIONS = frozenset({b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since", b"if-range", b"range"})

# Told of the request that filled the cache, and wrong for every later one.
_NOT_KEPT = frozenset({b"age", b"server-timing"})

_EMPTY_BODY: Message = {"type": "http.response.body", "body": b""}

_FAILED = problem(500, "Internal error", "The server failed to answer. Try again; its log has the reason.")


class Edge:
    """Any ASGI application with a shared HTTP cache in front of it (RFC 9111)."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        name: str,
        max_bytes: int,
        max_cold_requests: int,
        pass_paths: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wrap `app`.

        `name` is what `Cache-Status` calls this cache, and `<name>-CDN-Cache-Control` the targeted field for it alone, obeyed first
        and never sent on. `max_bytes` bounds what is kept. At most `max_cold_requests` clients at a time wait for the origin, the
        next get 503. Requests whose path starts with one of `pass_paths` go straight to `app`: never kept, collapsed or refused.
        """
        self._app = app
        self._name = name.lower().encode("ascii")
        self._own_field = self._name + b"-cdn-cache-control"
        self._targeted = (self._own_field, b"cdn-cache-control")
        self._memory = Memory(max_bytes)
        self._collapse = Collapse()
        self._max_cold_requests = max_cold_requests
        self._cold_requests = 0
        self._pass_paths = tuple(pass_paths)
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request from memory, or from the origin."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method not in {"GET", "HEAD"}:
            await self._pass(scope, receive, send, b"method")
            return
        key = _key(scope)
        kept = self._memory.get(key)
        if kept is not None and (now := self._clock()) < kept.expires:
            await _send_kept(kept.at(now), scope, send)
        elif scope["path"].startswith(self._pass_paths) or any(name == b"authorization" for name, _ in scope["headers"]):
            await self._pass(scope, receive, send, b"bypass")
        elif self._cold_requests >= self._max_cold_requests:
            await _send_answer(_busy(self._name), scope, send)
        else:
            self._cold_requests += 1
            try:
                await self._fetch(key, "stale" if kept else "miss", scope, receive, send)
            finally:
                self._cold_requests -= 1

    async def _fetch(self, key: bytes, reason: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            (answer, _, kept), collapsed = await self._collapse.fetch(key, lambda: self._ask_origin(key, scope), receive)
        except ClientLeftError:
            return
        told = f"{self._name.decode()}; fwd={reason}"
        told += "; collapsed" if collapsed else "; stored" if kept else ""
        headers = [pair for pair in answer.headers if pair[0] != self._own_field]
        headers.append((b"cache-status", told.encode("ascii")))
        await _send_answer(answer._replace(headers=headers), scope, send)

    async def _ask_origin(self, key: bytes, scope: Scope) -> Fetched:
        """Return the origin's whole answer to the GET of `scope`, kept if it may be; its failure is an answer too, for all that wait."""
        request = {
            **scope,
            "method": "GET",
            "headers": [pair for pair in scope["headers"] if pair[0] not in _CLIENT_CONDITIONS],
            # Offered `http.response.pathsend`, an application may send a path in place of the bytes that are collected here.
            "extensions": {},
        }
        collected = _Collected()
        try:
            await self._app(request, collected.receive, collected.send)
            answer = collected.answer()
        except Exception:
            log.exception("the origin failed")
            return Fetched(_FAILED, shared=True, kept=False)
        lifetime = lifetime_seconds(answer, self._targeted)
        if lifetime <= MOMENTARY_SECONDS:
            return Fetched(answer, shared=lifetime > 0, kept=False)
        own = [pair for pair in answer.headers if pair[0] not in _NOT_KEPT and pair[0] != self._own_field]
        kept = Kept(
            answer._replace(headers=own),
            cache_name=self._name,
            now=self._clock(),
            age=age_seconds(answer.headers),
            lifetime=lifetime,
        )
        return Fetched(answer, shared=True, kept=self._memory.keep(key, kept))

    async def _pass(self, scope: Scope, receive: Receive, send: Send, reason: bytes) -> None:
        """Hand a request to the origin as it is (HEAD as GET, its body dropped) and the answer back as it comes."""
        head = scope["method"] == "HEAD"
        status = (b"cache-status", self._name + b"; fwd=" + reason)

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != self._own_field]
                message = {**message, "headers": [*headers, status]}
            elif head and message["type"] == "http.response.body":
                if message.get("more_body"):
                    return
                message = _EMPTY_BODY
            await send(message)

        await self._app({**scope, "method": "GET", "extensions": {}} if head else scope, receive, send_on)


class _Collected:
    """The ASGI ends of a request that belongs to no client: no body goes in, the whole answer comes out."""

    def __init__(self) -> None:
        self._start: Message | None = None
        self._body: list[bytes] = []
        self._asked = False
        self._whole = asyncio.Event()

    async def receive(self) -> Message:
        if self._asked:
            await self._whole.wait()
            return {"type": "http.disconnect"}
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body":
            self._body.append(message.get("body", b""))
            if not message.get("more_body"):
                self._whole.set()

    def answer(self) -> Answer:
        # RFC 9111 §3.3: half an answer must not pass for a whole one, least of all for as long as it may be kept.
        if self._start is None or not self._whole.is_set():
            raise RuntimeError("the application returned without a whole answer")
        headers: Headers = [(bytes(name).lower(), bytes(value)) for name, value in self._start.get("headers", ())]
        return Answer(self._start["status"], headers, b"".join(self._body))


def _key(scope: Scope) -> bytes:
    # `raw_path` is optional in ASGI; without it two spellings of one path are one key, which is safe.
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode("ascii")
    query: bytes = scope["query_string"]
    return path + b"?" + query if query else path


async def _send_kept(kept: Kept, scope: Scope, send: Send) -> None:
    etag = kept.etag
    if etag is not None:
        for name, value in scope["headers"]:
            if name == b"if-none-match" and none_match_fails(etag, value):
                await send(kept.not_modified_message)
                await send(_EMPTY_BODY)
                return
    await send(kept.start_message)
    await send(_EMPTY_BODY if scope["method"] == "HEAD" else kept.body_message)


async def _send_answer(answer: Answer, scope: Scope, send: Send) -> None:
    status, headers, body = answer
    etags = field_values(headers, b"etag")
    conditions = b", ".join(field_values(scope["headers"], b"if-none-match"))
    if status == 200 and etags and conditions and none_match_fails(etags[0], conditions):
        told = [pair for pair in headers if pair[0] in {b"age", b"cache-status", b"server-timing"}]
        status, headers, body = 304, not_modified_headers(headers) + told, b""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send(_EMPTY_BODY if scope["method"] == "HEAD" else {"type": "http.response.body", "body": body})


def _busy(name: bytes) -> Answer:
    return problem(
        503,
        "Too many cold requests",
        "As many clients as are allowed wait for answers that are not in memory. Try again in a second.",
        (b"retry-after", b"1"),
        (b"cache-status", name + b"; fwd=miss; detail=busy"),
    )
