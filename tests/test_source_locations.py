"""`DARKROOM_SOURCES`."""

from __future__ import annotations

import pytest

from service.errors import SettingsError
from service.settings.source_locations import SourceLocation, parse_sources


def test_sources_have_names_kinds_and_prefixes() -> None:
    text = """
        shop=s3://my.bucket/some/prefix/ ; old = gs://bucket;
        az=az://account/container/a%20b
        cms=https://CMS.example.com/uploads; plain=http://old.example.com:8080; six=https://[2606:4700::1]:443/x
    """
    assert parse_sources(text) == {
        "shop": SourceLocation("s3", bucket="my.bucket", prefix="some/prefix/"),
        "old": SourceLocation("gs", bucket="bucket"),
        "az": SourceLocation("az", account="account", bucket="container", prefix="a b/"),
        "cms": SourceLocation("https", "cms.example.com", prefix="uploads/"),
        "plain": SourceLocation("http", "old.example.com:8080"),
        "six": SourceLocation("https", "[2606:4700::1]", prefix="x/"),
    }


@pytest.mark.parametrize(
    ("location", "path", "url"),
    [
        ("https://a.test", "b.jpg", "https://a.test/b.jpg"),
        ("https://a.test/up%20loads/", "ö/a+b@2x;1.jpg", "https://a.test/up%20loads/%C3%B6/a+b@2x;1.jpg"),
        ("https://a.test/x", "100%/a?b/#1.jpg?v=1&u=%2F c%", "https://a.test/x/100%25/a%3Fb/%231.jpg?v=1&u=%2F%20c%25"),
        ("http://a.test:8080/x", "a.jpg?", "http://a.test:8080/x/a.jpg?"),
        ("s3://bucket/pre", "a b?.jpg", "s3://bucket/pre/a b?.jpg"),
        ("gs://bucket", "a.jpg", "gs://bucket/a.jpg"),
        ("az://account/container/pre", "a.jpg", "az://account/container/pre/a.jpg"),
    ],
)
def test_url_of_an_object_is_below_its_source(location: str, path: str, url: str) -> None:
    assert parse_sources(f"one={location}")["one"].url(path) == url


@pytest.mark.parametrize(
    ("location", "path", "has_query"),
    [
        ("https://a.test", "a.jpg?v=1", True),
        ("http://a.test", "b/a.jpg?", True),
        ("https://a.test", "a?b/c.jpg", False),
        ("https://a.test", "c.jpg", False),
        ("s3://bucket/pre", "a.jpg?v=1", False),
    ],
)
def test_path_has_a_query_after_a_question_mark_in_its_last_segment(location: str, path: str, *, has_query: bool) -> None:
    assert parse_sources(f"one={location}")["one"].has_query(path) == has_query


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://cms.example.com", "an equals sign"),
        ("cms", "an equals sign"),
        ("cms=https://a.test https://b.test", "an equals sign"),
        ("Cms=https://a.test", "a name of at most 32"),
        ("1=https://a.test", "a name of at most 32"),
        ("a_b=https://a.test", "a name of at most 32"),
        ("a=https://a.test; a=https://b.test", "each name once, got a twice"),
        ("a=ftp://a.test", "one of s3://bucket/prefix, gs://bucket/prefix, az://"),
        ("a=a.test", "one of s3://"),
        ("a=https://", "https://host/prefix"),
        ("a=https://*.a.test", "https://host/prefix"),
        ("a=https://user@a.test", "https://host/prefix"),
        ("a=https://a.test?x", "https://host/prefix"),
        ("a=https://a.test/#x", "https://host/prefix"),
        ("a=https://a.test:0", "https://host/prefix"),
        ("a=https://a.test:x", "https://host/prefix"),
        ("a=https://ä.test", "https://host/prefix"),
        ("a=https://a.test/b/../c", "no segment that is"),
        ("a=https://a.test/%2e%2e", "no segment that is"),
        ("a=https://a.test/b//c", "a name between two slashes"),
        ("a=https://a.test/b%2Fc", "without encoded slashes"),
        ("a=https://a.test/b%3Fc", "without encoded slashes"),
        ("a=s3://", "s3://bucket/prefix"),
        ("a=s3:///prefix", "s3://bucket/prefix"),
        ("a=s3://Bucket", "s3://bucket/prefix"),
        ("a=s3://bucket/a/../b", "no segment that is"),
        ("a=gs://b", "gs://bucket/prefix"),
        ("a=az://account", "az://account/container/prefix"),
        ("a=az://account/Container", "az://account/container/prefix"),
        ("a=az://my-account/container", "az://account/container/prefix"),
    ],
)
def test_source_that_cannot_be_used_is_refused_by_name(text: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=r"^DARKROOM_SOURCES is invalid: expected ") as caught:
        parse_sources(text)
    assert expected in str(caught.value)
