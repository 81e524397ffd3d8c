"""Ladders of widths, srcset, `<picture>`."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from fractions import Fraction

import msgspec

from service.address import PIPELINE_VERSION, Address, PointerAddress, Signer
from service.errors import BadTransformError
from service.options import BLUR
from service.render.geometry import plan
from service.render.messages import ImageInfo
from service.transform import Format, Transform, for_format, scaled

# From a phone in a column to a wide screen at twice the density: each step saves about half of the next one's bytes.
LADDER_WIDTHS = (320, 640, 960, 1280, 1920, 2560)

# The `src` for browsers that read no srcset: a middle step.
SRC_WIDTH = 1280

EXTENSIONS: dict[Format, str] = {"avif": "avif", "webp": "webp", "jpeg": "jpg", "png": "png", "gif": "gif"}
DEFAULT_SIZES = "100vw"

PLAIN = Transform()
_OPAQUE_COLOUR_DIGITS = 6


class RenditionLink(msgspec.Struct, frozen=True):
    """One step of a ladder: the size in pixels that the rendition will have, and its URL."""

    width: int
    height: int
    url: str


class Source(msgspec.Struct, frozen=True):
    """One format's ladder, narrowest first, and the same as a srcset."""

    type: str
    srcset: str
    renditions: list[RenditionLink]


class Markup(msgspec.Struct, frozen=True):
    """What a page needs: `src` the fallback, `sources` in the order of preference, the fallback last, and both as HTML."""

    src: str
    sources: list[Source]
    picture: str


def fallback_format(info: ImageInfo, transform: Transform = PLAIN, *, animates: bool = True) -> Format:
    """Return the format that every browser shows and that keeps what the rendition has: its frames, its transparency.

    `animates`: whether an animation stays one, as in every pipeline version but the first.
    """
    if info.animates(transform, "gif", by_default=animates):
        return "gif"
    return "png" if transform.lossless or _has_alpha(info, transform) else "jpeg"


def default_formats(info: ImageInfo, transform: Transform = PLAIN, *, animates: bool = True) -> tuple[Format, ...]:
    """Return the formats of a ladder, the smallest first, the fallback last; of `animates` see `fallback_format`."""
    fallback = fallback_format(info, transform, animates=animates)
    # AVIF holds no animation here, and its lossless files are the largest.
    return ("webp", fallback) if fallback == "gif" or transform.lossless else ("avif", "webp", fallback)


def ladder_widths(width: int, *, grows: bool = False) -> list[int]:
    """Return the default widths for a `width` pixels wide image: no step above it, unless it `grows`, and itself where that ends it."""
    if grows:
        return list(LADDER_WIDTHS)
    steps = [step for step in LADDER_WIDTHS if step < width]
    return [*steps, width] if len(steps) < len(LADDER_WIDTHS) else steps


class Minter:
    """Makes URLs: addresses of today's pipeline version, signed, under the public URL."""

    def __init__(self, signer: Signer, public_url: str) -> None:
        """Take the signer and what stands before every path, "" for relative URLs."""
        self._signer = signer
        self._public_url = public_url

    def url(self, digest: str, transform: Transform, image_format: Format) -> str:
        """Return the URL of one rendition; raises `BadTransformError` for what `image_format` cannot do."""
        return self.sign(Address(PIPELINE_VERSION, digest, for_format(transform, image_format).spelling, EXTENSIONS[image_format]))

    def sign(self, address: Address | PointerAddress) -> str:
        """Return the URL of an address as it stands."""
        return self._public_url + self._signer.sign(address)

    def markup(
        self,
        digest: str,
        info: ImageInfo,
        transform: Transform,
        *,
        widths: Sequence[int] = (),
        formats: Sequence[Format] = (),
        sizes: str = DEFAULT_SIZES,
        alt: str = "",
    ) -> Markup:
        """Return the ladder of `transform` at `widths` and in `formats`, by default as wide as the transform makes the image.

        Every length of a transform follows its width, so that a crop keeps its shape, and a round corner its look, at every step.
        Raises `BadTransformError` for a crop outside the picture and for what a format cannot do.
        """
        info = info.of_page(transform.frame)
        full = plan(info.width, info.height, transform, vector=info.vector)
        grows = (info.vector and transform.width is None) or transform.enlarge
        wanted = sorted(set(widths)) or ladder_widths(full.picture[0], grows=grows)
        steps = [_at_width(transform, width, full.width) for width in wanted]
        sources = [self._source(digest, info, steps, image_format) for image_format in formats or default_formats(info, transform)]
        fallback = sources[-1].renditions
        middle = min(fallback, key=lambda link: (abs(link.width - SRC_WIDTH), link.width))
        return Markup(middle.url, sources, picture(sources, middle, sizes, alt))

    def _source(self, digest: str, info: ImageInfo, steps: Iterable[Transform], image_format: Format) -> Source:
        links: dict[int, RenditionLink] = {}
        for step in steps:
            width, height = plan(info.width, info.height, step, vector=info.vector).output
            # What does not grow: of several steps beyond the original the first is enough.
            links.setdefault(width, RenditionLink(width, height, self.url(digest, step, image_format)))
        renditions = [links[width] for width in sorted(links)]
        srcset = ", ".join(f"{link.url} {link.width}w" for link in renditions)
        return Source(f"image/{image_format}", srcset, renditions)


def picture(sources: Sequence[Source], fallback: RenditionLink, sizes: str, alt: str) -> str:
    """Return a `<picture>`: the browser takes the first type that it knows at the width that it needs; the size avoids layout shift."""
    lines = ["<picture>"]
    quoted_sizes = html.escape(sizes, quote=True)
    lines += [
        f'  <source type="{source.type}" srcset="{html.escape(source.srcset, quote=True)}" sizes="{quoted_sizes}">'
        for source in sources[:-1]
    ]
    largest = sources[-1].renditions[-1]
    lines.append(
        f'  <img src="{html.escape(fallback.url, quote=True)}" srcset="{html.escape(sources[-1].srcset, quote=True)}" '
        f'sizes="{quoted_sizes}" width="{largest.width}" height="{largest.height}" alt="{html.escape(alt, quote=True)}" '
        'loading="lazy" decoding="async">'
    )
    return "\n".join([*lines, "</picture>"])


def _has_alpha(info: ImageInfo, transform: Transform) -> bool:
    """Return whether a rendition has transparent pixels, or may have them."""
    background = transform.background
    if background is not None and (background == BLUR or len(background) == _OPAQUE_COLOUR_DIGITS):
        return False
    page = info.of_page(transform.frame)
    steps = plan(page.width, page.height, transform, vector=info.vector)
    return info.alpha or transform.round is not None or not steps.straight or steps.canvas is not None or steps.padded is not None


def _at_width(transform: Transform, width: int, full_width: int) -> Transform:
    """Return a transform whose box is `width` wide, all its lengths in proportion; without a box it is as large as `full_width`."""
    if transform.width is None and transform.height is not None:
        raise BadTransformError(
            "A ladder of widths of a transform that has a height alone has no shape.",
            expected="width and height, a width alone, or neither",
            received=transform.spelling,
            remedy="Give the width too, or ask for one URL with `format`.",
        )
    factor = Fraction(width, transform.width or full_width)
    return msgspec.structs.replace(scaled(transform, factor), width=width)
