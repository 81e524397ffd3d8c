"""The image store: its order of writing and removing, and the look for a tombstone after each write."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import DamagedDocumentError, GoneError
from service.images.document import Document
from service.images.info import ImageInfo, Placeholder
from service.library.image_store import ImageStore
from service.storage.keys import document_key, intermediate_key, original_key, recent_key, rendition_key, tombstone_key, warming_key
from service.storage.object_store import Storage, open_storage

pytestmark = pytest.mark.anyio

DIGEST = "a" * 32
OVERLAY = "b" * 32
CREATED = "2026-11-01T12:00:00.000Z"
DOCUMENT = Document(
    DIGEST,
    ImageInfo("jpeg", 400, 300, 1, alpha=False, needs_full_decode=False),
    9,
    CREATED,
    Placeholder(thumbhash="", data_url="", color="#000000", palette=[]),
)


@pytest.fixture
def storage() -> Storage:
    return open_storage("memory://", {})


@pytest.fixture
def image_store(storage: Storage) -> ImageStore:
    return ImageStore(storage)


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    path = tmp_path / "upload"
    path.write_bytes(b"a picture")
    return path


async def stored(storage: Storage) -> list[str]:
    """Return the keys of all objects that belong to an image or to its tombstone."""
    prefixes = ("documents", "intermediates", "originals", "recent", "renditions", "tombstones", "warming")
    return [f"{prefix}/{name}" for prefix in prefixes async for name in storage.list_names(prefix)]


async def write_all(image_store: ImageStore, upload: Path, taken_down: str = "") -> None:
    """Write every kind of object of an image, and take an image down before the block ends."""
    async with image_store.writing(DIGEST, OVERLAY) as writer:
        await writer.create_original(upload)
        await writer.put_intermediate(b"smaller")
        await writer.put_warming_note()
        await writer.create_listing_entry(CREATED, durable=True)
        assert await writer.create_document(DOCUMENT)
        assert await writer.create_rendition("name", b"rendition")
        if taken_down:
            await image_store.create_tombstone(taken_down, b"{}")


async def test_writing_without_a_tombstone_keeps_every_object(image_store: ImageStore, storage: Storage, upload: Path) -> None:
    await write_all(image_store, upload)
    assert sorted(await stored(storage)) == sorted(await image_store.keys_in_order_of_removal(DIGEST))
    assert await image_store.find_document(DIGEST) == DOCUMENT
    assert await image_store.exists(DIGEST)


@pytest.mark.parametrize("taken_down", [DIGEST, OVERLAY])
async def test_writing_of_an_image_that_is_taken_down_meanwhile_leaves_nothing(
    image_store: ImageStore, storage: Storage, upload: Path, taken_down: str
) -> None:
    with pytest.raises(GoneError) as gone:
        await write_all(image_store, upload, taken_down)
    assert gone.value.received == taken_down
    assert await stored(storage) == [tombstone_key(taken_down)]


async def test_removal_starts_with_the_place_in_the_list_and_the_document(image_store: ImageStore, storage: Storage, upload: Path) -> None:
    await write_all(image_store, upload)
    assert await image_store.keys_in_order_of_removal(DIGEST) == [
        recent_key(DIGEST, CREATED),
        document_key(DIGEST),
        warming_key(DIGEST),
        rendition_key(DIGEST, "name"),
        intermediate_key(DIGEST),
        original_key(DIGEST),
    ]
    assert await image_store.remove(DIGEST) == 1
    assert await stored(storage) == []


async def test_damaged_document_is_an_error_and_does_not_stop_the_removal(image_store: ImageStore, storage: Storage, upload: Path) -> None:
    await write_all(image_store, upload)
    await storage.put(document_key(DIGEST), b"{", durable=False)
    with pytest.raises(DamagedDocumentError):
        await image_store.read_document(DIGEST)
    await image_store.remove(DIGEST)
    assert await stored(storage) == [recent_key(DIGEST, CREATED)]
    async with image_store.writing(DIGEST) as writer:
        assert await writer.create_document(DOCUMENT)


async def test_damaged_original_is_replaced_by_an_upload_of_an_image_without_a_document(
    image_store: ImageStore, storage: Storage, upload: Path
) -> None:
    await storage.put(original_key(DIGEST), b"damaged", durable=False)
    async with image_store.writing(DIGEST) as writer:
        await writer.create_original(upload)
    assert await image_store.find_original(DIGEST) == b"a picture"


async def test_damaged_original_is_replaced_by_the_upload(image_store: ImageStore, storage: Storage, upload: Path) -> None:
    await write_all(image_store, upload)
    async with image_store.writing(DIGEST) as writer:
        await storage.put(original_key(DIGEST), b"damaged", durable=False)
        await writer.repair_original(upload)
    assert await image_store.find_original(DIGEST) == b"a picture"
