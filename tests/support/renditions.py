"""Renditions that were never requested, as many as a test wants."""

from __future__ import annotations

from service.images.options import MAX_SIDE_PIXELS
from service.images.transform import parse

# Boxes of this height or more do not limit a rendition of a photo that is not very tall.
_FIRST_BOX_HEIGHT = 4_000


def distinct_transform(width: int, number: int) -> str:
    """Return a transform to a width in pixels, in canonical form: another one for each number from 0 on, with the same work.

    Its box has another height, which does not limit the rendition. Beyond some 4,000 numbers the width grows by a pixel.
    """
    wider, taller = divmod(number, MAX_SIDE_PIXELS - _FIRST_BOX_HEIGHT)
    return parse(f"width={width + wider},height={_FIRST_BOX_HEIGHT + taller}").canonical_form
