"""SVG drawings against Chromium: style sheets, values, filters, embedded pictures and encodings, drawn by both."""

from __future__ import annotations

import base64
import re
from itertools import product
from urllib.parse import quote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.images.geometry import Box
from service.rendering.protocol import ImageError
from service.worker.formats import svg, svg_tree
from tests.support import images
from tests.support.chromium import Painter, visible_distance

# The mean difference of a picture to Chromium's, in steps of 8-bit sRGB: edges are antialiased in another way.
MAX_DISTANCE = 6.0

SVG = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
SIZE = 'width="120" height="80" viewBox="0 0 120 80"'
RECT = '<rect class="a" id="r" x="10" y="10" width="60" height="40"/>'


def drawing(inside: str, attributes: str = SIZE) -> bytes:
    return f"<svg {SVG} {attributes}>{inside}</svg>".encode()


def styled(css: str, inside: str = RECT) -> bytes:
    return drawing(f"<style>{escape(css)}</style>{inside}")


def filtered(primitives: str, inside: str = '<rect x="20" y="10" width="60" height="40" fill="#e60" filter="url(#f)"/>') -> bytes:
    return drawing(f'<filter id="f">{primitives}</filter>{inside}')


def embedded(url: str, attributes: str = 'width="80" height="60"') -> bytes:
    return drawing(f'<image {attributes} href="{escape(url)}"/>')


def data_url(media_type: str, body: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(body).decode()}"


def drawn(source: bytes) -> Image.Image:
    clean = svg.sanitize(source)
    width, height = svg.size(clean)
    return Image.fromarray(svg.rasterize(clean, Box(0, 0, width, height), width, height).numpy())


def distance(painter: Painter, source: bytes) -> float:
    expected = painter.draw(source, "svg")
    assert expected is not None
    return visible_distance(drawn(source), expected)


# Faults of the past: one rule, address or byte dropped a whole style sheet, or a part of the drawing.

SHEETS = {
    "media": ".a{fill:#e00} @media print{.a{fill:#000}}",
    "dark mode": ".a{fill:#06c} @media (prefers-color-scheme: dark){.a{fill:#fff}}",
    "escape": r".a\:b{fill:#0a0} .a{fill:#0a0}",
    "import": "@import url(https://fonts.example.com/css?family=Lato); .a{fill:#0a0}",
    "font": "@font-face{font-family:X;src:url(data:font/woff2;base64,AAAA)} .a{fill:#0a0}",
    "outside font": "@font-face{font-family:X;src:url(https://example.com/a.woff)} .a{fill:#0a0}",
    "comment": "/* @import } */ .a{/*;*/fill:#0a0/**/}",
    "old comment": "<!-- .a{fill:#0a0} -->",
    "charset": '@charset "utf-8"; .a{fill:#0a0}',
    "namespace": "@namespace svg url(http://www.w3.org/2000/svg); svg|rect{fill:#0a0} *|circle{fill:red}",
    "other namespace": "@namespace url(http://www.w3.org/1999/xhtml); rect{fill:#0a0}",
    "layers": "@layer one, two; @layer two{.a{fill:#0a0}} @layer one{.a{fill:#e00}}",
    "no layer": ".a{fill:#0a0} @layer one{.a{fill:#e00}}",
    "important layers": "@layer one{.a{fill:#0a0!important}} @layer two{.a{fill:#e00!important}} .a{fill:#00f}",
    "supports": "@supports (fill: red){.a{fill:#0a0}} @supports not (fill: red){.a{fill:#e00}}",
    "nesting": "svg{& rect{fill:#0a0} .b{fill:#e00}}",
    "nested media": ".a{fill:#e00; @media screen{fill:#0a0}}",
    "important": ".a{fill:#0a0!important} #r{fill:#e00}",
    "specificity": "#r{fill:#0a0} svg .a{fill:#e00} rect{fill:#00f}",
    "invalid value": ".a{fill:#0a0;fill:nonsense;fill:#12}",
    "invalid rule": ".a{fill:#0a0} .a,::nonsense{fill:#e00} }",
    "unclosed": ".a{fill:#0a0",
    "variables": ":root{--a:#0a0;--b:var(--a)} .a{fill:var(--b)}",
    "fallback of a variable": ".a{fill:var(--nothing, #0a0)}",
    "undefined variable": ".a{fill:#e00;fill:var(--nothing)}",
    "inherited variable": "svg{--a:#e00} .a{--a:#0a0;fill:var(--a)}",
    "keyframes": "@keyframes k{from{fill:red}} .a{fill:#0a0}",
    "unknown rule": "@nonsense x{.a{fill:red}} .a{fill:#0a0}",
    "page": "@page{margin:1cm} .a{fill:#0a0}",
    "property": "@property --a{syntax:'<color>';inherits:false;initial-value:red} .a{fill:#0a0}",
    "initial": "svg{fill:#e00} .a{fill:initial}",
    "inherit": "svg{fill:#0a0} .a{fill:inherit}",
    "unset": "svg{fill:#0a0} .a{fill:unset}",
    "address": ".a{fill:#0a0;cursor:url(x.cur)}",
    "outside paint": ".a{fill:url(https://app.example.com/page#g)}",
    "outside paint with a fallback": ".a{fill:url(https://app.example.com/page#g) #0a0}",
    "geometry": ".a{x:30px;y:20px;width:50px;height:30px;rx:8px;fill:#06c}",
    "transform": ".a{transform:translate(30px,10px) rotate(20deg);fill:#06c}",
    "origin of a transform": ".a{transform-origin:40px 30px;transform:rotate(45deg);fill:#06c}",
    "box of a transform": ".a{transform-box:fill-box;transform-origin:center;transform:rotate(45deg);fill:#06c}",
    "single transforms": ".a{translate:30px 20px;rotate:20deg;scale:.5;fill:#06c}",
    "flat transform": ".a{transform:translate3d(20px,10px,0) rotateZ(.1turn);fill:#06c}",
    "calculation": ".a{fill:#06c;opacity:calc(.2 + .3);stroke:red;stroke-width:calc(2px * 4)}",
    "units": ".a{fill:#06c;stroke:red;stroke-width:5vw;width:3rem}",
    "background": "svg{background:#fc0}",
}


@pytest.mark.parametrize("name", SHEETS)
def test_style_sheet_of_an_svg_applies_as_in_chromium(painter: Painter, name: str) -> None:
    assert distance(painter, styled(SHEETS[name])) <= MAX_DISTANCE


CONDITIONS = [
    "screen", "print", "all", "not print", "only screen", "(min-width: 100px)", "(max-width: 100px)", "(width: 120px)", "(width >= 120px)",
    "(100px < width < 130px)", "(aspect-ratio: 3/2)", "(orientation: landscape)", "(prefers-color-scheme: light)",
    "(prefers-contrast: more)",
    "(prefers-reduced-motion: reduce)", "screen and (max-height: 80px)", "not all and (color)", "(color) and (not (width > 1in))",
    "(nonsense)", "((width > 1px) or (nonsense))", "print, screen", "(min-resolution: 2dppx)", "(scripting: none)", "((color))", "",
]  # fmt: skip
SELECTORS = [
    ".a", "rect", "#r", "*", ":root rect", "svg > rect", "g rect", "rect:first-child", "rect:nth-child(2)", "style + rect", "style ~ .a",
    "rect:not(.b)", ":is(.b, .a)", ":where(#r)", "[width]", "[width='60']", "[class~=a]", "[id^=R i]", "rect:hover", "rect:only-of-type",
    "rect:nth-last-of-type(odd)", "rect::before", ".A", "svg|rect",
]  # fmt: skip


@pytest.mark.parametrize("condition", CONDITIONS)
def test_media_query_of_an_svg_is_evaluated_as_in_chromium(painter: Painter, condition: str) -> None:
    assert distance(painter, styled(f".a{{fill:#e00}} @media {condition}{{.a{{fill:#0a0}}}}")) <= MAX_DISTANCE


@pytest.mark.parametrize("selector", SELECTORS)
def test_selector_of_an_svg_matches_as_in_chromium(painter: Painter, selector: str) -> None:
    assert distance(painter, styled(f"{selector}{{fill:#0a0}}")) <= MAX_DISTANCE


@pytest.mark.parametrize(
    "color",
    [
        "#06c8", "rgb(0 102 204 / 50%)", "rgba(0,102,204,.5)", "hsl(210deg 100% 40% / .5)", "hwb(210 0% 20%)", "lab(45% 10 -50)",
        "lch(45% 60 270)", "oklab(.55 0 -.15)", "oklch(.55 .15 250)", "color(display-p3 0 .4 .8)", "color(srgb 0 .4 .8)",
        "light-dark(#0a0,#000)", "currentColor", "transparent", "RED", "canvas", "none", "nonsense", "#12", "rgb(300,-5,10)",
        "var(--x, #0a0)", "env(x, #0a0)", "url(#nothing)", "url(#nothing) #0a0", "context-fill", r"\72 ed", "r/**/ed", "red !important",
    ],
)  # fmt: skip
def test_color_of_an_svg_is_that_of_chromium_in_attributes_and_in_css(painter: Painter, color: str) -> None:
    attribute = drawing(f'<rect x="10" y="10" width="60" height="40" fill="{color}"/>')
    assert distance(painter, attribute) <= MAX_DISTANCE
    assert distance(painter, styled(f".a{{fill:{color}}}")) <= MAX_DISTANCE


LIGHTS = {
    "distant": '<feDistantLight azimuth="45" elevation="50"/>',
    "point": '<fePointLight x="40" y="20" z="30"/>',
    "spot": '<feSpotLight x="40" y="10" z="40" pointsAtX="50" pointsAtY="40" specularExponent="3" limitingConeAngle="40"/>',
}
BLURRED_ALPHA = '<feGaussianBlur in="SourceAlpha" stdDeviation="4"/>'
PRIMITIVES = {
    **{
        f"{kind} {light}": f'{BLURRED_ALPHA}<fe{kind}Lighting surfaceScale="5" lighting-color="{color}">{LIGHTS[light]}</fe{kind}Lighting>'
        for kind, light, color in product(("Diffuse", "Specular"), LIGHTS, ("#fe8",))
    },
    "diffuse in sRGB": f'<feDiffuseLighting color-interpolation-filters="sRGB" lighting-color="#880">{LIGHTS["point"]}</feDiffuseLighting>',
    "dilate": '<feMorphology operator="dilate" radius="6"/>',
    "erode": '<feMorphology operator="erode" radius="6 3"/>',
    "diffuse of a picture": f'<feDiffuseLighting in="SourceGraphic" lighting-color="#fff">{LIGHTS["point"]}</feDiffuseLighting>',
    "convolve": '<feConvolveMatrix order="3" kernelMatrix="1 0 -1 2 0 -2 1 0 1" preserveAlpha="true" bias=".2"/>',
    "convolve a rectangle": '<feConvolveMatrix order="3 1" kernelMatrix="3 2 1" targetX="0"/>',
    "displace": '<feTurbulence baseFrequency=".05" result="t"/><feDisplacementMap in="SourceGraphic" in2="t" scale="20"/>',
    "tile": '<feOffset x="20" y="10" width="20" height="10"/><feTile/>',
    "noise": '<feTurbulence type="fractalNoise" baseFrequency=".04 .08" numOctaves="3" seed="4"/>',
    "turbulence": '<feTurbulence baseFrequency=".04 .08" numOctaves="3"/>',
    "picture": f'<feImage href="{data_url("image/webp", images.webp(40, 30))}"/>',
    "blend": '<feFlood flood-color="#06c" width="30"/><feBlend mode="luminosity" in2="SourceGraphic"/>',
    "lighter": '<feFlood flood-color="#06c" flood-opacity=".7" x="40"/><feComposite operator="lighter" in2="SourceGraphic"/>',
    "arithmetic": '<feFlood flood-color="#06c" x="40"/><feComposite operator="arithmetic" in2="SourceGraphic" k1=".3" k2=".4" k3=".5"/>',
    "matrix": '<feColorMatrix type="hueRotate" values="90"/>',
    "transfer": '<feComponentTransfer><feFuncR type="table" tableValues="0 1"/><feFuncA type="linear" slope=".5"/></feComponentTransfer>',
    "shadow": '<feDropShadow dx="6" dy="4" stdDeviation="3" flood-color="#06c" flood-opacity=".7"/>',
    "background": '<feOffset in="BackgroundImage"/>',
    "paint": '<feFlood/><feComposite in="FillPaint" in2="SourceGraphic" operator="in"/>',
    "merge": f'{BLURRED_ALPHA}<feOffset dx="5" result="o"/><feMerge><feMergeNode in="o"/><feMergeNode in="SourceGraphic"/></feMerge>',
}  # fmt: skip


@pytest.mark.parametrize("name", PRIMITIVES)
def test_filter_primitive_is_drawn_as_in_chromium(painter: Painter, name: str) -> None:
    assert distance(painter, filtered(PRIMITIVES[name])) <= MAX_DISTANCE


@pytest.mark.parametrize(
    "functions",
    [
        "blur(4px)", "brightness(1.5)", "contrast(2)", "drop-shadow(8px 8px 2px #e00)", "drop-shadow(red 8px 8px 1px)", "grayscale(1)",
        "hue-rotate(90deg)", "invert(100%)", "opacity(.4)", "saturate(3)", "sepia(.7)", "blur(2px) sepia(1)",
        "url(#nothing) blur(2px)", "none",
    ],
)  # fmt: skip
def test_filter_function_is_drawn_as_in_chromium(painter: Painter, functions: str) -> None:
    assert distance(painter, styled(f".a{{fill:#06c;filter:{functions}}}")) <= MAX_DISTANCE


INNER = drawing('<circle cx="40" cy="30" r="40" fill="#06c"/>')
UNSIZED = drawing('<circle r="60" fill="#06c"/>', "")
PICTURES = {
    "PNG": data_url("image/png", images.rgba_png(40, 30)),
    "JPEG": data_url("image/jpeg", images.photo_jpeg(40, 30)),
    "WebP": data_url("image/webp", images.webp(40, 30)),
    "wrong type": data_url("image/png", images.photo_jpeg(40, 30)),
    "no type": data_url("", images.photo_jpeg(40, 30)),
    "base64 in lines": data_url("image/png", images.rgba_png(40, 30)).replace("A", "A\n"),
    "SVG": data_url("image/svg+xml", INNER),
    "SVG in percents": f"data:image/svg+xml;charset=utf-8,{quote(INNER)}",
    "SVG without a size": f"data:image/svg+xml,{quote(UNSIZED)}",
    "SVG in an SVG": data_url("image/svg+xml", embedded(data_url("image/svg+xml", INNER))),
    "SVG with a style sheet": data_url("image/svg+xml", styled("rect{fill:#0a0}")),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("attributes", ['width="80" height="60"', 'width="100" height="20" preserveAspectRatio="xMinYMax slice"'])
def test_embedded_picture_is_drawn_as_in_chromium(painter: Painter, name: str, attributes: str) -> None:
    assert distance(painter, embedded(PICTURES[name], attributes)) <= MAX_DISTANCE


TEXT = (
    "<?xml version='1.0' encoding='{}'?><svg " + SVG + " " + SIZE + "><rect id='é' x='10' y='10' width='60' height='40' fill='#0a0'/></svg>"
)
DOCUMENTS = {
    "UTF-16": b"\xff\xfe" + TEXT.format("UTF-16").encode("utf-16-le"),
    "UTF-16, big-endian": b"\xfe\xff" + TEXT.format("UTF-16").encode("utf-16-be"),
    "UTF-8 that says UTF-16": TEXT.format("utf-16").encode(),
    "UTF-8 with a mark": b"\xef\xbb\xbf" + TEXT.format("UTF-8").encode(),
    "long comment": b"<!-- " + b"x" * 9_000 + b" -->" + drawing(RECT),
    "long instruction": b"<?a " + b"x" * 9_000 + b"?>" + drawing(RECT),
    "entities": b"<!DOCTYPE svg PUBLIC \"-//W3C//DTD SVG 1.1//EN\" \"svg11.dtd\" [<!ENTITY ns 'http://www.w3.org/2000/svg'>]>"
    b'<svg xmlns="&ns;" width="120" height="80"><rect width="60" height="40" fill="#e00"/></svg>',
    "entities of Illustrator": b"<?xml version='1.0'?><!DOCTYPE svg PUBLIC \"-//W3C//DTD SVG 1.1//EN\" \"svg11.dtd\" ["
    b"<!ENTITY ns_svg 'http://www.w3.org/2000/svg'><!ENTITY ns_xlink 'http://www.w3.org/1999/xlink'>]>"
    b'<svg xmlns="&ns_svg;" xmlns:xlink="&ns_xlink;" width="120" height="80"><rect width="60" height="40" fill="#e00"/></svg>',
    "outside paint in an attribute": drawing(
        "<defs><linearGradient id='g'><stop stop-color='#f00'/></linearGradient></defs>"
        "<rect width='80' height='50' fill='url(https://app.example.com/page#g)'/><rect x='90' width='20' height='50' fill='url(#g)'/>"
    ),
    "address in a style attribute": drawing("<rect width='80' height='50' style='fill:#0a0;cursor:url(x.cur)'/>"),
    "default attribute": b'<!DOCTYPE svg [<!ATTLIST rect fill CDATA "#0a0">]>' + drawing(RECT),
    "script": drawing(f"<script>document.documentElement.innerHTML = ''</script>{RECT}", f"{SIZE} onload='alert(1)'"),
    "switch": drawing("<switch><g requiredExtensions='http://ns.adobe.com/x'><text>a</text></g><g>" + RECT + "</g></switch>"),
    "odd points": drawing("<polygon points='10,10 60,10 60,60 10' fill='#0a0'/>"),
    "size of a symbol": drawing("<symbol id='s' viewBox='0 0 9 9' width='40'><rect width='9' height='9'/></symbol><use href='#s'/>"),
    "root that is moved": drawing(RECT, f"{SIZE} transform='rotate(20)'"),
    "root that is hidden": drawing(RECT, f"{SIZE} style='display:none'"),
    "hidden resources": drawing(
        "<clipPath id='c' display='none'><circle r='30'/></clipPath><linearGradient id='g' style='display:none'><stop/></linearGradient>"
        "<rect width='60' height='40' fill='#06c' clip-path='url(#c)'/><rect y='50' width='60' height='20' fill='url(#g)'/>"
    ),
    "pattern": drawing(
        "<pattern id='p' patternUnits='userSpaceOnUse' x='5' y='2' width='30' height='20' viewBox='2 3 10 10'>"
        "<circle cx='7' cy='8' r='5' fill='#06c'/></pattern><rect width='120' height='80' fill='url(#p)'/>"
    ),
    "pattern without a view box": drawing(
        "<pattern id='p' patternUnits='userSpaceOnUse' x='5' y='2' width='30' height='20'>"
        "<circle cx='12' cy='9' r='8' fill='#06c'/></pattern><rect width='120' height='80' fill='url(#p)'/>"
    ),
    "stretched pattern": drawing(
        "<pattern id='p' width='.25' height='.25' viewBox='0 0 9 9' preserveAspectRatio='none'><circle cx='4' cy='4' r='4'/></pattern>"
        "<rect width='120' height='80' fill='url(#p)'/>"
    ),
    "use with a style": drawing("<defs><rect id='q' width='50' height='50'/></defs><use href='#q' style='x:20px;y:10px;fill:#06c'/>"),
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_of_any_form_is_drawn_as_in_chromium(painter: Painter, name: str) -> None:
    assert svg.is_svg(DOCUMENTS[name])
    assert distance(painter, DOCUMENTS[name]) <= MAX_DISTANCE


def test_document_in_several_languages_is_drawn_in_english(painter: Painter) -> None:
    # Chromium without a user interface has no language of its own, so it draws the English part here.
    english = painter.draw(drawing(RECT), "svg")
    assert english is not None
    source = drawing("<switch><g systemLanguage='de'/><g systemLanguage='en'>" + RECT + "</g></switch><circle systemLanguage='de' r='30'/>")
    assert visible_distance(drawn(source), english) <= MAX_DISTANCE


@pytest.mark.parametrize("path", [path for path in images.corpus_files("faults") if path.suffix == ".svg"], ids=lambda path: path.name)
def test_corpus_faults_are_drawn_as_in_chromium(painter: Painter, path: object) -> None:
    assert isinstance(path, type(images.corpus_files("faults")[0]))
    assert distance(painter, path.read_bytes()) <= MAX_DISTANCE


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "windows-1252", "koi8-r", "Shift_JIS", "GB2312", "x-unknown"])
def test_document_in_an_older_encoding_is_read_as_it_declares(encoding: str) -> None:
    letters = {"koi8-r": "\u0444", "Shift_JIS": "\u3042", "GB2312": "\u4e2d"}.get(encoding, "\u00e9")
    source = f"<?xml version='1.0' encoding='{encoding}'?><svg {SVG}><g id='{letters}'/></svg>"
    body = source.encode("utf-8" if encoding == "x-unknown" else encoding)
    assert f'<g id="{letters}">' in svg.sanitize(body).decode()


# Arbitrary style sheets: whatever they are, the result is well-formed and refers to nothing outside.

CSS_PIECES = st.sampled_from(
    [
        "url(https://x.example/a#b)", "url('//x.example')", r"u\72l(https://x.example/)", "@import 'https://x.example';", "@media screen{",
        "@supports (a:b){", "}", "{", "rect", ".a", "fill:", "mask:", "filter:", "background:", "--a:", "var(--a)", ";", "/*", "*/",
        "\\", '"', "'",
        "!important", "src:", "image-set('https://x.example' 1x)", "@font-face{", "<!--", "-->", "(", ")", "[", "]", "&",
        "calc(", "\0", "\n", "1e9",
    ]
)  # fmt: skip


@given(st.lists(CSS_PIECES, max_size=40), st.booleans())
def test_arbitrary_css_leaves_a_well_formed_document_without_outside_references(pieces: list[str], in_attribute: bool) -> None:
    css = escape("".join(pieces).replace("\0", ""), {'"': "&quot;"})
    inside = f'<rect class="a" style="{css}"/>' if in_attribute else f'<style>{css}</style><rect class="a"/>'
    try:
        clean = svg.sanitize(drawing(inside))
    except ImageError:
        return
    for element in ET.fromstring(clean).iter():
        assert element.tag.removeprefix("{http://www.w3.org/2000/svg}") in svg_tree.ELEMENTS
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert "example" not in value
            assert all(address.startswith("#") for address in re.findall(r"url\(\s*['\"]?([^)]*)", value))
