"""SVG: detection, sizes, drawing, sanitizing, and documents that are refused."""

import base64
import functools
import random
import re
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from service.errors import BrokenImageError, TooComplexError, TooManyPixelsError, UnsupportedFormatError
from service.rendering.pool import RenderPool
from service.rendering.protocol import ImageError
from service.worker.formats import svg, svg_tree
from tests.support import images
from tests.support.lazy import LazyMapping
from tests.support.renders import MEBIBYTE, Spent, check_words, probed, rendered, written

pytestmark = pytest.mark.anyio

SVG = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def drawing(inside: str = "", attributes: str = 'width="40" height="30"') -> bytes:
    return f"<svg {SVG} {attributes}>{inside}</svg>".encode()


def clean(inside: str, attributes: str = 'width="40" height="30"') -> str:
    return svg.sanitize(drawing(inside, attributes)).decode()


def refusal(source: bytes) -> tuple[str, str]:
    with pytest.raises(ImageError) as caught:
        svg.sanitize(source)
    failure = caught.value.failure
    assert failure.expected
    assert failure.received
    assert failure.remedy
    return failure.kind, failure.detail


async def picture(pool: RenderPool, folder: Path, source: bytes, spelling: str = "full") -> Image.Image:
    return images.decode((await rendered(pool, written(folder, source, "drawing"), spelling, "png")).body)


# Detection.


@pytest.mark.parametrize(
    "beginning",
    [
        b"<svg>",
        b"<svg/>",
        b"\xef\xbb\xbf  <svg xmlns='x'>",
        b'<?xml version="1.0"?><svg ',
        b'<?xml version="1.0"?>\n<!-- drawn > by hand -->\n<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "svg11.dtd">\n<svg ',
        b'<!DOCTYPE svg [ <!ENTITY a "b"> ]><svg ',
        b"<s:svg xmlns:s='http://www.w3.org/2000/svg'>",
    ],
)
def test_file_whose_first_element_is_svg_is_an_svg(beginning: bytes) -> None:
    assert svg.is_svg(beginning)


@pytest.mark.parametrize(
    "beginning", [b"", b"svg", b"<svgs>", b"<html><svg>", b"<!-- <svg> ", b"<?xml <svg", b"\x89PNG", b"<!DOCTYPE html><html>", b"{<svg>}"]
)
def test_file_whose_first_element_is_not_svg_is_not_an_svg(beginning: bytes) -> None:
    assert not svg.is_svg(beginning)


# Sizes.


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ('width="40" height="30"', (40, 30)),
        ('width="40px" height="30px" viewBox="0 0 400 10"', (40, 30)),
        ('width="72pt" height="1in"', (96, 96)),
        ('width="2.54cm" height="25.4mm"', (96, 96)),
        ('width="1pc" height="2em"', (16, 32)),
        ('viewBox="0 0 24 12"', (24, 12)),
        ('viewBox="-5,-5,24.4,12.6"', (24, 13)),
        ('width="100%" height="100%" viewBox="0 0 24 12"', (24, 12)),
        ('width="48" viewBox="0 0 24 12"', (48, 24)),
        ('height="48" viewBox="0 0 24 12"', (96, 48)),
        ('width="auto" viewBox="0 0 nonsense 12"', (300, 150)),
        ("", (300, 150)),
        ('width="0.1" height="0.2"', (1, 1)),
    ],
)
async def test_svg_has_the_size_that_a_browser_gives_it(pool: RenderPool, tmp_path: Path, attributes: str, size: tuple[int, int]) -> None:
    path = written(tmp_path, drawing('<rect width="9" height="9"/>', attributes))
    info = (await probed(pool, path)).info
    assert (info.format, info.width, info.height, info.alpha, info.vector) == ("svg", *size, True, True)
    assert (await picture(pool, tmp_path, path.read_bytes())).size == size


@pytest.mark.parametrize(
    "attributes", ['width="10000000" height="10000000"', 'width="0" height="5"', 'viewBox="0 0 1e9 3"', 'width="70000" height="1"']
)
def test_svg_of_an_invalid_size_is_refused(attributes: str) -> None:
    assert refusal(drawing("", attributes))[0] == "too-many-pixels"


async def test_svg_with_too_many_pixels_is_refused_before_drawing(pool: RenderPool, tmp_path: Path) -> None:
    with pytest.raises(TooManyPixelsError):
        await probed(pool, written(tmp_path, drawing("", 'width="60000" height="60000"')))


# Drawing.


async def test_svg_is_sharp_at_any_size_and_transparent_where_nothing_is_drawn(pool: RenderPool, tmp_path: Path) -> None:
    source = drawing('<rect x="4" width="4" height="8" fill="#c81e1e"/>', 'width="8" height="8"')
    large = np.asarray(await picture(pool, tmp_path, source, "width=800"))
    assert large.shape == (800, 800, 4)
    assert (large[:, :399] == 0).all()
    assert (large[:, 401:] == (200, 30, 30, 255)).all()


async def test_svg_with_fit_fill_is_stretched_as_a_whole(pool: RenderPool, tmp_path: Path) -> None:
    source = drawing('<circle cx="20" cy="15" r="15" fill="#0000ff"/>')
    flat = np.asarray(await picture(pool, tmp_path, source, "width=200,height=60,fit=fill"))
    assert flat.shape == (60, 200, 4)
    reached = np.flatnonzero(flat[30, :, 3] > 127)
    assert (reached.min(), reached.max()) == pytest.approx((25, 174), abs=1)


async def test_crop_of_an_svg_is_sharp(pool: RenderPool, tmp_path: Path) -> None:
    source = drawing('<rect x="10" y="10" width="10" height="10" fill="#00ff00"/>')
    part = np.asarray(await picture(pool, tmp_path, source, "crop=5:5:20:20,width=400"))
    assert part.shape == (400, 400, 4)
    assert (part[102:298, 102:298] == (0, 255, 0, 255)).all()
    assert (part[:98] == 0).all()


# Sanitizing.


@pytest.mark.parametrize(
    "inside",
    [
        "<foreignObject><body xmlns='http://www.w3.org/1999/xhtml'><metadata/></body></foreignObject>",
        "<switch><foreignObject><body xmlns='http://www.w3.org/1999/xhtml'><iframe/></body></foreignObject><g/></switch>",
        "<animate attributeName='x' to='5'/>",
        "<set attributeName='x' to='5'/>",
        "<image href='https://example.com/a.png' width='9' height='9'/>",
        "<image xlink:href='file:///etc/passwd' width='9' height='9'/>",
        "<image href='data:image/svg+xml,%3Csvg%3E%3Cimage href=%22https://example.com/a.png%22/%3E%3C/svg%3E' width='9' height='9'/>",
        "<image href='data:image/png;base64,!!!!' width='9' height='9'/>",
        "<use href='other.svg#part'/>",
        "<style>@import url(https://example.com/a.css);</style>",
        "<style>rect { fill: url('https://example.com/a.svg#b') }</style>",
        "<style>rect { fill: u\\72l(https://example.com) }</style>",
        "<rect style='fill:url(//example.com/a)' width='9'/>",
        "<rect fill='url(https://example.com/a.svg#b)' width='9'/>",
        "<rect fill='URL( &quot;https://example.com/a.svg#b&quot; )' width='9'/>",
        "<rect style='fill:\\75 rl(https://example.com/a.svg#b)' width='9'/>",
        "<rect style='--a:url(https://example.com/a.svg#b);fill:var(--a)' width='9'/>",
        "<style>@media screen { rect { mask: url(https://example.com/a.svg#b) } }</style><rect width='9'/>",
        "<style>@font-face { font-family: a; src: url(https://example.com/a.woff) }</style><text>a</text>",
        "<style>@font-face { font-family: a; src: src('https://example.com/a.woff') }</style><text>a</text>",
        "<style>rect { filter: url(https://example.com/a.svg#b) blur(1px); cursor: url(https://example.com/a.cur) }</style><rect/>",
        "<style>svg { background: url(https://example.com/a.png) }</style>",
        "<rect filter='url(#a) url(b.svg#c)' width='9'/>",
        "<filter id='f'><feImage href='https://example.com/a.png'/><feTurbulence baseFrequency='9'/></filter>",
        "<metadata xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:RDF>https://example.com</rdf:RDF></metadata>",
        "<x:tool xmlns:x='https://example.com/editor' x:url='https://example.com'/>",
        "<?xml-stylesheet href='https://example.com/a.css'?>",
        "<!-- https://example.com -->",
        "<a xlink:href='https://example.com'><path d='M0 0h9'/></a>",
        "<title>https://example.com</title>",
    ],
)
def test_references_outside_the_document_are_removed(inside: str) -> None:
    written_anew = clean(inside)
    assert not re.search(r"example\.com|passwd|import|iframe|animate|<set|data:|\.svg#|foreignObject", written_anew)


@pytest.mark.parametrize(
    "inside",
    [
        '<g id="a"><path d="M0 0h9v9z" fill="#123456"></path></g><use xlink:href="#a"></use>',
        '<linearGradient id="g"><stop offset="0" stop-color="red"></stop></linearGradient><rect width="9" fill="url(#g)"></rect>',
        '<rect width="9" height="9" style="mix-blend-mode:multiply"></rect>',
        '<filter id="f" x="0" y="0"><feGaussianBlur stdDeviation="2"></feGaussianBlur></filter><g filter="url(#f)"></g>',
        '<text x="3" y="9">a &lt; b &amp; c</text>',
        '<rect width="9" height="9" transform="rotate(45)" clip-path="url(#c)"></rect>',
    ],
)
def test_harmless_elements_are_unchanged(inside: str) -> None:
    assert inside in clean(inside)


async def test_picture_embedded_in_an_svg_is_drawn(pool: RenderPool, tmp_path: Path) -> None:
    for kind, body in (("png", images.flat_png(8, 8, (10, 200, 30))), ("jpeg", images.photo_jpeg(80, 60))):
        url = f"data:image/{kind};base64,{base64.b64encode(body).decode()}"
        drawn = np.asarray(
            await picture(pool, tmp_path, drawing(f'<image href="{url}" width="40" height="30" preserveAspectRatio="none"/>'))
        )
        assert (drawn[5:25, 5:35, 3] == 255).all()
    huge = base64.b64encode(images.png_bomb()).decode()
    assert refusal(drawing(f'<image href="data:image/png;base64,{huge}"/>'))[0] == "too-many-pixels"


# Refused documents.


@pytest.mark.parametrize(
    ("source", "warning"),
    [
        (drawing("<script>alert(1)</script>"), "a script"),
        (drawing("<g><script href='https://example.com/a.js'/></g>"), "a script"),
        (drawing("<x:script xmlns:x='http://www.w3.org/1999/xhtml'>alert(1)</x:script>"), "a script"),
        (drawing("<rect onclick='alert(1)'/>"), "an event handler"),
        (drawing("", "onload='alert(1)' width='9' height='9'"), "an event handler"),
        (drawing("<a href=' java&#x73;cript:alert(1)'/>"), "a link to a script"),
        (drawing("<a xlink:href='JavaScript:alert(1)'/>"), "a link to a script"),
        (drawing("<animate attributeName='x' to='5'/>"), "animation"),
        (drawing("<style>@keyframes a { to { fill: red } }</style>"), "animation"),
        (drawing("<style>@import 'https://example.com/a.css';</style>"), "@import"),
        (drawing("<style>@font-face { src: url(https://example.com/a.woff) }</style>"), "a font that is in another file"),
        (drawing("<image href='https://example.com/a.png'/>"), "a picture that is in another file"),
        (drawing("<image href='data:image/png;base64,AAAA'/>"), "an embedded picture that is broken"),
        (drawing("<use href='other.svg#a'/>"), "an element that is in another file"),
        (drawing("<switch><foreignObject>a</foreignObject><text>a</text></switch>"), "HTML in a foreignObject"),
        (b"<?xml-stylesheet href='https://example.com/a.css'?>" + drawing(), "a style sheet that is in another file"),
    ],
)
def test_whatever_is_removed_from_an_svg_is_a_warning(source: bytes, warning: str) -> None:
    assert [sentence for sentence in svg.measure(source).warnings if warning in sentence]
    assert not re.search(r"alert|example|script|AAAA", svg.sanitize(source).decode())


def test_warnings_of_an_svg_are_bounded() -> None:
    fonts = "".join(f"@font-face {{ font-family: a{number}{'x' * 900}; src: url(data:,) }}" for number in range(50))
    texts = "".join(f"<text font-family='a{number}{'x' * 900}'>a</text>" for number in range(50))
    warnings = svg.measure(drawing(f"<style>{fonts}</style>{texts}")).warnings
    assert len(warnings) == 16
    assert max(map(len, warnings)) <= 200


@pytest.mark.parametrize(
    "source",
    [
        b"<!DOCTYPE svg [<!ENTITY % a SYSTEM 'file:///etc/passwd'> %a;]>" + drawing(),
        b"<!DOCTYPE svg [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>" + drawing("&a;"),
        b"<!DOCTYPE svg [<!ENTITY % a 'b'>]>" + drawing(),
        b"<!DOCTYPE svg [<!ENTITY a '<script/>'>]>" + drawing("&a;"),
        b"<!DOCTYPE svg [<!ENTITY a 'aa'><!ENTITY b '&a;&a;'>]>" + drawing("&b;"),
        b"<!DOCTYPE svg [<!ENTITY a '" + b"a" * 2_000 + b"'>]>" + drawing("&a;"),
        b"<!DOCTYPE svg [<!ENTITY a '" + b"a" * 1_000 + b"'>]>" + drawing("<desc>" + "&a;" * 2_000 + "</desc>"),
        b"<!DOCTYPE svg [" + b"".join(b"<!ENTITY a%d 'b'>" % number for number in range(200)) + b"]>" + drawing(),
        b"<!DOCTYPE svg [<!ATTLIST g fill CDATA '" + b"a" * 9_000 + b"'>]>" + drawing(),
    ],
    ids=["parameter", "external", "internal parameter", "markup", "nested", "long", "many references", "many", "attributes"],
)
def test_svg_with_entities_other_than_short_plain_text_is_refused(source: bytes) -> None:
    kind, detail = refusal(source)
    assert kind == "unsupported"
    assert "entities" in detail


def test_entities_of_plain_text_are_expanded() -> None:
    declared = (
        "<!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN' 'svg11.dtd' [<!ENTITY ns 'http://www.w3.org/2000/svg'><!ENTITY red '#f0&#48;'>]>"
    )
    source = f"{declared}<svg xmlns='&ns;' width='9' height='9'><rect fill='&red;' width='9' height='9'/></svg>"
    assert '<rect width="9" height="9" fill="#f00">' in svg.sanitize(source.encode()).decode()


UNSUPPORTED = {
    "HTML": "<foreignObject><p xmlns='http://www.w3.org/1999/xhtml'>a</p></foreignObject>",
    "a picture in HTML": "<foreignObject><img xmlns='http://www.w3.org/1999/xhtml' src='a.png'/></foreignObject>",
    "a text on a path": "<path id='p' d='M0 0h9'/><text><textPath href='#p'>a</textPath></text>",
    "rotated letters": "<text rotate='30'>a</text>",
    "a shape in CSS": "<rect style='clip-path:circle(9px)' width='9' height='9'/>",
    "a blend mode": "<rect style='mix-blend-mode:plus-lighter' width='9' height='9'/>",
    "a mask of a gradient": "<rect style='mask:linear-gradient(red,blue)' width='9' height='9'/>",
    "three dimensions": "<rect style='transform:rotateX(45deg)' width='9' height='9'/>",
    "a mixed length": "<rect width='calc(1px + 2%)' height='9'/>",
    "a path length": "<path pathLength='1' stroke='red' stroke-dasharray='.5' d='M0 0h9'/>",
    "a picture of an element": "<g id='g'/><filter id='f'><feImage href='#g'/></filter><rect width='9' height='9' filter='url(#f)'/>",
    "linear colors": "<linearGradient id='g' color-interpolation='linearRGB'/><rect width='9' height='9' fill='url(#g)'/>",
    "a mixed color": "<rect fill='color-mix(in srgb, red, blue)' width='9' height='9'/>",
    "a condition on parents": "<style>g:has(rect) { fill: red }</style><g><rect width='9' height='9'/></g>",
    "symbols of a font": "<style>@font-face { font-family: i; src: url(data:,) }</style><text font-family='i'>\ue001</text>",
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_svg_that_would_come_out_visibly_wrong_is_refused_with_the_reason(name: str) -> None:
    kind, detail = refusal(drawing(UNSUPPORTED[name]))
    assert kind == "unsupported"
    assert detail.endswith("without them the drawing would come out wrong.")


@pytest.mark.parametrize("name", ["HTML", "rotated letters", "a shape in CSS", "three dimensions", "a mixed color"])
def test_part_of_an_svg_that_is_not_drawn_is_no_reason_to_refuse_it(name: str) -> None:
    assert svg.sanitize(drawing(f"<g display='none'>{UNSUPPORTED[name]}</g>"))
    assert svg.sanitize(drawing(f"<defs><symbol id='unused'>{UNSUPPORTED[name]}</symbol></defs>"))


@pytest.mark.parametrize(
    "source",
    [
        b"<svg",
        drawing("<g>"),
        drawing("&nbsp;"),
        drawing("<g></h>"),
        drawing() + b"<g/>",
        drawing("\x00"),
        b"<svg xmlns='https://example.com'/>",
    ],
)
def test_svg_that_is_not_well_formed_is_broken(source: bytes) -> None:
    assert refusal(source)[0] == "broken"


def doubling(levels: int) -> bytes:
    """Return a document in which each group draws the previous one twice."""
    groups = ['<g id="l0"><path d="M0 0h1v1z"/></g>']
    groups += [f'<g id="l{level}"><use xlink:href="#l{level - 1}"/><use xlink:href="#l{level - 1}"/></g>' for level in range(1, levels + 1)]
    return drawing("<defs>" + "".join(groups) + f'</defs><use xlink:href="#l{levels}"/>')


def chain(length: int) -> bytes:
    return drawing("".join(f'<g id="n{number}"><use href="#n{number + 1}"/></g>' for number in range(length)))


@pytest.mark.parametrize(
    "source",
    [
        doubling(40),
        doubling(18),
        drawing("<g/>" * (svg.MAX_ELEMENTS + 1)),
        drawing("<g>" * 70 + "</g>" * 70),
        drawing("<g>" * 5_000 + "</g>" * 5_000),
        chain(9_000),
        drawing(f"<text>{'a' * svg.MAX_BYTES}</text>"),
        drawing(
            f"<filter id='f'>{'<feGaussianBlur/>' * 30}</filter>" + "<rect filter='url(#f)'/>" * 200,
        ),
    ],
    ids=["doubled 40 times", "doubled 18 times", "many elements", "deep", "deeper", "chain", "many bytes", "many filters"],
)
def test_svg_that_draws_too_many_elements_is_refused_before_drawing(source: bytes) -> None:
    assert refusal(source)[0] == "too-many-pixels"


def test_svg_with_circular_references_is_counted_to_an_end() -> None:
    assert "<use" in clean('<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/></g><use href="#a"/>')


SQUARE = 'width="1000" height="1000"'


@functools.cache
def random_lines(count: int) -> str:
    """Return a path that crosses the picture many times."""
    numbers = random.Random(1)
    return "M0 0" + "".join(f"L{numbers.randrange(1_000)} {numbers.randrange(1_000)}" for _ in range(count))


def styled(css: str, inside: str) -> str:
    return f"<style>{css}</style>{inside}"


SLOW = LazyMapping[str](
    {
        "selectors of one element": lambda: styled("a," * 300_000 + "a{fill:red}", "<g/>"),
        "selectors": lambda: styled("".join(f".a{number}{{fill:red}}" for number in range(40_000)), "<g/>" * 19_000),
        "selectors of a deep document": lambda: styled(
            ",".join(["g g g g g .z"] * 9_000) + "{fill:red}", "<g>" * 60 + '<g class="z"/>' * 5_000 + "</g>" * 60
        ),
        "selectors of siblings": lambda: styled("rect ~ g{fill:red}" * 10, "<g/>" * 19_000),
        "selectors between comments": lambda: styled(
            "".join(f"/*}}*/.a{number}/*{{*/{{fill:red}}" for number in range(40_000)), "<g/>" * 19_000
        ),
        "lines": lambda: f'<path d="{random_lines(50_000)}"/>',
        "lines of a polygon": lambda: f'<polygon points="{random_lines(50_000)[1:].replace("L", " ")}"/>',
        "lines made long by a transform": lambda: f'<g transform="scale(1000)"><path d="M0 0{"l1 1l-1 1z" * 20_000}"/></g>',
        "lines made long by use": lambda: (
            f'<defs><path id="a" d="M0 0{"l1 1l-1 1z" * 20_000}"/></defs><use xlink:href="#a" transform="scale(1000)"/>'
        ),
        "joints of a wide stroke": lambda: f'<path stroke="red" stroke-width="500" stroke-linejoin="round" d="M0 0{"l1 2 3 4" * 20_000}"/>',
        "joints of a stroke that a style makes wide": lambda: styled(
            "path{stroke:red;stroke-width:500}", f'<path d="M0 0{"l1 2" * 20_000}"/>'
        ),
        "dashes": lambda: f'<path stroke="red" stroke-dasharray=".1" d="M0 0{"H1000H0" * 3_000}"/>',
        "markers": lambda: '<marker id="m"><path d="M0 0h9v9z"/></marker><path marker-mid="url(#m)" d="M0 0' + "h1" * 600_000 + '"/>',
        "a long text": lambda: f"<text>{'a' * 100_000}</text>",
        "many texts": lambda: "".join(f"<text>{'abcdefgh ' * 20}</text>" for _ in range(9_000)),
        "large circles": lambda: '<circle r="900" cx="500" cy="500" fill="red"/>' * 15_000,
        "gradients": lambda: '<linearGradient id="g"/>' + f'<rect {SQUARE} fill="url(#g)"/>' * 9_000,
        "masks": lambda: f'<mask id="m"><rect {SQUARE}/></mask>' + f'<rect {SQUARE} mask="url(#m)"/>' * 9_000,
        "masks by a style": lambda: styled("rect{mask:url(#m)}", '<mask id="m"><circle r="9"/></mask>' + f"<rect {SQUARE}/>" * 9_000),
        "blurs": lambda: '<filter id="f"><feGaussianBlur stdDeviation="500"/></filter>' + f'<rect {SQUARE} filter="url(#f)"/>' * 500,
        "groups of groups": lambda: ('<g opacity=".9">' * 20 + f"<rect {SQUARE}/>" + "</g>" * 20) * 900,
    }
)


# Those that differ from another one only in what is multiplied, and whose parsing takes a second.
LONG = {"markers", "selectors of a deep document", "large circles", "groups of groups", "masks by a style", "many texts"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in SLOW])
async def test_svg_that_would_take_too_long_is_refused_before_drawing(pool: RenderPool, tmp_path: Path, name: str) -> None:
    path = written(tmp_path, drawing(SLOW[name], SQUARE))
    spent = Spent(pool)
    with pytest.raises(TooComplexError) as caught:
        await probed(pool, path)
    check_words(caught.value)
    assert caught.value.expected
    assert caught.value.received
    spent.check(4.0, 150 * MEBIBYTE)


QUICK = LazyMapping[str](
    {
        "many small paths": lambda: "".join(
            f'<path fill="red" d="M{number % 1000} {number // 10}l5 5l-5 2z"/>' for number in range(10_000)
        ),
        "one path of many points": lambda: f'<path d="M0 0{"".join(f"L{number % 999} {number // 200}" for number in range(50_000))}"/>',
        "many classes": lambda: styled(
            "".join(f".cls-{number}{{fill:#fff;stroke:#231f20;stroke-width:.5px}}" for number in range(400)),
            "".join(f'<path class="cls-{number % 400}" d="M1 2l3 4"/>' for number in range(4_000)),
        ),
        "a text": lambda: "".join(f'<text y="{number}">{"The quick brown fox jumps over the lazy dog"}</text>' for number in range(200)),
        "a shadow": lambda: '<filter id="f"><feDropShadow stdDeviation="4"/></filter><rect width="400" height="400" filter="url(#f)"/>',
        "elements of many classes": lambda: styled(
            "".join(f".c{number}{{fill:red}}" for number in range(1_000)), f'<g class="{"x1 " * 40}"/>' * 15_000
        ),
        "arrows": lambda: '<marker id="m"><path d="M0 0h9v9z"/></marker>' + '<path marker-end="url(#m)" d="M0 0h9v9h90"/>' * 1_000,
        "dashed lines": lambda: '<path stroke="red" stroke-dasharray="4 2" d="M0 0h900v900"/>' * 100,
    }
)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long) if name == "many small paths" else name for name in QUICK])
async def test_svg_of_many_ordinary_elements_is_drawn(pool: RenderPool, tmp_path: Path, name: str) -> None:
    assert (await picture(pool, tmp_path, drawing(QUICK[name], SQUARE))).size == (1_000, 1_000)


async def test_svg_that_is_quick_at_its_own_size_may_be_too_slow_when_enlarged(pool: RenderPool, tmp_path: Path) -> None:
    source = drawing(
        '<filter id="f"><feGaussianBlur stdDeviation="9"/></filter>' + '<rect width="9" height="9" filter="url(#f)"/>' * 9,
        'width="9" height="9"',
    )
    assert (await picture(pool, tmp_path, source)).size == (9, 9)
    with pytest.raises(TooComplexError) as caught:
        await picture(pool, tmp_path, source, "width=6000")
    check_words(caught.value)
    # The largest width that a probe finds is exactly the largest that a render accepts.
    widest = (await probed(pool, written(tmp_path, source, "drawing"))).info.max_width
    assert widest is not None
    assert len(svg.sanitize(source, (widest, widest, widest / 9))) > 0
    with pytest.raises(ImageError):
        svg.sanitize(source, (widest + 1, widest + 1, (widest + 1) / 9))


REPEATED = {
    "blurs": ('<filter id="f"><feGaussianBlur stdDeviation="1"/></filter>', 'filter="url(#f)"', 9),
    "lights": ('<filter id="f"><feDiffuseLighting><feDistantLight elevation="55"/></feDiffuseLighting></filter>', 'filter="url(#f)"', 9),
    "searches": ('<filter id="f"><feMorphology operator="dilate" radius="2"/></filter>', 'filter="url(#f)"', 1),
    "displacements": ('<filter id="f"><feDisplacementMap scale="5"/></filter>', 'filter="url(#f)"', 3),
    "masks": ('<mask id="m"><rect width="9" height="9" fill="gray"/></mask>', 'mask="url(#m)"', 150),
    "layers": ("", 'opacity=".9"', 900),
}  # fmt: skip


def repeated(kind: str) -> bytes:
    """Return a drawing of 9 × 9 pixels in which elements of one kind cover one another."""
    definition, attribute, count = REPEATED[kind]
    return drawing(definition + f'<g {attribute}><rect width="9" height="9" fill="red"/></g>' * count, 'width="9" height="9"')


@pytest.mark.parametrize("kind", REPEATED)
async def test_max_width_of_a_costly_svg_is_that_of_one_tile(pool: RenderPool, tmp_path: Path, kind: str) -> None:
    """libvips draws in tiles of 2000 × 2000 pixels, and librsvg processes all layers and filters for each."""
    assert (await probed(pool, written(tmp_path, repeated(kind)))).info.max_width == 2_000


@pytest.mark.long
@pytest.mark.parametrize("kind", REPEATED)
async def test_costly_svg_is_drawn_at_its_max_width_within_the_estimate(pool: RenderPool, tmp_path: Path, kind: str) -> None:
    spent = Spent(pool)
    assert (await picture(pool, tmp_path, repeated(kind), "width=2000")).size == (2_000, 2_000)
    spent.check(svg.MAX_SECONDS_ENLARGED, 400 * MEBIBYTE)


async def test_probe_of_an_svg_reports_what_was_removed(pool: RenderPool, tmp_path: Path) -> None:
    found = await probed(pool, written(tmp_path, drawing("<script/><rect width='9' height='9'/>"), "drawing"))
    assert found.warnings == ("Removed a script.",)


async def test_svg_that_is_quick_at_any_size_has_no_max_width(pool: RenderPool, tmp_path: Path) -> None:
    for attributes in ('width="9" height="9"', 'width="9000" height="3"', 'width="3" height="9000"'):
        source = drawing('<rect width="9" height="9" fill="red"/>', attributes)
        assert (await probed(pool, written(tmp_path, source, "drawing"))).info.max_width is None


@given(
    css=st.text(alphabet=".#:[]a{},;+~> \"'/*()0123456789\n", max_size=200),
    d=st.text(alphabet="MmLlCcAahHvVzZ0123456789.,- eE", max_size=200),
)
@example(css="a{}", d="MMM1e300 1e300l1e300 1e300")
def test_cost_of_any_svg_is_a_number(css: str, d: str) -> None:
    source = drawing(f"<style>{escape(css)}</style><path d='{d}' transform='scale({d})' stroke-dasharray='{d}'/>")
    with suppress(ImageError):
        svg.measure(source)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (drawing("<foreignObject>a</foreignObject>"), UnsupportedFormatError),
        (drawing("<g>"), BrokenImageError),
        (doubling(40), TooManyPixelsError),
    ],
)
async def test_upload_of_a_refused_svg_reports_the_reason(pool: RenderPool, tmp_path: Path, source: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        await probed(pool, written(tmp_path, source))


# Arbitrary documents.

GOOD = [
    drawing('<g id="a"><path d="M0 0h9v9z" style="fill:red"/></g><use href="#a"/><text>hi</text><style>.a{fill:red}</style>'),
    b"<?xml version='1.0'?><!DOCTYPE svg>" + drawing('<a href="#x"><image href="data:image/png;base64,AAAA"/></a>'),
]
PIECES = st.sampled_from(
    [
        "<g>",
        "</g>",
        "<script>",
        "<use href='#a'/>",
        "onclick='x'",
        "&lt;",
        "&#0;",
        "url(//x)",
        "<!--",
        "-->",
        "<![CDATA[",
        "]]>",
        '"',
        "'",
        "<",
        ">",
    ]
)


@given(st.sampled_from(GOOD), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 12), PIECES), max_size=6))
@example(GOOD[0], [])
def test_mutated_svg_is_refused_or_sanitized(source: bytes, changes: list[tuple[int, int, str]]) -> None:
    for at, removed, piece in changes:
        place = at % (len(source) + 1)
        source = source[:place] + piece.encode() + source[place + removed :]
    try:
        anew = svg.sanitize(source)
    except ImageError:
        return
    for element in ET.fromstring(anew).iter():
        assert element.tag.removeprefix("{http://www.w3.org/2000/svg}") in svg_tree.ELEMENTS
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on")
            assert not re.search(r"javascript|//x", value)
    assert svg.sanitize(anew) == anew


@pytest.mark.skipif(images.corpus() is None, reason="the corpus is not beside the checkout")
async def test_corpus_svgs_are_drawn_and_hostile_ones_refused(pool: RenderPool, tmp_path: Path) -> None:
    drawn = images.corpus_files("svg")
    assert drawn
    for path in drawn:
        info = (await probed(pool, path)).info
        assert info.format == "svg"
        assert (await picture(pool, tmp_path, path.read_bytes(), "width=200")).width == 200
    for path in images.corpus_files("svg-hostile"):
        with suppress(UnsupportedFormatError):
            assert (await probed(pool, path)).warnings
