"""The library without HTTP for tests: ingest, renditions and warming over a store and real render processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from service.images.formats import FORMATS, Format
from service.images.transform import PIPELINE_VERSION, parse
from service.library.documents import Documents
from service.library.image_store import ImageStore
from service.library.ingest import Ingester
from service.library.intermediates import Intermediates
from service.library.renditions import Rendition, Renditions
from service.library.takedowns import Takedowns
from service.library.uploads import UploadSpool
from service.library.warming import Warmer
from service.library.warming_queue import WarmingQueue
from service.rendering.pool import RenderPool
from service.settings.sections import WarmFormat
from service.storage.object_store import Storage, open_storage
from service.urls.rendition_url import RenditionUrl
from tests.support.renders import LIMITS
from tests.support.waiting import PATIENCE_SECONDS


class Library:
    """The objects of the library, wired together as `create_app` does it."""

    def __init__(self, storage: Storage, pool: RenderPool, spool: Path, formats: Sequence[WarmFormat]) -> None:
        self.storage = storage
        self.images = ImageStore(storage)
        self.queue = WarmingQueue(self.images)
        self.purged: list[str] = []
        self.takedowns = Takedowns(self.images, self.purged.extend, None)
        self.documents = Documents(self.images, self.takedowns)
        self.intermediates = Intermediates(self.images, pool, limits=LIMITS)
        self.ingester = Ingester(
            self.images,
            self.documents,
            pool,
            self.intermediates,
            self.takedowns,
            spool=UploadSpool(spool),
            warming=self.queue,
            limits=LIMITS,
        )
        self.renditions = Renditions(
            self.images, pool, self.documents, self.intermediates, self.takedowns, limits=LIMITS, wait_seconds=PATIENCE_SECONDS
        )
        self.warmer = Warmer(self.queue, self.documents, self.renditions, self.intermediates, pool, limits=LIMITS, formats=formats)

    async def ingest(self, body: bytes) -> str:
        """Ingest an image and return its digest."""
        async with self.ingester.spool.open() as upload:
            await upload.write(body)
            return (await self.ingester.ingest(upload)).document.digest

    async def rendition(
        self, digest: str, canonical_form: str, image_format: Format = "webp", *, version: int = PIPELINE_VERSION
    ) -> Rendition:
        """Return a rendition in the way a request gets it."""
        return await self.renditions.get_or_render(
            rendition_url(digest, canonical_form, image_format, version=version), parse(canonical_form)
        )


@asynccontextmanager
async def open_library(
    folder: Path, pool: RenderPool, *, formats: Sequence[WarmFormat] = ("webp", "fallback"), storage: Storage | None = None
) -> AsyncIterator[Library]:
    """Give a library over `storage`, or over a store in `folder`. Nothing is warmed until a test runs the warmer."""
    library = Library(storage or open_storage((folder / "store").as_uri(), {}), pool, folder / "spool", formats)
    library.ingester.spool.clear()
    try:
        yield library
    finally:
        await library.renditions.aclose()
        await library.intermediates.aclose()


def rendition_url(digest: str, canonical_form: str, image_format: Format, *, version: int = PIPELINE_VERSION) -> RenditionUrl:
    """Return the URL of a rendition."""
    return RenditionUrl(version, digest, canonical_form, FORMATS[image_format].extension)
