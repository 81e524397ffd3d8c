"""Resolution of a request's transform to one that a URL can spell: its variant, the stored focal point, the box of `trim`."""

from __future__ import annotations

import difflib

import msgspec

from service.errors import BadTransformError
from service.images.document import Document
from service.images.options import STRATEGIES, Region
from service.images.transform import Transform
from service.library.renditions import Renditions
from service.settings.sections import Settings

# Anchors that no client has chosen for this image: the focal point that is stored with it is a better choice.
_YIELDS_TO_FOCAL_POINT = frozenset({"center", *STRATEGIES})


def resolve_variant(name: str | None, settings: Settings) -> Transform | None:
    """Return the transform of a variant, or `None` if `name` is `None`; raises `BadTransformError` for an unknown name."""
    if name is None:
        return None
    variants = settings.rendering.variants
    if name not in variants:
        near = difflib.get_close_matches(name, variants, 1)
        raise BadTransformError(
            "There is no such variant.",
            expected=", ".join(variants) or "no variant: DARKROOM_VARIANTS names none",
            received=name,
            remedy=f"Did you mean `{near[0]}`?" if near else "Use one of the names above, or add it to DARKROOM_VARIANTS.",
        )
    return variants[name]


async def resolve_transform(document: Document, transform: Transform, renditions: Renditions) -> Transform:
    """Return a transform that a URL can spell: with the stored focal point in place of a guess, and `crop` in place of `trim`.

    Raises the errors of `Renditions.find_trim`.
    """
    if document.focal is not None and transform.fit == "cover" and transform.gravity in _YIELDS_TO_FOCAL_POINT:
        transform = msgspec.structs.replace(transform, gravity=document.focal)
    if transform.trim is None:
        return transform
    box = await renditions.find_trim(document.digest, transform)
    page = document.info.of_page(transform.frame)
    is_whole = (box.left, box.top, box.width, box.height) == (0, 0, page.width, page.height)
    region = None if is_whole else Region(float(box.left), float(box.top), float(box.width), float(box.height))
    return msgspec.structs.replace(transform, trim=None, crop=region)
