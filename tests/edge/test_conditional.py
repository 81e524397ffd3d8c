"""When a stored response becomes a 304: RFC 9110 §13.1.2 and §15.4.5."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.conditional import none_match_fails, not_modified_headers

STRONG = b'"k5x7q2"'
WEAK = b'W/"k5x7q2"'


@pytest.mark.parametrize(
    "if_none_match",
    [
        STRONG,
        WEAK,
        b'"other", "k5x7q2"',
        b'"k5x7q2", "other"',
        b'"other",W/"k5x7q2"',
        b'"other" ,\t"k5x7q2" ',
        b'W/"a", W/"b", W/"k5x7q2"',
        b'"with,comma", "k5x7q2"',
        b"*",
        b" * ",
    ],
)
@pytest.mark.parametrize("etag", [STRONG, WEAK])
def test_if_none_match_with_the_entity_tag_is_false(etag: bytes, if_none_match: bytes) -> None:
    assert none_match_fails(etag, if_none_match)


@pytest.mark.parametrize(
    "if_none_match",
    [
        b"",
        b'"other"',
        b'W/"other"',
        b'"K5X7Q2"',
        b'"k5x7q2x"',
        b'"xk5x7q2"',
        b'""',
        b"k5x7q2",
        b"'k5x7q2'",
        b'"k5x7q2',
        b'k5x7q2"',
        b'"k5 x7q2"',
        b'"*"',
        b"**",
        b"*, *",
        b"W/*",
        b'\xff\x00,,;"',
    ],
)
@pytest.mark.parametrize("etag", [STRONG, WEAK])
def test_if_none_match_without_the_entity_tag_is_true(etag: bytes, if_none_match: bytes) -> None:
    assert not none_match_fails(etag, if_none_match)


def test_if_none_match_with_a_malformed_entity_tag_is_false_for_the_same_bytes() -> None:
    assert none_match_fails(b"k5x7q2", b"k5x7q2")
    assert not none_match_fails(b"k5x7q2", b"k5x7q")


ENTITY_TAGS = st.builds(
    lambda weak, opaque: weak + b'"' + bytes(opaque) + b'"',
    st.sampled_from([b"", b"W/"]),
    st.lists(st.sampled_from([0x21, *range(0x23, 0x7F), *range(0x80, 0x100)]), max_size=12),
)


@settings(deadline=None)
@given(ENTITY_TAGS, st.lists(ENTITY_TAGS, max_size=5), st.sampled_from([b",", b", ", b" ,\t"]))
def test_if_none_match_with_a_list_is_false_exactly_if_an_opaque_tag_is_equal(etag: bytes, tags: list[bytes], comma: bytes) -> None:
    expected = etag.removeprefix(b"W/") in {tag.removeprefix(b"W/") for tag in tags}
    assert none_match_fails(etag, comma.join(tags)) is expected


@settings(deadline=None)
@given(st.binary())
def test_if_none_match_with_arbitrary_bytes_never_raises_and_is_false_only_if_they_contain_the_tag(if_none_match: bytes) -> None:
    if none_match_fails(STRONG, if_none_match):
        assert STRONG in if_none_match or if_none_match.strip() == b"*"


def test_not_modified_headers_are_those_that_a_304_repeats_in_order() -> None:
    headers = [
        (b"content-type", b"image/webp"),
        (b"content-length", b"7"),
        (b"date", b"Mon, 23 Nov 2026 12:00:00 GMT"),
        (b"cache-control", b"public, max-age=31536000, immutable"),
        (b"cdn-cache-control", b"max-age=31536000"),
        (b"etag", STRONG),
        (b"expires", b"Tue, 24 Nov 2026 12:00:00 GMT"),
        (b"vary", b"accept"),
        (b"content-location", b"/i/picture.webp"),
        (b"last-modified", b"Mon, 23 Nov 2026 12:00:00 GMT"),
        (b"repr-digest", b"sha-256=:AA==:"),
        (b"cache-tag", b"k5x7q2"),
        (b"access-control-allow-origin", b"*"),
        (b"timing-allow-origin", b"*"),
        (b"content-security-policy", b"default-src 'none'; sandbox"),
        (b"content-encoding", b"identity"),
    ]
    assert not_modified_headers(headers) == [
        (b"date", b"Mon, 23 Nov 2026 12:00:00 GMT"),
        (b"cache-control", b"public, max-age=31536000, immutable"),
        (b"cdn-cache-control", b"max-age=31536000"),
        (b"etag", STRONG),
        (b"expires", b"Tue, 24 Nov 2026 12:00:00 GMT"),
        (b"vary", b"accept"),
        (b"content-location", b"/i/picture.webp"),
        (b"access-control-allow-origin", b"*"),
    ]
