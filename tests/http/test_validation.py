"""JSON and query parameters: what is decoded, and the error messages that are made from the Structs."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadRequestError, TooLargeError
from service.http.schemas import DEFAULT_LIMIT, ImagePatch, LookupRequest, PageQuery, RequestBody, SourceUrlRequest, UrlsRequest
from service.http.validation import MAX_JSON_BYTES, convert_query, decode_json, json_schema

DIGEST = b"ibxxblxna3ywub3vp54kkar5asszqvg2"

# Type, body, and the `detail`, `expected` and `received` of the problem.
INVALID: list[tuple[type[RequestBody], bytes, str, str, str]] = [
    (
        UrlsRequest,
        b'{"widths": [320, 0]}',
        "`widths[1]` is invalid: expected a whole number from 1 to 8192, got 0.",
        "a whole number from 1 to 8192",
        "0",
    ),
    (
        UrlsRequest,
        b'{"widths": [%s]}' % b",".join([b"1"] * 33),
        "`widths` is invalid: expected an array of at most 32 items, each a whole number from 1 to 8192, got 33 items.",
        "an array of at most 32 items, each a whole number from 1 to 8192",
        "33 items",
    ),
    (
        UrlsRequest,
        b'{"widths": [%s]}' % (b"9" * 6_000),
        "`widths[0]` is invalid: expected a whole number from 1 to 8192, got a value that cannot be shown.",
        "a whole number from 1 to 8192",
        "a value that cannot be shown",
    ),
    (
        UrlsRequest,
        b'{"format": "tiff"}',
        '`format` is invalid: expected one of avif, gif, jpeg, jxl, png, webp, got "tiff".',
        "one of avif, gif, jpeg, jxl, png, webp",
        '"tiff"',
    ),
    (
        UrlsRequest,
        b'{"transform": {"%s": 1}}' % (b"k" * 70),
        "A name in `transform` is invalid: expected a string of at most 64 characters, got 70 characters.",
        "a string of at most 64 characters",
        "70 characters",
    ),
    (
        ImagePatch,
        b'{"focal": [0.5, 2]}',
        "`focal[1]` is invalid: expected a number from 0 to 1, got 2.",
        "a number from 0 to 1",
        "2",
    ),
    (
        ImagePatch,
        b'{"focal": [0.5]}',
        "`focal` is invalid: expected an array of 2 items, each a number from 0 to 1, or null, got 1 item.",
        "an array of 2 items, each a number from 0 to 1, or null",
        "1 item",
    ),
    (
        ImagePatch,
        b'{"alt": null}',
        "`alt` is invalid: expected a string of at most 2,000 characters, got null.",
        "a string of at most 2,000 characters",
        "null",
    ),
    (
        LookupRequest,
        b'{"digests": ["%s", "short"]}' % DIGEST,
        '`digests[1]` is invalid: expected a digest of 32 characters of a-z and 2-7, got "short".',
        "a digest of 32 characters of a-z and 2-7",
        '"short"',
    ),
    (LookupRequest, b"[]", "The body is invalid: expected an object with `digests`, got [].", "an object with `digests`", "[]"),
    (
        SourceUrlRequest,
        b"",
        "`path` is missing: expected a string of at most 3,072 characters.",
        "an object with `path`, and optionally `transform`, `variant`, `format`",
        "no `path`",
    ),
    (
        SourceUrlRequest,
        b'{"path": "a.jpg", "formt": "webp"}',
        "`formt` is not a member of this request.",
        "an object with `path`, and optionally `transform`, `variant`, `format`",
        "`formt`",
    ),
    (LookupRequest, b'{"digests": [', "The body is not valid JSON.", "an object with `digests`", "Input data was truncated"),
]


@pytest.mark.parametrize(("kind", "body", "detail", "expected", "received"), INVALID)
def test_invalid_body_is_400_that_says_what_was_expected(
    kind: type[RequestBody], body: bytes, detail: str, expected: str, received: str
) -> None:
    with pytest.raises(BadRequestError) as raised:
        decode_json(body, kind)
    assert (raised.value.detail, raised.value.expected, raised.value.received) == (detail, expected, received)
    assert raised.value.remedy


def test_unknown_member_is_400_that_suggests_the_nearest_one() -> None:
    with pytest.raises(BadRequestError) as raised:
        decode_json(b'{"wdths": [1]}', UrlsRequest)
    assert raised.value.remedy == "Did you mean `widths`?"


def test_invalid_member_with_a_default_is_400_that_names_it() -> None:
    with pytest.raises(BadRequestError) as raised:
        convert_query({"limit": 0}, PageQuery)
    assert raised.value.remedy == f"Change it, or leave out `limit` for {DEFAULT_LIMIT}."


def test_long_values_and_control_characters_are_quoted_short_and_escaped() -> None:
    with pytest.raises(BadRequestError) as raised:
        decode_json(b'{"format": "\\r\\n%s"}' % (b"f" * 60_000), UrlsRequest)
    assert len(raised.value.detail) < 250
    assert "\r" not in raised.value.detail


@pytest.mark.parametrize("kind", RequestBody.__subclasses__(), ids=lambda kind: kind.__name__)
def test_every_member_of_a_body_has_a_description(kind: type[RequestBody]) -> None:
    members = json_schema(kind)["properties"]
    assert all(member["description"] for member in members.values())
    assert kind.__doc__


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b"\xef\xbb\xbf{}", b'{"alt": "\xed\xa0\x80"}', b'{"alt": "\\ud800"}', b'{"alt": NaN}', b"\xff" * 100, b"\0",
        b'{"transform": {"crop": ' + b"[" * 30_000 + b"]" * 30_000 + b"}}", b"[" * 60_000, b'{"a":' * 10_000,
        b'{"widths": [' + b"9" * 60_000 + b"]}", b'{"widths": [1e999]}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [UrlsRequest, ImagePatch])
def test_body_that_is_not_json_is_400_with_a_remedy(body: bytes, kind: type[Any]) -> None:
    with pytest.raises(BadRequestError) as raised:
        decode_json(body, kind)
    assert raised.value.expected
    assert raised.value.remedy
    assert len(raised.value.detail) < 500


@given(st.binary(max_size=300))
def test_json_of_any_bytes_is_read_or_400(body: bytes) -> None:
    with suppress(BadRequestError):
        assert isinstance(decode_json(body, UrlsRequest), UrlsRequest)


_members = st.sampled_from([*UrlsRequest.__struct_fields__, *ImagePatch.__struct_fields__, "url", "digests", "other", ""])
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=35) | st.dictionaries(_members, inner, max_size=4),
    max_leaves=40,
)


@given(st.lists(st.tuples(_members, _values), max_size=4), st.sampled_from(RequestBody.__subclasses__()))
def test_json_object_with_any_members_is_read_or_400(members: list[tuple[str, object]], kind: type[RequestBody]) -> None:
    """Members may be repeated."""
    body = "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in members) + "}"
    with suppress(BadRequestError):
        assert isinstance(decode_json(body.encode(), kind), kind)


@pytest.mark.parametrize("depth", range(100, 1_000, 9))
def test_deep_value_is_400(depth: int) -> None:
    with pytest.raises(BadRequestError):
        decode_json(b'{"widths": [' + b"[" * depth + b"]" * depth + b"]}", UrlsRequest)


def test_repeated_member_whose_first_value_is_invalid_is_400() -> None:
    with pytest.raises(BadRequestError) as raised:
        decode_json(b'{"widths": [0], "widths": []}', UrlsRequest)
    assert raised.value.received == "a value that cannot be shown"


def test_json_larger_than_is_read_is_413() -> None:
    with pytest.raises(TooLargeError):
        decode_json(b" " * (MAX_JSON_BYTES + 1), ImagePatch)
