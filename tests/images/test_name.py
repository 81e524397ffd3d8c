"""Names of images: what a file name becomes, and what a name is."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.images.name import (
    MAX_IMAGE_NAME_BYTES,
    MAX_IMAGE_NAME_CHARACTERS,
    ascii_name,
    image_name,
    is_image_name,
    name_of_file,
    normalized_image_name,
)

# Also lone surrogates, which are in file names that are not UTF-8, and more marks than a name has room for.
texts = st.one_of(st.text(max_size=300), st.text(st.characters(categories=("L", "M", "Nd", "Pd", "Cf")), max_size=300))


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("panda.jpg", "panda"),
        ("IMG_1234.HEIC", "IMG_1234"),
        ("My holiday (2).jpeg", "My-holiday-2"),
        ("Größe.png", "Größe"),
        ("Gro\u0308ße.png", "Größe"),
        ("写真 1.webp", "写真-1"),
        ("हिन्दी.jpg", "हिन्दी"),
        ("archive.tar.gz", "archive-tar"),
        ("version 1.2", "version-1-2"),
        ("a - b -- c.jpg", "a-b-c"),
        ("_DSC0001.jpg", "_DSC0001"),
        ("-x-.jpg", "x"),
        (".jpg", "jpg"),
        ("jpg", "jpg"),
        ("photos/2024/boat.jpg", "boat"),
        ("C:\\Users\\a\\boat.jpg", "boat"),
        ("../../etc/passwd", "passwd"),
        ("boat\u202egpj.exe", "boat-gpj"),
        ("a\r\nSet-Cookie: b=c.jpg", "a-Set-Cookie-b-c"),
        ("❤\ufe0f.jpg", ""),
        ("…", ""),
        ("/", ""),
        ("", ""),
        ("\ud800.jpg", ""),
        ("\u0301e.jpg", "e"),
        ("😀boat😀.png", "boat"),
        ("a" * 100 + ".jpg", "a" * 80),
        ("象" * 100, "象" * 80),
        ("\U00020000" * 100, "\U00020000" * 60),
        ("a" * 79 + "-b.jpg", "a" * 79),
        # A letter is never cut off from its marks.
        ("a" * 79 + "x\u0304.jpg", "a" * 79),
        ("x" + "\u0304" * 200, ""),
    ],
)
def test_name_of_a_file(file_name: str, name: str) -> None:
    assert name_of_file(file_name) == name


@given(texts)
@example("a" + "\u0301\u0323" * 200)
@example("\u1100\u1161\u11a8" * 80)
@example("\u1f82" * 80)
@example("\ufb2c" * 80)
def test_any_text_becomes_a_name_or_nothing_and_a_name_becomes_itself(text: str) -> None:
    for name in (image_name(text), name_of_file(text)):
        assert name == "" or is_image_name(name)
        assert len(name) <= MAX_IMAGE_NAME_CHARACTERS
        assert len(name.encode()) <= MAX_IMAGE_NAME_BYTES
        assert image_name(name) == name


@given(texts)
def test_name_in_any_normalization_form_is_the_same_name(text: str) -> None:
    name = image_name(text)
    assert normalized_image_name(name) == (name or None)
    assert normalized_image_name(unicodedata.normalize("NFD", name)) == (name or None)


@given(texts)
def test_ascii_name_has_only_characters_that_every_client_and_file_system_reads(text: str) -> None:
    assert re.fullmatch("[A-Za-z0-9_-]+", ascii_name(image_name(text)))


@pytest.mark.parametrize(
    ("name", "ascii_form"),
    [("Größe", "Groe"), ("İstanbul", "Istanbul"), ("写真", "image"), ("写真-1", "1"), ("a-b", "a-b"), ("-", "image")],
)
def test_ascii_name_is_the_name_without_accents(name: str, ascii_form: str) -> None:
    assert ascii_name(name) == ascii_form


@pytest.mark.parametrize("name", ["", ".", "..", "a.b", "a/b", "a\\b", "a b", "a\0", "a\n", "e\u0301", "\u0301a", "-\u0301"])
def test_other_text_is_no_name(name: str) -> None:
    assert not is_image_name(name)


@pytest.mark.parametrize("name", ["\u202ea", "a\u200d", "\ud800", "😀", "½", "a\u00a0", "a" * 81, "\U00020000" * 61, "\u2126"])
def test_text_of_invisible_or_other_characters_or_too_long_is_no_name(name: str) -> None:
    assert not is_image_name(name)


def test_text_that_is_far_too_long_is_no_name_and_is_not_normalized() -> None:
    assert normalized_image_name("a" + "\u0301\u0323" * 1_000_000) is None
