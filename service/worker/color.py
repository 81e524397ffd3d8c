"""Color conversion. Renditions are sRGB or Display P3 with 8 bits per band; gray images stay gray, and alpha is preserved."""

from __future__ import annotations

import hashlib
from itertools import chain, product

import pyvips

from service.images.options import Profile
from service.worker import icc
from service.worker.color_space import SRGB_CURVE, ColorSpace
from service.worker.formats import hdr

# Relative colorimetric leaves colors that the target can show unchanged. For CMYK without a profile libvips has a fallback profile.
RENDERING_INTENT = "relative"

# Results of `_usable_profile` by the digest of the profile and the interpretation of the image. Most pictures have one of a few profiles.
_MAX_KNOWN_PROFILES = 64
_usable_profiles: dict[tuple[bytes, str], bytes | None] = {}

_GRAY = frozenset({"b-w", "grey16"})
_OPAQUE = 255
# Levels of each band at which profiles are compared.
_SRGB_STEP = 17


def is_gray(image: pyvips.Image) -> bool:
    """Return whether an image has one band of lightness, not counting alpha."""
    return image.interpretation in _GRAY


def is_high_bit_depth(image: pyvips.Image) -> bool:
    """Return whether an image has 16 bits per band."""
    return bool(image.format == "ushort")


def icc_options(image: pyvips.Image, profile: Profile) -> dict[str, str]:
    """Return the options of `thumbnail_image` that convert a newly opened image to `profile`, empty if its values are to stay.

    libvips always converts CMYK and Lab, since no screen shows either: `keep` has no effect on them.
    """
    embedded = _embedded_profile(image)
    intent = _intent(embedded)
    if image.interpretation == "cmyk":
        return {"output_profile": "p3" if profile == "p3" else "srgb", "intent": intent}
    if profile == "p3" and not is_gray(image):
        return {"input_profile": "srgb", "output_profile": "p3", "intent": intent}
    if embedded and profile != "keep":
        return {"output_profile": "srgb", "intent": intent}
    return {}


def _intent(profile: bytes) -> str:
    """Return the rendering intent to use with an embedded profile.

    libvips uses the table of the perceptual intent for no other one, and would ignore a profile that has only this table.
    """
    return "perceptual" if icc.is_perceptual(profile) else RENDERING_INTENT


def to_8_bit(image: pyvips.Image, *, gray: bool) -> pyvips.Image:
    """Return `image` with 8 bits per band, as one band if `gray` and three otherwise, plus alpha if it has any."""
    target = "b-w" if gray else "srgb"
    if is_gray(image) != gray:
        image = remove_profile(image)
    if image.interpretation != target:
        image = image.colourspace(target)
    return image if image.format == "uchar" else image.cast("uchar")


def to_rgb(image: pyvips.Image) -> pyvips.Image:
    """Return an 8-bit image as three bands, plus alpha if it has any."""
    return to_8_bit(image, gray=False)


def remove_profile(image: pyvips.Image) -> pyvips.Image:
    """Return `image` without its ICC profile, its values unchanged."""
    if not image.get_typeof("icc-profile-data"):
        return image
    image = image.copy()
    image.remove("icc-profile-data")
    return image


def assign(image: pyvips.Image, space: ColorSpace) -> pyvips.Image:
    """Return `image` with the ICC profile of `space` and its values unchanged, marked by `hdr.mark` if `space` is HDR."""
    image = remove_profile(image)
    if space.is_hdr:
        return hdr.mark(image, space)
    gray = is_gray(image)
    if space.is_srgb or (gray and space.transfer == SRGB_CURVE):
        return image
    is_p3 = space.is_display_p3 and not gray
    return with_profile(image, pyvips.Operation.call("profile_load", "p3") if is_p3 else icc.make_profile(space, gray=gray))


def background_levels(background: str, image: pyvips.Image) -> tuple[list[int], int]:
    """Return the three levels and the alpha, each 0 to 255, of a background color in the profile of `image`.

    background: sRGB as `rrggbb` or `rrggbbaa`.
    """
    numbers = list(bytes.fromhex(background))
    color, alpha = numbers[:3], numbers[3] if len(numbers) > 3 else _OPAQUE
    pixel = (pyvips.Image.black(1, 1, bands=3) + color).cast("uchar").copy(interpretation="srgb")
    return [int(level) for level in convert_to_profile_of(image, pixel)(0, 0)], alpha


def convert_to_profile_of(image: pyvips.Image, other: pyvips.Image) -> pyvips.Image:
    """Return `other` converted to the profile of `image`.

    Unchanged if neither has a profile, or if the profile of `image` cannot be written to, as those of scanners cannot.

    other: 8 bits per band, with or without alpha; sRGB if it has no profile.
    """
    target = b"" if is_gray(image) else _embedded_profile(image)
    if not target and not _embedded_profile(other):
        return other
    try:
        connection = to_rgb(other).icc_import(embedded=True, input_profile="srgb", intent=RENDERING_INTENT)
        if not target:
            return remove_profile(connection.icc_export(output_profile="srgb", intent=RENDERING_INTENT, depth=8))
        return with_profile(connection, target).icc_export(intent=RENDERING_INTENT, depth=8)
    except pyvips.Error:
        return other


def has_profile(image: pyvips.Image) -> bool:
    """Return whether an image has an ICC profile."""
    return bool(image.get_typeof("icc-profile-data"))


def is_srgb(image: pyvips.Image) -> bool:
    """Return whether converting an image with a sound ICC profile, or without one, to sRGB changes no level by more than 1 of 255."""
    if not has_profile(image):
        return bool(image.interpretation != "cmyk")
    if image.interpretation == "cmyk":
        return False
    steps = range(0, _OPAQUE + 1, _SRGB_STEP)
    colors = bytes(range(_OPAQUE + 1)) if is_gray(image) else bytes(chain.from_iterable(product(steps, repeat=3)))
    bands = 1 if is_gray(image) else 3
    levels = pyvips.Image.new_from_memory(colors, len(colors) // bands, 1, bands, "uchar").copy(interpretation=image.interpretation)
    profile = _embedded_profile(image)
    converted = to_8_bit(with_profile(levels, profile).icc_transform("srgb", embedded=True, intent=_intent(profile)), gray=is_gray(image))
    return bool(((converted - levels).abs() <= 1).min())


def replace_unusable_profile(image: pyvips.Image) -> pyvips.Image:
    """Return a newly opened image without its ICC profile if no colors can be converted with it.

    Such a profile is damaged, meant for another number of bands, or of a class that describes no device. Browsers ignore it too. For gray
    images a profile of RGB is replaced by one of its grays.
    """
    profile = _embedded_profile(image)
    if not profile:
        return image
    key = (hashlib.sha256(profile).digest(), image.interpretation)
    if key not in _usable_profiles:
        if len(_usable_profiles) >= _MAX_KNOWN_PROFILES:
            _usable_profiles.clear()
        _usable_profiles[key] = _usable_profile(profile, image)
    usable = _usable_profiles[key]
    if usable is None:
        return image
    return with_profile(image, usable) if usable else remove_profile(image)


def _usable_profile(profile: bytes, image: pyvips.Image) -> bytes | None:
    """Return the profile to use instead of that of a new image, empty for none, `None` if its own is usable."""
    usable = icc.trim(profile)
    if is_gray(image) and icc.device_space(usable) == b"RGB ":
        usable = icc.gray_of_rgb(usable)
    if icc.device_space(usable) != _device_space(image):
        return b""
    pixel = pyvips.Image.black(1, 1, bands=image.bands - image.hasalpha()).cast(image.format).copy(interpretation=image.interpretation)
    try:
        # Only Little CMS knows whether it can read the tags.
        with_profile(pixel, usable).icc_transform("srgb", embedded=True, intent=_intent(usable)).copy_memory()
    except pyvips.Error:
        return b""
    return None if usable == profile else usable


def _device_space(image: pyvips.Image) -> bytes:
    if image.interpretation == "cmyk":
        return b"CMYK"
    return b"GRAY" if is_gray(image) else b"RGB "


def is_profile_of_gray(image: pyvips.Image) -> bool:
    """Return whether the ICC profile of an image describes gray."""
    return icc.device_space(_embedded_profile(image)) == b"GRAY"


def to_one_band(image: pyvips.Image) -> pyvips.Image:
    """Return a gray picture, opened as three equal bands, with one band, plus alpha if it has any."""
    gray = image.extract_band(0)
    if image.hasalpha():
        gray = gray.bandjoin(image.extract_band(image.bands - 1))
    return gray.copy(interpretation="grey16" if is_high_bit_depth(image) else "b-w")


def with_profile(image: pyvips.Image, profile: bytes) -> pyvips.Image:
    """Return `image` with an ICC profile, its values unchanged."""
    image = image.copy()
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    return image


def expand_limited_range(image: pyvips.Image, *, colors: bool, alpha: bool) -> pyvips.Image:
    """Return `image` with levels of the range 16 to 235 of 255 (ITU-T H.273 §8.3) spread over the whole range.

    colors, alpha: the bands that have the limited range.
    """
    max_level = 65_535 if is_high_bit_depth(image) else _OPAQUE
    count = image.bands - image.hasalpha()
    limited = [colors] * count + [alpha] * (image.bands - count)
    scales = [255 / 219 if band else 1.0 for band in limited]
    offsets = [-16 / 219 * max_level if band else 0.0 for band in limited]
    return image.linear(scales, offsets).rint().cast(image.format).copy(interpretation=image.interpretation)


def unpremultiply(image: pyvips.Image) -> pyvips.Image:
    """Return `image` (8 or 16 bits per band) with its colors divided by alpha, unchanged if it has no alpha."""
    if not image.hasalpha():
        return image
    plain = image.unpremultiply(max_alpha=65_535 if is_high_bit_depth(image) else _OPAQUE)
    return plain.rint().cast(image.format).copy(interpretation=image.interpretation)


def _embedded_profile(image: pyvips.Image) -> bytes:
    return image.get("icc-profile-data") if image.get_typeof("icc-profile-data") else b""


def add_alpha(image: pyvips.Image) -> pyvips.Image:
    """Return `image` with alpha, opaque if it had none."""
    return image if image.hasalpha() else image.addalpha()


def remove_opaque_alpha(image: pyvips.Image) -> pyvips.Image:
    """Return an 8-bit image without its alpha if every pixel is opaque."""
    colors = image.bands - 1
    return image.extract_band(0, n=colors) if image.hasalpha() and image.extract_band(colors).min() == _OPAQUE else image


def flatten_on_white(image: pyvips.Image) -> pyvips.Image:
    """Return `image` without alpha, composited on white."""
    return image.flatten(background=[_OPAQUE] * (image.bands - 1)) if image.hasalpha() else image
