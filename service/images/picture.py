"""The srcset and the `<picture>` of an image."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from service.images.formats import FORMATS, Format
from service.images.ladder import Ladder, LadderStep
from service.images.media_condition import all_of, excluding
from service.images.options import DynamicRange

# The `src` for browsers that read no srcset: a middle step.
SRC_WIDTH = 1280

# For an image that is loaded lazily, `auto` is the width at which the page shows it (HTML Standard, "Sizes attributes"). Browsers without
# `auto` skip it and use the rest of the list.
DEFAULT_SIZES = "auto, 100vw"
EAGER_SIZES = "100vw"

_AUTO = re.compile(r"^[ \t\n\f\r]*auto[ \t\n\f\r]*(?:,[ \t\n\f\r]*|$)", re.IGNORECASE)

# The media query of screens with a high dynamic range (Media Queries 5 §6.6).
_MEDIA: Mapping[DynamicRange, str] = {"standard": "", "high": "(dynamic-range: high)"}


class RenditionLink(msgspec.Struct, frozen=True):
    """One step of a ladder: the size in pixels that the rendition will have, and its URL."""

    width: int
    height: int
    url: str


class PictureSource(msgspec.Struct, frozen=True, omit_defaults=True):
    """The ladder of one format, narrowest step first, and the same as a srcset.

    media: the screens that it is for, empty for all. sizes, width, height: the attributes of its `<source>`, if it is a crop for some
    screens. Without them, those of the `<img>` apply.
    """

    type: str
    srcset: str
    renditions: list[RenditionLink]
    media: str = ""
    sizes: str = ""
    width: int = 0
    height: int = 0


class Markup(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a page needs to show an image.

    src: the URL for browsers that read no srcset. sources: in the order of preference, the fallback last. picture: both as HTML.
    preload: for an image with priority, the value of the page's `Link` header; empty for others.
    """

    src: str
    sources: list[PictureSource]
    picture: str
    preload: str = ""


def picture_sources(ladders: Sequence[Ladder], url_of: Callable[[LadderStep, Format], str]) -> list[PictureSource]:
    """Return the sources of `ladders`, the fallback's last; `url_of` returns the URL of a step in a format."""
    sources = []
    for ladder in ladders:
        links = [RenditionLink(step.width, step.height, url_of(step, ladder.format)) for step in ladder.steps]
        srcset = ", ".join(f"{link.url} {link.width}w" for link in links)
        sources.append(PictureSource(FORMATS[ladder.format].media_type, srcset, links, _MEDIA[ladder.dynamic_range]))
    return sources


def for_media(sources: Sequence[PictureSource], media: str, sizes: str = "") -> list[PictureSource]:
    """Return the sources of a picture for some screens only; `sizes` is empty for that of the `<img>`.

    The width and height of the largest rendition of the fallback, the last of `sources`, prevent a layout shift.
    """
    largest = sources[-1].renditions[-1]
    return [
        msgspec.structs.replace(source, media=all_of(media, source.media), sizes=sizes, width=largest.width, height=largest.height)
        for source in sources
    ]


def markup(sources: Sequence[PictureSource], *, sizes: str, alt: str, priority: bool = False) -> Markup:
    """Return the markup of some sources, the fallback's last. See `picture` for the rest."""
    sources = list(sources)
    middle = min(sources[-1].renditions, key=lambda link: (abs(link.width - SRC_WIDTH), link.width))
    html_picture = picture(sources, middle, sizes, alt, priority=priority)
    return Markup(middle.url, sources, html_picture, preload(sources, sizes) if priority else "")


def _without_auto(sizes: str) -> str:
    """Return `sizes` for an image that is not loaded lazily: without `auto`, which is valid only with `loading="lazy"`."""
    return _AUTO.sub("", sizes) or EAGER_SIZES


def picture(sources: Sequence[PictureSource], fallback: RenditionLink, sizes: str, alt: str, *, priority: bool = False) -> str:
    """Return a `<picture>`, whose width and height prevent a layout shift.

    The browser takes the first type that it supports, at the width that it needs.

    priority: load the image at once and before others, for the largest image in the first view of a page. Other images are loaded lazily,
    when they come near the view.
    """
    lines = ["<picture>"]
    quoted_sizes = html.escape(_without_auto(sizes) if priority else sizes, quote=True)
    loading = 'loading="eager" fetchpriority="high"' if priority else 'loading="lazy"'
    for source in sources[:-1]:
        own_sizes = source.sizes or sizes
        attributes: dict[str, str | int] = {
            "media": source.media,
            "type": source.type,
            "srcset": source.srcset,
            "sizes": _without_auto(own_sizes) if priority else own_sizes,
            "width": source.width,
            "height": source.height,
        }
        required = {"type", "srcset", "sizes"}
        written = [f'{name}="{html.escape(str(value), quote=True)}"' for name, value in attributes.items() if value or name in required]
        lines.append(f"  <source {' '.join(written)}>")
    largest = sources[-1].renditions[-1]
    lines.append(
        f'  <img src="{html.escape(fallback.url, quote=True)}" srcset="{html.escape(sources[-1].srcset, quote=True)}" '
        f'sizes="{quoted_sizes}" width="{largest.width}" height="{largest.height}" alt="{html.escape(alt, quote=True)}" '
        f'{loading} decoding="async">'
    )
    return "\n".join([*lines, "</picture>"])


def preload(sources: Sequence[PictureSource], sizes: str) -> str:
    """Return the value of a `Link` header (RFC 8288) that makes a browser fetch the image of a `picture` before it parses the page.

    Only browsers that support the type of the first source preload it (HTML Standard, "Link type preload"), so that none fetches two
    formats. If there are sources for some screens only, there is a link for each kind of screens, and their conditions exclude each
    other.
    """
    best = {source.media: source for source in reversed(sources)}
    conditions = list(dict.fromkeys(source.media for source in sources))
    return ", ".join(
        _preload_link(best[condition], sizes, excluding(condition, conditions[:index])) for index, condition in enumerate(conditions)
    )


def _preload_link(source: PictureSource, sizes: str, media: str) -> str:
    # The target is for browsers that know the type and not `imagesrcset`. The narrowest rendition wastes the fewest bytes there.
    attributes = {"imagesrcset": source.srcset, "imagesizes": _without_auto(source.sizes or sizes), "type": source.type}
    if media:
        attributes["media"] = media
    quoted = "".join(f"; {name}={_quoted_string(value)}" for name, value in attributes.items())
    return f"<{source.renditions[0].url}>; rel=preload; as=image{quoted}; fetchpriority=high"


def _quoted_string(text: str) -> str:
    """Return a quoted string (RFC 9110 §5.6.4). White space of CSS becomes a space, and a character that no header can have becomes `?`."""
    printable = re.sub(r"[^ -~]", "?", re.sub(r"[\t\n\f\r]", " ", text))
    return '"' + re.sub(r'(["\\])', r"\\\1", printable) + '"'
