"""Colour: what comes out is sRGB, or Display P3, of 8 bits; grey stays grey, alpha stays."""

from __future__ import annotations

import pyvips

from service.images.options import Profile

# Relative colorimetric keeps in-gamut colours as they are; libvips' fallback profiles serve CMYK without one of its own.
RENDERING_INTENT = "relative"

# Where an ICC profile lists its tags: their number, then twelve bytes each, the first four its name (ICC.1:2022 §7.3).
_TAGS_AT, _TAG_BYTES, _MOST_TAGS = 128, 12, 100

# What a file without a profile may say instead (ITU-T H.273, table 2): libvips has a profile for it.
DISPLAY_P3_PRIMARIES = 12

_GREY = frozenset({"b-w", "grey16"})
_OPAQUE_LEVEL = 255


def is_grey(image: pyvips.Image) -> bool:
    """Return whether an image has one band of lightness, alpha aside."""
    return image.interpretation in _GREY


def is_deep(image: pyvips.Image) -> bool:
    """Return whether an image has 16 bits a band."""
    return bool(image.format == "ushort")


def conversion(image: pyvips.Image, profile: Profile) -> dict[str, str]:
    """Return the ICC options that take `image` (as opened) to `profile`; none where its numbers are to be kept.

    libvips converts CMYK and Lab whatever is asked: neither can be kept in a picture for a screen.
    """
    embedded = _embedded(image)
    intent = _intent(embedded)
    if image.interpretation == "cmyk":
        return {"output_profile": "p3" if profile == "p3" else "srgb", "intent": intent}
    if profile == "p3" and not is_grey(image):
        return {"input_profile": "srgb", "output_profile": "p3", "intent": intent}
    if embedded and profile != "keep":
        return {"output_profile": "srgb", "intent": intent}
    return {}


def _intent(profile: bytes) -> str:
    """Return the intent to read an embedded profile with.

    One whose only table to the connection space is A2B0 means it for every intent (ICC.1:2022 §8), but libvips takes it for the
    perceptual one alone and would leave the profile out.
    """
    count = min(int.from_bytes(profile[_TAGS_AT : _TAGS_AT + 4], "big"), _MOST_TAGS)
    starts = range(_TAGS_AT + 4, _TAGS_AT + 4 + count * _TAG_BYTES, _TAG_BYTES)
    tags = {bytes(profile[start : start + 4]) for start in starts}
    return "perceptual" if b"A2B0" in tags and not tags & {b"A2B1", b"rXYZ", b"kTRC"} else RENDERING_INTENT


def of_8_bits(image: pyvips.Image, *, grey: bool) -> pyvips.Image:
    """Return `image` in three bands, or with `grey` in one, of 8 bits, with alpha if it has one."""
    target = "b-w" if grey else "srgb"
    if is_grey(image) != grey:
        image = without_profile(image)
    if image.interpretation != target:
        image = image.colourspace(target)
    return image if image.format == "uchar" else image.cast("uchar")


def without_profile(image: pyvips.Image) -> pyvips.Image:
    """Return `image` without a profile: one that its numbers are not meant in any more."""
    if not image.get_typeof("icc-profile-data"):
        return image
    image = image.copy()
    image.remove("icc-profile-data")
    return image


def in_display_p3(image: pyvips.Image) -> pyvips.Image:
    """Return `image` with the profile of Display P3, its numbers as they are."""
    image = image.copy()
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", pyvips.Operation.call("profile_load", "p3"))
    return image


def in_colour(image: pyvips.Image) -> pyvips.Image:
    """Return an image of 8 bits in three bands, and alpha if it has one."""
    return of_8_bits(image, grey=False)


def levels(background: str, image: pyvips.Image) -> tuple[list[int], int]:
    """Return a colour `rrggbb` or `rrggbbaa`, meant in sRGB, as numbers of the profile in `image`, and its alpha, 0 to 255."""
    numbers = list(bytes.fromhex(background))
    colour, alpha = numbers[:3], numbers[3] if len(numbers) > 3 else _OPAQUE_LEVEL
    pixel = (pyvips.Image.black(1, 1, bands=3) + colour).cast("uchar").copy(interpretation="srgb")
    return [int(level) for level in as_in(image, pixel)(0, 0)], alpha


def as_in(image: pyvips.Image, other: pyvips.Image) -> pyvips.Image:
    """Return `other` (8 bits, alpha or not; sRGB where it has no profile) in the numbers of the profile in `image`.

    As it is where neither has one, and where that of `image` leads to no colours, as those of scanners do.
    """
    target = b"" if is_grey(image) else _embedded(image)
    if not target and not _embedded(other):
        return other
    try:
        looks = in_colour(other).icc_import(embedded=True, input_profile="srgb", intent=RENDERING_INTENT)
        if not target:
            return without_profile(looks.icc_export(output_profile="srgb", intent=RENDERING_INTENT, depth=8))
        looks = looks.copy()
        looks.set_type(pyvips.GValue.blob_type, "icc-profile-data", target)
        return looks.icc_export(intent=RENDERING_INTENT, depth=8)
    except pyvips.Error:
        return other


def _embedded(image: pyvips.Image) -> bytes:
    return image.get("icc-profile-data") if image.get_typeof("icc-profile-data") else b""


def with_alpha(image: pyvips.Image) -> pyvips.Image:
    """Return `image` with alpha, opaque if it had none."""
    return image if image.hasalpha() else image.addalpha()


def on_white(image: pyvips.Image) -> pyvips.Image:
    """Return `image` without alpha, laid on white."""
    return image.flatten(background=[_OPAQUE_LEVEL] * (image.bands - 1)) if image.hasalpha() else image
