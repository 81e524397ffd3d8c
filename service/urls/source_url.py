"""The paths of renditions of images in a source: build and parse.

`/from/<source>/<path of the object>/<transform>/<signature>.<extension>` names a rendition of whatever the object is at the moment. The
last two segments are always the transform and the signature, or `-`; everything before them is the object's path. The signature covers
the path without the signature and the slash before it (`signing_payload`).

Each segment of the object's path is percent-encoded UTF-8 as JavaScript's `encodeURIComponent` writes it, so that a page can build the URL.
Every other spelling of the same path is accepted, and redirected to this one. A path that could lead out of the source's prefix is refused,
however often it is encoded: some servers decode a path twice, or take a backslash for a slash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar
from urllib.parse import quote, unquote_to_bytes

import msgspec

from service.errors import BadAddressError
from service.images.transform import PIPELINE_VERSION
from service.urls.rendition_url import TRANSFORM_PATTERN, check_extension

# Enough for the longest key of S3, Google Cloud Storage and Azure (1,024 bytes) if each byte is percent-encoded.
MAX_OBJECT_PATH_CHARACTERS = 3_072

SOURCE_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")

SOURCE_GRAMMAR = "/from/<source>/<path>/<transform>/<signature: 26 of a-z2-7, or ->.<jxl|avif|webp|jpg|png|gif|auto>"
_PATH = re.compile(rf"/from/([^/]*)/(.+)/({TRANSFORM_PATTERN})/(-|[a-z2-7]{{26}})\.([a-z0-9]{{1,8}})", re.DOTALL)

# What `encodeURIComponent` leaves as it is, beyond letters, digits and `-._~`.
_UNESCAPED = "!*'()"

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
# Encodings of ASCII characters in more than one byte, which RFC 3629 §3 forbids and some decoders accept.
_OVERLONG = re.compile(rb"[\xc0\xc1]|\xe0[\x80-\x9f]|\xf0[\x80-\x8f]")

# A path that is percent-encoded more often has no honest reason to be.
_MAX_ENCODINGS = 4


class SourceUrl(msgspec.Struct, frozen=True):
    """The parts of the path of a rendition of an object in a source, except its signature.

    object_path: decoded, relative to the source's prefix. For a source over HTTP, everything after the first `?` is the query of the
    object's URL, as that URL spells it.
    """

    made_by: ClassVar[str] = "POST /v1/sources/{name}/urls"

    source: str
    object_path: str
    transform: str
    extension: str

    @property
    def version(self) -> int:
        """The pipeline version: always the current one, because the picture may change in any case."""
        return PIPELINE_VERSION

    @property
    def signing_payload(self) -> str:
        """The ASCII text that the signature covers."""
        return f"{self._start}/{self.transform}.{self.extension}"

    def path(self, signature: str) -> str:
        """Return the path with `signature` in it."""
        return f"{self._start}/{self.transform}/{signature}.{self.extension}"

    @property
    def _start(self) -> str:
        return f"/from/{self.source}/{encode_object_path(self.object_path)}"


def encode_object_path(object_path: str) -> str:
    """Return the path of an object as it stands in a URL."""
    return "/".join(quote(segment, safe=_UNESCAPED) for segment in object_path.split("/"))


def parse_source_url(raw_path: bytes) -> tuple[SourceUrl, str]:
    """Return the parts of a raw request path and its signature, which is not verified; the path may differ from the canonical spelling.

    Raises `BadAddressError` for any other path, and for one that could lead out of the source's prefix.
    """
    match = _PATH.fullmatch(raw_path.decode("latin-1"))
    if match is None or SOURCE_NAME.fullmatch(match[1]) is None:
        raise BadAddressError(
            "This path is not the address of a rendition of a source's image.",
            expected=SOURCE_GRAMMAR,
            received=raw_path.decode("latin-1"),
            remedy="Put the source's name, the path of the object, a transform, and `-` or a signature between the slashes.",
        )
    source, encoded, transform, signature, extension = match.groups()
    check_extension(extension)
    if len(encoded) > MAX_OBJECT_PATH_CHARACTERS:
        raise _too_long(len(encoded))
    object_path = "/".join(decode_segment(segment) for segment in encoded.split("/"))
    check_object_path(object_path)
    return SourceUrl(source, object_path, transform, extension), signature


def check_object_path(object_path: str) -> None:
    """Raise `BadAddressError` for a decoded path that is empty or too long, or that could lead out of the source's prefix."""
    try:
        length = len(encode_object_path(object_path))
    except UnicodeEncodeError:
        raise _refused("The path of the object has half a character.", object_path, "Unicode text without lone surrogates") from None
    if length > MAX_OBJECT_PATH_CHARACTERS:
        raise _too_long(length)
    *folders, last = object_path.split("/")
    # A server does not resolve dots in a query, whose own slashes are often encoded.
    name, question_mark, query = last.partition("?")
    for segment in (*folders, name):
        _check_segment(segment)
    if "\\" in query:
        # A URL with it would be refused as well (`decode_segment`).
        raise _encoded_slash(query)
    if question_mark and _CONTROL.search(query.encode()):
        raise _control_character(query)


def decode_segment(encoded: str) -> str:
    """Return one segment of a URL's path, decoded once; raises `BadAddressError` if it is not a segment of UTF-8."""
    if _BAD_ESCAPE.search(encoded):
        raise _refused("A percent sign in the path of the object is not followed by two hexadecimal digits.", encoded, "%25 for `%`")
    decoded = unquote_to_bytes(encoded.encode("latin-1"))
    if b"/" in decoded or b"\\" in decoded:
        raise _encoded_slash(encoded)
    try:
        return decoded.decode()
    except UnicodeDecodeError:
        raise _refused("The path of the object is not UTF-8.", encoded, "percent-encoded UTF-8, as encodeURIComponent writes it") from None


def climbs(encoded_path: str) -> bool:
    """Return whether some server could resolve `.` and `..` in the path of a URL, which may be encoded once or more often."""
    path = encoded_path.encode()
    for _ in range(1 + _MAX_ENCODINGS):
        if any(_is_dots(segment) for segment in path.replace(b"\\", b"/").split(b"/")):
            return True
        before, path = path, unquote_to_bytes(path)
        if path == before:
            return False
    return True


def _check_segment(segment: str) -> None:
    """Check one segment, as it is and as a server would see it that decodes it once more, and more often."""
    if not segment:
        raise _refused("The path of the object has an empty segment.", segment, "a name between two slashes")
    for decoded in _decodings(segment):
        if b"/" in decoded or b"\\" in decoded:
            raise _encoded_slash(segment)
        if _CONTROL.search(decoded):
            raise _control_character(segment)
        if _OVERLONG.search(decoded):
            raise _refused("The path of the object is not UTF-8.", segment, "percent-encoded UTF-8, as encodeURIComponent writes it")
        if _is_dots(decoded):
            raise _refused("The path of the object leaves the folder that it is in.", segment, "no segment that is `.` or `..`")


def _is_dots(segment: bytes) -> bool:
    # Some servers ignore what follows a semicolon in a segment (RFC 3986 §3.3).
    return segment.partition(b";")[0] in {b".", b".."}


def _decodings(segment: str) -> Iterator[bytes]:
    decoded = segment.encode()
    yield decoded
    for _ in range(_MAX_ENCODINGS):
        before, decoded = decoded, unquote_to_bytes(decoded)
        if decoded == before:
            return
        yield decoded
    raise _refused("The path of the object is percent-encoded too often.", segment, f"at most {_MAX_ENCODINGS} times")


def _too_long(length: int) -> BadAddressError:
    return _refused("The path of the object is too long.", f"{length} characters", f"at most {MAX_OBJECT_PATH_CHARACTERS} when encoded")


def _encoded_slash(received: str) -> BadAddressError:
    return _refused("The path of the object has a slash or a backslash inside a segment.", received, "slashes between segments only")


def _control_character(received: str) -> BadAddressError:
    return _refused("The path of the object has a control character.", received, "printable characters")


def _refused(detail: str, received: str, expected: str) -> BadAddressError:
    return BadAddressError(detail, expected=expected, received=received, remedy="Use the path of the object below the source's prefix.")
