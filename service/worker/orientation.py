"""Exif orientation: how a stored picture must be turned and mirrored to be upright (Exif 2.32, tag 0x0112)."""

from __future__ import annotations

import pyvips

# Orientations whose width and height change places.
_TRANSPOSED = frozenset({5, 6, 7, 8})

# Orientations in which the left, or the top, of the upright picture is the far end of a stored axis.
LEFT_IS_FAR = frozenset({2, 3, 6, 7})
TOP_IS_FAR = frozenset({3, 4, 7, 8})


def orientation_of(image: pyvips.Image) -> int:
    """Return the orientation of an opened image, 1 to 8; 1, which is upright, if the file states none or an invalid one."""
    orientation = int(image.get("orientation")) if image.get_typeof("orientation") else 1
    return orientation if 1 <= orientation <= 8 else 1


def is_transposed(orientation: int) -> bool:
    """Return whether the rows of the stored picture are the columns of the upright one."""
    return orientation in _TRANSPOSED


def upright_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Return the width and height of the upright picture, given those of the stored one."""
    return (height, width) if is_transposed(orientation) else (width, height)
