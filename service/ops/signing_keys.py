"""Signing keys of the servers that share a store: `/health` reports a server that signs with a key that this one does not accept.

Each server regularly writes an object named after the fingerprint of its signing key, and lists those of the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta

import msgspec
import structlog

from service.concurrency.polling import poll
from service.errors import ServiceError, sanitize
from service.images.digest import base32
from service.storage.keys import SIGNING_KEYS_PREFIX, signing_key_record_key
from service.storage.object_store import ObjectInfo, Storage

log = structlog.get_logger(__name__)

POLL_INTERVAL_SECONDS = 60.0
RETRY_AFTER_SECONDS = 10.0

# A record that is this much older than our own belongs to a server that has ended, or that signs with another key now.
EXPIRES_AFTER = timedelta(minutes=4)

# A key has at least 128 bits, so its hash reveals nothing about it.
_FINGERPRINT_BYTES = 10


class HealthIssue(msgspec.Struct, frozen=True):
    """A problem that `/health` reports, and what to do about it."""

    reason: str
    remedy: str | None = None


class SigningKeyMonitor:
    """Compares the signing key of this process with those of the other servers that share the store."""

    def __init__(self, storage: Storage, keys: Sequence[bytes], location: str) -> None:
        """Monitor the keys in a store.

        `storage`: the store that the servers share.
        `keys`: the accepted keys; the first one signs.
        `location`: the region and the Machine of this process, which other servers show to people; may be empty.
        """
        self._storage = storage
        self.replace_keys(keys)
        self._location = location
        self.conflict: HealthIssue | None = None

    def __repr__(self) -> str:
        return f"<SigningKeyMonitor: {len(self._fingerprints)} accepted keys, {'no ' if self.conflict is None else 'a '}conflict>"

    def replace_keys(self, keys: Sequence[bytes]) -> None:
        """Compare these keys from now on; the parameter is that of the constructor."""
        self._fingerprints = [fingerprint(key) for key in keys]

    async def watch(self) -> None:
        """Refresh this regularly, for as long as this process serves."""
        await poll(self.refresh, every=POLL_INTERVAL_SECONDS, retry_after=RETRY_AFTER_SECONDS, on_error=_log_failure)

    async def refresh(self) -> None:
        """Record the key that signs, and set `conflict` if another server signs with a key that this one does not accept.

        During a rotation the previous key is still accepted; once it is removed, its last record expires. Ages are computed from the
        times of the store, because this machine's clock may be wrong.
        """
        own_key = signing_key_record_key(self._fingerprints[0])
        await self._storage.put(own_key, self._location.encode(), durable=False)
        records = [record async for record in self._storage.list_objects(SIGNING_KEYS_PREFIX)]
        own = max((record.modified for record in records if record.key == own_key), default=None)
        accepted = {signing_key_record_key(name) for name in self._fingerprints}
        foreign = [record for record in records if record.key not in accepted and own is not None and own - record.modified < EXPIRES_AFTER]
        conflict = await self._describe(foreign[0]) if foreign else None
        if conflict is not None and self.conflict is None:
            log.error("another server signs with a key that this server does not accept", keys=[record.key for record in foreign])
        self.conflict = conflict

    async def _describe(self, record: ObjectInfo) -> HealthIssue:
        location = sanitize((await self._storage.get(record.key) or b"").decode("utf-8", "replace")) or "location unknown"
        return HealthIssue(
            f"Another server that shares the store ({location}) signs URLs with a key that this server does not accept.",
            "Set the same keys (DARKROOM_KEYS) on all servers. To change the key, first add the new key at the end on all of them, "
            "then move it to the front.",
        )


def fingerprint(key: bytes) -> str:
    """Return a short name for a signing key that reveals nothing about it."""
    return base32(hashlib.sha256(b"darkroom signing key\0" + key).digest()[:_FINGERPRINT_BYTES])


def _log_failure(error: ServiceError) -> None:
    log.warning("the signing keys of other servers could not be read", problem=error.slug)
