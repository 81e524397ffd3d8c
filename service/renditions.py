"""Find or make one rendition."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import msgspec
import structlog

from service.address import PIPELINE_VERSION, Address, base32_text
from service.errors import (
    DeadlineExceededError,
    NewerVersionError,
    NotFoundError,
    ServiceError,
    StorageFullError,
    StorageUnavailableError,
)
from service.render.messages import Limits, Render, Rendered
from service.render.pool import RenderPool
from service.storage import Storage, original_key, rendition_key
from service.transform import DEFAULTS, Format, Transform

log = structlog.get_logger(__name__)

# A stored rendition is this mark, the SHA-256 of its bytes, and its bytes: what was flipped or cut short is noticed and made again.
_MARK = b"DRR1"
_SEAL_BYTES = len(_MARK) + hashlib.sha256().digest_size

FORMATS: dict[str, Format] = {"avif": "avif", "webp": "webp", "jpg": "jpeg", "png": "png"}


class Rendition(msgspec.Struct, frozen=True):
    """The bytes served, their SHA-256, the tier that gave them (`store` or `render`), and whether the store has them."""

    body: bytes
    sha256: bytes
    tier: str
    seconds: float
    stored: bool

    @property
    def etag(self) -> str:
        """The strong entity tag: the base32 of the first 160 bits of the SHA-256, the same in every region."""
        return f'"{base32_text(self.sha256[:20])}"'


class Renditions:
    """The renditions that are stored, and those being made. One that several ask for at once is made once."""

    def __init__(self, storage: Storage, pool: RenderPool, *, limits: Limits, wait_seconds: float) -> None:
        """Take where images are kept, what renders them, what is made, and how long a client is kept waiting."""
        self._storage = storage
        self._pool = pool
        self._limits = limits
        self._wait_seconds = wait_seconds
        self._making: dict[str, asyncio.Task[Rendition]] = {}

    async def find_or_render(self, address: Address, transform: Transform) -> Rendition:
        """Return the rendition of a verified address.

        A render goes on when this stops waiting for it, so that the next client finds it stored. Raises `NotFoundError`,
        `NewerVersionError`, `DeadlineExceededError` after the waiting time, and what the pool and the store raise.
        """
        _check_version(address)
        key = _key(address)
        started = time.perf_counter()
        if (body := await self._stored(key)) is not None:
            return Rendition(body, _sha256(body), "store", time.perf_counter() - started, stored=True)
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

    async def finish(self) -> None:
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

    async def _stored(self, key: str) -> bytes | None:
        sealed = await self._storage.read(key)
        if sealed is None:
            return None
        body = _opened(sealed)
        if body is None:
            log.warning("a damaged rendition is made again", key=key)
            await self._storage.delete(key)
        return body

    async def _make(self, key: str, address: Address, transform: Transform) -> Rendition:
        started = time.perf_counter()
        image_format = FORMATS[address.extension]
        quality = transform.quality or DEFAULTS[address.version].quality[image_format]
        async with self._original_path(address.digest) as path:
            rendered = await self._pool.run(Render(path, address.digest, transform, image_format, quality, self._limits), Rendered)
        seconds = time.perf_counter() - started
        log.info("rendered", digest=address.digest, transform=address.transform, extension=address.extension, seconds=round(seconds, 3))
        body, stored = rendered.body, False
        try:
            stored = await self._storage.create(key, _sealed(body), durable=False)
            if not stored and (winner := await self._stored(key)) is not None:
                # Another process was faster: every region serves the same bytes, those that are stored.
                body, stored = winner, True
        except (StorageFullError, StorageUnavailableError) as error:
            log.warning("a rendition was not stored", key=key, kind=error.kind)
        return Rendition(body, _sha256(body), "render", time.perf_counter() - started, stored)

    @asynccontextmanager
    async def _original_path(self, digest: str) -> AsyncIterator[str]:
        """Give a path under which a render process can read the original; raises `NotFoundError`."""
        key = original_key(digest)
        path = self._storage.local_path(key)
        if path is not None:
            if not path.exists():
                raise _unknown(digest)
            yield str(path)
            return
        body = await self._storage.read(key)
        if body is None:
            raise _unknown(digest)
        # Shared memory that ends with its last descriptor: no file to clean up, no copy through a pipe.
        descriptor = os.memfd_create(digest, os.MFD_CLOEXEC)
        try:
            view = memoryview(body)
            while view:
                view = view[os.write(descriptor, view) :]
            del body
            yield f"/proc/{os.getpid()}/fd/{descriptor}"
        finally:
            os.close(descriptor)


def _check_version(address: Address) -> None:
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


def _unknown(digest: str) -> ServiceError:
    return NotFoundError(
        "No image has this digest.",
        expected="the digest of an image that was uploaded and not taken down",
        received=digest,
        remedy="Upload the image with POST /v1/images.",
    )


def _key(address: Address) -> str:
    name = hashlib.sha256(f"v{address.version}/{address.transform}.{address.extension}".encode("ascii")).hexdigest()
    return rendition_key(address.digest, name)


def _sha256(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


def _sealed(body: bytes) -> bytes:
    return _MARK + _sha256(body) + body


def _opened(sealed: bytes) -> bytes | None:
    body = sealed[_SEAL_BYTES:]
    return body if sealed[:_SEAL_BYTES] == _MARK + _sha256(body) else None
