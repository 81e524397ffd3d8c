"""How long a response may be stored: RFC 9111 for `Cache-Control`, RFC 9213 for targeted fields."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.asgi import Headers
from edge.fields import MAX_DELTA_SECONDS, parse_structured_dictionary
from edge.policy import evaluate_policy, initial_age

OWN = b"darkroom-cdn-cache-control"
CDN = b"cdn-cache-control"
TARGETED = (OWN, CDN)
NOW = 1_795_000_000.0


def lifetime(*headers: tuple[bytes, bytes], status: int = 200) -> int:
    """Return for how many seconds after its arrival a response with these headers is fresh, 0 if it must not be stored."""
    policy = evaluate_policy(status, headers, TARGETED, now=NOW)
    return max(0, policy.lifetime - int(initial_age(headers, now=NOW, delay=0))) if policy.storable else 0


# RFC 9111 §5.2 and §4.2.1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"max-age=60", 60),
        (b"public, max-age=60, immutable", 60),
        (b"max-age=60, must-revalidate, proxy-revalidate", 60),
        (b"max-age=60, stale-while-revalidate=600, stale-if-error=600", 60),
        (b"s-maxage=60", 60),
        (b"s-maxage=30, max-age=60", 30),
        (b"max-age=60, s-maxage=30", 30),
        (b"max-age=0, s-maxage=30", 30),
        (b"max-age=60, s-maxage=0", 0),
        (b"max-age=60, s-maxage=soon", 0),
        (b"max-age=60, s-maxage", 0),
        (b"MAX-AGE=60", 60),
        (b"S-MaxAge=30, Max-Age=60", 30),
        (b'max-age="60"', 60),
        (b'public,max-age="60",immutable', 60),
        (b" \tmax-age=60\t ", 60),
        (b"public,\tmax-age=60", 60),
        (b"public , max-age=60 ,immutable", 60),
        (b",, max-age=60,,", 60),
        (b"max-age=0060", 60),
        (b"max-age=10, max-age=20", 10),
        (b"max-age=1234567890", 1_234_567_890),
        (b"max-age=2147483648", MAX_DELTA_SECONDS),
        (b"max-age=2147483649", MAX_DELTA_SECONDS),
        (b"max-age=99999999999", MAX_DELTA_SECONDS),
        (b"max-age=" + b"9" * 5_000, MAX_DELTA_SECONDS),
        (b"max-age=" + b"0" * 5_000, 0),
        (b"max-age=" + b"0" * 5_000 + b"60", 60),
    ],
)
def test_cache_control_with_a_lifetime_is_stored_for_it(value: bytes, seconds: int) -> None:
    assert lifetime((b"cache-control", value)) == seconds


@pytest.mark.parametrize(
    "value",
    [
        b"no-store",
        b"no-store, max-age=60",
        b"max-age=60, no-store",
        b"private, max-age=60",
        b"no-cache, max-age=60",
        b'private="x-user", max-age=60',
        b'no-cache="set-cookie", max-age=60',
        b"NO-STORE, max-age=60",
        b"Private, max-age=60",
        b"max-age=60 no-store",
        b'x="unterminated, no-store, max-age=60',
    ],
)
def test_cache_control_that_forbids_shared_caches_is_not_stored(value: bytes) -> None:
    assert lifetime((b"cache-control", value)) == 0


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"public",
        b"immutable",
        b"max-age",
        b"max-age=",
        b'max-age=""',
        b"max-age=0",
        b"max-age=-60",
        b"max-age=+60",
        b"max-age=60.5",
        b"max-age=60s",
        b"max-age=6_0",
        b"max-age=0x3c",
        b"max-age=1e3",
        b"max-age = 60",
        b"max-age= 60",
        b"max-age =60",
        b"max-age=\xb2\xb3",
        b"max-age=\xd9\xa1",
        b'max-age="60',
        b"x-max-age=60",
        b'x="max-age=60"',
        b'x="quoted \\", max-age=60"',
        b"stale-while-revalidate=60",
    ],
)
def test_cache_control_without_a_valid_lifetime_is_not_stored(value: bytes) -> None:
    assert lifetime((b"cache-control", value)) == 0


def test_cache_control_quoted_argument_hides_directives_in_it() -> None:
    assert lifetime((b"cache-control", b'x="no-store, private", max-age=60')) == 60


def test_cache_control_on_several_lines_is_one_list() -> None:
    assert lifetime((b"cache-control", b"public"), (b"etag", b'"a"'), (b"cache-control", b"max-age=60")) == 60
    assert lifetime((b"cache-control", b"max-age=60"), (b"cache-control", b"no-store")) == 0
    assert lifetime((b"cache-control", b"max-age=10"), (b"cache-control", b"max-age=20")) == 10


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"etag", b'"k5x7q2"'), (b"last-modified", b"Mon, 23 Nov 2026 12:00:00 GMT")],
        [(b"surrogate-control", b"max-age=60")],
        [(b"other-cdn-cache-control", b"max-age=60")],
    ],
)
def test_response_without_an_explicit_lifetime_is_not_stored(headers: Headers) -> None:
    assert lifetime(*headers) == 0


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 302, 307, 308, 404, 405, 410, 414, 500, 501, 503])
def test_response_of_any_final_status_with_a_lifetime_is_stored(status: int) -> None:
    assert lifetime((b"cache-control", b"max-age=60"), status=status) == 60
    assert lifetime((b"cache-control", b"public"), status=status) == 0


@pytest.mark.parametrize("status", [100, 101, 103, 206, 304])
def test_response_that_is_partial_or_not_final_is_not_stored(status: int) -> None:
    assert lifetime((b"cache-control", b"max-age=60"), (OWN, b"max-age=60"), status=status) == 0


@pytest.mark.parametrize("field", [(b"set-cookie", b"a=b"), (b"set-cookie", b""), (b"vary", b"*"), (b"vary", b"accept, *")])
@pytest.mark.parametrize("policy", [b"cache-control", CDN, OWN])
def test_response_with_set_cookie_or_vary_star_is_not_stored(policy: bytes, field: tuple[bytes, bytes]) -> None:
    assert lifetime((policy, b"max-age=60"), field) == 0


@pytest.mark.parametrize(
    ("age", "seconds"),
    [
        (b"0", 60),
        (b"1", 59),
        (b"59", 1),
        (b"60", 0),
        (b"61", 0),
        (b"99999999999", 0),
        (b"9" * 5_000, 0),
        (b" 10 ", 50),
        (b"10, 50", 50),
        (b"10 , nonsense", 50),
        (b"", 60),
        (b"-10", 60),
        (b"+10", 60),
        (b"10.5", 60),
        (b"ten", 60),
        (b'"10"', 60),
        (b"nonsense, 10", 60),
        (b"\xb2", 60),
        (b"\xff\xfe", 60),
    ],
)
@pytest.mark.parametrize("policy", [b"cache-control", CDN, OWN])
def test_age_on_arrival_is_subtracted_and_an_invalid_one_ignored(policy: bytes, age: bytes, seconds: int) -> None:
    assert lifetime((policy, b"max-age=60"), (b"age", age)) == seconds


# RFC 9213 §2.1 and §2.2


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        # Targeted over Cache-Control, in both directions.
        ([(CDN, b"max-age=60"), (b"cache-control", b"no-store")], 60),
        ([(CDN, b"max-age=60"), (b"cache-control", b"private, max-age=7")], 60),
        ([(CDN, b"no-store"), (b"cache-control", b"max-age=7")], 0),
        ([(b"cache-control", b"max-age=7"), (CDN, b"max-age=60")], 60),
        # Its own field over the general one, in both directions and in any order.
        ([(OWN, b"max-age=60"), (CDN, b"no-store"), (b"cache-control", b"private")], 60),
        ([(CDN, b"no-store"), (OWN, b"max-age=60")], 60),
        ([(OWN, b"no-store"), (CDN, b"max-age=60"), (b"cache-control", b"max-age=7")], 0),
        # The effective field decides alone: no directive of the others is used.
        ([(CDN, b"must-revalidate"), (b"cache-control", b"max-age=7")], 0),
        ([(OWN, b"must-revalidate"), (CDN, b"max-age=60")], 0),
        ([(CDN, b"max-age=60"), (b"cache-control", b"s-maxage=7")], 60),
        # Several lines are one dictionary, in which the last of equal keys counts.
        ([(CDN, b"max-age=7"), (CDN, b"max-age=60")], 60),
        ([(CDN, b"max-age=60"), (CDN, b"no-store")], 0),
        ([(CDN, b"max-age=7, max-age=60")], 60),
        ([(CDN, b"s-maxage=60, max-age=7")], 60),
        # Empty fields and those that do not parse are ignored.
        ([(CDN, b""), (b"cache-control", b"max-age=7")], 7),
        ([(CDN, b"  "), (b"cache-control", b"max-age=7")], 7),
        ([(OWN, b""), (CDN, b"max-age=60"), (b"cache-control", b"max-age=7")], 60),
        ([(OWN, b"max-age=,"), (CDN, b"max-age=60"), (b"cache-control", b"max-age=7")], 60),
        ([(OWN, b"max-age=,"), (CDN, b"@"), (b"cache-control", b"max-age=7")], 7),
        ([(CDN, b"max-age=60"), (CDN, b"max-age=,"), (b"cache-control", b"max-age=7")], 7),
        ([(CDN, b""), (b"cache-control", b"no-store")], 0),
    ],
)
def test_targeted_field_that_is_valid_decides_alone(headers: Headers, seconds: int) -> None:
    assert lifetime(*headers) == seconds


@pytest.mark.parametrize(
    "value",
    [
        b"max-age=60",
        b"max-age=060",
        b"  max-age=60  ",
        b"max-age=60\t",
        b"no-transform,max-age=60",
        b"no-transform \t,\t max-age=60",
        b"max-age=60;x",
        b'max-age=60;x=1; y="a, no-store";z=?0',
        b'x="a, no-store", max-age=60',
        b'x="a\\"b\\\\", max-age=60',
        b'x="", max-age=60',
        b"*x, max-age=60",
        b"x=*, max-age=60",
        b"x=a/b:c~!#$%&'*+.^_`|, max-age=60",
        b"x=-1.5, y=:aGk=:, z=?1, max-age=60",
        b"max-age=?1, max-age=60",
    ],
)
def test_targeted_field_that_parses_is_obeyed(value: bytes) -> None:
    assert lifetime((CDN, value), (b"cache-control", b"max-age=7")) == 60


@pytest.mark.parametrize(
    "value",
    [
        b"max-age=60,",
        b"max-age=60, ",
        b",max-age=60",
        b"max-age=60,,no-transform",
        b"Max-Age=60",
        b"max-age =60",
        b"max-age= 60",
        b"max-age=",
        b"max-age=60 no-transform",
        b"max-age=60;",
        b"max-age=60;X=1",
        b"max-age=60 ;x",
        b"max-age=+60",
        b"max-age=60s",
        b"max-age=1234567890123456",
        b"max-age=60, x=1.2345",
        b"max-age=60, x=1.",
        b"max-age=60, x=1234567890123.5",
        b"max-age=60, x=?2",
        b"max-age=60, x=:*:",
        b"max-age=60, x='a'",
        b'max-age=60, x="a',
        b'max-age=60, x="a\\n"',
        b'max-age=60, x="a"b',
        b'x=a"b, max-age=60',
        b"x=a@b, max-age=60",
        b"x=a{b}, max-age=60",
        b"x=a=b, max-age=60",
        b"x=(a b), max-age=60",
        b"1x, max-age=60",
        b"-x, max-age=60",
        b"max-age=60\n",
        b"max-age=60\x00",
        b"max-age=60, \xc3\xa9",
        b'max-age=60, x="\xc3\xa9"',
        b"max-age=\xb2",
    ],
)
@pytest.mark.parametrize("field", TARGETED)
def test_targeted_field_that_does_not_parse_is_ignored_as_a_whole(field: bytes, value: bytes) -> None:
    assert parse_structured_dictionary(value) is None
    assert lifetime((field, value), (b"cache-control", b"max-age=7")) == 7


# RFC 9213 §2.1: a value that is not an Integer is not converted to one, but the field decides all the same.
@pytest.mark.parametrize(
    "value",
    [
        b'max-age="60"',
        b"max-age=60.0",
        b"max-age",
        b"max-age=?1",
        b"max-age=-60",
        b"max-age=:NjA=:",
        b"max-age=sixty",
        b's-maxage="60", max-age=60',
        b"no-store",
        b"no-store=?0, max-age=60",
        b"private, max-age=60",
        b'private="x-user", max-age=60',
        b'no-cache="set-cookie", max-age=60',
        b"immutable",
    ],
)
@pytest.mark.parametrize("field", TARGETED)
def test_targeted_field_that_parses_without_a_valid_lifetime_is_not_stored(field: bytes, value: bytes) -> None:
    assert lifetime((field, value), (b"cache-control", b"max-age=7")) == 0


# Arbitrary headers

WORDS = st.sampled_from([b"max-age", b"s-maxage", b"no-store", b"private", b"a", b"60", b"9" * 20, b"9" * 5_000])
MARKS = st.sampled_from([b"=", b",", b", ", b" ", b'"', b";", b"-", b"\xb2"])
VALUES = st.binary(max_size=40) | st.lists(WORDS | MARKS, max_size=12).map(b"".join)
FIELDS = st.sampled_from([b"cache-control", CDN, OWN, b"age"])


@settings(deadline=None)
@given(st.lists(st.tuples(FIELDS, VALUES), max_size=5), st.integers(100, 599))
def test_lifetime_of_arbitrary_headers_is_never_negative_nor_above_the_largest_number_in_them(headers: Headers, status: int) -> None:
    seconds = lifetime(*headers, status=status)
    numbers = [int(digits[-4_000:]) for _, value in headers for digits in re.findall(rb"[0-9]+", value)]
    assert 0 <= seconds <= min(MAX_DELTA_SECONDS, max(numbers, default=0))


@settings(deadline=None)
@given(st.sampled_from([b"cache-control", CDN, OWN]), st.integers(0, 10**14), st.integers(0, 10**14))
def test_lifetime_and_age_add_up_to_max_age(policy: bytes, max_age: int, age: int) -> None:
    lifetime_said, age_said = min(max_age, MAX_DELTA_SECONDS), min(age, MAX_DELTA_SECONDS)
    assert lifetime((policy, b"max-age=%d" % max_age), (b"age", b"%d" % age)) == max(0, lifetime_said - age_said)
