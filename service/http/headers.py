"""The response header fields of each kind of response: mostly how long browsers, CDNs and the edge may store it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

# Caches honor at most a year. `immutable` (RFC 8246) saves the revalidation when a page is reloaded.
YEAR_SECONDS = 31_536_000
DAY_SECONDS = 86_400
WEEK_SECONDS = 7 * DAY_SECONDS
PULL_BROWSER_SECONDS = 60
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
    """Return the fields of a rendition whose format was negotiated; the parameters are those of `rendition_headers`.

    Only the browser and this process's edge may store it: many CDNs ignore `Vary`.
    """
    return {
        "Cache-Control": "private, max-age=86400",
        "Vary": "Accept",
        "CDN-Cache-Control": "no-store",
        "Darkroom-CDN-Cache-Control": f"max-age={YEAR_SECONDS}",
        **_any_rendition_headers(etag, sha256, digests),
    }


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


def pull_headers(location: str, digests: Iterable[str], fresh_seconds: int) -> dict[str, str]:
    """Return the fields of a redirect to the current rendition of a remote source.

    CDNs use it for `fresh_seconds`, and longer while they revalidate it. Browsers use it for at most a minute, because they cannot be
    purged and an edge is near.
    """
    return {
        "Location": location,
        "Cache-Control": f"public, max-age={min(fresh_seconds, PULL_BROWSER_SECONDS)}",
        "CDN-Cache-Control": f"max-age={fresh_seconds}, stale-while-revalidate={DAY_SECONDS}, stale-if-error={WEEK_SECONDS}",
        "Cache-Tag": ",".join(digests),
        "Access-Control-Allow-Origin": "*",
        "Timing-Allow-Origin": "*",
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
