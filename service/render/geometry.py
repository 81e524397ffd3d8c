"""Sizes and boxes: integer arithmetic on the upright original, no pixel in sight."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import msgspec

from service.transform import FocalPoint, Gravity, Transform


class Box(msgspec.Struct, frozen=True):
    """A rectangle in pixels from the top left."""

    left: int
    top: int
    width: int
    height: int


class Plan(msgspec.Struct, frozen=True):
    """How an original becomes a rendition: scaled to `width` × `height`, then cut to `crop` or laid on a canvas.

    `crop` is in scaled pixels; where `gravity` needs the pixels to decide (`attention`, `entropy`) its left and top are those of
    the middle and `searched` is true. `canvas` is the whole canvas's size with the picture's left and top on it.
    """

    width: int
    height: int
    crop: Box | None = None
    searched: bool = False
    canvas: Box | None = None

    @property
    def output(self) -> tuple[int, int]:
        """Width and height of the rendition."""
        box = self.canvas or self.crop
        return (box.width, box.height) if box else (self.width, self.height)


def plan(width: int, height: int, transform: Transform) -> Plan:
    """Return the scale and crop that turn an upright `width` × `height` original into `transform`.

    Never enlarges: a small original keeps its size, and a box that it cannot fill shrinks in proportion. Sides are rounded half
    up, never below 1.
    """
    box_width, box_height = transform.width, transform.height
    if box_width is None or box_height is None:
        scale = min(
            Fraction(box_width, width) if box_width else Fraction(1),
            Fraction(box_height, height) if box_height else Fraction(1),
            Fraction(1),
        )
        return _scaled(width, height, scale)
    across, down = Fraction(box_width, width), Fraction(box_height, height)
    match transform.fit:
        case "inside":
            return _scaled(width, height, min(across, down, Fraction(1)))
        case "outside":
            return _scaled(width, height, min(max(across, down), Fraction(1)))
        case "contain":
            return _contain(width, height, min(across, down, Fraction(1)), transform)
        case "fill":
            shrink = min(Fraction(1), 1 / across, 1 / down)
            return Plan(_side(box_width * shrink), _side(box_height * shrink))
        case "cover":
            shrink = min(Fraction(1), 1 / across, 1 / down)
            return _cover(width, height, _side(box_width * shrink), _side(box_height * shrink), transform.gravity)


def _scaled(width: int, height: int, scale: Fraction) -> Plan:
    return Plan(_side(width * scale), _side(height * scale))


def _cover(width: int, height: int, out_width: int, out_height: int, gravity: Gravity) -> Plan:
    scale = max(Fraction(out_width, width), Fraction(out_height, height))
    scaled_width = max(out_width, _side(width * scale))
    scaled_height = max(out_height, _side(height * scale))
    if (scaled_width, scaled_height) == (out_width, out_height):
        return Plan(scaled_width, scaled_height)
    left, top = _placed(scaled_width - out_width, scaled_height - out_height, scaled_width, scaled_height, gravity)
    crop = Box(left, top, out_width, out_height)
    return Plan(scaled_width, scaled_height, crop=crop, searched=gravity in {"attention", "entropy"})


def _contain(width: int, height: int, scale: Fraction, transform: Transform) -> Plan:
    scaled = _scaled(width, height, scale)
    canvas_width, canvas_height = transform.width or scaled.width, transform.height or scaled.height
    room_across, room_down = canvas_width - scaled.width, canvas_height - scaled.height
    if not room_across and not room_down:
        return scaled
    left, top = _placed(room_across, room_down, scaled.width, scaled.height, transform.gravity)
    return Plan(scaled.width, scaled.height, canvas=Box(left, top, canvas_width, canvas_height))


def _placed(room_across: int, room_down: int, width: int, height: int, gravity: Gravity) -> tuple[int, int]:
    """Return left and top within the room that is left over: 0 is flush left or top."""
    if isinstance(gravity, FocalPoint):
        # The focal point as near to the middle of the crop as the picture's edges allow.
        left = _half_up(Fraction(str(gravity.x)) * width - Fraction(width - room_across, 2))
        top = _half_up(Fraction(str(gravity.y)) * height - Fraction(height - room_down, 2))
        return min(max(left, 0), room_across), min(max(top, 0), room_down)
    left = 0 if "west" in gravity else room_across if "east" in gravity else room_across // 2
    top = 0 if "north" in gravity else room_down if "south" in gravity else room_down // 2
    return left, top


def _side(length: Fraction) -> int:
    return max(1, _half_up(length))


def _half_up(length: Fraction) -> int:
    # In whole numbers, so that it is the same on every machine, unlike round() on floats.
    return floor(length + Fraction(1, 2))
