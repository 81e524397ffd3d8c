"""The paths of renditions of images in a source: build and parse, and refuse whatever could lead out of a prefix."""

from __future__ import annotations

import posixpath
import string
from collections.abc import Iterator
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.errors import BadAddressError
from service.images.formats import FORMAT_OF_EXTENSION
from service.settings.source_locations import parse_sources
from service.urls.rendition_url import AUTO
from service.urls.source_url import MAX_OBJECT_PATH_CHARACTERS, SourceUrl, check_object_path, climbs, parse_source_url

SIGNATURE = "a" * 26


def is_safe(segment: str) -> bool:
    """Return whether a name has no character that is refused, and cannot be taken for a percent-encoding or for dots."""
    return segment.partition(";")[0] not in {".", ".."} and not any(ord(character) < 0x20 for character in segment)


names = st.text(st.characters(codec="utf-8", exclude_characters="/\\%?\x7f"), min_size=1, max_size=20).filter(is_safe)
object_paths = st.lists(names, min_size=1, max_size=5).map("/".join)
source_names = st.from_regex(r"\A[a-z][a-z0-9-]{0,31}\Z")
transforms = st.text(string.ascii_letters + string.digits + ".:_=,-", min_size=1, max_size=80)
urls = st.builds(SourceUrl, source_names, object_paths, transforms, st.sampled_from((*FORMAT_OF_EXTENSION, AUTO)))
signatures = st.sampled_from(("-", SIGNATURE))


def parsed_path(encoded: str) -> str:
    """Return the object's path in a URL that has `encoded` in its place."""
    return parse_source_url(f"/from/cms/{encoded}/width=640/-.webp".encode("latin-1"))[0].object_path


def refusal(encoded: str) -> str:
    """Return the detail of the error for a URL with `encoded` in place of the object's path."""
    with pytest.raises(BadAddressError) as caught:
        parsed_path(encoded)
    assert caught.value.expected
    assert caught.value.remedy
    return caught.value.detail


@given(urls, signatures)
def test_source_url_that_was_built_parses_to_its_parts(url: SourceUrl, signature: str) -> None:
    path = url.path(signature)
    assert path.isascii()
    assert parse_source_url(path.encode()) == (url, signature)


@given(urls)
def test_signing_payload_of_a_source_url_is_its_path_without_the_signature(url: SourceUrl) -> None:
    assert url.path(SIGNATURE).replace(f"/{SIGNATURE}", "") == url.signing_payload


def test_source_url_spells_the_path_as_encode_uri_component_does() -> None:
    url = SourceUrl("cms", "Größe 1/a+b@2x (1)~!*'.jpg?v=1&x=%2F", "width=640", "webp")
    # The output of `path.split("/").map(encodeURIComponent).join("/")`.
    encoded = "Gr%C3%B6%C3%9Fe%201/a%2Bb%402x%20(1)~!*'.jpg%3Fv%3D1%26x%3D%252F"
    assert url.path("-") == f"/from/cms/{encoded}/width=640/-.webp"
    assert url.signing_payload == f"/from/cms/{encoded}/width=640.webp"
    assert parse_source_url(url.path("-").encode()) == (url, "-")


@pytest.mark.parametrize(
    "spelling",
    ["Gr%c3%b6%C3%9Fe/a%2bb.jpg", "Größe/a+b.jpg", "%47rö%c3%9Fe/%61+b%2Ejpg"],
)
def test_source_url_in_another_spelling_parses_to_the_same_path(spelling: str) -> None:
    raw = spelling.encode().decode("latin-1")
    assert parsed_path(raw) == "Größe/a+b.jpg"


@pytest.mark.parametrize(
    "encoded",
    [
        *("..", "../secret.jpg", "a/../../b", "a/.", "./a", "%2e%2e/a", "%2E./a", ".%2e", "a/%2e", "..;/a", "..;x=1/a", "%2e%2e%3b/a"),
        *("%252e%252e/a", "%25%32%65%25%32%65/a", "%25252e%25252e/a", "a/%252e", "%252e%252e%253b/a"),
    ],
)
def test_source_url_that_leaves_its_folder_is_refused_in_every_encoding(encoded: str) -> None:
    assert refusal(encoded) == "The path of the object leaves the folder that it is in."


@pytest.mark.parametrize("encoded", ["a%2Fb", "a%2fb", "a%5Cb", "a\\b", "a%252Fb", "a%255cb", "a%25252fb", "..%2Fa", "a.jpg%3Fx=%2F"])
def test_source_url_with_a_slash_inside_a_segment_is_refused_in_every_encoding(encoded: str) -> None:
    assert refusal(encoded) == "The path of the object has a slash or a backslash inside a segment."


@pytest.mark.parametrize("encoded", ["a%00b", "%00", "a%2500b", "a%0Ab", "a%250d", "a%7Fb", "a\x1fb", "a.jpg%3Fx=%0A"])
def test_source_url_with_a_control_character_is_refused_in_every_encoding(encoded: str) -> None:
    assert refusal(encoded) == "The path of the object has a control character."


@pytest.mark.parametrize("encoded", ["%ff", "%c0%ae%c0%ae/a", "%25c0%25ae/a", "%e0%80%ae", "%25e0%2580%25ae", "%ed%a0%80", "a%C3", "\xff"])
def test_source_url_that_is_not_utf_8_is_refused(encoded: str) -> None:
    assert refusal(encoded) == "The path of the object is not UTF-8."


@pytest.mark.parametrize("encoded", ["/a", "a//b", "a/", "//"])
def test_source_url_with_an_empty_segment_is_refused(encoded: str) -> None:
    assert refusal(encoded) == "The path of the object has an empty segment."


@pytest.mark.parametrize("encoded", ["%", "a%2", "100%.jpg", "%zz", "%u002e"])
def test_source_url_with_a_bare_percent_sign_is_refused(encoded: str) -> None:
    assert refusal(encoded).startswith("A percent sign")


def test_source_url_that_is_encoded_too_often_is_refused() -> None:
    assert refusal("%" + "25" * 10 + "41") == "The path of the object is percent-encoded too often."


def test_source_url_that_is_too_long_is_refused() -> None:
    assert parsed_path("a" * MAX_OBJECT_PATH_CHARACTERS)
    assert refusal("a" * (MAX_OBJECT_PATH_CHARACTERS + 1)) == "The path of the object is too long."
    # Two characters of the spelling are six of the canonical one.
    assert refusal("ö".encode().decode("latin-1") * 1_000) == "The path of the object is too long."


@pytest.mark.parametrize("encoded", ["...", "..a", "a..", ".a", "100%25.jpg", "a.jpg%3F../x"[:-2], "a.jpg%3Fx=%252F..%252F", "a;b.jpg"])
def test_source_url_with_a_name_that_only_looks_dangerous_is_accepted(encoded: str) -> None:
    assert parsed_path(encoded)


@pytest.mark.parametrize(
    "path",
    [
        *("/from/", "/from/cms", "/from/cms/full/-.jpg", "/from//a/full/-.jpg", "/from/CMS/a/full/-.jpg", "/from/c%6Ds/a/full/-.jpg"),
        *("/from/cms/a/full/x.jpg", "/from/cms/a/fu%6Cl/-.jpg", "/from/cms/a/full/-.jpg/", "/from/cms/a/full/-", "/from/1a/a/full/-.jpg"),
        *("/FROM/cms/a/full/-.jpg", f"/from/{'a' * 33}/a/full/-.jpg", "/from/cms/a//-.jpg", f"/from/cms/a/full/{SIGNATURE}a.jpg"),
    ],
)
def test_path_outside_the_grammar_of_source_urls_is_refused(path: str) -> None:
    with pytest.raises(BadAddressError, match="not the address"):
        parse_source_url(path.encode())


def test_source_url_with_an_unknown_extension_is_refused() -> None:
    with pytest.raises(BadAddressError, match="No rendition has this extension"):
        parse_source_url(b"/from/cms/a/full/-.bmp")


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_have_a_canonical_spelling(raw: bytes) -> None:
    try:
        url, signature = parse_source_url(b"/from/cms/" + raw + b"/full/-.jpg")
    except BadAddressError:
        return
    assert parse_source_url(url.path(signature).encode()) == (url, signature)


def readings(path: str) -> Iterator[str]:
    """Yield how servers may read the path of a URL: decoded up to five times, with backslashes as slashes, without path parameters."""
    for _ in range(6):
        slashed = path.replace("\\", "/")
        for read in (slashed, "/".join(segment.partition(";")[0] for segment in slashed.split("/"))):
            yield posixpath.normpath(read)
        path = unquote(path, errors="replace")


dangerous = st.lists(
    st.sampled_from(("..", ".", "/", "\\", "%2e", "%2E%2e", "%2f", "%5c", "%25", "25", "2e", ";", "a", "%00", "?", "%3b")), max_size=9
)


@settings(max_examples=500)
@given(dangerous.map("".join))
@example("%252e%252e/%252e%252e")
@example("a/%25252e%25252e%25252f")
def test_accepted_path_stays_below_its_prefix_however_a_server_reads_it(encoded: str) -> None:
    try:
        path = parsed_path(encoded)
    except BadAddressError:
        return
    url = urlsplit(parse_sources("cms=https://cms.test/up/loads")["cms"].url(path))
    assert url.netloc == "cms.test"
    assert all(f"{read}/".startswith("/up/loads/") for read in readings(url.path)), url.path


@settings(max_examples=500)
@given(dangerous.map("".join))
@example("x/%252e%252e/%252e%252e/%252e%252e/a")
def test_redirect_that_does_not_climb_stays_below_its_prefix_however_a_server_reads_it(encoded: str) -> None:
    url = urlsplit(f"https://cms.test/up/loads/{encoded}")
    location = parse_sources("cms=https://cms.test/up/loads")["cms"]
    if not climbs(url.path):
        assert location.below_prefix(url) is not None
        assert all(f"{read}/".startswith("/up/loads/") for read in readings(url.path)), url.path


@given(st.text(max_size=30))
def test_path_in_a_body_is_refused_exactly_if_its_url_is(path: str) -> None:
    try:
        check_object_path(path)
    except BadAddressError:
        with pytest.raises(BadAddressError):
            parsed_path("/".join(quote(segment, safe="", errors="surrogatepass") for segment in path.split("/")))
    else:
        assert parsed_path("/".join(quote(segment, safe="") for segment in path.split("/"))) == path
