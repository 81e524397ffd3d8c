"""PNG: what stands before the pixels and libvips does not tell: whether a file is an animation, and a gamma in place of a profile."""

from __future__ import annotations

from collections.abc import Iterator

_SIGNATURE_BYTES = 8
_READ_BYTES = 8

# What sRGB's curve is near to (PNG, third edition, §11.3.2.2), and what nobody sees.
_USUAL_GAMMA = 1 / 2.2
_UNSEEN = 0.05


def is_animated(path: str) -> bool:
    """Return whether a PNG has several frames, of which libvips reads the default picture alone (the chunk `acTL`, §11.3.6.1)."""
    return any(kind == b"acTL" and int.from_bytes(beginning[:4], "big") > 1 for kind, beginning in _chunks(path))


def gamma(path: str) -> float | None:
    """Return the exponent that light was encoded with, `None` where it is as usual or not said, or something better says it (§4.3)."""
    chunks = dict(_chunks(path))
    if not {b"iCCP", b"sRGB", b"cICP"}.isdisjoint(chunks):
        return None
    exponent = int.from_bytes(chunks.get(b"gAMA", b"")[:4], "big") / 100_000
    return exponent if exponent and abs(exponent / _USUAL_GAMMA - 1) > _UNSEEN else None


def _chunks(path: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind of each chunk before the pixels, and how its data begins."""
    with open(path, "rb") as file:  # noqa: PTH123 - also a descriptor's path in /proc
        file.seek(_SIGNATURE_BYTES)
        while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
            length = int.from_bytes(head[:4], "big")
            beginning = file.read(min(length, _READ_BYTES))
            yield head[4:], beginning
            file.seek(length - len(beginning) + 4, 1)
