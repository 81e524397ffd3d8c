"""Remote sources: which image a URL leads to. That may change, so it is recorded in pull mappings; renditions never change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import structlog

from service.concurrency.single_flight import SingleFlight
from service.errors import GoneError, NotFoundError, ServiceError, SourceFailedError, SourceSlowError
from service.images.document import Document
from service.library.documents import Documents
from service.library.ingest import Ingester, IngestResult
from service.storage.keys import pull_mapping_key
from service.storage.object_store import Storage

if TYPE_CHECKING:
    # The fetcher loads an HTTP client, which a server without remote sources does not need.
    from service.pull.fetcher import SourceFetcher

log = structlog.get_logger(__name__)

# With these status codes a source says that it has removed the image: the last image it had must not be shown any more.
_GONE = frozenset({404, 410})

# How soon a source that failed is requested again, in seconds.
_RETRY_SECONDS = 30


class Validators(msgspec.Struct, frozen=True):
    """The `ETag` and `Last-Modified` of a response, "" where it had none (RFC 9110 §8.8)."""

    etag: str = ""
    last_modified: str = ""


class PullMapping(msgspec.Struct, frozen=True):
    """The image that a URL led to, the validators of that response, and when the source was last requested (Unix time in seconds)."""

    url: str
    digest: str
    validators: Validators
    # Stored mappings spell it this way.
    checked_at: float = msgspec.field(name="asked")


class PulledImage(msgspec.Struct, frozen=True):
    """The image that a URL leads to, and for how many seconds more that counts as fresh."""

    document: Document
    fresh_seconds: int


class Sources:
    """The images of remote sources. A URL that several requests need at once is fetched once."""

    def __init__(self, storage: Storage, documents: Documents, ingester: Ingester, fetcher: SourceFetcher, *, fresh_seconds: int) -> None:
        """Pull into a store.

        storage: where pull mappings are stored.
        documents: reads the document of an image that was pulled before.
        ingester: stores the images that are fetched.
        fetcher: fetches them.
        fresh_seconds: how long the image of a URL is used before the source is requested again.
        """
        self._storage = storage
        self._documents = documents
        self._ingester = ingester
        self._fetcher = fetcher
        self._fresh_seconds = fresh_seconds
        self._pulling: SingleFlight[str, PulledImage] = SingleFlight()

    def __repr__(self) -> str:
        return f"<Sources: {self._pulling!r}>"

    def normalize(self, url: str) -> str:
        """Return a URL in the form that is signed; raises `SourceRefusedError` if it would not be fetched."""
        return self._fetcher.normalize(url)

    async def pull(self, url: str) -> PulledImage:
        """Return the image that a URL leads to, revalidated if it is not fresh; the last known one if the source fails.

        Raises `SourceRefusedError`; `NotFoundError` if the source has no image; `SourceFailedError` and `SourceSlowError` if it fails and
        no image is known; `StorageUnavailableError`, and the errors of `Ingester.ingest`.
        """
        return await self._pulling.run(url, lambda: self._pull(url))

    async def ingest(self, url: str) -> IngestResult:
        """Fetch the image that a URL leads to, and store it; raises the errors of `SourceFetcher.fetch` and `Ingester.ingest`."""
        async with self._ingester.spool.open() as upload:
            await self._fetcher.fetch(url, Validators(), upload.write)
            return await self._ingester.ingest(upload)

    async def aclose(self) -> None:
        """Cancel the fetches in progress: no client is left to wait for them."""
        await self._pulling.aclose()

    async def _pull(self, url: str) -> PulledImage:
        mapping, document = await self._last_known(url)
        age = -1.0 if mapping is None else _now() - mapping.checked_at
        # A negative age means that the clock was set back: how much time has passed is unknown.
        if document is not None and 0 <= age < self._fresh_seconds:
            return PulledImage(document, int(self._fresh_seconds - age))
        try:
            return await self._revalidate(url, mapping, document)
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
            log.warning("a source failed; the image it had is shown", problem=error.slug, detail=error.detail, digest=document.digest)
            return PulledImage(document, _RETRY_SECONDS)

    async def _last_known(self, url: str) -> tuple[PullMapping | None, Document | None]:
        """Return the mapping of a URL, and the document of its image if that is still stored."""
        stored = await self._storage.get(pull_mapping_key(url))
        if stored is None:
            return None, None
        try:
            mapping = msgspec.json.decode(stored, type=PullMapping)
        except msgspec.DecodeError:
            log.warning("a damaged pull mapping is replaced")
            return None, None
        try:
            return mapping, await self._documents.get(mapping.digest)
        except (NotFoundError, GoneError):
            # An image that was taken down stays so; the source may have another one by now.
            return mapping, None

    async def _revalidate(self, url: str, mapping: PullMapping | None, document: Document | None) -> PulledImage:
        """Request the source, conditionally if its last image is still stored, and record the result."""
        validators = Validators() if mapping is None or document is None else mapping.validators
        checked_at = _now()
        async with self._ingester.spool.open() as upload:
            changed = await self._fetcher.fetch(url, validators, upload.write)
            if changed is not None:
                validators = changed
                document = (await self._ingester.ingest(upload)).document
        if document is None:
            raise SourceFailedError(
                "The source responded 304 Not Modified to an unconditional request.", remedy="Report this to the operator of the source."
            )
        mapping = PullMapping(url, document.digest, validators, checked_at)
        try:
            await self._storage.put(pull_mapping_key(url), msgspec.json.encode(mapping), durable=False)
        except ServiceError as error:
            log.warning("a pull mapping was not stored", problem=error.slug)
        return PulledImage(document, self._fresh_seconds)


def _now() -> float:
    return datetime.now(UTC).timestamp()
