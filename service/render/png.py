"""PNG: whether a file is an animation, of which libvips reads the default picture alone."""

from __future__ import annotations

from os import SEEK_CUR

_SIGNATURE_BYTES = 8


def is_animated(path: str) -> bool:
    """Return whether a PNG has several frames: the chunk `acTL` stands before the pixels (PNG, third edition, §11.3.6.1)."""
    with open(path, "rb") as file:  # noqa: PTH123 - also a descriptor's path in /proc
        file.seek(_SIGNATURE_BYTES)
        while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
            if head[4:] == b"acTL":
                return int.from_bytes(file.read(4), "big") > 1
            # Behind the data stands its check sum.
            file.seek(int.from_bytes(head[:4], "big") + 4, SEEK_CUR)
    return False
