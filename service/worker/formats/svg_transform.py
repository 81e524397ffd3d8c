"""The transforms of CSS (CSS Transforms 1 and 2) as values of the attribute `transform`, which librsvg reads."""

from __future__ import annotations

import math
from typing import NamedTuple

import tinycss2

from service.worker.formats.svg_css import Token, Tokens, split_at
from service.worker.formats.svg_values import Units, Unsupported, quantity_of, spelled

_ORIGIN_WORDS = {"left": 0.0, "top": 0.0, "center": 50.0, "right": 100.0, "bottom": 100.0}
_VERTICAL = frozenset({"top", "bottom"})


class Box(NamedTuple):
    """What percentages and the origin refer to, in units of the element's coordinate system."""

    left: float
    top: float
    width: float
    height: float


def functions(value: str, box: Box, units: Units, font_size: float) -> str | Unsupported | None:
    """Return the value of the property `transform` as an attribute, `None` if it is invalid, empty for `none`."""
    tokens = [token for token in tinycss2.parse_component_value_list(value, True) if token.type != "whitespace"]
    if len(tokens) == 1 and tokens[0].type == "ident":
        return "" if tokens[0].lower_value == "none" else None
    parts = []
    for token in tokens:
        if token.type != "function":
            return None
        part = _function(token, box, units, font_size)
        if not isinstance(part, str):
            return part
        parts.append(part)
    return " ".join(parts)


def individual(name: str, value: str, box: Box, units: Units, font_size: float) -> str | Unsupported | None:
    """Return a value of the properties `translate`, `rotate` and `scale` as an attribute (CSS Transforms 2 §5)."""
    tokens = [token for token in tinycss2.parse_component_value_list(value, True) if token.type != "whitespace"]
    if not tokens or (len(tokens) == 1 and tokens[0].type == "ident"):
        return "" if tokens and tokens[0].lower_value == "none" else None
    sides = (box.width, box.height)
    numbers = [_number(token, sides[index % 2], units, font_size) for index, token in enumerate(tokens)]
    if None in numbers or len(tokens) > 2:
        return Unsupported(f"Values of this kind of the property {name}", f"{name}: {value}")
    joined = " ".join(spelled(number) for number in numbers if number is not None)
    return f"{name}({joined})"


def origin(value: str, box: Box, units: Units, font_size: float) -> tuple[float, float] | None:
    """Return the point of a `transform-origin` relative to the origin of the coordinate system, `None` if it is invalid."""
    tokens = [token for token in tinycss2.parse_component_value_list(value, True) if token.type != "whitespace"][:2]
    words = [token.lower_value if token.type == "ident" else "" for token in tokens]
    if not tokens or any(word and word not in _ORIGIN_WORDS for word in words):
        return None
    if words[0] in _VERTICAL or (len(words) == 2 and words[1] in {"left", "right"}):
        tokens, words = tokens[::-1], words[::-1]
        if len(tokens) == 1:
            tokens, words = [None, *tokens], ["center", *words]
    if len(tokens) == 1:
        tokens, words = [*tokens, None], [*words, "center"]
    coordinates = []
    for token, word, start, side in zip(tokens, words, box[:2], box[2:], strict=True):
        number = _ORIGIN_WORDS[word] / 100 * side if word else _number(token, side, units, font_size)
        if number is None:
            return None
        coordinates.append(start + number)
    return coordinates[0], coordinates[1]


def around(transform: str, point: tuple[float, float]) -> str:
    """Return a transform about a point instead of the origin."""
    x, y = point
    if not transform or (not x and not y):
        return transform
    return f"translate({spelled(x)} {spelled(y)}) {transform} translate({spelled(-x)} {spelled(-y)})"


def _number(token: Token, side: float, units: Units, font_size: float) -> float | None:
    """Return a length in pixels, an angle in degrees, or a number."""
    quantity = quantity_of(token, units)
    if quantity is None:
        return None
    if quantity.unit == "%":
        return quantity.number / 100 * side
    if quantity.unit in {"em", "ex"}:
        return quantity.number * font_size / (2 if quantity.unit == "ex" else 1)
    return quantity.number


# Functions of three dimensions that may have an equivalent in two.
_FLAT = {"translatez": "", "rotatez": "rotate", "translate3d": "translate", "scale3d": "scale", "scalez": "", "perspective": ""}


def _function(token: Token, box: Box, units: Units, font_size: float) -> str | Unsupported | None:
    name = token.lower_name
    arguments: list[Tokens] = [[word for word in part if word.type != "whitespace"] for part in split_at(token.arguments, ",")]
    if len(arguments) == 1 and len(arguments[0]) > 1:
        # The syntax of the attribute, which has no commas.
        arguments = [[word] for word in arguments[0]]
    if any(len(part) != 1 for part in arguments):
        return None
    sides = (box.height,) if name == "translatey" else (box.width, box.height)
    numbers = [_number(part[0], sides[index % len(sides)], units, font_size) for index, part in enumerate(arguments)]
    if None in numbers:
        return None
    values = [number for number in numbers if number is not None]
    if name in _FLAT:
        if name != "rotatez" and not (name in {"translate3d", "scale3d"} and len(values) == 3 and values[2] in {0.0, 1.0}):
            is_flat = name in {"translatez", "scalez"}
            return "" if is_flat else _unsupported(token)
        name, values = _FLAT[name], values[:2]
    return _spelled_function(name, values, token)


def _spelled_function(name: str, values: list[float], token: Token) -> str | Unsupported | None:  # noqa: PLR0911 - one for each function
    match name, len(values):
        case ("matrix", 6) | ("translate", 1 | 2) | ("scale", 1 | 2) | ("rotate", 1 | 3):
            return f"{name}({' '.join(map(spelled, values))})"
        case ("translatex", 1):
            return f"translate({spelled(values[0])} 0)"
        case ("translatey", 1):
            return f"translate(0 {spelled(values[0])})"
        case ("scalex", 1):
            return f"scale({spelled(values[0])} 1)"
        case ("scaley", 1):
            return f"scale(1 {spelled(values[0])})"
        case ("skewx", 1) | ("skewy", 1):
            return f"{name[:4]}{name[4:].upper()}({spelled(values[0])})"
        case ("skew", 1 | 2):
            slopes = [math.tan(math.radians(value)) for value in (*values, 0.0)[:2]]
            return f"matrix(1 {spelled(slopes[1])} {spelled(slopes[0])} 1 0 0)"
        case ("matrix3d", 16) if values[2:4] + values[6:12] + values[14:] == [0, 0, 0, 0, 0, 0, 1, 0, 0, 1]:
            return f"matrix({' '.join(map(spelled, (*values[:2], *values[4:6], *values[12:14])))})"
        case ("matrix3d" | "rotatex" | "rotatey" | "rotate3d", _):
            return _unsupported(token)
        case _:
            return None


def _unsupported(token: Token) -> Unsupported:
    return Unsupported("Transforms in three dimensions", tinycss2.serialize([token]))
