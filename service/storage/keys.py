"""The keys of the objects in the store. They are a promise: a store written by one version is read by every later one.

| prefix | one object for each |
|---|---|
| `originals/` | uploaded file, under its digest |
| `documents/` | image: its document, written after the original, so that where a document is, the original is too |
| `recent/` | image: an empty entry whose name sorts newest first |
| `renditions/` | rendition, under the digest of its image |
| `intermediates/` | intermediate of an original |
| `tombstones/` | image that was taken down |
| `purges/` | image that a CDN is to be purged of once more |
| `warming/` | image whose ladder is still to be rendered |
| `sources/` | object of a source that was requested: which image it was |
| `keys/` | signing key in use, under its fingerprint |
| `render-failures/` | render that ended its process |
| `uploads/` | upload ticket that was used, until some time after it has expired |
| `doctor/` | diagnosis in progress |
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

ORIGINALS_PREFIX = "originals"
DOCUMENTS_PREFIX = "documents"
RECENT_PREFIX = "recent"
RENDITIONS_PREFIX = "renditions"
INTERMEDIATES_PREFIX = "intermediates"
TOMBSTONES_PREFIX = "tombstones"
PURGES_PREFIX = "purges"
WARMING_PREFIX = "warming"
SOURCE_MAPPINGS_PREFIX = "sources"
SIGNING_KEYS_PREFIX = "keys"
RENDER_FAILURES_PREFIX = "render-failures"
USED_UPLOADS_PREFIX = "uploads"
DIAGNOSES_PREFIX = "doctor"

# Objects that can be made again from the originals: a quota or a lifecycle rule may remove them at any time.
DERIVED_PREFIXES = (RENDITIONS_PREFIX, INTERMEDIATES_PREFIX)

# Records when every document was last seen to have its entry under `RECENT_PREFIX`.
RECENT_BACKFILLED_KEY = "recent-complete"

# In milliseconds since 1970, a time in the year 2286. The milliseconds left until then have 13 digits, and fewer the later it is.
_END_OF_TIME = 10**13 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def original_key(digest: str) -> str:
    """Return the key of an original."""
    return f"{ORIGINALS_PREFIX}/{digest}"


def document_key(digest: str) -> str:
    """Return the key of an image's document."""
    return f"{DOCUMENTS_PREFIX}/{digest}"


def recent_name(digest: str, created: str) -> str:
    """Return the name of an image's entry under `RECENT_PREFIX`: names of images `created` later (RFC 3339) sort first."""
    milliseconds = (datetime.fromisoformat(created) - _EPOCH) // timedelta(milliseconds=1)
    return f"{_END_OF_TIME - milliseconds:013}-{digest}"


def recent_key(digest: str, created: str) -> str:
    """Return the key of an image's entry in the list of all images, newest first."""
    return f"{RECENT_PREFIX}/{recent_name(digest, created)}"


def renditions_prefix(digest: str) -> str:
    """Return the prefix of the keys of an image's renditions."""
    return f"{RENDITIONS_PREFIX}/{digest}"


def rendition_key(digest: str, name: str) -> str:
    """Return the key of a rendition; `name` is a hash of its version, transform and extension."""
    return f"{renditions_prefix(digest)}/{name}"


def intermediate_key(digest: str) -> str:
    """Return the key of the intermediate of an original."""
    return f"{INTERMEDIATES_PREFIX}/{digest}"


def tombstone_key(digest: str) -> str:
    """Return the key of the tombstone of an image that was taken down."""
    return f"{TOMBSTONES_PREFIX}/{digest}"


def purge_key(digest: str) -> str:
    """Return the key of the record that a CDN is to be purged of an image once more."""
    return f"{PURGES_PREFIX}/{digest}"


def warming_key(digest: str) -> str:
    """Return the key of the record that an image is to be warmed."""
    return f"{WARMING_PREFIX}/{digest}"


def source_mapping_key(source: str, url: str) -> str:
    """Return the key of the record of which image an object was; `source` is the name of its source, `url` where it is."""
    return f"{SOURCE_MAPPINGS_PREFIX}/{hashlib.sha256(f'{source} {url}'.encode()).hexdigest()}"


def signing_key_record_key(fingerprint: str) -> str:
    """Return the key of the record that a server signs with the signing key that has this fingerprint."""
    return f"{SIGNING_KEYS_PREFIX}/{fingerprint}"


def render_failure_key(subject: str, name: str) -> str:
    """Return the key of the record that rendering `subject`, a digest or a hash, ended its process; `name` says when and how."""
    return f"{RENDER_FAILURES_PREFIX}/{subject}/{name}"


def used_upload_key(expires: int, ticket_id: str) -> str:
    """Return the key of the record that an upload ticket was used; `expires`, in seconds since 1970, sorts the oldest first."""
    return f"{USED_UPLOADS_PREFIX}/{expires:011}-{ticket_id}"


def is_derived(key: str) -> bool:
    """Return whether the object under a key can be made again from an original."""
    return key.partition("/")[0] in DERIVED_PREFIXES


def digest_in(key: str) -> str:
    """Return the digest of the image that an object belongs to, whatever its prefix."""
    return key.split("/")[1].rpartition("-")[2]
