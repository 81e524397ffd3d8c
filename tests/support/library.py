"""The origin without HTTP for tests: images in, renditions out, over a store and real render processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from service.images.picture import EXTENSIONS
from service.images.transform import PIPELINE_VERSION, Format, parse
from service.library.intermediates import Intermediates
from service.library.originals import Originals
from service.library.renditions import Rendition, Renditions
from service.library.takedowns import Takedowns
from service.library.warming import Warmer
from service.library.warming_queue import WarmingQueue
from service.rendering.pool import RenderPool
from service.settings import WarmFormat
from service.storage.object_store import Storage, open_storage
from service.urls.rendition_url import RenditionUrl
from tests.support.renders import LIMITS
from tests.support.waiting import PATIENCE_SECONDS


class House:
    """What `create_app` wires together."""

    def __init__(self, storage: Storage, pool: RenderPool, spool: Path, formats: Sequence[WarmFormat]) -> None:
        self.storage = storage
        self.queue = WarmingQueue(storage)
        self.purged: list[str] = []
        self.takedowns = Takedowns(storage, self.purged.extend, None)
        self.intermediates = Intermediates(storage, pool, self.takedowns, limits=LIMITS)
        self.originals = Originals(
            storage, pool, self.intermediates, self.takedowns, warming=self.queue, spool=spool, limits=LIMITS, max_upload_bytes=1 << 30
        )
        self.renditions = Renditions(
            storage, pool, self.originals, self.intermediates, self.takedowns, limits=LIMITS, wait_seconds=PATIENCE_SECONDS
        )
        self.warmer = Warmer(self.queue, self.originals, self.renditions, self.intermediates, pool, limits=LIMITS, formats=formats)

    async def ingest(self, body: bytes) -> str:
        """Return the digest of an image that has been taken in."""
        async with self.originals.spooled() as upload:
            await upload.write(body)
            return (await self.originals.ingest(upload)).document.digest

    async def rendition(self, digest: str, spelling: str, image_format: Format = "webp", *, version: int = PIPELINE_VERSION) -> Rendition:
        """Return a rendition as a request for it gets it."""
        return await self.renditions.get_or_render(address(digest, spelling, image_format, version=version), parse(spelling))


@asynccontextmanager
async def house(
    folder: Path, pool: RenderPool, *, formats: Sequence[WarmFormat] = ("webp", "fallback"), storage: Storage | None = None
) -> AsyncIterator[House]:
    """Give an origin whose store is in a folder, unless it is another; nothing is warmed until its warmer runs."""
    built = House(storage or open_storage((folder / "store").as_uri(), {}), pool, folder / "spool", formats)
    built.originals.clear_spool()
    try:
        yield built
    finally:
        await built.renditions.aclose()
        await built.intermediates.aclose()


def address(digest: str, spelling: str, image_format: Format, *, version: int = PIPELINE_VERSION) -> RenditionUrl:
    """Return the address of a rendition."""
    return RenditionUrl(version, digest, spelling, EXTENSIONS[image_format])
