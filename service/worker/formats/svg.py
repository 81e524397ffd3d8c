"""SVG: cleaned of all that could act, fetch or cost too much, and rasterised; never served as SVG.

A document with scripts is refused: it is no picture. Of all others what is known to be harmless is written anew and the rest left
out: styles that reach elsewhere, animation, foreign elements, links. Browsers leave that out of an SVG in an `<img>` too (SVG 2
§2.7.1, secure static mode), so nothing is missed. Embedded PNG and JPEG pictures stay. Text is drawn with the fonts that there are.
"""

from __future__ import annotations

import base64
import binascii
import re
from bisect import bisect_left
from collections.abc import Mapping
from math import isqrt
from typing import NoReturn
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

import pyvips

from service.images.geometry import Box, drawing_at, plan
from service.images.options import MAX_SIDE_PIXELS
from service.images.transform import Transform
from service.rendering.protocol import Failure, FailureKind, ImageError
from service.worker.formats import svg_cost
from service.worker.formats.svg_cost import Element, Inherited


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_XML = "http://www.w3.org/XML/1998/namespace"

MAX_BYTES = 4 << 20
MAX_ELEMENTS = 20_000
MAX_DEPTH = 64
# Elements drawn, those that are drawn again by reference counted each time: nested `use` doubles with every level.
MAX_DRAWN = 100_000
MAX_SIDE = 65_535
MAX_EMBEDDED_PIXELS = 16_000_000

# What drawing may take by the estimate of `svg_cost`: at its own size, and as any rendition, which may be larger.
MAX_SECONDS = 5.0
MAX_SECONDS_ENLARGED = 30.0

# A filter looks at every pixel, most elements at a few.
_FILTER_COST = 50

_TEXT_ELEMENTS = frozenset({"text", "tspan", "textPath", "style"})
_ELEMENTS = _TEXT_ELEMENTS | _words(
    """
    svg g defs symbol use switch path rect circle ellipse line polyline polygon image linearGradient radialGradient stop clipPath mask
    pattern marker filter
    """
)
_FILTERS = _words(
    """
    feBlend feColorMatrix feComponentTransfer feComposite feDropShadow feFlood feFuncA feFuncB feFuncG feFuncR feGaussianBlur
    feMerge feMergeNode feOffset
    """
)
_ATTRIBUTES = _words(
    """
    id class style x y x1 x2 y1 y2 cx cy r rx ry fx fy fr dx dy d points width height viewBox preserveAspectRatio transform rotate
    textLength lengthAdjust startOffset method spacing side pathLength offset gradientUnits gradientTransform spreadMethod
    clipPathUnits maskUnits maskContentUnits mask-type patternUnits patternContentUnits patternTransform markerUnits markerWidth
    markerHeight refX refY orient filterUnits primitiveUnits in in2 result mode operator k1 k2 k3 k4 stdDeviation edgeMode type
    values tableValues slope intercept amplitude exponent flood-color flood-opacity systemLanguage fill fill-opacity fill-rule
    stroke stroke-width stroke-opacity stroke-linecap stroke-linejoin stroke-miterlimit stroke-dasharray stroke-dashoffset opacity
    color stop-color stop-opacity clip-path clip-rule mask filter marker marker-start marker-mid marker-end display visibility
    overflow paint-order vector-effect shape-rendering text-rendering image-rendering color-interpolation
    color-interpolation-filters mix-blend-mode isolation font font-family font-size font-size-adjust font-stretch font-style
    font-variant font-weight letter-spacing word-spacing text-anchor text-decoration dominant-baseline alignment-baseline
    baseline-shift writing-mode direction unicode-bidi white-space
    """
)

_REFERENCE = re.compile(r"url\(\s*['\"]?\s*#([^)'\"\s]+)\s*['\"]?\s*\)", re.IGNORECASE)
_ANY_URL = re.compile(r"url\s*\(", re.IGNORECASE)
_SCRIPT_URL = re.compile(r"[\s\x00-\x1f]*(javascript|vbscript)\s*:", re.IGNORECASE)
_LENGTH = re.compile(r"\s*([+]?[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]{1,3})?)\s*(px|pt|pc|mm|cm|in|em|ex|)\s*")
_ROOT = re.compile(rb'<svg xmlns="[^"]+" xmlns:xlink="[^"]+" width="([0-9.]+)" height="([0-9.]+)"')
_EMBEDDED = re.compile(r"data:image/(png|jpeg|jpg);base64,", re.IGNORECASE)

# CSS 2.1 §4.3.2 at 96 dots per inch; a font is 16 pixels high where nothing says otherwise.
_UNIT_PIXELS = {"": 1.0, "px": 1.0, "pt": 4 / 3, "pc": 16.0, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0, "em": 16.0, "ex": 8.0}
# The size of what has none (CSS 2.1 §10.3.2).
_DEFAULT_SIZE = (300.0, 150.0)


def is_svg(beginning: bytes) -> bool:
    """Return whether a file that begins so is an SVG document: its first element is called `svg`."""
    rest = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
    while rest.startswith((b"<?", b"<!")):
        if rest.startswith(b"<!--"):
            end = b"-->"
        elif rest.startswith(b"<?"):
            end = b"?>"
        else:
            end = b"]" if b"[" in rest.partition(b">")[0] else b">"
        _, found, rest = rest.partition(end)
        if end == b"]":
            _, found, rest = rest.partition(b">")
        if not found:
            return False
        rest = rest.lstrip()
    return re.match(rb"<([A-Za-z_][\w.-]*:)?svg[\s/>]", rest) is not None


def sanitised(source: bytes, drawn_at: tuple[int, int, float] | None = None) -> bytes:
    """Return the document, UTF-8, with what is known to be harmless alone; its root says its size in pixels.

    `drawn_at`: the width and height in pixels of a rendition, and how many times its own size the document has in it; `None` where it is
    only looked at.

    Raises `ImageError`: `broken` for what is no well-formed document, `unsupported` for one that declares entities,
    `too-many-pixels` where it is too large or has too many elements, and `too-complex` where it would take too long to draw, at its own
    size or as `drawn_at`.
    """
    return _cleaned(source, drawn_at)[1]


def measured(source: bytes) -> tuple[int, int, int | None]:
    """Return the width and height of a document in pixels, and the largest width at which the whole document can be drawn in time.

    That width is `None` if the document can be drawn in time at `MAX_SIDE_PIXELS` × `MAX_SIDE_PIXELS` pixels, in its own shape. Raises
    `ImageError` as `sanitised` does.
    """
    cleaner, clean = _cleaned(source, None)
    width, height = size(clean)

    def takes_too_long(across: int) -> bool:
        seconds = cleaner.seconds(*drawing_at(plan(width, height, Transform(width=across), vector=True)))
        return not seconds <= MAX_SECONDS_ENLARGED

    largest = max(width, isqrt(MAX_SIDE_PIXELS**2 * width // height))
    if not takes_too_long(largest):
        return width, height, None
    # The estimate grows with the width, and at its own the document has just been found to be cheap.
    return width, height, width - 1 + bisect_left(range(width, largest), True, key=takes_too_long)


def _cleaned(source: bytes, drawn_at: tuple[int, int, float] | None) -> tuple[_Sanitizer, bytes]:
    """Return the cleaner that has read a document, and the document as `sanitised` returns it; raises `ImageError` as that does."""
    if len(source) > MAX_BYTES:
        _refuse("too-many-pixels", "The SVG document is larger than is taken.", f"at most {MAX_BYTES} bytes", f"{len(source)} bytes")
    cleaner = _Sanitizer()
    try:
        cleaner.parser.Parse(source, True)
        drawn = cleaner.drawn()
        clean = "".join(cleaner.out).encode("utf-8")
        seconds = cleaner.seconds(*(drawn_at or (*size(clean), 1.0))) if drawn <= MAX_DRAWN else 0.0
    except expat.ExpatError as error:
        _refuse(
            "broken", "This SVG is no well-formed document.", "well-formed XML", f"{expat.ErrorString(error.code)} in line {error.lineno}"
        )
    except (ValueError, LookupError) as error:
        _refuse("broken", "This SVG is no well-formed document.", "well-formed XML in a known encoding", type(error).__name__)
    except RecursionError:
        _refuse("too-many-pixels", "The SVG is nested deeper than is taken.", f"at most {MAX_DEPTH} levels", "more")
    if drawn > MAX_DRAWN:
        _refuse("too-many-pixels", "The SVG draws more elements than are drawn.", f"at most {MAX_DRAWN}, each repetition counted", "more")
    _check_seconds(seconds, MAX_SECONDS_ENLARGED if drawn_at else MAX_SECONDS)
    return cleaner, clean


def size(clean: bytes) -> tuple[int, int]:
    """Return width and height in pixels of a sanitised document, at least 1 each."""
    width, height = _exact_size(clean)
    return max(1, round(width)), max(1, round(height))


def rasterised(clean: bytes, region: Box, width: int, height: int) -> pyvips.Image:
    """Return the `region` of a sanitised document, in pixels of its `size`, drawn at `width` × `height`: sharp, sRGB with alpha, 8 bits."""
    exact_width, exact_height = _exact_size(clean)
    whole_width, whole_height = size(clean)
    across, down = exact_width / whole_width, exact_height / whole_height
    view = f"{region.left * across:.6f} {region.top * down:.6f} {region.width * across:.6f} {region.height * down:.6f}"
    frame = f'<svg xmlns="{_SVG}" width="{width}" height="{height}" viewBox="{view}" preserveAspectRatio="none">'
    # libvips has 72 pixels to the inch where CSS has 96: points are right at the one, pixels at the other.
    image = pyvips.Image.svgload_buffer(frame.encode() + clean + b"</svg>", dpi=96, scale=72 / 96)
    if (image.width, image.height) != (width, height):
        image = image.gravity("north-west", width, height)
    return image


class _Sanitizer:
    """Writes a document anew while it is read. `out` is what has been written."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self._stack: list[tuple[str, Element]] = []
        self._ids: dict[str, Element] = {}
        self._root: Element | None = None
        self._skipped_depth = 0
        self._elements = self._points = 0
        self._embedded_pixels = self._pixels_here = 0
        self._sheets: list[str] = []
        self._style: list[str] = []
        self._cost: svg_cost.Cost | None = None
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text

    def drawn(self) -> int:
        """Return how many elements are drawn, what is referred to counted each time; more than `MAX_DRAWN` is as good as endless."""
        costs: dict[int, int] = {}
        on_the_way: set[int] = set()

        def cost(element: Element) -> int:
            known = costs.get(id(element))
            if known is not None:
                return known
            if id(element) in on_the_way:
                # A circle is not drawn by librsvg; what leads to it is.
                return 0
            on_the_way.add(id(element))
            total = (_FILTER_COST if element.tag in _FILTERS else 1) + sum(cost(child) for child in element.children)
            total += sum(cost(self._ids[name]) for name in element.references if name in self._ids)
            on_the_way.discard(id(element))
            costs[id(element)] = min(total, MAX_DRAWN + 1)
            return costs[id(element)]

        return cost(self._root) if self._root else 0

    def seconds(self, width: int, height: int, scale: float) -> float:
        """Return about how long it takes to draw the document at `scale` times its own size on a canvas of so many pixels."""
        if self._root is None:
            return 0.0
        if self._cost is None:
            self._cost = svg_cost.Cost(self._root, self._ids, "\n".join(self._sheets))
        return self._cost.nanoseconds(width, height, scale) / 1e9

    def _doctype(self, name: str, system_id: str | None, public_id: str | None, has_internal_subset: bool) -> None:  # noqa: ARG002
        if has_internal_subset:
            _refuse(
                "unsupported",
                "This SVG declares entities of its own, which are not read.",
                "a document without declarations in its DOCTYPE",
                "an internal subset",
            )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            _refuse("too-many-pixels", "The SVG has more elements than are taken.", f"at most {MAX_ELEMENTS}", "more")
        _check_inactive(name, attributes)
        tag = _local(name, _SVG)
        # A link is a group that cannot be followed.
        tag = "g" if tag == "a" else tag
        if self._root is None and tag != "svg":
            _refuse("broken", "The document's first element is not `svg`.", f"svg in the namespace {_SVG}", name)
        if self._skipped_depth or tag is None or tag not in _ELEMENTS | _FILTERS:
            self._skipped_depth += 1
            return
        if len(self._stack) >= MAX_DEPTH:
            _refuse("too-many-pixels", "The SVG is nested deeper than is taken.", f"at most {MAX_DEPTH} levels", "more")
        references: list[str] = []
        kept = self._kept(tag, attributes, references)
        if tag == "image" and "xlink:href" not in kept:
            self._skipped_depth += 1
            return
        self._points += svg_cost.commands(kept.get("d", ""))
        if self._points > svg_cost.MAX_POINTS:
            _refuse("too-complex", "The SVG has more points than are drawn.", f"at most {svg_cost.MAX_POINTS} in all paths", "more")
        element = Element(tag, kept, self._stack[-1][1].inherited if self._stack else Inherited())
        element.references = references
        element.embedded_pixels = self._pixels_here
        if "id" in kept:
            self._ids.setdefault(kept["id"], element)
        if self._root is None:
            self._root = element
            width, height = _size_told(attributes)
            element.size = float(width), float(height)
            kept = {"xmlns": _SVG, "xmlns:xlink": _XLINK, "width": width, "height": height} | {
                key: value for key, value in kept.items() if key not in {"width", "height"}
            }
        else:
            self._stack[-1][1].children.append(element)
        self._stack.append((tag, element))
        self.out.append(f"<{tag}" + "".join(f" {key}={quoteattr(value)}" for key, value in kept.items()) + ">")

    def _end(self, name: str) -> None:  # noqa: ARG002 - the parser has checked that it is the right one
        if self._skipped_depth:
            self._skipped_depth -= 1
            return
        tag, _ = self._stack.pop()
        if tag == "style":
            css = svg_cost.without_comments("".join(self._style))
            if _is_harmless(css):
                self.out.append(escape(css))
                self._sheets.append(css)
            self._style.clear()
        self.out.append(f"</{tag}>")

    def _text(self, text: str) -> None:
        if self._skipped_depth or not self._stack or self._stack[-1][0] not in _TEXT_ELEMENTS:
            return
        if self._stack[-1][0] == "style":
            self._style.append(text)
        else:
            self.out.append(escape(text))
            # A text is laid out as a whole.
            whole = next((element for tag, element in self._stack if tag == "text"), self._stack[-1][1])
            whole.characters += len(text)

    def _kept(self, tag: str, attributes: Mapping[str, str], references: list[str]) -> dict[str, str]:
        self._pixels_here = 0
        kept: dict[str, str] = {}
        for name, value in attributes.items():
            if _local(name, _XLINK) == "href" or name == "href":
                if value.startswith("#"):
                    references.append(value[1:])
                    kept["xlink:href"] = value
                elif tag == "image" and self._is_small_picture(value):
                    kept["xlink:href"] = value
            elif name == f"{_XML} space":
                kept["xml:space"] = value
            elif name in _ATTRIBUTES and _is_harmless(value):
                references += _REFERENCE.findall(value)
                kept[name] = value
        return kept

    def _is_small_picture(self, url: str) -> bool:
        """Return whether a `data:` URL holds a PNG or JPEG, counted against what may be embedded in all."""
        match = _EMBEDDED.match(url)
        if match is None:
            return False
        try:
            body = base64.b64decode(re.sub(r"\s", "", url[match.end() :]), validate=True)
        except binascii.Error:
            return False
        pixels = _png_pixels(body) if match[1].lower() == "png" else _jpeg_pixels(body)
        if pixels is None:
            return False
        self._embedded_pixels += pixels
        self._pixels_here = pixels
        if self._embedded_pixels > MAX_EMBEDDED_PIXELS:
            _refuse(
                "too-many-pixels",
                "The pictures embedded in the SVG have more pixels than are taken.",
                f"at most {MAX_EMBEDDED_PIXELS} pixels",
                "more",
            )
        return True


def _local(name: str, namespace: str) -> str | None:
    """Return the local name of what is in `namespace`, of an element also of what is in none; `None` of everything else."""
    uri, space, local = name.rpartition(" ")
    if not space:
        return local if namespace == _SVG else None
    return local if uri == namespace else None


def _check_inactive(name: str, attributes: Mapping[str, str]) -> None:
    """Return if an element does nothing by itself; raises `ImageError` for scripts, handlers of events, and links to scripts."""
    local = name.rpartition(" ")[2].lower()
    handlers = [key for key in attributes if key.lower().startswith("on")]
    links = [value for key, value in attributes.items() if key.rpartition(" ")[2] == "href" and _SCRIPT_URL.match(value)]
    if local == "script" or handlers or links:
        _refuse("unsupported", "This SVG holds scripts, which are not taken.", "a drawing", (handlers or links or [local])[0][:40])


def _is_harmless(css: str) -> bool:
    """Return whether a value or a style sheet reaches nothing outside the document: no URL but of a fragment, no rule, no escape."""
    return "\\" not in css and "@" not in css and len(_ANY_URL.findall(css)) == len(_REFERENCE.findall(css))


def _size_told(attributes: Mapping[str, str]) -> tuple[str, str]:
    width, height = _pixels(attributes.get("width", "")), _pixels(attributes.get("height", ""))
    box = [_number(part) for part in re.split(r"[\s,]+", attributes.get("viewBox", "").strip())]
    ratio = box[3] / box[2] if len(box) == 4 and box[2] > 0 and box[3] > 0 else None
    if width is None and height is None:
        width, height = (box[2], box[3]) if ratio else _DEFAULT_SIZE
    elif width is None:
        width = (height or 0) / ratio if ratio else _DEFAULT_SIZE[0]
    elif height is None:
        height = width * ratio if ratio else _DEFAULT_SIZE[1]
    width, height = width or 0, height or 0
    if not 0 < width <= MAX_SIDE or not 0 < height <= MAX_SIDE:
        _refuse(
            "too-many-pixels",
            "The SVG is larger than is drawn, or empty.",
            f"sides above 0 and up to {MAX_SIDE} pixels",
            f"{width:g} x {height:g}",
        )
    return f"{width:.4f}", f"{height:.4f}"


def _pixels(length: str) -> float | None:
    match = _LENGTH.fullmatch(length)
    return float(match[1]) * _UNIT_PIXELS[match[2]] if match else None


def _number(text: str) -> float:
    match = _LENGTH.fullmatch(text.removeprefix("-"))
    return float(match[1]) if match else 0.0


def _exact_size(clean: bytes) -> tuple[float, float]:
    match = _ROOT.match(clean)
    if match is None:
        raise ValueError("not a sanitised document")
    return float(match[1]), float(match[2])


def _png_pixels(body: bytes) -> int | None:
    """Return width × height of a PNG (PNG §11.2.2), `None` of anything else."""
    if body[:8] != b"\x89PNG\r\n\x1a\n" or body[12:16] != b"IHDR":
        return None
    return int.from_bytes(body[16:20], "big") * int.from_bytes(body[20:24], "big")


def _jpeg_pixels(body: bytes) -> int | None:
    """Return width × height of a JPEG: of its first frame header (ITU-T T.81 §B.2.2), `None` of anything else."""
    at = 2
    while body[:2] == b"\xff\xd8" and body[at : at + 1] == b"\xff" and at + 9 <= len(body):
        marker = body[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            return int.from_bytes(body[at + 5 : at + 7], "big") * int.from_bytes(body[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(body[at + 2 : at + 4], "big")
    return None


def _check_seconds(seconds: float, most: float) -> None:
    # Of numbers without bounds the estimate may be none.
    if not seconds <= most:
        _refuse(
            "too-complex",
            "The SVG would take too long to draw.",
            f"an estimate of at most {most:g} s",
            f"{seconds:.0f} s or more, with its selectors, paths, texts, layers and filters",
        )


def _refuse(kind: FailureKind, detail: str, expected: str, received: str) -> NoReturn:
    raise ImageError(Failure(kind, detail, expected, received, "Simplify the drawing, or export it as PNG, and send that."))
