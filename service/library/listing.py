"""The list of all images: newest first page by page, or the documents of given digests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import repeat

import msgspec
import structlog

from service.concurrency.for_each import for_each
from service.concurrency.retrying import retry
from service.errors import DamagedDocumentError, GoneError, ServiceError
from service.images.document import Document
from service.library.image_store import ImageStore, listed_digest, listing_name
from service.library.takedowns import Takedowns
from service.storage.keys import RECENT_BACKFILLED_KEY
from service.storage.object_store import Storage

log = structlog.get_logger(__name__)

# How many documents one request reads from the store at a time.
MAX_CONCURRENT_READS = 32

# While the processes of a deployment are replaced one by one, some of an earlier version still store images without listing them.
SETTLED_AFTER = timedelta(days=1)

# Between two attempts to complete the list if the store fails.
_RETRY_SECONDS = 10.0


class Page(msgspec.Struct, frozen=True):
    """Some images, newest first. `next` is the name of the last place on this page, after which the next page starts; `None` at the end."""

    documents: list[Document]
    next: str | None


class Lookup(msgspec.Struct, frozen=True):
    """The documents of the given digests that are stored, and the digests that are taken down."""

    documents: list[Document]
    gone: list[str]


class Listing:
    """The list of images. An entry of the list counts only if a document with the same digest and time exists."""

    def __init__(self, storage: Storage, images: ImageStore, takedowns: Takedowns) -> None:
        """List the images of a store.

        storage: where the time of the first complete backfill is recorded.
        images: where the entries and the documents are stored.
        takedowns: the images that are taken down, which are left out.
        """
        self._storage = storage
        self._images = images
        self._takedowns = takedowns
        self._is_backfilled = False

    def __repr__(self) -> str:
        return f"<Listing: {'complete' if self._is_backfilled else 'backfill in progress'}>"

    async def page(self, after: str, limit: int) -> Page:
        """Return up to `limit` images after the entry named `after` ("" for the newest): fewer if some entries have no image any more.

        Raises `StorageUnavailableError`.
        """
        names = await self._images.listing_after(after, limit + 1)
        shown = names[:limit]
        documents = await self._documents(listed_digest(name) for name in shown)
        listed = [
            document for name in shown if (document := documents.get(listed_digest(name))) is not None and listing_name(document) == name
        ]
        return Page(listed, shown[-1] if len(names) > limit else None)

    async def lookup(self, digests: Sequence[str]) -> Lookup:
        """Return what is stored of some digests, in their order, without duplicates; raises `StorageUnavailableError`."""
        distinct = list(dict.fromkeys(digests))
        gone = [digest for digest in distinct if self._takedowns.is_taken_down(digest)]
        documents = await self._documents(distinct)
        return Lookup([documents[digest] for digest in distinct if digest in documents], gone)

    async def backfill(self) -> None:
        """Add missing entries, such as those of images that an earlier version stored; retry while the store fails.

        Any other error is only logged: images can be served without being listed.
        """

        def retry_after(error: Exception) -> float | None:
            if not isinstance(error, ServiceError):
                return None
            log.warning("images could not be listed", problem=error.slug)
            return _RETRY_SECONDS

        try:
            await retry(self._backfill, pauses=repeat(_RETRY_SECONDS), retry_after=retry_after)
        except Exception:
            log.exception("images could not be listed")
        else:
            self._is_backfilled = True

    async def _backfill(self) -> None:
        if moved := await self._storage.spread_list():
            log.info("moved the list of an earlier version", images=moved)
        completed = await self._storage.get(RECENT_BACKFILLED_KEY)
        if completed is not None and datetime.now(UTC) - datetime.fromisoformat(completed.decode("ascii")) > SETTLED_AFTER:
            return
        missing = await self._images.unlisted_digests()
        for start in range(0, len(missing), MAX_CONCURRENT_READS):
            for document in (await self._documents(missing[start : start + MAX_CONCURRENT_READS])).values():
                try:
                    async with self._images.writing(document.digest) as writer:
                        await writer.create_listing_entry(document.created, durable=False)
                except GoneError:
                    continue
        if completed is None:
            await self._storage.put_if_absent(RECENT_BACKFILLED_KEY, datetime.now(UTC).isoformat().encode("ascii"), durable=False)
        if missing:
            log.info("listed images of earlier versions", images=len(missing))

    async def _documents(self, digests: Iterable[str]) -> dict[str, Document]:
        """Return the documents that are stored and not taken down, by digest."""
        found: dict[str, Document] = {}

        async def read(digest: str) -> None:
            try:
                document = await self._images.read_document(digest)
            except DamagedDocumentError:
                log.error("a damaged document is not listed", digest=digest)  # noqa: TRY400 - the traceback says nothing more
                return
            if document is not None and not self._takedowns.is_taken_down(digest):
                found[digest] = document

        await for_each(digests, read, concurrency=MAX_CONCURRENT_READS)
        return found
