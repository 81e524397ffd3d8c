"""Targets for SVG: whatever a document is, it is refused, or what is left of it is harmless."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree as ET

from service.rendering.protocol import ImageError
from service.worker.formats import svg
from service.worker.formats.svg_tree import ELEMENTS, SVG, XLINK, XML
from service.worker.formats.svg_values import PROPERTIES
from tests.fuzz.parsers.target import Target, check_failure
from tests.fuzz.seeds import generated_seeds
from tests.fuzz.structures import mutators

# Attributes that are read as CSS. No program reads another one as CSS, or as a URL except those of `_HREFS`. Fonts may have any name.
_CSS_ATTRIBUTES = (PROPERTIES.keys() | {"style", "cursor"}) - {"font-family"}
_HREFS = frozenset({"href", f"{{{XLINK}}}href"})
_NAMESPACES = frozenset({XLINK, XML})
_LOCAL_URL = re.compile(r"url\(\s*[\"']?#", re.IGNORECASE)
_ANY_URL = re.compile(
    r"url\(|image\(|image-set\(|src\(|@import|expression\(|-moz-binding|behavior\s*:|javascript:|vbscript:", re.IGNORECASE
)
_PICTURE = re.compile(r"data:image/(?:png|jpeg);base64,[A-Za-z0-9+/=]+")


def _document(data: bytes) -> None:
    svg.is_svg(data)
    try:
        clean = svg.sanitize(data)
    except ImageError as error:
        check_failure(error)
        return
    check_harmless(clean)
    assert 1 <= min(svg.size(clean)) <= max(svg.size(clean)) <= svg.MAX_SIDE
    try:
        measured = svg.measure(clean)
    except ImageError as error:
        # What was written may be larger or take longer than what was read, for example by styles that are written at each element.
        if error.failure.kind not in {"too-many-pixels", "too-complex"}:
            raise
        return
    assert (measured.width, measured.height) == svg.size(clean)
    assert measured.warnings == (), measured.warnings
    check_harmless(svg.sanitize(clean))


def check_harmless(clean: bytes) -> None:
    """Check that a sanitized document has no script, no handler of events, no animation, and no reference out of itself."""
    assert not re.search(rb"<!|<\?|\0", clean), "declarations, comments or instructions"
    for element in ET.fromstring(clean).iter():
        namespace, _, name = element.tag.removeprefix("{").rpartition("}")
        assert namespace == SVG, element.tag
        assert name in ELEMENTS - {"foreignObject"}, element.tag
        for key, value in element.attrib.items():
            _check_attribute(name, key, value)


def _check_attribute(element: str, key: str, value: str) -> None:
    namespace, _, name = key.removeprefix("{").rpartition("}")
    assert not namespace or namespace in _NAMESPACES, key
    assert not name.lower().startswith("on"), key
    assert name not in {"base", "src", "from", "to", "by", "begin"}, key
    if key in _HREFS:
        assert value.startswith("#") or (element in {"image", "feImage"} and _PICTURE.fullmatch(value)), value[:80]
    elif name in _CSS_ATTRIBUTES:
        assert not _ANY_URL.search(_LOCAL_URL.sub("", value)), f"{key}={value[:80]}"


def _inside(before: bytes, after: bytes) -> Callable[[bytes], None]:
    """Return a check of a part of a document, which a mutation of the whole document would seldom leave well-formed."""

    def check(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
        _document(before + escaped.encode() + after)

    return check


_START = f'<svg xmlns="{SVG}" xmlns:xlink="{XLINK}" width="120" height="90">'.encode()
_SHAPES = (
    b'<defs><linearGradient id="g"><stop offset="1" stop-color="red"/></linearGradient><filter id="f"><feOffset dx="2"/></filter>'
    b'<clipPath id="c"><circle r="40"/></clipPath></defs><g class="a b" id="e"><rect class="b" width="60" height="40"/><text x="5" y="20">T'
    b"<tspan>t</tspan></text></g></svg>"
)
_RULES = (
    b"rect.b, g > text{fill:url(#g);stroke:#00f}@media (min-width:1px){.a{opacity:.5}}@supports (fill:red){#e{filter:url(#f) blur(2px)}}",
    b"*{--v:1px;stroke-width:calc(var(--v)*2)}:root{font:italic 12px/1.2 serif}.b:not(.c):nth-child(2n+1){fill:rgb(1 2 3/50%)!important}",
    b"@import url(x.css);@font-face{src:url(x)}.a\\:b,[class~=a i]{cursor:url(x);mask:url(x#m)}/* } */",
    b"@layer l{g{transform:rotate(5deg) scale(2)}}",
    b".a{background:url(http://a.example/)}.b{fill:u\\72l(x);clip-path:url('#c');font-family:\"a}\"}",
)
_STYLES = (
    b"fill:url(#g) red;transform:translate(1px,2em) rotate(1turn);transform-origin:50% 1px;stroke-dasharray:1,2 3%",
    b"filter:drop-shadow(1px 2px 3px red) hue-rotate(90deg) url(#f);mix-blend-mode:multiply;mask:none;clip-path:circle(5px)",
    b"color:hsl(120 50% 50%);fill:currentColor;stroke:oklch(0.5 0.1 20);font:bold 2em/1 'a b',serif;paint-order:stroke",
)
_PATHS = (b"M0 0L10 10C1,2 3,4 5,6zm1-1h5v.5.5s1 1 2 2q0 0 1 1t3 3a5 5 0 11 1 1Z", b"M1e3-1e-3A1,1,0,0,1,2,2", b"M 0 0 L nan inf")
_CSS_WORDS = (
    b"url(",
    b"url(#g)",
    b"var(--v)",
    b"calc(",
    b"\\",
    b"@import ",
    b"@media ",
    b"{",
    b"}",
    b"/*",
    b"*/",
    b"!important",
    b":is(",
    b":has(",
    b"::before",
    b"--v:var(--v)",
    b"inherit",
    b"attr(id)",
    b"env(x)",
    b"expression(",
    b"javascript:",
    b"image-set(",
    b"1e999px",
    b"-0%",
    b";",
    b"'",
    b"<",
    b"&",
)
_TRANSFORMS = (b"translate(1 2)rotate(5,1,1)", b"matrix(1 0 0 1 5 5),scale(2)skewX(3)", b"scale(0)")
_REFERENCES = (
    b"#e",
    b"data:image/svg+xml,<svg/>",
    b"javascript:alert(1)",
    b"data:image/png;base64,AAAA",
    b"x.svg#e",
    b" #e ",
    b"//a.example/#e",
)

TARGETS = {
    "svg": Target(
        _document,
        lambda: [seed.body for seed in generated_seeds() if seed.kind == "svg"],
        mutators=mutators("svg"),
    ),
    "svg_rules": Target(_inside(_START + b"<style>", b"</style>" + _SHAPES), lambda: _RULES, _CSS_WORDS),
    "svg_style": Target(_inside(_START + b'<g style="', b'">' + _SHAPES.replace(b"</svg>", b"</g></svg>")), lambda: _STYLES, _CSS_WORDS),
    "svg_path": Target(
        _inside(_START + b'<path stroke="red" d="', b'"/>' + _SHAPES), lambda: _PATHS, (b"M0 0", b"z", b"1e9", b"a1 1 0 0 1 2 2")
    ),
    "svg_transform": Target(
        _inside(_START + b'<g transform="', b'">' + _SHAPES.replace(b"</svg>", b"</g></svg>")),
        lambda: _TRANSFORMS,
        (b"scale(", b"1e30", b")"),
    ),
    "svg_reference": Target(
        _inside(_START + b'<use href="', b'"/>' + _SHAPES), lambda: _REFERENCES, (b"#", b"data:", b"javascript:", b"\t", b"%23")
    ),
}
