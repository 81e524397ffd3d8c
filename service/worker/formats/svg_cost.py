"""The cost of drawing an SVG, estimated from the document without drawing it.

The model adds up nanoseconds of one core for librsvg and cairo, measured with those of libvips 8.18. Each constant is slightly above the
cost of the worst drawing of its kind, so the estimate errs on the high side: most drawings take a tenth of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise, starmap
from operator import sub
from typing import NamedTuple

# Estimates stop here: no drawing may cost more.
MAX_NANOSECONDS = 30e9

_ELEMENT = 15_000.0
# A point of a path, filled and stroked; a pixel of its length; and a pixel of the stroke's width at each joint.
_POINT = 7_000.0
_LENGTH = 1_500.0
_JOINT = 1_500.0
_DASH = 3_000.0
_MARKER = 6_000.0
# A character of any size; in addition for each pixel of its font size; and for each other character of its text, because the text is laid
# out as a whole.
_CHARACTER = 80_000.0
_CHARACTER_SIZE = 1_000.0
_CHARACTER_PAIR = 75.0
# A pixel that is filled, painted with a gradient or a pattern, blended as a layer, masked, filtered, or processed by a filter primitive.
_PIXEL = 1.5
_PAINTED_PIXEL = 30.0
_LAYER_PIXEL = 3.0
_BLENDED_PIXEL = 14.0
_MASKED_PIXEL = 20.0
_FILTERED_PIXEL = 15.0
_PRIMITIVE_PIXEL = 260.0
_BLURRED_PIXEL = 460.0
_LIT_PIXEL = 350.0
_DISPLACED_PIXEL = 1_700.0
# A pixel of each picture that is merged, of each octave of noise, and of each element of a convolution matrix or of the neighborhood that
# morphology searches. librsvg limits these numbers.
_MERGED_PIXEL = 150.0
_OCTAVE_PIXEL, _MAX_OCTAVES = 80.0, 10
_KERNEL_PIXEL, _MAX_KERNEL = 35.0, 400
_NEIGHBOR_PIXEL, _MAX_NEIGHBORS = 10.0, 600
# A pixel of an embedded picture, each time that it is drawn.
_EMBEDDED_PIXEL = 10.0

# The default font size in pixels (CSS `medium`).
_FONT_PIXELS = 16.0

_PATH = re.compile(r"([A-DF-Za-df-z])([^A-DF-Za-df-z]*)")
# Commands that are followed by anything but absolute points, and commands whose points describe curves.
_MIXED = re.compile(r"[a-df-yAHV]")
_CURVES = re.compile(r"[CSQT]")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")
_TRANSFORM = re.compile(r"([a-zA-Z]+)\s*\(([^)]*)\)")
# For lengths and areas that cannot be determined: calculations limit them to the canvas.
_ENDLESS = 1e9

_LAYERS = (
    ("opacity", re.compile(r"(?!1(?:\.0*)?$)"), _LAYER_PIXEL),
    ("mix-blend-mode", re.compile(r"(?!normal)"), _BLENDED_PIXEL),
    ("isolation", re.compile(r"(?!auto)"), _BLENDED_PIXEL),
    ("mask", re.compile(r"(?!none)"), _MASKED_PIXEL),
)

# The default filter region (Filter Effects 1 §8), without the pixel at each side that librsvg would add by rounding outwards.
DEFAULT_FILTER_REGION = {"x": "-0.0999", "y": "-0.0999", "width": "1.1998", "height": "1.1998"}

_SHAPES = frozenset({"path", "polyline", "polygon", "line"})
_VIEWPORTS = frozenset({"svg", "symbol", "marker", "pattern"})
# CSS length unit → pixels (CSS 2.1 §4.3.2).
UNIT_PIXELS = {"": 1.0, "px": 1.0, "pt": 4 / 3, "pc": 16.0, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0}
_SIZED = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)(px|pt|pc|mm|cm|in|em|ex|rem|%|)")


# Paths with more points in total are refused, because they cost more than any drawing may.
MAX_POINTS = 700_000


class Inherited(NamedTuple):
    """Properties that children inherit, in pixels of the element's own coordinate system.

    dash: the period of the dash pattern, infinite for a solid stroke.
    """

    stroke_width: float = 1.0
    font: float = _FONT_PIXELS
    dash: float = math.inf


class Element:
    """The properties of an element that determine its cost.

    children, references: the elements drawn with it, the latter by id.
    characters, embedded_pixels: of its text, and of its embedded picture.
    inherited: passed on to its children.
    scale: the largest factor of its `transform`.
    view_box, size: width and height of its view box and of the element itself; the scale of its content is their ratio.
    scales_to_box: whether a unit of its content is the bounding box of the element that refers to it.
    points, length, area: of its outline, in its own units.
    is_painted: whether a gradient or pattern fills it. has_markers: whether its points have markers.
    layer_cost: for each pixel of the canvas, because it is drawn as a layer.
    has_filter_region: whether it is a filter with a region of its own.
    primitive_cost: of a filter primitive, for each pixel. radii: of the neighborhood that morphology searches, in its own units.
    """

    def __init__(self, tag: str, attributes: Mapping[str, str], inherited: Inherited) -> None:
        """Read the attributes of an element. Children, references, characters and embedded pixels are added by the sanitizer.

        tag: local name.
        attributes: sanitized.
        inherited: from the parent.
        """
        self.tag = tag
        self.children: list[Element] = []
        self.references: list[str] = []
        self.characters = 0
        self.embedded_pixels = 0
        fonts = [*_lengths(attributes.get("font", ""), inherited.font), *_lengths(attributes.get("font-size", ""), inherited.font)]
        self.inherited = Inherited(
            max(_lengths(attributes.get("stroke-width", "")), default=inherited.stroke_width),
            max(fonts, default=inherited.font),
            _dash_period(attributes["stroke-dasharray"]) if "stroke-dasharray" in attributes else inherited.dash,
        )
        self.scale = _scale(attributes.get("transform", ""))
        self.view_box = _view_box(attributes) if tag in _VIEWPORTS else None
        self.size = _side(attributes, "width", "markerWidth"), _side(attributes, "height", "markerHeight")
        self.scales_to_box = any(
            attributes.get(name) == "objectBoundingBox" for name in ("patternContentUnits", "maskContentUnits", "clipPathUnits")
        )
        self.points, self.length, self.area = _shape(tag, attributes)
        self.is_painted = any("url(" in attributes.get(name, "") for name in ("fill", "stroke"))
        self.layer_cost = sum(pixel for name, pattern, pixel in _LAYERS if name in attributes and pattern.match(attributes[name]))
        region = {name: attributes[name] for name in ("x", "y", "width", "height") if name in attributes}
        self.has_filter_region = tag == "filter" and bool(region) and region != DEFAULT_FILTER_REGION
        self.has_markers = "marker-mid" in attributes
        self.primitive_cost = _primitive_cost(tag, attributes)
        self.radii = _radii(attributes) if tag == "feMorphology" else (0.0, 0.0)
        self.has_relative_units = attributes.get("primitiveUnits") == "objectBoundingBox"


def _primitive_cost(tag: str, attributes: Mapping[str, str]) -> float:
    """Return the cost of a filter primitive for each pixel, without what its children and radii add to it."""
    match tag:
        case "feGaussianBlur" | "feDropShadow":
            return _BLURRED_PIXEL
        case "feDiffuseLighting" | "feSpecularLighting":
            return _LIT_PIXEL
        case "feDisplacementMap":
            return _DISPLACED_PIXEL
        case "feTurbulence":
            octaves = max(_lengths(attributes.get("numOctaves", "1")), default=1.0)
            return _PRIMITIVE_PIXEL + _OCTAVE_PIXEL * min(octaves, _MAX_OCTAVES)
        case "feConvolveMatrix":
            order = [*_lengths(attributes.get("order", "3")), 3.0]
            return _PRIMITIVE_PIXEL + _KERNEL_PIXEL * min(order[0] * order[-2], _MAX_KERNEL)
        case _:
            return _PRIMITIVE_PIXEL


def _radii(attributes: Mapping[str, str]) -> tuple[float, float]:
    radii = list(_lengths(attributes.get("radius", "0")))[:2] or [0.0]
    return radii[0], radii[-1]


def _lengths(value: str, relative_to: float = _FONT_PIXELS) -> Iterator[float]:
    """Yield the lengths in a value, in pixels.

    relative_to: the font size in pixels that `em` and `%` refer to.
    """
    for number, unit in _SIZED.findall(value):
        factor = UNIT_PIXELS.get(unit, relative_to / (100 if unit == "%" else 1))
        yield abs(float(number)) * factor


def _dash_period(value: str) -> float:
    """Return the length in pixels after which a dash pattern repeats, infinite for none."""
    return sum(float(number) * UNIT_PIXELS.get(unit, 0.01) for number, unit in _SIZED.findall(value)) or math.inf


def _side(attributes: Mapping[str, str], *names: str) -> float:
    """Return the length in pixels of the first of the attributes that is present, 0 for none, `_ENDLESS` if it is not absolute."""
    value = next((attributes[name].strip() for name in names if name in attributes), "")
    match = _SIZED.fullmatch(value)
    if match is None:
        return _ENDLESS if value else 0.0
    return abs(float(match[1])) * UNIT_PIXELS.get(match[2], _ENDLESS)


def _view_box(attributes: Mapping[str, str]) -> tuple[float, float] | None:
    """Return the width and height of a valid view box, otherwise `None`."""
    box = [float(number) for number in _NUMBER.findall(attributes.get("viewBox", ""))]
    return (box[2], box[3]) if len(box) == 4 and min(box[2], box[3]) > 0 else None


def _scale(transform: str) -> float:
    """Return the largest factor by which a list of transforms (CSS Transforms 1 §13) may lengthen a line."""
    scale = 1.0
    for name, arguments in _TRANSFORM.findall(transform):
        numbers = [float(number) for number in _NUMBER.findall(arguments)]
        match name.lower():
            case "matrix":
                scale *= math.hypot(*numbers[:4])
            case "scale" | "scalex" | "scaley":
                scale *= max((abs(number) for number in numbers), default=1.0)
            case "skewx" | "skewy" | "skew":
                scale *= 1 + sum(abs(math.tan(math.radians(number))) for number in numbers)
            case _:
                pass
    return scale


def _shape(tag: str, attributes: Mapping[str, str]) -> tuple[float, float, float]:
    """Return the number of points of an element's outline, its length, and the area of its bounding box, in the element's own units."""
    if tag in {"rect", "image"}:
        width, height = _side(attributes, "width"), _side(attributes, "height")
        return 4, 2 * (width + height), width * height
    if tag in {"circle", "ellipse"}:
        x_radius, y_radius = _side(attributes, "r", "rx"), _side(attributes, "r", "ry")
        return 16, 4 * (x_radius + y_radius), 4 * x_radius * y_radius
    if tag not in _SHAPES:
        return 0, 0, 0
    if tag == "line":
        return 2, 2 * _ENDLESS, 0
    if tag == "path":
        return _outline(attributes.get("d", ""))
    return _outline(f"M{attributes.get('points', '')}")


# Path command → how many numbers each of its segments has (SVG 2 §9.3).
_SEGMENT_NUMBERS = {"m": 2, "l": 2, "t": 2, "c": 6, "s": 4, "q": 4, "a": 7, "h": 1, "v": 1}


_COMMANDS = "".join(kind + kind.upper() for kind in _SEGMENT_NUMBERS)


def count_commands(path: str) -> int:
    """Return the number of commands in a path, which is a lower limit of its points, without parsing it."""
    return sum(map(path.count, _COMMANDS))


def _outline(path: str) -> tuple[float, float, float]:
    """Return the points, length and area of a path, as `_shape` does, from its control points.

    The length is that of the control polygon, horizontal and vertical distances added.
    """
    if path.count("M") == 1 and not _MIXED.search(path):
        numbers = list(map(float, _NUMBER.findall(path)))
        xs, ys = numbers[::2], numbers[1::2]
        length = sum(map(abs, starmap(sub, pairwise(xs)))) + sum(map(abs, starmap(sub, pairwise(ys))))
        box = (max(xs, default=0) - min(xs, default=0)) * (max(ys, default=0) - min(ys, default=0))
        return len(xs) * (2 if _CURVES.search(path) else 1), 2 * length, box
    points, length = 0, 0.0
    x = y = 0.0
    left = top = math.inf
    right = bottom = -math.inf
    for command, arguments in _PATH.findall(path):
        kind = command.lower()
        size = _SEGMENT_NUMBERS.get(kind)
        numbers = list(map(float, _NUMBER.findall(arguments)))
        if size is None or not numbers:
            points += 1
            continue
        points += -(-len(numbers) // size) * (1 if size <= 2 else 4)
        relative = command != kind.upper()
        xs, ys = numbers[::2], numbers[1::2]
        if kind == "a":
            length += 7 * sum(map(abs, numbers[::7])) + 7 * sum(map(abs, numbers[1::7]))
            xs, ys = numbers[5::7], numbers[6::7]
        elif kind in {"h", "v"}:
            xs, ys = (numbers, []) if kind == "h" else ([], numbers)
        if kind == "m":
            # Moving draws no line.
            length -= abs(xs[0] - (0 if relative else x)) + abs((ys or [y])[0] - (0 if relative else y))
        if relative:
            length += sum(map(abs, xs)) + sum(map(abs, ys))
            step = 1 if size <= 2 or kind == "a" else size // 2
            x, y = x + sum(xs[step - 1 :: step]), y + sum(ys[step - 1 :: step])
            reach = max(map(abs, numbers)) * len(numbers)
            left, right, top, bottom = min(left, x - reach), max(right, x + reach), min(top, y - reach), max(bottom, y + reach)
        else:
            length += sum(map(abs, starmap(sub, pairwise([x, *xs])))) + sum(map(abs, starmap(sub, pairwise([y, *ys]))))
            x, y = (xs or [x])[-1], (ys or [y])[-1]
            left, right = min(left, *xs, x), max(right, *xs, x)
            top, bottom = min(top, *ys, y), max(bottom, *ys, y)
    # Twice the length, because a filled path is closed.
    return points, 2 * length, min(length * length, max(0.0, right - left) * max(0.0, bottom - top))


class Cost:
    """Estimates the cost of a document that has been parsed completely."""

    def __init__(self, root: Element, ids: Mapping[str, Element]) -> None:
        """Collect all elements.

        ids: elements by id.
        """
        self._root = root
        self._ids = ids
        self._elements: list[Element] = []
        self._collect(root)
        self._max_stroke_width = max((element.inherited.stroke_width for element in self._elements), default=1.0)
        self._largest_use = max((max(element.size) for element in self._elements if element.tag == "use"), default=0.0)
        self._canvas_sides = self._canvas_pixels = 0.0
        self._tiles = 1
        self._costs: dict[tuple[int, float], float] = {}
        self._in_progress: set[int] = set()

    def nanoseconds(self, width: float, height: float, scale: float = 1.0) -> float:
        """Return the estimated cost of drawing the document, or some number above `MAX_NANOSECONDS` if it exceeds that.

        width, height: of the canvas, in pixels.
        scale: of the document, relative to its own size.
        """
        self._canvas_sides, self._canvas_pixels = width + height, width * height
        # libvips draws in tiles of 2000 × 2000 pixels. librsvg processes the whole document for each, and all pixels of layers and filters.
        self._tiles = math.ceil(width / 2_000) * math.ceil(height / 2_000)
        self._costs.clear()
        return self._drawing(self._root, scale)

    def _collect(self, element: Element) -> None:
        self._elements.append(element)
        for child in element.children:
            self._collect(child)

    def _drawing(self, element: Element, scale: float) -> float:
        """Return the cost of drawing an element with its children and references.

        scale: pixels per unit of the parent's coordinate system.
        """
        key = id(element), scale
        if key in self._costs:
            return self._costs[key]
        if id(element) in self._in_progress:
            # librsvg does not draw circular references, but it draws the elements that lead to one.
            return 0.0
        self._in_progress.add(id(element))
        inner = self._inner_scale(element, scale)
        total = self._own(element, inner)
        for child in element.children:
            if total > MAX_NANOSECONDS:
                break
            total += self._drawing(child, inner)
        for name in element.references:
            if name in self._ids and total <= MAX_NANOSECONDS:
                total += self._reference(element, self._ids[name], inner)
        self._in_progress.discard(id(element))
        self._costs[key] = total
        return total

    def _inner_scale(self, element: Element, scale: float) -> float:
        inner = scale * element.scale
        if element.view_box is not None:
            # A symbol takes the size of the `use` element that draws it.
            use_size = self._largest_use if element.tag == "symbol" else 0.0
            inner *= max(
                (max(side, use_size) or self._canvas_sides) / box for side, box in zip(element.size, element.view_box, strict=True)
            )
        if element.tag == "marker":
            inner *= self._max_stroke_width
        if element.scales_to_box:
            inner *= self._canvas_sides
        return min(max(inner, 1e-6), _ENDLESS)

    def _reference(self, element: Element, target: Element, scale: float) -> float:
        # Scales are rounded up to powers of four, so that few different costs are computed for each element.
        rounded = 4.0 ** math.ceil(math.log(scale, 4))
        once = self._drawing(target, rounded)
        if target.tag == "marker" and element.points:
            return (_MARKER + once) * (element.points if element.has_markers else 2)
        if target.tag == "filter":
            # The default filter region exceeds the element's bounding box by a tenth on each side.
            is_small = not element.children and element.points and not target.has_filter_region
            region = min(self._canvas_pixels, 2 * element.area * scale * scale) if is_small else self._canvas_pixels
            return once + (_FILTERED_PIXEL * self._canvas_pixels + self._primitives(target, scale) * region) * self._tiles
        return once

    @staticmethod
    def _primitives(element: Element, scale: float) -> float:
        """Return the cost of all primitives of a filter for each pixel.

        scale: pixels per unit of the coordinate system of the element that it is applied to.
        """
        if element.tag != "filter":
            return 0.0
        total = 0.0
        for child in element.children:
            total += child.primitive_cost + _MERGED_PIXEL * len(child.children)
            if child.tag == "feMorphology":
                neighbors = math.prod(2 * radius * (_ENDLESS if element.has_relative_units else scale) + 1 for radius in child.radii)
                total += _NEIGHBOR_PIXEL * min(neighbors, _MAX_NEIGHBORS)
        return total

    def _own(self, element: Element, scale: float) -> float:
        length = min(element.length * scale, element.points * self._canvas_sides)
        area = min(element.area * scale * scale, self._canvas_pixels)
        total = _ELEMENT + element.points * _POINT + length * _LENGTH
        if element.points > 4:
            width = element.inherited.stroke_width * scale
            total += element.points * min(width, self._canvas_sides) * _JOINT
        dash = element.inherited.dash
        total += min(element.length / dash, _ENDLESS) * _DASH if dash < math.inf else 0.0
        font = element.inherited.font * scale
        total += element.characters * (_CHARACTER + min(font, self._canvas_sides) * _CHARACTER_SIZE + element.characters * _CHARACTER_PAIR)
        total += element.layer_cost * self._canvas_pixels + element.embedded_pixels * _EMBEDDED_PIXEL
        return total * self._tiles + area * (_PAINTED_PIXEL if element.is_painted else _PIXEL)
