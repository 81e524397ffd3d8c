"""Renditions in a store that is not on this machine's disk, while more are requested than can be rendered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import anyio
import pytest

from service.errors import OverloadedError, ServiceError
from service.images.formats import Format
from service.library import renditions as renditions_module
from service.library.input_memory import InputMemory
from service.library.renditions import Rendition
from service.rendering.pool import RenderPool
from service.storage.object_store import open_storage
from tests.support import images
from tests.support.library import Library, open_library, rendition_url
from tests.support.renders import halted, render_pool
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio


class Reads:
    """The reads from a store so far, by the method of `ImageStore`, and how long each takes in seconds."""

    def __init__(self, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count: Counter[str] = Counter()
        self.seconds = 0.0
        for name in ("read_rendition", "read_document", "find_original"):
            self._watch(library, monkeypatch, name)

    def _watch(self, library: Library, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        read = getattr(library.images, name)

        async def watched(*words: object, **options: object) -> object:
            self.count[name] += 1
            await anyio.sleep(self.seconds)
            return await read(*words, **options)

        monkeypatch.setattr(library.images, name, watched)


@pytest.fixture
async def small(anyio_backend: object) -> AsyncIterator[RenderPool]:
    """Yield a pool with one process, in whose queue one render may wait."""
    async with render_pool(queue_limit=1) as running:
        yield running


async def full(library: Library, digest: str) -> list[asyncio.Future[Rendition]]:
    """Fill the pool and its queue, and return the requests for the renditions that do."""
    pending: list[asyncio.Future[Rendition]] = []
    for width in (30, 31):
        pending.append(asyncio.ensure_future(library.rendition(digest, f"width={width}")))
        await anyio.wait_all_tasks_blocked()
    return pending


async def refusal(library: Library, digest: str, canonical_form: str, image_format: Format = "webp") -> ServiceError:
    with pytest.raises(OverloadedError) as refused:
        await library.rendition(digest, canonical_form, image_format)
    return refused.value


async def test_refusal_does_not_wait_for_a_slow_bucket_and_costs_it_one_read(
    tmp_path_factory: pytest.TempPathFactory, small: RenderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_library(tmp_path_factory.mktemp("bucket"), small, storage=open_storage("memory://", {})) as library:
        digest = await library.ingest(images.photo_jpeg(64, 48))
        reads = Reads(library, monkeypatch)
        with halted(small):
            pending = await full(library, digest)
            reads.seconds = PATIENCE_SECONDS
            reads.count.clear()
            assert (await refusal(library, digest, "width=32")).retry_after_seconds
            assert reads.count == {"read_rendition": 1}
            # The bucket has not responded, and is not asked a second time for the same rendition.
            await refusal(library, digest, "width=32")
            assert reads.count == {"read_rendition": 1}
        await asyncio.gather(*pending)


async def test_refused_rendition_that_comes_back_too_early_is_refused_without_a_read(
    tmp_path_factory: pytest.TempPathFactory, small: RenderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However busy the machine, this store responds in time.
    monkeypatch.setattr(renditions_module, "_LOOKUP_SECONDS", PATIENCE_SECONDS)
    async with open_library(tmp_path_factory.mktemp("bucket"), small, storage=open_storage("memory://", {})) as library:
        digest = await library.ingest(images.photo_jpeg(64, 48))
        reads = Reads(library, monkeypatch)
        url = rendition_url(digest, "width=32", "webp")
        with halted(small):
            pending = await full(library, digest)
            # It is not known yet whether it is stored.
            library.renditions.raise_if_refused(url)
            await refusal(library, digest, "width=32")
            reads.count.clear()
            await refusal(library, digest, "width=32")
            with pytest.raises(OverloadedError):
                library.renditions.raise_if_refused(url)
            assert reads.count == {}
        await asyncio.gather(*pending)
        # With room in the queue, nothing stands in its way.
        library.renditions.raise_if_refused(url)
        assert (await library.rendition(digest, "width=32")).tier == "render"


async def test_expensive_rendition_of_a_known_image_is_refused_without_a_read_of_its_document_while_cheap_ones_are_admitted(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        render_pool(wait_seconds=PATIENCE_SECONDS) as pool,
        open_library(tmp_path_factory.mktemp("bucket"), pool, storage=open_storage("memory://", {})) as library,
    ):
        digest = await library.ingest(images.photo_jpeg(640, 480))
        await library.rendition(digest, "width=30")
        reads = Reads(library, monkeypatch)
        # Of the 84 s that may be ahead.
        monkeypatch.setattr(pool.costs, "estimate", lambda work: 50.0 if "avif" in work.kind else 0.01)
        cheap = rendition_url(digest, "width=33", "webp")
        with halted(pool):
            pending: list[asyncio.Future[Rendition]] = []
            for canonical_form, image_format in (("width=31", "webp"), ("width=600", "avif")):
                pending.append(asyncio.ensure_future(library.rendition(digest, canonical_form, image_format)))  # type: ignore[arg-type]
                await anyio.wait_all_tasks_blocked()
            reads.count.clear()
            reads.seconds = PATIENCE_SECONDS
            # The bucket could have it, so it is asked, but not for long.
            await refusal(library, digest, "width=601", "avif")
            await refusal(library, digest, "width=601", "avif")
            assert reads.count == {"read_rendition": 1}
            reads.seconds = 0.0
            library.renditions.raise_if_refused(cheap)
            pending.append(asyncio.ensure_future(library.rendition(digest, "width=33")))
            await anyio.wait_all_tasks_blocked()
            assert not pending[-1].done()
        assert {rendition.tier for rendition in await asyncio.gather(*pending)} == {"render"}


async def test_rendition_that_was_refused_for_its_cost_is_refused_without_a_read_the_next_time(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renditions_module, "_LOOKUP_SECONDS", PATIENCE_SECONDS)
    async with (
        render_pool(wait_seconds=PATIENCE_SECONDS) as pool,
        open_library(tmp_path_factory.mktemp("bucket"), pool, storage=open_storage("memory://", {})) as library,
    ):
        digest, unknown = [await library.ingest(images.photo_jpeg(640, height)) for height in (480, 470)]
        reads = Reads(library, monkeypatch)
        monkeypatch.setattr(pool.costs, "estimate", lambda work: 50.0 if "avif" in work.kind else 0.01)
        with halted(pool):
            pending: list[asyncio.Future[Rendition]] = []
            for width, image_format in ((31, "webp"), (600, "avif")):
                pending.append(asyncio.ensure_future(library.rendition(digest, f"width={width}", image_format)))  # type: ignore[arg-type]
                await anyio.wait_all_tasks_blocked()
            url = rendition_url(unknown, "width=600", "avif")
            library.renditions.raise_if_refused(url)
            await refusal(library, unknown, "width=600", "avif")
            reads.count.clear()
            with pytest.raises(OverloadedError):
                library.renditions.raise_if_refused(url)
            await refusal(library, unknown, "width=600", "avif")
            assert reads.count == {}
        await asyncio.gather(*pending)


async def test_stored_rendition_of_a_slow_bucket_is_served_to_the_next_request_while_renders_are_refused(
    tmp_path_factory: pytest.TempPathFactory, small: RenderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_library(tmp_path_factory.mktemp("bucket"), small, storage=open_storage("memory://", {})) as library:
        digest = await library.ingest(images.photo_jpeg(64, 48))
        stored = await library.rendition(digest, "width=32")
        reads = Reads(library, monkeypatch)
        with halted(small):
            pending = await full(library, digest)
            reads.seconds = 0.5
            await refusal(library, digest, "width=32")
            await library.renditions._looking.wait(renditions_module._key(rendition_url(digest, "width=32", "webp")))
            library.renditions.raise_if_refused(rendition_url(digest, "width=32", "webp"))
            again = await library.rendition(digest, "width=32")
            assert (again.body, again.tier) == (stored.body, "store")
        await asyncio.gather(*pending)


async def test_lookups_while_renders_are_refused_are_limited(
    tmp_path_factory: pytest.TempPathFactory, small: RenderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renditions_module, "_MAX_LOOKUPS", 3)
    async with open_library(tmp_path_factory.mktemp("bucket"), small, storage=open_storage("memory://", {})) as library:
        digest = await library.ingest(images.photo_jpeg(64, 48))
        reads = Reads(library, monkeypatch)
        with halted(small):
            pending = await full(library, digest)
            reads.seconds = PATIENCE_SECONDS
            reads.count.clear()
            await asyncio.gather(*(refusal(library, digest, f"width={width}") for width in range(32, 42)))
            assert reads.count == {"read_rendition": 3}
        await asyncio.gather(*pending)


async def test_originals_of_queued_renders_are_fetched_as_memory_becomes_free(
    tmp_path_factory: pytest.TempPathFactory, pool: RenderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_library(tmp_path_factory.mktemp("bucket"), pool, storage=open_storage("memory://", {})) as library:
        body = images.photo_jpeg(640, 480)
        digest = await library.ingest(body)
        library.renditions._memory = InputMemory(3 * len(body))
        reads = Reads(library, monkeypatch)
        with halted(pool):
            pending = [asyncio.ensure_future(library.rendition(digest, f"width={width}")) for width in range(100, 112)]
            await anyio.wait_all_tasks_blocked()
            assert reads.count["find_original"] == 3
            assert library.renditions._memory.reserved_bytes == 3 * len(body)
        assert {rendition.tier for rendition in await asyncio.gather(*pending)} == {"render"}
        assert reads.count["find_original"] == 12
        assert library.renditions._memory.reserved_bytes == 0


async def test_originals_on_disk_take_no_memory_while_their_renders_wait(library_on_disk: Library, pool: RenderPool) -> None:
    digest = await library_on_disk.ingest(images.photo_jpeg(640, 480))
    with halted(pool):
        pending = [asyncio.ensure_future(library_on_disk.rendition(digest, f"width={width}")) for width in range(100, 104)]
        await anyio.wait_all_tasks_blocked()
        assert library_on_disk.renditions._memory.reserved_bytes == 0
    await asyncio.gather(*pending)


@pytest.fixture
async def library_on_disk(tmp_path_factory: pytest.TempPathFactory, pool: RenderPool) -> AsyncIterator[Library]:
    async with open_library(tmp_path_factory.mktemp("disk"), pool) as library:
        yield library
