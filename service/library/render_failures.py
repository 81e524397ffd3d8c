"""Render failures, shared through the store: what one server has found out, servers in every region know a moment later."""

from __future__ import annotations

import math
import secrets
from typing import get_args

import anyio
import structlog

from service.concurrency.polling import poll
from service.errors import ServiceError
from service.rendering.circuit_breaker import CircuitBreaker, FailureMode, RenderFailure
from service.storage.keys import RENDER_FAILURES_PREFIX, render_failure_key
from service.storage.object_store import Storage

log = structlog.get_logger(__name__)

# How often the failures of other servers are read, and how soon new ones of this server are written, in seconds.
SYNC_EVERY_SECONDS = 10.0
WRITE_EVERY_SECONDS = 0.5

_FAILURE_MODES = frozenset(get_args(FailureMode))


class RenderFailures:
    """Writes the render failures of this process to the store and reads those of the others, so that no request has to."""

    def __init__(self, storage: Storage, circuit_breaker: CircuitBreaker) -> None:
        """Share the failures of a circuit breaker.

        storage: each failure is an empty object there, whose name says what failed and how.
        circuit_breaker: that of this process's render pool.
        """
        self._storage = storage
        self._circuit_breaker = circuit_breaker
        self._synced_at = -math.inf

    def __repr__(self) -> str:
        return f"<RenderFailures: {len(self._circuit_breaker.unshared)} to write>"

    async def watch(self) -> None:
        """Synchronize for as long as this process serves: at once after a failure here, otherwise every `SYNC_EVERY_SECONDS`."""
        await poll(self._sync_if_due, every=WRITE_EVERY_SECONDS, retry_after=SYNC_EVERY_SECONDS, on_error=_sync_failed)

    async def sync(self) -> None:
        """Write the failures that are not in the store yet, read the others, and delete the expired ones.

        Raises `StorageUnavailableError`.
        """
        unshared = self._circuit_breaker.unshared
        while unshared:
            failure = unshared[0]
            key = render_failure_key(failure.subject, f"{int(failure.at)}-{failure.mode}-{secrets.token_hex(4)}")
            await self._storage.put(key, b"", durable=False)
            unshared.popleft()
        found: list[RenderFailure] = []
        expired: list[str] = []
        async for entry in self._storage.list_objects(RENDER_FAILURES_PREFIX):
            parsed = _parse(entry.key)
            if parsed is None or self._circuit_breaker.has_expired(parsed):
                expired.append(entry.key)
            else:
                found.append(parsed)
        self._circuit_breaker.synchronize(found)
        for key in expired:
            await self._storage.delete(key)

    async def _sync_if_due(self) -> None:
        if self._circuit_breaker.unshared or anyio.current_time() - self._synced_at >= SYNC_EVERY_SECONDS:
            self._synced_at = anyio.current_time()
            await self.sync()


def _sync_failed(error: ServiceError) -> None:
    log.warning("render failures could not be shared", problem=error.slug)


def _parse(key: str) -> RenderFailure | None:
    """Return the failure that is stored under a key, `None` for a key that names none."""
    _, _, name = key.partition("/")
    subject, _, rest = name.partition("/")
    seconds, _, rest = rest.partition("-")
    mode = rest.rpartition("-")[0]
    if not seconds.isascii() or not seconds.isdigit() or mode not in _FAILURE_MODES:
        return None
    return RenderFailure(subject, mode, float(seconds))  # type: ignore[arg-type]
