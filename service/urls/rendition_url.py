"""The paths of renditions: build and parse.

`/i/v<version>/<digest>/<transform>/<signature>.<extension>` and, with a name for people,
`/i/v<version>/<digest>/<transform>/<signature>/<name>.<extension>` are addresses of a rendition of an image. The signature covers the
same path without the signature (`signing_payload`).

Every character is ASCII, and only a name has percent-encodings: its UTF-8 as JavaScript's `encodeURIComponent` writes it. The raw path of
the request is parsed and compared, and nothing else of it is decoded. A name in another spelling is parsed too, so that the request can be
redirected to the only path that is served. Base32 is RFC 4648's in lower case without padding.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import ClassVar
from urllib.parse import quote, unquote_to_bytes

import msgspec

from service.errors import BadAddressError
from service.images.formats import FORMAT_OF_EXTENSION
from service.images.name import IMAGE_NAME_GRAMMAR, normalized_image_name

MAX_TRANSFORM_CHARACTERS = 1_024

# A name of 240 bytes takes 720 characters. A spelling that is not in NFC is longer.
_MAX_SPELLED_NAME_CHARACTERS = 1_024

# The extension of a rendition whose format is negotiated by the Accept header.
AUTO = "auto"

TRANSFORM_PATTERN = rf"[A-Za-z0-9.:_=,-]{{1,{MAX_TRANSFORM_CHARACTERS}}}"
_NAME = rf"[^/]{{1,{_MAX_SPELLED_NAME_CHARACTERS}}}"
_RENDITION_PATH = re.compile(
    rf"/i/v([1-9][0-9]{{0,5}})/([a-z2-7]{{32}})/({TRANSFORM_PATTERN})/(-|[a-z2-7]{{26}})(?:/({_NAME}))?\.([a-z0-9]{{1,8}})"
)
RENDITION_GRAMMAR = (
    "/i/v<version>/<digest: 32 of a-z2-7>/<transform>/<signature: 26 of a-z2-7, or ->[/<name>].<jxl|avif|webp|jpg|png|gif|auto>"
)


class RenditionUrl(msgspec.Struct, frozen=True):
    """The parts of the path of a rendition, except its signature; `name` is empty if the path has none."""

    made_by: ClassVar[str] = "POST /v1/images/{digest}/urls"

    version: int
    digest: str
    transform: str
    extension: str
    name: str = ""

    @property
    def signing_payload(self) -> str:
        """The ASCII text that the signature covers."""
        return f"/i/v{self.version}/{self.digest}/{self.transform}{self._end}"

    def path(self, signature: str) -> str:
        """Return the path with `signature` in it."""
        return f"/i/v{self.version}/{self.digest}/{self.transform}/{signature}{self._end}"

    @property
    def _end(self) -> str:
        return f"/{quote(self.name, safe='')}.{self.extension}" if self.name else f".{self.extension}"


# Both the check before the queue and the route parse the path of a request.
@lru_cache(maxsize=64)
def parse_rendition_url(raw_path: bytes) -> tuple[RenditionUrl, str]:
    """Return the parts of a raw request path and its signature, which is not verified.

    Raises `BadAddressError` for any other path; capitals, doubled and trailing slashes, and percent-encodings outside a name make it
    another one. If the name is not spelled as in `RenditionUrl.path`, the URL has another path than this one.
    """
    match = _RENDITION_PATH.fullmatch(raw_path.decode("latin-1"))
    if match is None:
        raise BadAddressError(
            "This path is not the address of a rendition.",
            expected=RENDITION_GRAMMAR,
            received=raw_path.decode("latin-1"),
            remedy="Use a URL from an image document unchanged, or request one with POST /v1/images/{digest}/urls.",
        )
    version, digest, transform, signature, spelled_name, extension = match.groups()
    check_extension(extension)
    name = "" if spelled_name is None else _parse_name(spelled_name)
    return RenditionUrl(int(version), digest, transform, extension, name), signature


def _parse_name(spelled: str) -> str:
    """Return the name in NFC that a part of a path spells with any percent-encodings of UTF-8."""
    try:
        text = unquote_to_bytes(spelled.encode("latin-1")).decode()
    except UnicodeDecodeError:
        text = ""
    name = normalized_image_name(text)
    if name is None:
        raise BadAddressError(
            "The name at the end of this path is not valid.",
            expected=f"{IMAGE_NAME_GRAMMAR}, as encodeURIComponent writes them",
            received=spelled,
            remedy="Use the `name` of the image's document, or leave the name out.",
        )
    return name


def check_extension(extension: str) -> None:
    """Raise `BadAddressError` for an extension that no rendition has."""
    if extension != AUTO and extension not in FORMAT_OF_EXTENSION:
        raise BadAddressError(
            "No rendition has this extension.",
            expected=", ".join((*FORMAT_OF_EXTENSION, AUTO)),
            received=extension,
            remedy="Use one of the expected extensions.",
        )
