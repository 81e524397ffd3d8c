"""Layers: the cut and the canvas of a picture, what is laid over it, its corners, what lies behind it."""

from __future__ import annotations

import math
from fractions import Fraction
from math import ceil, floor

import pyvips

from service.images.geometry import Box, Plan, half_up
from service.images.options import MAX_RADIUS, Overlay
from service.images.transform import Transform
from service.worker import color
from service.worker.adjust import blurred
from service.worker.load import enlarged

# What stands behind a picture is blurred by so many parts of its longer side: nothing of it can be made out.
_BACKDROP_PARTS = 40

# What is shrunk by less than this is not seen to be shrunk without a filter; rounding to whole pixels is far less.
_LEAST_UNFILTERED = 0.9


def turned(image: pyvips.Image, steps: Plan) -> pyvips.Image:
    """Return `image` (the region at `steps.unturned`) turned and flipped, at `steps.width` × `steps.height`.

    Turned by anything but quarters it gets alpha: its corners are open.
    """
    if steps.angle:
        image = image.copy_memory()
        image = image.rot(f"d{steps.angle:g}") if steps.straight else _turned_freely(image, steps)
    if steps.flip == "horizontal":
        return image.fliphor()
    return image.copy_memory().flipver() if steps.flip == "vertical" else image


def _turned_freely(image: pyvips.Image, steps: Plan) -> pyvips.Image:
    angle = math.radians(steps.angle)
    cosine, sine = math.cos(angle), math.sin(angle)
    box_across = image.width * abs(cosine) + image.height * abs(sine)
    box_down = image.width * abs(sine) + image.height * abs(cosine)
    width, height = steps.width, steps.height
    scales = (width / box_across, height / box_down)
    stretched = min(scales) < _LEAST_UNFILTERED * max(scales)
    if stretched:
        # An affine transform does not filter what it shrinks: turned at one scale first, then stretched.
        width, height = max(1, round(box_across * max(scales))), max(1, round(box_down * max(scales)))
    across, down = width / box_across, height / box_down
    matrix = [cosine * across, -sine * across, sine * down, cosine * down]
    middle_across, middle_down = (image.width - 1) / 2, (image.height - 1) / 2
    premultiplied = color.with_alpha(image).premultiply()
    out = premultiplied.affine(
        matrix,
        interpolate=pyvips.Interpolate.new("bicubic"),
        oarea=[0, 0, width, height],
        # The middle of the picture goes to the middle of the box.
        odx=(width - 1) / 2 - (matrix[0] * middle_across + matrix[1] * middle_down),
        ody=(height - 1) / 2 - (matrix[2] * middle_across + matrix[3] * middle_down),
        extend="background",
        background=[0] * premultiplied.bands,
        premultiplied=True,
    )
    out = out.unpremultiply().rint().cast("uchar").copy(interpretation=image.interpretation)
    return out.thumbnail_image(steps.width, height=steps.height, size="force") if stretched else out


def cut_box(image: pyvips.Image, steps: Plan, transform: Transform) -> Box | None:
    """Return what is to be cut of `image`, found by libvips' smartcrop where the plan leaves that to the pixels (in memory then)."""
    if steps.crop is None or not steps.searched:
        return steps.crop
    found = image.smartcrop(steps.crop.width, steps.crop.height, interesting=transform.gravity)
    # The part knows where it was cut.
    return Box(-found.xoffset, -found.yoffset, steps.crop.width, steps.crop.height)


def within_borders(image: pyvips.Image, tolerance: float, region: Box) -> Box:
    """Return the part of `region`, of which `image` is a picture, within borders of the top left pixel's colour.

    A pixel belongs to the border if no band of it differs by more than `tolerance`, of a transparent border its alpha. Where all is
    border, nothing is cut.
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
    across, down = Fraction(region.width, image.width), Fraction(region.height, image.height)
    far_left, far_top = floor(left * across), floor(top * down)
    return Box(
        region.left + far_left,
        region.top + far_top,
        min(ceil((left + width) * across), region.width) - far_left,
        min(ceil((top + height) * down), region.height) - far_top,
    )


def cut(image: pyvips.Image, box: Box | None) -> pyvips.Image:
    """Return the part of `image` in `box`."""
    return image if box is None else image.crop(box.left, box.top, box.width, box.height)


def laid_on(image: pyvips.Image, canvas: Box | None) -> pyvips.Image:
    """Return `image` on a transparent canvas."""
    if canvas is None:
        return image
    image = color.with_alpha(image)
    return image.embed(canvas.left, canvas.top, canvas.width, canvas.height, extend="background", background=[0] * image.bands)


def overlay_size(overlay: Overlay, width: int, height: int, over_width: int, over_height: int) -> tuple[int, int]:
    """Return the size at which an `over_width` × `over_height` image lies over a `width` × `height` picture: never higher than it."""
    scale = min(Fraction(max(1, half_up(Fraction(str(overlay.scale)) * width)), over_width), Fraction(height, over_height))
    return max(1, half_up(over_width * scale)), max(1, half_up(over_height * scale))


def overlaid(image: pyvips.Image, over: pyvips.Image | None, overlay: Overlay | None) -> pyvips.Image:
    """Return `image` with another picture (8 bits, at its final size) composited over it (PDF blend mode Normal, as CSS does)."""
    if over is None or overlay is None:
        return image
    over = color.with_alpha(color.as_in(image, over))
    if overlay.opacity != 1:
        colours = over.extract_band(0, n=over.bands - 1)
        faded = (over.extract_band(over.bands - 1) * overlay.opacity).rint().cast("uchar")
        over = colours.bandjoin(faded).copy(interpretation=over.interpretation)
    if not (color.is_grey(image) and color.is_grey(over)):
        image, over = color.in_colour(image), color.in_colour(over)
    left = _offset(image.width - over.width, overlay.gravity, overlay.x, near="west", far="east")
    top = _offset(image.height - over.height, overlay.gravity, overlay.y, near="north", far="south")
    return _composited(image, over, left, top)


def _offset(room: int, gravity: str, inwards: int, *, near: str, far: str) -> int:
    if near in gravity:
        return inwards
    return room - inwards if far in gravity else floor(room / 2) + inwards


def _composited(under: pyvips.Image, over: pyvips.Image, left: int, top: int) -> pyvips.Image:
    image = under.composite2(over, "over", x=left, y=top, compositing_space=under.interpretation)
    if not under.hasalpha():
        image = image.extract_band(0, n=image.bands - 1)
    return image.cast("uchar").copy(interpretation=under.interpretation)


def rounded(image: pyvips.Image, radius: int | str | None) -> pyvips.Image:
    """Return `image` with its corners cut to `radius` pixels, or as far as they go, the edge smooth."""
    if radius is None:
        return image
    most = min(image.width, image.height) / 2
    reach = most if radius == MAX_RADIUS else min(float(radius), most)
    mask = _corner_mask(image.width, image.height, reach)
    image = color.with_alpha(image)
    alpha = (image.extract_band(image.bands - 1) * mask / 255).rint().cast("uchar")
    return image.extract_band(0, n=image.bands - 1).bandjoin(alpha).copy(interpretation=image.interpretation)


def _corner_mask(width: int, height: int, radius: float) -> pyvips.Image:
    """Return how much of each pixel is within a rounded rectangle, 0 to 255."""
    side = ceil(radius)
    place = pyvips.Image.xyz(side, side)
    distance = ((place[0] + 0.5 - radius) ** 2 + (place[1] + 0.5 - radius) ** 2) ** 0.5
    corner = ((radius + 0.5 - distance) * 255).rint().cast("uchar").copy_memory()
    mask = (pyvips.Image.black(width, height) + 255).cast("uchar")
    mask = mask.insert(corner, 0, 0).insert(corner.fliphor(), width - side, 0)
    return mask.insert(corner.flipver(), 0, height - side).insert(corner.fliphor().flipver(), width - side, height - side)


def on_background(image: pyvips.Image, background: str | None, picture: pyvips.Image) -> pyvips.Image:
    """Return `image` with what it is asked to lie on behind it: a colour, or `picture` itself, blurred."""
    if background is None or not image.hasalpha():
        return image
    if background == "blur":
        return _composited(_backdrop(picture, image), image, 0, 0)
    levels, alpha = color.levels(background, image)
    if color.is_grey(image) and len(set(levels)) == 1:
        levels = levels[:1]
    else:
        image = color.in_colour(image)
    if alpha == 255:
        return image.flatten(background=levels).cast("uchar")
    numbers = [*levels, alpha]
    sheet = (pyvips.Image.black(image.width, image.height, bands=len(numbers)) + numbers).cast("uchar")
    return _composited(sheet.copy(interpretation=image.interpretation), image, 0, 0)


def _backdrop(picture: pyvips.Image, canvas: pyvips.Image) -> pyvips.Image:
    scale = max(Fraction(canvas.width, picture.width), Fraction(canvas.height, picture.height))
    width, height = max(canvas.width, half_up(picture.width * scale)), max(canvas.height, half_up(picture.height * scale))
    cover = color.on_white(picture)
    cover = cover.thumbnail_image(width, height=height, size="force") if scale < 1 else enlarged(cover, width, height)
    cover = cover.crop((width - canvas.width) // 2, (height - canvas.height) // 2, canvas.width, canvas.height)
    if color.is_grey(canvas) != color.is_grey(cover):
        cover = color.in_colour(cover)
    return blurred(cover.copy_memory(), max(canvas.width, canvas.height) / _BACKDROP_PARTS)
