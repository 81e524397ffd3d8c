"""Where the pixels of an image are read: its original, or its intermediate, which is made again where it is missing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio.to_thread
import structlog

from service.errors import ServiceError, StorageFullError, StorageUnavailableError, UnknownImageError
from service.images.geometry import intermediate_suffices
from service.images.info import ImageInfo, Limits
from service.images.transform import Transform
from service.library.takedowns import Takedowns
from service.rendering.pool import RenderPool
from service.rendering.protocol import InputFile, Intermediate, MakeIntermediate
from service.storage import checksum
from service.storage.keys import intermediate_key, original_key
from service.storage.object_store import Storage

log = structlog.get_logger(__name__)


class Intermediates:
    """The originals and intermediates in the store, as files that a render process can read.

    Which of the two a rendition is made from depends on the original and on what is asked, never on what happens to be stored.
    """

    def __init__(self, storage: Storage, pool: RenderPool, takedowns: Takedowns, *, limits: Limits) -> None:
        """Take where images are kept, what makes an intermediate, what is not to be shown, and what is taken."""
        self._storage = storage
        self._pool = pool
        self._takedowns = takedowns
        self._limits = limits
        self._making: dict[str, asyncio.Task[bytes]] = {}

    @asynccontextmanager
    async def open_input(self, digest: str, info: ImageInfo, transform: Transform, *, background: bool = False) -> AsyncIterator[InputFile]:
        """Give what `transform` of an image is made from; with `background`, what has to be made first waits for everybody else.

        Raises `UnknownImageError`, and what the pool and the store raise.
        """
        if not intermediate_suffices(info, transform):
            async with self.open_original(digest) as source:
                yield source
            return
        body = await self._intermediate(digest, background=background)
        with _in_memory(digest, body) as path:
            del body
            yield InputFile(path, digest, intermediate_of=info)

    @asynccontextmanager
    async def open_original(self, digest: str) -> AsyncIterator[InputFile]:
        """Give the original of an image; raises `UnknownImageError`."""
        key = original_key(digest)
        path = self._storage.local_path(key)
        if path is not None:
            if not path.exists():
                raise _gone(digest)
            yield InputFile(str(path), digest)
            return
        body = await self._storage.get_from_any_region(key)
        if body is None:
            raise _gone(digest)
        with _in_memory(digest, body) as name:
            del body
            yield InputFile(name, digest)

    async def store(self, digest: str, body: bytes) -> None:
        """Store an intermediate. That it cannot be stored is logged alone: it can be made again."""
        try:
            await self._storage.put(intermediate_key(digest), await anyio.to_thread.run_sync(checksum.wrap, body), durable=False)
        except (StorageFullError, StorageUnavailableError) as error:
            log.warning("an intermediate was not stored", digest=digest, problem=error.slug)

    async def aclose(self) -> None:
        """Give up what is still being made: nobody is left to wait for it."""
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _intermediate(self, digest: str, *, background: bool) -> bytes:
        key = intermediate_key(digest)
        stored = await self._storage.get(key)
        body = None if stored is None else await anyio.to_thread.run_sync(checksum.verify, stored)
        if body is not None:
            return body
        task = self._making.get(digest)
        if task is None and background:
            # Nobody joins this: who waits for a rendition must not wait for a moment in which nobody waits.
            return await self._make(digest, missing=stored is None, background=True)
        if task is None:
            task = self._making[digest] = asyncio.create_task(self._make(digest, missing=stored is None, background=False))
            task.add_done_callback(lambda done: self._made(digest, done))
        return await asyncio.shield(task)

    def _made(self, digest: str, task: asyncio.Task[bytes]) -> None:
        del self._making[digest]
        if not task.cancelled():
            # Whoever waited has the error; if nobody did, asyncio must not report it as forgotten.
            task.exception()

    async def _make(self, digest: str, *, missing: bool, background: bool) -> bytes:
        if not missing:
            log.warning("a damaged intermediate is made again", digest=digest)
        async with self.open_original(digest) as source:
            job = MakeIntermediate(source, self._limits)
            reduced = await (self._pool.run_in_background(job, Intermediate) if background else self._pool.run(job, Intermediate))
        await self.store(digest, reduced.body)
        await self._takedowns.require_after_writing([digest], intermediate_key(digest))
        return reduced.body


@contextmanager
def _in_memory(name: str, body: bytes) -> Iterator[str]:
    """Give a path under which this process opens `body`.

    Shared memory that ends with its last descriptor: no file to clean up, no copy through a socket.
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        view = memoryview(body)
        while view:
            view = view[os.write(descriptor, view) :]
        del body
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _gone(digest: str) -> ServiceError:
    return UnknownImageError(
        "The original of this image is not here.",
        expected="the digest of an image that was uploaded and not taken down",
        received=digest,
        remedy="Upload the image with POST /v1/images.",
    )
