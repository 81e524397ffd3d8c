"""Adjustments of a picture's levels and edges: brightness, contrast, gamma, saturation, grey, blur, sharpen."""

from __future__ import annotations

import pyvips

from service.images.transform import Transform
from service.worker.color import is_deep, is_grey, without_profile

# The luminance weights of CSS Filter Effects 1 §9.3 (feColorMatrix `saturate`), on encoded levels.
_RED, _GREEN, _BLUE = 0.213, 0.715, 0.072

# A Gaussian this wide is made on a smaller picture: the same to the eye, and its time does not grow with its width.
_WIDE_SIGMA = 8.0
_WORKING_SIGMA = 4.0


def adjusted(image: pyvips.Image, transform: Transform) -> pyvips.Image:
    """Return `image` (8 or 16 bits) with its levels and edges changed as asked, 8 bits."""
    if transform.stretches or is_deep(image):
        image = _through_curve(image, transform)
    if transform.saturation != 1 and not is_grey(image):
        image = _saturated(image, transform.saturation)
    if transform.grayscale and not is_grey(image):
        image = _grey(image)
    if transform.blur is not None:
        image = blurred(image, transform.blur)
    if transform.sharpen is not None:
        image = _sharpened(image, transform.sharpen)
    return image


def blurred(image: pyvips.Image, sigma: float) -> pyvips.Image:
    """Return `image` (8 bits, alpha or not) under a Gaussian of `sigma` pixels; what is transparent lends no colour."""
    smooth = image.premultiply() if image.hasalpha() else image
    smooth = _widely_blurred(smooth, sigma) if sigma > _WIDE_SIGMA else _narrowly_blurred(smooth, sigma)
    if image.hasalpha():
        smooth = smooth.unpremultiply()
    return smooth.rint().cast("uchar").copy(interpretation=image.interpretation)


def _sharpened(image: pyvips.Image, sigma: float) -> pyvips.Image:
    if not image.hasalpha():
        return image.sharpen(sigma=sigma).cast("uchar")
    # What is clear takes the colours beside it: where a picture ends there is no edge to be made steeper.
    image = image.copy_memory()
    alpha = image.extract_band(image.bands - 1)
    (colours, _), (beside, _) = _apart(image), _apart(blurred(image, sigma))
    filled = (alpha > 0).ifthenelse(colours, beside).copy(interpretation=image.interpretation)
    return filled.sharpen(sigma=sigma).cast("uchar").bandjoin(alpha).copy(interpretation=image.interpretation)


def _narrowly_blurred(image: pyvips.Image, sigma: float) -> pyvips.Image:
    return image.gaussblur(sigma, min_ampl=0.02, precision="float")


def _widely_blurred(image: pyvips.Image, sigma: float) -> pyvips.Image:
    # Half the picture's longer side is as good as flat already.
    shrink = min(sigma / _WORKING_SIGMA, max(image.width, image.height) / 2)
    width, height = max(1, round(image.width / shrink)), max(1, round(image.height / shrink))
    small = image.cast("float").resize(width / image.width, vscale=height / image.height, kernel="linear")
    small = _narrowly_blurred(small, sigma * small.width / image.width)
    large = small.resize(image.width / small.width, vscale=image.height / small.height, kernel="cubic")
    return large.crop(0, 0, image.width, image.height) if (large.width, large.height) != (image.width, image.height) else large


def _through_curve(image: pyvips.Image, transform: Transform) -> pyvips.Image:
    """Return the levels of `image` (8 or 16 bits) through brightness, contrast and gamma, in 8 bits; alpha as it was."""
    deep = is_deep(image)
    level = pyvips.Image.identity(ushort=deep) / (65_535 if deep else 255)
    level = _clamped(level * transform.brightness)
    level = _clamped((level - 0.5) * transform.contrast + 0.5)
    level = level ** (1 / transform.gamma)
    curve = (level * 255).rint().cast("uchar")
    colours, alpha = _apart(image)
    mapped = colours.maplut(curve)
    if alpha is not None:
        mapped = mapped.bandjoin((alpha / 257).rint().cast("uchar") if deep else alpha)
    return mapped.copy(interpretation="b-w" if is_grey(image) else "srgb")


def _saturated(image: pyvips.Image, times: float) -> pyvips.Image:
    weights = (_RED, _GREEN, _BLUE)
    matrix = [[weight * (1 - times) + (times if row == column else 0) for column, weight in enumerate(weights)] for row in range(3)]
    colours, alpha = _apart(image)
    mixed = colours.recomb(pyvips.Image.new_from_array(matrix)).rint().cast("uchar")
    return (mixed if alpha is None else mixed.bandjoin(alpha)).copy(interpretation="srgb")


def _grey(image: pyvips.Image) -> pyvips.Image:
    colours, alpha = _apart(without_profile(image))
    grey = colours.recomb(pyvips.Image.new_from_array([[_RED, _GREEN, _BLUE]])).rint().cast("uchar")
    return (grey if alpha is None else grey.bandjoin(alpha)).copy(interpretation="b-w")


def _apart(image: pyvips.Image) -> tuple[pyvips.Image, pyvips.Image | None]:
    if not image.hasalpha():
        return image, None
    return image.extract_band(0, n=image.bands - 1), image.extract_band(image.bands - 1)


def _clamped(image: pyvips.Image) -> pyvips.Image:
    return (image < 0).ifthenelse(0, (image > 1).ifthenelse(1, image))
