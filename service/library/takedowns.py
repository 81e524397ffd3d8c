"""Takedowns: an image is removed, in every process, every region and the CDN, and cannot come back by accident.

Theory of operation
===================

A takedown is a *tombstone*: an object `tombstones/<digest>` in the store. While it exists, the image is gone: uploads of the same bytes,
renditions, and renditions of other images with this one as overlay get 410. Deleting the tombstone makes it possible to upload the image
again; nothing else comes back.

`take_down` works in this order, and every step may be repeated after a failure:

1. Create the tombstone. From now on no process can add anything to the image and leave it there (see below).
2. Purge this process's edge cache, including responses that are still on their way from the origin.
3. Remove the image's objects from the store, starting with its place in the list and its document.
4. Note in the store that the CDN needs a second purge, and purge it for the first time.

What each process sees:

- The process that takes an image down knows it at once.
- Every other process lists the tombstones every `REFRESH_EVERY_SECONDS` (`watch`). It keeps their digests in memory, so that a request
  costs no look-up in the store, and purges its edge cache of the new ones. In between it may still serve what it has in its cache, and
  read renditions that step 3 has not removed yet.
- Operations that are rare or that write do not rely on that memory. An ingest looks for the tombstone in the store before it starts, and
  so does the read of a document that is not found, to tell "gone" from "never uploaded". Each write is followed by another look:
  `ImageStore.writing` explains why that needs no lock. Such looks are consistent across regions; the list in memory may lag.

Suspended machines. A Fly machine may be suspended for hours and resume without noticing; its cache may then hold images that were taken
down meanwhile, and the next poll may be 20 seconds away. The edge measures time on a clock that runs on during a suspend. Each poll calls
`purge`, with no digests if nothing is new, and the edge takes that as proof that its cache is up to date. If the last call is more than
a minute old, the edge first calls `refresh`, for up to 5 seconds, and then serves what it has stored.

Store outages. `watch` cannot list the tombstones then, but calls `purge` with no digests nevertheless: hits need no store, and an outage
must not delay them. It retries after `RETRY_AFTER_SECONDS`.

The CDN. A CDN may fetch the image again right after its purge, from a process that does not know of the takedown yet. Therefore a note in
the store, `purges/<digest>`, requests a second purge `SECOND_PURGE_AFTER` the first, when every process has polled several times. Any
process may make it: this one may have ended by then. Copies in browsers cannot be recalled.

Beware:

- `refresh` replaces the set of digests by the one it has listed. A takedown by this process that starts between the listing and the
  replacement would be lost, hence the lock around both.
- `SECOND_PURGE_AFTER` must not be shorter than the edge's largest purge lag (60 seconds) plus one poll.
- The tombstone is created before anything is removed, and a failure later does not delete it: a takedown that fails midway still hides the
  image, and the next attempt removes the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

import anyio
import msgspec
import structlog

from service import instruments
from service.concurrency.polling import poll
from service.errors import CdnError, NotFoundError, ServiceError, UnknownImageError
from service.library.image_store import ImageStore, gone

log = structlog.get_logger(__name__)

# How often a process lists the tombstones, and how soon again if the store did not respond, in seconds.
REFRESH_EVERY_SECONDS = 20.0
RETRY_AFTER_SECONDS = 5.0

# By then every process knows of the takedown, so that the CDN cannot fetch the image from any of them.
SECOND_PURGE_AFTER = timedelta(seconds=80)

Purge = Callable[[Collection[str]], object]


class Cdn(Protocol):
    """A CDN in front, which purges responses by their `Cache-Tag`."""

    async def purge_tags(self, tags: Sequence[str]) -> None:
        """Purge every response that has any of `tags`; raises `CdnError`."""
        ...


class Tombstone(msgspec.Struct, frozen=True):
    """The content of a tombstone: when the image was taken down (RFC 3339)."""

    taken_down: str


class TakenDown(msgspec.Struct, frozen=True):
    """The result of a takedown: its time, how many renditions it removed from the store, and whether it purged a CDN."""

    digest: str
    taken_down: str
    renditions: int
    cdn: Literal["purged", "none"]


class Takedowns:
    """The images that are taken down, as far as this process knows, and the operations that change that."""

    def __init__(self, images: ImageStore, purge: Purge, cdn: Cdn | None) -> None:
        """Start without any digest in memory: `watch` lists the tombstones at once.

        images: where the tombstones are, and the objects of the images.
        purge: removes responses that show any of the given digests from this process's edge cache. Called without digests, it says that
            nothing new is taken down.
        cdn: the CDN in front of the server, `None` if there is none.
        """
        self._images = images
        self._purge = purge
        self._cdn = cdn
        self._known: frozenset[str] = frozenset()
        # Held while `_known` is replaced: a listing that was started before a takedown by this process must not undo it.
        self._updating = anyio.Lock()

    def __repr__(self) -> str:
        return f"<Takedowns: {len(self._known)} images>"

    async def watch(self) -> None:
        """Follow takedowns by other processes, and make second purges of the CDN, for as long as this process serves."""
        await poll(self._poll, every=REFRESH_EVERY_SECONDS, retry_after=RETRY_AFTER_SECONDS, on_error=self._poll_failed)

    async def refresh(self) -> None:
        """List the tombstones, and purge the images that were not known to be taken down; raises `StorageUnavailableError`."""
        async with self._updating:
            listed = await self._images.tombstoned_digests()
            new = listed - self._known
            self._known = listed
        self._purge(new)
        if new:
            log.info("taken down", images=len(new))

    def is_taken_down(self, digest: str) -> bool:
        """Return whether this process knows that an image is taken down."""
        return digest in self._known

    def raise_if_taken_down(self, digests: Iterable[str]) -> None:
        """Raise `GoneError` if this process knows that one of some images is taken down."""
        for digest in digests:
            if digest in self._known:
                raise gone(digest)

    async def raise_if_tombstoned(self, digests: Iterable[str]) -> None:
        """Raise `GoneError` if one of some images is taken down, by whichever process; raises `StorageUnavailableError` too."""
        for digest in digests:
            if digest in self._known or await self._images.has_tombstone(digest):
                raise gone(digest)

    async def take_down(self, digest: str) -> TakenDown:
        """Take an image down. On return this process serves nothing of it, and the store has only its tombstone.

        Other processes follow within `REFRESH_EVERY_SECONDS`. Raises `UnknownImageError`, `StorageUnavailableError` and `CdnError`; after
        the last two the steps made so far stay made, and the call may be repeated.
        """
        known = await self._images.find_tombstone(digest)
        if known is None and not await self._images.exists(digest):
            raise UnknownImageError.for_digest(digest)
        tombstone = Tombstone(_now().isoformat(timespec="seconds").replace("+00:00", "Z"))
        async with self._updating:
            await self._images.create_tombstone(digest, msgspec.json.encode(tombstone))
            self._known |= {digest}
        if known is not None:
            tombstone = msgspec.json.decode(known, type=Tombstone)
        self._purge([digest])
        renditions = await self._images.remove(digest)
        log.info("taken down", digest=digest, renditions=renditions)
        instruments.TAKEDOWNS.add()
        if self._cdn is None:
            return TakenDown(digest, tombstone.taken_down, renditions, "none")
        await self._images.put_purge_note(digest, _now().isoformat().encode("ascii"))
        await self._cdn.purge_tags([digest])
        return TakenDown(digest, tombstone.taken_down, renditions, "purged")

    async def delete_tombstone(self, digest: str) -> None:
        """Allow an image to be uploaded again; raises `NotFoundError` if it is not taken down, and `StorageUnavailableError`."""
        if not await self._images.has_tombstone(digest):
            raise NotFoundError(
                "This image is not taken down.",
                expected="the digest of an image that was taken down",
                received=digest,
                remedy="No tombstone has to be deleted: upload the image with POST /v1/images.",
            )
        async with self._updating:
            await self._images.delete_tombstone(digest)
            self._known -= {digest}
        log.info("a takedown was lifted", digest=digest)

    async def _poll(self) -> None:
        await self.refresh()
        await self._purge_again()

    def _poll_failed(self, error: ServiceError) -> None:
        log.warning("takedowns could not be looked for", problem=error.slug)
        # Hits go on while the store cannot be reached.
        self._purge(())

    async def _purge_again(self) -> None:
        """Make the second purges that are due; one that fails is due again at the next poll."""
        if self._cdn is None:
            return
        notes = await self._images.purge_notes()
        due = [digest for digest, noted in notes.items() if _now() - datetime.fromisoformat(noted.decode("ascii")) > SECOND_PURGE_AFTER]
        if not due:
            return
        try:
            await self._cdn.purge_tags(due)
        except CdnError as error:
            log.warning("the CDN was not purged again", detail=error.detail, images=len(due))
            return
        for digest in due:
            await self._images.delete_purge_note(digest)


def _now() -> datetime:
    return datetime.now(UTC)
