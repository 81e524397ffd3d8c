"""Sources: what a remote source had when it was last asked. All that is mutable lies in them, never in a rendition."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import structlog

from service.errors import GoneError, NotFoundError, ServiceError, SourceFailedError, SourceSlowError
from service.images.document import Document
from service.library.documents import Documents
from service.library.ingest import Ingester, IngestResult
from service.pull.validators import Validators
from service.storage.keys import pull_mapping_key
from service.storage.object_store import Storage

if TYPE_CHECKING:
    # It brings an HTTP client, which those who fetch nothing need not load.
    from service.pull.fetcher import SourceFetcher

log = structlog.get_logger(__name__)

# What a source that has gone answers with: no reason to show what it once had.
_GONE = frozenset({404, 410})

# A source that fails is asked again this soon, in seconds.
_RETRY_SECONDS = 30


class PullMapping(msgspec.Struct, frozen=True):
    """Which image a URL led to, the validators it had, and when it was last asked (Unix time in seconds)."""

    url: str
    digest: str
    validators: Validators
    asked: float


class Found(msgspec.Struct, frozen=True):
    """The image that a URL leads to, and for how many seconds that may be taken for granted."""

    document: Document
    fresh_seconds: int


class Sources:
    """The remote sources that have been asked for. One that several ask for at once is fetched once."""

    def __init__(self, storage: Storage, documents: Documents, ingester: Ingester, fetcher: SourceFetcher, *, fresh_seconds: int) -> None:
        """Take where pointers are kept, what takes images in, what fetches, and how long a source is not asked again."""
        self._storage = storage
        self._documents = documents
        self._ingester = ingester
        self._fetcher = fetcher
        self._fresh_seconds = fresh_seconds
        self._asking: dict[str, asyncio.Task[Found]] = {}

    def check(self, url: str) -> str:
        """Return a URL in the spelling that is signed; raises `SourceRefusedError` for one that would not be fetched."""
        return self._fetcher.check(url)

    async def find(self, url: str) -> Found:
        """Return the image that a URL leads to now, or did when it was last asked if that is not long ago or it fails to answer.

        Raises `SourceRefusedError`, `SourceFailedError`, `SourceSlowError`, `NotFoundError` where the source has nothing, and what ingest
        raises.
        """
        task = self._asking.get(url)
        if task is None:
            task = self._asking[url] = asyncio.create_task(self._find(url))
            task.add_done_callback(lambda done: self._found(url, done))
        return await asyncio.shield(task)

    async def ingest(self, url: str) -> IngestResult:
        """Return the document of the image that a URL leads to, once it is stored."""
        async with self._ingester.spool.open() as upload:
            await self._fetcher.fetch(url, Validators(), upload.write)
            return await self._ingester.ingest(upload)

    async def aclose(self) -> None:
        """Give up what is being fetched: nobody is left to wait for it."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _found(self, url: str, task: asyncio.Task[Found]) -> None:
        del self._asking[url]
        if not task.cancelled():
            # Whoever waited has the error; if nobody did, asyncio must not report it as forgotten.
            task.exception()

    async def _find(self, url: str) -> Found:
        known, document = await self._known(url)
        age = -1.0 if known is None else _now() - known.asked
        # A negative age is a clock that was set back: nothing is known of the time since.
        if document is not None and 0 <= age < self._fresh_seconds:
            return Found(document, int(self._fresh_seconds - age))
        try:
            return await self._ask(url, known, document)
        except (SourceFailedError, SourceSlowError) as error:
            if isinstance(error, SourceFailedError) and error.source_status in _GONE:
                raise NotFoundError(
                    "The source has no such image.",
                    expected="a URL that leads to an image",
                    received=f"status {error.source_status} from the source",
                    remedy="Correct the URL, or put the image back where it was.",
                ) from error
            if document is None:
                raise
            log.warning("a source failed; what it had is shown", problem=error.slug, detail=error.detail, digest=document.digest)
            return Found(document, _RETRY_SECONDS)

    async def _known(self, url: str) -> tuple[PullMapping | None, Document | None]:
        """Return what is known of a URL, and the image if it is still here."""
        noted = await self._storage.get(pull_mapping_key(url))
        if noted is None:
            return None, None
        try:
            mapping = msgspec.json.decode(noted, type=PullMapping)
        except msgspec.DecodeError:
            log.warning("a damaged pointer is made again")
            return None, None
        try:
            return mapping, await self._documents.get(mapping.digest)
        except (NotFoundError, GoneError):
            # What was taken down stays so; the source may have something else by now.
            return mapping, None

    async def _ask(self, url: str, known: PullMapping | None, document: Document | None) -> Found:
        """Ask the source, whether what is here still holds where that is known, and note what it says."""
        held = Validators() if known is None or document is None else known.validators
        asked = _now()
        async with self._ingester.spool.open() as upload:
            validators = await self._fetcher.fetch(url, held, upload.write)
            if validators is not None:
                document = (await self._ingester.ingest(upload)).document
        if document is None:
            raise SourceFailedError(
                "The source says that nothing has changed, though it was not asked.", remedy="Tell whoever runs the source."
            )
        mapping = PullMapping(url, document.digest, held if validators is None else validators, asked)
        try:
            await self._storage.put(pull_mapping_key(url), msgspec.json.encode(mapping), durable=False)
        except ServiceError as error:
            log.warning("a pointer was not stored", problem=error.slug)
        return Found(document, self._fresh_seconds)


def _now() -> float:
    return datetime.now(UTC).timestamp()
