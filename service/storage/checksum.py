"""A seal around what can be made again: what was flipped or cut short in the store is noticed and never served."""

from __future__ import annotations

import hashlib

# What is stored is this mark, the SHA-256 of the bytes, and the bytes.
_MARK = b"DRR1"
_SEAL_BYTES = len(_MARK) + hashlib.sha256().digest_size


def sealed(body: bytes) -> bytes:
    """Return what is stored of `body`."""
    return _MARK + hashlib.sha256(body).digest() + body


def opened(stored: bytes) -> bytes | None:
    """Return the bytes that were sealed, `None` if what is stored is damaged."""
    body = stored[_SEAL_BYTES:]
    return body if stored[:_SEAL_BYTES] == _MARK + hashlib.sha256(body).digest() else None


def sealed_sha256(stored: bytes) -> bytes:
    """Return the SHA-256 that a seal names; that it is right is known of what has been opened."""
    return stored[len(_MARK) : _SEAL_BYTES]
