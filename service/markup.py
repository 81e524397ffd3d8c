"""Ladders of widths, srcset, `<picture>`."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

import msgspec

from service.address import PIPELINE_VERSION, Address, Signer
from service.errors import BadTransformError
from service.render.geometry import plan
from service.render.messages import ImageInfo
from service.transform import MAX_SIDE_PIXELS, Format, Transform

# From a phone in a column to a wide screen at twice the density: each step saves about half of the next one's bytes.
LADDER_WIDTHS = (320, 640, 960, 1280, 1920, 2560)

# The `src` for browsers that read no srcset: a middle step.
SRC_WIDTH = 1280

EXTENSIONS: dict[Format, str] = {"avif": "avif", "webp": "webp", "jpeg": "jpg", "png": "png"}
DEFAULT_SIZES = "100vw"


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


def fallback_format(info: ImageInfo) -> Format:
    """Return the format that every browser shows and that keeps what the original has."""
    return "png" if info.alpha else "jpeg"


def default_formats(info: ImageInfo) -> tuple[Format, ...]:
    """Return the formats of a ladder, the smallest first, the fallback last."""
    return ("avif", "webp", fallback_format(info))


def ladder_widths(width: int) -> list[int]:
    """Return the default widths for an image `width` pixels wide: no step above it, and itself where it ends the ladder."""
    steps = [step for step in LADDER_WIDTHS if step < width]
    return [*steps, width] if len(steps) < len(LADDER_WIDTHS) else steps


class Minter:
    """Makes URLs: addresses of today's pipeline version, signed, under the public URL."""

    def __init__(self, signer: Signer, public_url: str) -> None:
        """Take the signer and what stands before every path, "" for relative URLs."""
        self._signer = signer
        self._public_url = public_url

    def url(self, digest: str, transform: Transform, image_format: Format) -> str:
        """Return the URL of one rendition."""
        address = Address(PIPELINE_VERSION, digest, transform.spelling, EXTENSIONS[image_format])
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

        A transform's own height follows its width, so that a crop keeps its shape at every step.
        """
        full_width, _ = plan(info.width, info.height, transform).output
        steps = [_at_width(transform, width) for width in sorted(set(widths)) or ladder_widths(full_width)]
        sources = [self._source(digest, info, steps, image_format) for image_format in formats or default_formats(info)]
        fallback = sources[-1].renditions
        middle = min(fallback, key=lambda link: (abs(link.width - SRC_WIDTH), link.width))
        return Markup(middle.url, sources, picture(sources, middle, sizes, alt))

    def _source(self, digest: str, info: ImageInfo, steps: Iterable[Transform], image_format: Format) -> Source:
        links: dict[int, RenditionLink] = {}
        for step in steps:
            width, height = plan(info.width, info.height, step).output
            # Nothing is enlarged: of several steps beyond the original the first is enough.
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


def _at_width(transform: Transform, width: int) -> Transform:
    if transform.width is None:
        if transform.height is not None:
            raise BadTransformError(
                "A ladder of widths of a transform that has a height alone has no shape.",
                expected="width and height, a width alone, or neither",
                received=transform.spelling,
                remedy="Give the width too, or ask for one URL with `format`.",
            )
        return msgspec.structs.replace(transform, width=width)
    height = None if transform.height is None else max(1, (2 * transform.height * width + transform.width) // (2 * transform.width))
    if height is not None and height > MAX_SIDE_PIXELS:
        raise BadTransformError(
            "At one of these widths the transform would be too high.",
            expected=f"at most {MAX_SIDE_PIXELS} pixels",
            received=f"{width} x {height}",
            remedy="Leave the largest widths out, or give the transform a wider shape.",
        )
    return msgspec.structs.replace(transform, width=width, height=height)
