"""Colour: everything becomes sRGB of 8 bits, grey stays grey, alpha stays."""

from __future__ import annotations

import pyvips

# Relative colorimetric keeps in-gamut colours as they are; libvips' fallback profiles serve CMYK without one of its own.
RENDERING_INTENT = "relative"
OUTPUT_PROFILE = "srgb"

_GREY = frozenset({"b-w", "grey16"})


def to_srgb(image: pyvips.Image) -> pyvips.Image:
    """Return `image` as sRGB or grey, 8 bits a band, with alpha if it has one."""
    target = "b-w" if image.interpretation in _GREY else "srgb"
    if image.interpretation != target or image.format != "uchar":
        image = image.colourspace(target)
    return image if image.format == "uchar" else image.cast("uchar")


def on_white(image: pyvips.Image) -> pyvips.Image:
    """Return `image` without alpha, laid on white."""
    return image.flatten(background=[255] * (image.bands - 1)) if image.hasalpha() else image
