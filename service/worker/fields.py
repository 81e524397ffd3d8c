"""Fields of an image, such as its metadata, ICC profile and delays."""

from __future__ import annotations

import pyvips


def copy_fields(source: pyvips.Image, target: pyvips.Image) -> pyvips.Image:
    """Return `target` with all fields of `source` that it has not, other than those that say where the frames of a strip are."""
    target = target.copy(xres=source.xres, yres=source.yres)
    for field in source.get_fields():
        if field not in {"page-height", "n-pages"} and not target.get_typeof(field):
            target.set_type(source.get_typeof(field), field, source.get(field))
    return target
