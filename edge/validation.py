"""Whether what is kept still holds: what the origin is asked, and what its 304 changes (RFC 9111 §4.3)."""

from __future__ import annotations

from edge.asgi import Headers, field_values
from edge.memory import Kept

# What a 304 does not replace: it describes the body that is kept (RFC 9111 §3.2).
_OF_THE_BODY = frozenset({b"content-encoding", b"content-length", b"content-range", b"content-type"})


def validators(kept: Kept | None) -> Headers:
    """Return the fields by which the origin is asked whether what is kept still holds (RFC 9111 §4.3.1)."""
    if kept is None or kept.status != 200:
        return ()
    asked = {b"etag": b"if-none-match", b"last-modified": b"if-modified-since"}
    return [(asked[name], value) for name, value in kept.headers if name in asked]


def has_validator(headers: Headers) -> bool:
    """Return whether the origin can be asked later whether an answer still holds."""
    return any(name in {b"etag", b"last-modified"} for name, _ in headers)


def names_same(kept: Kept, headers: Headers) -> bool:
    """Return whether a 304 is about what is kept: it has no entity tag, or the same one, compared weakly (RFC 9111 §4.3.4)."""
    tags = field_values(headers, b"etag")
    return not tags or (kept.etag is not None and tags[0].removeprefix(b"W/") == kept.etag.removeprefix(b"W/"))


def updated(kept: Headers, newer: Headers) -> Headers:
    """Return kept fields with those of a 304 in their place (RFC 9111 §3.2)."""
    told = {name for name, _ in newer} - _OF_THE_BODY
    return [*(pair for pair in kept if pair[0] not in told), *(pair for pair in newer if pair[0] in told)]
