"""Upload tickets that have been used: an object in the store for each, so that no server of the store accepts a ticket twice."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import anyio
import structlog

from service.concurrency.polling import poll
from service.errors import ServiceError, UploadExpiredError, UploadUsedError
from service.storage.keys import USED_UPLOADS_PREFIX, used_upload_key
from service.storage.object_store import Storage
from service.urls.upload_ticket import UploadTicket

log = structlog.get_logger(__name__)

# A record is removed this long after its ticket has expired: the clocks of servers that share a store may differ by minutes.
KEEP_SECONDS = 3_600

_POLL_INTERVAL_SECONDS = 600.0
_REMOVED_AT_A_TIME = 1_000

# The time that a failed upload has to give its ticket back. If the store is down, that is tried again after so many seconds, for so many
# tickets at most.
_RELEASE_SECONDS = 10.0
_RETRY_RELEASE_SECONDS = 5.0
_MAX_UNRELEASED = 10_000

_NEW_TICKET = "Request a new upload URL with POST /v1/uploads."


class UploadTickets:
    """Accepts each ticket once and only in its time, whichever server it was made by."""

    def __init__(self, storage: Storage) -> None:
        """Accept tickets.

        storage: where the used ones are recorded.
        """
        self._storage = storage
        # The keys and the contents of the records of failed uploads that are still in the store, or may be.
        self._unreleased: deque[tuple[str, bytes]] = deque(maxlen=_MAX_UNRELEASED)

    def __repr__(self) -> str:
        return f"<UploadTickets: {len(self._unreleased)} to give back>"

    async def require_usable(self, ticket: UploadTicket) -> None:
        """Return if a ticket may be used now.

        Raises `UploadExpiredError`, `UploadUsedError` and `StorageUnavailableError`.
        """
        _require_current(ticket)
        if await self._storage.exists(used_upload_key(ticket.expires, ticket.id), consistent=True):
            raise _used()

    @asynccontextmanager
    async def use(self, ticket: UploadTicket) -> AsyncIterator[None]:
        """Record that a ticket is used, before its image is stored within the block. If the block raises, the ticket can be used again.

        If the block raises because the store is down, the ticket can be used again soon after the store is back. A server that is killed
        within the block leaves the ticket used: rather no image than two.

        Raises `UploadExpiredError`, `UploadUsedError`, `StorageUnavailableError` and `StorageFullError`.
        """
        _require_current(ticket)
        key = used_upload_key(ticket.expires, ticket.id)
        # Random bytes, because a put that is repeated after a lost response recognizes its own object by them.
        record = secrets.token_bytes(16)
        async with self._released_on_failure(key, record):
            # An error does not mean that nothing was put.
            created = await self._storage.put_if_absent(key, record, durable=True)
        if not created:
            raise _used()
        async with self._released_on_failure(key, record):
            yield

    async def watch(self) -> None:
        """Remove the records of expired tickets and of failed uploads regularly, for as long as this process serves."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(poll, self._release_all, every=_RETRY_RELEASE_SECONDS))
            await poll(self.remove_expired, every=_POLL_INTERVAL_SECONDS, on_error=_log_failure)

    async def remove_expired(self) -> None:
        """Remove the records of tickets that expired long ago; raises `StorageUnavailableError`."""
        while True:
            names = await self._storage.list_names_after(USED_UPLOADS_PREFIX, "", _REMOVED_AT_A_TIME)
            # Names begin with the time, so the oldest come first.
            expired = [name for name in names if _expires(name) + KEEP_SECONDS < time.time()]
            for name in expired:
                await self._storage.delete(f"{USED_UPLOADS_PREFIX}/{name}")
            if len(expired) < _REMOVED_AT_A_TIME:
                return

    @asynccontextmanager
    async def _released_on_failure(self, key: str, record: bytes) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            self._unreleased.append((key, record))
            with anyio.move_on_after(_RELEASE_SECONDS, shield=True):
                await self._release_all()
            raise

    async def _release_all(self) -> None:
        """Remove the records of failed uploads, as far as the store permits."""
        for key, record in list(self._unreleased):
            try:
                # Another upload may have used the ticket if this one's record was never put.
                if await self._storage.get(key, consistent=True) == record:
                    await self._storage.delete(key)
            except ServiceError as error:
                log.warning("the ticket of a failed upload could not be given back yet", problem=error.slug)
                return
            with suppress(ValueError):
                self._unreleased.remove((key, record))


def _require_current(ticket: UploadTicket) -> None:
    now = time.time()
    if now >= ticket.expires:
        raise UploadExpiredError(
            "This upload URL has expired.",
            expected="an upload that is complete before the URL expires",
            received=f"an upload {now - ticket.expires:.0f} seconds after that",
            remedy=_NEW_TICKET,
        )


def _used() -> UploadUsedError:
    return UploadUsedError("This upload URL has been used.", expected="one upload", received="another one after it", remedy=_NEW_TICKET)


def _expires(name: str) -> int:
    seconds = name.partition("-")[0]
    # Any other name is no record of ours.
    return int(seconds) if seconds.isascii() and seconds.isdigit() else 0


def _log_failure(error: ServiceError) -> None:
    log.warning("the records of expired upload tickets could not be removed", problem=error.slug)
