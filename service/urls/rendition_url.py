"""Rendition URLs: build, parse, sign, verify.

`/i/<version>/<digest>/<transform>/<signature>.<extension>`, all of it ASCII that needs no percent-encoding. What is signed is
`/i/<version>/<digest>/<transform>.<extension>`. The raw path of the request is what is parsed and compared: nothing is decoded,
so a path has exactly one spelling. Base32 is RFC 4648's in lower case without padding. The renditions of a remote source have pointers,
`/pull/v1/<base64url of its URL>/<transform>/<signature>.<extension>`, signed alike.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Collection, Sequence

import msgspec

from service.errors import BadAddressError, BadSignatureError

# Raised whenever the same transform would give other pixels or bytes worth having: `service/images/transform.py` has the defaults of each.
PIPELINE_VERSION = 2

DIGEST_BYTES = 20
SIGNATURE_BYTES = 16
UNSIGNED = "-"
MAX_TRANSFORM_CHARACTERS = 1_024
# Of a remote source, as it stands in a pointer's address.
MAX_URL_CHARACTERS = 2_048

# Extension in an address → what it stands for; `auto` is negotiated by Accept.
MEDIA_TYPES = {"avif": "image/avif", "webp": "image/webp", "jpg": "image/jpeg", "png": "image/png", "gif": "image/gif"}
AUTO = "auto"

_DIGEST = re.compile(r"[a-z2-7]{32}")
_ADDRESS = re.compile(
    rf"/i/v([1-9][0-9]{{0,5}})/([a-z2-7]{{32}})/([A-Za-z0-9.:_=,-]{{1,{MAX_TRANSFORM_CHARACTERS}}})/(-|[a-z2-7]{{26}})\.([a-z0-9]{{1,8}})"
)
_POINTER = re.compile(
    rf"/pull/v1/([A-Za-z0-9_-]{{1,{MAX_URL_CHARACTERS}}})/([A-Za-z0-9.:_=,-]{{1,{MAX_TRANSFORM_CHARACTERS}}})/([a-z2-7]{{26}})\.([a-z0-9]{{1,8}})"
)
_POINTER_GRAMMAR = "/pull/v1/<base64url of the URL>/<transform>/<signature: 26 of a-z2-7>.<avif|webp|jpg|png|gif|auto>"
_GRAMMAR = "/i/v<version>/<digest: 32 of a-z2-7>/<transform>/<signature: 26 of a-z2-7, or ->.<avif|webp|jpg|png|gif|auto>"


class Address(msgspec.Struct, frozen=True):
    """What a rendition's URL says, its signature aside."""

    version: int
    digest: str
    transform: str
    extension: str

    @property
    def signed_text(self) -> str:
        """The ASCII text that the signature covers."""
        return f"/i/v{self.version}/{self.digest}/{self.transform}.{self.extension}"

    def path(self, signature: str) -> str:
        """Return the path of this address under `signature`."""
        return f"/i/v{self.version}/{self.digest}/{self.transform}/{signature}.{self.extension}"


class PointerAddress(msgspec.Struct, frozen=True):
    """What the URL of a remote source's rendition says, its signature aside."""

    url: str
    transform: str
    extension: str

    @property
    def signed_text(self) -> str:
        """The ASCII text that the signature covers."""
        return f"/pull/v1/{base64url(self.url)}/{self.transform}.{self.extension}"

    def path(self, signature: str) -> str:
        """Return the path of this address under `signature`."""
        return f"/pull/v1/{base64url(self.url)}/{self.transform}/{signature}.{self.extension}"


def base64url(text: str) -> str:
    """Return RFC 4648 §5 base64url of the UTF-8 of a text, without padding."""
    return base64.urlsafe_b64encode(text.encode()).decode("ascii").rstrip("=")


def base32_text(data: bytes) -> str:
    """Return RFC 4648 base32 in lower case without padding."""
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


def digest_text(sha256: bytes) -> str:
    """Return the name of an original: the first 160 bits of its SHA-256, 32 characters."""
    return base32_text(sha256[:DIGEST_BYTES])


def is_digest(text: str) -> bool:
    """Return whether `text` is spelled like the digest of an original."""
    return _DIGEST.fullmatch(text) is not None


def parse(raw_path: bytes) -> tuple[Address, str]:
    """Return the address and the signature in a raw request path; nothing is verified yet.

    Raises `BadAddressError` for anything but the one spelling: percent-encodings, capitals, doubled or trailing slashes included.
    """
    match = _ADDRESS.fullmatch(raw_path.decode("latin-1"))
    if match is None:
        raise BadAddressError(
            "This path is not the address of a rendition.",
            expected=_GRAMMAR,
            received=raw_path.decode("latin-1"),
            remedy="Use a URL from an image document unchanged, or have one made by POST /v1/images/{digest}/urls.",
        )
    version, digest, transform, signature, extension = match.groups()
    _check_extension(extension)
    return Address(int(version), digest, transform, extension), signature


def parse_pointer(raw_path: bytes) -> tuple[PointerAddress, str]:
    """Return the address of a remote source's rendition and the signature in a raw request path; nothing is verified yet.

    Raises `BadAddressError` for anything but the one spelling, that of the base64url included.
    """
    match = _POINTER.fullmatch(raw_path.decode("latin-1"))
    if match is not None:
        encoded, transform, signature, extension = match.groups()
        _check_extension(extension)
        try:
            url = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        except ValueError:
            url = ""
        if base64url(url) == encoded:
            return PointerAddress(url, transform, extension), signature
    raise BadAddressError(
        "This path is not the address of a remote source's rendition.",
        expected=_POINTER_GRAMMAR,
        received=raw_path.decode("latin-1"),
        remedy="Have the URL made by POST /v1/pull.",
    )


def _check_extension(extension: str) -> None:
    if extension != AUTO and extension not in MEDIA_TYPES:
        raise BadAddressError(
            "No rendition has this extension.",
            expected=", ".join((*MEDIA_TYPES, AUTO)),
            received=extension,
            remedy="Ask for one of the formats above.",
        )


class Signer:
    """Signs with the newest key and accepts every configured one, so that a key can be replaced without breaking a URL."""

    def __init__(self, keys: Sequence[bytes], unsigned_transforms: Collection[str] = ()) -> None:
        """Take the keys, newest first, and the canonical transforms that need no signature."""
        if not keys:
            raise ValueError("at least one signing key is needed")
        self._keys = tuple(keys)
        self._unsigned_transforms = frozenset(unsigned_transforms)

    def sign(self, address: Address | PointerAddress) -> str:
        """Return the path of `address` with its signature."""
        return address.path(_signature(self._keys[0], address))

    def verify(self, address: Address | PointerAddress, signature: str) -> None:
        """Return if `signature` is right for `address`, compared in constant time, under any key.

        Raises `BadSignatureError` otherwise; `-` is right only for unsigned transforms.
        """
        if signature == UNSIGNED:
            if address.transform in self._unsigned_transforms:
                return
            raise BadSignatureError(
                "This transform needs a signature.",
                expected="a signature, or one of the transforms that DARKROOM_UNSIGNED_TRANSFORMS lists, in canonical spelling",
                received=address.transform,
                remedy="Have the URL made by POST /v1/images/{digest}/urls.",
            )
        received = signature.encode("ascii")
        right = False
        for key in self._keys:
            right |= hmac.compare_digest(_signature(key, address).encode("ascii"), received)
        if not right:
            raise BadSignatureError(
                "The signature is not right for this address.",
                expected="the signature that this server made for exactly this path",
                received=signature,
                remedy="Use URLs unchanged, as an image document or POST /v1/images/{digest}/urls gives them.",
            )


def _signature(key: bytes, address: Address | PointerAddress) -> str:
    mac = hmac.digest(key, address.signed_text.encode("ascii"), hashlib.sha256)
    return base32_text(mac[:SIGNATURE_BYTES])
