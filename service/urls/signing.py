"""The signatures of rendition URLs and upload tickets: sign, verify, and build whole URLs, signed where they have to be.

A signature is the first 128 bits of the HMAC-SHA-256 of a URL's `signing_payload`, in base32.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Sequence

from service.errors import BadSignatureError
from service.images.digest import base32
from service.images.formats import FORMATS, Format
from service.images.info import ImageInfo, Limits
from service.images.ladder import LADDER_WIDTHS, LadderStep, ladders
from service.images.picture import DEFAULT_SIZES, Markup, markup
from service.images.transform import PIPELINE_VERSION, Transform, for_format
from service.urls.rendition_url import PullUrl, RenditionUrl
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
        if not keys:
            raise ValueError("at least one signing key is needed")
        self._keys = tuple(keys)
        self.unsigned = unsigned
        self._without_signature = unsigned.description

    def sign(self, url: RenditionUrl | PullUrl | UploadTicket) -> str:
        """Return the path of `url` with its signature."""
        return url.path(_signature(self._keys[0], url))

    def verify(self, url: RenditionUrl | PullUrl, signature: str) -> None:
        """Return if `signature` is that of `url` under any key, compared in constant time, or `-` and its transform needs no signature.

        Some unsigned transforms are open only for some images (`UnsignedTransforms.depend_on_image`).

        Raises `BadSignatureError` otherwise.
        """
        if signature == UNSIGNED:
            if isinstance(url, RenditionUrl) and self.unsigned.permit_transform(url):
                return
            raise BadSignatureError(
                "This transform needs a signature.",
                expected=self._without_signature,
                received=url.transform,
                remedy="Request a signed URL with POST /v1/images/{digest}/urls.",
            )
        if not self._is_signed(url, signature):
            raise BadSignatureError(
                "The signature does not belong to this address.",
                expected="the signature that this server made for exactly this path",
                received=signature,
                remedy="Use URLs from image documents and from POST /v1/images/{digest}/urls unchanged.",
            )

    def verify_ticket(self, ticket: UploadTicket, signature: str) -> None:
        """Return if `signature` is that of `ticket` under any key, compared in constant time; raises `BadSignatureError` otherwise."""
        if not self._is_signed(ticket, signature):
            raise forged_ticket(signature)

    def _is_signed(self, url: RenditionUrl | PullUrl | UploadTicket, signature: str) -> bool:
        received = signature.encode("ascii")
        valid = False
        for key in self._keys:
            valid |= hmac.compare_digest(_signature(key, url).encode("ascii"), received)
        return valid


class UrlBuilder:
    """Builds URLs of the current pipeline version. They are signed, unless the transform needs no signature."""

    def __init__(self, signer: Signer, public_url: str, limits: Limits, default_widths: Sequence[int] = LADDER_WIDTHS) -> None:
        """Create a builder.

        signer: signs the paths.
        public_url: what stands before every path, "" for relative URLs.
        limits: ladders leave out what these exclude.
        default_widths: the widths of the ladder of the widest images, in rising order.
        """
        self._signer = signer
        self._public_url = public_url
        self._limits = limits
        self._default_widths = default_widths

    def url(self, digest: str, info: ImageInfo, transform: Transform, image_format: Format) -> str:
        """Return the URL of one rendition of an image; raises `BadTransformError` for an option that contradicts the format."""
        wanted = for_format(transform, image_format)
        url = RenditionUrl(PIPELINE_VERSION, digest, wanted.canonical_form, FORMATS[image_format].extension)
        if self._signer.unsigned.permit(url, info, wanted):
            return self._public_url + url.path(UNSIGNED)
        return self.sign(url)

    def sign(self, url: RenditionUrl | PullUrl | UploadTicket) -> str:
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
    ) -> Markup:
        """Return the ladders of `transform` (see `ladders`) with their URLs, and as HTML.

        sizes, alt: the attributes of these names. priority: see `picture`.

        Raises what `ladders` does, and `BadTransformError` for an option that contradicts a format.
        """
        found = ladders(
            info, transform, self._limits, widths=widths, formats=formats, supported=supported, default_widths=self._default_widths
        )

        def url_of(step: LadderStep, image_format: Format) -> str:
            return self.url(digest, info, step.transform, image_format)

        return markup(found, url_of, sizes=sizes, alt=alt, priority=priority)


def _signature(key: bytes, url: RenditionUrl | PullUrl | UploadTicket) -> str:
    mac = hmac.digest(key, url.signing_payload.encode("ascii"), hashlib.sha256)
    return base32(mac[:SIGNATURE_BYTES])
