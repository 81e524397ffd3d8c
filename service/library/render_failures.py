"""The failures of the circuit, shared in the store: what one server found out, servers of every region know a moment later."""

from __future__ import annotations

import secrets
from typing import get_args

import anyio
import structlog

from service.errors import ServiceError
from service.rendering.circuit_breaker import CircuitBreaker, FailureMode, RenderFailure
from service.storage.keys import RENDER_FAILURES_PREFIX, render_failure_key
from service.storage.object_store import Storage

log = structlog.get_logger(__name__)

# How often the failures that other servers noted are read, and those of this one are written, in seconds.
SYNC_EVERY_SECONDS = 10.0
WRITE_EVERY_SECONDS = 0.5

_FAILURE_MODES = frozenset(get_args(FailureMode))


class RenderFailures:
    """Writes the failures of this process to the store, and reads those of the others, so that no request has to."""

    def __init__(self, storage: Storage, circuit: CircuitBreaker) -> None:
        """Share the failures of a circuit.

        storage: where each failure is an empty object, whose name says what failed and how.
        circuit: the circuit of this process's render pool.
        """
        self._storage = storage
        self._circuit = circuit

    async def watch(self) -> None:
        """Synchronize again and again, for as long as this process serves."""
        synced_at = -SYNC_EVERY_SECONDS
        while True:
            if self._circuit.unshared or anyio.current_time() - synced_at >= SYNC_EVERY_SECONDS:
                synced_at = anyio.current_time()
                try:
                    await self.sync()
                except ServiceError as error:
                    log.warning("render failures could not be shared", problem=error.slug)
                    await anyio.sleep(SYNC_EVERY_SECONDS)
            await anyio.sleep(WRITE_EVERY_SECONDS)

    async def sync(self) -> None:
        """Write what is not in the store yet, read what is, and delete what is forgotten; raises `StorageUnavailableError`."""
        unshared = self._circuit.unshared
        while unshared:
            failure = unshared[0]
            key = render_failure_key(failure.subject, f"{int(failure.at)}-{failure.mode}-{secrets.token_hex(4)}")
            await self._storage.put(key, b"", durable=False)
            unshared.popleft()
        found: list[RenderFailure] = []
        forgotten: list[str] = []
        async for entry in self._storage.list_objects(RENDER_FAILURES_PREFIX):
            noted = _parsed(entry.key)
            if noted is None or self._circuit.has_expired(noted):
                forgotten.append(entry.key)
            else:
                found.append(noted)
        self._circuit.synchronize(found)
        for key in forgotten:
            await self._storage.delete(key)


def _parsed(key: str) -> RenderFailure | None:
    """Return the failure that is stored under a key, `None` for a key that names none."""
    _, _, name = key.partition("/")
    subject, _, rest = name.partition("/")
    seconds, _, rest = rest.partition("-")
    mode = rest.rpartition("-")[0]
    if not seconds.isascii() or not seconds.isdigit() or mode not in _FAILURE_MODES:
        return None
    return RenderFailure(subject, mode, float(seconds))  # type: ignore[arg-type]
