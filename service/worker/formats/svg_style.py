"""The style of each element of an SVG document: the values that win the cascade, in librsvg's words, and what children inherit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import tinycss2

from service.worker.formats import svg_values
from service.worker.formats.svg_cost import Inherited
from service.worker.formats.svg_css import Declaration, StyleSheets, Tokens, font_families, has_variables, substitute
from service.worker.formats.svg_tree import Node, refuse_unsupported, word_set
from service.worker.formats.svg_values import PROPERTIES, Units, Unsupported

# Property → value, in the order of the cascade. A value is empty where the initial one applies.
Style: TypeAlias = dict[str, str]

# Properties that are no presentation attributes (SVG 2 §6.6): such attributes have no effect.
ONLY_CSS = word_set(
    """
    mix-blend-mode isolation font marker translate rotate scale background background-color background-image margin margin-left margin-top
    padding padding-left padding-top border color-scheme text-shadow backdrop-filter offset-path perspective mask-border mask-image
    -webkit-mask -webkit-mask-image x y cx cy r rx ry width height d transform transform-box text-decoration-line color-scheme
    """
)
_LONGHANDS = {
    "marker": ("marker-start", "marker-mid", "marker-end"),
    **dict.fromkeys(("mask-image", "-webkit-mask", "-webkit-mask-image"), ("mask",)),
    "text-decoration-line": ("text-decoration",),
}
_OF_FONT = frozenset({"font-family", "font-size", "font-stretch", "font-style", "font-variant", "font-weight"})
_FONT_SIZE = re.compile(r"([0-9.]+)(px|pt|pc|mm|cm|in|em|ex|%|)\s")
_SIZE = re.compile(r"([0-9.]+(?:e[+-]?[0-9]+)?)(px|pt|pc|mm|cm|in|em|ex|%|)", re.IGNORECASE)
_PIXELS = {"px": 1.0, "": 1.0, "pt": 4 / 3, "pc": 16.0, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0}
_KEEPS_SPACE = frozenset({"pre", "pre-wrap", "break-spaces"})


class State(NamedTuple):
    """What an element inherits.

    cost: as `svg_cost` needs it. custom: custom properties. font_size: in pixels. families: of fonts, in lowercase.
    color_space: of filters. is_stroked, is_dashed: whether shapes have a stroke, and a dash pattern.
    strokes_first: whether strokes are painted before fills.
    part: of a text that is written: `fill`, `stroke`, or empty for both. text_transform: the property. word_spacing: in pixels.
    keeps_space: whether white space is not collapsed. is_hidden: whether the element is not drawn where it stands.
    """

    cost: Inherited
    custom: Mapping[str, Tokens]
    font_size: float = 16.0
    families: tuple[str, ...] = ()
    color_space: str = "linearRGB"
    is_stroked: bool = False
    is_dashed: bool = False
    strokes_first: bool = False
    part: str = ""
    text_transform: str = "none"
    word_spacing: float = 0.0
    keeps_space: bool = False
    is_hidden: bool = False


class Styler:
    """Computes the styles of one document's elements.

    units: what relative units refer to.
    """

    def __init__(self, sheets: StyleSheets, units: Units) -> None:
        self.units = units
        self._sheets = sheets
        self._values: dict[tuple[str, bool, str], svg_values.Value] = {}

    def style(self, node: Node, state: State) -> tuple[Style, State]:
        """Return the style of an element, and what its children inherit.

        state: what it inherits itself.

        Raises `ImageError`, `unsupported`, if a value is one that would be drawn wrong.
        """
        presentation = [
            Declaration(name, value, in_css=False)
            for name, value in node.attributes.items()
            if name in PROPERTIES and name not in ONLY_CSS and value.strip()
        ]
        declarations = presentation
        if not self._sheets.is_empty or "style" in node.attributes:
            declarations = self._sheets.declarations(node, presentation)
        by_property: dict[str, list[Declaration]] = {}
        custom: dict[str, Tokens] | None = None
        for declaration in declarations:
            if declaration.name.startswith("--"):
                custom = dict(state.custom) if custom is None else custom
                custom[declaration.name] = declaration.value if isinstance(declaration.value, list) else []
                continue
            for name in _LONGHANDS.get(declaration.name, (declaration.name,)):
                if name in PROPERTIES:
                    # The order of insertion is that of the declaration that comes last.
                    candidates = by_property.pop(name, [])
                    candidates.append(declaration._replace(name=name))
                    by_property[name] = candidates
        variables = state.custom if custom is None else custom
        style: Style = {}
        for name, candidates in by_property.items():
            value = self._winner(candidates, variables)
            if value is not None:
                style[name] = value
        _let_font_override(style)
        return style, self._inner_state(node, style, state, variables)

    def length(self, text: str) -> str | None:
        """Return the value of an attribute that is a length, `None` if it is invalid. Raises `ImageError`, `unsupported`."""
        value = svg_values.length(text.strip(), self.units)
        if isinstance(value, Unsupported):
            refuse_unsupported(value.feature, value.value)
        return value

    def _winner(self, candidates: list[Declaration], custom: Mapping[str, Tokens]) -> str | None:
        """Return the value of the last valid declaration, `None` if there is none."""
        for declaration in reversed(candidates):
            value = self._value(declaration, custom)
            if isinstance(value, Unsupported):
                refuse_unsupported(value.feature, value.value)
            if value is not None:
                return value
        return None

    def _value(self, declaration: Declaration, custom: Mapping[str, Tokens]) -> svg_values.Value:
        tokens: Tokens | None = None
        if isinstance(declaration.value, str):
            text = declaration.value.strip()
            key = declaration.name, declaration.in_css, text
            if key in self._values:
                return self._values[key]
            if not svg_values.is_simple(text):
                tokens = tinycss2.parse_component_value_list(self._sheets.checked(text), True)
        else:
            tokens = declaration.value
            # An empty value of a custom property is valid.
            text = tinycss2.serialize(tokens).strip()
            key = declaration.name, True, text
            if key in self._values:
                return self._values[key]
        if tokens is not None and has_variables(tokens):
            substituted = substitute(tokens, custom)
            if substituted is None:
                # Invalid at computed-value time (CSS Custom Properties 1 §3.1): as `unset`.
                return svg_values.translate(declaration, None, "unset", self.units)
            return svg_values.translate(declaration, substituted, tinycss2.serialize(substituted).strip(), self.units)
        self._values[key] = svg_values.translate(declaration, tokens, text, self.units)
        return self._values[key]

    def _inner_state(self, node: Node, style: Style, state: State, custom: Mapping[str, Tokens]) -> State:
        if not style and custom is state.custom and "xml:space" not in node.attributes:
            return state
        changed: dict[str, object] = {"custom": custom}
        font_size = state.font_size
        size = style.get("font-size")
        if size is None and "font" in style and (match := _FONT_SIZE.search(style["font"])):
            size = match[1] + match[2]
        if size:
            changed["font_size"] = font_size = _font_size(size, state.font_size)
        if style.get("font-family", "inherit") != "inherit":
            changed["families"] = tuple(font_families(tinycss2.parse_component_value_list(style["font-family"], True)))
        elif "font" in style:
            changed["families"] = tuple(re.findall(r"'([^']*)'", style["font"].lower()))
        for name, field, test in (
            ("color-interpolation-filters", "color_space", str),
            ("stroke", "is_stroked", lambda value: value != "none"),
            ("stroke-dasharray", "is_dashed", lambda value: value != "none"),
            ("paint-order", "strokes_first", _paints_strokes_first),
            ("text-transform", "text_transform", str),
            ("white-space", "keeps_space", _KEEPS_SPACE.__contains__),
        ):
            if style.get(name, "inherit") != "inherit":
                changed[field] = test(style[name])
        spacing = style.get("word-spacing", "inherit")
        if spacing != "inherit":
            changed["word_spacing"] = 0.0 if spacing == "normal" else _signed(spacing, font_size)
        if "xml:space" in node.attributes:
            changed["keeps_space"] = node.attributes["xml:space"] == "preserve"
        return state._replace(**changed)  # type: ignore[arg-type]


def _let_font_override(style: Style) -> None:
    """Remove the properties that a later `font` sets."""
    if "font" not in style:
        return
    for name in list(style):
        if name == "font":
            return
        if name in _OF_FONT:
            del style[name]


def _paints_strokes_first(value: str) -> bool:
    words = value.split()
    return "stroke" in words and (words[0] == "stroke" or words[:2] == ["markers", "stroke"])


def _font_size(size: str, inherited: float) -> float:
    match = _SIZE.fullmatch(size)
    if match is None:
        return inherited * {"larger": 1.2, "smaller": 1 / 1.2}.get(size, 1.0)
    factors = {"em": inherited, "ex": inherited / 2, "%": inherited / 100}
    return float(match[1]) * factors.get(match[2].lower(), _PIXELS.get(match[2].lower(), 1.0))


def _signed(length: str, font_size: float) -> float:
    is_negative = length.startswith("-")
    size = _font_size(length.lstrip("+-"), font_size)
    return -size if is_negative else size
