"""Takedowns: nothing of a taken-down image stays or comes back, whatever was under way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from datetime import timedelta
from pathlib import Path

import anyio
import obstore
import pytest
import structlog
from obstore.store import MemoryStore

from service.errors import CdnError, GoneError, NotFoundError, StorageUnavailableError
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
from tests.support.library import House, house
from tests.support.renders import until

pytestmark = pytest.mark.anyio

DIGEST = "a" * 32
OTHER = "b" * 32


class Process:
    """The takedowns of one process, and what it was told to purge, one entry for each time."""

    def __init__(self, storage: Storage, cdn: Cloudflare | None = None) -> None:
        self.told: list[list[str]] = []
        self.takedowns = Takedowns(ImageStore(storage), self._purge, cdn)

    def _purge(self, digests: Collection[str]) -> None:
        self.told.append(sorted(digests))


@pytest.fixture
async def home(tmp_path: Path, pool: RenderPool) -> AsyncIterator[House]:
    async with house(tmp_path, pool) as built:
        yield built


def here(storage: Storage, *digests: str) -> Storage:
    """Return a store in which these images are."""
    for digest in digests:
        obstore.put(storage._store, document_key(digest), b"{}")
        obstore.put(storage._store, original_key(digest), b"original")
    return storage


def keys(home: House) -> list[str]:
    """Return all that is stored."""
    return sorted(str(entry["path"]) for page in obstore.list(home.storage._store) for entry in page)


async def test_taken_down_image_leaves_its_tombstone_alone(home: House) -> None:
    digest = await home.ingest(images.photo_jpeg(400, 300))
    for width in (100, 200):
        await home.rendition(digest, f"width={width}")
    kept = await home.ingest(images.rgba_png(64, 64))
    told = await home.takedowns.take_down(digest)
    assert (told.digest, told.renditions, told.cdn) == (digest, 2, "none")
    assert [key for key in keys(home) if digest in key] == [tombstone_key(digest)]
    assert [key for key in keys(home) if key == document_key(kept)]
    assert home.purged == [digest]


async def test_taken_down_image_is_gone_for_every_use(home: House) -> None:
    body = images.photo_jpeg(400, 300)
    digest = await home.ingest(body)
    await home.takedowns.take_down(digest)
    with pytest.raises(GoneError):
        await home.rendition(digest, "width=100")
    with pytest.raises(GoneError):
        await home.documents.get(digest)
    with pytest.raises(GoneError):
        await home.documents.update(digest, lambda document: document)
    with pytest.raises(GoneError):
        await home.ingest(body)
    assert [key for key in keys(home) if digest in key] == [tombstone_key(digest)]


async def test_taken_down_image_is_gone_for_a_process_that_has_not_looked_yet(tmp_path: Path, pool: RenderPool) -> None:
    async with house(tmp_path, pool) as one, house(tmp_path, pool) as other:
        digest = await one.ingest(images.photo_jpeg(400, 300))
        await one.takedowns.take_down(digest)
        with pytest.raises(GoneError):
            await other.rendition(digest, "width=100")
        with pytest.raises(GoneError):
            await other.ingest(images.photo_jpeg(400, 300))


async def test_rendition_with_a_taken_down_overlay_is_gone_though_it_is_stored(home: House) -> None:
    under = await home.ingest(images.photo_jpeg(400, 300))
    over = await home.ingest(images.rgba_png(64, 64))
    spelling = parse(f"width=200,overlay={over}").canonical_form
    await home.rendition(under, spelling)
    await home.takedowns.take_down(over)
    with pytest.raises(GoneError) as gone:
        await home.rendition(under, spelling)
    assert gone.value.received == over
    assert (await home.rendition(under, "width=200")).body


async def test_render_that_ends_after_the_tombstone_is_neither_given_nor_stored(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = await home.ingest(images.photo_jpeg(400, 300))
    render = home.renditions._render

    async def taken_down_meanwhile(*arguments: object, **options: object) -> object:
        rendered = await render(*arguments, **options)  # type: ignore[arg-type]
        await home.takedowns.take_down(digest)
        return rendered

    monkeypatch.setattr(home.renditions, "_render", taken_down_meanwhile)
    with pytest.raises(GoneError):
        await home.rendition(digest, "width=100")
    assert [key for key in keys(home) if digest in key] == [tombstone_key(digest)]


async def test_render_that_another_process_takes_down_meanwhile_is_not_stored(
    tmp_path: Path, pool: RenderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path, pool) as one, house(tmp_path, pool) as other:
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


async def test_upload_that_is_taken_down_while_it_is_probed_leaves_nothing(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    body = images.photo_jpeg(400, 300)
    digest = await home.ingest(body)
    await home.takedowns.take_down(digest)
    await home.takedowns.delete_tombstone(digest)
    create = home.storage.put_if_absent

    async def taken_down_before_the_document(key: str, *arguments: object, **options: object) -> bool:
        if key == document_key(digest):
            await home.takedowns.take_down(digest)
        return await create(key, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(home.storage, "put_if_absent", taken_down_before_the_document)
    with pytest.raises(GoneError):
        await home.ingest(body)
    assert [key for key in keys(home) if digest in key] == [tombstone_key(digest)]


async def test_image_may_come_back_once_its_takedown_is_lifted(home: House) -> None:
    body = images.photo_jpeg(400, 300)
    digest = await home.ingest(body)
    before = (await home.rendition(digest, "width=100")).body
    await home.takedowns.take_down(digest)
    await home.takedowns.delete_tombstone(digest)
    with pytest.raises(NotFoundError):
        await home.rendition(digest, "width=100")
    assert await home.ingest(body) == digest
    assert (await home.rendition(digest, "width=100")).body == before


async def test_takedown_of_an_unknown_image_is_not_found_and_leaves_nothing(home: House) -> None:
    with pytest.raises(NotFoundError):
        await home.takedowns.take_down(DIGEST)
    with pytest.raises(NotFoundError):
        await home.takedowns.delete_tombstone(DIGEST)
    assert keys(home) == []


async def test_takedown_again_removes_what_was_left_and_keeps_its_time(home: House) -> None:
    digest = await home.ingest(images.photo_jpeg(400, 300))
    first = await home.takedowns.take_down(digest)
    obstore.put(home.storage._store, f"renditions/{digest}/left", b"left")
    again = await home.takedowns.take_down(digest)
    assert (again.renditions, again.taken_down) == (1, first.taken_down)
    assert [key for key in keys(home) if digest in key] == [tombstone_key(digest)]


async def test_taken_down_image_is_not_warmed_and_its_note_goes(home: House, logged: list[structlog.typing.EventDict]) -> None:
    digest = await home.ingest(images.photo_jpeg(400, 300))
    await home.takedowns.take_down(digest)
    await home.storage.put(warming_key(digest), b"", durable=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(home.warmer.run)
        await until(lambda: keys(home) == [tombstone_key(digest)])
        tasks.cancel_scope.cancel()
    assert [event["event"] for event in logged if event["log_level"] in {"warning", "error"}] == []


# Other processes


async def test_look_purges_what_is_new_once() -> None:
    storage = here(Storage(MemoryStore()), DIGEST, OTHER)
    one, other = Process(storage), Process(storage)
    await one.takedowns.take_down(DIGEST)
    await other.takedowns.refresh()
    await other.takedowns.refresh()
    await one.takedowns.take_down(OTHER)
    await other.takedowns.refresh()
    assert other.told == [[DIGEST], [], [OTHER]]
    for digest in (DIGEST, OTHER):
        with pytest.raises(GoneError):
            other.takedowns.raise_if_taken_down([digest])


async def test_look_forgets_what_was_lifted() -> None:
    storage = here(Storage(MemoryStore()), DIGEST)
    one, other = Process(storage), Process(storage)
    await one.takedowns.take_down(DIGEST)
    await other.takedowns.refresh()
    await one.takedowns.delete_tombstone(DIGEST)
    await other.takedowns.refresh()
    other.takedowns.raise_if_taken_down([DIGEST])
    one.takedowns.raise_if_taken_down([DIGEST])


async def test_look_during_a_takedown_of_its_own_does_not_forget_it(monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_watch_in_a_store_outage_lets_hits_go_on_and_looks_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
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
        await until(lambda: len(process.told) >= 2)
        assert process.told[:2] == [[], []]
        monkeypatch.setattr(storage, "list_names", all_names)
        await until(lambda: process.told[-1] == [DIGEST])
        tasks.cancel_scope.cancel()


# A CDN in front


async def test_cdn_is_purged_at_once_and_again_when_every_process_has_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = here(Storage(MemoryStore()), DIGEST)
    with fake_cloudflare() as cloudflare:
        process = Process(storage, Cloudflare(cloudflare.zone, cloudflare.token, url=cloudflare.url))
        told = await process.takedowns.take_down(DIGEST)
        assert told.cdn == "purged"
        assert cloudflare.purged_tags == [DIGEST]
        await process.takedowns._purge_again()
        assert cloudflare.purged_tags == [DIGEST]
        monkeypatch.setattr(takedowns_module, "SECOND_PURGE_AFTER", timedelta(0))
        await process.takedowns._purge_again()
        await process.takedowns._purge_again()
        assert cloudflare.purged_tags == [DIGEST, DIGEST]


async def test_cdn_that_refuses_is_told_the_image_is_down_all_the_same_and_it_is_purged_later(monkeypatch: pytest.MonkeyPatch) -> None:
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
