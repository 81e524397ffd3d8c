"""Writes an SVG document anew: only harmless elements and attributes, each with its own style, in the words that librsvg reads.

What browsers draw and librsvg does not is translated where that is possible; otherwise the document is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from math import isnan
from typing import NamedTuple

import tinycss2

from service.worker.formats import svg_cost, svg_filters, svg_transform, svg_tree, svg_values
from service.worker.formats.svg_cost import Element, Inherited
from service.worker.formats.svg_css import StyleSheets
from service.worker.formats.svg_pictures import Drawing, Picture, Pictures
from service.worker.formats.svg_style import State, Style, Styler
from service.worker.formats.svg_text import Characters, position_list
from service.worker.formats.svg_transform import Box
from service.worker.formats.svg_tree import (
    FILTER_PRIMITIVES,
    MAX_ELEMENTS,
    SHAPES,
    SVG,
    TEXTS,
    XLINK,
    Document,
    Node,
    Warnings,
    refuse,
    refuse_unsupported,
    word_set,
)
from service.worker.formats.svg_values import GEOMETRY, Units, Unsupported, spelled

MAX_SIDE = 65_535

_WHITE_SPACE = {ord(character): f"&#{ord(character)};" for character in "\t\n\r"}

# Documents within documents.
_MAX_NESTED = 4

# The size of a document that states none, in pixels (CSS 2.1 §10.3.2).
_DEFAULT_SIZE = (300.0, 150.0)
# Units of the size of a document. Relative ones refer to the default font size of 16 pixels.
_LENGTH = re.compile(r"\s*([+]?[0-9]*\.?[0-9]+(?:e[+-]?[0-9]{1,3})?)\s*(px|pt|pc|mm|cm|in|q|em|ex|rem|ch|)\s*", re.IGNORECASE)
_UNIT_PIXELS = {**svg_cost.UNIT_PIXELS, "em": 16.0, "rem": 16.0, "ex": 8.0, "ch": 8.0, "q": 96 / 101.6}

_LENGTHS = word_set("x y x1 y1 x2 y2 cx cy r rx ry fx fy fr width height markerWidth markerHeight startOffset")
# Other attributes that are copied as they are, presentation attributes apart.
_ATTRIBUTES = word_set(
    """
    d points viewBox preserveAspectRatio offset gradientUnits gradientTransform spreadMethod clipPathUnits maskUnits maskContentUnits
    patternUnits patternContentUnits patternTransform markerUnits refX refY orient filterUnits primitiveUnits dx dy in in2 result mode
    operator k1 k2 k3 k4 stdDeviation edgeMode type values tableValues slope intercept amplitude exponent order kernelMatrix divisor bias
    targetX targetY preserveAlpha surfaceScale diffuseConstant specularConstant specularExponent limitingConeAngle
    azimuth elevation z pointsAtX pointsAtY pointsAtZ scale xChannelSelector yChannelSelector radius baseFrequency numOctaves seed
    stitchTiles xml:space xml:lang transform
    """
)
# Properties that librsvg does not read, because they are applied here.
_APPLIED = GEOMETRY | word_set(
    """
    transform transform-origin transform-box translate rotate scale background background-color background-image word-spacing
    text-transform margin margin-left margin-top padding padding-left padding-top border color-scheme text-orientation text-shadow
    backdrop-filter offset-path perspective mask-border white-space
    """
)
# Properties that librsvg reads in `style` only.
_STYLE_ONLY = ("font", "mix-blend-mode", "isolation")
_HREF_TAGS = frozenset({"use", "linearGradient", "radialGradient", "pattern", "textPath", "filter"})
_GRADIENTS = frozenset({"linearGradient", "radialGradient"})
_RESOURCES = frozenset({"symbol", "clipPath", "mask", "pattern", "marker", "filter"}) | _GRADIENTS
_GEOMETRY: Mapping[str, frozenset[str]] = {
    "rect": frozenset({"x", "y", "width", "height", "rx", "ry"}),
    "circle": frozenset({"cx", "cy", "r"}),
    "ellipse": frozenset({"cx", "cy", "rx", "ry"}),
    "path": frozenset({"d"}),
    **dict.fromkeys(("image", "use"), frozenset({"x", "y", "width", "height"})),
}
_TRANSFORM_ATTRIBUTES = {"linearGradient": "gradientTransform", "radialGradient": "gradientTransform", "pattern": "patternTransform"}
# Transforms for which the origin makes no difference.
_ONLY_TRANSLATES = re.compile(r"\s*(?:translate[XY]?\([^)]*\)\s*)*", re.IGNORECASE)
# Properties that a group takes over from the text or picture that it stands for.
_OF_GROUPS = frozenset({"id", "transform", "opacity", "filter", "clip-path", "mask", "mix-blend-mode", "isolation", "display"})
_FRAME = ("x", "y", "width", "height", "preserveAspectRatio")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_SEPARATORS = re.compile(r"[\s,]+")
_PRIVATE_USE = re.compile("[\ue000-\uf8ff\U000f0000-\U0010ffff]")
# Namespaces that browsers support as extensions (SVG 2 §5.9.4).
_EXTENSIONS = frozenset({"http://www.w3.org/1999/xhtml", "http://www.w3.org/1998/Math/MathML"})


class Written(NamedTuple):
    """A document that was written anew.

    root, ids: for estimating what it costs to draw.
    warnings: sentences that report what was removed.
    """

    text: str
    root: Element
    ids: dict[str, Element]
    warnings: tuple[str, ...]


class _Output:
    """What all documents that are embedded in each other share."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.ids: dict[str, Element] = {}
        self.warnings = Warnings()
        self.pictures = Pictures(self.warnings)
        self.elements = self.points = self.documents = 0


def write(body: bytes) -> Written:
    """Return a document written anew. Raises `ImageError`: `broken`, `unsupported`, `too-many-pixels` or `too-complex`."""
    output = _Output()
    root = _Writer(body, output).write(None)
    return Written("".join(output.text), root, output.ids, output.warnings.sentences)


class _Writer:
    """Writes one document."""

    def __init__(self, body: bytes, output: _Output, nesting: int = 0) -> None:
        """Read a document.

        nesting: how many documents it is embedded in.
        """
        self._output = output
        self._nesting = nesting
        output.documents += 1
        # Ids of an embedded document must differ from those around it.
        self._prefix = f"d{output.documents}-" if nesting else ""
        self._document = svg_tree.read(body, output.warnings)
        output.elements += self._document.elements
        if output.elements > MAX_ELEMENTS:
            refuse("too-many-pixels", "The SVG has too many elements.", f"at most {MAX_ELEMENTS}", "more")
        self._root = self._document.root
        width, height = stated_size(self._root.attributes)
        self._sheets = StyleSheets(self._document, (width, height), output.warnings)
        self._styler = Styler(self._sheets, Units(width, height))
        self._referenced = _referenced(self._document)
        self._viewport = Box(0.0, 0.0, width, height)
        self._filters = svg_filters.Functions(f"{self._prefix}f{output.documents}-")
        self._characters = Characters(keeps_space=False)
        style, state = self._styler.style(self._root, State(Inherited(), {}))
        sides: dict[str, str] = {name: style[name] for name in ("width", "height") if name in style}
        self.size = stated_size({**self._root.attributes, **sides})
        self.has_size = any(_pixels(value) for value in (*sides.values(), *map(self._root.attributes.get, ("width", "height"))) if value)
        self.has_size |= _view_box(self._root.attributes) is not None
        self._styler.units = Units(*self.size, state.font_size)
        self._viewport = _viewport(self._root.attributes, *self.size)

    def write(self, parent: Element | None) -> Element:
        """Write the document as an `svg` element of its own size, and return that element."""
        node = self._root
        style, state = self._styler.style(node, State(Inherited(), {}))
        width, height = self.size
        size: dict[str, str] = {"width": f"{width:.4f}", "height": f"{height:.4f}"}
        outer = size if parent else {"xmlns": SVG, "xmlns:xlink": XLINK} | size
        attributes = self._attributes(node, style, state)
        # Browsers show a root element whatever its `display` is.
        for name in ("x", "y", "width", "height", "transform", "display"):
            attributes.pop(name, None)
        background = self._background(style)
        move = self._root_transform(node, style)
        if not background and not move:
            return self._write_root({**outer, **attributes}, parent, state)
        element = self._open("svg", outer, parent, Inherited())
        if background:
            self._open("rect", {"width": "100%", "height": "100%", "fill": background}, element, element.inherited)
            self._output.text.append("</rect>")
        group = self._open("g", {"transform": move} if move else {}, element, element.inherited)
        self._write_root({**size, **attributes}, group, state)
        self._output.text.append("</g></svg>")
        return element

    def _write_root(self, attributes: dict[str, str], parent: Element | None, state: State) -> Element:
        element = self._open("svg", attributes, parent, state.cost)
        for child in self._root.elements:
            self._write(child, element, state._replace(cost=element.inherited))
        for name, primitives in self._filters.generated():
            self._write_generated(name, primitives, element)
        self._output.text.append("</svg>")
        return element

    def _write_generated(self, name: str, primitives: svg_filters.Primitives, parent: Element) -> None:
        """Write the `filter` element of a filter function."""
        element = self._open("filter", {"id": name, **svg_filters.REGION}, parent, parent.inherited)
        for tag, attributes, children in primitives:
            primitive = self._open(tag, attributes, element, element.inherited)
            for child_tag, child_attributes in children:
                self._open(child_tag, child_attributes, primitive, element.inherited)
                self._output.text.append(f"</{child_tag}>")
            self._output.text.append(f"</{tag}>")
        self._output.text.append("</filter>")

    def _open(self, tag: str, attributes: dict[str, str], parent: Element | None, inherited: Inherited) -> Element:
        """Write a start tag, and add the element to its parent."""
        element = Element(tag, attributes, inherited)
        element.references = [name for value in attributes.values() if "url(" in value for name in _REFERENCE.findall(value)]
        if attributes.get("xlink:href", "").startswith("#"):
            element.references.append(attributes["xlink:href"][1:])
        self._output.points += svg_cost.count_commands(attributes.get("d", ""))
        if self._output.points > svg_cost.MAX_POINTS:
            refuse("too-complex", "The SVG has too many points.", f"at most {svg_cost.MAX_POINTS} in all paths", "more")
        if "id" in attributes:
            self._output.ids.setdefault(attributes["id"], element)
        if parent is not None:
            parent.children.append(element)
        style = ";".join(f"{name}:{attributes[name]}" for name in _in_style(attributes))
        written = {name: value for name, value in attributes.items() if name not in _in_style(attributes)}
        written.update({"style": style} if style else {})
        self._output.text.append(f"<{tag}{''.join(f' {name}={_quoted(value)}' for name, value in written.items())}>")
        return element

    # Elements.

    def _write(self, node: Node, parent: Element, state: State) -> None:
        """Write an element with all below it, unless it draws nothing."""
        if not _is_rendered(node) or (node.tag in _RESOURCES and not self._is_needed(node)):
            return
        match node.tag:
            case "switch":
                self._write_switch(node, parent, state)
            case "foreignObject":
                style, _ = self._styler.style(node, state)
                if node.has_content and style.get("display") != "none" and not state.is_hidden:
                    refuse_unsupported("Drawings with HTML in a foreignObject", "foreignObject")
            case "image":
                self._write_image(node, parent, state)
            case "feImage":
                self._write_filter_image(node, parent, state)
            case "use" if not self._check_use(node):
                return
            case _:
                self._write_element(node, parent, state)

    def _write_switch(self, node: Node, parent: Element, state: State) -> None:
        """Write a `switch` as a group with the child that is shown (SVG 2 §5.9)."""
        candidates = [child for child in node.elements if _is_rendered(child)]
        if len(candidates) > 1 and candidates[0].tag == "foreignObject" and candidates[0].has_content:
            self._output.warnings.add("Removed HTML in a foreignObject: its fallback is drawn.")
            candidates = candidates[1:]
        group = Node("g", node.attributes, node.parent)
        group.name, group.index, group.type_index = node.name, node.index, node.type_index
        group.children = list(candidates[:1])
        group.elements = candidates[:1]
        self._write_element(group, parent, state)

    def _write_element(self, node: Node, parent: Element, state: State) -> None:
        style, inner = self._styler.style(node, state)
        if style.get("display") == "none" and node.tag == "stop":
            style["display"] = ""
        if style.get("display") == "none":
            # Browsers treat a hidden resource as a missing one.
            if node.tag in _RESOURCES or not self._is_needed(node):
                return
            inner = inner._replace(is_hidden=True)
        attributes = self._attributes(node, style, inner)
        if node.tag == "text" and inner.strokes_first and inner.is_stroked and not inner.part:
            self._write_text_twice(node, attributes, parent, inner)
        elif node.tag == "pattern" and _view_box(attributes) and not _is_stretched(attributes):
            self._write_pattern(node, attributes, parent, inner)
        else:
            self._write_tag(node, attributes, parent, inner)

    def _write_tag(self, node: Node, attributes: dict[str, str], parent: Element, state: State) -> None:
        if state.part:
            attributes["stroke" if state.part == "fill" else "fill"] = "none"
        element = self._open(node.tag, attributes, parent, state.cost)
        inner = state._replace(cost=element.inherited)
        if node.tag in TEXTS:
            self._write_text(node, element, inner)
        else:
            for child in node.elements:
                self._write(child, element, inner)
        self._output.text.append(f"</{node.tag}>")

    def _write_pattern(self, node: Node, attributes: dict[str, str], parent: Element, state: State) -> None:
        """Write a pattern with a view box as one without, whose content is in an `svg` element: librsvg misplaces the former."""
        frame = {name: attributes.pop(name) for name in (*_FRAME[2:], "viewBox", "overflow") if name in attributes}
        attributes |= {side: frame[side] for side in ("width", "height") if side in frame}
        if "xlink:href" in attributes or attributes.get("patternUnits") != "userSpaceOnUse":
            refuse_unsupported("Patterns with a view box and sizes relative to what they fill", f"viewBox={frame['viewBox']}")
        attributes["patternContentUnits"] = "userSpaceOnUse"
        if "overflow" in frame:
            attributes["overflow"] = frame["overflow"]
        element = self._open("pattern", attributes, parent, state.cost)
        content = self._open("svg", frame, element, state.cost)
        for child in node.elements:
            self._write(child, content, state._replace(cost=content.inherited))
        self._output.text.append("</svg></pattern>")

    def _write_text_twice(self, node: Node, attributes: dict[str, str], parent: Element, state: State) -> None:
        """Write the strokes of a text, and then its fills: librsvg ignores `paint-order` for texts."""
        of_group = {name: attributes.pop(name) for name in _OF_GROUPS if name in attributes}
        group = self._open("g", of_group, parent, state.cost)
        for part in ("stroke", "fill"):
            self._write_tag(node, dict(attributes), group, state._replace(part=part))
        self._output.text.append("</g>")

    def _write_text(self, node: Node, element: Element, state: State) -> None:
        """Write the content of a text, with a `tspan` for each character that has a position of its own."""
        if node.tag == "textPath":
            refuse_unsupported("Texts on a path", "textPath")
        if node.tag == "text":
            self._characters = Characters(state.keeps_space)
        characters = self._characters
        characters.enter(node.attributes)
        for child in node.children:
            if isinstance(child, Node):
                self._write(child, element, state)
                continue
            self._check_fonts(child, state)
            text = svg_values.transformed(child, state.text_transform)
            for position, piece in characters.split(text, state.word_spacing):
                if position:
                    self._output.text.append(f"<tspan{''.join(f' {name}={_quoted(value)}' for name, value in position.items())}>")
                self._output.text.append(escape(piece, quote=False) + ("</tspan>" if position else ""))
            characters.count += len(child)
        characters.leave()
        if node.tag == "text":
            # Text is laid out per `text` element, not per `tspan`.
            element.characters += characters.count

    def _check_fonts(self, text: str, state: State) -> None:
        """Warn of a text in an embedded font, and refuse symbols that only such a font has."""
        embedded = next((family for family in state.families if family in self._sheets.embedded_fonts), None)
        if embedded is None or not text.strip():
            return
        if _PRIVATE_USE.search(text):
            refuse_unsupported("Symbols of embedded fonts", embedded)
        self._output.warnings.add(f"Ignored the embedded font “{embedded}”: its text is drawn with an installed font.")

    def _check_use(self, node: Node) -> bool:
        """Return whether a `use` element refers to an element of the document."""
        address = node.attributes.get("href", "")
        name = svg_values.fragment(address)
        if name is None:
            if address.strip():
                self._output.warnings.add("Removed an element that is in another file.")
            return False
        target = self._document.ids.get(name)
        if target is not None and target.tag == "symbol":
            for side in ("width", "height"):
                if side in target.attributes:
                    node.attributes.setdefault(side, target.attributes[side])
            if "refX" in target.attributes or "refY" in target.attributes:
                refuse_unsupported("Symbols with a reference point", "refX, refY")
        return target is not None

    def _write_image(self, node: Node, parent: Element, state: State) -> None:
        style, inner = self._styler.style(node, state)
        address = node.attributes.get("href", "")
        if (style.get("display") == "none" and not self._is_needed(node)) or address.startswith("#"):
            # Browsers draw no element of the same document as a picture.
            return
        found = self._output.pictures.read(address)
        if found is None:
            return
        attributes = self._attributes(node, style, inner)
        if isinstance(found, Picture):
            _fill_in_size(attributes, found.width, found.height)
            element = self._open("image", {**attributes, "xlink:href": found.url}, parent, inner.cost)
            element.embedded_pixels = found.width * found.height
            self._output.text.append("</image>")
            return
        writer = self._embedded(found)
        if not writer.has_size and (given := [_pixels(attributes.get(side, "")) for side in ("width", "height")]) and all(given):
            # A document of no size of its own takes that of the picture, and is not scaled.
            writer.size = given[0] or 0.0, given[1] or 0.0
        _fill_in_size(attributes, *writer.size)
        # None of the properties that children inherit is passed on to the document.
        group = self._open("g", {name: value for name, value in attributes.items() if name in _OF_GROUPS}, parent, inner.cost)
        frame: dict[str, str] = {name: attributes[name] for name in _FRAME if name in attributes}
        frame["viewBox"] = f"0 0 {writer.size[0]:.4f} {writer.size[1]:.4f}"
        element = self._open("svg", {**frame, **svg_values.RESET}, group, Inherited())
        writer.write(element)
        self._output.text.append("</svg></g>")

    def _embedded(self, drawing: Drawing) -> _Writer:
        if self._nesting >= _MAX_NESTED:
            refuse("too-many-pixels", "Too many SVG documents are embedded in each other.", f"at most {_MAX_NESTED} levels", "more")
        return _Writer(drawing.body, self._output, self._nesting + 1)

    def _write_filter_image(self, node: Node, parent: Element, state: State) -> None:
        style, inner = self._styler.style(node, state)
        attributes = self._attributes(node, style, inner)
        address = node.attributes.get("href", "")
        if address.startswith("#"):
            refuse_unsupported("Filters with pictures of other elements", f"feImage {address}")
        found = self._output.pictures.read(address)
        if isinstance(found, Drawing):
            refuse_unsupported("Filters with an embedded SVG", "feImage")
        if found is not None:
            attributes["xlink:href"] = found.url
        element = self._open("feImage", attributes, parent, inner.cost)
        element.embedded_pixels = found.width * found.height if found is not None else 0
        self._output.text.append("</feImage>")

    def _is_needed(self, node: Node) -> bool:
        """Return whether something may refer to an element or to one below it."""
        return self._referenced is None or any(one.id in self._referenced for one in node.walk() if one.id)

    # Attributes.

    def _attributes(self, node: Node, style: Style, state: State) -> dict[str, str]:
        """Return the attributes of an element, its style among them."""
        attributes: dict[str, str] = {}
        if node.id:
            attributes["id"] = self._prefix + node.id
        for name, value in node.attributes.items():
            if name in _ATTRIBUTES:
                attributes[name] = value
            elif name in _LENGTHS:
                self._copy_length(node, name, value, attributes)
        for name in _GEOMETRY.get(node.tag, ()):
            if style.get(name):
                attributes[name] = style[name]
        attributes = {name: value for name, value in attributes.items() if name not in GEOMETRY or value != "auto"}
        address = svg_values.fragment(node.attributes.get("href", ""))
        if address is not None and node.tag in _HREF_TAGS:
            attributes["xlink:href"] = f"#{self._prefix}{address}"
        for name, value in style.items():
            if name not in _APPLIED and value:
                attributes[name] = self._own_references(value)
        self._transform(node, style, state, attributes)
        self._adapt(node, style, state, attributes)
        return attributes

    def _copy_length(self, node: Node, name: str, value: str, attributes: dict[str, str]) -> None:
        if node.tag in TEXTS and name in {"x", "y"}:
            positions = position_list(value)
            if len(positions) == 1:
                attributes[name] = positions[0]
        elif value.strip() and (length := self._styler.length(value)) is not None:
            attributes[name] = length

    def _own_references(self, value: str) -> str:
        return _REFERENCE.sub(rf"url(#{self._prefix}\1)", value) if self._prefix and "url(" in value else value

    def _transform(self, node: Node, style: Style, state: State, attributes: dict[str, str]) -> None:
        """Set the attribute `transform`, or that of gradients and patterns, from the properties that move an element."""
        name = _TRANSFORM_ATTRIBUTES.get(node.tag, "transform")
        if name != "transform":
            attributes.pop("transform", None)
        if not style.keys() & {"transform", "translate", "rotate", "scale", "transform-origin"}:
            return
        box, units = self._reference_box(node, style), self._styler.units
        size = box or self._viewport
        parts = [
            _supported(svg_transform.individual(individual, style[individual], size, units, state.font_size))
            for individual in ("translate", "rotate", "scale")
            if style.get(individual)
        ]
        own = attributes.get(name, "")
        if "transform" in style:
            own = _supported(svg_transform.functions(style["transform"] or "none", size, units, state.font_size))
        transform = " ".join(part for part in (*parts, own) if part)
        if "transform-origin" in style and not _ONLY_TRANSLATES.fullmatch(transform):
            if box is None:
                refuse_unsupported("Transforms about a point of the element's own box", f"transform-origin: {style['transform-origin']}")
            point = svg_transform.origin(style["transform-origin"], box, units, state.font_size)
            transform = svg_transform.around(transform, point or (0.0, 0.0))
        attributes.pop(name, None)
        if transform:
            attributes[name] = transform

    def _reference_box(self, node: Node, style: Style) -> Box | None:
        """Return the box that percentages of a transform refer to (CSS Transforms 1 §6), `None` if it is not known."""
        if style.get("transform-box", "view-box") in {"view-box", ""}:
            return Box(0.0, 0.0, self._viewport.width, self._viewport.height)
        return _bounding_box(node, style)

    def _adapt(self, node: Node, style: Style, state: State, attributes: dict[str, str]) -> None:
        """Change what librsvg would draw differently from browsers."""
        tag = node.tag
        if tag in SHAPES:
            if "pathLength" in node.attributes and state.is_dashed and state.is_stroked:
                refuse_unsupported("Dash patterns relative to a path length", f"pathLength={node.attributes['pathLength']}")
            if tag in {"polygon", "polyline"}:
                _drop_odd_number(attributes)
        elif tag in TEXTS:
            self._adapt_text(node, style, attributes)
        elif tag in FILTER_PRIMITIVES or tag == "feMergeNode":
            svg_filters.adapt(tag, attributes, state.color_space)
        elif tag in _GRADIENTS or tag == "mask":
            if attributes.get("color-interpolation", "").lower() == "linearrgb":
                refuse_unsupported(f"Elements {tag} in linear colors", "color-interpolation: linearRGB")
            if tag == "mask":
                attributes.pop("mask", None)
        elif tag == "filter" and attributes.get("filterUnits") != "userSpaceOnUse":
            has_region = attributes.keys() & {"xlink:href", *svg_cost.DEFAULT_FILTER_REGION}
            attributes.update({} if has_region else svg_cost.DEFAULT_FILTER_REGION)
        if "filter" in attributes and attributes["filter"] != "none":
            attributes["filter"] = self._filter(attributes["filter"])
        if style.get("white-space") in {"pre", "pre-wrap", "break-spaces"}:
            attributes["xml:space"] = "preserve"

    def _filter(self, value: str) -> str:
        """Return a list of filters, without references to missing ones, and with functions that librsvg draws as browsers do."""
        parts = self._filters.translate(value)
        known = [part for part in parts if (match := _REFERENCE.fullmatch(part)) is None or self._is_filter(match[1])]
        return " ".join(known) or "none"

    def _is_filter(self, name: str) -> bool:
        if self._filters.has(name):
            return True
        target = self._document.ids.get(name.removeprefix(self._prefix))
        return target is not None and target.tag == "filter"

    def _adapt_text(self, node: Node, style: Style, attributes: dict[str, str]) -> None:
        if any(float(number) for number in _NUMBER.findall(node.attributes.get("rotate", ""))):
            refuse_unsupported("Texts with rotated characters", f"rotate={node.attributes['rotate']}")
        if style.get("text-orientation") == "upright" or node.attributes.get("glyph-orientation-vertical") == "0":
            refuse_unsupported("Vertical texts with upright letters", "text-orientation: upright")
        if "textLength" in node.attributes:
            self._output.warnings.add("Ignored textLength: the text has its natural width.")
        for name in ("dx", "dy"):
            if len(position_list(attributes.get(name, ""))) > 1:
                del attributes[name]
        if node.tag != "text" and "opacity" in attributes:
            # librsvg applies opacity to whole texts only.
            opacity = float(attributes.pop("opacity"))
            for name in ("fill-opacity", "stroke-opacity"):
                attributes[name] = spelled(opacity * float(attributes.get(name, "1")))

    # The root element, which CSS treats as a box.

    def _background(self, style: Style) -> str:
        """Return the color that is painted behind the drawing, empty for none."""
        for name in ("background-image", "background"):
            text = style.get(name, "")
            if "gradient(" in text.lower() or "image(" in text.lower() or "url(data:" in re.sub(r"[\s'\"]", "", text.lower()):
                refuse_unsupported("Backgrounds other than colors", f"{name}: {text}")
        if any(float(number) for number in _NUMBER.findall(style.get("border", ""))) and "none" not in style["border"]:
            refuse_unsupported("Borders", f"border: {style['border']}")
        for name in reversed(list(style)):
            if name in {"background", "background-color"}:
                for token in tinycss2.parse_component_value_list(style[name], True):
                    color = svg_values.color(token, self._styler.units)
                    if color is not None:
                        return "" if color == "transparent" else color
                return ""
        return ""

    def _root_transform(self, node: Node, style: Style) -> str:
        """Return the transform of the whole document: that of the root element, and the distances around it."""
        width, height = self.size
        box, units = Box(0.0, 0.0, width, height), self._styler.units
        own = node.attributes.get("transform", "").strip()
        if "transform" in style:
            own = _supported(svg_transform.functions(style["transform"] or "none", box, units, units.root_font))
        if own:
            point = svg_transform.origin(style.get("transform-origin", "center"), box, units, units.root_font)
            own = svg_transform.around(own, point or (width / 2, height / 2))
        left = top = 0.0
        for name in ("margin", "padding"):
            sides = [_pixels(side) or 0.0 for side in style.get(name, "").split()] or [0.0]
            top += _pixels(style.get(f"{name}-top", "")) or sides[0]
            left += _pixels(style.get(f"{name}-left", "")) or sides[{1: 0, 2: 1, 3: 1}.get(len(sides), 3)]
        return f"{f'translate({spelled(left)} {spelled(top)})' if left or top else ''} {own}".strip()


def stated_size(attributes: Mapping[str, str]) -> tuple[float, float]:
    """Return the width and height in pixels that a root element states. Raises `ImageError`, `too-many-pixels`."""
    width, height = _pixels(attributes.get("width", "")), _pixels(attributes.get("height", ""))
    box = _view_box(attributes)
    ratio = box[3] / box[2] if box else None
    if width is None and height is None:
        width, height = (box[2], box[3]) if box else _DEFAULT_SIZE
    elif width is None:
        width = (height or 0) / ratio if ratio else _DEFAULT_SIZE[0]
    elif height is None:
        height = width * ratio if ratio else _DEFAULT_SIZE[1]
    width, height = width or 0, height or 0
    if not 0 < width <= MAX_SIDE or not 0 < height <= MAX_SIDE:
        refuse(
            "too-many-pixels",
            "The SVG is empty or too large.",
            f"sides above 0 and up to {MAX_SIDE} pixels",
            f"{width:g} x {height:g}",
        )
    return width, height


def _view_box(attributes: Mapping[str, str]) -> tuple[float, ...] | None:
    """Return the left, top, width and height of a valid view box, otherwise `None`."""
    parts = _SEPARATORS.split(attributes.get("viewBox", "").strip())
    numbers = [float(part) for part in parts if _NUMBER.fullmatch(part)]
    return tuple(numbers) if len(numbers) == len(parts) == 4 and numbers[2] > 0 and numbers[3] > 0 else None


def _viewport(attributes: Mapping[str, str], width: float, height: float) -> Box:
    box = _view_box(attributes)
    return Box(*box) if box else Box(0.0, 0.0, width, height)


def _pixels(length: str) -> float | None:
    match = _LENGTH.fullmatch(length)
    return float(match[1]) * _UNIT_PIXELS[match[2].lower()] if match else None


def _is_stretched(attributes: Mapping[str, str]) -> bool:
    """Return whether a pattern just stretches its content, from the origin."""
    is_at_origin = not {"x", "y"} & attributes.keys() and (_view_box(attributes) or ())[:2] == (0.0, 0.0)
    return is_at_origin and attributes.get("preserveAspectRatio") == "none"


def _in_style(attributes: Mapping[str, str]) -> list[str]:
    """Return the properties that must be written in `style`: those that librsvg reads only there, and those that `font` would override."""
    if "font" in attributes:
        return [name for name in attributes if name in _STYLE_ONLY or name.startswith("font-")]
    return [name for name in _STYLE_ONLY if name in attributes]


def _supported(value: str | Unsupported | None) -> str:
    if isinstance(value, Unsupported):
        refuse_unsupported(value.feature, value.value)
    return value or ""


def _is_rendered(node: Node) -> bool:
    """Return whether the conditions of an element are met (SVG 2 §5.9), for a reader of English."""
    extensions = node.attributes.get("requiredExtensions")
    if extensions is not None and not (extensions.split() and set(extensions.split()) <= _EXTENSIONS):
        return False
    languages = node.attributes.get("systemLanguage")
    return languages is None or any(tag.strip().lower() in {"en", "en-us"} for tag in languages.split(","))


def _referenced(document: Document) -> frozenset[str] | None:
    """Return the ids that something may refer to, `None` if that is not known."""
    texts = [css for css, _ in document.sheets]
    for node in document.root.walk():
        texts += (value for value in node.attributes.values() if "#" in value)
        if "\\" in node.attributes.get("style", ""):
            return None
    if any("\\" in css for css, _ in document.sheets):
        return None
    return frozenset(name for text in texts for name in re.findall(r"#([^\s\"'()]+)", text))


def _fill_in_size(attributes: dict[str, str], width: float, height: float) -> None:
    """Add the width and height that a picture has where only one of them is given, or none (CSS 2.1 §10.3.2)."""
    given = [_pixels(attributes.get(side, "")) for side in ("width", "height")]
    if "width" not in attributes:
        attributes["width"] = spelled(width if given[1] is None else given[1] * width / height)
    if "height" not in attributes:
        attributes["height"] = spelled(height if given[0] is None else given[0] * height / width)


def _quoted(value: str) -> str:
    """Return the value of an attribute in quotation marks. A parser would replace white space but the space (XML 1.0 §3.3.3)."""
    return f'"{escape(value).translate(_WHITE_SPACE)}"'


def _drop_odd_number(attributes: dict[str, str]) -> None:
    """Drop the last of an odd number of coordinates: browsers draw the points before an error (SVG 2 §10.6)."""
    points = attributes.get("points", "")
    numbers = _NUMBER.findall(points)
    if len(numbers) % 2:
        attributes["points"] = " ".join(numbers[:-1])


def _bounding_box(node: Node, style: Style) -> Box | None:
    """Return the bounding box of a simple shape, `None` if it is not known."""

    def side(name: str) -> float:
        text = style.get(name) or node.attributes.get(name, "0")
        found = _NUMBER.fullmatch(text.strip().removesuffix("px"))
        return float(found[0]) if found else float("nan")

    match node.tag:
        case "rect" | "image":
            box = Box(side("x"), side("y"), side("width"), side("height"))
        case "circle":
            box = Box(side("cx") - side("r"), side("cy") - side("r"), 2 * side("r"), 2 * side("r"))
        case "ellipse":
            box = Box(side("cx") - side("rx"), side("cy") - side("ry"), 2 * side("rx"), 2 * side("ry"))
        case "line":
            xs, ys = sorted((side("x1"), side("x2"))), sorted((side("y1"), side("y2")))
            box = Box(xs[0], ys[0], xs[1] - xs[0], ys[1] - ys[0])
        case "polygon" | "polyline":
            numbers = [float(number) for number in _NUMBER.findall(node.attributes.get("points", ""))]
            if len(numbers) < 2:
                return None
            xs, ys = numbers[::2], numbers[1::2]
            box = Box(min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
        case _:
            return None
    return None if any(map(isnan, box)) else box
