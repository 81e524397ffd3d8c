"""The cache policy of each kind of answer."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

# A year, the longest that caches agree on. `immutable` (RFC 8246) spares the reload's revalidation.
YEAR_SECONDS = 31_536_000
DAY_SECONDS = 86_400
WEEK_SECONDS = 7 * DAY_SECONDS
POINTER_BROWSER_SECONDS = 60
NEWEST_SECONDS = 300
IMMUTABLE = f"public, max-age={YEAR_SECONDS}, immutable"

# What every answer carries, whoever makes it: set in the ASGI layer, because Litestar's hooks do not see errors.
SECURITY = {"X-Content-Type-Options": "nosniff"}


def rendition_headers(etag: str, sha256: bytes, digests: Iterable[str]) -> dict[str, str]:
    """Return the fields of a rendition made from the originals `digests`: its bytes never change, everybody may keep and embed them.

    `sha256` is the raw digest of its bytes, told as `Repr-Digest` (RFC 9530 §3).
    """
    return {
        "Cache-Control": IMMUTABLE,
        "CDN-Cache-Control": f"max-age={YEAR_SECONDS}",
        **_any_rendition_headers(etag, sha256, digests),
    }


def negotiated_headers(etag: str, sha256: bytes, digests: Iterable[str]) -> dict[str, str]:
    """Return the fields of a rendition whose format was negotiated: for this client alone, because caches ignore `Vary`.

    The edge of this process understands `Vary`, or keeps nothing.
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
    """Return which tier answered and what that took in milliseconds: in all, and of what it consisted (W3C Server Timing)."""
    parts = [f"{name};dur={value * 1000:.1f}" for name, value in seconds.items() if name != "total" and (value > 0 or tier == "render")]
    return ", ".join([f"tier;desc={tier};dur={seconds['total'] * 1000:.1f}", *parts])


def unkept(fields: dict[str, str]) -> dict[str, str]:
    """Return `fields` of a rendition that could not be stored: right, but another region might make other bytes."""
    kept = {name: value for name, value in fields.items() if name not in {"CDN-Cache-Control", "Darkroom-CDN-Cache-Control"}}
    return {**kept, "Cache-Control": "no-store"}


def document_headers() -> dict[str, str]:
    """Return the fields of an image document: it may change and may need a token, so nobody keeps it."""
    return {"Cache-Control": "no-store"}


def redirect_headers(location: str) -> dict[str, str]:
    """Return the fields of a redirect to the one address of what is there: not stored, or every other spelling would be an entry."""
    return {"Location": location, "Cache-Control": "no-store", "Access-Control-Allow-Origin": "*"}


def pointer_headers(location: str, digests: Iterable[str], fresh_seconds: int) -> dict[str, str]:
    """Return the fields of a redirect to what a remote source has now: good for `fresh_seconds`, and while it is asked again.

    A browser keeps it for a minute at most: it cannot be purged, and asks an edge nearby.
    """
    return {
        "Location": location,
        "Cache-Control": f"public, max-age={min(fresh_seconds, POINTER_BROWSER_SECONDS)}",
        "CDN-Cache-Control": f"max-age={fresh_seconds}, stale-while-revalidate={DAY_SECONDS}, stale-if-error={WEEK_SECONDS}",
        "Cache-Tag": ",".join(digests),
        "Access-Control-Allow-Origin": "*",
        "Timing-Allow-Origin": "*",
    }


def error_headers(*, shared: bool) -> dict[str, str]:
    """Return the fields of an error: nobody keeps it; the clients that wait for the same rendition may share it."""
    fields = {"Cache-Control": "no-store"}
    if shared:
        fields["Darkroom-CDN-Cache-Control"] = "max-age=1"
    return fields


def elsewhere_headers() -> dict[str, str]:
    """Return the fields of a 404 for what may be in the primary region: all who wait are to ask there, by the edge's doing."""
    return {**error_headers(shared=True), "Darkroom-Replay": "primary"}


def page_headers() -> dict[str, str]:
    """Return the fields of a page: asked for again each time, so that it names the newest files."""
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
    """Return the fields of a file whose name holds its content's hash; pages of every origin may use it."""
    return {
        "Cache-Control": IMMUTABLE,
        "CDN-Cache-Control": f"max-age={YEAR_SECONDS}",
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }


def newest_file_headers(location: str) -> dict[str, str]:
    """Return the fields of a redirect to the newest version of a file: kept for minutes, so that an upgrade is seen soon."""
    return {
        "Location": location,
        "Cache-Control": f"public, max-age={NEWEST_SECONDS}",
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
