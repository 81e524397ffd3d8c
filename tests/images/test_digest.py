"""Digests, and the base32 that they are written in."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from service.images.digest import base32, digest_from_sha256, is_digest

VECTORS: dict[str, list[Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "addresses.json").read_text("ascii"))


@pytest.mark.parametrize("vector", VECTORS["digests"], ids=lambda vector: vector["digest"])
def test_digest_from_the_sha256_of_a_vector_is_its_digest(vector: dict[str, Any]) -> None:
    assert digest_from_sha256(hashlib.sha256(bytes.fromhex(vector["original"])).digest()) == vector["digest"]
    assert is_digest(vector["digest"])


@pytest.mark.parametrize(
    ("data", "text"), [(b"", ""), (b"f", "my"), (b"fo", "mzxq"), (b"foo", "mzxw6"), (b"foob", "mzxw6yq"), (b"fooba", "mzxw6ytb")]
)
def test_base32_of_the_vectors_of_rfc_4648_is_lower_case_without_padding(data: bytes, text: str) -> None:
    assert base32(data) == text


@pytest.mark.parametrize("text", ["", "a" * 31, "a" * 33, "A" * 32, "1" * 32, "a" * 31 + "\n", "a" * 32 + "\n", "../" + "a" * 29, "ä" * 32])
def test_is_digest_of_other_text_is_false(text: str) -> None:
    assert not is_digest(text)
