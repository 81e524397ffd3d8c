"""Signatures in texts for logs: none is left, whole or in most of its characters, and digests stay readable."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.urls.signature_mask import mask_path, mask_signatures

DIGEST = "ibxxblxna3ywub3vp54kkar5asszqvg2"
BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
signatures = st.text(BASE32, min_size=26, max_size=26)


@pytest.mark.parametrize(
    ("path", "masked"),
    [
        (f"/i/v3/{DIGEST}/width=640/{'s' * 26}.webp", f"/i/v3/{DIGEST}/width=640/***.webp"),
        (f"/i/v3/{DIGEST}/width=640/-.webp", f"/i/v3/{DIGEST}/width=640/-.webp"),
        (f"/i/v3/{DIGEST}/width=640/{'s' * 26}/panda.webp", f"/i/v3/{DIGEST}/width=640/***/panda.webp"),
        (f"/i/v3/{DIGEST}/width=640/abc.webp", f"/i/v3/{DIGEST}/width=640/***.webp"),
        (f"/i/v3/{DIGEST}/overlay={DIGEST},width=640/-.jpg", f"/i/v3/{DIGEST}/overlay={DIGEST},width=640/-.jpg"),
        (f"/i/v3/{DIGEST}/{'s' * 26}.webp", f"/i/v3/{DIGEST}/***.webp"),
        (f"/from/cms/2026/a.jpg/width=640/{'s' * 26}.webp", "/from/cms/2026/a.jpg/width=640/***.webp"),
        ("/from/cms/a.jpg%3Ftoken=123/b/width=640/-.webp", "/from/cms/a.jpg?***/width=640/-.webp"),
        (f"/v1/uploads/1790000000.500.any.{'i' * 16}.{'s' * 26}", f"/v1/uploads/1790000000.500.any.{'i' * 16}.***"),
        (f"/v1/uploads/1790000000.500.any.{'i' * 16}.short", f"/v1/uploads/1790000000.500.any.{'i' * 16}.***"),
        (f"/v1/images/{DIGEST}", f"/v1/images/{DIGEST}"),
        ("/docs/transforms.md", "/docs/transforms.md"),
    ],
)
def test_path_is_masked_where_its_signature_is(path: str, masked: str) -> None:
    assert mask_path(path) == masked


@given(
    signature=signatures,
    template=st.sampled_from([
        f"/i/v3/{DIGEST}/width=640/%s.webp", f"/i/v3/{DIGEST}/width=640/%s/name.webp", "/from/cms/a/width=640/%s.webp", "/I/V3//%s", "//%s",
        "/v1/uploads/1.1.any.i.%s", "/%s?x", "/i/%s", "/i/v3/x/%s1/8%s.webp",
    ]),
    encodings=st.integers(0, 2),
    in_capitals=st.booleans(),
)  # fmt: skip
def test_signature_in_any_path_and_spelling_is_masked(signature: str, template: str, encodings: int, in_capitals: bool) -> None:
    spelled = signature.upper() if in_capitals else signature
    for _ in range(encodings):
        spelled = quote("".join(f"%{ord(one):02x}" for one in spelled)) if spelled == signature else quote(spelled)
    shown = mask_path(template.replace("%s", spelled)).lower()
    assert signature not in shown
    # No more of it than a beginning or an end that a guess could not complete.
    assert all(len(run) < 20 or run == DIGEST for run in re.findall(r"[a-z2-7]+", shown))


@given(signature=signatures, before=st.sampled_from(["", "see /x/", "'", "GET "]), after=st.sampled_from(["", ".webp", "'", " failed"]))
def test_signature_as_a_word_of_a_text_is_masked(signature: str, before: str, after: str) -> None:
    assert mask_signatures(f"{before}{signature}{after}") == f"{before}***{after}"


def test_digest_and_checksum_in_a_text_are_not_masked() -> None:
    text = f"original {DIGEST} {'0f1e' * 16}"
    assert mask_signatures(text) == text
