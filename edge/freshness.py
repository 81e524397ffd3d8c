"""May this answer be kept, and how long: RFC 9111 (HTTP caching), RFC 9213 (targeted fields), RFC 5861 (stale), RFC 8246 (immutable)."""

from __future__ import annotations

import re
import time
from calendar import monthrange, timegm
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edge.asgi import Headers, field_values

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
LONGEST_SECONDS = 2**31

# A lifetime that is only estimated is never longer than a day.
MAX_HEURISTIC_SECONDS = 86_400

# RFC 9110 §15 without 206 and 304: the statuses that `must-understand` may ask to be understood (RFC 9111 §5.2.2.3).
_UNDERSTOOD = frozenset({200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 421, 451, 500, 501, 502, 503, 504})

# RFC 5861 §4: what counts as an error that a stale answer may stand in for.
ERRORS = frozenset({500, 502, 503, 504})

# RFC 9110 §15.1: the final statuses without a range whose responses may be given a heuristic lifetime.
_HEURISTICALLY_CACHEABLE = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})

# RFC 9110 §5.6.7: the one format that is generated (IMF-fixdate), and the two obsolete ones that must be understood (RFC 850 and
# asctime). A space is one space, and a number has as many digits as the grammar says. Upper or lower case is one to a cache
# (RFC 9111 §4.2); any other zone than GMT is invalid there.
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
_DAY_NAME = "(?:mon|tue|wed|thu|fri|sat|sun)"
_TIME = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DATE_FORMATS = tuple(
    re.compile(form, re.ASCII | re.IGNORECASE)
    for form in (
        rf"{_DAY_NAME}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
        rf"(?:mon|tues|wednes|thurs|fri|satur|sun)day, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
        rf"{_DAY_NAME} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})",
    )
)


class Terms(NamedTuple):
    """On what terms a shared cache may keep and use an answer. Times are whole seconds of its age."""

    keeps: bool
    """Whether it may be kept at all."""
    shares: bool
    """Whether the clients that wait for the same may have it too."""
    lifetime: int = 0
    """It is fresh while it is younger than this."""
    stale_while_revalidate: int = 0
    """So much longer it may be given while a newer one is fetched (RFC 5861 §3)."""
    stale_if_error: int = 0
    """So much longer it may stand in for an error of the origin (RFC 5861 §4)."""
    must_revalidate: bool = False
    """Whether it must never be given stale, not even to a client that asks for it (RFC 9111 §5.2.2.2)."""
    validates: bool = False
    """Whether it must be validated before each use (`no-cache`, RFC 9111 §5.2.2.4)."""
    immutable: bool = False
    """Whether it is told never to change while it is fresh (RFC 8246)."""


UNSHARED = Terms(keeps=False, shares=False)


class Unsaid(NamedTuple):
    """What a cache assumes where a response says nothing of its own; by default nothing, as an origin expects that says what it means."""

    heuristic_fraction: float = 0.0
    """The part, from 0 to 1, of its time since `Last-Modified` for which a response is fresh (RFC 9111 §4.2.2); 0 turns this off."""
    stale_if_error: int = 0
    """For how many seconds after its lifetime a stored response may be served in place of an error (RFC 5861 §4)."""


_NOTHING = Unsaid()


def terms(
    status: int, headers: Headers, targeted: Sequence[bytes], *, now: float, authorized: bool = False, unsaid: Unsaid = _NOTHING
) -> Terms:
    """Return on what terms a shared cache may keep an answer to GET that came at the Unix time `now`.

    `targeted` names the targeted fields that this cache obeys, the most specific first (RFC 9213 §2.1): the first one that is
    there and valid decides alone; otherwise `Cache-Control` does, and `Expires` where that gives no lifetime. Unless `unsaid` has a
    heuristic fraction, an answer without an explicit lifetime is not kept, whatever its status. One with `Set-Cookie` or `Vary: *`,
    a partial one, a 304 and the outcome of a condition or range (412, 416) are not kept either. `authorized`: the request had
    `Authorization` (RFC 9111 §3.5).
    """
    directives, is_targeted = _deciding_directives(headers, targeted)
    lifetime = _lifetime(directives, [] if is_targeted else headers, now)
    if lifetime is None and (status in _HEURISTICALLY_CACHEABLE or "public" in directives):
        lifetime = _heuristic_lifetime(headers, now, unsaid.heuristic_fraction)
    if (lifetime is None and "no-cache" not in directives) or _forbidden(status, headers, directives, authorized=authorized):
        return UNSHARED
    validates = "no-cache" in directives
    # `s-maxage` means `proxy-revalidate` too (RFC 9111 §5.2.2.10): what it says of staleness at large gives way to an origin that
    # names its own stale-while-revalidate or stale-if-error beside it.
    forbids = validates or bool(directives.keys() & {"must-revalidate", "proxy-revalidate"})
    return Terms(
        keeps=True,
        shares=not validates and bool(lifetime),
        lifetime=0 if validates else lifetime or 0,
        stale_while_revalidate=0 if forbids else delta_seconds(directives.get("stale-while-revalidate", "")),
        stale_if_error=_stale_if_error(directives, unsaid, forbids=forbids),
        must_revalidate=forbids or "s-maxage" in directives,
        validates=validates,
        immutable="immutable" in directives or _says_immutable(headers),
    )


def refusal(agreed: Terms, age: float, asked: Mapping[str, str]) -> bytes:
    """Return why an answer of this age may not be given without asking the origin, as `Cache-Status` calls it; nothing if it may.

    RFC 9111 §4.2.4 and §5.2.1.
    """
    left = agreed.lifetime - age
    if left > 0:
        if agreed.immutable:
            return b""
        too_old = "max-age" in asked and age > delta_seconds(asked["max-age"])
        too_short = "min-fresh" in asked and left < delta_seconds(asked["min-fresh"])
        return b"request" if "no-cache" in asked or too_old or too_short else b""
    if agreed.validates or "no-cache" in asked or "max-age" in asked or "min-fresh" in asked:
        return b"stale"
    if -left < agreed.stale_while_revalidate:
        return b""
    accepts = asked.get("max-stale")
    if accepts is None or agreed.must_revalidate:
        return b"stale"
    return b"" if accepts == "" or -left <= delta_seconds(accepts) else b"stale"


def stand_in_until(agreed: Terms, asked: Mapping[str, str]) -> float:
    """Return up to which age in seconds an answer may stand in for an error (RFC 5861 §4); the client may ask for more."""
    if agreed.validates:
        return 0
    wanted = 0 if agreed.must_revalidate else delta_seconds(asked.get("stale-if-error", ""))
    return agreed.lifetime + max(agreed.stale_if_error, wanted)


def initial_age(headers: Headers, *, now: float, delay: float) -> float:
    """Return the age in seconds of an answer that came at the Unix time `now`, `delay` seconds after it was asked for.

    RFC 9111 §4.2.3: the larger of what its `Date` and what its `Age` says. Never negative, whatever the clocks.
    """
    dates = field_values(headers, b"date")
    date = http_date(dates[0]) if dates else None
    apparent = 0.0 if date is None else now - date
    return max(0.0, apparent, age_seconds(headers) + max(0.0, delay))


def age_seconds(headers: Headers) -> int:
    """Return the age that an answer already has on arrival, 0 if it says none or nonsense; of a list the first (RFC 9111 §5.1)."""
    values = field_values(headers, b"age")
    return delta_seconds(values[0].decode("latin-1").split(",")[0].strip()) if values else 0


def http_date(value: bytes) -> int | None:
    """Return the Unix time of an HTTP date in any of its three formats, `None` if it is none (RFC 9110 §5.6.7).

    The name of the day is read and not compared with the date: it adds nothing to it. Second 60 is a leap second and counts as the
    first of the next minute. A year of two digits is the one of the present century, or of the last one if the date would be more
    than 50 years in the future.
    """
    text = value.decode("latin-1").strip(" \t")
    match = next((match for form in _DATE_FORMATS if (match := form.fullmatch(text))), None)
    if match is None:
        return None
    day, hour, minute, second = (int(match[name]) for name in ("day", "hour", "minute", "second"))
    month = _MONTHS.index(match["month"].lower()) + 1
    if len(match["year"]) == 4:
        year = int(match["year"])
    else:
        present = time.gmtime()
        year = present.tm_year // 100 * 100 + int(match["year"])
        if (year - 50, month, day, hour, minute, second) > tuple(present[:6]):
            year -= 100
    # Python's calendar begins with the year 1.
    if year == 0 or not 1 <= day <= monthrange(year, month)[1] or hour > 23 or minute > 59 or second > 60:
        return None
    return timegm((year, month, day, hour, minute, second))


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


def delta_seconds(text: str) -> int:
    """Return a number of seconds, 0 for what is none: an invalid freshness makes an answer stale (RFC 9111 §1.2.2, §4.2.1)."""
    if not (text.isascii() and text.isdigit()):
        return 0
    # Python refuses to read a number of more than 4,300 digits.
    digits = text.lstrip("0")
    return min(int(digits or "0"), LONGEST_SECONDS) if len(digits) <= 10 else LONGEST_SECONDS


def forbids_sharing(headers: Headers) -> bool:
    """Return whether an answer is for one client alone whatever its directives: it has `Set-Cookie`, or varies by everything."""
    return any(name == b"set-cookie" or (name == b"vary" and b"*" in value) for name, value in headers)


def _deciding_directives(headers: Headers, targeted: Sequence[bytes]) -> tuple[Mapping[str, str], bool]:
    for field in targeted:
        values = field_values(headers, field)
        directives = structured_dictionary(b", ".join(values)) if values else None
        if directives:
            return directives, True
    return cache_control(b", ".join(field_values(headers, b"cache-control"))), False


def _forbidden(status: int, headers: Headers, directives: Mapping[str, str], *, authorized: bool) -> bool:
    """Return whether a shared cache must not store an answer, whatever its lifetime (RFC 9111 §3)."""
    # Conditions and ranges are no part of the key, so that their outcome is for one request alone.
    if status < 200 or status in {206, 304, 412, 416} or "private" in directives or forbids_sharing(headers):
        return True
    if authorized and not directives.keys() & {"public", "s-maxage", "must-revalidate"}:
        return True
    # RFC 9111 §5.2.2.3: who understands the status need not mind a `no-store` beside `must-understand`.
    return status not in _UNDERSTOOD if "must-understand" in directives else "no-store" in directives


def _lifetime(directives: Mapping[str, str], headers: Headers, now: float) -> int | None:
    """Return the lifetime that is said, `None` if none is: `s-maxage`, `max-age`, or `Expires` less `Date` (RFC 9111 §4.2.1)."""
    for name in ("s-maxage", "max-age"):
        if name in directives:
            return delta_seconds(directives[name])
    expires = field_values(headers, b"expires")
    if not expires:
        return None
    dates = field_values(headers, b"date")
    date = http_date(dates[0]) if dates else None
    until = http_date(expires[0])
    # RFC 9111 §5.3: an invalid date, "0" above all, is in the past.
    return 0 if until is None else min(max(0, int(until - (now if date is None else date))), LONGEST_SECONDS)


def _heuristic_lifetime(headers: Headers, now: float, fraction: float) -> int | None:
    """Return the lifetime that is estimated from `Last-Modified`, `None` without one; a response without `Date` is dated `now`."""
    modified, date = (next(map(http_date, field_values(headers, name)), None) for name in (b"last-modified", b"date"))
    if not fraction or modified is None:
        return None
    return min(max(0, int(((now if date is None else date) - modified) * fraction)), MAX_HEURISTIC_SECONDS)


def _stale_if_error(directives: Mapping[str, str], unsaid: Unsaid, *, forbids: bool) -> int:
    if forbids:
        return 0
    if "stale-if-error" in directives:
        return delta_seconds(directives["stale-if-error"])
    # `s-maxage` alone forbids serving stale (RFC 9111 §5.2.2.10): only the origin itself may say otherwise.
    return 0 if "s-maxage" in directives else unsaid.stale_if_error


def _says_immutable(headers: Headers) -> bool:
    # `immutable` is for clients and stands in the field that they read; the targeted one beside it only gives the lifetime.
    return "immutable" in cache_control(b", ".join(field_values(headers, b"cache-control")))
