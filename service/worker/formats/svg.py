"""SVG: sanitized, then rasterized. It is never served as SVG, and never drawn if that could cost too much.

A document with scripts is refused. From any other, only elements and attributes that are known to be harmless are copied: style sheets that
refer to other resources, animation, foreign elements and links are left out. Browsers ignore these as well in the SVG of an `<img>` (SVG 2
§2.7.1, secure static mode). Embedded PNG and JPEG pictures are copied. Text is drawn with the installed fonts.
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

from service.images.geometry import Box, drawing_size, make_plan
from service.images.options import MAX_SIDE_PIXELS
from service.images.transform import Transform
from service.rendering.protocol import Failure, FailureKind, ImageError
from service.worker.formats import jpeg, png, svg_cost
from service.worker.formats.svg_cost import Element, Inherited


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_XML = "http://www.w3.org/XML/1998/namespace"

MAX_BYTES = 4 << 20
MAX_ELEMENTS = 20_000
MAX_DEPTH = 64
# Elements drawn, counted each time that a reference draws them: nested `use` elements may double the number with every level.
MAX_DRAWN = 100_000
MAX_SIDE = 65_535
MAX_EMBEDDED_PIXELS = 16_000_000

# Limits for the drawing time that `svg_cost` estimates: at the document's own size, and at the size of a rendition, which may be larger.
MAX_SECONDS = 5.0
MAX_SECONDS_ENLARGED = 30.0

# A filter primitive counts as this many elements, since it processes every pixel.
_FILTER_WEIGHT = 50

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

# Relative units refer to the default font size of 16 pixels.
_UNIT_PIXELS = {**svg_cost.UNIT_PIXELS, "em": 16.0, "ex": 8.0}
# The size of a document that states none, in pixels (CSS 2.1 §10.3.2).
_DEFAULT_SIZE = (300.0, 150.0)


def is_svg(beginning: bytes) -> bool:
    """Return whether a file is an SVG document: its first element is `svg`.

    beginning: the first bytes of the file, enough to reach that element.
    """
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


def sanitize(body: bytes, drawn_at: tuple[int, int, float] | None = None) -> bytes:
    """Return the sanitized document in UTF-8, whose root element states its size in pixels.

    drawn_at: width and height in pixels of the rendition to draw, and the scale of the document in it; `None` if it will not be drawn.

    Raises `ImageError`: `broken` if it is not well-formed, `unsupported` if it has scripts or declares entities, `too-many-pixels` if it is
    too large or has too many elements, and `too-complex` if it would take too long to draw, at its own size or as `drawn_at`.
    """
    return _sanitize(body, drawn_at)[1]


def measure(body: bytes) -> tuple[int, int, int | None]:
    """Return the width and height of a document in pixels, and the largest width at which the whole of it can be drawn in time.

    The latter is `None` if it can be drawn in time at the largest size of a rendition in its aspect ratio. Raises `ImageError` as
    `sanitize`.
    """
    sanitizer, clean = _sanitize(body, None)
    width, height = size(clean)

    def takes_too_long(drawn_width: int) -> bool:
        seconds = sanitizer.seconds(*drawing_size(make_plan(width, height, Transform(width=drawn_width), vector=True)))
        return not seconds <= MAX_SECONDS_ENLARGED

    max_width = max(width, isqrt(MAX_SIDE_PIXELS**2 * width // height))
    if not takes_too_long(max_width):
        return width, height, None
    # The estimate grows with the width, and at the document's own width it has just passed a stricter limit.
    return width, height, width - 1 + bisect_left(range(width, max_width), True, key=takes_too_long)


def _sanitize(body: bytes, drawn_at: tuple[int, int, float] | None) -> tuple[_Sanitizer, bytes]:
    """Return the sanitizer that has read a document, and the sanitized document. Raises `ImageError` as `sanitize`."""
    if len(body) > MAX_BYTES:
        _refuse("too-many-pixels", "The SVG document is too large.", f"at most {MAX_BYTES} bytes", f"{len(body)} bytes")
    sanitizer = _Sanitizer()
    try:
        sanitizer.parser.Parse(body, True)
        drawn = sanitizer.count_drawn()
        clean = "".join(sanitizer.out).encode("utf-8")
        seconds = sanitizer.seconds(*(drawn_at or (*size(clean), 1.0))) if drawn <= MAX_DRAWN else 0.0
    except expat.ExpatError as error:
        _refuse("broken", "This SVG is not well-formed.", "well-formed XML", f"{expat.ErrorString(error.code)} in line {error.lineno}")
    except (ValueError, LookupError) as error:
        _refuse("broken", "This SVG is not well-formed.", "well-formed XML in a known encoding", type(error).__name__)
    except RecursionError:
        _refuse("too-many-pixels", "The SVG is nested too deeply.", f"at most {MAX_DEPTH} levels", "more")
    if drawn > MAX_DRAWN:
        _refuse("too-many-pixels", "The SVG draws too many elements.", f"at most {MAX_DRAWN}, each repetition counted", "more")
    _check_seconds(seconds, MAX_SECONDS_ENLARGED if drawn_at else MAX_SECONDS)
    return sanitizer, clean


def size(clean: bytes) -> tuple[int, int]:
    """Return the width and height in pixels of a sanitized document, at least 1 each."""
    width, height = _exact_size(clean)
    return max(1, round(width)), max(1, round(height))


def rasterize(clean: bytes, region: Box, width: int, height: int) -> pyvips.Image:
    """Return a region of a sanitized document, drawn sharply at `width` × `height`: sRGB with alpha, 8 bits per band.

    region: in pixels of the document's `size`.
    """
    exact_width, exact_height = _exact_size(clean)
    whole_width, whole_height = size(clean)
    x_scale, y_scale = exact_width / whole_width, exact_height / whole_height
    view = f"{region.left * x_scale:.6f} {region.top * y_scale:.6f} {region.width * x_scale:.6f} {region.height * y_scale:.6f}"
    frame = f'<svg xmlns="{_SVG}" width="{width}" height="{height}" viewBox="{view}" preserveAspectRatio="none">'
    # libvips defaults to 72 dots per inch and CSS has 96: this dpi makes points right, and this scale makes pixels right.
    image = pyvips.Image.svgload_buffer(frame.encode() + clean + b"</svg>", dpi=96, scale=72 / 96)
    if (image.width, image.height) != (width, height):
        image = image.gravity("north-west", width, height)
    return image


class _Sanitizer:
    """Writes a sanitized copy of a document while it is parsed.

    parser: to be fed the document.
    out: the copy, in pieces.
    """

    def __init__(self) -> None:
        self.out: list[str] = []
        self._stack: list[tuple[str, Element]] = []
        self._ids: dict[str, Element] = {}
        self._root: Element | None = None
        self._skipped_depth = 0
        self._elements = self._points = 0
        self._embedded_pixels = self._element_pixels = 0
        self._sheets: list[str] = []
        self._style: list[str] = []
        self._cost: svg_cost.Cost | None = None
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text

    def count_drawn(self) -> int:
        """Return how many elements are drawn, counted each time that a reference draws them, or some number above `MAX_DRAWN`."""
        counts: dict[int, int] = {}
        in_progress: set[int] = set()

        def count(element: Element) -> int:
            known = counts.get(id(element))
            if known is not None:
                return known
            if id(element) in in_progress:
                # librsvg does not draw circular references, but it draws the elements that lead to one.
                return 0
            in_progress.add(id(element))
            total = (_FILTER_WEIGHT if element.tag in _FILTERS else 1) + sum(count(child) for child in element.children)
            total += sum(count(self._ids[name]) for name in element.references if name in self._ids)
            in_progress.discard(id(element))
            counts[id(element)] = min(total, MAX_DRAWN + 1)
            return counts[id(element)]

        return count(self._root) if self._root else 0

    def seconds(self, width: int, height: int, scale: float) -> float:
        """Return an estimate of the time to draw the document.

        width, height: of the canvas, in pixels.
        scale: of the document, relative to its own size.
        """
        if self._root is None:
            return 0.0
        if self._cost is None:
            self._cost = svg_cost.Cost(self._root, self._ids, "\n".join(self._sheets))
        return self._cost.nanoseconds(width, height, scale) / 1e9

    def _doctype(self, name: str, system_id: str | None, public_id: str | None, has_internal_subset: bool) -> None:  # noqa: ARG002
        if has_internal_subset:
            _refuse(
                "unsupported",
                "This SVG declares entities, which are not supported.",
                "a DOCTYPE without declarations, or none",
                "an internal subset",
            )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            _refuse("too-many-pixels", "The SVG has too many elements.", f"at most {MAX_ELEMENTS}", "more")
        _check_inactive(name, attributes)
        tag = _local(name, _SVG)
        # A link is copied as a group.
        tag = "g" if tag == "a" else tag
        if self._root is None and tag != "svg":
            _refuse("broken", "The document's first element is not `svg`.", f"svg in the namespace {_SVG}", name)
        if self._skipped_depth or tag is None or tag not in _ELEMENTS | _FILTERS:
            self._skipped_depth += 1
            return
        if len(self._stack) >= MAX_DEPTH:
            _refuse("too-many-pixels", "The SVG is nested too deeply.", f"at most {MAX_DEPTH} levels", "more")
        references: list[str] = []
        copied = self._copy_attributes(tag, attributes, references)
        if tag == "image" and "xlink:href" not in copied:
            self._skipped_depth += 1
            return
        self._points += svg_cost.count_commands(copied.get("d", ""))
        if self._points > svg_cost.MAX_POINTS:
            _refuse("too-complex", "The SVG has too many points.", f"at most {svg_cost.MAX_POINTS} in all paths", "more")
        element = Element(tag, copied, self._stack[-1][1].inherited if self._stack else Inherited())
        element.references = references
        element.embedded_pixels = self._element_pixels
        if "id" in copied:
            self._ids.setdefault(copied["id"], element)
        if self._root is None:
            self._root = element
            width, height = _stated_size(attributes)
            element.size = float(width), float(height)
            copied = {"xmlns": _SVG, "xmlns:xlink": _XLINK, "width": width, "height": height} | {
                key: value for key, value in copied.items() if key not in {"width", "height"}
            }
        else:
            self._stack[-1][1].children.append(element)
        self._stack.append((tag, element))
        self.out.append(f"<{tag}" + "".join(f" {key}={quoteattr(value)}" for key, value in copied.items()) + ">")

    def _end(self, name: str) -> None:  # noqa: ARG002 - the parser has checked that the tags match
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
            # Text is laid out per `text` element, not per `tspan`.
            whole = next((element for tag, element in self._stack if tag == "text"), self._stack[-1][1])
            whole.characters += len(text)

    def _copy_attributes(self, tag: str, attributes: Mapping[str, str], references: list[str]) -> dict[str, str]:
        """Return the harmless attributes of an element, and add the ids that they refer to to `references`."""
        self._element_pixels = 0
        copied: dict[str, str] = {}
        for name, value in attributes.items():
            if _local(name, _XLINK) == "href" or name == "href":
                if value.startswith("#"):
                    references.append(value[1:])
                    copied["xlink:href"] = value
                elif tag == "image" and self._is_embedded_picture(value):
                    copied["xlink:href"] = value
            elif name == f"{_XML} space":
                copied["xml:space"] = value
            elif name in _ATTRIBUTES and _is_harmless(value):
                references += _REFERENCE.findall(value)
                copied[name] = value
        return copied

    def _is_embedded_picture(self, url: str) -> bool:
        """Return whether a `data:` URL holds a PNG or JPEG, and add up the pixels. Raises `ImageError` beyond `MAX_EMBEDDED_PIXELS`."""
        match = _EMBEDDED.match(url)
        if match is None:
            return False
        try:
            body = base64.b64decode(re.sub(r"\s", "", url[match.end() :]), validate=True)
        except binascii.Error:
            return False
        pixels = png.pixel_count(body) if match[1].lower() == "png" else jpeg.pixel_count(body)
        if pixels is None:
            return False
        self._embedded_pixels += pixels
        self._element_pixels = pixels
        if self._embedded_pixels > MAX_EMBEDDED_PIXELS:
            _refuse(
                "too-many-pixels",
                "The pictures embedded in the SVG have too many pixels.",
                f"at most {MAX_EMBEDDED_PIXELS} pixels",
                "more",
            )
        return True


def _local(name: str, namespace: str) -> str | None:
    """Return the local name of an element or attribute if it is in `namespace`, otherwise `None`.

    name: as expat gives it, with the namespace first. Names without a namespace count as SVG.
    """
    uri, space, local = name.rpartition(" ")
    if not space:
        return local if namespace == _SVG else None
    return local if uri == namespace else None


def _check_inactive(name: str, attributes: Mapping[str, str]) -> None:
    """Check that an element is no script, handles no events, and links to no script. Raises `ImageError`, `unsupported`."""
    local = name.rpartition(" ")[2].lower()
    handlers = [key for key in attributes if key.lower().startswith("on")]
    links = [value for key, value in attributes.items() if key.rpartition(" ")[2] == "href" and _SCRIPT_URL.match(value)]
    if local == "script" or handlers or links:
        _refuse(
            "unsupported",
            "This SVG contains scripts, which are not accepted.",
            "a drawing without scripts",
            (handlers or links or [local])[0][:40],
        )


def _is_harmless(css: str) -> bool:
    """Return whether CSS refers only to the document itself: it has no URL except a fragment, no at-rule, and no escape."""
    return "\\" not in css and "@" not in css and len(_ANY_URL.findall(css)) == len(_REFERENCE.findall(css))


def _stated_size(attributes: Mapping[str, str]) -> tuple[str, str]:
    """Return the width and height in pixels that a root element states. Raises `ImageError`, `too-many-pixels`."""
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
            "The SVG is empty or too large.",
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
        raise ValueError("not a sanitized document")
    return float(match[1]), float(match[2])


def _check_seconds(seconds: float, limit: float) -> None:
    # Not `>`: the estimate may be NaN.
    if not seconds <= limit:
        _refuse(
            "too-complex",
            "The SVG would take too long to draw.",
            f"an estimate of at most {limit:g} s",
            f"{seconds:.0f} s or more, for its selectors, paths, texts, layers and filters",
        )


def _refuse(kind: FailureKind, detail: str, expected: str, received: str) -> NoReturn:
    raise ImageError(Failure(kind, detail, expected, received, "Simplify the drawing, or export it as PNG, and send that."))
