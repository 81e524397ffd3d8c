"""The log of requests: one line for each request that is not a plain hit, and for a sample of those; and the id of a request.

The edge calls `RequestLog` for these requests only (its parameter `observe`), so that the log costs a plain hit nothing.

**The id.** `X-Request-Id`, or `Fly-Request-Id` behind Fly's proxy, is the id of the request if it is one: a client could write anything.
Otherwise the request gets a random one. It is in every line that is written for the request, also by code far below, and in the response.
Hits that are not in the log have none.

**No secrets.** A line has the path with its signature masked, and neither a query nor header fields. It has the client's address only with
`DARKROOM_LOG_CLIENTS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from random import getrandbits, random
from time import perf_counter
from typing import Any

import structlog
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import sanitize
from service.http.clients import ClientAddresses
from service.urls.signature_mask import mask_path

log = structlog.get_logger(__name__)

# Ids as proxies and tracing systems make them: UUIDs, ULIDs, hexadecimal numbers, with the name of a region. A signature is none.
_ID = re.compile(rb"(?![a-z2-7]{26}$)[A-Za-z0-9][A-Za-z0-9._:/+=@-]{3,127}")

# The parts of `Cache-Status` (RFC 9211) and `Server-Timing` that the log has.
_DETAIL = re.compile(rb"(?:fwd=([a-z-]+)|detail=([a-z-]+))")
_TIER = re.compile(rb"tier;desc=([a-z]+)")
_PROBLEM = re.compile(rb'"type":"/problems/([a-z-]{1,64})"')

_MAX_PATH_CHARACTERS = 500
_MAX_METHOD_CHARACTERS = 20

# Load balancers send them all day.
_HEALTH = "health"


class RequestLog:
    """An ASGI middleware that writes the log of requests."""

    def __init__(
        self, app: ASGIApp, *, label: Callable[[str], str], clients: ClientAddresses | None = None, health_fraction: float = 1.0
    ) -> None:
        """Log the requests to an application.

        label: returns the kind of a request by its path.
        clients: finds the client of a request; `None` if addresses must not be logged.
        health_fraction: the fraction of successful health checks, 0 to 1, that are logged.
        """
        self._app = app
        self._label = label
        self._clients = clients
        self._health_fraction = health_fraction

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, and write its line when it has ended, with a response or without."""
        # The scope of the lifespan has none.
        if scope.get("method") is None:
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        ids = request_ids(scope["headers"])
        response = _Response(send, ids["request_id"])
        with structlog.contextvars.bound_contextvars(**ids):
            try:
                await self._app(scope, receive, response.send)
            finally:
                self._write(scope, response, perf_counter() - started)

    def _write(self, scope: Scope, response: _Response, seconds: float) -> None:
        kind, status = self._label(scope["path"]), response.status
        if kind == _HEALTH and 0 < status < 400 and random() >= self._health_fraction:  # noqa: S311 - not for cryptography
            return
        fields: dict[str, Any] = {
            "method": sanitize(str(scope.get("method")), _MAX_METHOD_CHARACTERS),
            "path": sanitize(mask_path(scope["path"]), _MAX_PATH_CHARACTERS),
            "kind": kind,
            "status": status or None,
            **response.details,
            "bytes": response.sent_bytes,
            "seconds": round(seconds, 6),
        }
        if self._clients is not None:
            fields["client"] = self._clients.find(scope)
        if not response.is_complete:
            # The client has disconnected, or the response broke off.
            fields["incomplete"] = True
        (log.warning if status >= 500 else log.info)("request", **fields)


class _Response:
    """Passes a response on with the id of its request, and notes what the log needs of it."""

    __slots__ = ("_request_id", "_send", "details", "is_complete", "sent_bytes", "status")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id.encode("ascii")
        self.status = 0
        self.sent_bytes = 0
        self.is_complete = False
        self.details: dict[str, str] = {}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.details = _details(message["headers"])
            # A copy, because the edge may send the same message again.
            message = {**message, "headers": [*message["headers"], (b"x-request-id", self._request_id)]}
        elif message["type"] == "http.response.body":
            body = message.get("body", b"")
            if self.status >= 400 and not self.sent_bytes and (problem := _PROBLEM.search(body[:200])):
                self.details["problem"] = problem[1].decode("ascii")
            self.sent_bytes += len(body)
            self.is_complete = not message.get("more_body")
        await self._send(message)


def request_ids(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the id of a request as `request_id`, and that of Fly's proxy as `fly_request_id` if it is another one."""
    found: dict[bytes, list[bytes]] = {b"x-request-id": [], b"fly-request-id": []}
    for name, value in headers:
        if name in found:
            found[name].append(value)
    # Two of the same name cannot both be right.
    own, fly = (values[0].decode("ascii") if len(values) == 1 and _ID.fullmatch(values[0]) else "" for values in found.values())
    request_id = own or fly or f"{getrandbits(128):032x}"
    return {"request_id": request_id, "fly_request_id": fly} if fly and fly != request_id else {"request_id": request_id}


def _details(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return what the edge did, and which tier had a rendition, as the response's own fields say."""
    details: dict[str, str] = {}
    for name, value in headers:
        if name == b"cache-status":
            details["cache"] = cache_result(value)
        elif name == b"server-timing" and (tier := tier_of(value)):
            details["tier"] = tier
    return details


def tier_of(server_timing: bytes) -> str:
    """Return the tier that `Server-Timing` names, "" if it names none."""
    found = _TIER.search(server_timing)
    return "" if found is None else found[1].decode("ascii")


def cache_result(cache_status: bytes) -> str:
    """Return in a word what the edge did: `hit`, `stale`, `collapsed`, or why it forwarded or refused a request (RFC 9211)."""
    # The key at the end is the path, in which a client may write anything.
    parameters = cache_status.partition(b'; key="')[0]
    if b"; hit" in parameters:
        return "stale" if b"ttl=-" in parameters else "hit"
    if b"; collapsed" in parameters:
        return "collapsed"
    found = {"detail" if detail else "fwd": (detail or fwd).decode("ascii") for fwd, detail in _DETAIL.findall(parameters)}
    return found.get("detail") or found.get("fwd") or "none"
