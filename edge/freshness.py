"""May this answer be kept, and for how long: RFC 9111 (HTTP caching) and RFC 9213 (targeted cache control)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edge.answer import Answer, Headers, field_values

# RFC 9651: a dictionary member is a key, optionally with a bare item, optionally with parameters. Inner lists, dates and display
# strings are left out: no cache directive has one, and a field that does not parse is ignored as a whole (RFC 9213 §2.2).
_BARE_ITEM = (
    r'-?\d{1,12}\.\d{1,3}|-?\d{1,15}|"(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'
    r"|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*|:[A-Za-z0-9+/=]*:|\?[01]"
)
_KEY = r"[a-z*][a-z0-9_.*-]*"
_MEMBER = re.compile(rf"({_KEY})(?:=({_BARE_ITEM}))?((?:;[ ]*{_KEY}(?:=(?:{_BARE_ITEM}))?)*)(?=[ \t]*(?:,|$))")
_COMMA = re.compile(r"[ \t]*,[ \t]*")

# RFC 9111 §5.2: directive names are tokens, arguments are tokens or quoted strings.
_DIRECTIVE = re.compile(r'([!#$%&\'*+.^_`|~0-9A-Za-z-]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?')

# RFC 9111 §1.2.2: a number too large for the cache means "as long as can be said". It has ten digits.
_LONGEST_SECONDS = 2**31


def lifetime_seconds(answer: Answer, targeted: Sequence[bytes]) -> int:
    """Return for how many seconds a shared cache may keep `answer`, 0 if it must not.

    `targeted` names the targeted fields that this cache obeys, the most specific first (RFC 9213 §2.1): the first one that
    is there and valid decides alone; otherwise `Cache-Control` does. Nothing is guessed: without `s-maxage` or `max-age` an answer is
    not kept. Answers with `Set-Cookie` or `Vary`, partial ones and 304 are not kept.
    """
    status, headers, _ = answer
    if status in {206, 304} or status < 200:
        return 0
    if field_values(headers, b"set-cookie") or field_values(headers, b"vary"):
        return 0
    directives = _deciding_directives(headers, targeted)
    if any(name in directives for name in ("no-store", "no-cache", "private")):
        return 0
    for name in ("s-maxage", "max-age"):
        if name in directives:
            return max(0, _delta_seconds(directives[name]) - age_seconds(headers))
    return 0


def age_seconds(headers: Headers) -> int:
    """Return the age that an answer already has on arrival, 0 if it says none or nonsense; of a list the first (RFC 9111 §5.1)."""
    values = field_values(headers, b"age")
    return _delta_seconds(values[0].decode("latin-1").split(",")[0].strip()) if values else 0


def _deciding_directives(headers: Headers, targeted: Sequence[bytes]) -> dict[str, str]:
    for field in targeted:
        values = field_values(headers, field)
        directives = structured_dictionary(b", ".join(values)) if values else None
        if directives:
            return directives
    return cache_control(b", ".join(field_values(headers, b"cache-control")))


def structured_dictionary(value: bytes) -> dict[str, str] | None:
    """Return the members of a structured dictionary, `None` if it does not parse (RFC 9651 §4.2.2).

    Values are text as spelled, a bare key is "": a string keeps its quotes, so that `max-age="60"` is no number (RFC 9213 §2.1).
    """
    try:
        text = value.decode("ascii").lstrip(" ").rstrip(" \t")
    except UnicodeDecodeError:
        return None
    members: dict[str, str] = {}
    position = 0
    while position < len(text):
        member = _MEMBER.match(text, position)
        if member is None:
            return None
        members[member[1]] = member[2] or ""
        position = member.end()
        if position == len(text):
            break
        comma = _COMMA.match(text, position)
        if comma is None or comma.end() == len(text):
            return None
        position = comma.end()
    return members


def cache_control(value: bytes) -> dict[str, str]:
    """Return the directives of a `Cache-Control` value by lower-case name; of a repeated one the first (RFC 9111 §4.2.1)."""
    directives: dict[str, str] = {}
    for name, quoted, token in _DIRECTIVE.findall(value.decode("latin-1")):
        directives.setdefault(name.lower(), quoted or token)
    return directives


def _delta_seconds(text: str) -> int:
    # RFC 9111 §4.2.1: an invalid freshness makes the answer stale.
    if not (text.isascii() and text.isdigit()):
        return 0
    # Python refuses to read a number of more than 4,300 digits.
    digits = text.lstrip("0")
    return min(int(digits or "0"), _LONGEST_SECONDS) if len(digits) <= 10 else _LONGEST_SECONDS
