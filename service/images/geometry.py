"""Sizes and boxes: integer and rational arithmetic on the upright original, without any pixel.

The same transform of the same original must give the same plan on every machine, so nothing depends on the last bit of a float.
"""

from __future__ import annotations

import math
from fractions import Fraction
from operator import ge, le
from typing import NamedTuple

import msgspec

from service.errors import BadTransformError, TooComplexError, TooManyPixelsError
from service.images.formats import FORMATS, Format
from service.images.info import ImageInfo, Limits
from service.images.options import STRATEGIES, Flip, FocalPoint, Gravity, Region, Sides
from service.images.transform import Transform

_RIGHT_ANGLES = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}
_MIDDLE = Fraction(1, 2)

_FINE_ROTATION_SCALE = 1.5
# So many pixels need at most 64 MB while they are rotated.
_MAX_FINE_ROTATION_PIXELS = 4_000_000


class Box(msgspec.Struct, frozen=True):
    """A rectangle in pixels from the top left."""

    left: int
    top: int
    width: int
    height: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How an original becomes a rendition, in this order.

    region: the part that is used, in pixels of the upright original.
    angle, flip: it is rotated by this many degrees clockwise, and mirrored.
    rotation_scale: how much finer than the rendition it is while it is rotated by an angle that moves no pixel exactly onto another one.
    width, height: it has this size then.
    crop: the part that is kept of that, in scaled pixels. searched: whether its left and top are only those of the middle, because the
        gravity (`attention`, `entropy`) needs the pixels to decide.
    canvas: or the whole canvas that it is placed on, with the left and top of its place.
    padded: the whole canvas with the padding, with the left and top of what lies on it.
    """

    region: Box
    width: int
    height: int
    angle: float = 0.0
    rotation_scale: float = 1.0
    flip: Flip = "none"
    crop: Box | None = None
    searched: bool = False
    canvas: Box | None = None
    padded: Box | None = None

    @classmethod
    def whole(cls, original_width: int, original_height: int, width: int, height: int) -> Plan:
        """Return the plan that scales a whole original to a size."""
        return cls(region=Box(0, 0, original_width, original_height), width=width, height=height)

    @property
    def picture_size(self) -> tuple[int, int]:
        """Width and height of the box that the picture fills or lies in, before padding."""
        box = self.canvas or self.crop
        return (box.width, box.height) if box else (self.width, self.height)

    @property
    def output_size(self) -> tuple[int, int]:
        """Width and height of the rendition."""
        return (self.padded.width, self.padded.height) if self.padded else self.picture_size

    @property
    def has_right_angle(self) -> bool:
        """Whether the rotation moves every pixel exactly onto another one."""
        return self.angle in _RIGHT_ANGLES

    @property
    def unrotated_size(self) -> tuple[int, int]:
        """Width and height that the region is scaled to before it is rotated: at least as fine as afterwards."""
        if self.angle in {0, 180}:
            return self.width, self.height
        if self.angle in {90, 270}:
            return self.height, self.width
        rotated_width, rotated_height = _rotated_size(self.region.width, self.region.height, self.angle)
        scale = max(Fraction(self.width, rotated_width), Fraction(self.height, rotated_height))
        if self.rotation_scale > 1:
            scale = max(scale, min(scale * Fraction(self.rotation_scale), Fraction(1)))
        return _round_side(self.region.width * scale), _round_side(self.region.height * scale)


def with_fine_rotation(plan: Plan) -> Plan:
    """Return a plan that rotates finer pixels than those of the rendition, if it rotates freely and they are few enough.

    The rotation blurs by about one of the pixels that it is given: at 1.5 times the scale the result is half as far from an ideal one.
    """
    if plan.has_right_angle:
        return plan
    fine = msgspec.structs.replace(plan, rotation_scale=_FINE_ROTATION_SCALE)
    return fine if math.prod(fine.unrotated_size) <= _MAX_FINE_ROTATION_PIXELS else plan


class _Anchor(NamedTuple):
    """A point of the rotated and mirrored region, each coordinate 0 to 1 from the left and the top."""

    x: Fraction
    y: Fraction
    is_focal: bool


def make_plan(width: int, height: int, transform: Transform, *, vector: bool = False, trimmed: Box | None = None) -> Plan:
    """Return the region, scale and crop that turn an upright `width` × `height` original into `transform`.

    Nothing grows unless `transform.enlarge`, or the original is a `vector` image: a small original keeps its size, and a box that it
    cannot fill shrinks in proportion. Sides are rounded half up, never below 1.

    trimmed: the part of the original that `transform.trim` leaves; without it nothing is trimmed.

    Raises `BadTransformError` for a crop outside the picture.
    """
    region = trimmed or _region(width, height, transform.crop)
    rotated = _rotated_size(region.width, region.height, transform.rotate)
    gravity = transform.gravity
    anchor = _focal_anchor(gravity, width, height, region, transform) if isinstance(gravity, FocalPoint) else _compass_anchor(gravity)
    grows = transform.enlarge or vector
    fitted = _fit(rotated, transform, anchor, grows=grows)
    result = msgspec.structs.replace(fitted, region=region, angle=transform.rotate, flip=transform.flip)
    pad = transform.pad
    if pad == Sides(0, 0, 0, 0):
        return result
    picture_width, picture_height = result.picture_size
    padded = Box(pad.left, pad.top, picture_width + pad.left + pad.right, picture_height + pad.top + pad.bottom)
    return msgspec.structs.replace(result, padded=padded)


def feasible_plan(
    info: ImageInfo,
    transform: Transform,
    image_format: Format,
    limits: Limits,
    *,
    frames: int,
    trimmed: Box | None = None,
    linked: bool = False,
) -> Plan:
    """Return the plan of a rendition that can be made, as far as the header of its original shows.

    frames: of the rendition.
    trimmed: see `make_plan`.
    linked: whether a ladder links to it. A ladder leaves out what only a render can find out: whether a part of a drawing, or a drawing of
        another shape, takes too long to draw.

    Raises `BadTransformError` for a frame or a crop outside the original, `TooManyPixelsError` for a rendition with more pixels than
    `limits` or longer sides than its format, and `TooComplexError` for a drawing that would take too long to draw at this size.
    """
    require_frame(info, transform)
    page = info.of_page(transform.frame)
    found = make_plan(page.width, page.height, transform, vector=info.vector, trimmed=trimmed)
    _check_drawing(info, found, linked=linked)
    if fits(found, image_format, limits, frames=frames):
        return found
    width, height = found.output_size
    raise TooManyPixelsError(
        "The rendition would have too many pixels.",
        expected=f"at most {limits.max_output_pixels} pixels in all frames, and no side of {image_format} longer than "
        f"{FORMATS[image_format].longest_side_pixels}",
        received=f"{width} x {height}" + (f" x {frames} frames" if frames > 1 else ""),
        remedy="Request a smaller width or height" + (", or one frame." if frames > 1 else "."),
    )


def require_frame(info: ImageInfo, transform: Transform) -> None:
    """Return if an original has the frame that a transform names, or the transform names none; raises `BadTransformError`."""
    if transform.frame is not None and transform.frame >= info.frames:
        raise BadTransformError(
            "The image has no such frame.",
            expected=f"a frame from 0 to {info.frames - 1}",
            received=str(transform.frame),
            remedy="Request another frame, or leave `frame` out.",
        )


def fits(plan: Plan, image_format: Format, limits: Limits, *, frames: int) -> bool:
    """Return whether all frames of a rendition together are within the limit of pixels, and its sides within that of its format."""
    width, height = plan.output_size
    if max(width, height) > FORMATS[image_format].longest_side_pixels:
        return False
    # The parts that are cropped away are scaled too, to more pixels than the original has only if something grows.
    scaled_pixels = max(plan.width * plan.height, math.prod(plan.unrotated_size))
    grown_pixels = scaled_pixels if scaled_pixels > plan.region.width * plan.region.height else 0
    return max(width * height, grown_pixels) * frames <= limits.max_output_pixels


def is_worth_linking(plan: Plan, image_format: Format, limits: Limits, *, frames: int, alpha: bool) -> bool:
    """Return whether a document links to a rendition: it `fits`, and a render process has the memory to encode it.

    alpha: whether it has transparent pixels.
    """
    width, height = plan.output_size
    traits = FORMATS[image_format]
    pixel_bytes = (traits.animation_bytes_per_pixel if frames > 1 else traits.encoder_bytes_per_pixel)[alpha]
    needed_bytes = width * height * pixel_bytes
    return needed_bytes <= limits.codec_bytes and fits(plan, image_format, limits, frames=frames)


def drawing_size(plan: Plan) -> tuple[int, int, float]:
    """Return the width and height in pixels at which a vector image is drawn, and their ratio to its own size."""
    width, height = plan.unrotated_size
    return width, height, max(width / plan.region.width, height / plan.region.height)


def is_drawn_in_time(info: ImageInfo, plan: Plan) -> bool:
    """Return whether a rendition is certain to be drawn in time: in no respect is it larger than the whole drawing at `max_width`."""
    return info.max_width is None or all(map(le, drawing_size(plan), _whole_drawing_size(info, info.max_width)))


def _check_drawing(info: ImageInfo, plan: Plan, *, linked: bool) -> None:
    """Return if a rendition can be drawn in time, or, unless it is `linked`, if that is uncertain; raises `TooComplexError`."""
    if info.max_width is None or is_drawn_in_time(info, plan):
        return
    if linked or all(map(ge, drawing_size(plan), _whole_drawing_size(info, info.max_width + 1))):
        width, height, _ = drawing_size(plan)
        raise TooComplexError(
            "The drawing would take too long to draw at this size.",
            expected=f"at most {info.max_width} pixels of width for the whole drawing",
            received=f"{width} x {height}",
            remedy="Request a smaller width or height, or simplify the drawing and upload it again.",
        )


def _whole_drawing_size(info: ImageInfo, width: int) -> tuple[int, int, float]:
    return drawing_size(make_plan(info.width, info.height, Transform(width=width), vector=True))


def intermediate_suffices(info: ImageInfo, transform: Transform, plan: Plan) -> bool:
    """Return whether a rendition is made from the intermediate, which depends only on the original and the transform.

    An intermediate has no metadata, only the first page, and 8 bits, which are too few for a transform that spreads levels apart, and for
    a high dynamic range. That of a baseline JPEG has to be twice as wide and high as the rendition, so that what its decoder and its
    encoder lose averages out.
    """
    if transform.dynamic_range == "high":
        return False
    if info.intermediate is None or transform.metadata != "none" or transform.frame or transform.trim is not None or transform.stretches:
        return False
    width, height = (side * (2 if info.shrinks_on_load else 1) for side in plan.unrotated_size)
    intermediate_width, intermediate_height = info.intermediate
    wide_enough = width * info.width <= intermediate_width * plan.region.width
    return wide_enough and height * info.height <= intermediate_height * plan.region.height


def _region(width: int, height: int, crop: Region | None) -> Box:
    if crop is None:
        return Box(0, 0, width, height)
    left, top, crop_width, crop_height = (Fraction(str(length)) for length in (crop.left, crop.top, crop.width, crop.height))
    if crop.percent:
        right, bottom = round_half_up(width * (left + crop_width) / 100), round_half_up(height * (top + crop_height) / 100)
        # A sliver at the far edge is still a pixel.
        first_x, first_y = min(round_half_up(width * left / 100), width - 1), min(round_half_up(height * top / 100), height - 1)
        return Box(first_x, first_y, max(1, right - first_x), max(1, bottom - first_y))
    if left + crop_width > width or top + crop_height > height:
        raise BadTransformError(
            "The crop lies outside the picture.",
            expected=f"a part of {width} x {height} pixels",
            received=f"{crop.width:g} x {crop.height:g} pixels from {crop.left:g}, {crop.top:g}",
            remedy="Give a part within the picture, or one in percent: crop=10p:10p:50p:50p.",
        )
    return Box(int(left), int(top), int(crop_width), int(crop_height))


def _rotated_size(width: int, height: int, angle: float) -> tuple[int, int]:
    """Return the size of the box around a `width` × `height` picture that is rotated by `angle` degrees."""
    cosine, sine = _cosine_and_sine(angle)
    return _round_side(width * abs(cosine) + height * abs(sine)), _round_side(width * abs(sine) + height * abs(cosine))


def _cosine_and_sine(angle: float) -> tuple[Fraction, Fraction]:
    """Return cosine and sine to nine decimals: the same on every machine, whatever the last bit of its mathematics library."""
    if angle in _RIGHT_ANGLES:
        cosine, sine = _RIGHT_ANGLES[int(angle)]
        return Fraction(cosine), Fraction(sine)
    turn = math.radians(angle)
    return Fraction(round(math.cos(turn) * 1_000_000_000), 1_000_000_000), Fraction(round(math.sin(turn) * 1_000_000_000), 1_000_000_000)


def _focal_anchor(focal: FocalPoint, width: int, height: int, region: Box, transform: Transform) -> _Anchor:
    """Return the place of a focal point of the original in the rotated and mirrored region; one outside moves to its edge."""
    left = min(max(Fraction(str(focal.x)) * width - region.left, Fraction(0)), Fraction(region.width))
    top = min(max(Fraction(str(focal.y)) * height - region.top, Fraction(0)), Fraction(region.height))
    # The rotation is about the middle.
    left, top = left - Fraction(region.width, 2), top - Fraction(region.height, 2)
    cosine, sine = _cosine_and_sine(transform.rotate)
    rotated_width, rotated_height = _rotated_size(region.width, region.height, transform.rotate)
    x = (left * cosine - top * sine) / rotated_width + _MIDDLE
    y = (left * sine + top * cosine) / rotated_height + _MIDDLE
    return _Anchor(1 - x if transform.flip == "horizontal" else x, 1 - y if transform.flip == "vertical" else y, is_focal=True)


def _compass_anchor(gravity: str) -> _Anchor:
    x = Fraction(0) if "west" in gravity else Fraction(1) if "east" in gravity else _MIDDLE
    y = Fraction(0) if "north" in gravity else Fraction(1) if "south" in gravity else _MIDDLE
    return _Anchor(x, y, is_focal=False)


def _fit(rotated: tuple[int, int], transform: Transform, anchor: _Anchor, *, grows: bool) -> Plan:
    """Return the scale, crop and canvas for a picture of the size `rotated`; the caller sets region, angle and flip."""
    width, height = rotated
    box_width, box_height = _box(rotated, transform)

    def scaled(scale: Fraction) -> Plan:
        scale = scale if grows else min(scale, Fraction(1))
        return Plan.whole(width, height, _round_side(width * scale), _round_side(height * scale))

    if box_width is None or box_height is None:
        scales = [box / side for box, side in ((box_width, width), (box_height, height)) if box]
        return scaled(min(scales, default=Fraction(1)))
    x_scale, y_scale = box_width / width, box_height / height
    box_scale = Fraction(1) if grows else min(Fraction(1), 1 / x_scale, 1 / y_scale)
    match transform.fit:
        case "inside":
            return scaled(min(x_scale, y_scale))
        case "outside":
            return scaled(max(x_scale, y_scale))
        case "contain":
            return _contain(scaled(min(x_scale, y_scale)), _round_side(box_width), _round_side(box_height), anchor)
        case "fill":
            return Plan.whole(width, height, _round_side(box_width * box_scale), _round_side(box_height * box_scale))
        case "cover":
            return _cover(rotated, _round_side(box_width * box_scale), _round_side(box_height * box_scale), transform.gravity, anchor)


def _box(rotated: tuple[int, int], transform: Transform) -> tuple[Fraction | None, Fraction | None]:
    """Return width and height of the box for a picture of the size `rotated`.

    A box with a ratio and no size is the smallest around the picture for `contain`, otherwise the largest in it.
    """
    if transform.ratio is None or transform.width is not None or transform.height is not None:
        return transform.box
    (width, height), ratio = map(Fraction, rotated), transform.ratio.value
    nearest = max if transform.fit == "contain" else min
    return nearest(width, height * ratio), nearest(height, width / ratio)


def _cover(rotated: tuple[int, int], box_width: int, box_height: int, gravity: Gravity, anchor: _Anchor) -> Plan:
    width, height = rotated
    scale = max(Fraction(box_width, width), Fraction(box_height, height))
    scaled = Plan.whole(width, height, max(box_width, _round_side(width * scale)), max(box_height, _round_side(height * scale)))
    if (scaled.width, scaled.height) == (box_width, box_height):
        return scaled
    left, top = _place(scaled.width - box_width, scaled.height - box_height, scaled, anchor)
    return msgspec.structs.replace(scaled, crop=Box(left, top, box_width, box_height), searched=gravity in STRATEGIES)


def _contain(scaled: Plan, canvas_width: int, canvas_height: int, anchor: _Anchor) -> Plan:
    free_width, free_height = canvas_width - scaled.width, canvas_height - scaled.height
    if not free_width and not free_height:
        return scaled
    left, top = _place(free_width, free_height, scaled, anchor)
    return msgspec.structs.replace(scaled, canvas=Box(left, top, canvas_width, canvas_height))


def _place(free_width: int, free_height: int, scaled: Plan, anchor: _Anchor) -> tuple[int, int]:
    """Return left and top, each from 0 to the free width and height."""
    if not anchor.is_focal:
        return math.floor(anchor.x * free_width), math.floor(anchor.y * free_height)
    # The focal point comes as near to the middle of the crop as the edges of the picture allow.
    left = round_half_up(anchor.x * scaled.width - Fraction(scaled.width - free_width, 2))
    top = round_half_up(anchor.y * scaled.height - Fraction(scaled.height - free_height, 2))
    return min(max(left, 0), free_width), min(max(top, 0), free_height)


def _round_side(length: Fraction) -> int:
    return max(1, round_half_up(length))


def round_half_up(length: Fraction) -> int:
    """Return a length as the nearest whole number, the larger one if two are equally near."""
    return math.floor(length + _MIDDLE)
