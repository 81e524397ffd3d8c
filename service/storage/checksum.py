"""A checksum around derived objects: one that was damaged in the store is detected and never served."""

from __future__ import annotations

import hashlib

# A stored object is this mark, the SHA-256 of its bytes, and the bytes.
_MARK = b"DRR1"
_HEADER_BYTES = len(_MARK) + hashlib.sha256().digest_size


def wrap(body: bytes) -> bytes:
    """Return `body` with its checksum in front, to be stored."""
    return _MARK + hashlib.sha256(body).digest() + body


def verify(stored: bytes) -> bytes | None:
    """Return the bytes that were wrapped, `None` if the stored bytes are damaged."""
    body = stored[_HEADER_BYTES:]
    return body if stored[:_HEADER_BYTES] == _MARK + hashlib.sha256(body).digest() else None


def stored_sha256(stored: bytes) -> bytes:
    """Return the SHA-256 in front of wrapped bytes. It is the right one only if `verify` has accepted them."""
    return stored[len(_MARK) : _HEADER_BYTES]
