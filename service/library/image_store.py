"""ImageStore: what an image consists of in the store, and the order in which its objects are written and removed.

An upload writes the first four at the same time, and then the document:

- `originals/<digest>`: the bytes as uploaded.
- `intermediates/<digest>`: a smaller copy to render from, only of large originals.
- `warming/<digest>`: an empty object; the image waits to be warmed.
- `recent/<time>-<digest>`: an empty object; the place of the image in the list of images, newest first.
- `documents/<digest>`: the document. From now on the image exists, and `renditions/<digest>/<name>` follow as they are requested.

A crash in between leaves objects without a document, which nothing serves: `darkroom store check` reports the original,
and `darkroom store sweep` removes the others. A removal starts with the place in the list and the document, so that nothing new is
rendered while the rest is removed.

`tombstones/<digest>` says that the image was taken down, and `purges/<digest>` that a CDN must be purged of it a second time.

A write may overlap with a takedown by another process, and the store has no locks. Therefore each side writes first and looks afterwards:
a takedown creates the tombstone, then lists and removes the objects; a writer writes its objects, then looks for the tombstone and removes
what it has written if there is one. A writer that sees no tombstone has finished before the takedown lists the objects, which then removes
them. `ImageStore.writing` is the only way to write, so that no caller can forget to look.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
import msgspec
import structlog

from service.concurrency.together import together
from service.errors import DamagedDocumentError, GoneError
from service.images.digest import digest_from_sha256
from service.images.document import Document, opened_document
from service.storage.keys import (
    DOCUMENTS_PREFIX,
    PURGES_PREFIX,
    RECENT_PREFIX,
    TOMBSTONES_PREFIX,
    WARMING_PREFIX,
    document_key,
    intermediate_key,
    original_key,
    purge_key,
    recent_key,
    recent_name,
    rendition_key,
    renditions_prefix,
    tombstone_key,
    warming_key,
)
from service.storage.object_store import Storage

log = structlog.get_logger(__name__)


class _Created(msgspec.Struct, frozen=True):
    """The only member of a document that its place in the list depends on."""

    created: str


class ImageWriter:
    """Writes objects of one image and remembers their keys. Every method raises `StorageUnavailableError` and `StorageFullError`."""

    def __init__(self, storage: Storage, digest: str) -> None:
        """Write to a store.

        storage: the store.
        digest: the image that every object written here belongs to.
        """
        self._storage = storage
        self.digest = digest
        self.keys: list[str] = []

    async def create_original(self, upload: Path) -> None:
        """Store a file as the original unless there is one. A damaged one is replaced."""
        if not await self._storage.put_if_absent(self._add(original_key(self.digest)), upload, durable=True):
            await self.repair_original(upload)

    async def repair_original(self, upload: Path) -> None:
        """Store a file as the original if the stored one is missing or its bytes no longer have its digest."""
        key = original_key(self.digest)
        stored = await self._storage.get(key)
        if stored is not None:
            sha256 = await anyio.to_thread.run_sync(hashlib.sha256, stored)
            if digest_from_sha256(sha256.digest()) == self.digest:
                return
        log.warning("a damaged original was replaced", digest=self.digest, missing=stored is None)
        await self._storage.put(self._add(key), upload, durable=True)

    async def put_intermediate(self, body: bytes) -> None:
        """Store the intermediate, in place of the stored one if there is one."""
        await self._storage.put(self._add(intermediate_key(self.digest)), body, durable=False)

    async def put_warming_note(self) -> None:
        """Note that the image is to be warmed."""
        await self._storage.put(self._add(warming_key(self.digest)), b"", durable=False)

    async def create_listing_entry(self, created: str, *, durable: bool) -> None:
        """Give the image its place in the list: `created` is the time of its upload (RFC 3339)."""
        await self._storage.put_if_absent(self._add(recent_key(self.digest, created)), b"", durable=durable)

    async def create_document(self, document: Document) -> bool:
        """Store a document unless there is one; return whether it was stored. A damaged one is replaced."""
        key, body = self._add(document_key(self.digest)), msgspec.json.encode(document)
        if await self._storage.put_if_absent(key, body, durable=True):
            return True
        stored = await self._storage.get_from_any_region(key)
        if stored is not None and opened_document(self.digest, stored) is not None:
            return False
        log.warning("a damaged document was replaced", digest=self.digest)
        await self._storage.put(key, body, durable=True)
        return True

    async def put_document(self, document: Document) -> None:
        """Store a document in place of the stored one."""
        await self._storage.put(self._add(document_key(self.digest)), msgspec.json.encode(document), durable=True)

    async def create_rendition(self, name: str, body: bytes) -> bool:
        """Store a rendition unless there is one of this name; return whether it was stored."""
        return await self._storage.put_if_absent(self._add(rendition_key(self.digest, name)), body, durable=False)

    def _add(self, key: str) -> str:
        # Before the write, and even if it fails: an attempt that reports a failure may have written the object.
        self.keys.append(key)
        return key


class ImageStore:
    """The objects of every image. Every method raises `StorageUnavailableError` if the store cannot be reached.

    A bucket may have replicas in several regions. The methods called `read_…` look only at the nearest one, which may lag; those called
    `find_…` look at the others too if it does not have the object.
    """

    def __init__(self, storage: Storage) -> None:
        """Use a store.

        storage: where the objects lie.
        """
        self._storage = storage

    @asynccontextmanager
    async def writing(self, digest: str, *others: str) -> AsyncIterator[ImageWriter]:
        """Give a writer for an image; after the block, remove what it wrote, if anything, if the image has been taken down.

        digest: the image to write objects of.
        others: other images that the written objects show, such as an overlay.

        Raises `GoneError` after the block if one of the images is taken down.
        """
        writer = ImageWriter(self._storage, digest)
        yield writer
        if not writer.keys:
            return
        images = (digest, *others)
        for shown, is_gone in zip(images, await together(*map(self.has_tombstone, images)), strict=True):
            if is_gone:
                # In reverse order: the document must go before the objects that it relies on.
                for key in reversed(writer.keys):
                    await self._storage.delete(key)
                raise gone(shown)

    async def exists(self, digest: str) -> bool:
        """Return whether the store has a document or an original of an image, in any region."""
        return await self._storage.exists(document_key(digest), consistent=True) or await self._storage.exists(
            original_key(digest), consistent=True
        )

    async def keys_in_order_of_removal(self, digest: str) -> list[str]:
        """Return the keys of all objects that an image may have, except its tombstone, in the order in which to remove them."""
        renditions = [rendition_key(digest, name) for name in await self.rendition_names(digest)]
        document = await self._storage.get_from_any_region(document_key(digest))
        return [
            *_listing_keys(digest, document),
            document_key(digest),
            warming_key(digest),
            *renditions,
            intermediate_key(digest),
            original_key(digest),
        ]

    async def remove(self, digest: str) -> int:
        """Remove all objects of an image, and return the number of renditions among them."""
        keys = await self.keys_in_order_of_removal(digest)
        for key in keys:
            await self._storage.delete(key)
        return sum(key.startswith(f"{renditions_prefix(digest)}/") for key in keys)

    # Originals, intermediates, renditions

    def original_path(self, digest: str) -> Path | None:
        """Return the file of an original, whether it exists or not; `None` if the store is not on this machine's disk."""
        return self._storage.local_path(original_key(digest))

    def rendition_path(self, digest: str, name: str) -> Path | None:
        """Return the file of a rendition, whether it exists or not; `None` if the store is not on this machine's disk."""
        return self._storage.local_path(rendition_key(digest, name))

    async def find_original(self, digest: str) -> bytes | None:
        """Return an original, `None` if no region has it."""
        return await self._storage.get_from_any_region(original_key(digest))

    async def intermediate_file(self, digest: str) -> Path | None:
        """Return the file of an intermediate with its checksum, to be read in place; `None` if none is on this machine's disk."""
        return await self._storage.file_in_place(intermediate_key(digest))

    async def read_intermediate(self, digest: str) -> bytes | None:
        """Return the stored intermediate of an image with its checksum, `None` if there is none."""
        return await self._storage.get(intermediate_key(digest))

    async def read_rendition(self, digest: str, name: str) -> bytes | None:
        """Return a stored rendition with its checksum, `None` if this region does not see it."""
        return await self._storage.get(rendition_key(digest, name))

    async def find_rendition(self, digest: str, name: str) -> bytes | None:
        """Return a stored rendition with its checksum, `None` if no region has it."""
        return await self._storage.get_from_any_region(rendition_key(digest, name))

    async def rendition_names(self, digest: str) -> list[str]:
        """Return the names of an image's stored renditions, in every region."""
        return [name async for name in self._storage.list_names(renditions_prefix(digest))]

    async def delete_rendition(self, digest: str, name: str) -> None:
        """Remove a rendition, which the next request renders again."""
        await self._storage.delete(rendition_key(digest, name))

    # Documents and the list of images

    async def read_document(self, digest: str, *, consistent: bool = False) -> Document | None:
        """Return a document, `None` if there is none; with `consistent`, as it was last written in any region.

        Raises `DamagedDocumentError`.
        """
        return _document(digest, await self._storage.get(document_key(digest), consistent=consistent))

    async def find_document(self, digest: str) -> Document | None:
        """Return a document, `None` if no region has it; it may be an earlier version. Raises `DamagedDocumentError`."""
        return _document(digest, await self._storage.get_from_any_region(document_key(digest)))

    async def listing_after(self, name: str, limit: int) -> list[str]:
        """Return the names of up to `limit` places in the list of images that follow the place `name`; "" stands for the start."""
        return await self._storage.list_names_after(RECENT_PREFIX, name, limit)

    async def unlisted_digests(self) -> list[str]:
        """Return the digests of documents that have no place in the list."""
        listed = {listed_digest(name) async for name in self._storage.list_names(RECENT_PREFIX)}
        return [digest async for digest in self._storage.list_names(DOCUMENTS_PREFIX) if digest not in listed]

    async def delete_listing_entry(self, digest: str, created: str) -> None:
        """Remove the place in the list of an image that was uploaded at `created` (RFC 3339)."""
        await self._storage.delete(recent_key(digest, created))

    # Warming

    async def warming_digests(self, limit: int) -> list[str]:
        """Return the digests of up to `limit` images that wait to be warmed, in no order."""
        return await self._storage.list_names_after(WARMING_PREFIX, "", limit)

    async def delete_warming_note(self, digest: str) -> None:
        """Remove the note that an image waits to be warmed."""
        await self._storage.delete(warming_key(digest))

    # Tombstones and purges

    async def has_tombstone(self, digest: str) -> bool:
        """Return whether an image is taken down, in any region."""
        return await self._storage.exists(tombstone_key(digest), consistent=True)

    async def find_tombstone(self, digest: str) -> bytes | None:
        """Return the tombstone of an image, `None` if it is not taken down in any region."""
        return await self._storage.get_from_any_region(tombstone_key(digest))

    async def create_tombstone(self, digest: str, body: bytes) -> None:
        """Store a tombstone unless there is one."""
        await self._storage.put_if_absent(tombstone_key(digest), body, durable=True)

    async def delete_tombstone(self, digest: str) -> None:
        """Remove a tombstone."""
        await self._storage.delete(tombstone_key(digest))

    async def tombstoned_digests(self) -> frozenset[str]:
        """Return the digests of all images that are taken down."""
        return frozenset([name async for name in self._storage.list_names(TOMBSTONES_PREFIX)])

    async def put_purge_note(self, digest: str, body: bytes) -> None:
        """Note that the CDN must be purged of an image a second time."""
        await self._storage.put(purge_key(digest), body, durable=True)

    async def purge_notes(self) -> dict[str, bytes]:
        """Return every note about a purge that is still to come, by digest."""
        notes: dict[str, bytes] = {}
        async for digest in self._storage.list_names(PURGES_PREFIX):
            body = await self._storage.get(purge_key(digest))
            if body is not None:
                notes[digest] = body
        return notes

    async def delete_purge_note(self, digest: str) -> None:
        """Remove the note about a purge that has been made."""
        await self._storage.delete(purge_key(digest))


def gone(digest: str) -> GoneError:
    """Return the error for an image that is taken down."""
    return GoneError(
        "This image has been taken down.",
        expected="an image that has not been taken down",
        received=digest,
        remedy="It can be uploaded again after DELETE /v1/images/{digest}/tombstone.",
    )


def listing_name(document: Document) -> str:
    """Return the name of an image's place in the list."""
    return recent_name(document.digest, document.created)


def listed_digest(name: str) -> str:
    """Return the digest of the image whose place in the list has this name."""
    return name.rpartition("-")[2]


def _document(digest: str, body: bytes | None) -> Document | None:
    if body is None:
        return None
    document = opened_document(digest, body)
    if document is None:
        raise DamagedDocumentError(
            "The stored document of this image is damaged.",
            expected="a document that names its image",
            received=digest,
            remedy="Upload the file again with POST /v1/images: that creates a new document, without alternative text or focal point.",
        )
    return document


def _listing_keys(digest: str, document: bytes | None) -> list[str]:
    """Return the key of an image's place in the list, if the document has its time: a damaged document must not stop a takedown."""
    try:
        return [] if document is None else [recent_key(digest, msgspec.json.decode(document, type=_Created).created)]
    except ValueError:
        return []
