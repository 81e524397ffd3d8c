"""Renditions: read one from the store, or render and store it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Literal, TypeVar

import anyio
import anyio.to_thread
import msgspec
import structlog

from service.concurrency.single_flight import SingleFlight
from service.errors import (
    DeadlineExceededError,
    NewerVersionError,
    NotFoundError,
    StorageFullError,
    StorageUnavailableError,
    UnknownImageError,
)
from service.images import geometry, ladder, render_request
from service.images.digest import base32
from service.images.formats import FORMAT_OF_EXTENSION, FORMATS, Format
from service.images.info import ImageInfo, Limits
from service.images.render_request import RenderRequest
from service.images.transform import DEFAULTS, PIPELINE_VERSION, Transform
from service.library.documents import Documents
from service.library.image_store import ImageStore
from service.library.intermediates import Intermediates
from service.library.takedowns import Takedowns
from service.rendering.pool import RenderPool
from service.rendering.protocol import FindTrim, Render, Rendered, Trimmed
from service.storage import checksum
from service.urls.rendition_url import RenditionUrl

log = structlog.get_logger(__name__)

T = TypeVar("T")

# Bytes that take about a millisecond to hash.
_LARGE_BYTES = 1 << 20


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
        self._announced: dict[tuple[str, str], asyncio.Future[Rendition | None]] = {}

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
        if (found := await self._verified(url, await self._images.read_rendition(*_key(url)))) is not None:
            seconds = time.perf_counter() - started
            return Rendition(*found, "store", Timings(seconds, fetch=seconds), stored=True)
        try:
            with anyio.fail_after(self._wait_seconds):
                return await self._rendering.run(_key(url), lambda: self._render_and_store(url, transform))
        except TimeoutError:
            raise DeadlineExceededError(
                f"The rendition was not ready within {self._wait_seconds:g} seconds; it is still being rendered.",
                remedy="Request it again after the time in Retry-After.",
                retry_after_seconds=10,
            ) from None

    async def find_trim(self, digest: str, transform: Transform) -> Trimmed:
        """Return the part of the upright original that is left after the `trim` of a transform, in pixels of the original.

        Raises `NotFoundError`, `GoneError`, `BadTransformError` for a crop outside the picture, `StorageUnavailableError`, and the errors
        of a render.
        """
        info = (await self.image_info(digest)).of_page(transform.frame)
        geometry.make_plan(info.width, info.height, transform, vector=info.vector)
        async with self._intermediates.open_original(digest) as original:
            return await self._pool.run(FindTrim(original, transform, self._limits), Trimmed)

    async def is_stored(self, url: RenditionUrl) -> bool:
        """Return whether a rendition is stored. One that is being rendered is waited for."""
        await self._rendering.wait(_key(url))
        return await self._images.has_rendition(*_key(url))

    async def render_in_background(self, url: RenditionUrl, transform: Transform) -> None:
        """Render and store a rendition when no request needs a render process.

        Raises the errors of `get_or_render`, except `DeadlineExceededError`, and `StorageFullError`.
        """
        rendered, _ = await self._render(url, transform, background=True)
        await self.store(url, rendered, digests(url, transform))

    async def store(self, url: RenditionUrl, rendered: Rendered, made_from: Collection[str] = ()) -> Rendition:
        """Store a rendition that has just been rendered, and return it, or the stored one if another process was faster.

        Every region serves the same bytes: the stored ones.

        made_from: the digests of the images that the rendition shows, the URL's own among them; by default, only that.

        Raises `GoneError` if one of these images was taken down meanwhile, `StorageUnavailableError` and `StorageFullError`.
        """
        whole = await _run_in_thread_if_large(checksum.wrap, rendered.body)
        digest, name = _key(url)
        async with self._images.writing(*(made_from or [digest])) as writer:
            stored = await writer.create_rendition(name, whole)
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
        """Cancel what is being rendered: no client is left to wait for it."""
        await self._rendering.aclose()

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

    async def _render_and_store(self, url: RenditionUrl, transform: Transform) -> Rendition:
        started = time.perf_counter()
        announced = self._announced.get(_key(url))
        if announced is not None and (found := await asyncio.shield(announced)) is not None:
            return found
        rendered, fetch_seconds = await self._render(url, transform, background=False)
        try:
            made = await self.store(url, rendered, digests(url, transform))
        except (StorageFullError, StorageUnavailableError) as error:
            digest, name = _key(url)
            log.warning("a rendition was not stored", digest=digest, name=name, problem=error.slug)
            made = Rendition(rendered.body, _sha256(rendered.body), "render", _timings(rendered), stored=False)
        timings = msgspec.structs.replace(made.timings, total=time.perf_counter() - started, fetch=fetch_seconds)
        return msgspec.structs.replace(made, timings=timings)

    async def image_info(self, digest: str) -> ImageInfo:
        """Return the size, format and other facts of an original from its document; raises the errors of `Documents.get`."""
        return (await self._documents.get(digest)).info

    async def possible_formats(self, digest: str, transform: Transform, version: int) -> Sequence[Format]:
        """Return the formats in which a pipeline version can make one rendition of an image, the fallback last.

        Raises the errors of `Documents.get`, and `BadTransformError` for a crop outside the picture.
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
        support = await self._pool.codec_support()
        for image_format in formats:
            support.require_writable(image_format)
        if transform.overlay is not None:
            await self._check_overlay(transform.overlay.digest)

    async def _render(self, url: RenditionUrl, transform: Transform, *, background: bool) -> tuple[Rendered, float]:
        """Return a rendition, and the seconds until its inputs were open. A transform that the document rules out is refused first."""
        started = time.perf_counter()
        request = await self.resolve(await self.image_info(url.digest), transform, FORMAT_OF_EXTENSION[url.extension], url.version)
        async with AsyncExitStack() as open_files:
            input_file = await open_files.enter_async_context(self._intermediates.open_input(url.digest, request, background=background))
            overlay = None
            if request.transform.overlay is not None:
                overlay = await open_files.enter_async_context(self._intermediates.open_original(request.transform.overlay.digest))
            fetched = time.perf_counter()
            job = Render(input_file, request, self._limits, overlay)
            rendered = await (self._pool.run_in_background(job, Rendered) if background else self._pool.run(job, Rendered))
        seconds = time.perf_counter() - started
        log.info("rendered", digest=url.digest, transform=url.transform, extension=url.extension, seconds=round(seconds, 3))
        return rendered, fetched - started

    async def _check_overlay(self, digest: str) -> None:
        try:
            await self._documents.get(digest)
        except UnknownImageError as error:
            raise UnknownImageError.for_digest(digest, option="overlay") from error


def digests(url: RenditionUrl, transform: Transform) -> list[str]:
    """Return the digests of the images that a rendition shows: that of the URL first, then the overlay."""
    return [url.digest] if transform.overlay is None else [url.digest, transform.overlay.digest]


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
