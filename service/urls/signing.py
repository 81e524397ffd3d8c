"""The signatures of rendition URLs and upload tickets: sign, verify, and build whole URLs, signed where they have to be.

A signature is the first 128 bits of the HMAC-SHA-256 of a URL's `signing_payload`, in base32.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import msgspec

from service.errors import BadSignatureError
from service.images.digest import base32
from service.images.formats import FORMATS, Format
from service.images.info import ImageInfo, Limits
from service.images.ladder import LADDER_WIDTHS, LadderStep, ladders
from service.images.picture import DEFAULT_SIZES, Markup, PictureSource, for_media, markup, picture_sources
from service.images.transform import PIPELINE_VERSION, Transform, for_url
from service.urls.rendition_url import RenditionUrl
from service.urls.source_url import SourceUrl
from service.urls.unsigned import UnsignedTransforms
from service.urls.upload_ticket import UploadTicket, forged_ticket

SIGNATURE_BYTES = 16
# Takes the place of a signature in the path of an unsigned transform.
UNSIGNED = "-"


class Signer:
    """Signs with the newest key and accepts every configured one, so that a key can be replaced without breaking a URL."""

    def __init__(self, keys: Sequence[bytes], unsigned: UnsignedTransforms = UnsignedTransforms()) -> None:  # noqa: B008 - immutable
        """Create a signer.

        keys: the signing keys, newest first, at least one.
        unsigned: the transforms that need no signature.
        """
        self.last_used: dict[bytes, float] = {}
        """By key, the Unix time at which a signature was accepted last, 0 if none was."""
        self.replace_keys(keys)
        self.unsigned = unsigned
        self._without_signature = unsigned.description

    def replace_keys(self, keys: Sequence[bytes]) -> None:
        """Sign and accept with these keys from now on; the parameter is that of the constructor."""
        if not keys:
            raise ValueError("at least one signing key is needed")
        self._keys = tuple(keys)
        self.last_used = {key: self.last_used.get(key, 0.0) for key in keys}

    def sign(self, url: RenditionUrl | SourceUrl | UploadTicket) -> str:
        """Return the path of `url` with its signature."""
        return url.path(_signature(self._keys[0], url))

    def verify(self, url: RenditionUrl | SourceUrl, signature: str) -> None:
        """Return if `signature` is that of `url` under any key, compared in constant time, or `-` and its transform needs no signature.

        Some unsigned transforms are open only for some images (`UnsignedTransforms.depend_on_image`).

        Raises `BadSignatureError` otherwise.
        """
        if signature == UNSIGNED:
            if self.unsigned.permit_transform(url):
                return
            raise BadSignatureError(
                "This transform needs a signature.",
                expected=self._without_signature,
                received=url.transform,
                remedy=f"Request a signed URL with {url.made_by}.",
            )
        if not self._is_signed(url, signature):
            raise BadSignatureError(
                "The signature does not belong to this address.",
                expected="the signature that this server made for exactly this path",
                received=signature,
                remedy=f"Use URLs from image documents and from {url.made_by} unchanged.",
            )

    def verify_ticket(self, ticket: UploadTicket, signature: str) -> None:
        """Return if `signature` is that of `ticket` under any key, compared in constant time; raises `BadSignatureError` otherwise."""
        if not self._is_signed(ticket, signature):
            raise forged_ticket(signature)

    def _is_signed(self, url: RenditionUrl | SourceUrl | UploadTicket, signature: str) -> bool:
        received = signature.encode("ascii")
        valid = False
        for key in self._keys:
            if hmac.compare_digest(_signature(key, url).encode("ascii"), received):
                valid = True
                self.last_used[key] = time.time()
        return valid


class UrlName(msgspec.Struct, frozen=True):
    """The name in a URL, empty for none. A URL without a signature may have only the name of its image."""

    text: str = ""
    may_be_unsigned: bool = True


NAMELESS = UrlName()


class Crop(msgspec.Struct, frozen=True):
    """A transform of an image, often of another shape, for the screens on which a media condition holds.

    sizes: the attribute of its sources, empty for that of the `<img>`. name: in every URL.
    """

    media: str
    digest: str
    info: ImageInfo
    transform: Transform
    sizes: str = ""
    name: UrlName = NAMELESS


class UrlBuilder:
    """Builds URLs of the current pipeline version. They are signed, unless the transform needs no signature."""

    def __init__(
        self,
        signer: Signer,
        public_url: str,
        limits: Limits,
        default_widths: Sequence[int] = LADDER_WIDTHS,
        *,
        quality: Mapping[Format, int] = MappingProxyType({}),
        use_names: bool = False,
    ) -> None:
        """Create a builder.

        signer: signs the paths.
        public_url: what stands before every path, "" for relative URLs.
        limits: ladders leave out what these exclude.
        default_widths: the widths of the ladder of the widest images, in rising order.
        quality: that of formats in place of the pipeline version's, 1 to 100 (see `for_url`).
        use_names: whether URLs have the names of images unless a caller decides otherwise; a public attribute of this object.
        """
        self._signer = signer
        self._public_url = public_url
        self._limits = limits
        self._default_widths = default_widths
        self._quality = quality
        self.use_names = use_names

    def url(self, digest: str, info: ImageInfo, transform: Transform, image_format: Format, name: UrlName = NAMELESS) -> str:
        """Return the URL of one rendition of an image; raises `BadTransformError` for an option that contradicts the format."""
        wanted = self.transform_of(transform, image_format)
        url = RenditionUrl(PIPELINE_VERSION, digest, wanted.canonical_form, FORMATS[image_format].extension, name.text)
        return self.rendition_url(url, info, wanted) if name.may_be_unsigned else self.sign(url)

    def transform_of(self, transform: Transform, image_format: Format) -> Transform:
        """Return a transform as new URLs of a format have it (see `for_url`); raises `BadTransformError`."""
        return for_url(transform, image_format, self._quality)

    def rendition_url(self, url: RenditionUrl, info: ImageInfo, transform: Transform) -> str:
        """Return the URL of a rendition of an image; `transform` is that of the URL, whose name is empty or the image's own."""
        if self._signer.unsigned.permit(url, info, transform):
            return self._public_url + url.path(UNSIGNED)
        return self.sign(url)

    def source_url(self, url: SourceUrl) -> str:
        """Return the URL of a rendition of a source's image; signed if its transform is open only for some images."""
        unsigned = self._signer.unsigned
        if unsigned.permit_transform(url) and not unsigned.depend_on_image(url):
            return self._public_url + url.path(UNSIGNED)
        return self.sign(url)

    def sign(self, url: RenditionUrl | SourceUrl | UploadTicket) -> str:
        """Return the URL with its signature."""
        return self._public_url + self._signer.sign(url)

    def markup(
        self,
        digest: str,
        info: ImageInfo,
        transform: Transform,
        *,
        widths: Sequence[int] = (),
        formats: Sequence[Format] = (),
        supported: Collection[Format] = FORMATS,
        sizes: str = DEFAULT_SIZES,
        alt: str = "",
        priority: bool = False,
        name: UrlName = NAMELESS,
        art_direction: Sequence[Crop] = (),
    ) -> Markup:
        """Return the ladders of `transform` (see `ladders`) with their URLs, and as HTML.

        widths, formats: of all ladders. sizes, alt: the attributes of these names. priority: see `picture`. name: in every URL.
        art_direction: what some screens show instead, the first that applies.

        Raises what `ladders` does, and `BadTransformError` for an option that contradicts a format.
        """

        def sources_of(digest: str, info: ImageInfo, transform: Transform, name: UrlName) -> list[PictureSource]:
            def url_of(step: LadderStep, image_format: Format) -> str:
                return self.url(digest, info, step.transform, image_format, name)

            found = ladders(
                info, transform, self._limits, widths=widths, formats=formats, supported=supported, default_widths=self._default_widths
            )
            return picture_sources(found, url_of)

        sources: list[PictureSource] = []
        for crop in art_direction:
            sources += for_media(sources_of(crop.digest, crop.info, crop.transform, crop.name), crop.media, crop.sizes)
        sources += sources_of(digest, info, transform, name)
        return markup(sources, sizes=sizes, alt=alt, priority=priority)


def _signature(key: bytes, url: RenditionUrl | SourceUrl | UploadTicket) -> str:
    mac = hmac.digest(key, url.signing_payload.encode("ascii"), hashlib.sha256)
    return base32(mac[:SIGNATURE_BYTES])
