"""Takedowns: the images that are not to be shown any more, noted in the store, and known to every process that serves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

import anyio
import msgspec
import structlog

from service.errors import CdnError, GoneError, NotFoundError, ServiceError
from service.storage.keys import (
    PURGES_PREFIX,
    TOMBSTONES_PREFIX,
    document_key,
    intermediate_key,
    original_key,
    purge_key,
    recent_key,
    renditions_prefix,
    tombstone_key,
    warming_key,
)
from service.storage.object_store import Storage

log = structlog.get_logger(__name__)

# How often the other processes look for takedowns, and how soon again where the store did not answer, in seconds.
REFRESH_EVERY_SECONDS = 20.0
RETRY_AFTER_SECONDS = 5.0

# A CDN may fetch an image once more from a process that has not looked yet: it is purged again when every process has.
SECOND_PURGE_AFTER = timedelta(seconds=80)

Purge = Callable[[Collection[str]], object]


class Cdn(Protocol):
    """A CDN in front, which purges responses by their `Cache-Tag`."""

    async def purge_tags(self, tags: Sequence[str]) -> None:
        """Purge every response that has any of `tags`; raises `CdnError`."""
        ...


class Tombstone(msgspec.Struct, frozen=True):
    """What is left of an image that was taken down: when that was."""

    taken_down: str


class TakenDown(msgspec.Struct, frozen=True):
    """What a takedown did: when it was, how many renditions it removed from the store, and whether there is a CDN that was purged."""

    digest: str
    taken_down: str
    renditions: int
    cdn: Literal["purged", "none"]


class _Created(msgspec.Struct, frozen=True):
    """Of a document: when the image was taken in."""

    created: str


class Takedowns:
    """What has been taken down. A tombstone is written first, so that whatever is made meanwhile is found out afterwards."""

    def __init__(self, storage: Storage, purge: Purge, cdn: Cdn | None) -> None:
        """Take where images are kept, what drops the answers that carry some digests from this process, and the CDN in front."""
        self._storage = storage
        self._purge = purge
        self._cdn = cdn
        self._known: frozenset[str] = frozenset()
        # A list that was begun before a takedown of our own must not make it forgotten.
        self._learning = anyio.Lock()

    async def watch(self) -> None:
        """Look for takedowns by other processes again and again, for as long as this process serves."""
        while True:
            try:
                await self.refresh()
                await self._purge_again()
            except ServiceError as error:
                log.warning("takedowns could not be looked for", problem=error.slug)
                # What is kept goes on being given while the store is out of reach.
                self._purge(())
                await anyio.sleep(RETRY_AFTER_SECONDS)
            else:
                await anyio.sleep(REFRESH_EVERY_SECONDS)

    async def refresh(self) -> None:
        """Learn what has been taken down since, and drop it; raises `StorageUnavailableError`."""
        async with self._learning:
            listed = frozenset([name async for name in self._storage.list_names(TOMBSTONES_PREFIX)])
            new = listed - self._known
            self._known = listed
        self._purge(new)
        if new:
            log.info("taken down", images=len(new))

    def raise_if_taken_down(self, digests: Iterable[str]) -> None:
        """Return if none of some images is known to be taken down; raises `GoneError`."""
        for digest in digests:
            if digest in self._known:
                raise _gone(digest)

    async def raise_if_tombstoned(self, digests: Iterable[str]) -> None:
        """Return if none of some images is taken down, whoever did it; raises `GoneError` and `StorageUnavailableError`."""
        for digest in digests:
            if digest in self._known or await self._storage.exists(tombstone_key(digest), consistent=True):
                raise _gone(digest)

    async def require_after_writing(self, digests: Iterable[str], *keys: str) -> None:
        """Return if what has just been put under `keys` may stay; else it is removed and `GoneError` raised.

        Written first and asked then, nothing of a taken-down image stays: either this sees the tombstone, or who wrote that sees this.
        """
        try:
            await self.raise_if_tombstoned(digests)
        except GoneError:
            for key in keys:
                await self._storage.delete(key)
            raise

    async def take_down(self, digest: str) -> TakenDown:
        """Take an image down: nothing of it is given or stored by the time this returns, in this process and in the store.

        Other processes follow within `REFRESH_EVERY_SECONDS`. Raises `NotFoundError`, `StorageUnavailableError` (whatever was done stays
        done, and may be repeated) and `CdnError`.
        """
        known = await self._storage.get_from_any_region(tombstone_key(digest))
        if known is None and not await self._is_here(digest):
            raise _unknown(digest)
        tombstone = Tombstone(_now().isoformat(timespec="seconds").replace("+00:00", "Z"))
        async with self._learning:
            await self._storage.put_if_absent(tombstone_key(digest), msgspec.json.encode(tombstone), durable=True)
            self._known |= {digest}
        if known is not None:
            tombstone = msgspec.json.decode(known, type=Tombstone)
        self._purge([digest])
        folder = renditions_prefix(digest)
        renditions = [f"{folder}/{name}" async for name in self._storage.list_names(folder)]
        document = await self._storage.get_from_any_region(document_key(digest))
        for key in in_order_of_removal(digest, document, renditions):
            await self._storage.delete(key)
        log.info("taken down", digest=digest, renditions=len(renditions))
        if self._cdn is None:
            return TakenDown(digest, tombstone.taken_down, len(renditions), "none")
        await self._storage.put(purge_key(digest), _now().isoformat().encode("ascii"), durable=True)
        await self._cdn.purge_tags([digest])
        return TakenDown(digest, tombstone.taken_down, len(renditions), "purged")

    async def delete_tombstone(self, digest: str) -> None:
        """Let an image be taken in again; raises `NotFoundError` where it is not taken down."""
        if not await self._storage.exists(tombstone_key(digest), consistent=True):
            raise NotFoundError(
                "This image is not taken down.",
                expected="the digest of an image that was taken down",
                received=digest,
                remedy="There is nothing to lift: upload the image with POST /v1/images.",
            )
        async with self._learning:
            await self._storage.delete(tombstone_key(digest))
            self._known -= {digest}
        log.info("a takedown was lifted", digest=digest)

    async def _is_here(self, digest: str) -> bool:
        keys = (document_key(digest), original_key(digest))
        return any([await self._storage.exists(key, consistent=True) for key in keys])

    async def _purge_again(self) -> None:
        """Purge the CDN of what may have come back to it; what could not be purged is tried again at the next look."""
        if self._cdn is None:
            return
        due = []
        async for digest in self._storage.list_names(PURGES_PREFIX):
            noted = await self._storage.get(purge_key(digest))
            if noted is not None and _now() - datetime.fromisoformat(noted.decode("ascii")) > SECOND_PURGE_AFTER:
                due.append(digest)
        if not due:
            return
        try:
            await self._cdn.purge_tags(due)
        except CdnError as error:
            log.warning("the CDN was not purged again", detail=error.detail, images=len(due))
            return
        for digest in due:
            await self._storage.delete(purge_key(digest))


def _now() -> datetime:
    return datetime.now(UTC)


def in_order_of_removal(digest: str, document: bytes | None, renditions: Iterable[str]) -> list[str]:
    """Return the keys of all that a store has of an image, given its stored document and the keys of its renditions.

    Its place in the list while the document tells it, and then the document: where it is not, nothing more is made.
    """
    listed = _place_in_list(digest, document)
    return [*listed, document_key(digest), warming_key(digest), *renditions, intermediate_key(digest), original_key(digest)]


def _place_in_list(digest: str, document: bytes | None) -> list[str]:
    """Return where an image is listed, if its document tells: a damaged one must not keep it from being taken down."""
    try:
        return [] if document is None else [recent_key(digest, msgspec.json.decode(document, type=_Created).created)]
    except ValueError:
        return []


def _gone(digest: str) -> GoneError:
    return GoneError(
        "This image has been taken down.",
        expected="an image that has not been",
        received=digest,
        remedy="It can be taken in again after DELETE /v1/images/{digest}/tombstone.",
    )


def _unknown(digest: str) -> NotFoundError:
    return NotFoundError(
        "No image has this digest.",
        expected="the digest of an image that is here",
        received=digest,
        remedy="There is nothing to take down.",
    )
