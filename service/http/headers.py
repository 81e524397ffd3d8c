"""The response header fields of each kind of response: mostly how long browsers, CDNs and the edge may store it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from urllib.parse import quote

import msgspec

from service.images.name import ascii_name

# Caches honor at most a year. `immutable` (RFC 8246) saves the revalidation when a page is reloaded.
YEAR_SECONDS = 31_536_000
DAY_SECONDS = 86_400
SOURCE_BROWSER_SECONDS = 60
NEWEST_SECONDS = 300
IMMUTABLE = f"public, max-age={YEAR_SECONDS}, immutable"

# In every response. An ASGI middleware adds them, because Litestar's hooks do not see errors of its router.
SECURITY = {"X-Content-Type-Options": "nosniff"}


def rendition_headers(etag: str, sha256: bytes, digests: Iterable[str]) -> dict[str, str]:
    """Return the fields of a rendition, which never changes: every cache may store it, and every site embed it.

    `sha256`: the digest of its bytes, for `Repr-Digest` (RFC 9530 §3). `digests`: the originals that it was made from.
    """
    return {
        "Cache-Control": IMMUTABLE,
        "CDN-Cache-Control": f"max-age={YEAR_SECONDS}",
        **_any_rendition_headers(etag, sha256, digests),
    }


def negotiated_headers(etag: str, sha256: bytes, digests: Iterable[str]) -> dict[str, str]:
    """Return the fields of a rendition whose format was negotiated; the parameters are those of `rendition_headers`."""
    return {**_privately(DAY_SECONDS, f"max-age={YEAR_SECONDS}"), **_any_rendition_headers(etag, sha256, digests)}


def _any_rendition_headers(etag: str, sha256: bytes, digests: Iterable[str]) -> dict[str, str]:
    return {
        "ETag": etag,
        "Repr-Digest": f"sha-256=:{base64.b64encode(sha256).decode('ascii')}:",
        "Cache-Tag": ",".join(digests),
        "Timing-Allow-Origin": "*",
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }


def content_disposition(name: str, extension: str) -> str:
    """Return the value of `Content-Disposition` (RFC 6266) with which a browser saves a picture under its name.

    `filename*` (RFC 8187) has the name if it is not ASCII. `filename` is for clients that do not know it, and stands first, because some
    clients use the first one (RFC 6266, appendix D).
    """
    if name.isascii():
        return f'inline; filename="{name}.{extension}"'
    return f"inline; filename=\"{ascii_name(name)}.{extension}\"; filename*=UTF-8''{quote(name, safe='')}.{extension}"


def server_timing(tier: str, seconds: Mapping[str, float]) -> str:
    """Return the value of `Server-Timing` (W3C): the tier that had the rendition with its `total`, then the other durations.

    The header has milliseconds. Durations of zero are left out, except for a tier of `render`.
    """
    parts = [f"{name};dur={value * 1000:.1f}" for name, value in seconds.items() if name != "total" and (value > 0 or tier == "render")]
    return ", ".join([f"tier;desc={tier};dur={seconds['total'] * 1000:.1f}", *parts])


def uncacheable(fields: dict[str, str]) -> dict[str, str]:
    """Return the fields of a rendition that could not be stored: another region may render other bytes, so no cache may store it."""
    remaining = {name: value for name, value in fields.items() if name not in {"CDN-Cache-Control", "Darkroom-CDN-Cache-Control"}}
    return {**remaining, "Cache-Control": "no-store"}


def document_headers() -> dict[str, str]:
    """Return the fields of a response of the API: it may change and may need a token, so no cache may store it."""
    return {"Cache-Control": "no-store"}


def redirect_headers(location: str) -> dict[str, str]:
    """Return the fields of a redirect to the canonical URL; stored, every other spelling of the URL would be a cache entry."""
    return {"Location": location, "Cache-Control": "no-store", "Access-Control-Allow-Origin": "*"}


class SourceLifetime(msgspec.Struct, frozen=True):
    """How long caches may use a response that depends on what an object of a source is at the moment.

    fresh_seconds: until the source is revalidated. stale_seconds: for how long after that CDNs may use it while the source fails.
    """

    fresh_seconds: int
    stale_seconds: int

    @property
    def in_browsers(self) -> int:
        """At most a minute, in seconds: browsers cannot be purged, and an edge is near."""
        return min(self.fresh_seconds, SOURCE_BROWSER_SECONDS)

    @property
    def in_cdns(self) -> str:
        """The directives for CDNs, which use it longer while they revalidate it (RFC 5861)."""
        revalidating_seconds = min(DAY_SECONDS, self.stale_seconds)
        return f"max-age={self.fresh_seconds}, stale-while-revalidate={revalidating_seconds}, stale-if-error={self.stale_seconds}"


def source_picture_headers(
    url: str, etag: str, sha256: bytes, digests: Iterable[str], lifetime: SourceLifetime, *, negotiated: bool
) -> dict[str, str]:
    """Return the fields of the current rendition of a source's image, which may be another one later.

    url: the immutable URL of this rendition. negotiated: its format was. The other parameters are those of `rendition_headers` and of
    `source_redirect_headers`.
    """
    fields = _privately(lifetime.in_browsers, lifetime.in_cdns) if negotiated else _publicly(lifetime)
    return {
        **fields,
        "Content-Location": url,
        "Link": f'<{url}>; rel="canonical"',
        **_any_rendition_headers(etag, sha256, digests),
    }


def source_redirect_headers(location: str, digests: Iterable[str], lifetime: SourceLifetime) -> dict[str, str]:
    """Return the fields of a redirect to the current rendition of a source's image."""
    return {
        "Location": location,
        **_publicly(lifetime),
        "Cache-Tag": ",".join(digests),
        "Access-Control-Allow-Origin": "*",
        "Timing-Allow-Origin": "*",
    }


def _publicly(lifetime: SourceLifetime) -> dict[str, str]:
    return {"Cache-Control": f"public, max-age={lifetime.in_browsers}", "CDN-Cache-Control": lifetime.in_cdns}


def _privately(browser_seconds: int, edge_policy: str) -> dict[str, str]:
    """Return the fields for a negotiated response. Only the browser and this process's edge may store it: many CDNs ignore `Vary`."""
    return {
        "Cache-Control": f"private, max-age={browser_seconds}",
        "Vary": "Accept",
        "CDN-Cache-Control": "no-store",
        "Darkroom-CDN-Cache-Control": edge_policy,
    }


def error_headers(*, shared: bool) -> dict[str, str]:
    """Return the fields of an error, which no cache may store; `shared`: clients that wait for the same rendition get it too."""
    fields = {"Cache-Control": "no-store"}
    if shared:
        fields["Darkroom-CDN-Cache-Control"] = "max-age=1"
    return fields


def replay_headers() -> dict[str, str]:
    """Return the fields of a 404 for an image that the primary region may have: the edge replays the request of every waiting client."""
    return {**error_headers(shared=True), "Darkroom-Replay": "primary"}


def page_headers() -> dict[str, str]:
    """Return the fields of a page, which is revalidated each time, so that it names the newest files."""
    return {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
    }


def page_file_headers() -> dict[str, str]:
    """Return the fields of a file whose name contains the hash of its content; pages of every origin may use it."""
    return {
        "Cache-Control": IMMUTABLE,
        "CDN-Cache-Control": f"max-age={YEAR_SECONDS}",
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }


def newest_file_headers(location: str) -> dict[str, str]:
    """Return the fields of a redirect to the newest version of a file, stored for minutes only, so that an upgrade is seen soon."""
    return {
        "Location": location,
        "Cache-Control": f"public, max-age={NEWEST_SECONDS}",
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
