"""The 200, 206, 304, 412 or 416 that a whole answer gives: preconditions and ranges (RFC 9110 §13, §14)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from edge.asgi import Headers
from edge.freshness import http_date

# What a client says about its own copy, or which part it wants: evaluated here, against an answer that the origin gave in full.
CONDITIONS = frozenset({b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range", b"range"})

_ENTITY_TAG = re.compile(rb'((?:W/)?)("[\x21\x23-\x7e\x80-\xff]*")')

_RANGE = re.compile(rb"(\d*)-(\d*)")

# Python refuses to read a number of more than 4,300 digits; no answer has as many bytes as this says.
_MOST_DIGITS = 18

# RFC 9110 §15.4.5: what a 304 repeats of the 200 it stands for; the rest describes a body that is not sent.
_KEPT_IN_304 = frozenset(
    {b"cache-control", b"cdn-cache-control", b"content-location", b"date", b"etag", b"expires", b"vary", b"access-control-allow-origin"}
)


class Selected(NamedTuple):
    """The status that a conditional request gets, and of a 206 the first and the last byte of the part."""

    status: int
    first: int = 0
    last: int = 0


WHOLE = Selected(200)


def select(asked: Mapping[bytes, bytes], headers: Headers, length: int, *, received: float, method: str) -> Selected:
    """Return what a GET or HEAD gets of a 200 with these `headers` and a body of `length` bytes.

    `asked` has the request's values of `CONDITIONS`, several lines of one field joined by commas. They are evaluated in the order
    of RFC 9110 §13.2.2. `received` is the Unix time at which the answer came, its date where it says none.
    """
    etag = _first(headers, b"etag")
    modified = _date(headers, b"last-modified")
    if b"if-match" in asked:
        if not _match_holds(etag, asked[b"if-match"]):
            return Selected(412)
    elif b"if-unmodified-since" in asked:
        limit = http_date(asked[b"if-unmodified-since"])
        if limit is not None and modified is not None and modified > limit:
            return Selected(412)
    if b"if-none-match" in asked:
        if none_match_fails(etag, asked[b"if-none-match"]):
            return Selected(304)
    elif b"if-modified-since" in asked:
        limit = http_date(asked[b"if-modified-since"])
        # RFC 9111 §4.3.2: without `Last-Modified` the date of the answer, or of its coming, is what is compared.
        known = modified if modified is not None else _date(headers, b"date")
        if limit is not None and (received if known is None else known) <= limit:
            return Selected(304)
    if b"range" in asked and method == "GET" and _range_applies(asked.get(b"if-range"), etag, modified, headers, received):
        return _part(asked[b"range"], length)
    return WHOLE


def none_match_fails(etag: bytes | None, if_none_match: bytes) -> bool:
    """Return whether `If-None-Match` names `etag`, so that the answer is 304: weak comparison, lists, `*` (RFC 9110 §13.1.2)."""
    if if_none_match == etag or if_none_match.strip() == b"*":
        return True
    if etag is None:
        return False
    wanted = etag.removeprefix(b"W/")
    return any(tag == wanted for _, tag in _ENTITY_TAG.findall(if_none_match))


def not_modified_headers(headers: Headers) -> Headers:
    """Return the fields of a 200 that its 304 carries."""
    return [pair for pair in headers if pair[0] in _KEPT_IN_304]


def part_headers(headers: Headers, selected: Selected, length: int) -> Headers:
    """Return the fields of a 200 as its 206 carries them (RFC 9110 §15.3.7)."""
    kept = [pair for pair in headers if pair[0] not in {b"content-length", b"content-range"}]
    return [
        *kept,
        (b"content-length", b"%d" % (selected.last - selected.first + 1)),
        (b"content-range", b"bytes %d-%d/%d" % (selected.first, selected.last, length)),
    ]


def _match_holds(etag: bytes | None, if_match: bytes) -> bool:
    """Strong comparison: a weak tag matches nothing (RFC 9110 §13.1.1)."""
    if if_match.strip() == b"*":
        return True
    return etag is not None and not etag.startswith(b"W/") and any(not weak and tag == etag for weak, tag in _ENTITY_TAG.findall(if_match))


def _range_applies(if_range: bytes | None, etag: bytes | None, modified: int | None, headers: Headers, received: float) -> bool:
    """Return whether `If-Range` holds: a strong entity tag, or the very `Last-Modified` if that is strong (RFC 9110 §13.1.5)."""
    if if_range is None:
        return True
    tag = if_range.strip()
    if tag.endswith(b'"'):
        return tag == etag and not tag.startswith(b"W/")
    # RFC 9110 §8.8.2.2: a date is a strong validator if the answer was made a second later at least.
    date = _date(headers, b"date")
    made = received if date is None else date
    return modified is not None and tag == _first(headers, b"last-modified") and made >= modified + 1


def _part(value: bytes, length: int) -> Selected:
    """Return the part that `Range` asks for.

    What is no list of byte ranges is ignored, as it must be; several ranges get the whole, as they may (RFC 9110 §14.2): no client of
    images asks for them, and parts that overlap are a known way to make a server work.
    """
    unit, _, listed = value.strip().partition(b"=")
    # White space may stand around the commas of a list, and nothing between them (RFC 9110 §5.6.1).
    ranges = [part for part in (part.strip() for part in listed.split(b",")) if part]
    match = _RANGE.fullmatch(ranges[0]) if unit.lower() == b"bytes" and len(ranges) == 1 else None
    if match is None or match[0] == b"-":
        return WHOLE
    first, last = _number(match[1]), _number(match[2])
    if first is None:
        suffix = last or 0
        return Selected(206, max(0, length - suffix), length - 1) if suffix and length else Selected(416)
    if last is not None and last < first:
        return WHOLE
    if first >= length:
        return Selected(416)
    return Selected(206, first, length - 1 if last is None else min(last, length - 1))


def _number(digits: bytes) -> int | None:
    digits = digits.lstrip(b"0") or digits[:1]
    return int(digits[:_MOST_DIGITS] if len(digits) <= _MOST_DIGITS else b"9" * _MOST_DIGITS) if digits else None


def _first(headers: Headers, name: bytes) -> bytes | None:
    return next((value for field, value in headers if field == name), None)


def _date(headers: Headers, name: bytes) -> int | None:
    value = _first(headers, name)
    return None if value is None else http_date(value)
