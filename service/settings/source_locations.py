"""`DARKROOM_SOURCES`: the names of the sources, and where each has its images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, TypeAlias
from urllib.parse import SplitResult, quote, unquote, urlsplit

import msgspec

from service.errors import BadAddressError, SettingsError
from service.urls.source_url import SOURCE_NAME, check_object_path

SourceKind: TypeAlias = Literal["s3", "gs", "az", "https", "http"]

VARIABLE = "DARKROOM_SOURCES"

_ENTRY = re.compile(r"\s*([^\s=]+)\s*=\s*(\S+)\s*")
_FORMS: Mapping[str, str] = {
    "s3": "s3://bucket/prefix",
    "gs": "gs://bucket/prefix",
    "az": "az://account/container/prefix",
    "https": "https://host/prefix",
    "http": "http://host/prefix",
}
_DEFAULT_PORTS = {"https": 443, "http": 80}

# Buckets of S3 and Google Cloud Storage; storage accounts and containers of Azure. The providers' own rules are a little narrower.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"[$a-z0-9](?:[a-z0-9-]{1,61}[a-z0-9])")

# RFC 1123 §2.1: letters, digits, hyphens; or an IPv6 address.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}|[0-9a-f:.]*:[0-9a-f:.]*")

# RFC 3986 §3.3 and §3.4: what a path and a query may have beyond letters, digits and `-._~`; percent-encodings in a query stay as they are.
_PATH_SAFE = "!$&'()*+,;=:@"
_QUERY_SAFE = f"{_PATH_SAFE}/?%"
_BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


class SourceLocation(msgspec.Struct, frozen=True):
    """Where the objects of a source are.

    host: of `https` and `http`, in lower case, with the port unless it is the scheme's default; "" for a bucket.
    bucket: of `s3` and `gs`; the container of `az`. account: the storage account of `az`.
    prefix: stands before the path of every object, decoded; "", or a path with a slash at its end only.
    """

    kind: SourceKind
    host: str = ""
    account: str = ""
    bucket: str = ""
    prefix: str = ""

    def below_prefix(self, url: SplitResult) -> list[str] | None:
        """Return the segments of the path of a URL that are below the prefix, as they are encoded; `None` if the URL is elsewhere."""
        if self.is_bucket or url.scheme != self.kind or authority(url) != self.host:
            return None
        folders = self.prefix.split("/")[:-1]
        segments = url.path.removeprefix("/").split("/")
        is_below = len(segments) > len(folders) and [unquote(segment) for segment in segments[: len(folders)]] == folders
        return segments[len(folders) :] if is_below else None

    @property
    def is_bucket(self) -> bool:
        """Whether the objects are in a bucket, which has a listing."""
        return self.kind in {"s3", "gs", "az"}

    def has_query(self, object_path: str) -> bool:
        """Return whether the URL of an object has a query. In the name of an object in a bucket, a question mark is a character."""
        return not self.is_bucket and "?" in object_path.rpartition("/")[2]

    def url(self, object_path: str) -> str:
        """Return the URL of an object: one that can be requested for `https` and `http`, a name with the decoded path for a bucket."""
        if self.is_bucket:
            root = "/".join(filter(None, (self.account, self.bucket)))
            return f"{self.kind}://{root}/{self.prefix}{object_path}"
        folder, slash, last = object_path.rpartition("/")
        name, question_mark, query = last.partition("?")
        path = quote(f"{self.prefix}{folder}{slash}{name}", safe=f"{_PATH_SAFE}/")
        return f"{self.kind}://{self.host}/{path}{question_mark}{quote(_BARE_PERCENT.sub('%25', query), safe=_QUERY_SAFE)}"


def parse_sources(text: str) -> Mapping[str, SourceLocation]:
    """Return the sources in the value of `DARKROOM_SOURCES` by name; raises `SettingsError`."""
    sources: dict[str, SourceLocation] = {}
    for entry in re.split(r"[;\n]", text):
        if not entry.strip():
            continue
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise _invalid("a name, an equals sign and a URL, such as cms=https://cms.example.com/uploads", entry.strip())
        name, url = match.groups()
        if SOURCE_NAME.fullmatch(name) is None:
            raise _invalid("a name of at most 32 of a-z 0-9 -, beginning with a letter", name, "The name is a part of public URLs.")
        if name in sources:
            raise _invalid("each name once", f"{name} twice", "Give each source its own name.", quoted=False)
        sources[name] = _parse_location(url)
    return sources


def authority(url: SplitResult) -> str:
    """Return the host of a URL with its port, unless that is the default of the scheme (RFC 3986 §6.2.3)."""
    host = url.hostname or ""
    literal = f"[{host}]" if ":" in host else host
    return literal if url.port in {None, _DEFAULT_PORTS[url.scheme]} else f"{literal}:{url.port}"


def _parse_location(url: str) -> SourceLocation:
    kind, separator, _ = url.partition("://")
    if not separator or kind not in _FORMS:
        raise _invalid(f"one of {', '.join(_FORMS.values())}", url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _invalid(_FORMS[kind], url) from None
    if "@" in parts.netloc or "?" in url or "#" in url or not url.isascii() or port == 0:
        raise _invalid(
            _FORMS[kind], url, "A source has no user name, no query and no fragment; other characters than ASCII are percent-encoded."
        )
    segments = [unquote(segment) for segment in parts.path.strip("/").split("/")] if parts.path.strip("/") else []
    if kind == "az":
        location = SourceLocation("az", account=parts.netloc, bucket=segments[0] if segments else "")
        valid = _ACCOUNT.fullmatch(location.account) and _CONTAINER.fullmatch(location.bucket)
        segments = segments[1:]
    elif kind in {"s3", "gs"}:
        location = SourceLocation("s3" if kind == "s3" else "gs", bucket=parts.netloc)
        valid = _BUCKET.fullmatch(location.bucket)
    else:
        location = SourceLocation("https" if kind == "https" else "http", authority(parts))
        valid = _HOST.fullmatch(parts.hostname or "")
    if not valid:
        raise _invalid(_FORMS[kind], url)
    return msgspec.structs.replace(location, prefix=_parse_prefix(segments, url))


def _parse_prefix(segments: list[str], url: str) -> str:
    if not segments:
        return ""
    prefix = "/".join(segments)
    if any("/" in segment or "?" in segment for segment in segments):
        raise _invalid("a prefix without encoded slashes and question marks", url)
    try:
        check_object_path(prefix)
    except BadAddressError as error:
        raise _invalid(error.expected or "a prefix", url, error.detail) from error
    return f"{prefix}/"


def _invalid(expected: str, received: str, remedy: str = "", *, quoted: bool = True) -> SettingsError:
    return SettingsError.invalid(VARIABLE, expected, repr(received) if quoted else received, remedy)
