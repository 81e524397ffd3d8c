"""Filters, where librsvg draws them differently from browsers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

from service.worker.formats.svg_tree import refuse_unsupported
from service.worker.formats.svg_values import color_components, linear_from_srgb, spelled

# Tag, attributes, and children with their attributes.
Primitives: TypeAlias = list[tuple[str, dict[str, str], list[tuple[str, dict[str, str]]]]]

# Filter functions are not clipped to a region; this one is larger than any drawing.
REGION = {"filterUnits": "userSpaceOnUse", "x": "-200%", "y": "-200%", "width": "500%", "height": "500%"}

_PART = re.compile(r"url\(#[^)]+\)|[a-z-]+\((?:[^()]|\([^()]*\))*\)")
_FUNCTION = re.compile(r"([a-z-]+)\(([0-9.]+)(?:deg)?\)|hue-rotate\((-?[0-9.]+)deg\)")
_COLOR_FUNCTIONS = ("brightness", "contrast", "grayscale", "hue-rotate", "invert", "saturate", "sepia")
_SRGB = {"color-interpolation-filters": "sRGB"}

# Inputs that browsers no longer know (Filter Effects 1 §9.2): they count as missing.
_UNKNOWN_INPUTS = frozenset({"BackgroundImage", "BackgroundAlpha", "FillPaint", "StrokePaint"})


class Functions:
    """Replaces filter functions that librsvg computes in linear colors, unlike browsers, with `filter` elements."""

    def __init__(self, prefix: str) -> None:
        """Prepare for one document.

        prefix: of the ids of the elements.
        """
        self._prefix = prefix
        self._names: dict[str, str] = {}

    def has(self, name: str) -> bool:
        """Return whether an element with this id is generated."""
        return name in self._names.values()

    def translate(self, value: str) -> list[str]:
        """Return the references and functions of a list of filters."""
        parts = []
        for part in _PART.findall(value):
            if part.startswith(_COLOR_FUNCTIONS):
                name = self._names.setdefault(part, f"{self._prefix}{len(self._names)}")
                parts.append(f"url(#{name})")
            else:
                parts.append(part)
        return parts

    def generated(self) -> Iterator[tuple[str, Primitives]]:
        """Yield the id and the primitives of each element that is to be written."""
        for function, name in self._names.items():
            kind, _, argument = function.removesuffix(")").partition("(")
            yield name, _primitives(kind, float(argument.removesuffix("deg")))


def _primitives(kind: str, amount: float) -> Primitives:
    """Return the primitives that a filter function is short for (Filter Effects 1 §13)."""
    if kind in {"grayscale", "sepia"}:
        return [("feColorMatrix", {"type": "matrix", "values": _matrix(kind, 1 - min(amount, 1.0)), **_SRGB}, [])]
    if kind in {"saturate", "hue-rotate"}:
        matrix = "saturate" if kind == "saturate" else "hueRotate"
        return [("feColorMatrix", {"type": matrix, "values": spelled(amount), **_SRGB}, [])]
    if kind == "invert":
        function = {"type": "table", "tableValues": f"{spelled(amount)} {spelled(1 - amount)}"}
    else:
        intercept = 0.5 - 0.5 * amount if kind == "contrast" else 0.0
        function = {"type": "linear", "slope": spelled(amount), "intercept": spelled(intercept)}
    return [("feComponentTransfer", dict(_SRGB), [(f"feFunc{band}", function) for band in "RGB"])]


_MATRICES = {
    "grayscale": ((0.2126, 0.7152, 0.0722), (0.2126, 0.7152, 0.0722), (0.2126, 0.7152, 0.0722)),
    "sepia": ((0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131)),
}


def _matrix(kind: str, rest: float) -> str:
    """Return a color matrix that keeps a part of the original colors.

    rest: that part, from 0 to 1.
    """
    rows = []
    for number, row in enumerate(_MATRICES[kind]):
        mixed = [(1 - rest) * factor + (rest if column == number else 0.0) for column, factor in enumerate(row)]
        rows.append(" ".join([*map(spelled, mixed), "0 0"]))
    return " ".join([*rows, "0 0 0 1 0"])


def adapt(tag: str, attributes: dict[str, str], color_space: str) -> None:
    """Change the attributes of a filter primitive so that librsvg draws it as browsers do.

    color_space: the value of `color-interpolation-filters`.
    """
    for name in ("in", "in2"):
        if attributes.get(name) in _UNKNOWN_INPUTS:
            del attributes[name]
    if tag == "feConvolveMatrix":
        _adapt_convolution(attributes)
    if tag == "feComposite" and attributes.get("operator") == "lighter":
        # librsvg lacks this operator, the sum of both pictures.
        attributes.update({"operator": "arithmetic", "k1": "0", "k2": "1", "k3": "1", "k4": "0"})
    if tag in {"feDiffuseLighting", "feSpecularLighting"} and color_space.lower() != "srgb":
        # librsvg does not convert this color to the linear values that it computes with.
        components = color_components(attributes.get("lighting-color", "white"))
        if components is not None:
            red, green, blue = (spelled(round(255 * linear_from_srgb(component), 3)) for component in components[:3])
            attributes["lighting-color"] = f"rgb({red}, {green}, {blue})"


def _adapt_convolution(attributes: dict[str, str]) -> None:
    """Give a kernel matrix in the order of columns, which librsvg reads."""
    biases = (float(number) for number in re.findall(r"[0-9]*\.?[0-9]+", attributes.get("bias", "")))
    if any(biases) and attributes.get("preserveAlpha") != "true":
        refuse_unsupported("Convolutions with a bias of transparency", f"bias={attributes['bias']}")
    order = [int(number) for number in re.findall(r"\d{1,3}", attributes.get("order", "3"))][:2]
    columns, rows = (order * 2)[:2] if order else (3, 3)
    kernel = re.split(r"[\s,]+", attributes.get("kernelMatrix", "").strip())
    if len(kernel) == rows * columns:
        attributes["kernelMatrix"] = " ".join(kernel[row * columns + column] for column in range(columns) for row in range(rows))
