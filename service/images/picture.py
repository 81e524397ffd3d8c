"""The srcset and the `<picture>` of an image."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence

import msgspec

from service.images.formats import FORMATS, Format
from service.images.ladder import Ladder, LadderStep
from service.images.options import DynamicRange

# The `src` for browsers that read no srcset: a middle step.
SRC_WIDTH = 1280

DEFAULT_SIZES = "100vw"

# The media query of screens with a high dynamic range (Media Queries 5 §6.6).
_MEDIA: Mapping[DynamicRange, str] = {"standard": "", "high": "(dynamic-range: high)"}


class RenditionLink(msgspec.Struct, frozen=True):
    """One step of a ladder: the size in pixels that the rendition will have, and its URL."""

    width: int
    height: int
    url: str


class PictureSource(msgspec.Struct, frozen=True, omit_defaults=True):
    """The ladder of one format, narrowest step first, and the same as a srcset. media: the screens that it is for, empty for all."""

    type: str
    srcset: str
    renditions: list[RenditionLink]
    media: str = ""


class Markup(msgspec.Struct, frozen=True):
    """What a page needs to show an image.

    src: the URL for browsers that read no srcset. sources: in the order of preference, the fallback last. picture: both as HTML.
    """

    src: str
    sources: list[PictureSource]
    picture: str


def markup(ladders: Sequence[Ladder], url_of: Callable[[LadderStep, Format], str], *, sizes: str, alt: str) -> Markup:
    """Return the markup of `ladders`, the fallback's last; `url_of` returns the URL of a step in a format."""
    sources = []
    for ladder in ladders:
        links = [RenditionLink(step.width, step.height, url_of(step, ladder.format)) for step in ladder.steps]
        srcset = ", ".join(f"{link.url} {link.width}w" for link in links)
        sources.append(PictureSource(FORMATS[ladder.format].media_type, srcset, links, _MEDIA[ladder.dynamic_range]))
    middle = min(sources[-1].renditions, key=lambda link: (abs(link.width - SRC_WIDTH), link.width))
    return Markup(middle.url, sources, picture(sources, middle, sizes, alt))


def _media_attribute(source: PictureSource) -> str:
    return f' media="{source.media}"' if source.media else ""


def picture(sources: Sequence[PictureSource], fallback: RenditionLink, sizes: str, alt: str) -> str:
    """Return a `<picture>`, whose width and height prevent a layout shift.

    The browser takes the first type that it supports, at the width that it needs.
    """
    lines = ["<picture>"]
    quoted_sizes = html.escape(sizes, quote=True)
    lines += [
        f'  <source{_media_attribute(source)} type="{source.type}" srcset="{html.escape(source.srcset, quote=True)}" '
        f'sizes="{quoted_sizes}">'
        for source in sources[:-1]
    ]
    largest = sources[-1].renditions[-1]
    lines.append(
        f'  <img src="{html.escape(fallback.url, quote=True)}" srcset="{html.escape(sources[-1].srcset, quote=True)}" '
        f'sizes="{quoted_sizes}" width="{largest.width}" height="{largest.height}" alt="{html.escape(alt, quote=True)}" '
        'loading="lazy" decoding="async">'
    )
    return "\n".join([*lines, "</picture>"])
