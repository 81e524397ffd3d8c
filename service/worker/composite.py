"""Composition: rotation, crop, canvas, overlay, rounded corners and background of a decoded picture."""

from __future__ import annotations

import math
from fractions import Fraction
from math import ceil, floor

import pyvips

from service.images.geometry import Box, Plan, round_half_up
from service.images.options import MAX_RADIUS, Overlay
from service.images.transform import Transform
from service.worker import color
from service.worker.adjust import blur
from service.worker.load import enlarge

# `background=blur` has a sigma of the longer side divided by this: no detail of the backdrop can be made out.
_BACKDROP_SIGMA_DIVISOR = 40

# An affine transform does not filter. Shrinking by less than this is not visible without a filter, and rounding to pixels is far less.
_MIN_UNFILTERED_RATIO = 0.9


def rotate_and_flip(image: pyvips.Image, plan: Plan) -> pyvips.Image:
    """Return the region, scaled to `plan.unrotated_size`, rotated and flipped, at `plan.width` × `plan.height`.

    A rotation that is not a multiple of 90 degrees adds alpha, because it leaves the corners empty.
    """
    if plan.angle:
        image = image.copy_memory()
        image = image.rot(f"d{plan.angle:g}") if plan.has_right_angle else _rotate_freely(image, plan)
    if plan.flip == "horizontal":
        return image.fliphor()
    return image.copy_memory().flipver() if plan.flip == "vertical" else image


def rotate_and_crop(image: pyvips.Image, plan: Plan, box: Box | None) -> pyvips.Image:
    """Return the part in `box` of what `rotate_and_flip` returns, all of it for `None`."""
    return crop(rotate_and_flip(image, plan), box)


def _rotate_freely(image: pyvips.Image, plan: Plan) -> pyvips.Image:
    angle = math.radians(plan.angle)
    cosine, sine = math.cos(angle), math.sin(angle)
    bounds_width = image.width * abs(cosine) + image.height * abs(sine)
    bounds_height = image.width * abs(sine) + image.height * abs(cosine)
    width, height = plan.width, plan.height
    scales = (width / bounds_width, height / bounds_height)
    is_fine = plan.rotation_scale > 1 and max(scales) < _MIN_UNFILTERED_RATIO
    is_stretched = min(scales) < _MIN_UNFILTERED_RATIO * max(scales)
    if is_fine or is_stretched:
        # Rotate at the scale of the picture, or at the larger scale of the two, then resize with a filter.
        scale = 1.0 if is_fine else max(scales)
        width, height = max(1, round(bounds_width * scale)), max(1, round(bounds_height * scale))
    x_scale, y_scale = width / bounds_width, height / bounds_height
    matrix = [cosine * x_scale, -sine * x_scale, sine * y_scale, cosine * y_scale]
    center_x, center_y = (image.width - 1) / 2, (image.height - 1) / 2
    premultiplied = color.add_alpha(image).premultiply()
    out = premultiplied.affine(
        matrix,
        interpolate=pyvips.Interpolate.new("bicubic"),
        oarea=[0, 0, width, height],
        # The center of the picture goes to the center of the output.
        odx=(width - 1) / 2 - (matrix[0] * center_x + matrix[1] * center_y),
        ody=(height - 1) / 2 - (matrix[2] * center_x + matrix[3] * center_y),
        extend="background",
        background=[0] * premultiplied.bands,
        premultiplied=True,
    )
    out = out.unpremultiply().rint().cast("uchar").copy(interpretation=image.interpretation)
    return out.thumbnail_image(plan.width, height=plan.height, size="force") if is_fine or is_stretched else out


def crop_box(image: pyvips.Image, plan: Plan, transform: Transform) -> Box | None:
    """Return the box to crop from `image`, or `None` for no crop.

    For gravity `attention` and `entropy` libvips' smartcrop finds it (https://www.libvips.org/API/current/method.Image.smartcrop.html);
    `image` must be in memory then, because its pixels are read twice.
    """
    if plan.crop is None or not plan.searched:
        return plan.crop
    cropped = image.smartcrop(plan.crop.width, plan.crop.height, interesting=transform.gravity)
    # libvips records the crop's position as a negative offset.
    return Box(-cropped.xoffset, -cropped.yoffset, plan.crop.width, plan.crop.height)


def find_content_box(image: pyvips.Image, tolerance: float, region: Box) -> Box:
    """Return the part of `region` inside its borders, which have the color of the top left pixel. All of it if nothing but border is found.

    image: the region, at any scale, in memory.
    tolerance: a pixel belongs to the border if none of its bands differs by more than this, 0 to 255. If the top left pixel is
    transparent, only alpha is compared.
    region: in pixels of the upright original.
    """
    corner = image(0, 0)
    if image.hasalpha():
        if corner[-1] == 0:
            image, corner = image.extract_band(image.bands - 1), [0]
        else:
            image, corner = image.flatten(background=corner[:-1]), corner[:-1]
    left, top, width, height = image.find_trim(threshold=tolerance, background=corner, line_art=True)
    if not width or not height:
        return region
    x_scale, y_scale = Fraction(region.width, image.width), Fraction(region.height, image.height)
    x_offset, y_offset = floor(left * x_scale), floor(top * y_scale)
    return Box(
        region.left + x_offset,
        region.top + y_offset,
        min(ceil((left + width) * x_scale), region.width) - x_offset,
        min(ceil((top + height) * y_scale), region.height) - y_offset,
    )


def crop(image: pyvips.Image, box: Box | None) -> pyvips.Image:
    """Return the part of `image` in `box`, all of it for `None`."""
    return image if box is None else image.crop(box.left, box.top, box.width, box.height)


def embed(image: pyvips.Image, canvas: Box | None) -> pyvips.Image:
    """Return `image` on a transparent canvas, unchanged for `None`.

    canvas: the size of the canvas, and the left and top of `image` on it.
    """
    if canvas is None:
        return image
    image = color.add_alpha(image)
    return image.embed(canvas.left, canvas.top, canvas.width, canvas.height, extend="background", background=[0] * image.bands)


def overlay_size(overlay: Overlay, width: int, height: int, overlay_width: int, overlay_height: int) -> tuple[int, int]:
    """Return the width and height at which an overlay is drawn on a picture. It is never higher than the picture.

    overlay.scale: the overlay's width as a fraction of the picture's.
    width, height: of the picture. overlay_width, overlay_height: of the overlay's own image. All in pixels.
    """
    scale = min(Fraction(max(1, round_half_up(Fraction(str(overlay.scale)) * width)), overlay_width), Fraction(height, overlay_height))
    return max(1, round_half_up(overlay_width * scale)), max(1, round_half_up(overlay_height * scale))


def draw_overlay(image: pyvips.Image, overlay_image: pyvips.Image | None, overlay: Overlay | None) -> pyvips.Image:
    """Return `image` with `overlay_image` (8 bits per band, at its final size) composited over it, unchanged for `None`.

    Blended as CSS does (PDF blend mode Normal).
    """
    if overlay_image is None or overlay is None:
        return image
    overlay_image = color.add_alpha(color.convert_to_profile_of(image, overlay_image))
    if overlay.opacity != 1:
        colors = overlay_image.extract_band(0, n=overlay_image.bands - 1)
        alpha = (overlay_image.extract_band(overlay_image.bands - 1) * overlay.opacity).rint().cast("uchar")
        overlay_image = colors.bandjoin(alpha).copy(interpretation=overlay_image.interpretation)
    if not (color.is_gray(image) and color.is_gray(overlay_image)):
        image, overlay_image = color.to_rgb(image), color.to_rgb(overlay_image)
    left = _offset(image.width - overlay_image.width, overlay.gravity, overlay.x, near="west", far="east")
    top = _offset(image.height - overlay_image.height, overlay.gravity, overlay.y, near="north", far="south")
    return _composite_over(image, overlay_image, left, top)


def _offset(room: int, gravity: str, inset: int, *, near: str, far: str) -> int:
    if near in gravity:
        return inset
    return room - inset if far in gravity else floor(room / 2) + inset


def _composite_over(image: pyvips.Image, overlay_image: pyvips.Image, left: int, top: int) -> pyvips.Image:
    out = image.composite2(overlay_image, "over", x=left, y=top, compositing_space=image.interpretation)
    if not image.hasalpha():
        out = out.extract_band(0, n=out.bands - 1)
    return out.cast("uchar").copy(interpretation=image.interpretation)


def round_corners(image: pyvips.Image, radius: int | str | None) -> pyvips.Image:
    """Return `image` with rounded, anti-aliased corners, unchanged for `None`.

    radius: in pixels, or `max` for half the shorter side, which is also the limit.
    """
    if radius is None:
        return image
    max_radius = min(image.width, image.height) / 2
    mask = _rounded_rectangle(image.width, image.height, max_radius if radius == MAX_RADIUS else min(float(radius), max_radius))
    image = color.add_alpha(image)
    alpha = (image.extract_band(image.bands - 1) * mask / 255).rint().cast("uchar")
    return image.extract_band(0, n=image.bands - 1).bandjoin(alpha).copy(interpretation=image.interpretation)


def _rounded_rectangle(width: int, height: int, radius: float) -> pyvips.Image:
    """Return one band with the share of each pixel, 0 to 255, that lies within a rounded rectangle."""
    side = ceil(radius)
    position = pyvips.Image.xyz(side, side)
    distance = ((position[0] + 0.5 - radius) ** 2 + (position[1] + 0.5 - radius) ** 2) ** 0.5
    corner = ((radius + 0.5 - distance) * 255).rint().cast("uchar").copy_memory()
    mask = (pyvips.Image.black(width, height) + 255).cast("uchar")
    mask = mask.insert(corner, 0, 0).insert(corner.fliphor(), width - side, 0)
    return mask.insert(corner.flipver(), 0, height - side).insert(corner.fliphor().flipver(), width - side, height - side)


def fill_background(image: pyvips.Image, background: str | None, picture: pyvips.Image) -> pyvips.Image:
    """Return `image` composited on its background, unchanged if it has no alpha or for `None`.

    background: a color (`rrggbb` or `rrggbbaa`, sRGB), or `blur` for `picture`, blurred and scaled to cover the image.
    """
    if background is None or not image.hasalpha():
        return image
    if background == "blur":
        return _composite_over(_blurred_backdrop(picture, image), image, 0, 0)
    levels, alpha = color.background_levels(background, image)
    if color.is_gray(image) and len(set(levels)) == 1:
        levels = levels[:1]
    else:
        image = color.to_rgb(image)
    if alpha == 255:
        return image.flatten(background=levels).cast("uchar")
    levels = [*levels, alpha]
    sheet = (pyvips.Image.black(image.width, image.height, bands=len(levels)) + levels).cast("uchar")
    return _composite_over(sheet.copy(interpretation=image.interpretation), image, 0, 0)


def _blurred_backdrop(picture: pyvips.Image, canvas: pyvips.Image) -> pyvips.Image:
    scale = max(Fraction(canvas.width, picture.width), Fraction(canvas.height, picture.height))
    width, height = max(canvas.width, round_half_up(picture.width * scale)), max(canvas.height, round_half_up(picture.height * scale))
    cover = color.flatten_on_white(picture)
    cover = cover.thumbnail_image(width, height=height, size="force") if scale < 1 else enlarge(cover, width, height)
    cover = cover.crop((width - canvas.width) // 2, (height - canvas.height) // 2, canvas.width, canvas.height)
    if color.is_gray(canvas) != color.is_gray(cover):
        cover = color.to_rgb(cover)
    return blur(cover.copy_memory(), max(canvas.width, canvas.height) / _BACKDROP_SIGMA_DIVISOR)
