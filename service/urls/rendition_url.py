"""The paths of renditions: build and parse.

`/i/v<version>/<digest>/<transform>/<signature>.<extension>` names a rendition of an uploaded image, and
`/pull/v1/<base64url of a URL>/<transform>/<signature>.<extension>` one of an image that is fetched from a remote source. The signature
covers the same path without the signature (`signing_payload`).

Every character is ASCII and needs no percent-encoding. The raw path of the request is parsed and compared, nothing is decoded, so a
rendition has exactly one path. Base32 is RFC 4648's in lower case without padding.
"""

from __future__ import annotations

import base64
import re

import msgspec

from service.errors import BadAddressError
from service.images.formats import FORMAT_OF_EXTENSION

MAX_TRANSFORM_CHARACTERS = 1_024
# The base64url of a remote URL.
MAX_URL_CHARACTERS = 2_048

# The extension of a rendition whose format is negotiated by the Accept header.
AUTO = "auto"

_TRANSFORM = rf"[A-Za-z0-9.:_=,-]{{1,{MAX_TRANSFORM_CHARACTERS}}}"
_RENDITION_PATH = re.compile(rf"/i/v([1-9][0-9]{{0,5}})/([a-z2-7]{{32}})/({_TRANSFORM})/(-|[a-z2-7]{{26}})\.([a-z0-9]{{1,8}})")
_PULL_PATH = re.compile(rf"/pull/v1/([A-Za-z0-9_-]{{1,{MAX_URL_CHARACTERS}}})/({_TRANSFORM})/([a-z2-7]{{26}})\.([a-z0-9]{{1,8}})")
RENDITION_GRAMMAR = "/i/v<version>/<digest: 32 of a-z2-7>/<transform>/<signature: 26 of a-z2-7, or ->.<jxl|avif|webp|jpg|png|gif|auto>"
_PULL_GRAMMAR = "/pull/v1/<base64url of the URL>/<transform>/<signature: 26 of a-z2-7>.<jxl|avif|webp|jpg|png|gif|auto>"


class RenditionUrl(msgspec.Struct, frozen=True):
    """The parts of the path of a rendition, except its signature."""

    version: int
    digest: str
    transform: str
    extension: str

    @property
    def signing_payload(self) -> str:
        """The ASCII text that the signature covers."""
        return f"/i/v{self.version}/{self.digest}/{self.transform}.{self.extension}"

    def path(self, signature: str) -> str:
        """Return the path with `signature` in it."""
        return f"/i/v{self.version}/{self.digest}/{self.transform}/{signature}.{self.extension}"


class PullUrl(msgspec.Struct, frozen=True):
    """The parts of the path of a rendition of a remote image, except its signature; `url` is the remote image's."""

    url: str
    transform: str
    extension: str

    @property
    def signing_payload(self) -> str:
        """The ASCII text that the signature covers."""
        return f"/pull/v1/{base64url(self.url)}/{self.transform}.{self.extension}"

    def path(self, signature: str) -> str:
        """Return the path with `signature` in it."""
        return f"/pull/v1/{base64url(self.url)}/{self.transform}/{signature}.{self.extension}"


def base64url(text: str) -> str:
    """Return RFC 4648 §5 base64url of the UTF-8 of a text, without padding."""
    return base64.urlsafe_b64encode(text.encode()).decode("ascii").rstrip("=")


def parse_rendition_url(raw_path: bytes) -> tuple[RenditionUrl, str]:
    """Return the parts of a raw request path and its signature, which is not verified.

    Raises `BadAddressError` for any other path; percent-encodings, capitals, doubled and trailing slashes make it another one.
    """
    match = _RENDITION_PATH.fullmatch(raw_path.decode("latin-1"))
    if match is None:
        raise BadAddressError(
            "This path is not the address of a rendition.",
            expected=RENDITION_GRAMMAR,
            received=raw_path.decode("latin-1"),
            remedy="Use a URL from an image document unchanged, or request one with POST /v1/images/{digest}/urls.",
        )
    version, digest, transform, signature, extension = match.groups()
    _check_extension(extension)
    return RenditionUrl(int(version), digest, transform, extension), signature


def parse_pull_url(raw_path: bytes) -> tuple[PullUrl, str]:
    """Return the parts of a raw request path and its signature, which is not verified.

    Raises `BadAddressError` for any other path, and for base64url that is not in its canonical form.
    """
    match = _PULL_PATH.fullmatch(raw_path.decode("latin-1"))
    if match is not None:
        encoded, transform, signature, extension = match.groups()
        _check_extension(extension)
        try:
            url = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        except ValueError:
            url = ""
        if base64url(url) == encoded:
            return PullUrl(url, transform, extension), signature
    raise BadAddressError(
        "This path is not the address of a remote image's rendition.",
        expected=_PULL_GRAMMAR,
        received=raw_path.decode("latin-1"),
        remedy="Request the URL with POST /v1/pull.",
    )


def _check_extension(extension: str) -> None:
    if extension != AUTO and extension not in FORMAT_OF_EXTENSION:
        raise BadAddressError(
            "No rendition has this extension.",
            expected=", ".join((*FORMAT_OF_EXTENSION, AUTO)),
            received=extension,
            remedy="Use one of the expected extensions.",
        )
