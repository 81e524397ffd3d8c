"""SVG: sanitized, then rasterized. It is never served as SVG, and never drawn if that could cost too much.

A document is written anew, element by element: only what is known to be harmless is copied, with the declarations of its style sheets that
apply (see `svg_writer`). Text is drawn with the installed fonts.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from math import isqrt
from typing import NamedTuple

import pyvips

from service.images.geometry import Box, drawing_size, make_plan
from service.images.options import MAX_SIDE_PIXELS
from service.images.transform import Transform
from service.worker.formats import svg_cost
from service.worker.formats.svg_cost import Element
from service.worker.formats.svg_tree import FILTER_PRIMITIVES, MAX_BYTES, MAX_DEPTH, MAX_ELEMENTS, SVG, is_svg, refuse
from service.worker.formats.svg_writer import MAX_SIDE, Written, write

__all__ = [
    "MAX_BYTES", "MAX_DEPTH", "MAX_DRAWN", "MAX_ELEMENTS", "MAX_SIDE", "Measured", "is_svg", "measure", "rasterize", "sanitize", "size",
]  # fmt: skip

# Elements drawn, counted each time that a reference draws them: nested `use` elements may double the number with every level.
MAX_DRAWN = 100_000

# Limits for the drawing time that `svg_cost` estimates: at the document's own size, and at the size of a rendition, which may be larger.
MAX_SECONDS = 5.0
MAX_SECONDS_ENLARGED = 30.0

# A filter primitive counts as this many elements, since it processes every pixel.
_FILTER_WEIGHT = 50

_ROOT = re.compile(rb'<svg xmlns="[^"]+" xmlns:xlink="[^"]+" width="([0-9.]+)" height="([0-9.]+)"')


class Measured(NamedTuple):
    """The size of a document in pixels, and how it is drawn.

    max_width: the largest width at which the whole of it can be drawn in time, `None` if that is the largest size of a rendition.
    warnings: sentences that report what was removed from it.
    """

    width: int
    height: int
    max_width: int | None
    warnings: tuple[str, ...]


def sanitize(body: bytes, drawn_at: tuple[int, int, float] | None = None) -> bytes:
    """Return the sanitized document in UTF-8, whose root element states its size in pixels.

    drawn_at: width and height in pixels of the rendition to draw, and the scale of the document in it; `None` if it will not be drawn.

    Raises `ImageError`: `broken` if it is not well-formed, `unsupported` if it would come out visibly wrong, `too-many-pixels` if it is
    too large or has too many elements, and `too-complex` if it would take too long to draw, at its own size or as `drawn_at`.
    """
    return _sanitize(body, drawn_at)[0]


def measure(body: bytes) -> Measured:
    """Return the size of a document, and the largest width at which it can be drawn. Raises `ImageError` as `sanitize`."""
    clean, written, cost = _sanitize(body, None)
    width, height = size(clean)

    def takes_too_long(drawn_width: int) -> bool:
        seconds = _seconds(cost, *drawing_size(make_plan(width, height, Transform(width=drawn_width), vector=True)))
        return not seconds <= MAX_SECONDS_ENLARGED

    max_width = max(width, isqrt(MAX_SIDE_PIXELS**2 * width // height))
    if not takes_too_long(max_width):
        return Measured(width, height, None, written.warnings)
    # The estimate grows with the width, and at the document's own width it has just passed a stricter limit.
    max_width = width - 1 + bisect_left(range(width, max_width), True, key=takes_too_long)
    return Measured(width, height, max_width, written.warnings)


def _sanitize(body: bytes, drawn_at: tuple[int, int, float] | None) -> tuple[bytes, Written, svg_cost.Cost]:
    """Return the sanitized document, what it consists of, and its cost. Raises `ImageError` as `sanitize`."""
    try:
        written = write(body)
        drawn = _count_drawn(written.root, written.ids)
        clean = written.text.encode("utf-8")
        if drawn > MAX_DRAWN:
            refuse("too-many-pixels", "The SVG draws too many elements.", f"at most {MAX_DRAWN}, each repetition counted", "more")
        cost = svg_cost.Cost(written.root, written.ids)
        seconds = _seconds(cost, *(drawn_at or (*size(clean), 1.0)))
    except RecursionError:
        refuse("too-many-pixels", "The SVG is nested too deeply.", f"at most {MAX_DEPTH} levels", "more")
    except UnicodeEncodeError as error:
        refuse("broken", "This SVG is not well-formed.", "characters of Unicode", type(error).__name__)
    _check_seconds(seconds, MAX_SECONDS_ENLARGED if drawn_at else MAX_SECONDS)
    return clean, written, cost


def _count_drawn(root: Element, ids: dict[str, Element]) -> int:
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
        total = (_FILTER_WEIGHT if element.tag in FILTER_PRIMITIVES else 1) + sum(count(child) for child in element.children)
        total += sum(count(ids[name]) for name in element.references if name in ids)
        in_progress.discard(id(element))
        counts[id(element)] = min(total, MAX_DRAWN + 1)
        return counts[id(element)]

    return count(root)


def _seconds(cost: svg_cost.Cost, width: int, height: int, scale: float) -> float:
    """Return an estimate of the time to draw a document.

    width, height: of the canvas, in pixels.
    scale: of the document, relative to its own size.
    """
    return cost.nanoseconds(width, height, scale) / 1e9


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
    frame = f'<svg xmlns="{SVG}" width="{width}" height="{height}" viewBox="{view}" preserveAspectRatio="none">'
    # libvips defaults to 72 dots per inch and CSS has 96: this dpi makes points right, and this scale makes pixels right. A sanitized
    # document may have an attribute or a line of text that is longer than libxml2 allows by default.
    image = pyvips.Image.svgload_buffer(frame.encode() + clean + b"</svg>", dpi=96, scale=72 / 96, unlimited=True)
    if (image.width, image.height) != (width, height):
        image = image.gravity("north-west", width, height)
    return image


def _exact_size(clean: bytes) -> tuple[float, float]:
    match = _ROOT.match(clean)
    if match is None:
        raise ValueError("not a sanitized document")
    return float(match[1]), float(match[2])


def _check_seconds(seconds: float, limit: float) -> None:
    # Not `>`: the estimate may be NaN.
    if not seconds <= limit:
        refuse(
            "too-complex",
            "The SVG would take too long to draw.",
            f"an estimate of at most {limit:g} s",
            f"{seconds:.0f} s or more, for its paths, texts, layers and filters",
        )
