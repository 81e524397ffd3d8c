"""The signatures of rendition URLs: sign, verify, and build whole URLs.

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
from service.images.ladder import ladders
from service.images.picture import DEFAULT_SIZES, Markup, markup
from service.images.transform import PIPELINE_VERSION, Transform, for_format
from service.urls.rendition_url import PullUrl, RenditionUrl

SIGNATURE_BYTES = 16
# Takes the place of a signature in the path of an unsigned transform.
UNSIGNED = "-"


class Signer:
    """Signs with the newest key and accepts every configured one, so that a key can be replaced without breaking a URL."""

    def __init__(self, keys: Sequence[bytes], unsigned_transforms: Collection[str] = ()) -> None:
        """Create a signer.

        keys: the signing keys, newest first, at least one.
        unsigned_transforms: the transforms, in canonical form, that need no signature.
        """
        if not keys:
            raise ValueError("at least one signing key is needed")
        self._keys = tuple(keys)
        self._unsigned_transforms = frozenset(unsigned_transforms)

    def sign(self, url: RenditionUrl | PullUrl) -> str:
        """Return the path of `url` with its signature."""
        return url.path(_signature(self._keys[0], url))

    def verify(self, url: RenditionUrl | PullUrl, signature: str) -> None:
        """Return if `signature` is that of `url` under any key, compared in constant time, or `-` and its transform needs no signature.

        Raises `BadSignatureError` otherwise.
        """
        if signature == UNSIGNED:
            if url.transform in self._unsigned_transforms:
                return
            raise BadSignatureError(
                "This transform needs a signature.",
                expected="a signature, or one of the transforms that DARKROOM_UNSIGNED_TRANSFORMS lists, in canonical form",
                received=url.transform,
                remedy="Request a signed URL with POST /v1/images/{digest}/urls.",
            )
        received = signature.encode("ascii")
        valid = False
        for key in self._keys:
            valid |= hmac.compare_digest(_signature(key, url).encode("ascii"), received)
        if not valid:
            raise BadSignatureError(
                "The signature does not belong to this address.",
                expected="the signature that this server made for exactly this path",
                received=signature,
                remedy="Use URLs from image documents and from POST /v1/images/{digest}/urls unchanged.",
            )


class UrlBuilder:
    """Builds signed URLs of the current pipeline version."""

    def __init__(self, signer: Signer, public_url: str, limits: Limits) -> None:
        """Create a builder.

        signer: signs the paths.
        public_url: what stands before every path, "" for relative URLs.
        limits: ladders leave out what these exclude.
        """
        self._signer = signer
        self._public_url = public_url
        self._limits = limits

    def url(self, digest: str, transform: Transform, image_format: Format) -> str:
        """Return the URL of one rendition; raises `BadTransformError` for an option that contradicts the format."""
        canonical_form = for_format(transform, image_format).canonical_form
        return self.sign(RenditionUrl(PIPELINE_VERSION, digest, canonical_form, FORMATS[image_format].extension))

    def sign(self, url: RenditionUrl | PullUrl) -> str:
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
    ) -> Markup:
        """Return the ladders of `transform` (see `ladders`) with their URLs, and as HTML.

        sizes, alt: the attributes of these names.

        Raises what `ladders` does, and `BadTransformError` for an option that contradicts a format.
        """
        found = ladders(info, transform, self._limits, widths=widths, formats=formats, supported=supported)
        return markup(found, lambda step, image_format: self.url(digest, step.transform, image_format), sizes=sizes, alt=alt)


def _signature(key: bytes, url: RenditionUrl | PullUrl) -> str:
    mac = hmac.digest(key, url.signing_payload.encode("ascii"), hashlib.sha256)
    return base32(mac[:SIGNATURE_BYTES])
