"""The cache policy of each kind of answer."""

from __future__ import annotations

import base64
from collections.abc import Iterable

# A year, the longest that caches agree on. `immutable` (RFC 8246) spares the reload's revalidation.
YEAR_SECONDS = 31_536_000
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


def unkept(fields: dict[str, str]) -> dict[str, str]:
    """Return `fields` of a rendition that could not be stored: right, but another region might make other bytes."""
    kept = {name: value for name, value in fields.items() if name not in {"CDN-Cache-Control", "Darkroom-CDN-Cache-Control"}}
    return {**kept, "Cache-Control": "no-store"}


def document_headers() -> dict[str, str]:
    """Return the fields of an image document: it may change and may need a token, so nobody keeps it."""
    return {"Cache-Control": "no-store"}


def redirect_headers(location: str) -> dict[str, str]:
    """Return the fields of a redirect to an address without its query: not kept, or every query would be an entry of its own."""
    return {"Location": location, "Cache-Control": "no-store", "Access-Control-Allow-Origin": "*"}


def error_headers(*, shared: bool) -> dict[str, str]:
    """Return the fields of an error: nobody keeps it; the clients that wait for the same rendition may share it."""
    fields = {"Cache-Control": "no-store"}
    if shared:
        fields["Darkroom-CDN-Cache-Control"] = "max-age=1"
    return fields


def page_headers() -> dict[str, str]:
    """Return the fields of a page: asked for again each time, so that it names the newest files."""
    return {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
    }


def page_file_headers() -> dict[str, str]:
    """Return the fields of a file whose name holds its content's hash."""
    return {"Cache-Control": IMMUTABLE, "CDN-Cache-Control": f"max-age={YEAR_SECONDS}"}
