"""One render process without HTTP, used as the server uses it, and the time and CPU that its renditions cost."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import msgspec
import structlog
from anyio.from_thread import BlockingPortal, start_blocking_portal
from structlog import PrintLoggerFactory, make_filtering_bound_logger

from service.images.document import Document
from service.images.formats import Format
from service.images.info import Limits, codec_bytes
from service.images.transform import Transform
from service.library.documents import Documents
from service.library.image_store import ImageStore
from service.library.ingest import Ingester
from service.library.intermediates import Intermediates
from service.library.takedowns import Takedowns
from service.library.uploads import UploadSpool
from service.rendering.pool import RenderPool
from service.rendering.protocol import CodecSupport, InputFile, Render, Rendered
from service.settings.sections import Settings
from service.storage.object_store import open_storage
from tests.bench import measure
from tests.bench.measure import Comparison, alternate
from tests.bench.report import Row, comparison_row
from tests.support.renders import unresolved

Work: TypeAlias = Callable[[], Awaitable[list[Rendered]]]


class Cost(msgspec.Struct, frozen=True):
    """Milliseconds for each rendition: elapsed time, and CPU time of all processes."""

    time: Comparison
    cpu: Comparison

    def rows(self, name: str, note: str) -> list[Row]:
        """Return the rows of both figures."""
        return [comparison_row(f"{name}, time", self.time, note), comparison_row(f"{name}, CPU", self.cpu)]


class Renderer:
    """A render pool, a store and an ingester: the parts of the server below HTTP."""

    def __init__(self, folder: Path, settings: Settings, portal: BlockingPortal, pool: RenderPool) -> None:
        """Create a renderer.

        folder: an empty directory for the store and the spool. settings: the server's. portal: runs the event loop of `pool`.
        pool: a running pool with one render process.
        """
        self.pool = pool
        self.limits = _limits(settings)
        storage = open_storage((folder / "store").as_uri(), {})
        store = ImageStore(storage)
        takedowns = Takedowns(store, list, None)
        self.intermediates = Intermediates(store, pool, limits=self.limits)
        self._ingester = Ingester(
            store,
            Documents(store, takedowns),
            pool,
            self.intermediates,
            takedowns,
            spool=UploadSpool(folder / "spool"),
            warming=None,
            limits=self.limits,
        )
        self._ingester.spool.clear()
        self._portal = portal

    def codec_support(self) -> CodecSupport:
        """Wait until the render process has started, and return the formats that it supports."""
        return self._portal.call(self.pool.codec_support)

    def ingest(self, path: Path) -> Document:
        """Ingest a file, make its intermediate if it has one, and return its document."""
        return self._portal.call(self._ingest, path.read_bytes())

    async def render(self, source: InputFile, width: int, image_format: Format) -> Rendered:
        """Return one plain rendition."""
        return await self.pool.run(Render(source, unresolved(Transform(width=width), image_format), self.limits), Rendered)

    def alternate(self, ours: Work, bare: Work, rounds: int) -> Cost:
        """Return the cost of renditions that are made in two ways; raises `RuntimeError` if their sizes differ."""
        cpu = Comparison([], [])
        sizes: list[set[tuple[int, int]]] = []

        def milliseconds(work: Work, spent: list[float]) -> float:
            before, started = self._cpu_seconds(), time.perf_counter()
            renditions = self._portal.call(work)
            seconds = time.perf_counter() - started
            spent.append((self._cpu_seconds() - before) / len(renditions) * 1e3)
            sizes.append({(rendered.width, rendered.height) for rendered in renditions})
            return seconds / len(renditions) * 1e3

        figures = alternate(lambda: milliseconds(ours, cpu.ours), lambda: milliseconds(bare, cpu.bare), rounds)
        if any(size != sizes[0] for size in sizes):
            raise RuntimeError(f"expected renditions of the same sizes, received {sizes}")
        return Cost(figures, cpu)

    async def _ingest(self, body: bytes) -> Document:
        async with self._ingester.spool.open() as upload:
            await upload.write(body)
            return (await self._ingester.ingest(upload)).document

    def _cpu_seconds(self) -> float:
        # The CPU time of render processes that have ended is in that of this process, which has waited for them.
        return measure.cpu_seconds([os.getpid(), *self.pool.process_ids])


@contextmanager
def renderer(folder: Path) -> Iterator[Renderer]:
    """Yield a renderer with the server's default settings, whose one render process has started."""
    # Only warnings and errors are logged, to standard error, as the table goes to standard output.
    structlog.configure(wrapper_class=make_filtering_bound_logger(logging.WARNING), logger_factory=PrintLoggerFactory(sys.stderr))
    settings = Settings()
    pool = RenderPool(
        slots=1,
        queue_limit=settings.rendering.queue_limit,
        memory_bytes=settings.rendering.memory_bytes,
        render_seconds=settings.rendering.render_seconds,
        wait_seconds=settings.rendering.wait_seconds,
    )
    with (
        start_blocking_portal("asyncio", {"use_uvloop": True}) as portal,
        portal.wrap_async_context_manager(pool.running()),
    ):
        portal.call(pool.codec_support)
        yield Renderer(folder, settings, portal, pool)


def _limits(settings: Settings) -> Limits:
    return Limits(
        settings.limits.max_pixels,
        settings.limits.max_whole_pixels,
        settings.limits.max_output_pixels,
        settings.limits.max_frames,
        codec_bytes(settings.rendering.memory_bytes),
    )
