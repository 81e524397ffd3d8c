"""The sources of a server: which image each of their objects is. That may change, so it is recorded; renditions never change."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from copy import copy
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import anyio
import msgspec
import structlog

from service import instruments
from service.concurrency.recent import Recent
from service.concurrency.single_flight import SingleFlight
from service.concurrency.spans import stage
from service.errors import (
    BadAddressError,
    GoneError,
    NotFoundError,
    OverloadedError,
    QuotaExceededError,
    ServiceError,
    SourceFailedError,
    SourceRefusedError,
    SourceSlowError,
    StorageFullError,
    StorageUnavailableError,
    UnsupportedFormatError,
)
from service.images.document import Document
from service.library.documents import Documents
from service.library.ingest import Ingester, IngestResult
from service.library.uploads import Upload
from service.settings.source_locations import SourceLocation
from service.sources.source import Source, SourceObject, Validators
from service.storage.keys import source_mapping_key
from service.storage.object_store import Storage
from service.urls.source_url import check_object_path, decode_segment

log = structlog.get_logger(__name__)

# The maximum number of fetches from one source at a time, each of which has a spool file and a socket; how long a fetch may wait for its
# turn, and how long it may take then, in seconds.
MAX_CONCURRENT_FETCHES = 16
TURN_SECONDS = 10.0
FETCH_SECONDS = 20.0

# How long an object is refused without another fetch, in seconds, and the maximum number of objects that are remembered.
REFUSAL_SECONDS = 10.0
MAX_REFUSALS = 4_096

# With these status codes a source says that it has removed the image: the last image it had must not be shown any more.
_GONE = frozenset({404, 410})

# How soon a source that failed is requested again, in seconds.
_RETRY_SECONDS = 30

# For how long a source that fails, or has too many requests, may show the last image that it had, in seconds.
STALE_SECONDS = 7 * 86_400

# The errors that are recorded, or that say nothing about the object. After every other one it is unlikely to become an image soon.
_NOT_OF_THE_OBJECT = (GoneError, OverloadedError, QuotaExceededError, StorageFullError, StorageUnavailableError)

_ASCII = "".join(map(chr, range(128)))


def _ignore(_: int) -> None:
    """Count no bytes."""


class SourceMapping(msgspec.Struct, frozen=True):
    """The image that an object of a source was when it was last requested.

    url: the object's, as `SourceLocation.url` returns it. validators: those of the object. checked_at: Unix time in seconds.
    """

    source: str
    url: str
    digest: str
    validators: Validators
    checked_at: float


class SourceImage(msgspec.Struct, frozen=True):
    """The image that an object is, for how many seconds more that counts as fresh, and for how many after that it may be shown."""

    document: Document
    fresh_seconds: int
    stale_seconds: int = STALE_SECONDS


class Sources:
    """The images of all sources. An object that several requests need at once is fetched once."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        locations: Mapping[str, SourceLocation],
        storage: Storage,
        documents: Documents,
        ingester: Ingester,
        *,
        fresh_seconds: int,
        max_pending: int,
    ) -> None:
        """Take images from sources into a store.

        sources: by name.
        locations: of the same names.
        storage: where it is recorded which image each object is.
        documents: reads the document of an image that was taken in before.
        ingester: stores the images that are fetched.
        fresh_seconds: how long the image of an object is used before the source is requested again.
        max_pending: how many fetches from one source may be in progress or wait for their turn, at least 1.
        """
        self._sources = sources
        self.locations = locations
        self._storage = storage
        self._documents = documents
        self._ingester = ingester
        self._fresh_seconds = fresh_seconds
        self._finding: SingleFlight[str, SourceImage] = SingleFlight()
        self._turns = {name: anyio.Semaphore(MAX_CONCURRENT_FETCHES) for name in sources}
        self._pending: Counter[str] = Counter()
        self._max_pending = max_pending
        # Anyone can request any path below a source. Without this, each of the URLs for a path that leads to no image would fetch it again.
        self._refusals: Recent[str, ServiceError] = Recent(REFUSAL_SECONDS, MAX_REFUSALS)
        for name in sources:
            for result in instruments.SOURCE_FETCHES.labels["result"]:
                instruments.SOURCE_FETCHES.add(name, result, amount=0)

    def __repr__(self) -> str:
        return f"<Sources: {', '.join(self._sources) or 'none'}; {self._finding!r}, {len(self._refusals)} refusals>"

    def require(self, name: str) -> SourceLocation:
        """Return where a source is; raises `NotFoundError` for a name that is not configured."""
        location = self.locations.get(name)
        if location is None:
            # The names are no secrets: they are in public URLs, and whatever is below a source is public too.
            raise NotFoundError(
                "There is no source with this name.",
                expected=", ".join(self.locations) or "a name in DARKROOM_SOURCES, which names none",
                received=name,
                remedy="Use the name of a source, or add this one to DARKROOM_SOURCES on the server.",
            )
        return location

    def locate(self, url: str) -> tuple[str, str]:
        """Return the name of the source that a URL of an image is below, and the decoded path of the object there.

        The path may have characters that are not ASCII, as browsers and many systems accept it (RFC 3987 §3.1).
        Raises `SourceRefusedError` if there is no such source, and `BadAddressError` for a path that could lead out of it.
        """
        try:
            parts = urlsplit(url)
            parts = parts._replace(path=quote(parts.path, safe=_ASCII))
            found = [(name, location.below_prefix(parts)) for name, location in self.locations.items()]
            has_user = "@" in parts.netloc
        except ValueError:
            found, has_user = [], False
        # The longest prefix leaves the fewest segments.
        name, segments = min(((name, segments) for name, segments in found if segments), key=lambda pair: len(pair[1]), default=("", []))
        if not segments or has_user:
            prefixes = [location.url("") for location in self.locations.values() if not location.is_bucket]
            raise SourceRefusedError(
                "This URL is not below a source.",
                expected=f"a URL that begins with {' or '.join(prefixes)}" if prefixes else "a source with https in DARKROOM_SOURCES",
                received=url,
                remedy="Add the host to DARKROOM_SOURCES on the server, or upload the image's bytes.",
            )
        path = "/".join(decode_segment(segment) for segment in segments)
        if "?" in path.rpartition("/")[2]:
            raise BadAddressError(
                "The name of the object has a question mark.",
                expected="a name without one, because it begins the query of the object's URL in a path",
                received=url,
                remedy="Give the object another name, or upload the image's bytes.",
            )
        # A path is divided at every slash.
        path += f"?{parts.query.replace('/', '%2F')}" if parts.query else ""
        check_object_path(path)
        return name, path

    async def find(self, name: str, path: str) -> SourceImage:
        """Return the image that an object is, revalidated if it is not fresh; the last known one if the source fails.

        name: of a source that is configured. path: decoded, checked by `check_object_path`.

        Raises `NotFoundError` if the source has no such object; `SourceFailedError` and `SourceSlowError` if it fails and no image is
        known; `TooLargeError`; `OverloadedError`; `StorageUnavailableError`; and the errors of `Ingester.ingest`, such as `GoneError`.
        """
        key = source_mapping_key(name, self.locations[name].url(path))
        # If the source has failed, there may be an image that it had.
        self._raise_if_refused(key, but=(SourceFailedError, SourceSlowError))
        return await self._finding.run(key, lambda: self._find(name, path, key))

    async def ingest(self, name: str, path: str, on_bytes: Callable[[int], None] = _ignore) -> IngestResult:
        """Fetch an object, unless it is still the image that it was, and store it as an image; raises the errors of `find`.

        on_bytes: called with the number of bytes of each piece of the object; its errors end the fetch.
        """
        key = source_mapping_key(name, self.locations[name].url(path))
        mapping = await self._last_mapping(key)
        last = None if mapping is None else await self._last_image(mapping)
        return await self._ingest(name, path, key, mapping, last, on_bytes=on_bytes)

    async def list(self, name: str, after: str, limit: int) -> Sequence[SourceObject]:
        """Return objects of a source as `Source.list` does."""
        try:
            with anyio.fail_after(FETCH_SECONDS):
                return await self._sources[name].list(after, limit)
        except TimeoutError:
            raise _too_slow("the list of its objects") from None

    async def aclose(self) -> None:
        """Cancel the fetches in progress: no client is left to wait for them."""
        await self._finding.aclose()

    async def _find(self, name: str, path: str, key: str) -> SourceImage:
        mapping = await self._last_mapping(key)
        last = None if mapping is None else await self._last_image(mapping)
        age = -1.0 if mapping is None else _now() - mapping.checked_at
        # A negative age means that the clock was set back: how much time has passed is unknown.
        if last is not None and 0 <= age < self._fresh_seconds:
            return SourceImage(_require(last), int(self._fresh_seconds - age))
        try:
            self._raise_if_refused(key)
            return SourceImage((await self._ingest(name, path, key, mapping, last)).document, self._fresh_seconds)
        except (SourceFailedError, SourceSlowError, OverloadedError) as error:
            if not isinstance(last, Document) or age >= STALE_SECONDS:
                raise
            log.warning("a source failed; the image it had is shown", problem=error.slug, detail=error.detail, digest=last.digest)
            return SourceImage(last, _RETRY_SECONDS, int(STALE_SECONDS - max(age, 0)))

    def _raise_if_refused(self, key: str, *, but: tuple[type[ServiceError], ...] = ()) -> None:
        refusal = self._refusals.get(key)
        if refusal is not None and not isinstance(refusal, but):
            raise copy(refusal)

    async def _last_mapping(self, key: str) -> SourceMapping | None:
        stored = await self._storage.get(key)
        try:
            return None if stored is None else msgspec.json.decode(stored, type=SourceMapping)
        except msgspec.DecodeError:
            log.warning("a damaged source mapping is replaced")
            return None

    async def _last_image(self, mapping: SourceMapping) -> Document | GoneError | None:
        """Return the document of the image that an object was, the error if that was taken down, or `None` if it is not stored."""
        try:
            return await self._documents.get(mapping.digest)
        except GoneError as error:
            return error
        except NotFoundError:
            return None

    async def _ingest(
        self,
        name: str,
        path: str,
        key: str,
        mapping: SourceMapping | None,
        last: Document | GoneError | None,
        *,
        on_bytes: Callable[[int], None] = _ignore,
    ) -> IngestResult:
        """Fetch an object unless it still has the validators of the last image, store it as an image, and record the result.

        An image that was taken down stays so; the source may have another one by now.
        """
        validators = Validators() if mapping is None or last is None else mapping.validators
        checked_at = _now()
        url = self.locations[name].url(path)
        if last is None:
            self._ingester.raise_if_full()
        try:
            async with self._fetched(name, path, validators, on_bytes) as (upload, changed):
                digest = upload.digest if changed is not None or mapping is None else mapping.digest
                record = SourceMapping(name, url, digest, changed or validators, checked_at)
                try:
                    if changed is None:
                        result = IngestResult(_unchanged(last), created=False)
                    else:
                        result = await self._ingester.ingest(upload, file_name=_file_name(path))
                except GoneError:
                    # Otherwise every request would fetch the object again in order to be refused.
                    await self._record(key, record)
                    raise
        except ServiceError as error:
            if not isinstance(error, _NOT_OF_THE_OBJECT):
                # The error itself refers to the frames that it has passed, and they to the request and its file.
                self._refusals.add(key, copy(error))
            raise
        self._refusals.discard(key)
        await self._record(key, record)
        return result

    async def _record(self, key: str, mapping: SourceMapping) -> None:
        try:
            await self._storage.put(key, msgspec.json.encode(mapping), durable=False)
        except ServiceError as error:
            log.warning("a source mapping was not stored", problem=error.slug)

    @asynccontextmanager
    async def _fetched(
        self, name: str, path: str, validators: Validators, on_bytes: Callable[[int], None]
    ) -> AsyncIterator[tuple[Upload, Validators | None]]:
        """Fetch an object, and give it with its validators; with `None` and without bytes if it still has `validators`."""

        async def write(piece: bytes) -> None:
            on_bytes(len(piece))
            await upload.write(piece)

        async with AsyncExitStack() as stack:
            try:
                async with self._turn(name):
                    # A fetch that waits needs no file.
                    upload = await stack.enter_async_context(self._ingester.spool.open())
                    with stage("source fetch", source_name=name), _counting_failures(name), anyio.fail_after(FETCH_SECONDS):
                        found = await self._sources[name].fetch(path, validators, write)
                    instruments.SOURCE_FETCHES.add(name, "unchanged" if found is None else "fetched")
            except TimeoutError:
                raise _too_slow("an image") from None
            except SourceFailedError as error:
                if error.source_status not in _GONE:
                    raise
                raise NotFoundError(
                    "The source has no such image.",
                    expected="the path of an object that exists",
                    received=f"status {error.source_status} from the source",
                    remedy="Correct the path, or put the image back where it was.",
                ) from error
            if found is not None and upload.bytes == 0:
                raise UnsupportedFormatError(
                    "The object in the source is empty.", expected="an image", received="0 bytes", remedy="Put the image there again."
                )
            yield upload, found

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        """Wait for the turn of a fetch; raises `OverloadedError` if that takes too long, and at once if too many wait already.

        Each of those that wait is a cold request of the edge, which has not many.
        """
        if self._pending[name] >= self._max_pending:
            raise self._busy()
        self._pending[name] += 1
        try:
            with anyio.move_on_after(TURN_SECONDS) as scope:
                await self._turns[name].acquire()
            if scope.cancelled_caught:
                raise self._busy()
            try:
                yield
            finally:
                self._turns[name].release()
        finally:
            self._pending[name] -= 1

    def _busy(self) -> OverloadedError:
        return OverloadedError(
            "Too many images of this source are requested at the same time.",
            expected=f"at most {self._max_pending}, of which each waits at most {TURN_SECONDS:g} seconds for its turn",
            remedy="Try again in a few seconds.",
            retry_after_seconds=5,
        )


@contextmanager
def _counting_failures(name: str) -> Iterator[None]:
    """Measure a request to a source, and count it if it fails."""
    try:
        with instruments.SOURCE_SECONDS.measuring(name):
            yield
    except (ServiceError, TimeoutError) as error:
        result = "rejected"
        if isinstance(error, SourceSlowError | TimeoutError):
            result = "slow"
        elif isinstance(error, SourceFailedError):
            result = "missing" if error.source_status in _GONE else "failed"
        instruments.SOURCE_FETCHES.add(name, result)
        raise


def _file_name(path: str) -> str:
    """Return the last segment of a path, without the query of an object's URL."""
    return path.rpartition("/")[2].partition("?")[0]


def _require(last: Document | GoneError) -> Document:
    if isinstance(last, GoneError):
        raise last
    return last


def _unchanged(last: Document | GoneError | None) -> Document:
    if last is None:
        raise SourceFailedError(
            "The source responded 304 Not Modified to an unconditional request.", remedy="Report this to the operator of the source."
        )
    return _require(last)


def _too_slow(expected: str) -> SourceSlowError:
    return SourceSlowError(
        "The source took too long.",
        expected=f"{expected} within {FETCH_SECONDS:g} seconds",
        received="none yet",
        remedy="Try again later, or upload the image's bytes.",
        retry_after_seconds=30,
    )


def _now() -> float:
    return datetime.now(UTC).timestamp()
