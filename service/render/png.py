"""PNG: whether a file is an animation, of which libvips reads the default picture alone."""

from __future__ import annotations

_SIGNATURE_BYTES = 8


def is_animated(source: bytes) -> bool:
    """Return whether a PNG has several frames: the chunk `acTL` stands before the pixels (PNG, third edition, §11.3.6)."""
    at = _SIGNATURE_BYTES
    while at + 12 <= len(source) and source[at + 4 : at + 8] != b"IDAT":
        if source[at + 4 : at + 8] == b"acTL":
            return int.from_bytes(source[at + 8 : at + 12], "big") > 1
        at += 12 + int.from_bytes(source[at : at + 4], "big")
    return False
