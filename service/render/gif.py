"""GIF: whether a file ends where its blocks do: to libvips an animation that is cut short is a shorter one."""

from __future__ import annotations

from collections.abc import Sequence

_HEADER_BYTES = 13
_IMAGE_BYTES = 10
_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B


def is_whole(body: Sequence[int]) -> bool:
    """Return whether a GIF (GIF89a, appendix A) ends between two blocks; that the trailer alone is missing is common and passes."""
    at = _HEADER_BYTES + _table_bytes(body[10]) if len(body) >= _HEADER_BYTES else len(body) + 1
    while at < len(body) and body[at] in {_EXTENSION, _IMAGE}:
        if body[at] == _EXTENSION:
            at = _after_data(body, at + 2)
        elif at + _IMAGE_BYTES > len(body):
            return False
        else:
            # Behind the colour table stands the first code size of the compressed data.
            at = _after_data(body, at + _IMAGE_BYTES + _table_bytes(body[at + 9]) + 1)
    return at <= len(body)


def _after_data(body: Sequence[int], at: int) -> int:
    """Return where a row of sub-blocks ends, beyond the file where the file does first."""
    while at < len(body) and body[at]:
        at += 1 + body[at]
    return at + 1


def _table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
