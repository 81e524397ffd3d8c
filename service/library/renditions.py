"""Find or make one rendition."""

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

from service.errors import (
    DeadlineExceededError,
    NewerVersionError,
    NotFoundError,
    StorageFullError,
    StorageUnavailableError,
    UnknownImageError,
)
from service.images import geometry, ladder
from service.images.digest import base32
from service.images.info import ImageInfo, Limits
from service.images.transform import DEFAULTS, PIPELINE_VERSION, Format, Transform, for_format
from service.library.intermediates import Intermediates
from service.library.originals import Originals
from service.library.takedowns import Takedowns
from service.rendering.pool import RenderPool
from service.rendering.protocol import FindTrim, Render, Rendered, Trimmed
from service.storage import checksum
from service.storage.keys import rendition_key
from service.storage.object_store import Storage
from service.urls.rendition_url import RenditionUrl

log = structlog.get_logger(__name__)

T = TypeVar("T")

# What takes about a millisecond to hash.
_LARGE_BYTES = 1 << 20

FORMATS: dict[str, Format] = {"avif": "avif", "webp": "webp", "jpg": "jpeg", "png": "png", "gif": "gif"}


class Timings(msgspec.Struct, frozen=True):
    """What a rendition took, in seconds: all in all, waiting for a render slot, reading the store, decoding, encoding."""

    total: float
    queue: float = 0.0
    fetch: float = 0.0
    decode: float = 0.0
    encode: float = 0.0


class Rendition(msgspec.Struct, frozen=True):
    """The bytes served, their SHA-256, the tier that gave them (`store` or `render`), what that took, and whether the store has them."""

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
    """The renditions that are stored, and those being made. One that several ask for at once is made once."""

    def __init__(
        self,
        storage: Storage,
        pool: RenderPool,
        originals: Originals,
        intermediates: Intermediates,
        takedowns: Takedowns,
        *,
        limits: Limits,
        wait_seconds: float,
    ) -> None:
        """Take where images are kept, what renders them and from what, what is not to be shown, what is made, and how long clients wait."""
        self._storage = storage
        self._pool = pool
        self._originals = originals
        self._intermediates = intermediates
        self._takedowns = takedowns
        self._limits = limits
        self._wait_seconds = wait_seconds
        self._making: dict[str, asyncio.Task[Rendition]] = {}
        self._coming: dict[str, asyncio.Future[Rendition | None]] = {}

    async def get_or_render(self, address: RenditionUrl, transform: Transform) -> Rendition:
        """Return the rendition of a verified address.

        A render goes on when this stops waiting for it, so that the next client finds it stored. Raises `NotFoundError`, `GoneError`,
        `NewerVersionError`, `DeadlineExceededError` after the waiting time, what contradicts the format or the original, and what the pool
        and the store raise.
        """
        _check_version(address)
        self._takedowns.raise_if_taken_down(digests(address, transform))
        key = _key(address)
        started = time.perf_counter()
        if (found := await self._opened(key, await self._storage.get(key))) is not None:
            seconds = time.perf_counter() - started
            return Rendition(*found, "store", Timings(seconds, fetch=seconds), stored=True)
        task = self._making.get(key)
        if task is None:
            task = self._making[key] = asyncio.create_task(self._make(key, address, transform))
            task.add_done_callback(lambda done: self._made(key, done))
        try:
            with anyio.fail_after(self._wait_seconds):
                return await asyncio.shield(task)
        except TimeoutError:
            raise DeadlineExceededError(
                f"The rendition was not ready within {self._wait_seconds:g} seconds; it is still being made.",
                remedy="Ask again after the time that Retry-After gives.",
                retry_after_seconds=10,
            ) from None

    async def find_trim(self, digest: str, transform: Transform) -> Trimmed:
        """Return what is left of an image when it is trimmed as `transform` says: a part of the upright original, in its pixels.

        Raises `NotFoundError`, `BadTransformError` for a crop outside the picture, and what the pool and the store raise.
        """
        info = (await self.image_info(digest)).of_page(transform.frame)
        geometry.plan(info.width, info.height, transform, vector=info.vector)
        async with self._intermediates.open_original(digest) as source:
            return await self._pool.run(FindTrim(source, transform, self._limits), Trimmed)

    async def is_stored(self, address: RenditionUrl) -> bool:
        """Return whether a rendition is stored, once it is if it is being made."""
        key = _key(address)
        if (task := self._making.get(key)) is not None:
            await asyncio.wait([task])
        return await self._storage.exists(key)

    async def render_in_background(self, address: RenditionUrl, transform: Transform) -> None:
        """Have a rendition stored that nobody waits for; raises as `get_or_render` does, and what a store does that cannot be written."""
        rendered, _ = await self._rendered(address, transform, background=True)
        await self.store(address, rendered, digests(address, transform))

    async def store(self, address: RenditionUrl, rendered: Rendered, made_from: Collection[str] = ()) -> Rendition:
        """Return a rendition that has just been made, stored, or the one that another process was faster with.

        Every region serves the same bytes, those that are stored. `made_from` are the images in it, without any that of the address.
        Raises `GoneError` when one of them has been taken down meanwhile.
        """
        key = _key(address)
        whole = await _in_thread_if_large(checksum.wrap, rendered.body)
        stored = await self._storage.put_if_absent(key, whole, durable=False)
        await self._takedowns.require_after_writing(made_from or [address.digest], key)
        body, sha256 = rendered.body, checksum.stored_sha256(whole)
        if not stored and (winner := await self._opened(key, await self._storage.get_from_any_region(key))) is not None:
            stored = True
            body, sha256 = winner
        return Rendition(body, sha256, "render", _timings(rendered), stored)

    @contextmanager
    def announce(self, address: RenditionUrl) -> Iterator[asyncio.Future[Rendition | None]]:
        """Have requests for a rendition wait for it, which is made at this moment; `None`, or nothing, sends them to render it."""
        key = _key(address)
        future = self._coming[key] = asyncio.get_running_loop().create_future()
        try:
            yield future
        finally:
            del self._coming[key]
            if not future.done():
                future.set_result(None)

    async def aclose(self) -> None:
        """Give up what is still being made: nobody is left to wait for it."""
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _made(self, key: str, task: asyncio.Task[Rendition]) -> None:
        del self._making[key]
        if not task.cancelled():
            # Whoever waited has the error; if nobody did, asyncio must not report it as forgotten.
            task.exception()

    async def _opened(self, key: str, stored: bytes | None) -> tuple[bytes, bytes] | None:
        """Return the bytes of a stored rendition and their SHA-256, `None` if there is none; a damaged one is removed."""
        if stored is None:
            return None
        body = await _in_thread_if_large(checksum.verify, stored)
        if body is None:
            log.warning("a damaged rendition is made again", key=key)
            await self._storage.delete(key)
            return None
        return body, checksum.stored_sha256(stored)

    async def _make(self, key: str, address: RenditionUrl, transform: Transform) -> Rendition:
        started = time.perf_counter()
        if (coming := self._coming.get(key)) is not None and (found := await asyncio.shield(coming)) is not None:
            return found
        rendered, fetch_seconds = await self._rendered(address, transform, background=False)
        try:
            made = await self.store(address, rendered, digests(address, transform))
        except (StorageFullError, StorageUnavailableError) as error:
            log.warning("a rendition was not stored", key=key, problem=error.slug)
            made = Rendition(rendered.body, _sha256(rendered.body), "render", _timings(rendered), stored=False)
        timings = msgspec.structs.replace(made.timings, total=time.perf_counter() - started, fetch=fetch_seconds)
        return msgspec.structs.replace(made, timings=timings)

    async def image_info(self, digest: str) -> ImageInfo:
        """Return what the header of an original tells; raises `NotFoundError`."""
        return (await self._originals.document(digest)).info

    async def possible_formats(self, digest: str, transform: Transform, version: int) -> Sequence[Format]:
        """Return the formats that one rendition of an image can be made in, the fallback last, of a pipeline version.

        Raises `NotFoundError`, and `BadTransformError` for a crop outside the picture.
        """
        offered = await self.supported_formats(FORMATS.values())
        return ladder.possible_formats(await self.image_info(digest), transform, self._limits, offered, version=version)

    async def supported_formats(self, formats: Iterable[Format]) -> list[Format]:
        """Return those of some formats that the running libvips writes."""
        writes = (await self._pool.codec_support()).writes
        return [image_format for image_format in formats if image_format in writes]

    async def check(self, info: ImageInfo, transform: Transform, image_format: Format, version: int = PIPELINE_VERSION) -> Transform:
        """Return what `image_format` makes of a transform, if it can be made of an original with this header: no pixel is looked at.

        Raises `BadTransformError`, `TooManyPixelsError`, `TooComplexError`, `FormatNotOfferedError`, and `NotFoundError` for an unknown
        overlay.
        """
        transform = for_format(transform, image_format)
        await self.check_supported(transform, [image_format])
        animated = info.animates(transform, image_format, by_default=DEFAULTS[version].animates)
        geometry.check(info, transform, image_format, self._limits, frames=info.frames if animated else 1)
        return transform

    async def check_supported(self, transform: Transform, formats: Iterable[Format]) -> None:
        """Return if the running libvips writes some formats, and the overlay of a transform is here.

        Raises `FormatNotOfferedError`, and `NotFoundError` for an unknown overlay.
        """
        offered = await self._pool.codec_support()
        for image_format in formats:
            offered.require_writable(image_format)
        if transform.overlay is not None:
            await self._check_overlay(transform.overlay.digest)

    async def _rendered(self, address: RenditionUrl, transform: Transform, *, background: bool) -> tuple[Rendered, float]:
        """Return a rendition and the seconds until what it is made of was at hand; what the document already rules out is refused first."""
        started = time.perf_counter()
        image_format = FORMATS[address.extension]
        info = await self.image_info(address.digest)
        transform = await self.check(info, transform, image_format, address.version)
        async with AsyncExitStack() as opened_files:
            source = await opened_files.enter_async_context(
                self._intermediates.open_input(address.digest, info, transform, background=background)
            )
            overlay = None
            if transform.overlay is not None:
                overlay = await opened_files.enter_async_context(self._intermediates.open_original(transform.overlay.digest))
            fetched = time.perf_counter()
            job = Render(source, transform, image_format, address.version, self._limits, overlay)
            rendered = await (self._pool.run_in_background(job, Rendered) if background else self._pool.run(job, Rendered))
        seconds = time.perf_counter() - started
        log.info("rendered", digest=address.digest, transform=address.transform, extension=address.extension, seconds=round(seconds, 3))
        return rendered, fetched - started

    async def _check_overlay(self, digest: str) -> None:
        try:
            await self._originals.document(digest)
        except UnknownImageError as error:
            raise UnknownImageError(
                "No image has the digest of the overlay.",
                expected="in `overlay` the digest of an image that was uploaded and not taken down",
                received=digest,
                remedy="Upload the overlay with POST /v1/images, or leave it out.",
            ) from error


def digests(address: RenditionUrl, transform: Transform) -> list[str]:
    """Return the images that are seen in a rendition."""
    return [address.digest] if transform.overlay is None else [address.digest, transform.overlay.digest]


def _timings(rendered: Rendered) -> Timings:
    total = rendered.queue_seconds + rendered.decode_seconds + rendered.encode_seconds
    return Timings(total, queue=rendered.queue_seconds, decode=rendered.decode_seconds, encode=rendered.encode_seconds)


def _check_version(address: RenditionUrl) -> None:
    if address.version > PIPELINE_VERSION:
        raise NewerVersionError(
            "This address is of a newer pipeline version than this process knows.",
            expected=f"v{PIPELINE_VERSION} or older",
            received=f"v{address.version}",
            remedy="Try again when the deployment that is under way has ended.",
            retry_after_seconds=5,
        )
    if address.version not in DEFAULTS:
        raise NotFoundError(
            "There has never been such a pipeline version.",
            expected=", ".join(f"v{version}" for version in DEFAULTS),
            received=f"v{address.version}",
            remedy="Use a URL from an image document unchanged.",
        )


def _key(address: RenditionUrl) -> str:
    name = hashlib.sha256(f"v{address.version}/{address.transform}.{address.extension}".encode("ascii")).hexdigest()
    return rendition_key(address.digest, name)


async def _in_thread_if_large(work: Callable[[bytes], T], body: bytes) -> T:
    """Return what `work` makes of some bytes: a hash of many megabytes would hold up everybody else's hits."""
    return work(body) if len(body) <= _LARGE_BYTES else await anyio.to_thread.run_sync(work, body)


def _sha256(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
