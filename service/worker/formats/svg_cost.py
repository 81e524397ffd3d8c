"""SVG: what it costs to draw a document, as far as librsvg's and cairo's time can be told from it without drawing.

An additive model in nanoseconds of one core, measured with the librsvg and cairo of libvips 8.18: each constant below is a little above
what the worst drawing of its kind took. It errs on the dear side: most drawings take a tenth of their estimate.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise, starmap
from operator import sub
from typing import NamedTuple

# Beyond this a sum is not carried on: nothing may cost so much.
MAX_NANOSECONDS = 30e9

_ELEMENT = 15_000.0
# A selector matched with an element, or one more element looked at for its combinators.
_MATCH = 45.0
# To read a selector, here and where it is drawn, however few elements there are.
_SELECTOR = 50_000.0
# A declaration that is laid on an element.
_DECLARATION = 100.0
# A point of a path, filled and stroked; a pixel of its length, and of the stroke's width at a joint.
_POINT = 7_000.0
_LENGTH = 1_500.0
_JOINT = 1_500.0
_DASH = 3_000.0
_MARKER = 6_000.0
# A character, whatever its size, and for each pixel of that; and for each other one of its run, because the text is laid out as a whole.
_CHARACTER = 80_000.0
_CHARACTER_SIZE = 1_000.0
_CHARACTER_PAIR = 75.0
# A pixel filled, with a gradient or a pattern, blended as a layer, masked, filtered, looked at by one primitive of a filter.
_PIXEL = 1.5
_PAINTED_PIXEL = 30.0
_LAYER_PIXEL = 2.0
_BLENDED_PIXEL = 14.0
_MASKED_PIXEL = 20.0
_FILTERED_PIXEL = 15.0
_PRIMITIVE_PIXEL = 180.0
_BLURRED_PIXEL = 460.0
# A pixel of an embedded picture, each time that it is drawn.
_EMBEDDED_PIXEL = 10.0

# A font of this size is drawn as few curves; beyond the canvas nothing is.
_FONT_PIXELS = 16.0

_PATH = re.compile(r"([A-DF-Za-df-z])([^A-DF-Za-df-z]*)")
# Commands that are not followed by absolute points alone, and those whose points stand for curves.
_MIXED = re.compile(r"[a-df-yAHV]")
_CURVES = re.compile(r"[CSQT]")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")
_TRANSFORM = re.compile(r"([a-zA-Z]+)\s*\(([^)]*)\)")
# Points and sides of a shape that nobody can tell: as large as the canvas.
_ENDLESS = 1e9

# Attributes that are declarations (SVG 2 §6.6), as far as they matter here.
_PRESENTATION = frozenset({"stroke-width", "font", "font-size", "stroke-dasharray", "opacity", "mix-blend-mode", "isolation"}) | frozenset(
    {"mask", "filter", "marker", "marker-mid", "fill", "stroke"}
)

# CSS (CSS Syntax Level 3 §4.3): a comment, or a string.
_CSS_TOKEN = re.compile(r"/\*.*?(?:\*/|\Z)|\"[^\"\n\r\f]*\"|'[^'\n\r\f]*'", re.DOTALL)
_RULE = re.compile(r"([^{}]*)\{([^{}]*)")
# Where one simple selector follows another, or a combinator stands between two.
_ANOTHER = re.compile(r"[\w\])*-](?=[.#:\[])")
_CLIMB, _WALK = re.compile(r"[^\s,>+~][\s]+[^\s,>+~]|>"), re.compile(r"[~+]|:(?:nth|first|last|only)")
_SUBJECT = re.compile(r"(?:^|[\s>+~])([\w-]*)((?:[.#][\w-]+)*)(?:[:\[].*)?$", re.DOTALL)
_WIDTHS, _FONTS, _DASHES = (
    re.compile(rf"(?<![\w-]){name}\s*[:=]\s*([^;{{}}]*)") for name in ("stroke-width", r"font(?:-size)?", "stroke-dasharray")
)
_GEOMETRY = re.compile(r"(?<![\w-])(?:transform|translate|scale|rotate|width|height|r|rx|ry|d)\s*:")
_LAYERS: tuple[tuple[re.Pattern[str], float], ...] = (
    (re.compile(r"(?<![\w-])opacity\s*:\s*(?!1(?:\.0*)?\s*(?:;|$|\}))"), _LAYER_PIXEL),
    (re.compile(r"mix-blend-mode\s*:|isolation\s*:"), _BLENDED_PIXEL),
    (re.compile(r"(?<![\w-])mask\s*:"), _MASKED_PIXEL),
)
_FILTER = re.compile(r"(?<![\w-])filter\s*:")
_PAINTED = re.compile(r"(?<![\w-])(?:fill|stroke)\s*:\s*url\(")
_MARKERS = re.compile(r"(?<![\w-])marker(?:-mid)?\s*:")

_SHAPES = frozenset({"path", "polyline", "polygon", "line"})
_VIEWPORTS = frozenset({"svg", "symbol", "marker", "pattern"})
_BLURS = frozenset({"feGaussianBlur", "feDropShadow"})
_UNIT_PIXELS = {"": 1.0, "px": 1.0, "pt": 4 / 3, "pc": 16.0, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0}
_SIZED = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)(px|pt|pc|mm|cm|in|em|ex|rem|%|)")


# More points than these cost more than anything may.
MAX_POINTS = 700_000


class Inherited(NamedTuple):
    """What an element hands down: the width of strokes, the size of its font, in pixels of its own."""

    stroke_width: float = 1.0
    font: float = _FONT_PIXELS
    dash: float = math.inf


class Element:
    """What is needed of an element to know what it costs: its own work in its own units, and what is drawn with it."""

    def __init__(self, tag: str, attributes: Mapping[str, str], inherited: Inherited) -> None:
        """Take the local name, the attributes, and what is handed down to it."""
        self.tag = tag
        self.children: list[Element] = []
        self.references: list[str] = []
        self.characters = 0
        self.embedded_pixels = 0
        style = attributes.get("style", "")
        declared = _declarations(attributes, style)
        self.inherited = Inherited(
            max(_numbers(_WIDTHS, declared), default=inherited.stroke_width),
            max(_numbers(_FONTS, declared, relative_to=inherited.font), default=inherited.font),
            min((_period(match) for match in _DASHES.findall(declared)), default=inherited.dash),
        )
        self.scale = _scale(attributes.get("transform", "")) * (_scale(style) if "transform" in style else 1.0)
        self.view_box = _view_box(attributes) if tag in _VIEWPORTS else None
        self.size = _side(attributes, "width", "markerWidth"), _side(attributes, "height", "markerHeight")
        self.to_box = any(
            attributes.get(name) == "objectBoundingBox" for name in ("patternContentUnits", "maskContentUnits", "clipPathUnits")
        )
        self.points, self.length, self.area = _shape(tag, attributes)
        if _GEOMETRY.search(style):
            self.area = _ENDLESS
        self.painted = bool(_PAINTED.search(declared))
        self.layers = sum(pixel for pattern, pixel in _LAYERS if pattern.search(declared))
        self.filtered = bool(_FILTER.search(declared))
        self.filters_region = tag == "filter" and bool({"x", "y", "width", "height"} & attributes.keys())
        self.marked = bool(_MARKERS.search(declared))
        self.classes = attributes.get("class", "").split()
        self.id = attributes.get("id", "")


def _declarations(attributes: Mapping[str, str], style: str) -> str:
    """Return presentation attributes as the declarations that they are (SVG 2 §6.6), and those of a style."""
    return "".join(f"{name}:{value};" for name, value in attributes.items() if name in _PRESENTATION) + style


def _numbers(pattern: re.Pattern[str], css: str, relative_to: float = _FONT_PIXELS) -> Iterator[float]:
    """Yield the lengths of a property, in pixels; of a font's relative ones, of the size that is given."""
    for value in pattern.findall(css):
        for number, unit in _SIZED.findall(value):
            factor = _UNIT_PIXELS.get(unit, relative_to / (100 if unit == "%" else 1))
            yield abs(float(number)) * factor


def _period(value: str) -> float:
    return sum(float(number) * _UNIT_PIXELS.get(unit, 0.01) for number, unit in _SIZED.findall(value)) or math.inf


def _side(attributes: Mapping[str, str], *names: str) -> float:
    value = next((attributes[name].strip() for name in names if name in attributes), "")
    match = _SIZED.fullmatch(value)
    if match is None:
        return _ENDLESS if value else 0.0
    return abs(float(match[1])) * _UNIT_PIXELS.get(match[2], _ENDLESS)


def _view_box(attributes: Mapping[str, str]) -> tuple[float, float] | None:
    """Return width and height of a view box, `None` where there is none."""
    box = [float(number) for number in _NUMBER.findall(attributes.get("viewBox", ""))]
    return (box[2], box[3]) if len(box) == 4 and min(box[2], box[3]) > 0 else None


def _scale(transform: str) -> float:
    """Return how much longer a line may become by a list of transforms (CSS Transforms §13), at most."""
    scale = 1.0
    for name, inside in _TRANSFORM.findall(transform):
        numbers = [float(number) for number in _NUMBER.findall(inside)]
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
    """Return how many points the outline of an element has, how long it is, and the area of the box around it, in its own units."""
    if tag in {"rect", "image"}:
        width, height = _side(attributes, "width"), _side(attributes, "height")
        return 4, 2 * (width + height), width * height
    if tag in {"circle", "ellipse"}:
        across, down = _side(attributes, "r", "rx"), _side(attributes, "r", "ry")
        return 16, 4 * (across + down), 4 * across * down
    if tag not in _SHAPES:
        return 0, 0, 0
    if tag == "line":
        return 2, 2 * _ENDLESS, 0
    if tag == "path":
        return _outline(attributes.get("d", ""))
    return _outline(f"M{attributes.get('points', '')}")


# Command → how many numbers each segment has, and which of them are coordinates: pairs of x and y.
_SEGMENT = {"m": 2, "l": 2, "t": 2, "c": 6, "s": 4, "q": 4, "a": 7, "h": 1, "v": 1}


def commands(path: str) -> int:
    """Return how many points a path has at least, for little."""
    return sum(map(path.count, _COMMANDS))


_COMMANDS = "".join(kind + kind.upper() for kind in _SEGMENT)


def _outline(path: str) -> tuple[float, float, float]:
    """Return the same of a path (SVG 2 §9.3): the length of its control polygon, about, across and down together."""
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
    for command, inside in _PATH.findall(path):
        kind = command.lower()
        size = _SEGMENT.get(kind)
        numbers = list(map(float, _NUMBER.findall(inside)))
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
            # What is moved over is not drawn.
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
    # It ends where it began, if it is filled.
    return points, 2 * length, min(length * length, max(0.0, right - left) * max(0.0, bottom - top))


def without_comments(css: str) -> str:
    """Return a style sheet without its comments, so that what is counted in it is what is read of it."""
    return _CSS_TOKEN.sub(lambda token: " " if token[0].startswith("/*") else token[0], css)


class Cost:
    """The cost of a document whose elements are all known."""

    def __init__(self, root: Element, ids: Mapping[str, Element], css: str) -> None:
        """Take the root, its elements by id, and all style sheets without comments."""
        self._root = root
        self._ids = ids
        # A string may hold anything.
        self._css = _CSS_TOKEN.sub('""', css)
        self._elements: list[Element] = []
        self._depth = self._siblings = 1
        self._collect(root, 1)
        self._width = max(_numbers(_WIDTHS, self._css), default=0.0)
        self._font = max(_numbers(_FONTS, self._css), default=0.0)
        self._dash = min((_period(value) for value in _DASHES.findall(self._css)), default=math.inf)
        self._moved = bool(_GEOMETRY.search(self._css))
        self._painted = bool(_PAINTED.search(self._css))
        self._widest = max((element.inherited.stroke_width for element in self._elements), default=1.0)
        self._used = max((max(element.size) for element in self._elements if element.tag == "use"), default=0.0)
        self._matched: tuple[float, float] | None = None
        self._sides = self._canvas = 0.0
        self._tiles = 1
        self._known: dict[tuple[int, float], float] = {}
        self._on_the_way: set[int] = set()

    def nanoseconds(self, width: float, height: float, scale: float = 1.0) -> float:
        """Return the estimate for a canvas of so many pixels, on which the document is `scale` times its own size.

        Beyond `MAX_NANOSECONDS` it may be anything above.
        """
        self._sides, self._canvas = width + height, width * height
        # libvips draws in tiles of 2000 pixels a side, and the whole document for each.
        self._tiles = math.ceil(width / 2_000) * math.ceil(height / 2_000)
        self._known.clear()
        if self._matched is None:
            self._matched = self._matching()
        fixed, layered = self._matched
        total = fixed + layered * self._canvas
        return total if total > MAX_NANOSECONDS else total + self._drawing(self._root, scale)

    def _collect(self, element: Element, depth: int) -> None:
        self._elements.append(element)
        self._depth = max(self._depth, depth)
        self._siblings = max(self._siblings, len(element.children))
        for child in element.children:
            self._collect(child, depth + 1)

    def _matching(self) -> tuple[float, float]:
        """Return what it costs to find which rules are for which elements, and what those with a layer of their own add for each pixel.

        Beyond `MAX_NANOSECONDS` either may be anything above.
        """
        fixed, layered = (self._css.count(",") + self._css.count("{")) * _SELECTOR, 0.0
        if fixed > MAX_NANOSECONDS:
            return fixed, layered
        everything = sum(1 + sum(map(len, element.classes)) / 8 for element in self._elements)
        names = Counter(element.tag for element in self._elements)
        names.update(f".{name}" for element in self._elements for name in set(element.classes))
        names.update(f"#{element.id}" for element in self._elements)
        filters = sum(self._primitives(element) for element in self._elements)
        for prelude, block in _RULE.findall(self._css):
            selected = 0
            for selector in prelude.split(","):
                candidates = self._candidates(selector.strip(), names)
                selected += candidates
                walks = len(_CLIMB.findall(selector)) * self._depth + len(_ANOTHER.findall(selector))
                walks += len(_WALK.findall(selector)) * self._siblings * (self._depth if walks else 1)
                fixed += (everything + candidates * walks) * _MATCH
            fixed += selected * (block.count(";") + 1) * _DECLARATION
            layers = sum(pixel for pattern, pixel in _LAYERS if pattern.search(block))
            layers += _FILTERED_PIXEL + filters if _FILTER.search(block) else 0
            layered += selected * layers
            if max(fixed, layered) > MAX_NANOSECONDS:
                break
        return fixed, layered

    def _candidates(self, selector: str, names: Counter[str]) -> int:
        """Return how many elements the last compound of a selector may stand for."""
        match = _SUBJECT.search(selector)
        if match is None:
            return len(self._elements)
        simple = re.findall(r"[.#][\w-]+", match[2]) + ([match[1]] if match[1] else [])
        return min((names[name] for name in simple), default=len(self._elements))

    def _drawing(self, element: Element, scale: float) -> float:
        """Return what it costs to draw an element whose parent's unit has so many pixels, at most."""
        key = id(element), scale
        if key in self._known:
            return self._known[key]
        if id(element) in self._on_the_way:
            # A circle is not drawn by librsvg; what leads to it is.
            return 0.0
        self._on_the_way.add(id(element))
        inner = self._inner_scale(element, scale)
        total = self._own(element, inner)
        for child in element.children:
            if total > MAX_NANOSECONDS:
                break
            total += self._drawing(child, inner)
        for name in element.references:
            if name in self._ids and total <= MAX_NANOSECONDS:
                total += self._referred(element, self._ids[name], inner)
        self._on_the_way.discard(id(element))
        self._known[key] = total
        return total

    def _inner_scale(self, element: Element, scale: float) -> float:
        inner = scale * element.scale
        if element.view_box is not None:
            # A symbol is as large as what uses it.
            most = self._used if element.tag == "symbol" else 0.0
            inner *= max((max(side, most) or self._sides) / box for side, box in zip(element.size, element.view_box, strict=True))
        if element.tag == "marker":
            inner *= max(self._widest, self._width)
        if element.to_box:
            inner *= self._sides
        return min(max(inner, 1e-6), _ENDLESS)

    def _referred(self, element: Element, target: Element, scale: float) -> float:
        # Few different scales, so that each thing is looked at few times.
        rounded = 4.0 ** math.ceil(math.log(scale, 4))
        once = self._drawing(target, rounded)
        if target.tag == "marker" and element.points:
            return (_MARKER + once) * (element.points if element.marked else 2)
        if target.tag == "filter":
            # Where its region is what it is by default, it is a tenth wider than what it is for.
            small = not element.children and element.points and not target.filters_region
            region = min(self._canvas, 2 * element.area * scale * scale) if small else self._canvas
            return once + _FILTERED_PIXEL * self._canvas + self._primitives(target) * region
        return once

    @staticmethod
    def _primitives(element: Element) -> float:
        if element.tag != "filter":
            return 0.0
        return sum(_BLURRED_PIXEL if child.tag in _BLURS else _PRIMITIVE_PIXEL for child in element.children)

    def _own(self, element: Element, scale: float) -> float:
        length = min(element.length * scale, element.points * self._sides)
        area = self._canvas if self._moved and element.points else min(element.area * scale * scale, self._canvas)
        total = _ELEMENT + element.points * _POINT + length * _LENGTH
        if element.points > 4:
            width = max(element.inherited.stroke_width, self._width) * scale
            total += element.points * min(width, self._sides) * _JOINT
        dash = min(element.inherited.dash, self._dash)
        total += min(element.length / dash, _ENDLESS) * _DASH if dash < math.inf else 0.0
        font = max(element.inherited.font, self._font) * scale
        total += element.characters * (_CHARACTER + min(font, self._sides) * _CHARACTER_SIZE + element.characters * _CHARACTER_PAIR)
        total *= self._tiles
        total += area * (_PAINTED_PIXEL if element.painted or self._painted else _PIXEL)
        return total + element.layers * self._canvas + element.embedded_pixels * _EMBEDDED_PIXEL
