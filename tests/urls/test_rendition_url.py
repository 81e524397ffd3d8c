import json
import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from service.errors import BadAddressError, BadSignatureError
from service.images.formats import FORMAT_OF_EXTENSION
from service.images.info import ImageInfo
from service.images.name import image_name
from service.images.transform import PIPELINE_VERSION, Transform
from service.urls.rendition_url import AUTO, MAX_TRANSFORM_CHARACTERS, RenditionUrl, parse_rendition_url
from service.urls.signing import UNSIGNED, Signer, UrlBuilder
from service.urls.source_url import SourceUrl, parse_source_url
from service.urls.unsigned import UnsignedTransforms, unsigned_transforms
from tests.support.renders import LIMITS
from tests.vectors import make

VECTORS: dict[str, list[Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "addresses.json").read_text("ascii"))

OPEN = unsigned_transforms((), open_ladder=True)

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))

BASE32 = string.ascii_lowercase + "234567"
digests = st.text(BASE32, min_size=32, max_size=32)
extensions = st.sampled_from((*FORMAT_OF_EXTENSION, AUTO))
transform_texts = st.text(string.ascii_letters + string.digits + ".:_=,-", min_size=1, max_size=80)
image_names = st.text(st.characters(codec="utf-8"), max_size=100).map(image_name)
urls = st.builds(RenditionUrl, st.integers(1, 999_999), digests, transform_texts, extensions, image_names)

ADDRESS = RenditionUrl(1, "k5x7q2" + "a" * 26, "width=640,height=480,fit=cover,gravity=focal:0.3:0.6", "avif")
SIGNED = Signer([KEY]).sign(ADDRESS)
INFO = ImageInfo("jpeg", 4032, 3024, 1, alpha=False, needs_full_decode=False)


def parse(path: bytes) -> tuple[RenditionUrl | SourceUrl, str]:
    return parse_source_url(path) if path.startswith(b"/from/") else parse_rendition_url(path)


def refused(path: bytes, signer: Signer | None = None) -> type[Exception] | None:
    """Return the type of the error with which a path is refused, `None` if it is accepted; other errors are raised."""
    try:
        (signer or Signer([KEY])).verify(*parse(path))
    except (BadAddressError, BadSignatureError) as error:
        return type(error)
    return None


def is_served(path: bytes) -> bool:
    """Return whether a path is accepted, and not redirected to another spelling."""
    if refused(path) is not None:
        return False
    url, signature = parse_rendition_url(path)
    return url.path(signature).encode("ascii") == path


def test_vectors_file_is_the_output_of_its_generator() -> None:
    assert make.FILE.read_text("ascii") == make.text()


def keys_of(vector: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(VECTORS["keys"][place]) for place in vector["keys"]]


def test_vectors_file_covers_names_every_extension_a_key_rotation_and_the_open_ladder() -> None:
    named = [vector for vector in VECTORS["accepted"] if vector["name"]]
    assert len(named) >= 1_000
    assert {vector["extension"] for vector in named} == {*FORMAT_OF_EXTENSION, AUTO}
    assert {vector["signed_by"] for vector in named} == {0, 1, None}
    assert {vector["signed_by"] for vector in VECTORS["accepted"]} == {0, 1, 2, None}


def test_urls_of_the_vectors_are_built_signed_parsed_and_accepted() -> None:
    for vector in VECTORS["accepted"]:
        keys, path = keys_of(vector), vector["path"]
        address = RenditionUrl(vector["version"], vector["digest"], vector["transform"], vector["extension"], vector["name"])
        assert address.path(vector["signature"]) == path
        assert parse_rendition_url(path.encode("ascii")) == (address, vector["signature"])
        assert refused(path.encode("ascii"), Signer(keys, OPEN)) is None
        if vector["signed_by"] is None:
            assert vector["signature"] == UNSIGNED
        else:
            assert address.signing_payload == path.replace(f"/{vector['signature']}", "")
            assert Signer(keys[vector["signed_by"] :]).sign(address) == path


def test_urls_of_the_vectors_in_sources_are_built_signed_and_parsed() -> None:
    for vector in VECTORS["in_sources"]:
        keys, path = keys_of(vector), vector["path"]
        address = SourceUrl(vector["source"], vector["object_path"], vector["transform"], vector["extension"])
        assert address.path(vector["signature"]) == path
        assert parse_source_url(path.encode("ascii")) == (address, vector["signature"])
        Signer(keys, OPEN).verify(address, vector["signature"])
        if vector["signed_by"] is not None:
            assert address.signing_payload == path.replace(f"/{vector['signature']}", "")
            assert Signer(keys[vector["signed_by"] :]).sign(address) == path


@pytest.mark.parametrize("vector", VECTORS["redirected"], ids=lambda vector: vector["why"])
def test_path_of_a_vector_in_another_spelling_is_that_of_the_url_with_the_canonical_one(vector: dict[str, Any]) -> None:
    url, signature = parse(vector["path"].encode("ascii"))
    assert url.path(signature) == vector["location"] != vector["path"]


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["why"][:60])
def test_path_of_a_vector_with_a_fault_is_refused(vector: dict[str, Any]) -> None:
    error = refused(vector["path"].encode("ascii"), Signer(keys_of(vector)))
    assert error is {"bad-address": BadAddressError, "bad-signature": BadSignatureError}[vector["error"]]


@given(urls)
def test_url_signed_and_parsed_is_the_same_url(address: RenditionUrl) -> None:
    path = Signer([KEY]).sign(address)
    parsed, signature = parse_rendition_url(path.encode("ascii"))
    assert parsed == address
    assert parsed.path(signature) == path
    assert is_served(path.encode("ascii"))


@given(urls, st.data())
def test_signed_path_with_one_byte_changed_is_refused(address: RenditionUrl, data: st.DataObject) -> None:
    path = bytearray(Signer([KEY]).sign(address).encode("ascii"))
    at = data.draw(st.integers(0, len(path) - 1))
    path[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != path[at]))
    assert not is_served(bytes(path))


@pytest.mark.parametrize("at", range(len(SIGNED)))
def test_signed_path_with_a_flipped_bit_is_refused(at: int) -> None:
    for bit in range(8):
        path = bytearray(SIGNED.encode("ascii"))
        path[at] ^= 1 << bit
        assert not is_served(bytes(path)), bytes(path)


@given(urls, st.data())
def test_signed_path_cut_short_is_refused(address: RenditionUrl, data: st.DataObject) -> None:
    path = Signer([KEY]).sign(address).encode("ascii")
    start = data.draw(st.integers(0, len(path) - 1))
    end = data.draw(st.integers(start, len(path)))
    assume((start, end) != (0, len(path)))
    assert not is_served(path[start:end])


@given(urls, st.data())
def test_signed_path_with_a_character_percent_encoded_is_refused(address: RenditionUrl, data: st.DataObject) -> None:
    path = Signer([KEY]).sign(address)
    at = data.draw(st.integers(0, len(path) - 1))
    case = data.draw(st.sampled_from(("02x", "02X")))
    encoded = f"{path[:at]}%{ord(path[at]):{case}}{path[at + 1 :]}".encode("ascii")
    assert not is_served(encoded)
    in_name = address.name and path.rindex("/") < at < path.rindex(".")
    # In a name, it is another spelling of the same character, or what it stands for has percent-encodings itself.
    assert in_name or refused(encoded) is BadAddressError


@given(urls, st.data())
def test_signed_path_with_a_letter_in_the_other_case_is_refused(address: RenditionUrl, data: st.DataObject) -> None:
    path = Signer([KEY]).sign(address)
    at = data.draw(st.sampled_from([index for index, character in enumerate(path) if character.isalpha()]))
    assert not is_served((path[:at] + path[at].swapcase() + path[at + 1 :]).encode("ascii"))


@given(urls, st.data())
def test_signed_path_with_a_character_inserted_is_refused(address: RenditionUrl, data: st.DataObject) -> None:
    path = Signer([KEY]).sign(address).encode("ascii")
    at = data.draw(st.integers(0, len(path)))
    inserted = data.draw(
        st.one_of(st.sampled_from((b"/", b"//", b"%2F", b"\0", b"\r\n", b"?", b"#", b".", b" ")), st.binary(min_size=1, max_size=3))
    )
    assert not is_served(path[:at] + inserted + path[at:])


@given(urls, st.randoms(use_true_random=False))
def test_signed_path_with_its_parts_reordered_is_refused(address: RenditionUrl, chance: Any) -> None:
    parts = re.split("([/,.])", Signer([KEY]).sign(address))
    shuffled = list(parts)
    chance.shuffle(shuffled)
    assume(shuffled != parts)
    assert not is_served("".join(shuffled).encode("ascii"))


@given(urls, urls)
def test_signature_of_another_url_is_refused(address: RenditionUrl, other: RenditionUrl) -> None:
    assume(address != other)
    signature = parse_rendition_url(Signer([KEY]).sign(other).encode("ascii"))[1]
    assert refused(address.path(signature).encode("ascii")) is BadSignatureError


@given(st.one_of(st.binary(max_size=300), st.from_regex(rb"/i/v[0-9]{1,7}/[a-z2-7]{30,34}/[!-~]{0,40}/[a-z2-7-]{1,28}\.[a-z]{1,9}")))
@example(b"")
@example(b"/i/v1/" + b"a" * 32 + b"/full/" + b"a" * 26 + b".jpg\n")
@example(b"/i/v1/" + b"a" * 32 + b"/full/" + b"\xc3\xa4" * 13 + b".jpg")
@example("/i/v\N{ARABIC-INDIC DIGIT ONE}/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/full/-.jpg".encode())
def test_parse_of_any_bytes_raises_nothing_but_its_own_errors(path: bytes) -> None:
    assert not is_served(path)


@pytest.mark.parametrize("extension", ["giff", "bmp", "jpeg", "svg", "heic", "avi", "a", "webpp", "autoo"])
def test_path_with_an_extension_that_no_rendition_has_is_refused_with_the_list(extension: str) -> None:
    with pytest.raises(BadAddressError) as caught:
        parse_rendition_url(ADDRESS.path("a" * 26).replace(".avif", f".{extension}").encode("ascii"))
    assert caught.value.expected == "jxl, avif, webp, jpg, png, gif, auto"
    assert caught.value.received == extension
    assert caught.value.remedy


def test_path_with_the_longest_transform_is_accepted_and_a_longer_one_refused() -> None:
    longest = RenditionUrl(1, ADDRESS.digest, "a" * MAX_TRANSFORM_CHARACTERS, "png")
    assert refused(Signer([KEY]).sign(longest).encode("ascii")) is None
    longer = RenditionUrl(1, ADDRESS.digest, "a" * (MAX_TRANSFORM_CHARACTERS + 1), "png")
    assert refused(Signer([KEY]).sign(longer).encode("ascii")) is BadAddressError


def test_path_that_is_no_rendition_url_is_refused_with_the_grammar_and_without_control_characters() -> None:
    with pytest.raises(BadAddressError) as caught:
        parse_rendition_url(b"/i/v1/\r\nSet-Cookie: a=b/\xff" + b"x" * 5_000)
    problem = caught.value.problem()
    assert (problem.status, problem.expected is not None, problem.remedy is not None) == (400, True, True)
    assert problem.received is not None
    assert problem.received.startswith("/i/v1/\\r\\nSet-Cookie: a=b/\\xff")
    assert len(problem.received) < 200


@given(urls, st.lists(st.binary(min_size=16, max_size=64), min_size=1, max_size=5, unique=True), st.data())
def test_signature_of_every_configured_key_is_accepted(address: RenditionUrl, keys: list[bytes], data: st.DataObject) -> None:
    older = data.draw(st.sampled_from(keys))
    # HMAC pads a short key with zeros (RFC 2104 §2): keys that differ only in those are the same key.
    assert refused(Signer([older]).sign(address).encode("ascii"), Signer(keys)) is None
    others = [key for key in keys if key.rstrip(b"\0") != older.rstrip(b"\0")]
    if others:
        assert refused(Signer([older]).sign(address).encode("ascii"), Signer(others)) is BadSignatureError


@given(urls)
def test_signer_with_several_keys_signs_with_the_newest(address: RenditionUrl) -> None:
    assert Signer([KEY, OTHER_KEY]).sign(address) == Signer([KEY]).sign(address)
    assert Signer([OTHER_KEY, KEY]).sign(address) == Signer([OTHER_KEY]).sign(address)


def test_signer_without_a_key_raises_value_error() -> None:
    with pytest.raises(ValueError, match="key"):
        Signer([])


def test_unsigned_transform_without_a_signature_is_accepted_only_in_its_canonical_form() -> None:
    signer = Signer([KEY], UnsignedTransforms(listed=frozenset({"width=640", "full"})))
    for extension in (*FORMAT_OF_EXTENSION, AUTO):
        assert refused(f"/i/v1/{ADDRESS.digest}/width=640/{UNSIGNED}.{extension}".encode("ascii"), signer) is None
        assert refused(f"/i/v1/{ADDRESS.digest}/full/{UNSIGNED}.{extension}".encode("ascii"), signer) is None
    for transform in ("width=641", "width=0640", "width=640.0", "width=640,fit=inside", "WIDTH=640"):
        assert refused(f"/i/v1/{ADDRESS.digest}/{transform}/{UNSIGNED}.jpg".encode("ascii"), signer) is BadSignatureError


def test_unsigned_transform_with_a_wrong_signature_is_refused() -> None:
    signer = Signer([KEY], UnsignedTransforms(listed=frozenset({"width=640"})))
    assert refused(f"/i/v1/{ADDRESS.digest}/width=640/{'a' * 26}.jpg".encode("ascii"), signer) is BadSignatureError
    assert refused(f"/i/v1/{ADDRESS.digest}/width=640/--.jpg".encode("ascii"), signer) is BadAddressError


@given(urls)
def test_other_transform_without_a_signature_is_refused(address: RenditionUrl) -> None:
    assert refused(address.path(UNSIGNED).encode("ascii")) is BadSignatureError


def test_pipeline_version_is_in_new_urls() -> None:
    assert UrlBuilder(Signer([KEY]), "", LIMITS).url(ADDRESS.digest, INFO, Transform(), "webp").startswith(f"/i/v{PIPELINE_VERSION}/")
