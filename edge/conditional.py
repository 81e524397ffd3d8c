"""Preconditions and ranges: which of 200, 206, 304, 412 and 416 a client gets of a whole response (RFC 9110 §13, §14)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from edge.asgi import Headers, get_header_values
from edge.fields import parse_http_date

# The request headers that are evaluated against the whole response, and so never reach the origin.
CONDITIONAL_HEADERS = frozenset({b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range", b"range"})

_ENTITY_TAG = re.compile(rb'((?:W/)?)("[\x21\x23-\x7e\x80-\xff]*")')

_RANGE = re.compile(rb"(\d*)-(\d*)")

# Python refuses to parse a number of more than 4,300 digits. No response has as many bytes as this number of digits can express.
_MAX_DIGITS = 18

# RFC 9110 §15.4.5: the headers of a 200 that its 304 repeats. The others describe a body that is not sent.
_HEADERS_OF_304 = frozenset(
    {b"cache-control", b"cdn-cache-control", b"content-location", b"date", b"etag", b"expires", b"vary", b"access-control-allow-origin"}
)


class Evaluation(NamedTuple):
    """The status for a conditional request, and for a 206 the positions of its first and last byte, counted from 0."""

    status: int
    first: int = 0
    last: int = 0


FULL = Evaluation(200)


def evaluate_preconditions(
    conditions: Mapping[bytes, bytes], headers: Headers, length: int, *, received_at: float, method: str
) -> Evaluation:
    """Return what a GET or HEAD gets of a 200 with these `headers` and a body of `length` bytes.

    `conditions` has the request's `CONDITIONAL_HEADERS`, several lines of one header joined by commas. They are evaluated in the
    order of RFC 9110 §13.2.2. `received_at` is the Unix time at which the response arrived: its date if it has no `Date`.
    """
    etag = _first(headers, b"etag")
    modified = _date(headers, b"last-modified")
    if b"if-match" in conditions:
        if not _match_holds(etag, conditions[b"if-match"]):
            return Evaluation(412)
    elif b"if-unmodified-since" in conditions:
        limit = parse_http_date(conditions[b"if-unmodified-since"])
        if limit is not None and modified is not None and modified > limit:
            return Evaluation(412)
    if b"if-none-match" in conditions:
        if none_match_fails(etag, conditions[b"if-none-match"]):
            return Evaluation(304)
    elif b"if-modified-since" in conditions:
        limit = parse_http_date(conditions[b"if-modified-since"])
        # RFC 9111 §4.3.2: without `Last-Modified`, the date of the response or of its arrival is compared.
        date = modified if modified is not None else _date(headers, b"date")
        if limit is not None and (received_at if date is None else date) <= limit:
            return Evaluation(304)
    if b"range" in conditions and method == "GET" and _range_applies(conditions.get(b"if-range"), etag, modified, headers, received_at):
        return _evaluate_range(conditions[b"range"], length)
    return FULL


def none_match_fails(etag: bytes | None, if_none_match: bytes) -> bool:
    """Return whether `If-None-Match` names `etag`, so that the client gets 304: weak comparison, lists, `*` (RFC 9110 §13.1.2)."""
    if if_none_match == etag or if_none_match.strip() == b"*":
        return True
    if etag is None:
        return False
    opaque_tag = etag.removeprefix(b"W/")
    return any(tag == opaque_tag for _, tag in _ENTITY_TAG.findall(if_none_match))


def not_modified_headers(headers: Headers) -> Headers:
    """Return the headers of a 200 that its 304 repeats."""
    return [pair for pair in headers if pair[0] in _HEADERS_OF_304]


def partial_headers(headers: Headers, part: Evaluation, length: int) -> Headers:
    """Return the headers of a 206 that is a part of a 200 with these `headers` and `length` bytes (RFC 9110 §15.3.7)."""
    others = [pair for pair in headers if pair[0] not in {b"content-length", b"content-range"}]
    return [
        *others,
        (b"content-length", b"%d" % (part.last - part.first + 1)),
        (b"content-range", b"bytes %d-%d/%d" % (part.first, part.last, length)),
    ]


def _match_holds(etag: bytes | None, if_match: bytes) -> bool:
    """Return whether `If-Match` names `etag`: strong comparison, so a weak tag matches nothing (RFC 9110 §13.1.1)."""
    if if_match.strip() == b"*":
        return True
    return etag is not None and not etag.startswith(b"W/") and any(not weak and tag == etag for weak, tag in _ENTITY_TAG.findall(if_match))


def _range_applies(if_range: bytes | None, etag: bytes | None, modified: int | None, headers: Headers, received_at: float) -> bool:
    """Return whether `If-Range` is true: the same strong entity tag, or the same `Last-Modified` if that is strong (RFC 9110 §13.1.5)."""
    if if_range is None:
        return True
    tag = if_range.strip()
    if tag.endswith(b'"'):
        return tag == etag and not tag.startswith(b"W/")
    # RFC 9110 §8.8.2.2: a date is a strong validator if the response was generated at least a second later.
    date = _date(headers, b"date")
    generated_at = received_at if date is None else date
    return modified is not None and tag == _first(headers, b"last-modified") and generated_at >= modified + 1


def _evaluate_range(value: bytes, length: int) -> Evaluation:
    """Return the part of a body of `length` bytes that `Range` requests.

    A value that is not a list of byte ranges must be ignored, and several ranges may be (RFC 9110 §14.2): clients of images do not send
    them, and overlapping ranges are a known denial-of-service attack.
    """
    unit, _, range_set = value.strip().partition(b"=")
    # The members of a list may be empty, and surrounded by white space (RFC 9110 §5.6.1).
    ranges = [part for part in (part.strip() for part in range_set.split(b",")) if part]
    match = _RANGE.fullmatch(ranges[0]) if unit.lower() == b"bytes" and len(ranges) == 1 else None
    if match is None or match[0] == b"-":
        return FULL
    first, last = _number(match[1]), _number(match[2])
    if first is None:
        suffix = last or 0
        return Evaluation(206, max(0, length - suffix), length - 1) if suffix and length else Evaluation(416)
    if last is not None and last < first:
        return FULL
    if first >= length:
        return Evaluation(416)
    return Evaluation(206, first, length - 1 if last is None else min(last, length - 1))


def _number(digits: bytes) -> int | None:
    digits = digits.lstrip(b"0") or digits[:1]
    return int(digits[:_MAX_DIGITS] if len(digits) <= _MAX_DIGITS else b"9" * _MAX_DIGITS) if digits else None


def _first(headers: Headers, name: bytes) -> bytes | None:
    return next(iter(get_header_values(headers, name)), None)


def _date(headers: Headers, name: bytes) -> int | None:
    value = _first(headers, name)
    return None if value is None else parse_http_date(value)
