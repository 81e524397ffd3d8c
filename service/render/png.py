"""PNG: whether a file is an animation, of which libvips reads the default picture alone."""

from __future__ import annotations

_SIGNATURE_BYTES = 8


def is_animated(body: memoryview) -> bool:
    """Return whether a PNG has several frames: the chunk `acTL` stands before the pixels (PNG, third edition, §11.3.6.1)."""
    at = _SIGNATURE_BYTES
    while len(head := bytes(body[at : at + 8])) == 8 and head[4:] != b"IDAT":
        if head[4:] == b"acTL":
            return int.from_bytes(body[at + 8 : at + 12], "big") > 1
        # Behind the data stands its check sum.
        at += 8 + int.from_bytes(head[:4], "big") + 4
    return False
