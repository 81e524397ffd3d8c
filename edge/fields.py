"""Parsers of header fields: dates, numbers, lists, `Cache-Control`, and structured dictionaries.

Each takes raw bytes and never raises: a field that does not parse has the value that its specification gives to invalid ones.
"""

from __future__ import annotations

import re
import time
from calendar import monthrange, timegm

from edge.asgi import Headers, get_header_values

# RFC 9651: a dictionary member is a key, optionally with a bare item, optionally with parameters. Inner lists, dates and display
# strings are left out: no cache directive has one, and a field that does not parse is ignored as a whole (RFC 9213 §2.2).
_BARE_ITEM = (
    r'-?\d{1,12}\.\d{1,3}|-?\d{1,15}|"(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'
    r"|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*|:[A-Za-z0-9+/=]*:|\?[01]"
)
_KEY = r"[a-z*][a-z0-9_.*-]*"
_MEMBER = re.compile(rf"({_KEY})(?:=({_BARE_ITEM}))?((?:;[ ]*{_KEY}(?:=(?:{_BARE_ITEM}))?)*)(?=[ \t]*(?:,|$))")
_COMMA, _END = re.compile(r"[ \t]*,[ \t]*"), re.compile(r"[ \t]*\Z")

# RFC 9111 §5.2: directive names are tokens, arguments are tokens or quoted strings.
_DIRECTIVE = re.compile(r'([!#$%&\'*+.^_`|~0-9A-Za-z-]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?')

# RFC 9111 §1.2.2: a larger number of seconds is read as this one. It has ten digits.
MAX_DELTA_SECONDS = 2**31

# RFC 9110 §5.6.7: the format to generate (IMF-fixdate), and the two obsolete ones that must be accepted (RFC 850 and asctime). A space
# is exactly one space, and a number has as many digits as the grammar says. A cache ignores case (RFC 9111 §4.2); any time zone other
# than GMT is invalid.
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


def parse_http_date(value: bytes) -> int | None:
    """Return the Unix time of an HTTP date in any of its three formats, `None` if it is invalid (RFC 9110 §5.6.7).

    The day of the week is not compared with the date, because it adds nothing. Second 60 is a leap second and counts as the first of
    the next minute. A two-digit year belongs to the present century, or to the last one if the date would otherwise be more than 50
    years in the future.
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


def parse_structured_dictionary(value: bytes) -> dict[str, str] | None:
    """Return the members of a structured dictionary, `None` if it does not parse (RFC 9651 §4.2.2).

    Values are unparsed text, and a key without a value has "". A string keeps its quotes, so `max-age="60"` is not a number
    (RFC 9213 §2.1).
    """
    try:
        text = value.decode("ascii").strip(" ")
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
        if _END.match(text, position):
            break
        comma = _COMMA.match(text, position)
        if comma is None or comma.end() == len(text):
            return None
        position = comma.end()
    return members


def parse_cache_control(value: bytes) -> dict[str, str]:
    """Return the directives of a `Cache-Control` value by lower-case name. The first of repeated ones counts (RFC 9111 §4.2.1)."""
    directives: dict[str, str] = {}
    for name, quoted, token in _DIRECTIVE.findall(value.decode("latin-1")):
        directives.setdefault(name.lower(), quoted or token)
    return directives


def parse_delta_seconds(text: str) -> int:
    """Return a number of seconds, at most `MAX_DELTA_SECONDS`. An invalid one is 0, which makes a response stale (RFC 9111 §4.2.1)."""
    if not (text.isascii() and text.isdigit()):
        return 0
    # Python refuses to parse a number of more than 4,300 digits.
    digits = text.lstrip("0")
    return min(int(digits or "0"), MAX_DELTA_SECONDS) if len(digits) <= 10 else MAX_DELTA_SECONDS


def parse_age(headers: Headers) -> int:
    """Return the `Age` of a response in seconds, 0 if it is missing or invalid. The first of a list counts (RFC 9111 §5.1)."""
    values = get_header_values(headers, b"age")
    return parse_delta_seconds(values[0].decode("latin-1").split(",")[0].strip()) if values else 0


def parse_vary(headers: Headers) -> tuple[bytes, ...]:
    """Return the names of the request headers by which the origin chose a response, in lower case and sorted."""
    names = {name.strip().lower() for value in get_header_values(headers, b"vary") for name in value.split(b",")}
    return tuple(sorted(names - {b""}))


def parse_cache_tags(headers: Headers) -> frozenset[bytes]:
    """Return the tags of a response: the members of `Cache-Tag`, separated by commas."""
    tags = (tag.strip() for value in get_header_values(headers, b"cache-tag") for tag in value.split(b","))
    return frozenset(tag for tag in tags if tag)
