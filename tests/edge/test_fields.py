"""Parsers of header fields: dates (RFC 9110 §5.6.7), `Age`, `Cache-Control`, structured dictionaries (RFC 9651)."""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.fields import MAX_DELTA_SECONDS, parse_age, parse_cache_control, parse_http_date, parse_structured_dictionary

# Dates

VALID_DATES = {
    b"Sun, 06 Nov 1994 08:49:37 GMT": 784_111_777,
    b"Sunday, 06-Nov-94 08:49:37 GMT": 784_111_777,
    b"Sun Nov  6 08:49:37 1994": 784_111_777,
    b"Sun Nov 06 08:49:37 1994": 784_111_777,
    b"sun, 06 nOV 1994 08:49:37 gmt": 784_111_777,
    b" Sun, 06 Nov 1994 08:49:37 GMT\t": 784_111_777,
    b"Thu, 29 Feb 2024 00:00:00 GMT": 1_709_164_800,
    b"Thu, 01 Jan 1970 00:00:00 GMT": 0,
    b"Sat, 31 Dec 2016 23:59:60 GMT": 1_483_228_800,
    b"Fri, 31 Dec 9999 23:59:59 GMT": 253_402_300_799,
    b"Sat, 01 Jan 0001 00:00:00 GMT": -62_135_596_800,
}

INVALID_DATES = [
    b"",
    b"0",
    b"-1",
    b"Sun, 06  Nov 1994 08:49:37 GMT",
    b"Sun,  06 Nov 1994 08:49:37 GMT",
    b"Sun, 06 Nov 1994  08:49:37 GMT",
    b"Sun, 06 Nov 1994 08:49:37  GMT",
    b"Sun, 06\tNov 1994 08:49:37 GMT",
    b"Sun,\t06 Nov 1994 08:49:37 GMT",
    b"Sun, 06 Nov 1994 08:49:37\tGMT",
    b"Sun,06 Nov 1994 08:49:37 GMT",
    b"Sun 06 Nov 1994 08:49:37 GMT",
    b"Sun, 6 Nov 1994 08:49:37 GMT",
    b"Sun,  6 Nov 1994 08:49:37 GMT",
    b"Sun, 06 Nov 1994 8:49:37 GMT",
    b"Sun, 06 Nov 1994  8:49:37 GMT",
    b"Sun, 06 Nov 1994 08:9:37 GMT",
    b"Sun, 06 Nov 1994 08:49:7 GMT",
    b"Sun, 06 Nov 1994 08:49 GMT",
    b"Sun, 06 Nov 94 08:49:37 GMT",
    b"Sun, 06 Nov 01994 08:49:37 GMT",
    b"Sun, 06-Nov-1994 08:49:37 GMT",
    b"Sun, 06 Nov 1994 08.49.37 GMT",
    b"Sun, 06 Nov 1994 08:49:37",
    b"Sun, 06 Nov 1994 08:49:37 UTC",
    b"Sun, 06 Nov 1994 08:49:37 +0000",
    b"Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
    b"Sunday, 06 Nov 1994 08:49:37 GMT",
    b"Sun, 06 November 1994 08:49:37 GMT",
    b"Son, 06 Nov 1994 08:49:37 GMT",
    b"Sun, 06 Okt 1994 08:49:37 GMT",
    b"Sun, 00 Nov 1994 08:49:37 GMT",
    b"Sun, 31 Nov 1994 08:49:37 GMT",
    b"Wed, 29 Feb 2023 00:00:00 GMT",
    b"Sun, 06 Nov 1994 24:00:00 GMT",
    b"Sun, 06 Nov 1994 08:60:00 GMT",
    b"Sun, 06 Nov 1994 08:49:61 GMT",
    b"Sun, 06 Nov 0000 08:49:37 GMT",
    b"Sun, 06-Nov-94 08:49:37 GMT",
    b"Sunday, 6-Nov-94 08:49:37 GMT",
    b"Sunday, 06-Nov-1994 08:49:37 GMT",
    b"Sun Nov 6 08:49:37 1994",
    b"Sun Nov   6 08:49:37 1994",
    b"Sun Nov  6 8:49:37 1994",
    b"Sun Nov  6 08:49:37 94",
    b"Sun Nov  6 08:49:37 1994 GMT",
    b"Sun\xa006\xa0Nov 1994 08:49:37 GMT",
    "Sun, ٠٦ Nov 1994 08:49:37 GMT".encode(),
    b"9" * 100_000,
]


@pytest.mark.parametrize(("value", "seconds"), VALID_DATES.items())
def test_date_in_the_grammar_is_its_time(value: bytes, seconds: int) -> None:
    assert parse_http_date(value) == seconds


@pytest.mark.parametrize("value", INVALID_DATES, ids=lambda value: value[:40])
def test_date_outside_the_grammar_is_none(value: bytes) -> None:
    assert parse_http_date(value) is None


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)))  # noqa: DTZ001 - every HTTP date is in UTC
def test_date_of_any_second_is_parsed_in_both_formats_with_four_digit_years(moment: datetime) -> None:
    seconds = int((moment.replace(microsecond=0, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    assert parse_http_date(f"{moment:%a, %d %b} {moment.year:04} {moment:%H:%M:%S} GMT".encode()) == seconds
    assert parse_http_date(f"{moment:%a %b} {moment.day:2} {moment:%H:%M:%S} {moment.year:04}".encode()) == seconds


@given(st.integers(-49 * 365, 49 * 365))
def test_date_with_a_two_digit_year_is_the_nearest_within_fifty_years(days: int) -> None:
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(days)
    assert parse_http_date(f"{moment:%A, %d-%b-%y %H:%M:%S} GMT".encode()) == moment.timestamp()


def test_date_with_a_two_digit_year_more_than_fifty_years_ahead_is_in_the_last_century() -> None:
    year = datetime.now(UTC).year + 51
    assert parse_http_date(f"Monday, 01-Feb-{year % 100:02} 00:00:00 GMT".encode()) == datetime(year - 100, 2, 1, tzinfo=UTC).timestamp()


@given(st.binary(max_size=60) | st.text("SunMoNovGT,:- \t0123456789", max_size=40).map(str.encode))
def test_date_of_arbitrary_bytes_never_raises(value: bytes) -> None:
    assert parse_http_date(value) is None or isinstance(parse_http_date(value), int)


# Age


def test_age_on_several_lines_is_the_first() -> None:
    assert parse_age([(b"age", b"10"), (b"age", b"20")]) == 10


def test_missing_age_is_0() -> None:
    assert parse_age([(b"date", b"Mon, 23 Nov 2026 12:00:00 GMT")]) == 0


# Structured dictionaries and Cache-Control


def test_structured_dictionary_values_are_unparsed_text() -> None:
    value = b'a, b=1, c=-1.50, d="x \\"y\\"", e=tok/en, f=:aGk=:, g=?0, h;p=1, i=5;p="q"'
    assert parse_structured_dictionary(value) == {
        "a": "",
        "b": "1",
        "c": "-1.50",
        "d": '"x \\"y\\""',
        "e": "tok/en",
        "f": ":aGk=:",
        "g": "?0",
        "h": "",
        "i": "5",
    }


def test_empty_structured_dictionary_has_no_members() -> None:
    assert parse_structured_dictionary(b"") == {}
    assert parse_structured_dictionary(b"   ") == {}


def test_structured_dictionary_with_many_parameters_takes_linear_time() -> None:
    # This would take forever if a token could also match the parameters after it.
    assert parse_structured_dictionary(b"a=a" + b";b=a" * 5_000 + b" !") is None
    assert parse_structured_dictionary(b"a=a" + b";b=a" * 5_000) == {"a": "a"}


LOWER, UPPER, DIGITS = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
TOKEN_MARKS = "!#$%&'*+.^_`|~-"


def words(first: str, rest: str) -> st.SearchStrategy[str]:
    """Return a strategy for one letter of `first` and a few of `rest`."""
    return st.builds(lambda head, tail: head + tail, st.sampled_from(first), st.text(rest, max_size=12))


KEYS = words(LOWER + "*", LOWER + DIGITS + "_.*-")
STRINGS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)
ITEMS = st.one_of(
    st.integers(-(10**15) + 1, 10**15 - 1).map(str),
    st.decimals(-(10**12) + 1, 10**12 - 1, places=3).map(str),
    words(LOWER + UPPER + "*", LOWER + UPPER + DIGITS + TOKEN_MARKS + ":/"),
    st.binary(max_size=8).map(lambda data: f":{b64encode(data).decode('ascii')}:"),
    st.sampled_from(["?0", "?1"]),
    STRINGS,
)
BARE = st.just("")
PARAMETERS = st.lists(st.tuples(st.sampled_from([";", "; "]), KEYS, ITEMS | BARE), max_size=3)


@settings(deadline=None)
@given(
    st.dictionaries(KEYS, st.tuples(ITEMS | BARE, PARAMETERS), max_size=5),
    st.sampled_from([",", ", ", " ,", "\t, \t"]),
    st.sampled_from(["", " ", "  "]),
)
def test_structured_dictionary_round_trips(members: dict[str, tuple[str, list[tuple[str, str, str]]]], comma: str, margin: str) -> None:
    def spelled(key: str, item: str) -> str:
        return f"{key}={item}" if item else key

    spellings = [
        spelled(key, item) + "".join(semicolon + spelled(name, value) for semicolon, name, value in parameters)
        for key, (item, parameters) in members.items()
    ]
    text = margin + comma.join(spellings) + margin
    assert parse_structured_dictionary(text.encode("ascii")) == {key: item for key, (item, _) in members.items()}


TOKENS = st.text(LOWER + DIGITS + TOKEN_MARKS, min_size=1, max_size=12)
QUOTED = st.text("ab ,=", max_size=12).map('"{}"'.format)


@settings(deadline=None)
@given(st.dictionaries(TOKENS, TOKENS | QUOTED | BARE, max_size=5), st.booleans())
def test_cache_control_round_trips(directives: dict[str, str], shout: bool) -> None:
    spellings = [f"{name.upper() if shout else name}={value}" if value else name for name, value in directives.items()]
    assert parse_cache_control(", ".join(spellings).encode("ascii")) == {name: value.strip('"') for name, value in directives.items()}


# Arbitrary bytes

WORDS = st.sampled_from([b"max-age", b"s-maxage", b"no-store", b"private", b"a", b"60", b"9" * 20, b"9" * 5_000])
MARKS = st.sampled_from([b"=", b",", b", ", b" ", b'"', b";", b"-", b"\xb2"])
VALUES = st.binary(max_size=40) | st.lists(WORDS | MARKS, max_size=12).map(b"".join)


@settings(deadline=None)
@given(VALUES)
def test_age_of_arbitrary_bytes_is_in_range(value: bytes) -> None:
    assert 0 <= parse_age([(b"age", value)]) <= MAX_DELTA_SECONDS


@settings(deadline=None)
@given(VALUES)
def test_structured_dictionary_of_arbitrary_bytes_never_raises(value: bytes) -> None:
    members = parse_structured_dictionary(value)
    assert members is None or all(re.fullmatch(r"[a-z*][a-z0-9_.*-]*", key) for key in members)
