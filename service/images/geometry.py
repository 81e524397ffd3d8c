"""Sizes and boxes: arithmetic on the upright original, no pixel in sight."""

from __future__ import annotations

from fractions import Fraction
from math import cos, floor, radians, sin
from operator import ge, le

import msgspec

from service.errors import BadTransformError, TooComplexError, TooManyPixelsError
from service.images.formats import FORMATS, Format
from service.images.info import ImageInfo, Limits
from service.images.options import Flip, FocalPoint, Gravity, Region, Sides
from service.images.transform import Transform

_QUARTERS = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}
_MIDDLE = Fraction(1, 2)


class Box(msgspec.Struct, frozen=True):
    """A rectangle in pixels from the top left."""

    left: int
    top: int
    width: int
    height: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How an original becomes a rendition.

    Its `region` (pixels of the upright original) is turned by `angle` degrees clockwise and flipped, and is `width` × `height` then
    scaled; cut to `crop` or laid on a `canvas`; and padded. `crop` is in scaled pixels; where `gravity` needs the pixels to decide
    (`attention`, `entropy`) its left and top are those of the middle and `searched` is true. `canvas` and `padded` are whole
    canvases with the left and top of what lies on them.
    """

    region: Box
    width: int
    height: int
    angle: float = 0.0
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
    def picture(self) -> tuple[int, int]:
        """Width and height of the box that the picture fills or lies in, before padding."""
        box = self.canvas or self.crop
        return (box.width, box.height) if box else (self.width, self.height)

    @property
    def output(self) -> tuple[int, int]:
        """Width and height of the rendition."""
        return (self.padded.width, self.padded.height) if self.padded else self.picture

    @property
    def straight(self) -> bool:
        """Whether no pixel falls between two by turning."""
        return self.angle in _QUARTERS

    @property
    def unturned(self) -> tuple[int, int]:
        """Width and height that the region is scaled to before it is turned: at least as fine as after it."""
        if self.angle in {0, 180}:
            return self.width, self.height
        if self.angle in {90, 270}:
            return self.height, self.width
        turned_width, turned_height = _turned(self.region.width, self.region.height, self.angle)
        scale = max(Fraction(self.width, turned_width), Fraction(self.height, turned_height))
        return _side(self.region.width * scale), _side(self.region.height * scale)


def plan(width: int, height: int, transform: Transform, *, vector: bool = False, trimmed: Box | None = None) -> Plan:
    """Return the region, scale and crop that turn an upright `width` × `height` original into `transform`.

    Nothing grows unless `transform.enlarge`, or the original is a `vector` image: a small original keeps its size, and a box that it
    cannot fill shrinks in proportion. Sides are rounded half up, never below 1. `trimmed` is what `transform.trim` has left of the
    original; without it nothing is trimmed. Raises `BadTransformError` for a crop outside the picture.
    """
    region = trimmed or _region(width, height, transform.crop)
    turned = _turned(region.width, region.height, transform.rotate)
    gravity = transform.gravity
    anchor = _anchor(gravity, width, height, region, transform) if isinstance(gravity, FocalPoint) else _compass(gravity)
    grows = transform.enlarge or vector
    fitted = _fitted(turned, transform, anchor, grows=grows)
    steps = msgspec.structs.replace(fitted, region=region, angle=transform.rotate, flip=transform.flip)
    pad = transform.pad
    if pad == Sides(0, 0, 0, 0):
        return steps
    across, down = steps.picture
    padded = Box(pad.left, pad.top, across + pad.left + pad.right, down + pad.top + pad.bottom)
    return msgspec.structs.replace(steps, padded=padded)


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
    trimmed: see `plan`.
    linked: whether a ladder links to it. A ladder leaves out what only a render can find out: whether a part of a drawing, or a drawing of
        another shape, takes too long to draw.

    Raises `BadTransformError` for a frame or a crop outside the original, `TooManyPixelsError` for a rendition with more pixels than
    `limits` or longer sides than its format, and `TooComplexError` for a drawing that would take too long to draw at this size.
    """
    require_frame(info, transform)
    page = info.of_page(transform.frame)
    found = plan(page.width, page.height, transform, vector=info.vector, trimmed=trimmed)
    _check_drawing(info, found, linked=linked)
    if fits(found, image_format, limits, frames=frames):
        return found
    width, height = found.output
    raise TooManyPixelsError(
        "The rendition would have too many pixels.",
        expected=f"at most {limits.max_output_pixels} pixels in all frames, and no side of {image_format} longer than "
        f"{FORMATS[image_format].longest_side_pixels}",
        received=f"{width} x {height}" + (f" x {frames} frames" if frames > 1 else ""),
        remedy="Request a smaller width or height" + (", or one frame." if frames > 1 else "."),
    )


def require_frame(info: ImageInfo, transform: Transform) -> None:
    """Return if an original has the frame that a transform names, if it names one; raises `BadTransformError`."""
    if transform.frame is not None and transform.frame >= info.frames:
        raise BadTransformError(
            "The image has no such frame.",
            expected=f"a frame from 0 to {info.frames - 1}",
            received=str(transform.frame),
            remedy="Ask for another frame, or leave `frame` out.",
        )


def fits(steps: Plan, image_format: Format, limits: Limits, *, frames: int) -> bool:
    """Return whether a rendition is no larger than is made, all `frames` together, and has no side longer than its format holds."""
    width, height = steps.output
    # What is cut away afterwards is scaled too: more than the original only where something grows.
    scaled = max(steps.width * steps.height, steps.unturned[0] * steps.unturned[1])
    grown = scaled if scaled > steps.region.width * steps.region.height else 0
    if max(width, height) > FORMATS[image_format].longest_side_pixels:
        return False
    return max(width * height, grown) * frames <= limits.max_output_pixels


def is_worth_offering(steps: Plan, image_format: Format, limits: Limits, *, frames: int, alpha: bool) -> bool:
    """Return whether a document links to a rendition: it `fits`, and if it is an AVIF, a render process has the memory to encode it.

    `alpha`: whether it has transparent pixels.
    """
    width, height = steps.output
    needed_bytes = width * height * FORMATS[image_format].encoder_bytes_per_pixel[alpha]
    return needed_bytes <= limits.codec_bytes and fits(steps, image_format, limits, frames=frames)


def drawing_at(steps: Plan) -> tuple[int, int, float]:
    """Return the width and height in pixels at which a vector image is drawn, and how many times its own size it has there."""
    width, height = steps.unturned
    return width, height, max(width / steps.region.width, height / steps.region.height)


def is_drawn_in_time(info: ImageInfo, steps: Plan) -> bool:
    """Return whether a rendition is certain not to take too long to draw: it is no larger in anything than the whole at `max_width`."""
    return info.max_width is None or all(map(le, drawing_at(steps), _whole_drawing(info, info.max_width)))


def _check_drawing(info: ImageInfo, steps: Plan, *, linked: bool) -> None:
    """Return if a rendition can be drawn in time, unless it is `linked` also if that is uncertain; raises `TooComplexError`."""
    if info.max_width is None or is_drawn_in_time(info, steps):
        return
    if linked or all(map(ge, drawing_at(steps), _whole_drawing(info, info.max_width + 1))):
        width, height, _ = drawing_at(steps)
        raise TooComplexError(
            "The drawing would take too long to draw at this size.",
            expected=f"at most {info.max_width} pixels of width for the whole drawing",
            received=f"{width} x {height}",
            remedy="Ask for a smaller width or height, or simplify the drawing and upload it again.",
        )


def _whole_drawing(info: ImageInfo, width: int) -> tuple[int, int, float]:
    return drawing_at(plan(info.width, info.height, Transform(width=width), vector=True))


def intermediate_suffices(info: ImageInfo, transform: Transform, plan: Plan) -> bool:
    """Return whether a rendition is made from the intermediate, which depends only on the original and the transform.

    An intermediate has no metadata, only the first page, and 8 bits, which are too few for a transform that spreads levels apart.
    """
    if info.intermediate is None or transform.metadata != "none" or transform.frame or transform.trim is not None or transform.stretches:
        return False
    width, height = plan.unturned
    intermediate_width, intermediate_height = info.intermediate
    wide_enough = width * info.width <= intermediate_width * plan.region.width
    return wide_enough and height * info.height <= intermediate_height * plan.region.height


def _region(width: int, height: int, crop: Region | None) -> Box:
    if crop is None:
        return Box(0, 0, width, height)
    left, top, across, down = (Fraction(str(length)) for length in (crop.left, crop.top, crop.width, crop.height))
    if crop.percent:
        edges = [half_up(width * left / 100), half_up(height * top / 100)]
        edges += [half_up(width * (left + across) / 100), half_up(height * (top + down) / 100)]
        # A sliver at the far edge is still a pixel.
        start_across, start_down = min(edges[0], width - 1), min(edges[1], height - 1)
        return Box(start_across, start_down, max(1, edges[2] - start_across), max(1, edges[3] - start_down))
    if left + across > width or top + down > height:
        raise BadTransformError(
            "The crop lies outside the picture.",
            expected=f"a part of {width} x {height} pixels",
            received=f"{crop.width:g} x {crop.height:g} pixels from {crop.left:g}, {crop.top:g}",
            remedy="Give a part within the picture, or one in percent: crop=10p:10p:50p:50p.",
        )
    return Box(int(left), int(top), int(across), int(down))


def _turned(width: int, height: int, angle: float) -> tuple[int, int]:
    """Return the size of the box around a `width` × `height` picture that is turned by `angle` degrees."""
    across, down = _direction(angle)
    return _side(width * abs(across) + height * abs(down)), _side(width * abs(down) + height * abs(across))


def _direction(angle: float) -> tuple[Fraction, Fraction]:
    """Return cosine and sine, to nine decimals: the same on every machine, whatever its mathematics library makes of the last bit."""
    if angle in _QUARTERS:
        across, down = _QUARTERS[int(angle)]
        return Fraction(across), Fraction(down)
    turn = radians(angle)
    return Fraction(round(cos(turn) * 1_000_000_000), 1_000_000_000), Fraction(round(sin(turn) * 1_000_000_000), 1_000_000_000)


def _anchor(focal: FocalPoint, width: int, height: int, region: Box, transform: Transform) -> tuple[Fraction, Fraction, bool]:
    """Return where a focal point of the original lies in the turned and flipped region, each 0 to 1."""
    across = min(max(Fraction(str(focal.x)) * width - region.left, Fraction(0)), Fraction(region.width)) - Fraction(region.width, 2)
    down = min(max(Fraction(str(focal.y)) * height - region.top, Fraction(0)), Fraction(region.height)) - Fraction(region.height, 2)
    cosine, sine = _direction(transform.rotate)
    turned_width, turned_height = _turned(region.width, region.height, transform.rotate)
    x = (across * cosine - down * sine) / turned_width + _MIDDLE
    y = (across * sine + down * cosine) / turned_height + _MIDDLE
    return (1 - x if transform.flip == "horizontal" else x), (1 - y if transform.flip == "vertical" else y), True


def _compass(gravity: str) -> tuple[Fraction, Fraction, bool]:
    x = Fraction(0) if "west" in gravity else Fraction(1) if "east" in gravity else _MIDDLE
    y = Fraction(0) if "north" in gravity else Fraction(1) if "south" in gravity else _MIDDLE
    return x, y, False


def _fitted(turned: tuple[int, int], transform: Transform, anchor: tuple[Fraction, Fraction, bool], *, grows: bool) -> Plan:
    """Return the scale, crop and canvas for a picture of the size `turned`; region and turn are the caller's."""
    width, height = turned
    box_width, box_height = transform.width, transform.height

    def scaled(scale: Fraction) -> Plan:
        scale = scale if grows else min(scale, Fraction(1))
        return Plan(region=Box(0, 0, width, height), width=_side(width * scale), height=_side(height * scale))

    if box_width is None or box_height is None:
        scales = [Fraction(box, side) for box, side in ((box_width, width), (box_height, height)) if box]
        return scaled(min(scales, default=Fraction(1)))
    across, down = Fraction(box_width, width), Fraction(box_height, height)
    shrink = Fraction(1) if grows else min(Fraction(1), 1 / across, 1 / down)
    match transform.fit:
        case "inside":
            return scaled(min(across, down))
        case "outside":
            return scaled(max(across, down))
        case "contain":
            return _contained(scaled(min(across, down)), box_width, box_height, anchor)
        case "fill":
            return Plan(region=Box(0, 0, width, height), width=_side(box_width * shrink), height=_side(box_height * shrink))
        case "cover":
            return _covering(turned, _side(box_width * shrink), _side(box_height * shrink), transform.gravity, anchor)


def _covering(turned: tuple[int, int], out_width: int, out_height: int, gravity: Gravity, anchor: tuple[Fraction, Fraction, bool]) -> Plan:
    width, height = turned
    scale = max(Fraction(out_width, width), Fraction(out_height, height))
    scaled = Plan(
        region=Box(0, 0, width, height), width=max(out_width, _side(width * scale)), height=max(out_height, _side(height * scale))
    )
    if (scaled.width, scaled.height) == (out_width, out_height):
        return scaled
    left, top = _placed(scaled.width - out_width, scaled.height - out_height, scaled, anchor)
    return msgspec.structs.replace(scaled, crop=Box(left, top, out_width, out_height), searched=gravity in {"attention", "entropy"})


def _contained(scaled: Plan, canvas_width: int, canvas_height: int, anchor: tuple[Fraction, Fraction, bool]) -> Plan:
    room_across, room_down = canvas_width - scaled.width, canvas_height - scaled.height
    if not room_across and not room_down:
        return scaled
    left, top = _placed(room_across, room_down, scaled, anchor)
    return msgspec.structs.replace(scaled, canvas=Box(left, top, canvas_width, canvas_height))


def _placed(room_across: int, room_down: int, scaled: Plan, anchor: tuple[Fraction, Fraction, bool]) -> tuple[int, int]:
    """Return left and top within the room that is left over: 0 is flush left or top."""
    x, y, is_focal = anchor
    if not is_focal:
        return floor(x * room_across), floor(y * room_down)
    # The focal point as near to the middle of the crop as the picture's edges allow.
    left = half_up(x * scaled.width - Fraction(scaled.width - room_across, 2))
    top = half_up(y * scaled.height - Fraction(scaled.height - room_down, 2))
    return min(max(left, 0), room_across), min(max(top, 0), room_down)


def _side(length: Fraction) -> int:
    return max(1, half_up(length))


def half_up(length: Fraction) -> int:
    """Return a length as the nearest whole number, the larger one where two are as near."""
    # In whole numbers, so that it is the same on every machine, unlike round() on floats.
    return floor(length + _MIDDLE)
