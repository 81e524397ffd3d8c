"""Takedowns: nothing of the image stays or comes back, even if uploads or renders were in progress."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from datetime import timedelta
from pathlib import Path

import anyio
import obstore
import pytest
import structlog
from obstore.store import MemoryStore

from service.errors import CdnError, GoneError, NotFoundError, StorageUnavailableError, UnknownImageError
from service.images.transform import parse
from service.library import takedowns as takedowns_module
from service.library.image_store import ImageStore
from service.library.takedowns import Takedowns
from service.ops.cdn import Cloudflare
from service.rendering.pool import RenderPool
from service.storage.keys import document_key, original_key, tombstone_key, warming_key
from service.storage.object_store import Storage
from tests.support import images
from tests.support.cloudflare import Fault, fake_cloudflare
from tests.support.library import Library, open_library
from tests.support.renders import until

pytestmark = pytest.mark.anyio

DIGEST = "a" * 32
OTHER = "b" * 32


class Process:
    """The takedowns of one process, and the digests of each purge of its cache."""

    def __init__(self, storage: Storage, cdn: Cloudflare | None = None) -> None:
        self.purges: list[list[str]] = []
        self.takedowns = Takedowns(ImageStore(storage), self._purge, cdn)

    def _purge(self, digests: Collection[str]) -> None:
        self.purges.append(sorted(digests))


@pytest.fixture
async def library(tmp_path: Path, pool: RenderPool) -> AsyncIterator[Library]:
    async with open_library(tmp_path, pool) as library:
        yield library


def here(storage: Storage, *digests: str) -> Storage:
    """Return a store with a document and an original of each digest."""
    for digest in digests:
        obstore.put(storage._store, document_key(digest), b"{}")
        obstore.put(storage._store, original_key(digest), b"original")
    return storage


def keys(library: Library) -> list[str]:
    """Return the keys of all objects in the store."""
    return sorted(str(entry["path"]) for page in obstore.list(library.storage._store) for entry in page)


async def test_takedown_leaves_only_the_tombstone(library: Library) -> None:
    digest = await library.ingest(images.photo_jpeg(400, 300))
    for width in (100, 200):
        await library.rendition(digest, f"width={width}")
    kept = await library.ingest(images.rgba_png(64, 64))
    result = await library.takedowns.take_down(digest)
    assert (result.digest, result.renditions, result.cdn) == (digest, 2, "none")
    assert [key for key in keys(library) if digest in key] == [tombstone_key(digest)]
    assert [key for key in keys(library) if key == document_key(kept)]
    assert library.purged == [digest]


async def test_taken_down_image_is_gone_for_every_operation(library: Library) -> None:
    body = images.photo_jpeg(400, 300)
    digest = await library.ingest(body)
    await library.takedowns.take_down(digest)
    with pytest.raises(GoneError):
        await library.rendition(digest, "width=100")
    with pytest.raises(GoneError):
        await library.documents.get(digest)
    with pytest.raises(GoneError):
        await library.documents.update(digest, lambda document: document)
    with pytest.raises(GoneError):
        await library.ingest(body)
    assert [key for key in keys(library) if digest in key] == [tombstone_key(digest)]


async def test_taken_down_image_is_gone_for_a_process_that_has_not_polled_yet(tmp_path: Path, pool: RenderPool) -> None:
    async with open_library(tmp_path, pool) as one, open_library(tmp_path, pool) as other:
        digest = await one.ingest(images.photo_jpeg(400, 300))
        await one.takedowns.take_down(digest)
        with pytest.raises(GoneError):
            await other.rendition(digest, "width=100")
        with pytest.raises(GoneError):
            await other.ingest(images.photo_jpeg(400, 300))


async def test_image_that_another_process_took_down_is_gone_for_a_process_that_remembers_it(tmp_path: Path, pool: RenderPool) -> None:
    async with open_library(tmp_path, pool) as one, open_library(tmp_path, pool) as other:
        under, over = await other.ingest(images.photo_jpeg(400, 300)), await other.ingest(images.rgba_png(64, 64))
        await one.takedowns.take_down(over)
        with pytest.raises(GoneError) as gone:
            await other.rendition(under, parse(f"width=200,overlay={over}").canonical_form)
        assert gone.value.received == over
        await one.takedowns.take_down(under)
        with pytest.raises(GoneError):
            await other.rendition(under, "width=100")
        # After this, nothing is remembered.
        await one.takedowns.delete_tombstone(under)
        with pytest.raises(UnknownImageError):
            await other.rendition(under, "width=100")
        assert [key for key in keys(one) if under in key] == []


async def test_rendition_with_a_taken_down_overlay_is_gone_even_if_it_is_stored(library: Library) -> None:
    under = await library.ingest(images.photo_jpeg(400, 300))
    over = await library.ingest(images.rgba_png(64, 64))
    canonical_form = parse(f"width=200,overlay={over}").canonical_form
    await library.rendition(under, canonical_form)
    await library.takedowns.take_down(over)
    with pytest.raises(GoneError) as gone:
        await library.rendition(under, canonical_form)
    assert gone.value.received == over
    assert (await library.rendition(under, "width=200")).body


async def test_render_that_ends_after_the_takedown_is_neither_returned_nor_stored(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await library.ingest(images.photo_jpeg(400, 300))
    render = library.renditions._render

    async def taken_down_meanwhile(*arguments: object, **options: object) -> object:
        rendered = await render(*arguments, **options)  # type: ignore[arg-type]
        await library.takedowns.take_down(digest)
        return rendered

    monkeypatch.setattr(library.renditions, "_render", taken_down_meanwhile)
    with pytest.raises(GoneError):
        await library.rendition(digest, "width=100")
    assert [key for key in keys(library) if digest in key] == [tombstone_key(digest)]


async def test_render_of_an_image_that_another_process_takes_down_is_not_stored(
    tmp_path: Path, pool: RenderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_library(tmp_path, pool) as one, open_library(tmp_path, pool) as other:
        digest = await one.ingest(images.photo_jpeg(400, 300))
        render = one.renditions._render

        async def taken_down_meanwhile(*arguments: object, **options: object) -> object:
            rendered = await render(*arguments, **options)  # type: ignore[arg-type]
            await other.takedowns.take_down(digest)
            return rendered

        monkeypatch.setattr(one.renditions, "_render", taken_down_meanwhile)
        with pytest.raises(GoneError):
            await one.rendition(digest, "width=100")
        assert [key for key in keys(one) if digest in key] == [tombstone_key(digest)]


async def test_upload_that_is_taken_down_while_it_is_stored_leaves_nothing(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    body = images.photo_jpeg(400, 300)
    digest = await library.ingest(body)
    await library.takedowns.take_down(digest)
    await library.takedowns.delete_tombstone(digest)
    create = library.storage.put_if_absent

    async def taken_down_before_the_document(key: str, *arguments: object, **options: object) -> bool:
        if key == document_key(digest):
            await library.takedowns.take_down(digest)
        return await create(key, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(library.storage, "put_if_absent", taken_down_before_the_document)
    with pytest.raises(GoneError):
        await library.ingest(body)
    assert [key for key in keys(library) if digest in key] == [tombstone_key(digest)]


async def test_image_without_its_tombstone_can_be_uploaded_again(library: Library) -> None:
    body = images.photo_jpeg(400, 300)
    digest = await library.ingest(body)
    before = (await library.rendition(digest, "width=100")).body
    await library.takedowns.take_down(digest)
    await library.takedowns.delete_tombstone(digest)
    with pytest.raises(NotFoundError):
        await library.rendition(digest, "width=100")
    assert await library.ingest(body) == digest
    assert (await library.rendition(digest, "width=100")).body == before


async def test_takedown_of_an_unknown_image_is_not_found_and_leaves_nothing(library: Library) -> None:
    with pytest.raises(NotFoundError):
        await library.takedowns.take_down(DIGEST)
    with pytest.raises(NotFoundError):
        await library.takedowns.delete_tombstone(DIGEST)
    assert keys(library) == []


async def test_takedown_repeated_removes_remaining_objects_and_keeps_its_time(library: Library) -> None:
    digest = await library.ingest(images.photo_jpeg(400, 300))
    first = await library.takedowns.take_down(digest)
    obstore.put(library.storage._store, f"renditions/{digest}/left", b"left")
    again = await library.takedowns.take_down(digest)
    assert (again.renditions, again.taken_down) == (1, first.taken_down)
    assert [key for key in keys(library) if digest in key] == [tombstone_key(digest)]


async def test_taken_down_image_is_not_warmed_and_its_note_is_removed(library: Library, logged: list[structlog.typing.EventDict]) -> None:
    digest = await library.ingest(images.photo_jpeg(400, 300))
    await library.takedowns.take_down(digest)
    await library.storage.put(warming_key(digest), b"", durable=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(library.warmer.run)
        await until(lambda: keys(library) == [tombstone_key(digest)])
        tasks.cancel_scope.cancel()
    assert [event["event"] for event in logged if event["log_level"] in {"warning", "error"}] == []


# Other processes


async def test_refresh_purges_each_new_takedown_once() -> None:
    storage = here(Storage(MemoryStore()), DIGEST, OTHER)
    one, other = Process(storage), Process(storage)
    await one.takedowns.take_down(DIGEST)
    await other.takedowns.refresh()
    await other.takedowns.refresh()
    await one.takedowns.take_down(OTHER)
    await other.takedowns.refresh()
    assert other.purges == [[DIGEST], [], [OTHER]]
    assert repr(other.takedowns) == "<Takedowns: 2 images>"
    for digest in (DIGEST, OTHER):
        with pytest.raises(GoneError):
            other.takedowns.raise_if_taken_down([digest])


async def test_refresh_forgets_deleted_tombstones() -> None:
    storage = here(Storage(MemoryStore()), DIGEST)
    one, other = Process(storage), Process(storage)
    await one.takedowns.take_down(DIGEST)
    await other.takedowns.refresh()
    await one.takedowns.delete_tombstone(DIGEST)
    await other.takedowns.refresh()
    other.takedowns.raise_if_taken_down([DIGEST])
    one.takedowns.raise_if_taken_down([DIGEST])


async def test_refresh_during_a_takedown_does_not_forget_it(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = here(Storage(MemoryStore()), DIGEST)
    process = Process(storage)
    listed = anyio.Event()
    all_names = storage.list_names

    async def slow_names(folder: str) -> AsyncIterator[str]:
        names = [name async for name in all_names(folder)]
        listed.set()
        await anyio.sleep(0.05)
        for name in names:
            yield name

    monkeypatch.setattr(storage, "list_names", slow_names)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process.takedowns.refresh)
        await listed.wait()
        monkeypatch.setattr(storage, "list_names", all_names)
        await process.takedowns.take_down(DIGEST)
    with pytest.raises(GoneError):
        process.takedowns.raise_if_taken_down([DIGEST])


async def test_watch_in_a_store_outage_lets_hits_go_on_and_retries_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = here(Storage(MemoryStore()), DIGEST)
    await Process(storage).takedowns.take_down(DIGEST)
    process = Process(storage)
    monkeypatch.setattr(takedowns_module, "RETRY_AFTER_SECONDS", 0.01)
    all_names = storage.list_names

    def unreachable(folder: str) -> AsyncIterator[str]:
        raise StorageUnavailableError("away")

    monkeypatch.setattr(storage, "list_names", unreachable)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process.takedowns.watch)
        await until(lambda: len(process.purges) >= 2)
        assert process.purges[:2] == [[], []]
        monkeypatch.setattr(storage, "list_names", all_names)
        await until(lambda: process.purges[-1] == [DIGEST])
        tasks.cancel_scope.cancel()


# A CDN in front


async def test_cdn_is_purged_at_once_and_again_after_every_process_has_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = here(Storage(MemoryStore()), DIGEST)
    with fake_cloudflare() as cloudflare:
        process = Process(storage, Cloudflare(cloudflare.zone, cloudflare.token, url=cloudflare.url))
        result = await process.takedowns.take_down(DIGEST)
        assert result.cdn == "purged"
        assert cloudflare.purged_tags == [DIGEST]
        await process.takedowns._purge_again()
        assert cloudflare.purged_tags == [DIGEST]
        monkeypatch.setattr(takedowns_module, "SECOND_PURGE_AFTER", timedelta(0))
        await process.takedowns._purge_again()
        await process.takedowns._purge_again()
        assert cloudflare.purged_tags == [DIGEST, DIGEST]


async def test_takedown_stands_if_the_cdn_refuses_and_the_purge_is_made_later(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = here(Storage(MemoryStore()), DIGEST)
    with fake_cloudflare() as cloudflare:
        process = Process(storage, Cloudflare(cloudflare.zone, cloudflare.token, url=cloudflare.url))
        cloudflare.fail(Fault(400))
        with pytest.raises(CdnError):
            await process.takedowns.take_down(DIGEST)
        with pytest.raises(GoneError):
            process.takedowns.raise_if_taken_down([DIGEST])
        assert not await storage.exists(original_key(DIGEST))
        monkeypatch.setattr(takedowns_module, "SECOND_PURGE_AFTER", timedelta(0))
        await process.takedowns._purge_again()
        assert cloudflare.purged_tags == [DIGEST]
