"""One render process without HTTP, asked as the server asks it, and what is taken by what it makes."""

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
from service.images.transform import PIPELINE_VERSION, Transform
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
from tests.bench.measure import Compared, in_turn
from tests.bench.report import Row, compared

Work: TypeAlias = Callable[[], Awaitable[list[Rendered]]]


class Taken(msgspec.Struct, frozen=True):
    """Milliseconds for each rendition: of time, and of CPU in all processes."""

    time: Compared
    cpu: Compared

    def rows(self, what: str, target: float, note: str) -> list[Row]:
        """Return both against a target."""
        return [
            compared(f"{what}, time", "ms", self.time, target, note=note),
            compared(f"{what}, CPU", "ms", self.cpu, target, note="of the same renditions, all processes"),
        ]


class Renderer:
    """The process, what feeds it, and a store: what the server has beside HTTP."""

    def __init__(self, folder: Path, settings: Settings, portal: BlockingPortal, pool: RenderPool) -> None:
        """Take an empty folder for the store, and where and by what is rendered."""
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

    def offered(self) -> CodecSupport:
        """Return what can be read and written, once the process has started."""
        return self._portal.call(self.pool.codec_support)

    def ingest(self, path: Path) -> Document:
        """Return a file as stored, its intermediate made if it has one."""
        return self._portal.call(self._ingested, path.read_bytes())

    async def render(self, source: InputFile, width: int, image_format: Format) -> Rendered:
        """Return one plain rendition."""
        return await self.pool.run(Render(source, Transform(width=width), image_format, PIPELINE_VERSION, self.limits), Rendered)

    def in_turn(self, ours: Work, bare: Work, rounds: int) -> Taken:
        """Return what renditions take that are made in two ways; raises `RuntimeError` where they are not of the same sizes."""
        cpu = Compared([], [])
        sizes: list[set[tuple[int, int]]] = []

        def milliseconds(work: Work, spent: list[float]) -> float:
            before, started = self._cpu_seconds(), time.perf_counter()
            made = self._portal.call(work)
            seconds = time.perf_counter() - started
            spent.append((self._cpu_seconds() - before) / len(made) * 1e3)
            sizes.append({(rendered.width, rendered.height) for rendered in made})
            return seconds / len(made) * 1e3

        figures = in_turn(lambda: milliseconds(ours, cpu.ours), lambda: milliseconds(bare, cpu.bare), rounds)
        if any(size != sizes[0] for size in sizes):
            raise RuntimeError(f"renditions of the same sizes were expected, received {sizes}")
        return Taken(figures, cpu)

    async def _ingested(self, body: bytes) -> Document:
        async with self._ingester.spool.open() as upload:
            await upload.write(body)
            return (await self._ingester.ingest(upload)).document

    def _cpu_seconds(self) -> float:
        # This process waits for those that have ended: theirs is in its own.
        return measure.cpu_seconds([os.getpid(), *self.pool.process_ids])


@contextmanager
def renderer(folder: Path) -> Iterator[Renderer]:
    """Give a renderer set up by the server's defaults, its one process ready."""
    # Nothing but what goes wrong, and beside the table.
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
