"""Renditions: read one from the store, or render and store it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Literal, NamedTuple, TypeVar

import anyio
import anyio.to_thread
import msgspec
import structlog

from service import instruments
from service.concurrency.recent import Recent
from service.concurrency.single_flight import SingleFlight
from service.errors import (
    DeadlineExceededError,
    NewerVersionError,
    NotFoundError,
    OverloadedError,
    ServiceError,
    StorageFullError,
    StorageUnavailableError,
    UnknownImageError,
)
from service.images import geometry, ladder, render_request
from service.images.digest import base32
from service.images.document import OriginalFacts
from service.images.formats import FORMAT_OF_EXTENSION, FORMATS, Format
from service.images.info import ImageInfo, Limits
from service.images.render_request import RenderRequest
from service.images.transform import DEFAULTS, PIPELINE_VERSION, Transform, parse
from service.library.documents import Documents
from service.library.image_store import ImageStore
from service.library.input_memory import INPUT_BYTES_PER_SLOT, InputMemory
from service.library.intermediates import Intermediates
from service.library.takedowns import Takedowns
from service.rendering.cost import Work, render_work
from service.rendering.pool import RenderPool
from service.rendering.protocol import FindTrim, Render, Rendered, Trimmed
from service.rendering.slot_queue import Place, Refused
from service.storage import checksum
from service.urls.rendition_url import RenditionUrl

log = structlog.get_logger(__name__)

T = TypeVar("T")

# Bytes that take about a millisecond to hash.
_LARGE_BYTES = 1 << 20

# How many requests at a time may read their documents and be admitted. A slow store needs some, and each takes the event loop a moment.
_ADMISSIONS_AT_A_TIME = 64

# While every render would be refused: how long a request waits for a bucket to say whether its rendition is stored, in seconds, and how
# many requests may. A refusal is to come within 50 ms.
_LOOKUP_SECONDS = 0.035
_MAX_LOOKUPS = 32

# For how long it is remembered whether a rendition was stored and what it would cost: no client is called back later than after a minute.
_SEEN_SECONDS = 60.0
_MAX_SEEN = 16_384


class Timings(msgspec.Struct, frozen=True):
    """How long a rendition took, in seconds: in total, and of that waiting for a render slot, reading the store, decoding and encoding."""

    total: float
    queue: float = 0.0
    fetch: float = 0.0
    decode: float = 0.0
    encode: float = 0.0


class Rendition(msgspec.Struct, frozen=True):
    """The bytes served, their SHA-256, whether they were read from the store or rendered, and whether the store has them now."""

    body: bytes
    sha256: bytes
    tier: Literal["store", "render"]
    timings: Timings
    stored: bool

    @property
    def etag(self) -> str:
        """The strong entity tag: the base32 of the first 160 bits of the SHA-256, the same in every region."""
        return f'"{base32(self.sha256[:20])}"'


class _Seen(NamedTuple):
    """What was found out about a rendition: whether it is stored, and the work of its render if its document was read."""

    stored: bool
    work: Work | None = None


class Renditions:
    """The renditions that are stored, and those being rendered. One that several requests need at once is rendered once."""

    def __init__(
        self,
        images: ImageStore,
        pool: RenderPool,
        documents: Documents,
        intermediates: Intermediates,
        takedowns: Takedowns,
        *,
        limits: Limits,
        wait_seconds: float,
    ) -> None:
        """Render with a pool of render processes, and store the results.

        images: where renditions are stored.
        pool: renders them.
        documents: says what an original is.
        intermediates: opens the files that renditions are made from.
        takedowns: the images that are taken down, which are in no rendition.
        limits: the pixels and frames that an original or a rendition may have.
        wait_seconds: how long a request waits for its rendition before it gets 503.
        """
        self._images = images
        self._pool = pool
        self._documents = documents
        self._intermediates = intermediates
        self._takedowns = takedowns
        self._limits = limits
        self._wait_seconds = wait_seconds
        self._rendering: SingleFlight[tuple[str, str], Rendition] = SingleFlight()
        self._admitting = anyio.Semaphore(_ADMISSIONS_AT_A_TIME, fast_acquire=True)
        self._announced: dict[tuple[str, str], asyncio.Future[Rendition | None]] = {}
        self._memory = InputMemory(INPUT_BYTES_PER_SLOT * pool.slot_count)
        # Of renditions that were requested while renders were refused.
        self._seen: Recent[tuple[str, str], _Seen] = Recent(_SEEN_SECONDS, _MAX_SEEN)
        self._looking: SingleFlight[tuple[str, str], bytes | None] = SingleFlight()

    def __repr__(self) -> str:
        return f"<Renditions: {self._rendering!r}, {len(self._announced)} announced>"

    async def get_or_render(self, url: RenditionUrl, transform: Transform) -> Rendition:
        """Return the rendition of a verified URL.

        A render goes on after the waiting time, so that the next request finds the rendition stored.

        Raises `NotFoundError` and `GoneError` for the image or its overlay, `NewerVersionError`, `DeadlineExceededError` after the waiting
        time, `BadTransformError`, `TooManyPixelsError`, `TooComplexError` and `FormatNotOfferedError` for a transform that the original or
        the format rules out, `StorageUnavailableError`, and the errors of a render.
        """
        _check_version(url)
        self._takedowns.raise_if_taken_down(digests(url, transform))
        started = time.perf_counter()
        if (found := await self._verified(url, await self._read(url))) is not None:
            seconds = time.perf_counter() - started
            return Rendition(*found, "store", Timings(seconds, fetch=seconds), stored=True)
        end_by = anyio.current_time() + self._wait_seconds
        with self._in_time():
            return await self._rendering.run(_key(url), lambda: self._render_and_store(url, transform, end_by))

    def raise_if_refused(self, url: RenditionUrl) -> None:
        """Raise `OverloadedError` if a request for a rendition would only be refused, as far as that is known without waiting.

        A store on this machine's disk shows without waiting that a rendition is not stored; a bucket was asked before, or is being asked
        for too many others. Raises `GoneError` too.
        """
        key = _key(url)
        refused = self._refusal(url, key)
        if refused is None or self._is_in_progress(key):
            return
        seen = self._seen.get(key)
        path = self._images.rendition_path(*key)
        if path is not None:
            may_be_stored = path.exists()
        elif seen is not None:
            may_be_stored = seen.stored
        else:
            may_be_stored = len(self._looking) < _MAX_LOOKUPS
        if not may_be_stored:
            self._takedowns.raise_if_taken_down([url.digest])
            raise self._pool.overloaded_error(refused)

    async def find_trim(self, digest: str, transform: Transform) -> Trimmed:
        """Return the part of the upright original that is left after the `trim` of a transform, in pixels of the original.

        Raises `NotFoundError`, `GoneError`, `BadTransformError` for a crop outside the picture, `StorageUnavailableError`, and the errors
        of a render.
        """
        facts = await self._documents.facts(digest)
        info = facts.info.of_page(transform.frame)
        geometry.make_plan(info.width, info.height, transform, vector=info.vector)
        self._pool.raise_if_full()
        async with self._documents.or_gone([digest]), AsyncExitStack() as stack:
            with self._in_time():
                await stack.enter_async_context(self._memory.reserve(self._intermediates.memory_of(facts)))
            original = await stack.enter_async_context(self._intermediates.open_original(digest))
            return await self._pool.run(FindTrim(original, transform, self._limits), Trimmed)

    async def not_stored(self, digest: str, urls: Iterable[RenditionUrl]) -> list[RenditionUrl]:
        """Return those of some renditions of an image that are not stored, in their order. Those being rendered are waited for."""
        keys = {url: _key(url) for url in urls}
        for key in keys.values():
            await self._rendering.wait(key)
        stored = set(await self._images.rendition_names(digest))
        return [url for url, (_, name) in keys.items() if name not in stored]

    async def render_in_background(self, url: RenditionUrl, transform: Transform) -> None:
        """Render and store a rendition when no request needs a render process.

        Raises the errors of `get_or_render`, except `DeadlineExceededError`, and `StorageFullError`.
        """
        rendered, _ = await self._render(url, transform, end_by=None)
        await self.store(url, rendered, digests(url, transform))

    async def store(self, url: RenditionUrl, rendered: Rendered, made_from: Collection[str] = ()) -> Rendition:
        """Store a rendition that has just been rendered, and return it, or the stored one if another process was faster.

        Every region serves the same bytes: the stored ones.

        made_from: the digests of the images that the rendition shows, the URL's own among them; by default, only that.

        Raises `GoneError` if one of these images was taken down meanwhile, `StorageUnavailableError` and `StorageFullError`.
        """
        _measure(rendered, url.extension)
        whole = await _run_in_thread_if_large(checksum.wrap, rendered.body)
        digest, name = _key(url)
        async with self._images.writing(*(made_from or [digest])) as writer:
            stored = await writer.create_rendition(name, whole)
        self._seen.discard((digest, name))
        body, sha256 = rendered.body, checksum.stored_sha256(whole)
        if not stored and (winner := await self._verified(url, await self._images.find_rendition(digest, name))) is not None:
            stored = True
            body, sha256 = winner
        return Rendition(body, sha256, "render", _timings(rendered), stored)

    @contextmanager
    def announce(self, url: RenditionUrl) -> Iterator[asyncio.Future[Rendition | None]]:
        """Make requests for a rendition wait for the result of a future, which the block sets once it has the rendition.

        If the block sets `None`, or ends without a result, the requests render the rendition themselves.
        """
        key = _key(url)
        future = self._announced[key] = asyncio.get_running_loop().create_future()
        try:
            yield future
        finally:
            del self._announced[key]
            if not future.done():
                future.set_result(None)

    async def aclose(self) -> None:
        """Cancel what is being rendered or read: no client is left to wait for it."""
        await self._rendering.aclose()
        await self._looking.aclose()

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """Raise `DeadlineExceededError` if the block takes longer than a request waits."""
        try:
            with anyio.fail_after(self._wait_seconds):
                yield
        except TimeoutError:
            raise DeadlineExceededError(
                f"The rendition was not ready within {self._wait_seconds:g} seconds; it is still being rendered.",
                remedy="Request it again after the time in Retry-After.",
                retry_after_seconds=10,
            ) from None

    async def _read(self, url: RenditionUrl) -> bytes | None:
        """Return a stored rendition with its checksum, `None` if there is none.

        While every render would be refused, a slow bucket must not delay the refusal: then what it says is remembered for the next request.
        Raises `OverloadedError`.
        """
        key = _key(url)
        if self._images.rendition_path(*key) is None and (refused := self._refusal(url, key)) is not None:
            # The edge has not refused what came another way, such as a request for an image of a source.
            self.raise_if_refused(url)
            if self._seen.get(key) is None and not self._is_in_progress(key):
                with anyio.move_on_after(_LOOKUP_SECONDS):
                    return await self._looking.run(key, lambda: self._look(key))
                raise self._pool.overloaded_error(refused)
        return await self._images.read_rendition(*key)

    def _refusal(self, url: RenditionUrl, key: tuple[str, str]) -> Refused | None:
        """Return how a render would be refused now, as far as its cost is known without reading anything."""
        seen = self._seen.get(key)
        work = None if seen is None else seen.work
        # The estimate takes longer than the rest of a request, so it is made only if it may matter.
        if work is None and self._pool.has_much_work and (facts := self._documents.remembered_facts(url.digest)) is not None:
            # Another error is found once the store has been read: what it has is served.
            with suppress(ServiceError):
                image_format = FORMAT_OF_EXTENSION[url.extension]
                request = render_request.resolve(facts.info, parse(url.transform), image_format, self._limits, version=url.version)
                work = render_work(request)
        return self._pool.refusal(work)

    def _is_in_progress(self, key: tuple[str, str]) -> bool:
        return key in self._rendering or key in self._announced

    async def _look(self, key: tuple[str, str]) -> bytes | None:
        stored = await self._images.read_rendition(*key)
        self._seen.add(key, _Seen(stored=stored is not None))
        return stored

    async def _verified(self, url: RenditionUrl, stored: bytes | None) -> tuple[bytes, bytes] | None:
        """Return the bytes of a stored rendition and their SHA-256, `None` if nothing is stored; a damaged rendition is removed."""
        if stored is None:
            return None
        body = await _run_in_thread_if_large(checksum.verify, stored)
        if body is None:
            digest, name = _key(url)
            log.warning("a damaged rendition is made again", digest=digest, name=name)
            await self._images.delete_rendition(digest, name)
            return None
        return body, checksum.stored_sha256(stored)

    async def _render_and_store(self, url: RenditionUrl, transform: Transform, end_by: float) -> Rendition:
        started = time.perf_counter()
        announced = self._announced.get(_key(url))
        if announced is not None and (found := await asyncio.shield(announced)) is not None:
            return found
        rendered, fetch_seconds = await self._render(url, transform, end_by=end_by)
        try:
            made = await self.store(url, rendered, digests(url, transform))
        except (StorageFullError, StorageUnavailableError) as error:
            digest, name = _key(url)
            log.warning("a rendition was not stored", digest=digest, name=name, problem=error.slug)
            made = Rendition(rendered.body, _sha256(rendered.body), "render", _timings(rendered), stored=False)
        timings = msgspec.structs.replace(made.timings, total=time.perf_counter() - started, fetch=fetch_seconds)
        return msgspec.structs.replace(made, timings=timings)

    async def image_info(self, digest: str) -> ImageInfo:
        """Return the size, format and other facts of an original from its document; raises the errors of `Documents.facts`."""
        return (await self._documents.facts(digest)).info

    async def possible_formats(self, digest: str, transform: Transform, version: int) -> Sequence[Format]:
        """Return the formats in which a pipeline version can make one rendition of an image, the fallback last.

        Raises the errors of `Documents.facts`, and `BadTransformError` for a crop outside the picture.
        """
        supported = await self.supported_formats()
        return ladder.possible_formats(await self.image_info(digest), transform, self._limits, supported, version=version)

    async def supported_formats(self) -> list[Format]:
        """Return the formats that the installed libvips can write, in the order of `FORMATS`."""
        writes = (await self._pool.codec_support()).writes
        return [image_format for image_format in FORMATS if image_format in writes]

    async def resolve(self, info: ImageInfo, transform: Transform, image_format: Format, version: int = PIPELINE_VERSION) -> RenderRequest:
        """Return the request of a rendition, after checking that the original, libvips and the limits allow it.

        The check uses the document only, no pixel. Raises `BadTransformError`, `TooManyPixelsError`, `TooComplexError`,
        `FormatNotOfferedError`, and `UnknownImageError` for an unknown overlay.
        """
        await self.check_supported(transform, [image_format])
        return render_request.resolve(info, transform, image_format, self._limits, version=version)

    async def check_supported(self, transform: Transform, formats: Iterable[Format]) -> None:
        """Raise `FormatNotOfferedError` if libvips cannot write one of `formats`, `UnknownImageError` if the overlay is not stored."""
        await self._check_supported(transform, formats)

    async def _check_supported(self, transform: Transform, formats: Iterable[Format]) -> Sequence[OriginalFacts]:
        """Do what `check_supported` does, and return the facts of the overlay, if there is one."""
        support = await self._pool.codec_support()
        for image_format in formats:
            support.require_writable(image_format)
        return [] if transform.overlay is None else [await self._overlay_facts(transform.overlay.digest)]

    async def _render(self, url: RenditionUrl, transform: Transform, *, end_by: float | None) -> tuple[Rendered, float]:
        """Return a rendition, and the seconds until its inputs were open. A transform that the document rules out is refused first.

        end_by: the time of the event loop at which the client leaves, `None` in the background.
        """
        started = time.perf_counter()
        background = end_by is None
        async with self._documents.or_gone(digests(url, transform)), AsyncExitStack() as stack:
            originals, request, place = await self._resolve_and_admit(url, transform, stack, end_by)
            memory = self._intermediates.memory_of(originals[0], request) + sum(map(self._intermediates.memory_of, originals[1:]))
            async with self._pool.until_late(place):
                await stack.enter_async_context(self._memory.reserve(memory))
            input_file = await stack.enter_async_context(self._intermediates.open_input(url.digest, request, background=background))
            overlay = None
            if request.transform.overlay is not None:
                overlay = await stack.enter_async_context(self._intermediates.open_original(request.transform.overlay.digest))
            fetched = time.perf_counter()
            instruments.RENDER_SECONDS.observe(fetched - started, request.format, "fetch")
            job = Render(input_file, request, self._limits, overlay)
            rendered = await (self._pool.run_in_background(job, Rendered) if background else self._pool.run(job, Rendered, place))
        seconds = time.perf_counter() - started
        log.info("rendered", digest=url.digest, transform=url.transform, extension=url.extension, seconds=round(seconds, 3))
        return rendered, fetched - started

    async def _resolve_and_admit(
        self, url: RenditionUrl, transform: Transform, leaves: AsyncExitStack, end_by: float | None
    ) -> tuple[Sequence[OriginalFacts], RenderRequest, Place | None]:
        """Return the facts of the originals and the request of a rendition and, unless it is for the background, its place.

        `leaves` gives up the place. A refusal costs little: nothing is read once it is known that any render would be refused, and no
        original is opened before. What was found out is remembered, so that the same request costs nothing when it comes back too early.
        """
        if end_by is None:
            return *await self._resolve(url, transform), None
        # A few at a time: of a crowd that comes at once, the first fill the queue, and the others find it full.
        async with self._admitting:
            work = None
            try:
                self._pool.raise_if_full()
                originals, request = await self._resolve(url, transform)
                work = render_work(request)
                return originals, request, leaves.enter_context(self._pool.admit(work, end_by=end_by))
            except OverloadedError:
                self._seen.add(_key(url), _Seen(stored=False, work=work))
                raise

    async def _resolve(self, url: RenditionUrl, transform: Transform) -> tuple[Sequence[OriginalFacts], RenderRequest]:
        """Return the facts of an original, and those of the overlay if there is one, and the request of a rendition."""
        image_format = FORMAT_OF_EXTENSION[url.extension]
        originals = [await self._documents.facts(url.digest)]
        originals += await self._check_supported(transform, [image_format])
        return originals, render_request.resolve(originals[0].info, transform, image_format, self._limits, version=url.version)

    async def _overlay_facts(self, digest: str) -> OriginalFacts:
        try:
            return await self._documents.facts(digest)
        except UnknownImageError as error:
            raise UnknownImageError.for_digest(digest, option="overlay") from error


def digests(url: RenditionUrl, transform: Transform) -> list[str]:
    """Return the digests of the images that a rendition shows: that of the URL first, then the overlay."""
    return [url.digest] if transform.overlay is None else [url.digest, transform.overlay.digest]


def _measure(rendered: Rendered, extension: str) -> None:
    """Count the time of a render by its stages. The first one is 0 if the image was decoded while it was encoded."""
    image_format = FORMAT_OF_EXTENSION[extension]
    if rendered.decode_seconds:
        instruments.RENDER_SECONDS.observe(rendered.decode_seconds, image_format, "decode")
    instruments.RENDER_SECONDS.observe(rendered.encode_seconds, image_format, "encode")


def _timings(rendered: Rendered) -> Timings:
    total = rendered.queue_seconds + rendered.decode_seconds + rendered.encode_seconds
    return Timings(total, queue=rendered.queue_seconds, decode=rendered.decode_seconds, encode=rendered.encode_seconds)


def _check_version(url: RenditionUrl) -> None:
    if url.version > PIPELINE_VERSION:
        raise NewerVersionError(
            "This URL needs a newer pipeline version than this process has.",
            expected=f"v{PIPELINE_VERSION} or older",
            received=f"v{url.version}",
            remedy="Try again when the current deployment has ended.",
            retry_after_seconds=5,
        )
    if url.version not in DEFAULTS:
        raise NotFoundError(
            "This pipeline version does not exist.",
            expected=", ".join(f"v{version}" for version in DEFAULTS),
            received=f"v{url.version}",
            remedy="Use a URL from an image document unchanged.",
        )


def _key(url: RenditionUrl) -> tuple[str, str]:
    """Return the digest and the name of a rendition in the store: a hash of version, transform and extension."""
    name = hashlib.sha256(f"v{url.version}/{url.transform}.{url.extension}".encode("ascii")).hexdigest()
    return url.digest, name


async def _run_in_thread_if_large(work: Callable[[bytes], T], body: bytes) -> T:
    """Return the result of `work(body)`, computed in a thread if that takes long: hashing many megabytes would delay all other requests."""
    return work(body) if len(body) <= _LARGE_BYTES else await anyio.to_thread.run_sync(work, body)


def _sha256(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
