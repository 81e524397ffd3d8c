"""URLs of renditions, srcset, `<picture>`."""

from __future__ import annotations

import html
from collections.abc import Collection, Sequence

import msgspec

from service.images.info import ImageInfo, Limits
from service.images.ladder import Ladder, ladders
from service.images.transform import FORMATS, Format, Transform, for_format
from service.urls.rendition_url import PIPELINE_VERSION, Address, PointerAddress, Signer

# The `src` for browsers that read no srcset: a middle step.
SRC_WIDTH = 1280

EXTENSIONS: dict[Format, str] = {"avif": "avif", "webp": "webp", "jpeg": "jpg", "png": "png", "gif": "gif"}
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


class Minter:
    """Makes URLs: addresses of today's pipeline version, signed, under the public URL."""

    def __init__(self, signer: Signer, public_url: str, limits: Limits) -> None:
        """Make URLs that `signer` signs.

        `public_url`: what stands before every path, "" for relative URLs. `limits`: what ladders leave out.
        """
        self._signer = signer
        self._public_url = public_url
        self._limits = limits

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
        offered: Collection[Format] = FORMATS,
        sizes: str = DEFAULT_SIZES,
        alt: str = "",
    ) -> Markup:
        """Return the ladders of `transform`, of which see `ladders`, with their URLs.

        Raises `TooManyPixelsError` for what is larger than is made, `TooComplexError` for a drawing that takes too long to draw, and
        `BadTransformError` for a frame that the image has not, a crop outside the picture, a transform that has a height only, and what a
        format cannot do.
        """
        found = ladders(info, transform, self._limits, widths=widths, formats=formats, offered=offered)
        sources = [self._source(digest, ladder) for ladder in found]
        fallback = sources[-1].renditions
        middle = min(fallback, key=lambda link: (abs(link.width - SRC_WIDTH), link.width))
        return Markup(middle.url, sources, picture(sources, middle, sizes, alt))

    def _source(self, digest: str, ladder: Ladder) -> Source:
        renditions = [RenditionLink(step.width, step.height, self.url(digest, step.transform, ladder.format)) for step in ladder.steps]
        srcset = ", ".join(f"{link.url} {link.width}w" for link in renditions)
        return Source(f"image/{ladder.format}", srcset, renditions)


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
