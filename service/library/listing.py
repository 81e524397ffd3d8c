"""The images of a store, many at a time: newest first page by page, and those of some digests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import anyio
import msgspec
import structlog

from service.concurrency.for_each import for_each
from service.errors import GoneError, ServiceError
from service.images.document import Document, opened_document
from service.library.takedowns import Takedowns
from service.storage.keys import DOCUMENTS_PREFIX, RECENT_BACKFILLED_KEY, RECENT_PREFIX, document_key, recent_key, recent_name
from service.storage.object_store import Storage

log = structlog.get_logger(__name__)

# Documents that are read from the store at a time, for one request.
MAX_CONCURRENT_READS = 32

# While the processes of a deployment are replaced one by one, those of a version that lists nothing take images in still.
SETTLED_AFTER = timedelta(days=1)

_AGAIN_SECONDS = 10.0


class Page(msgspec.Struct, frozen=True):
    """Some images, newest first; `next` is behind which name the following ones are, `None` at the end."""

    documents: list[Document]
    next: str | None


class Lookup(msgspec.Struct, frozen=True):
    """Of some digests: the documents of those that are here, and those that have been taken down."""

    documents: list[Document]
    gone: list[str]


class Listing:
    """The documents in the store. An entry in `recent/` counts where the document is that it was written for."""

    def __init__(self, storage: Storage, takedowns: Takedowns) -> None:
        """Take where images are kept, and what is not to be shown."""
        self._storage = storage
        self._takedowns = takedowns

    async def page(self, after: str, limit: int) -> Page:
        """Return up to `limit` images behind the entry called `after`, "" for the newest; fewer where entries have lost their image."""
        names = await self._storage.list_names_after(RECENT_PREFIX, after, limit + 1)
        shown = names[:limit]
        documents = await self._documents(_digest(name) for name in shown)
        listed = [
            document
            for name in shown
            if (document := documents.get(_digest(name))) is not None and recent_name(document.digest, document.created) == name
        ]
        return Page(listed, shown[-1] if len(names) > limit else None)

    async def lookup(self, digests: Sequence[str]) -> Lookup:
        """Return what is here of some digests, in their order, each once."""
        distinct = list(dict.fromkeys(digests))
        gone = [digest for digest in distinct if self._is_gone(digest)]
        documents = await self._documents(distinct)
        return Lookup([documents[digest] for digest in distinct if digest in documents], gone)

    async def backfill(self) -> None:
        """Give every image its entry, those too that an earlier version has taken in; again after a failure of the store.

        Whatever else goes wrong is logged alone: images are served without being listed.
        """
        while True:
            try:
                await self._backfill()
            except ServiceError as error:
                log.warning("images could not be listed", problem=error.slug)
                await anyio.sleep(_AGAIN_SECONDS)
            except Exception:
                log.exception("images could not be listed")
                return
            else:
                return

    async def _backfill(self) -> None:
        noted = await self._storage.get(RECENT_BACKFILLED_KEY)
        if noted is not None and datetime.now(UTC) - datetime.fromisoformat(noted.decode("ascii")) > SETTLED_AFTER:
            return
        listed = {_digest(name) async for name in self._storage.list_names(RECENT_PREFIX)}
        missing = [digest async for digest in self._storage.list_names(DOCUMENTS_PREFIX) if digest not in listed]
        for start in range(0, len(missing), MAX_CONCURRENT_READS):
            for document in (await self._documents(missing[start : start + MAX_CONCURRENT_READS])).values():
                key = recent_key(document.digest, document.created)
                await self._storage.put_if_absent(key, b"", durable=False)
                try:
                    await self._takedowns.require_after_writing([document.digest], key)
                except GoneError:
                    continue
        if noted is None:
            await self._storage.put_if_absent(RECENT_BACKFILLED_KEY, datetime.now(UTC).isoformat().encode("ascii"), durable=False)
        if missing:
            log.info("listed what earlier versions took in", images=len(missing))

    async def _documents(self, digests: Iterable[str]) -> dict[str, Document]:
        """Return the documents that are here and not taken down, by digest."""
        found: dict[str, Document] = {}

        async def read(digest: str) -> None:
            body = await self._storage.get(document_key(digest))
            if body is not None and not self._is_gone(digest):
                document = opened_document(digest, body)
                if document is None:
                    log.error("a damaged document is not listed", digest=digest)
                else:
                    found[digest] = document

        await for_each(digests, read, concurrency=MAX_CONCURRENT_READS)
        return found

    def _is_gone(self, digest: str) -> bool:
        try:
            self._takedowns.raise_if_taken_down([digest])
        except GoneError:
            return True
        return False


def _digest(name: str) -> str:
    return name.rpartition("-")[2]
