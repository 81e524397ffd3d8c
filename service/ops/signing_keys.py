"""Which keys the servers of a store sign with, noted in the store: one that signs what another refuses is told on `/health`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta

import anyio
import msgspec
import structlog

from service.errors import ServiceError, sanitize
from service.images.digest import base32
from service.storage.keys import SIGNING_KEYS_PREFIX, signing_key_record_key
from service.storage.object_store import ObjectInfo, Storage

log = structlog.get_logger(__name__)

# How often a server notes its key and looks at the notes of the others, and how soon again where the store failed, in seconds.
LOOK_EVERY_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 10.0

# A note that is this much older than our own is of a server that has ended, or that signs with another key by now.
FORGOTTEN_AFTER = timedelta(minutes=4)

# A key has 128 bits at least: its hash tells nothing of it.
_FINGERPRINT_BYTES = 10


class HealthIssue(msgspec.Struct, frozen=True):
    """What is wrong, and what helps."""

    reason: str
    remedy: str | None = None


class SigningKeyMonitor:
    """The key that this process signs with, and those that others on the same store do."""

    def __init__(self, storage: Storage, keys: Sequence[bytes], place: str) -> None:
        """Take where notes are kept, the accepted keys, the one that signs first, and where this process stands in a word."""
        self._storage = storage
        self._fingerprints = [fingerprint(key) for key in keys]
        self._place = place
        self.conflict: HealthIssue | None = None

    async def watch(self) -> None:
        """Note and look again and again, for as long as this process serves."""
        while True:
            try:
                await self.refresh()
            except ServiceError as error:
                log.warning("the keys of other servers could not be looked at", problem=error.slug)
                await anyio.sleep(LOOK_AGAIN_SECONDS)
            else:
                await anyio.sleep(LOOK_EVERY_SECONDS)

    async def refresh(self) -> None:
        """Note the key that signs, and find out whether another server signs with one that is not accepted here.

        During a rotation the key that signed before is accepted still; once it is removed, the last note of it is forgotten. Times are
        those of the store: a clock of ours may be wrong.
        """
        signing = signing_key_record_key(self._fingerprints[0])
        await self._storage.put(signing, self._place.encode(), durable=False)
        notes = [entry async for entry in self._storage.list_objects(SIGNING_KEYS_PREFIX)]
        ours = max((note.modified for note in notes if note.key == signing), default=None)
        accepted = {signing_key_record_key(name) for name in self._fingerprints}
        foreign = [note for note in notes if note.key not in accepted and ours is not None and ours - note.modified < FORGOTTEN_AFTER]
        conflict = await self._told(foreign[0]) if foreign else None
        if conflict is not None and self.conflict is None:
            log.error("another server signs with a key that is not accepted here", keys=[note.key for note in foreign])
        self.conflict = conflict

    async def _told(self, note: ObjectInfo) -> HealthIssue:
        place = sanitize((await self._storage.get(note.key) or b"").decode("utf-8", "replace")) or "a server"
        return HealthIssue(
            f"Another server of this store ({place}) signs addresses with a key that this one refuses.",
            "Give all of them the same DARKROOM_KEYS; to change the key, first add the new one at the end everywhere, then put it first.",
        )


def fingerprint(key: bytes) -> str:
    """Return by what a signing key is told from others."""
    return base32(hashlib.sha256(b"darkroom signing key\0" + key).digest()[:_FINGERPRINT_BYTES])
