"""Render inputs: the file that a rendition is made from, the original or its intermediate.

An intermediate is a smaller copy of a large original. Ingest makes it; one that is missing or damaged is made again.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import anyio
import anyio.to_thread
import structlog

from service.concurrency.single_flight import SingleFlight
from service.errors import StorageFullError, StorageUnavailableError, UnknownImageError
from service.images.document import OriginalFacts
from service.images.info import Limits
from service.images.render_request import RenderRequest
from service.library.image_store import ImageStore, ImageWriter
from service.rendering.pool import RenderPool
from service.rendering.protocol import InputFile, Intermediate, MakeIntermediate
from service.storage import checksum

log = structlog.get_logger(__name__)

# How many intermediates are made for requests at a time. Each holds its original beside what its render has reserved.
_MAKING_AT_A_TIME = 2

# One with alpha is lossless: this is what its pixels have at most, in bytes.
_BYTES_PER_PIXEL = 4


class Intermediates:
    """Opens originals and intermediates as files that a render process can read.

    Which of the two a rendition is made from depends on the original and the transform, never on what happens to be stored: otherwise the
    same URL could have different pixels at different times.
    """

    def __init__(self, images: ImageStore, pool: RenderPool, *, limits: Limits) -> None:
        """Open inputs from a store.

        images: where originals and intermediates are stored.
        pool: makes an intermediate that is missing.
        limits: the pixels and frames that an original may have.
        """
        self._images = images
        self._pool = pool
        self._limits = limits
        self._making: SingleFlight[str, bytes] = SingleFlight()
        self._turns = anyio.Semaphore(_MAKING_AT_A_TIME)

    def __repr__(self) -> str:
        return f"<Intermediates: {self._making!r}>"

    def memory_of(self, original: OriginalFacts, request: RenderRequest | None = None) -> int:
        """Return how many bytes of memory the open original of an image has; with `request`, the file that a rendition is made from."""
        if request is not None and request.from_intermediate and original.info.intermediate is not None:
            # Their number is known only once they are read.
            return math.prod(original.info.intermediate) * _BYTES_PER_PIXEL
        return original.bytes if self._images.original_path(original.digest) is None else 0

    @asynccontextmanager
    async def open_input(self, digest: str, request: RenderRequest, *, background: bool = False) -> AsyncIterator[InputFile]:
        """Give the file that a rendition of an image is made from: its original or its intermediate.

        background: an intermediate that has to be made first waits until no request needs a render process.

        Raises `UnknownImageError`, `GoneError`, `StorageUnavailableError`, and the errors of a render.
        """
        if not request.from_intermediate:
            async with self.open_original(digest) as original:
                yield original
            return
        path = await self._images.intermediate_file(digest)
        if path is not None and await anyio.to_thread.run_sync(checksum.is_sound, path):
            yield InputFile(str(path), digest, intermediate_of=request.info, start=checksum.HEADER_BYTES)
            return
        body = await self._intermediate(digest, background=background)
        with _in_memory(digest, body) as name:
            del body
            yield InputFile(name, digest, intermediate_of=request.info)

    @asynccontextmanager
    async def open_original(self, digest: str) -> AsyncIterator[InputFile]:
        """Give the original of an image; raises `UnknownImageError` and `StorageUnavailableError`."""
        path = self._images.original_path(digest)
        if path is not None:
            if not path.exists():
                raise UnknownImageError.for_digest(digest)
            yield InputFile(str(path), digest)
            return
        body = await self._images.find_original(digest)
        if body is None:
            raise UnknownImageError.for_digest(digest)
        with _in_memory(digest, body) as name:
            del body
            yield InputFile(name, digest)

    async def store(self, writer: ImageWriter, body: bytes) -> None:
        """Store an intermediate. A failure is only logged: the intermediate can be made again."""
        try:
            await writer.put_intermediate(await anyio.to_thread.run_sync(checksum.wrap, body))
        except (StorageFullError, StorageUnavailableError) as error:
            log.warning("an intermediate was not stored", digest=writer.digest, problem=error.slug)

    async def aclose(self) -> None:
        """Cancel what is being made: no client is left to wait for it."""
        await self._making.aclose()

    async def _intermediate(self, digest: str, *, background: bool) -> bytes:
        stored = await self._images.read_intermediate(digest)
        body = None if stored is None else await anyio.to_thread.run_sync(checksum.verify, stored)
        if body is not None:
            return body
        damaged = stored is not None
        if background and digest not in self._making:
            # Not shared: a request that joined would wait, with the background work, for a moment without requests.
            return await self._make(digest, damaged=damaged, background=True)
        return await self._making.run(digest, lambda: self._make(digest, damaged=damaged, background=False))

    async def _make(self, digest: str, *, damaged: bool, background: bool) -> bytes:
        if damaged:
            log.warning("a damaged intermediate is made again", digest=digest)
        async with AsyncExitStack() as stack:
            if not background:
                await stack.enter_async_context(self._turns)
            original = await stack.enter_async_context(self.open_original(digest))
            job = MakeIntermediate(original, self._limits)
            made = await (
                self._pool.run_in_background(job, Intermediate) if background else self._pool.run(job, Intermediate, admitted=True)
            )
        async with self._images.writing(digest) as writer:
            await self.store(writer, made.body)
        return made.body


@contextmanager
def _in_memory(name: str, body: bytes) -> Iterator[str]:
    """Give a path under which this process can open `body`: shared memory, which ends with its last descriptor and needs no clean-up."""
    with os.fdopen(os.memfd_create(name, os.MFD_CLOEXEC), "wb") as file:
        file.write(body)
        file.flush()
        del body
        yield f"/proc/self/fd/{file.fileno()}"
