"""A checksum around derived objects: one that was damaged in the store is detected and never served."""

from __future__ import annotations

import hashlib
from pathlib import Path

# A stored object is this mark, the SHA-256 of its bytes, and the bytes.
_MARK = b"DRR1"
HEADER_BYTES = len(_MARK) + hashlib.sha256().digest_size


def wrap(body: bytes) -> bytes:
    """Return `body` with its checksum in front, to be stored."""
    return _MARK + hashlib.sha256(body).digest() + body


def verify(stored: bytes) -> bytes | None:
    """Return the bytes that were wrapped, `None` if the stored bytes are damaged."""
    body = stored[HEADER_BYTES:]
    return body if stored[:HEADER_BYTES] == _MARK + hashlib.sha256(body).digest() else None


def is_sound(path: Path) -> bool:
    """Return whether a file can be read and holds wrapped bytes that are not damaged."""
    try:
        # Not mapped: an error of the disk would end this process.
        with path.open("rb", buffering=0) as file:
            return file.read(HEADER_BYTES) == _MARK + hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return False


def stored_sha256(stored: bytes) -> bytes:
    """Return the SHA-256 in front of wrapped bytes. It is the right one only if `verify` has accepted them."""
    return stored[len(_MARK) : HEADER_BYTES]
