"""The style sheets of an SVG document: which declarations apply to which element.

Conditions are evaluated for a screen of the document's own size, in light colors, without a pointer: as for the SVG of an `<img>`. Each
element gets its own declarations, so that the drawing needs no selectors, at-rules or custom properties.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import tinycss2
from tinycss2.ast import FunctionBlock
from tinycss2.nth import parse_nth

from service.worker.formats.svg_tree import SVG, Document, Node, Warnings, refuse, refuse_unsupported, word_set

# tinycss2's nodes have no types.
Token: TypeAlias = Any
Tokens: TypeAlias = list[Any]

# Limits of all style sheets and attributes that have to be parsed: tinycss2 takes about 10 µs per token.
_MAX_BYTES = 512 << 10
_MAX_TOKENS = 100_000
# Steps of matching selectors with elements, of about 1 µs.
_MAX_STEPS = 1_000_000
_DECLARATION_STEPS = 2
_MAX_RULES = 10_000
_MAX_NESTING = 16

# Embedded files within CSS, which are fonts for the most part, are not worth parsing.
_LONG_DATA = re.compile(r"url\(\s*(?:\"data:[^\"]{200,}\"|'data:[^']{200,}'|data:[^)\"']{200,})\s*\)", re.IGNORECASE)
# A `style` attribute that can be split at its semicolons and colons. Inkscape writes one for each element.
_PLAIN_STYLE = re.compile(r"(?:[^\"'(){}\\!@;/-]|/(?!\*)|-(?!-)|;|\"[^\";\\\n]*\"|'[^';\\\n]*'|\([^\"'();{}\\]*\))*+")
_TOKEN = re.compile(r"[\w-]+|[^\w\s-]")

_NEVER = word_set(
    """
    hover active focus focus-visible focus-within visited target target-within checked disabled enabled indeterminate default valid
    invalid required optional read-only read-write placeholder-shown autofill fullscreen modal open popover-open playing paused muted
    user-valid user-invalid in-range out-of-range current past future picture-in-picture defined host scope any-link link
    """
)
_ALTERNATIVES = frozenset({"is", "where", "matches", "-webkit-any", "-moz-any", "any"})


class InvalidSelectorError(Exception):
    """A selector that CSS drops with its whole rule."""


class Declaration(NamedTuple):
    """A value for a property.

    name: of the property, in lowercase unless it is custom.
    value: tokens, or text that has not been parsed.
    in_css: whether it comes from a style sheet or a `style` attribute.
    """

    name: str
    value: Tokens | str
    in_css: bool


Test: TypeAlias = Callable[[Node], bool]
Specificity: TypeAlias = tuple[int, int, int]


class Compound(NamedTuple):
    """Simple selectors that all match one element (Selectors 4 §3.1)."""

    tag: str | None
    ids: tuple[str, ...]
    classes: frozenset[str]
    tests: tuple[Test, ...]

    def matches(self, node: Node) -> bool:
        """Return whether an element has all the features."""
        return (
            (self.tag is None or self.tag == node.name)
            and all(name == node.id for name in self.ids)
            and self.classes <= node.classes
            and all(test(node) for test in self.tests)
        )


class Selector(NamedTuple):
    """Compound selectors, and the combinators between them."""

    compounds: tuple[Compound, ...]
    combinators: tuple[str, ...]
    specificity: Specificity


class Rule(NamedTuple):
    """The declarations of a rule, split by importance, and where it stands in the cascade."""

    selector: Selector
    normal: list[Declaration]
    important: list[Declaration]
    layer: int
    order: int


_UNLAYERED = 1 << 20


class StyleSheets:
    """All rules of a document.

    embedded_fonts: the families, in lowercase, of fonts that are embedded.
    """

    def __init__(self, document: Document, viewport: tuple[float, float], warnings: Warnings) -> None:
        """Parse the style sheets.

        viewport: width and height of the document in pixels, for media queries.

        Raises `ImageError` if there is too much to parse.
        """
        self.embedded_fonts: set[str] = set()
        self._viewport = viewport
        self._warnings = warnings
        self._bytes = self._tokens = self._steps = self._rules = 0
        self._by_id: dict[str, list[Rule]] = {}
        self._by_class: dict[str, list[Rule]] = {}
        self._by_tag: dict[str, list[Rule]] = {}
        self._others: list[Rule] = []
        self._layers: dict[str, int] = {}
        self._prefixes: dict[str, str] = {}
        for css, media in document.sheets:
            if not media.strip() or media_matches(tinycss2.parse_component_value_list(self.checked(media), True), viewport):
                self._add(tinycss2.parse_stylesheet(self.checked(css), True, True), None, "", 0)

    @property
    def is_empty(self) -> bool:
        """Whether there are no rules."""
        return not self._rules

    def checked(self, css: str) -> str:
        """Return CSS that may be parsed, without long embedded files. Raises `ImageError` if there is too much in all."""
        if len(css) > 200:
            css = _LONG_DATA.sub("url(data:,)", css)
        self._bytes += len(css)
        if self._bytes <= _MAX_BYTES:
            self._tokens += len(css) if len(css) < 100 else sum(1 for _ in _TOKEN.finditer(css))
        if self._bytes > _MAX_BYTES or self._tokens > _MAX_TOKENS:
            _refuse_complex()
        return css

    def declarations(self, node: Node, presentation: Iterable[Declaration]) -> list[Declaration]:
        """Return the declarations for an element, in the order of the cascade: later ones override earlier ones.

        presentation: those of its attributes.
        """
        found: list[tuple[tuple[int, ...], Declaration]] = []
        for rule in self._matching(node):
            place = (*rule.selector.specificity, rule.order)
            found += (((0, rule.layer, 0, *place), declaration) for declaration in rule.normal)
            found += (((1, 0, -rule.layer, *place), declaration) for declaration in rule.important)
        self._count(_DECLARATION_STEPS * len(found))
        style = node.attributes.get("style", "")
        if style.strip():
            normal, important = self._parse_style(style)
            found += (((0, _UNLAYERED, 1), declaration) for declaration in normal)
            found += (((1, 1, 0), declaration) for declaration in important)
        found.sort(key=lambda entry: entry[0])
        return [*presentation, *(declaration for _, declaration in found)]

    def _parse_style(self, style: str) -> tuple[list[Declaration], list[Declaration]]:
        """Return the normal and the important declarations of a `style` attribute."""
        if not _PLAIN_STYLE.fullmatch(style):
            return _split(tinycss2.parse_blocks_contents(self.checked(style), True, True))
        pairs = (declaration.partition(":") for declaration in style.split(";"))
        return [Declaration(name.strip().lower(), value.strip(), in_css=True) for name, _, value in pairs if value.strip()], []

    def _count(self, steps: int) -> None:
        self._steps += steps
        if self._steps > _MAX_STEPS:
            _refuse_complex()

    def _matching(self, node: Node) -> list[Rule]:
        candidates = list(self._others)
        candidates += self._by_tag.get(node.name, ())
        candidates += self._by_id.get(node.id, ()) if node.id else ()
        for name in node.classes:
            candidates += self._by_class.get(name, ())
        return [rule for rule in candidates if self._matches(rule.selector, len(rule.selector.compounds) - 1, node)]

    def _matches(self, selector: Selector, at: int, node: Node) -> bool:
        self._count(1)
        if not selector.compounds[at].matches(node):
            return False
        if at == 0:
            return True
        combinator = selector.combinators[at - 1]
        if node.parent is None:
            return False
        if combinator in {"+", "~"}:
            earlier = node.parent.everything[: node.index]
            return any(self._matches(selector, at - 1, one) for one in reversed(earlier[-1:] if combinator == "+" else earlier))
        ancestor: Node | None = node.parent
        while ancestor is not None:
            if self._matches(selector, at - 1, ancestor):
                return True
            ancestor = ancestor.parent if combinator == " " else None
        return False

    def _add(self, contents: Sequence[Token], parents: list[Selector] | None, layer: str, depth: int) -> None:
        """Add the rules of a sheet or block.

        parents: the selectors of the rule around it.
        """
        if depth > _MAX_NESTING:
            _refuse_complex()
        for rule in contents:
            if rule.type == "qualified-rule":
                self._add_style_rule(rule, parents, layer, depth)
            elif rule.type == "at-rule":
                self._add_at_rule(rule, parents, layer, depth)

    def _add_style_rule(self, rule: Token, parents: list[Selector] | None, layer: str, depth: int) -> None:
        try:
            selectors = self._parse_selectors(rule.prelude, parents)
        except InvalidSelectorError:
            return
        contents = tinycss2.parse_blocks_contents(rule.content, True, True)
        self._add_declarations(contents, selectors, layer)
        self._add(contents, selectors, layer, depth + 1)

    def _add_declarations(self, contents: Sequence[Token], selectors: list[Selector], layer: str) -> None:
        normal, important = _split(contents)
        if not normal and not important:
            return
        rank = self._layers.setdefault(layer, len(self._layers)) if layer else _UNLAYERED
        for selector in selectors:
            self._rules += 1
            if self._rules > _MAX_RULES:
                _refuse_complex()
            rule = Rule(selector, normal, important, rank, self._rules)
            subject = selector.compounds[-1]
            if subject.ids:
                self._by_id.setdefault(subject.ids[0], []).append(rule)
            elif subject.classes:
                self._by_class.setdefault(min(subject.classes), []).append(rule)
            elif subject.tag is not None:
                self._by_tag.setdefault(subject.tag, []).append(rule)
            else:
                self._others.append(rule)

    def _add_at_rule(self, rule: Token, parents: list[Selector] | None, layer: str, depth: int) -> None:
        name = rule.lower_at_keyword
        if name == "import":
            self._warnings.add("Removed an @import of an outside style sheet.")
        elif name == "font-face":
            self._note_font(rule.content or [])
        elif name == "namespace":
            self._note_namespace(rule.prelude)
        elif name == "layer":
            self._add_layer(rule, parents, layer, depth)
        elif name in {"media", "supports"} and rule.content is not None:
            applies = media_matches(rule.prelude, self._viewport) if name == "media" else supports_matches(rule.prelude)
            if applies:
                self._add_block(rule.content, parents, layer, depth)
        elif name.endswith("keyframes"):
            self._warnings.add("Removed animation: the drawing is shown as it is without it.")
        elif name in {"container", "scope"} and rule.content:
            refuse_unsupported(f"Style sheets with @{name}", f"@{name}")

    def _add_block(self, content: Tokens, parents: list[Selector] | None, layer: str, depth: int) -> None:
        if parents is None:
            contents = tinycss2.parse_rule_list(content, True, True)
        else:
            contents = tinycss2.parse_blocks_contents(content, True, True)
            self._add_declarations(contents, parents, layer)
        self._add(contents, parents, layer, depth + 1)

    def _add_layer(self, rule: Token, parents: list[Selector] | None, layer: str, depth: int) -> None:
        names = [f"{layer}.{part.strip()}" for part in tinycss2.serialize(rule.prelude).split(",")]
        for name in names:
            self._layers.setdefault(name, len(self._layers))
        if rule.content is not None:
            self._add_block(rule.content, parents, names[0] if names[0] != f"{layer}." else f"{layer}.#{self._rules}", depth)

    def _note_font(self, content: Tokens) -> None:
        family, embedded, outside = "", False, False
        for item in tinycss2.parse_blocks_contents(content, True, True):
            if item.type != "declaration":
                continue
            if item.lower_name == "font-family":
                family = font_families(item.value)[0] if font_families(item.value) else ""
            elif item.lower_name == "src":
                addresses = [url_of(token) for token in item.value]
                embedded |= any(address is not None and address[:5].lower() == "data:" for address in addresses)
                outside |= any(address is not None and address[:5].lower() != "data:" for address in addresses)
        if embedded:
            self.embedded_fonts.add(family)
        elif outside:
            self._warnings.add("Removed a font that is in another file: its text is drawn with an installed font.")

    def _note_namespace(self, prelude: Tokens) -> None:
        parts = [token for token in prelude if token.type != "whitespace"]
        prefix = parts[0].value if parts and parts[0].type == "ident" else ""
        address = next((url_of(token) or getattr(token, "value", "") for token in parts if token.type in {"url", "string", "function"}), "")
        self._prefixes[prefix] = str(address)

    # Selectors (Selectors 4).

    def _parse_selectors(self, tokens: Tokens, parents: list[Selector] | None, *, forgiving: bool = False) -> list[Selector]:
        """Return the selectors of a list. Raises `InvalidSelectorError`."""
        selectors = []
        for part in split_at(tokens, ","):
            try:
                selectors.append(self._parse_selector(_stripped(part), parents))
            except InvalidSelectorError:
                if not forgiving:
                    raise
        return selectors

    def _parse_selector(self, tokens: Tokens, parents: list[Selector] | None) -> Selector:
        compounds: list[Compound] = []
        combinators: list[str] = []
        specificity = [0, 0, 0]
        is_relative = parents is not None and not any(token.type == "literal" and token.value == "&" for token in tokens)
        position = 0
        if is_relative and parents is not None:
            compounds.append(self._parent_compound(parents, specificity))
            combinators.append(" ")
            if tokens and tokens[0].type == "literal" and tokens[0].value in {">", "+", "~"}:
                combinators[-1] = tokens[0].value
                position = 1
        if not tokens:
            raise InvalidSelectorError
        while True:
            while position < len(tokens) and tokens[position].type == "whitespace":
                position += 1
            compound, position = self._parse_compound(tokens, position, parents, specificity)
            compounds.append(compound)
            if position >= len(tokens):
                break
            combinator, position = _parse_combinator(tokens, position)
            combinators.append(combinator)
        return Selector(tuple(compounds), tuple(combinators), (specificity[0], specificity[1], specificity[2]))

    def _parent_compound(self, parents: list[Selector], specificity: list[int]) -> Compound:
        _add_specificity(specificity, max((parent.specificity for parent in parents), default=(0, 0, 0)))
        return Compound(None, (), frozenset(), (self._any_of(parents),))

    def _any_of(self, selectors: list[Selector]) -> Test:
        return lambda node: any(self._matches(selector, len(selector.compounds) - 1, node) for selector in selectors)

    def _parse_compound(
        self, tokens: Tokens, position: int, parents: list[Selector] | None, specificity: list[int]
    ) -> tuple[Compound, int]:
        tag: str | None = None
        ids: list[str] = []
        classes: list[str] = []
        tests: list[Test] = []
        start = position
        name, position = self._parse_type(tokens, position)
        if name is not None and name != "*":
            tag = name
            specificity[2] += 1
        while position < len(tokens):
            token = tokens[position]
            following = tokens[position + 1] if position + 1 < len(tokens) else None
            if token.type == "hash":
                ids.append(token.value)
                specificity[0] += 1
            elif token.type == "[] block":
                tests.append(_attribute_test(token.content))
                specificity[1] += 1
            elif token.type == "literal" and token.value == "." and following is not None and following.type == "ident":
                classes.append(following.value)
                specificity[1] += 1
                position += 1
            elif token.type == "literal" and token.value == "&":
                compound = self._parent_compound(parents, specificity) if parents is not None else None
                tests += compound.tests if compound else [lambda node: node.parent is None]
            elif token.type == "literal" and token.value == ":" and following is not None:
                tests.append(self._parse_pseudo_class(following, specificity))
                position += 1
            else:
                break
            position += 1
        if position == start:
            raise InvalidSelectorError
        return Compound(tag, tuple(ids), frozenset(classes), tuple(tests)), position

    def _parse_type(self, tokens: Tokens, position: int) -> tuple[str | None, int]:
        """Return a type selector, `*` for any element, `None` without one, and the position after it."""
        names: list[str] = []
        while position < len(tokens) and len(names) < 3:
            token = tokens[position]
            if (token.type == "ident" and (not names or names[-1] == "|")) or (
                token.type == "literal" and token.value in {"*", "|"} and (not names or token.value == "|" or names[-1] == "|")
            ):
                names.append(token.value)
            else:
                break
            position += 1
        if not names:
            # A compound without a type selector has the default namespace as well, but `:root` of such a sheet should apply.
            return None, position
        if "|" not in names:
            return (names[0] if self._prefixes.get("", SVG) == SVG else ""), position
        prefix, name = "".join(names).split("|", 1)
        if prefix not in {"*", ""} and prefix not in self._prefixes:
            raise InvalidSelectorError
        return (name if prefix == "*" or self._prefixes.get(prefix, "") == SVG else ""), position

    def _parse_pseudo_class(self, token: Token, specificity: list[int]) -> Test:
        """Return the test of a pseudo-class. Raises `InvalidSelectorError` for an unknown one, and for pseudo-elements."""
        if token.type == "ident":
            specificity[1] += 1
            test = _STRUCTURAL.get(token.lower_value)
            if test is not None:
                return test
            if token.lower_value in _NEVER:
                return lambda node: False  # noqa: ARG005
        elif token.type == "function":
            return self._parse_functional(token.lower_name, token.arguments, specificity)
        raise InvalidSelectorError

    def _parse_functional(self, name: str, arguments: Tokens, specificity: list[int]) -> Test:
        if name == "not" or name in _ALTERNATIVES:
            selectors = self._parse_selectors(arguments, None, forgiving=name != "not")
            if name != "where":
                _add_specificity(specificity, max((selector.specificity for selector in selectors), default=(0, 0, 0)))
            inner = self._any_of(selectors)
            return (lambda node: not inner(node)) if name == "not" else inner
        if name == "has":
            refuse_unsupported("Selectors with :has()", ":has()")
        specificity[1] += 1
        if name in {"nth-child", "nth-last-child", "nth-of-type", "nth-last-of-type"}:
            formula = parse_nth(arguments)
            if formula is not None:
                return _nth_test(name, *formula)
        if name in {"lang", "dir", "state", "host", "active-view-transition-type"}:
            return lambda node: False  # noqa: ARG005
        raise InvalidSelectorError


def _parse_combinator(tokens: Tokens, position: int) -> tuple[str, int]:
    """Return the combinator at a position between two compounds, and the position after it. Raises `InvalidSelectorError`."""
    combinator = " " if tokens[position].type == "whitespace" else ""
    while position < len(tokens) and tokens[position].type == "whitespace":
        position += 1
    if position < len(tokens) and tokens[position].type == "literal" and tokens[position].value in {">", "+", "~"}:
        return str(tokens[position].value), position + 1
    if not combinator:
        raise InvalidSelectorError
    return combinator, position


def _add_specificity(total: list[int], more: Specificity) -> None:
    for index, number in enumerate(more):
        total[index] += number


def _attribute_test(tokens: Tokens) -> Test:
    """Return the test of an attribute selector (Selectors 4 §6). Raises `InvalidSelectorError`."""
    parts = [token for token in tokens if token.type != "whitespace"]
    if parts and parts[0].type == "literal" and parts[0].value in {"*", "|"}:
        parts = parts[1 + (len(parts) > 1 and parts[1].type == "literal" and parts[1].value == "|") :]
    elif len(parts) > 2 and parts[1].type == "literal" and parts[1].value == "|" and parts[2].type == "ident":
        prefix = parts[0].value
        parts = parts[2:]
        if prefix == "xlink" and parts[0].value != "href":
            return lambda node: False  # noqa: ARG005
    if not parts or parts[0].type != "ident":
        raise InvalidSelectorError
    name = parts[0].value
    if len(parts) == 1:
        return lambda node: name in node.attributes
    if len(parts) not in {3, 4} or parts[1].type != "literal" or parts[2].type not in {"ident", "string"}:
        raise InvalidSelectorError
    operator, expected = parts[1].value, parts[2].value
    fold = len(parts) == 4 and parts[3].type == "ident" and parts[3].lower_value == "i"
    expected = expected.lower() if fold else expected
    compare = _ATTRIBUTE_OPERATORS.get(operator)
    if compare is None:
        raise InvalidSelectorError

    def test(node: Node) -> bool:
        value = node.attributes.get(name)
        return value is not None and compare(value.lower() if fold else value, expected)

    return test


_ATTRIBUTE_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "=": lambda value, expected: value == expected,
    "~=": lambda value, expected: bool(expected) and expected in value.split(),
    "|=": lambda value, expected: value == expected or value.startswith(expected + "-"),
    "^=": lambda value, expected: bool(expected) and value.startswith(expected),
    "$=": lambda value, expected: bool(expected) and value.endswith(expected),
    "*=": lambda value, expected: bool(expected) and expected in value,
}


def _count(node: Node, *, same_type: bool) -> int:
    """Return how many siblings an element has, itself included."""
    if node.parent is None:
        return 1
    if not same_type:
        return len(node.parent.everything)
    return node.parent.counts.get(node.name, 1)


def _nth_test(name: str, step: int, offset: int) -> Test:
    same_type = name.endswith("of-type")
    from_end = "last" in name

    def test(node: Node) -> bool:
        place = 1 + (node.type_index if same_type else node.index)
        if from_end:
            place = _count(node, same_type=same_type) + 1 - place
        difference = place - offset
        return difference == 0 if step == 0 else difference % step == 0 and difference // step >= 0

    return test


_STRUCTURAL: dict[str, Test] = {
    "root": lambda node: node.parent is None,
    "empty": lambda node: not node.children and not node.everything,
    "first-child": lambda node: node.index == 0,
    "last-child": lambda node: node.index + 1 == _count(node, same_type=False),
    "only-child": lambda node: _count(node, same_type=False) == 1,
    "first-of-type": lambda node: node.type_index == 0,
    "last-of-type": lambda node: node.type_index + 1 == _count(node, same_type=True),
    "only-of-type": lambda node: _count(node, same_type=True) == 1,
}


# Conditions (Media Queries 4, CSS Conditional Rules 3). The document of an `<img>` has no screen, hence no color.

_FEATURES = {
    "prefers-color-scheme": "light",
    "prefers-reduced-motion": "no-preference",
    "prefers-reduced-data": "no-preference",
    "prefers-reduced-transparency": "no-preference",
    "prefers-contrast": "no-preference",
    "forced-colors": "none",
    "inverted-colors": "none",
    "color-gamut": "srgb",
    "dynamic-range": "standard",
    "video-dynamic-range": "standard",
    "display-mode": "browser",
    "hover": "hover",
    "any-hover": "hover",
    "pointer": "fine",
    "any-pointer": "fine",
    "update": "fast",
    "overflow-block": "scroll",
    "overflow-inline": "scroll",
    "scripting": "none",
    "scan": "progressive",
    "grid": "0",
    "monochrome": "0",
    "color-index": "0",
    "color": "0",
    "resolution": "1",
    "-webkit-device-pixel-ratio": "1",
    "-webkit-transform-3d": "1",
}
_NUMERIC_FEATURES = frozenset({"color", "resolution", "monochrome", "color-index", "-webkit-device-pixel-ratio", "grid"})
_NONE_VALUES = frozenset({"none", "no-preference", "0"})
_UNITS = {"px": 1.0, "em": 16.0, "rem": 16.0, "cm": 96 / 2.54, "mm": 96 / 25.4, "in": 96.0, "pt": 4 / 3, "pc": 16.0, "q": 96 / 101.6}
_RESOLUTIONS = {"dppx": 1.0, "x": 1.0, "dpi": 1 / 96, "dpcm": 2.54 / 96}


def media_matches(prelude: Tokens, viewport: tuple[float, float]) -> bool:
    """Return whether a list of media queries applies.

    viewport: width and height in pixels.
    """
    if not _stripped(prelude):
        return True
    return any(_query_matches(_words(query), viewport) for query in split_at(prelude, ","))


def _query_matches(tokens: Tokens, viewport: tuple[float, float]) -> bool:
    negated = False
    rest = tokens
    if rest and _is_word(rest[0], "only"):
        rest = rest[1:]
    elif len(rest) > 1 and _is_word(rest[0], "not") and rest[1].type == "ident":
        negated, rest = True, rest[1:]
    applies: bool | None = True
    if rest and rest[0].type == "ident" and not _is_word(rest[0], "not"):
        applies = rest[0].lower_value in {"all", "screen"}
        rest = rest[1:]
        if rest and not _is_word(rest[0], "and"):
            return False
        rest = rest[1:]
        if not rest:
            return applies is not negated
    elif not rest:
        return False
    condition = _condition(rest, lambda token: _feature_matches(token, viewport))
    if condition is None:
        return False
    return (applies and condition) is not negated


def supports_matches(prelude: Tokens) -> bool:
    """Return whether a condition of `@supports` holds. Every declaration counts as supported, except those of other browsers."""
    return bool(_condition(_words(prelude), _declaration_supported))


def _declaration_supported(token: Token) -> bool | None:
    if token.type == "function":
        return token.lower_name in {"selector", "font-tech", "font-format"}
    text = tinycss2.serialize(token.content).strip().lower()
    return ":" in text and not text.startswith(("-moz-", "-ms-", "-o-", "-khtml-"))


def _condition(tokens: Tokens, leaf: Callable[[Token], bool | None]) -> bool | None:
    """Return the value of conditions that `not`, `and` and `or` combine, `None` if they are unknown or invalid."""
    if not tokens:
        return None
    if _is_word(tokens[0], "not"):
        inner = _condition(tokens[1:], leaf) if len(tokens) == 2 else None
        return None if inner is None else not inner
    values = [_term(token, leaf) for token in tokens[::2]]
    operators = {token.lower_value if token.type == "ident" else "" for token in tokens[1::2]}
    if len(tokens) % 2 == 0 or len(operators) > 1 or not operators <= {"and", "or"}:
        return None
    if operators == {"or"}:
        return True if True in values else None if None in values else False
    return False if False in values else None if None in values else True


def _term(token: Token, leaf: Callable[[Token], bool | None]) -> bool | None:
    if token.type == "function":
        return leaf(token)
    if token.type != "() block":
        return None
    words = _words(token.content)
    nested = words and (words[0].type in {"() block", "function"} or _is_word(words[0], "not"))
    return _condition(words, leaf) if nested else leaf(token)


def _feature_matches(token: Token, viewport: tuple[float, float]) -> bool | None:
    """Return whether a media feature in parentheses has the requested value, `None` if it is unknown."""
    if token.type != "() block":
        return None
    words = _words(token.content)
    comparisons = _comparisons(words)
    if comparisons is None:
        return None
    results = [_compare(name, operator, value, viewport) for name, operator, value in comparisons]
    return None if None in results else all(results)


def _comparisons(words: Tokens) -> list[tuple[str, str, Tokens]] | None:
    """Return the comparisons in a media feature, each as the feature's name, the operator, and the value; `None` if it is invalid."""
    if len(words) == 1 and words[0].type == "ident":
        return [(words[0].lower_value, "?", [])]
    if len(words) > 2 and words[0].type == "ident" and _is_literal(words[1], ":"):
        name = words[0].lower_value
        for prefix, operator in (("min-", ">="), ("max-", "<=")):
            if prefix in name:
                return [(name.replace(prefix, "", 1), operator, words[2:])]
        return [(name, "=", words[2:])]
    return _range(words)


def _range(words: Tokens) -> list[tuple[str, str, Tokens]] | None:
    """Return the comparisons of a feature in a range context (Media Queries 4 §2.4.3)."""
    sides: list[Tokens] = [[]]
    operators: list[str] = []
    for word in words:
        if word.type == "literal" and word.value in {"<", ">", "=", "<=", ">="}:
            if word.value == "=" and operators and not sides[-1]:
                operators[-1] += "="
                continue
            operators.append(word.value)
            sides.append([])
        else:
            sides[-1].append(word)
    names = [index for index, side in enumerate(sides) if len(side) == 1 and side[0].type == "ident"]
    if len(sides) not in {2, 3} or not names or not all(sides):
        return None
    at = 1 if len(sides) == 3 else names[0]
    if sides[at][0].type != "ident":
        return None
    name = sides[at][0].lower_value
    found = []
    for index, operator in enumerate(operators):
        if index == at:
            found.append((name, operator, sides[index + 1]))
        else:
            found.append((name, {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(operator, operator), sides[index]))
    return found


def _compare(name: str, operator: str, value: Tokens, viewport: tuple[float, float]) -> bool | None:
    width, height = viewport
    actual = {
        "width": width,
        "device-width": width,
        "inline-size": width,
        "height": height,
        "device-height": height,
        "block-size": height,
        "aspect-ratio": width / height,
        "device-aspect-ratio": width / height,
    }.get(name)
    if name == "orientation":
        return operator == "?" or _text(value) == ("portrait" if height >= width else "landscape")
    if actual is None and name in _NUMERIC_FEATURES:
        actual = float(_FEATURES[name])
    if actual is None:
        text = _FEATURES.get(name)
        if text is None:
            return None
        return text not in _NONE_VALUES if operator == "?" else _text(value) == text or (name == "color-gamut" and _text(value) == "srgb")
    if operator == "?":
        return actual != 0
    number = _media_number(value)
    if number is None:
        return None
    return {"=": actual == number, ">=": actual >= number, "<=": actual <= number, ">": actual > number, "<": actual < number}[operator]


def _media_number(value: Tokens) -> float | None:
    """Return a length in pixels, a ratio, a resolution or a number."""
    if len(value) == 3 and _is_literal(value[1], "/") and value[0].type == value[2].type == "number" and value[2].value:
        return float(value[0].value / value[2].value)
    if len(value) != 1:
        return None
    token = value[0]
    if token.type == "number":
        return float(token.value)
    if token.type == "dimension":
        factor = (_UNITS | _RESOLUTIONS).get(token.lower_unit)
        return None if factor is None else float(token.value * factor)
    return None


# Tokens.


def _split(contents: Sequence[Token]) -> tuple[list[Declaration], list[Declaration]]:
    """Return the declarations of a block: the normal and the important ones."""
    split: tuple[list[Declaration], list[Declaration]] = ([], [])
    for item in contents:
        if item.type == "declaration":
            name = item.name if item.name.startswith("--") else item.lower_name
            split[item.important].append(Declaration(name, _stripped(item.value), in_css=True))
    return split


def split_at(tokens: Tokens, separator: str) -> list[Tokens]:
    """Return the parts of a list between literal tokens."""
    parts: list[Tokens] = [[]]
    for token in tokens:
        if _is_literal(token, separator):
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _stripped(tokens: Tokens) -> Tokens:
    start, end = 0, len(tokens)
    while start < end and tokens[start].type == "whitespace":
        start += 1
    while end > start and tokens[end - 1].type == "whitespace":
        end -= 1
    return tokens[start:end]


def _words(tokens: Tokens) -> Tokens:
    return [token for token in tokens if token.type != "whitespace"]


def _is_word(token: Token, word: str) -> bool:
    return bool(token.type == "ident" and token.lower_value == word)


def _is_literal(token: Token, text: str) -> bool:
    return bool(token.type == "literal" and token.value == text)


def _text(tokens: Tokens) -> str:
    return str(tinycss2.serialize(tokens)).strip().lower()


def url_of(token: Token) -> str | None:
    """Return the URL of a token, `None` if it is none. Escapes are resolved."""
    if token.type == "url":
        return str(token.value)
    if token.type == "function" and token.lower_name in {"url", "src"}:
        inner = _words(token.arguments)
        return str(inner[0].value) if len(inner) >= 1 and inner[0].type == "string" else ""
    return None


def font_families(tokens: Tokens) -> list[str]:
    """Return the families of a `font-family`, in lowercase."""
    families = []
    for part in split_at(tokens, ","):
        names = [str(token.value) for token in part if token.type in {"ident", "string"}]
        if names:
            families.append(" ".join(names).lower())
    return families


def _refuse_complex() -> None:
    refuse(
        "too-complex",
        "The SVG's style sheets are too large or too complex.",
        f"at most {_MAX_BYTES >> 10} KiB of CSS in {_MAX_TOKENS} tokens and {_MAX_RULES} selectors",
        "more, or selectors that are slow to match",
    )


# Variables (CSS Custom Properties 1).

_MAX_SUBSTITUTED = 2_000
_MAX_SUBSTITUTION_DEPTH = 16


def has_variables(tokens: Tokens) -> bool:
    """Return whether a value has references to variables, at any depth."""
    return any(_is_variable(token) or has_variables(_inner(token)) for token in tokens)


def substitute(tokens: Tokens, custom: Mapping[str, Tokens], depth: int = 0) -> Tokens | None:
    """Return a value with its variables replaced, `None` if one is undefined and has no fallback, or refers to itself.

    custom: the custom properties of the element.
    """
    if depth > _MAX_SUBSTITUTION_DEPTH:
        return None
    result: Tokens = []
    for token in tokens:
        if _is_variable(token):
            replacement = _replacement(token, custom, depth)
            if replacement is None:
                return None
            result += replacement
        elif inner := _inner(token):
            if not has_variables(inner):
                result.append(token)
                continue
            replaced = substitute(inner, custom, depth + 1)
            if replaced is None:
                return None
            result.append(_with_inner(token, replaced))
        else:
            result.append(token)
        if len(result) > _MAX_SUBSTITUTED:
            _refuse_complex()
    return result


def _is_variable(token: Token) -> bool:
    return bool(token.type == "function" and token.lower_name in {"var", "env"})


def _replacement(token: Token, custom: Mapping[str, Tokens], depth: int) -> Tokens | None:
    parts = split_at(token.arguments, ",")
    name = _stripped(parts[0])
    key = name[0].value if len(name) == 1 and name[0].type == "ident" else ""
    # No environment variable (CSS Environment Variables 1 §2) is defined for a picture.
    value = custom.get(key) if token.lower_name == "var" else None
    if value is None:
        if len(parts) == 1:
            return None
        comma = next(index for index, argument in enumerate(token.arguments) if _is_literal(argument, ","))
        value = token.arguments[comma + 1 :]
    return substitute(_stripped(value), custom, depth + 1)


def _inner(token: Token) -> Tokens:
    if token.type == "function":
        return list(token.arguments)
    return list(token.content) if token.type in {"() block", "[] block", "{} block"} else []


def _with_inner(token: Token, inner: Tokens) -> Token:
    if token.type == "function":
        return FunctionBlock(token.source_line, token.source_column, token.name, inner)
    return type(token)(token.source_line, token.source_column, inner)
