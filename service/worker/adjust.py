"""Adjustments: brightness, contrast, gamma, saturation, grayscale, blur and sharpen."""

from __future__ import annotations

import pyvips

from service.images.transform import Transform
from service.worker.color import is_gray, is_high_bit_depth, remove_profile

# The luminance weights of CSS (Filter Effects 1 §9.3, feColorMatrix `saturate`), applied to encoded levels.
_RED, _GREEN, _BLUE = 0.213, 0.715, 0.072

# A Gaussian wider than this is applied to a smaller picture: it looks the same, and its time does not grow with its width.
_WIDE_SIGMA = 8.0
_WORKING_SIGMA = 4.0


def adjust(image: pyvips.Image, transform: Transform) -> pyvips.Image:
    """Return `image` (8 or 16 bits per band) adjusted as `transform` says, with 8 bits per band."""
    if transform.stretches or is_high_bit_depth(image):
        image = _apply_curve(image, transform)
    if transform.saturation != 1 and not is_gray(image):
        image = _saturate(image, transform.saturation)
    if transform.grayscale and not is_gray(image):
        image = _to_grayscale(image)
    if transform.blur is not None:
        image = blur(image, transform.blur)
    if transform.sharpen is not None:
        image = _sharpen(image, transform.sharpen)
    return image


def blur(image: pyvips.Image, sigma: float) -> pyvips.Image:
    """Return `image` (8 bits per band) under a Gaussian. Transparent pixels contribute no color.

    sigma: standard deviation in pixels, above 0.
    """
    smooth = image.premultiply() if image.hasalpha() else image
    smooth = _wide_gaussian(smooth, sigma) if sigma > _WIDE_SIGMA else _gaussian(smooth, sigma)
    if image.hasalpha():
        smooth = smooth.unpremultiply()
    return smooth.rint().cast("uchar").copy(interpretation=image.interpretation)


def _sharpen(image: pyvips.Image, sigma: float) -> pyvips.Image:
    if not image.hasalpha():
        return image.sharpen(sigma=sigma).cast("uchar")
    # Transparent pixels take the colors of their neighbors first, so that the border of a cutout is not sharpened as an edge.
    image = image.copy_memory()
    alpha = image.extract_band(image.bands - 1)
    (colors, _), (neighbors, _) = _split_alpha(image), _split_alpha(blur(image, sigma))
    filled = (alpha > 0).ifthenelse(colors, neighbors).copy(interpretation=image.interpretation)
    return filled.sharpen(sigma=sigma).cast("uchar").bandjoin(alpha).copy(interpretation=image.interpretation)


def _gaussian(image: pyvips.Image, sigma: float) -> pyvips.Image:
    return image.gaussblur(sigma, min_ampl=0.02, precision="float")


def _wide_gaussian(image: pyvips.Image, sigma: float) -> pyvips.Image:
    # A picture that is two pixels long is flat already.
    shrink = min(sigma / _WORKING_SIGMA, max(image.width, image.height) / 2)
    width, height = max(1, round(image.width / shrink)), max(1, round(image.height / shrink))
    small = image.cast("float").resize(width / image.width, vscale=height / image.height, kernel="linear")
    small = _gaussian(small, sigma * small.width / image.width)
    large = small.resize(image.width / small.width, vscale=image.height / small.height, kernel="cubic")
    return large.crop(0, 0, image.width, image.height) if (large.width, large.height) != (image.width, image.height) else large


def _apply_curve(image: pyvips.Image, transform: Transform) -> pyvips.Image:
    """Return `image` (8 or 16 bits per band) after brightness, contrast and gamma, with 8 bits per band and its alpha unchanged."""
    high_bit_depth = is_high_bit_depth(image)
    level = pyvips.Image.identity(ushort=high_bit_depth) / (65_535 if high_bit_depth else 255)
    level = _clamp(level * transform.brightness)
    level = _clamp((level - 0.5) * transform.contrast + 0.5)
    level = level ** (1 / transform.gamma)
    curve = (level * 255).rint().cast("uchar")
    colors, alpha = _split_alpha(image)
    mapped = colors.maplut(curve)
    if alpha is not None:
        mapped = mapped.bandjoin((alpha / 257).rint().cast("uchar") if high_bit_depth else alpha)
    return mapped.copy(interpretation="b-w" if is_gray(image) else "srgb")


def _saturate(image: pyvips.Image, factor: float) -> pyvips.Image:
    weights = (_RED, _GREEN, _BLUE)
    matrix = [[weight * (1 - factor) + (factor if row == column else 0) for column, weight in enumerate(weights)] for row in range(3)]
    colors, alpha = _split_alpha(image)
    mixed = colors.recomb(pyvips.Image.new_from_array(matrix)).rint().cast("uchar")
    return (mixed if alpha is None else mixed.bandjoin(alpha)).copy(interpretation="srgb")


def _to_grayscale(image: pyvips.Image) -> pyvips.Image:
    colors, alpha = _split_alpha(remove_profile(image))
    gray = colors.recomb(pyvips.Image.new_from_array([[_RED, _GREEN, _BLUE]])).rint().cast("uchar")
    return (gray if alpha is None else gray.bandjoin(alpha)).copy(interpretation="b-w")


def _split_alpha(image: pyvips.Image) -> tuple[pyvips.Image, pyvips.Image | None]:
    if not image.hasalpha():
        return image, None
    return image.extract_band(0, n=image.bands - 1), image.extract_band(image.bands - 1)


def _clamp(image: pyvips.Image) -> pyvips.Image:
    return (image < 0).ifthenelse(0, (image > 1).ifthenelse(1, image))
