"""The digest that names an original, and the base32 that it is written in."""

from __future__ import annotations

import base64
import re

DIGEST_BYTES = 20

# The digest in examples.
DIGEST_EXAMPLE = "ibxxblxna3ywub3vp54kkar5asszqvg2"

DIGEST_PATTERN = "[a-z2-7]{32}"
_DIGEST = re.compile(DIGEST_PATTERN)


def base32(data: bytes) -> str:
    """Return RFC 4648 base32 in lower case without padding."""
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


def digest_from_sha256(sha256: bytes) -> str:
    """Return the digest of an original: the first 160 bits of its SHA-256 in base32, 32 characters."""
    return base32(sha256[:DIGEST_BYTES])


def is_digest(text: str) -> bool:
    """Return whether `text` has the form of a digest: 32 of `a-z2-7`."""
    return _DIGEST.fullmatch(text) is not None
