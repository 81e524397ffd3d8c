"""Whether a kept answer may be given as 304 (RFC 9110 §13)."""

from __future__ import annotations

import re

from edge.answer import Headers

_ENTITY_TAG = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')

# RFC 9110 §15.4.5: what a 304 repeats of the 200 it stands for; the rest describes a body that is not sent.
_KEPT_IN_304 = frozenset(
    {b"cache-control", b"cdn-cache-control", b"content-location", b"date", b"etag", b"expires", b"vary", b"access-control-allow-origin"}
)


def none_match_fails(etag: bytes, if_none_match: bytes) -> bool:
    """Return whether `If-None-Match` names `etag`, so that the answer is 304: weak comparison, lists, `*` (RFC 9110 §13.1.2)."""
    if if_none_match == etag:
        return True
    if if_none_match.strip() == b"*":
        return True
    wanted = etag.removeprefix(b"W/")
    return any(tag == wanted for tag in _ENTITY_TAG.findall(if_none_match))


def not_modified_headers(headers: Headers) -> Headers:
    """Return the fields of a 200 that its 304 carries."""
    return [pair for pair in headers if pair[0] in _KEPT_IN_304]
