"""The values of SVG properties: those of CSS, as browsers read them, in the words that librsvg reads.

librsvg knows fewer units, colors and functions than browsers. Each value is turned into one that it knows, found invalid, as CSS defines
it, or found unsupported: then a drawing that uses it is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import tinycss2
import tinycss2.color5

from service.worker.formats.svg_css import Declaration, Token, Tokens, split_at, url_of
from service.worker.formats.svg_tree import word_set


class Unsupported(NamedTuple):
    """A value that browsers draw and librsvg does not.

    feature: what it is, in the plural.
    """

    feature: str
    value: str


# The value in librsvg's words, `None` if it is invalid.
Value: TypeAlias = str | Unsupported | None


class Units(NamedTuple):
    """What relative units refer to, in pixels.

    width, height: of the document. root_font: the font size of its root element.
    """

    width: float
    height: float
    root_font: float = 16.0


_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"
_SIMPLE_LENGTH = re.compile(rf"{_NUMBER}(?:px|pt|pc|mm|cm|in|em|ex|%)?", re.IGNORECASE)
_SIMPLE_NUMBER = re.compile(_NUMBER)
_SIMPLE_COLOR = re.compile(r"#(?:[0-9a-fA-F]{3,4}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})")
_IDENT = re.compile(r"-?[a-zA-Z][a-zA-Z-]*")
_WORD = re.compile(r"[A-Za-z0-9 _-]*")

WIDE_KEYWORDS = frozenset({"inherit", "initial", "unset", "revert", "revert-layer"})

# CSS unit → pixels, for lengths that librsvg does not know or that are calculated.
_PIXELS = {"px": 1.0, "pt": 4 / 3, "pc": 16.0, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0, "q": 96 / 101.6}
_KNOWN_UNITS = frozenset({"px", "pt", "pc", "mm", "cm", "in", "em", "ex"})
_DEGREES = {"deg": 1.0, "grad": 0.9, "rad": 180 / math.pi, "turn": 360.0}
_CALCULATIONS = frozenset({"calc", "-webkit-calc", "min", "max", "clamp"})

# System colors (CSS Color 4 §6.2) as Chromium has them in the light color scheme.
_SYSTEM_COLORS = {
    "canvas": "#ffffff",
    "canvastext": "#000000",
    "linktext": "#0000ee",
    "visitedtext": "#551a8b",
    "activetext": "#ff0000",
    "buttonface": "#efefef",
    "buttontext": "#000000",
    "buttonborder": "#000000",
    "field": "#ffffff",
    "fieldtext": "#000000",
    "graytext": "#808080",
    "mark": "#ffff00",
    "marktext": "#000000",
    "window": "#ffffff",
    "windowtext": "#000000",
}
_CONVERTED_COLORS = frozenset({"lab", "lch", "oklab", "oklch", "color", "light-dark"})

# Absolute font sizes in pixels (CSS Fonts 4 §2.5.1), as browsers have them for the default size of 16 pixels.
_FONT_SIZES = {
    "xx-small": 9, "x-small": 10, "small": 13, "medium": 16, "large": 18, "x-large": 24, "xx-large": 32, "xxx-large": 48,
}  # fmt: skip

# Initial values of the properties that children inherit, for `initial`.
_INITIAL = {
    "fill": "black", "stroke": "none", "color": "black", "stroke-width": "1", "stroke-opacity": "1", "fill-opacity": "1",
    "font-size": "16px", "font-weight": "normal", "font-style": "normal", "font-variant": "normal", "letter-spacing": "normal",
    "visibility": "visible", "fill-rule": "nonzero", "clip-rule": "nonzero", "stroke-linecap": "butt", "stroke-linejoin": "miter",
    "stroke-miterlimit": "4", "stroke-dasharray": "none", "stroke-dashoffset": "0", "text-anchor": "start", "marker-start": "none",
    "marker-mid": "none", "marker-end": "none", "paint-order": "normal", "color-interpolation-filters": "linearRGB",
    "text-transform": "none", "word-spacing": "normal", "white-space": "normal", "direction": "ltr", "writing-mode": "lr-tb",
    "font-family": "serif", "shape-rendering": "auto", "text-rendering": "auto", "image-rendering": "auto",
}  # fmt: skip
# For a document that inherits nothing from the one that it is embedded in.
RESET: Mapping[str, str] = {
    name: value for name, value in _INITIAL.items() if name not in {"text-transform", "word-spacing", "white-space"}
}
INHERITED = frozenset(_INITIAL) | {"font", "font-stretch", "color-interpolation"}


def translate(declaration: Declaration, tokens: Tokens | None, text: str, units: Units) -> Value:
    """Return the value of a declaration of a property in `PROPERTIES`.

    tokens: of the value, `None` if `text` is all there is to it: a word, a number with or without a unit, or a color in hexadecimal.
    """
    name = declaration.name
    lowered = text.lower()
    if lowered in WIDE_KEYWORDS:
        return _wide_keyword(name, lowered)
    if tokens is None:
        tokens = tinycss2.parse_component_value_list(text, True)
    return PROPERTIES[name](_Reading(tokens, text, units, declaration.in_css, name))


def is_simple(text: str) -> bool:
    """Return whether a value is a single word, number or color."""
    return bool(_SIMPLE_LENGTH.fullmatch(text) or _SIMPLE_COLOR.fullmatch(text) or _IDENT.fullmatch(text))


def _wide_keyword(name: str, keyword: str) -> str | None:
    if keyword == "inherit":
        return "inherit"
    if keyword == "initial":
        return _INITIAL.get(name, "")
    # librsvg's own style sheet has no rules that `revert` could bring back.
    return "inherit" if name in INHERITED else ""


class _Reading(NamedTuple):
    """A value to be read, and all that its meaning depends on."""

    tokens: Tokens
    text: str
    units: Units
    in_css: bool
    name: str

    @property
    def words(self) -> Tokens:
        return [token for token in self.tokens if token.type != "whitespace"]

    def unsupported(self, feature: str) -> Unsupported:
        return Unsupported(feature, f"{self.name}: {self.text}")


# Numbers and lengths.


class Quantity(NamedTuple):
    """A number with a unit: empty, `px`, `%`, `deg`, or one that is relative to a font."""

    number: float
    unit: str


def quantity_of(token: Token, units: Units) -> Quantity | None:
    """Return the value of a token, calculated if need be, `None` if it is none."""
    if token.type == "number":
        return Quantity(token.value, "")
    if token.type == "percentage":
        return Quantity(token.value, "%")
    if token.type == "dimension":
        return _dimension(token.value, token.lower_unit, units)
    if token.type == "function" and token.lower_name in _CALCULATIONS:
        return _calculate(token.lower_name, token.arguments, units)
    if token.type == "() block":
        return _calculate("calc", token.content, units)
    return None


def _dimension(number: float, unit: str, units: Units) -> Quantity | None:
    if unit in {"em", "ex"}:
        return Quantity(number, unit)
    if unit == "ch":
        return Quantity(number / 2, "em")
    if unit in _PIXELS:
        return Quantity(number * _PIXELS[unit], "px")
    if unit in _DEGREES:
        return Quantity(number * _DEGREES[unit], "deg")
    relative = {
        "rem": units.root_font,
        "vw": units.width / 100,
        "vi": units.width / 100,
        "vh": units.height / 100,
        "vb": units.height / 100,
        "vmin": min(units.width, units.height) / 100,
        "vmax": max(units.width, units.height) / 100,
    }.get(unit[1:] if unit[:1] in {"s", "l", "d"} and unit[1:2] == "v" else unit)
    return None if relative is None else Quantity(number * relative, "px")


def _calculate(name: str, arguments: Tokens, units: Units) -> Quantity | None:
    """Return the value of a math function (CSS Values 4 §10), `None` if it is invalid or mixes units."""
    results = [_sum(part, units) for part in split_at(arguments, ",")]
    quantities = [result for result in results if result is not None]
    if not quantities or len(quantities) != len(results) or len({quantity.unit for quantity in quantities}) != 1:
        return None
    numbers = [quantity.number for quantity in quantities]
    if name == "clamp":
        return Quantity(max(numbers[0], min(numbers[1], numbers[2])), quantities[0].unit) if len(numbers) == 3 else None
    if name in {"min", "max"}:
        return Quantity(min(numbers) if name == "min" else max(numbers), quantities[0].unit)
    return quantities[0] if len(quantities) == 1 else None


def _sum(tokens: Tokens, units: Units) -> Quantity | None:
    words = [token for token in tokens if token.type != "whitespace"]
    total: Quantity | None = None
    sign, product, operator = 1.0, None, ""
    for word in [*words, None]:
        symbol = word.value if word is not None and word.type == "literal" else ""
        if word is None or symbol in {"+", "-"}:
            if product is None or operator:
                return None
            if total is not None and total.unit != product.unit:
                return None
            total = Quantity((total.number if total else 0.0) + sign * product.number, product.unit)
            sign, product = -1.0 if symbol == "-" else 1.0, None
        elif symbol in {"*", "/"}:
            operator = symbol
        else:
            product = _multiplied(product, operator, quantity_of(word, units))
            operator = ""
            if product is None:
                return None
    return total


def _multiplied(left: Quantity | None, operator: str, right: Quantity | None) -> Quantity | None:
    if left is None or right is None:
        return right if not operator else None
    if operator == "*" and "" in {left.unit, right.unit}:
        return Quantity(left.number * right.number, left.unit or right.unit)
    if operator == "/" and not right.unit and right.number:
        return Quantity(left.number / right.number, left.unit)
    return None


def spelled(number: float) -> str:
    """Return a number in decimal notation, rounded to six digits after the point."""
    text = f"{number:.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _spelled(quantity: Quantity) -> str:
    return spelled(quantity.number) + ("" if quantity.unit == "px" else quantity.unit)


def length(text: str, units: Units) -> Value:
    """Return the value of an attribute that is a length."""
    if _SIMPLE_LENGTH.fullmatch(text):
        return text
    tokens = tinycss2.parse_component_value_list(text, True)
    return _length(_Reading(tokens, text, units, in_css=False, name="length"))


def _spelled_length(quantity: Quantity, *, in_css: bool, needs_unit: bool) -> str | None:
    if quantity.unit == "deg" or (needs_unit and in_css and not quantity.unit and quantity.number):
        return None
    spelled = _spelled(quantity)
    return f"{spelled}px" if needs_unit and quantity.unit == "px" else spelled


def _is_calculation(token: Token) -> bool:
    return bool(token.type == "function" and token.lower_name in _CALCULATIONS)


def _length(reading: _Reading, *, keywords: frozenset[str] = frozenset(), needs_unit: bool = False) -> Value:
    words = reading.words
    if len(words) != 1:
        return None
    token = words[0]
    if token.type == "ident":
        return token.lower_value if token.lower_value in keywords else None
    quantity = quantity_of(token, reading.units)
    if quantity is None:
        return reading.unsupported("Lengths that mix units") if _is_calculation(token) else None
    if token.type == "dimension" and token.lower_unit in _KNOWN_UNITS:
        return f"{token.representation}{token.lower_unit}"
    return _spelled_length(quantity, in_css=reading.in_css, needs_unit=needs_unit)


def _positive_length(reading: _Reading) -> Value:
    value = _length(reading)
    return None if isinstance(value, str) and value.startswith("-") else value


def _font_size(reading: _Reading) -> Value:
    words = reading.words
    if len(words) == 1 and words[0].type == "ident":
        name = words[0].lower_value
        return name if name in {"larger", "smaller"} else f"{_FONT_SIZES[name]}px" if name in _FONT_SIZES else None
    value = _length(reading, needs_unit=True)
    return None if isinstance(value, str) and value.startswith("-") else value


def _spacing(reading: _Reading) -> Value:
    return _length(reading, keywords=frozenset({"normal"}), needs_unit=True)


def _baseline_shift(reading: _Reading) -> Value:
    return _length(reading, keywords=frozenset({"baseline", "sub", "super"}))


def _dashes(reading: _Reading) -> Value:
    if len(reading.words) == 1 and reading.words[0].type == "ident":
        return "none" if reading.words[0].lower_value == "none" else None
    lengths = []
    for token in reading.words:
        if token.type == "literal" and token.value == ",":
            continue
        quantity = quantity_of(token, reading.units)
        if quantity is None or quantity.number < 0 or quantity.unit == "deg":
            return reading.unsupported("Lengths that mix units") if _is_calculation(token) else None
        lengths.append(_spelled(quantity))
    return ",".join(lengths) or None


def _opacity(reading: _Reading) -> Value:
    words = reading.words
    quantity = quantity_of(words[0], reading.units) if len(words) == 1 else None
    if quantity is None or quantity.unit not in {"", "%"}:
        return None
    number = quantity.number / (100 if quantity.unit else 1)
    return _spelled(Quantity(min(max(number, 0.0), 1.0), ""))


def _number(reading: _Reading) -> Value:
    words = reading.words
    quantity = quantity_of(words[0], reading.units) if len(words) == 1 else None
    return None if quantity is None or quantity.unit else _spelled(quantity)


# Colors.


def _transferred(linear: float) -> float:
    """Return a component of sRGB from its linear value."""
    magnitude = abs(linear)
    encoded = 12.92 * magnitude if magnitude <= 0.0031308 else 1.055 * magnitude ** (1 / 2.4) - 0.055
    return math.copysign(encoded, linear)


def linear_from_srgb(encoded: float) -> float:
    """Return the linear value of a component of sRGB, both from 0 to 1 (IEC 61966-2-1)."""
    magnitude = abs(encoded)
    linear = magnitude / 12.92 if magnitude <= 0.04045 else ((magnitude + 0.055) / 1.055) ** 2.4
    return math.copysign(linear, encoded)


Matrix: TypeAlias = tuple[tuple[float, float, float], ...]
# From CSS Color 4 §18, sample code: XYZ to linear sRGB, D50 to D65, and linear RGB to XYZ for each RGB space.
_XYZ_TO_SRGB: Matrix = (
    (3.2409699419, -1.5373831776, -0.4986107603),
    (-0.9692436363, 1.8759675015, 0.0415550574),
    (0.0556300797, -0.2039769589, 1.0569715142),
)
_D50_TO_D65: Matrix = (
    (0.9554734215, -0.0230984549, 0.0632592433),
    (-0.0283697093, 1.0099953980, 0.0210414412),
    (0.0123140148, -0.0205076493, 1.3303659366),
)
_RGB_TO_XYZ: dict[str, Matrix] = {
    "display-p3": (
        (0.4865709486, 0.2656676932, 0.1982172852),
        (0.2289745641, 0.6917385218, 0.0792869141),
        (0.0, 0.0451133819, 1.0439443689),
    ),
    "a98-rgb": (
        (0.5766690429, 0.1855582379, 0.1882286462),
        (0.2973449753, 0.6273635663, 0.0752914585),
        (0.0270313614, 0.0706888525, 0.9913375368),
    ),
    "prophoto-rgb": (
        (0.7977604897, 0.1351857986, 0.0313493495),
        (0.2880711282, 0.7118432178, 0.0000856540),
        (0.0, 0.0, 0.8251046025),
    ),
    "rec2020": (
        (0.6369580483, 0.1446169036, 0.1688809752),
        (0.2627002120, 0.6779980715, 0.0593017165),
        (0.0, 0.0280726930, 1.0609850577),
    ),
}
_GAMMAS = {"a98-rgb": 563 / 256, "prophoto-rgb": 1.8, "rec2020": 2.4}


def _multiply(matrix: Matrix, vector: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sum(factor * component for factor, component in zip(row, vector, strict=True)) for row in matrix)


def _srgb(color: tinycss2.color5.Color) -> tuple[float, ...]:
    """Return the components of a color in sRGB, from 0 to 1 within its gamut."""
    coordinates = tuple(float(coordinate or 0) for coordinate in color.coordinates)
    space = color.space
    if space == "srgb":
        return coordinates
    if space in {"hsl", "hwb"}:
        return tuple(color.to("srgb").coordinates)
    if space == "srgb-linear":
        return tuple(map(_transferred, coordinates))
    if space in {"lab", "lch", "xyz-d50"}:
        xyz = _multiply(_D50_TO_D65, coordinates if space == "xyz-d50" else tuple(color.to("xyz-d50").coordinates))
    elif space in {"oklab", "oklch"}:
        xyz = tuple(color.to("xyz-d65").coordinates)
    elif space in _RGB_TO_XYZ:
        gamma = _GAMMAS.get(space)
        linear = (math.copysign(abs(c) ** gamma, c) if gamma else linear_from_srgb(c) for c in coordinates)
        xyz = _multiply(_RGB_TO_XYZ[space], tuple(linear))
        xyz = _multiply(_D50_TO_D65, xyz) if space == "prophoto-rgb" else xyz
    else:
        xyz = coordinates
    return tuple(map(_transferred, _multiply(_XYZ_TO_SRGB, xyz)))


def color_components(text: str) -> tuple[float, ...] | None:
    """Return red, green, blue and alpha of a color, from 0 to 1, `None` if it is none or depends on the element."""
    try:
        color = tinycss2.color5.parse_color(text)
    except (ValueError, AssertionError, ArithmeticError, TypeError, AttributeError, IndexError, KeyError):
        return None
    if color is None or isinstance(color, str) or len(color.coordinates) != 3:
        return None
    return (*(min(max(component, 0.0), 1.0) for component in _srgb(color)), color.alpha)


def _color_value(token: Token, reading: _Reading) -> Value:  # noqa: PLR0911 - one for each kind of token
    if token.type == "ident":
        name = str(token.lower_value)
        if name == "currentcolor":
            return "currentColor"
        return _SYSTEM_COLORS.get(name) or (name if color_components(name) else None)
    if token.type == "hash":
        text = f"#{token.value}"
        return text if _SIMPLE_COLOR.fullmatch(text) else None
    if token.type != "function":
        return None
    name = token.lower_name
    if name == "light-dark":
        light = [word for word in split_at(token.arguments, ",")[0] if word.type != "whitespace"]
        return _color_value(light[0], reading) if len(light) == 1 else None
    components = color_components(tinycss2.serialize([token]))
    if components is None:
        is_unsupported = name in {"color-mix", "contrast-color", "device-cmyk"} or "from" in reading.text or _has_calculation(token)
        return reading.unsupported("Colors of this kind") if is_unsupported else None
    red, green, blue, alpha = components
    rgb = ", ".join(_spelled(Quantity(round(255 * component, 3), "")) for component in (red, green, blue))
    return f"rgb({rgb})" if alpha == 1 else f"rgba({rgb}, {_spelled(Quantity(alpha, ''))})"


def _has_calculation(token: Token) -> bool:
    return any(argument.type == "function" for argument in token.arguments)


def color(token: Token, units: Units) -> str | None:
    """Return a color, `None` if a token is none."""
    value = _color_value(token, _Reading([token], "", units, in_css=True, name="color"))
    return value if isinstance(value, str) else None


def _color(reading: _Reading) -> Value:
    words = reading.words
    return _color_value(words[0], reading) if len(words) == 1 else None


def _paint(reading: _Reading) -> Value:  # noqa: PLR0911 - one for each form
    words = reading.words
    if not words or len(words) > 2:
        return None
    address = url_of(words[0])
    if address is None:
        if len(words) > 1:
            return None
        if words[0].type == "ident" and words[0].lower_value in {"none", "context-fill", "context-stroke"}:
            return str(words[0].lower_value)
        return _color_value(words[0], reading)
    fallback: Value = "none"
    if len(words) == 2:
        is_none = words[1].type == "ident" and words[1].lower_value == "none"
        fallback = "none" if is_none else _color_value(words[1], reading)
    if not isinstance(fallback, str):
        return fallback
    if (reference := fragment(address)) is None:
        return fallback
    return f"url(#{reference})" if fallback == "none" else f"url(#{reference}) {fallback}"


# References.


def fragment(address: str) -> str | None:
    """Return the id that a URL refers to within the document, `None` if it refers to another file."""
    address = address.strip()
    if not address.startswith("#") or len(address) < 2:
        return None
    return address[1:] if not re.search(r"[\s()'\"\\]", address[1:]) else None


def _reference(reading: _Reading) -> Value:
    words = reading.words
    if len(words) != 1:
        return None
    if words[0].type == "ident":
        return "none" if words[0].lower_value == "none" else None
    address = url_of(words[0])
    if address is None:
        return None
    name = fragment(address)
    return "none" if name is None else f"url(#{name})"


_SHAPE_FUNCTIONS = frozenset({"circle", "ellipse", "inset", "polygon", "path", "rect", "xywh", "shape"})
_BOXES = frozenset({"fill-box", "stroke-box", "view-box", "border-box", "padding-box", "content-box", "margin-box"})


def _clip_path(reading: _Reading) -> Value:
    words = reading.words
    if any(token.type == "function" and token.lower_name in _SHAPE_FUNCTIONS for token in words):
        return reading.unsupported("Clip paths of basic shapes")
    if words and all(token.type == "ident" and token.lower_value in _BOXES for token in words):
        return reading.unsupported("Clip paths of boxes")
    return _reference(reading)


def _mask(reading: _Reading) -> Value:
    words = [token for token in reading.words if not (token.type == "ident" and token.lower_value in _MASK_DEFAULTS)]
    if len(words) == 1 and (words[0].type in {"url", "ident"} or url_of(words[0]) is not None):
        return _reference(reading._replace(tokens=words))
    return reading.unsupported("Masks of this kind") if words else "none"


_MASK_DEFAULTS = frozenset({"match-source", "add", "border-box", "repeat", "no-clip", "luminance"})

_FILTER_FUNCTIONS = word_set("blur brightness contrast drop-shadow grayscale hue-rotate invert opacity saturate sepia")


def _filter(reading: _Reading) -> Value:
    """Return a list of references and functions, or `none`. The functions are turned into `filter` elements later."""
    if len(reading.words) == 1 and reading.words[0].type == "ident":
        return "none" if reading.words[0].lower_value == "none" else None
    parts = []
    for token in reading.words:
        if (address := url_of(token)) is not None:
            if (name := fragment(address)) is not None:
                parts.append(f"url(#{name})")
        elif token.type == "function" and token.lower_name in _FILTER_FUNCTIONS:
            function = filter_function(token.lower_name, token.arguments, reading.units)
            if function is None:
                return None
            parts.append(function)
        else:
            return None
    return " ".join(parts) or "none"


def filter_function(name: str, arguments: Tokens, units: Units) -> str | None:  # noqa: PLR0911 - one for each kind of argument
    """Return a filter function with its argument in pixels, degrees or as a number, `None` if it is invalid (Filter Effects 1 §6)."""
    words = [token for token in arguments if token.type != "whitespace"]
    if name == "drop-shadow":
        return _drop_shadow(words, units)
    if len(words) > 1:
        return None
    quantity = quantity_of(words[0], units) if words else Quantity(0.0 if name in {"blur", "hue-rotate"} else 1.0, "")
    if quantity is None:
        return None
    if name == "blur":
        return f"blur({_spelled(quantity)}px)" if quantity.unit in {"px", ""} and quantity.number >= 0 else None
    if name == "hue-rotate":
        return f"hue-rotate({_spelled(quantity._replace(unit=''))}deg)" if quantity.unit in {"deg", ""} else None
    if quantity.unit not in {"", "%"} or quantity.number < 0:
        return None
    number = quantity.number / (100 if quantity.unit else 1)
    if name in {"grayscale", "invert", "opacity", "sepia"}:
        number = min(number, 1.0)
    return f"{name}({_spelled(Quantity(number, ''))})"


def _drop_shadow(words: Tokens, units: Units) -> str | None:
    lengths, colors = [], []
    for token in words:
        quantity = quantity_of(token, units)
        if quantity is not None and quantity.unit in {"px", ""}:
            lengths.append(_spelled(quantity) + "px")
        elif quantity is not None and quantity.unit == "em":
            lengths.append(_spelled(quantity))
        else:
            color = _color_value(token, _Reading([token], "", units, True, "filter"))
            if not isinstance(color, str):
                return None
            colors.append(color)
    if len(lengths) not in {2, 3} or len(colors) > 1:
        return None
    return f"drop-shadow({' '.join([*colors, *lengths])})"


# Words.


def transformed(text: str, transform: str) -> str:
    """Return a text with its letters in the case that the property `text-transform` requests."""
    match transform:
        case "uppercase":
            return text.upper()
        case "lowercase":
            return text.lower()
        case "capitalize":
            return re.sub(r"(?<!\w)\w", lambda match: match[0].upper(), text)
        case _:
            return text


def _words(reading: _Reading) -> Value:
    """Return one or several keywords, or numbers."""
    if not reading.words or any(token.type not in {"ident", "number", "percentage"} for token in reading.words):
        return None
    return " ".join(tinycss2.serialize([token]) for token in reading.words).lower()


def _blend_mode(reading: _Reading) -> Value:
    value = _words(reading)
    return reading.unsupported("Blend modes of this kind") if value in {"plus-lighter", "plus-darker"} else value


def _any_number(reading: _Reading) -> Value:
    return _words(reading)


def _families(reading: _Reading) -> Value:
    return _spelled_families(reading.tokens) or None


def _spelled_families(tokens: Tokens) -> str:
    families = []
    for part in split_at(tokens, ","):
        names = [str(token.value) for token in part if token.type in {"ident", "string"}]
        name = re.sub(r"[^\w .&+-]", "", " ".join(names)).strip()
        if name:
            families.append(name.lower() if name.lower() in _GENERIC else f"'{name}'")
    return ", ".join(families)


_GENERIC = frozenset({"serif", "sans-serif", "monospace", "cursive", "fantasy", "system-ui"})


def _font(reading: _Reading) -> Value:
    """Return the `font` shorthand (CSS Fonts 4 §4.7), with its sizes in pixels."""
    words: list[str] = []
    for index, token in enumerate(reading.tokens):
        if token.type in {"dimension", "percentage"} or _is_calculation(token):
            quantity = quantity_of(token, reading.units)
            families = _spelled_families(_after_line_height(reading.tokens[index + 1 :]))
            size = _spelled_length(quantity, in_css=True, needs_unit=True) if quantity else None
            return f"{' '.join(words)} {size} {families}".strip() if size and families else None
        if token.type == "ident" and token.lower_value in _FONT_SIZES:
            families = _spelled_families(_after_line_height(reading.tokens[index + 1 :]))
            return f"{' '.join(words)} {_FONT_SIZES[token.lower_value]}px {families}".strip() if families else None
        if token.type in {"ident", "number"}:
            words.append(tinycss2.serialize([token]).lower())
        elif token.type != "whitespace":
            return None
    return None


def _after_line_height(tokens: Tokens) -> Tokens:
    words = [token for token in tokens if token.type != "whitespace"]
    return words[2:] if words and words[0].type == "literal" and words[0].value == "/" else words


def _transform(reading: _Reading) -> Value:
    return reading.text


def _path_data(reading: _Reading) -> Value:
    words = reading.words
    if len(words) == 1 and words[0].type == "ident" and words[0].lower_value == "none":
        return ""
    if len(words) == 1 and words[0].type == "function" and words[0].lower_name == "path":
        inner = [token for token in words[0].arguments if token.type == "string"]
        return str(inner[0].value) if inner else None
    return reading.unsupported("Paths of this kind") if words and words[0].type == "function" else None


def _text_shadow(reading: _Reading) -> Value:
    return "" if reading.text.lower() == "none" else reading.unsupported("Shadows of texts")


def _unless(*harmless: str) -> Callable[[_Reading], Value]:
    """Return a reader of a property that is supported only with these values."""

    def read(reading: _Reading) -> Value:
        text = reading.text.lower()
        return "" if text in harmless else reading.unsupported(f"Values of the property {reading.name} other than {harmless[0]}")

    return read


def _geometry(reading: _Reading) -> Value:
    return _length(reading, keywords=frozenset({"auto"}))


def _keep(reading: _Reading) -> Value:
    """Return a value that is interpreted where the element is written."""
    return reading.text


GEOMETRY = frozenset({"x", "y", "cx", "cy", "r", "rx", "ry", "width", "height", "d"})
PROPERTIES: Mapping[str, Callable[[_Reading], Value]] = {
    **dict.fromkeys(("fill", "stroke"), _paint),
    **dict.fromkeys(("color", "stop-color", "flood-color", "lighting-color"), _color),
    **dict.fromkeys(("opacity", "fill-opacity", "stroke-opacity", "stop-opacity", "flood-opacity"), _opacity),
    **dict.fromkeys(("stroke-dashoffset",), _length),
    "stroke-width": _positive_length,
    "stroke-dasharray": _dashes,
    "stroke-miterlimit": _number,
    "font-size": _font_size,
    "letter-spacing": _spacing,
    "word-spacing": _spacing,
    "baseline-shift": _baseline_shift,
    "font-family": _families,
    "font": _font,
    "font-weight": _any_number,
    "clip-path": _clip_path,
    **dict.fromkeys(("mask", "mask-image", "-webkit-mask", "-webkit-mask-image"), _mask),
    **dict.fromkeys(("marker", "marker-start", "marker-mid", "marker-end"), _reference),
    "filter": _filter,
    "mix-blend-mode": _blend_mode,
    **dict.fromkeys(
        [
            "fill-rule",
            "clip-rule",
            "stroke-linecap",
            "stroke-linejoin",
            "display",
            "visibility",
            "overflow",
            "paint-order",
            "vector-effect",
            "shape-rendering",
            "text-rendering",
            "image-rendering",
            "color-interpolation",
            "color-interpolation-filters",
            "isolation",
            "mask-type",
            "font-stretch",
            "font-style",
            "font-variant",
            "text-anchor",
            "text-decoration",
            "text-decoration-line",
            "dominant-baseline",
            "alignment-baseline",
            "writing-mode",
            "direction",
            "unicode-bidi",
            "white-space",
            "text-transform",
            "text-orientation",
            "glyph-orientation-vertical",
            "transform-box",
        ],
        _words,
    ),
    **dict.fromkeys(GEOMETRY - {"d"}, _geometry),
    "d": _path_data,
    "transform": _transform,
    **dict.fromkeys(("translate", "rotate", "scale", "transform-origin"), _keep),
    **dict.fromkeys(("background", "background-color", "background-image", "border", "color-scheme"), _keep),
    **dict.fromkeys(("margin", "margin-left", "margin-top", "padding", "padding-left", "padding-top"), _keep),
    "text-shadow": _text_shadow,
    "backdrop-filter": _unless("none"),
    "offset-path": _unless("none"),
    "perspective": _unless("none"),
    "mask-border": _unless("none"),
}
