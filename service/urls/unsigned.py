"""The transforms that need no signature: the open ladder, and the transforms in the operator's list.

The open ladder lets anyone build the URL of a rendition from the digest of an image. What strangers can request of one image is bounded:
every width of the ladder, plain and in every variant, in every open format, for every pipeline version since `FIRST_OPEN_VERSION`; twice
as many in formats for which the server has a quality of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from types import MappingProxyType

import msgspec

from service.errors import BadTransformError
from service.images.formats import FORMAT_OF_EXTENSION, FORMATS, Format
from service.images.info import ImageInfo
from service.images.ladder import LADDER_WIDTHS, at_width, default_formats
from service.images.transform import Transform, for_format, for_url, scaled
from service.urls.rendition_url import AUTO, RenditionUrl
from service.urls.source_url import SourceUrl

# Earlier pipeline versions had signed ladders; their URLs stay as they were published.
FIRST_OPEN_VERSION = 3

# PNG and GIF renditions of photos are many times larger than the original, so these formats are open only for images that need them.
OPEN_FOR_EVERY_IMAGE: frozenset[Format] = frozenset({"jxl", "avif", "webp", "jpeg"})


# An error names so many transforms, which is the whole ladder of the plain image by default.
_MAX_DESCRIBED = 16


class UnsignedTransforms(msgspec.Struct, frozen=True):
    """The transforms that need no signature, in canonical form.

    listed: by the operator, for every format and pipeline version.
    ladder: of the open ladder, for pipeline versions since `FIRST_OPEN_VERSION`.
    of_extension: further ones for one extension each: those of `ladder` with the server's own quality of a format.
    """

    listed: frozenset[str] = frozenset()
    ladder: frozenset[str] = frozenset()
    of_extension: Mapping[str, frozenset[str]] = {}

    @property
    def in_order(self) -> list[str]:
        """All transforms: the listed ones, then the plain image and the variants at each width."""
        return [*sorted(self.listed), *sorted(self.ladder, key=lambda text: (text.count(","), len(text), text))]

    @property
    def description(self) -> str:
        """What needs no signature, for people: at most `_MAX_DESCRIBED` transforms."""
        transforms = self.in_order
        if not transforms:
            return "a signature: DARKROOM_UNSIGNED is none"
        more = f", and {len(transforms) - _MAX_DESCRIBED} more" if len(transforms) > _MAX_DESCRIBED else ""
        return f"a signature, or one of the transforms {' '.join(transforms[:_MAX_DESCRIBED])}{more}"

    def permit_transform(self, url: RenditionUrl | SourceUrl) -> bool:
        """Return whether the transform of a URL needs no signature for some images."""
        if url.transform in self.listed:
            return True
        in_ladder = url.transform in self.ladder or url.transform in self.of_extension.get(url.extension, ())
        return in_ladder and url.version >= FIRST_OPEN_VERSION

    def depend_on_image(self, url: RenditionUrl | SourceUrl) -> bool:
        """Return whether a permitted transform is open only for some images in the format of a URL."""
        if url.transform in self.listed or url.extension == AUTO:
            return False
        return FORMAT_OF_EXTENSION[url.extension] not in OPEN_FOR_EVERY_IMAGE

    def permit(self, url: RenditionUrl | SourceUrl, info: ImageInfo, transform: Transform) -> bool:
        """Return whether a URL needs no signature.

        info: what the original is. transform: that of the URL.
        """
        if not self.permit_transform(url):
            return False
        return not self.depend_on_image(url) or FORMAT_OF_EXTENSION[url.extension] in open_formats(info, transform)


def open_formats(info: ImageInfo, transform: Transform) -> list[Format]:
    """Return the formats in which an open transform of an image needs no signature, in the order of `FORMATS`."""
    offered = default_formats(info, transform)
    return [image_format for image_format in FORMATS if image_format in OPEN_FOR_EVERY_IMAGE or image_format in offered]


def unsigned_transforms(
    listed: Iterable[str],
    *,
    open_ladder: bool,
    widths: Sequence[int] = LADDER_WIDTHS,
    variants: Collection[Transform] = (),
    quality: Mapping[Format, int] = MappingProxyType({}),
) -> UnsignedTransforms:
    """Return the transforms that need no signature.

    listed: transforms in canonical form.
    open_ladder: whether the plain image and the variants are open at every width of the ladder.
    widths: those of the ladder, in pixels.
    variants: the named transforms. One with lengths in pixels but without a width, such as `round=20`, is open as it is only, because its
        lengths at other widths depend on the image.
    quality: that of formats in new URLs (see `for_url`).
    """
    bases = (Transform(), *variants) if open_ladder else ()
    transforms = [transform for base in bases for transform in _at_widths(base, widths)]
    spellings = frozenset(spelling for transform in transforms for spelling in _canonical_forms(transform))
    of_extension = {
        FORMATS[image_format].extension: frozenset(_forms_with_quality(transforms, image_format, quality)) - spellings
        for image_format in quality
    }
    return UnsignedTransforms(frozenset(listed), spellings, of_extension)


def _at_widths(base: Transform, widths: Sequence[int]) -> Iterator[Transform]:
    if base != Transform():
        yield base
    if base.width is None and (base.height is not None or scaled(base, Fraction(2)) != base):
        return
    for width in widths:
        try:
            yield at_width(base, width, width)
        except BadTransformError:
            # A side would be longer than any rendition's.
            continue


def _canonical_forms(transform: Transform) -> Iterator[str]:
    """Yield the canonical form of a transform, and those in formats in which some of its options have no effect."""
    yield transform.canonical_form
    for image_format in FORMATS:
        with suppress(BadTransformError):
            yield for_format(transform, image_format).canonical_form


def _forms_with_quality(transforms: Iterable[Transform], image_format: Format, quality: Mapping[Format, int]) -> Iterator[str]:
    """Yield the canonical forms in new URLs of a format, and those that also have options without an effect in it."""
    for transform in transforms:
        with suppress(BadTransformError):
            used = for_url(transform, image_format, quality)
            yield used.canonical_form
            yield msgspec.structs.replace(transform, quality=used.quality).canonical_form
