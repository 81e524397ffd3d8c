"""URLs made absolute, and problems made fit for a terminal."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.cli.client.manifest import absolute
from service.cli.client.problems import NotTaken, problem, shown, told, told_together
from service.images.info import ImageInfo
from service.images.transform import Transform
from service.urls.signing import Signer, UrlBuilder
from tests.support.renders import LIMITS

DIGEST = "k5x7q2" + "a" * 26
INFO = ImageInfo("jpeg", 1600, 1200, 1, alpha=False, needs_full_decode=False)
BASE = "https://img.example.com/pics"


def document(public_url: str, alt: str = "") -> dict[str, Any]:
    """Return what a page needs of an image, as a server tells it that has this public URL."""
    markup = UrlBuilder(Signer([b"0" * 32]), public_url, LIMITS).markup(DIGEST, INFO, Transform(), alt=alt)
    return {
        "src": markup.src,
        "sources": [
            {
                "type": source.type,
                "srcset": source.srcset,
                "renditions": [{"width": link.width, "height": link.height, "url": link.url} for link in source.renditions],
            }
            for source in markup.sources
        ],
        "picture": markup.picture,
    }


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=40))
def test_absolute_document_is_that_of_a_server_with_a_public_url(alt: str) -> None:
    assert absolute(document("", alt), BASE) == document(BASE, alt)


def test_absolute_document_of_a_server_with_a_public_url_stays_as_it_is() -> None:
    assert absolute(document(BASE), "http://127.0.0.1:8080") == document(BASE)


@given(st.text())
def test_shown_text_is_printable_and_keeps_what_was(text: str) -> None:
    assert shown(text).isprintable()
    if text.isprintable():
        assert shown(text) == text


def test_shown_text_has_no_line_of_its_own_and_no_escape_sequence() -> None:
    assert shown("a\nb\x1b[2Jc \N{CJK UNIFIED IDEOGRAPH-732B}") == "a\\nb\\x1b[2Jc \N{CJK UNIFIED IDEOGRAPH-732B}"
    assert shown("latin\udce9") == "latin\\udce9"


def test_problem_is_told_in_lines_and_leaves_out_what_is_not_known() -> None:
    found = problem("It cannot be.", expected="that", received="this", remedy="Do it.")
    assert told(found) == "It cannot be.\n  expected  that\n  received  this\n  remedy    Do it."
    assert told(problem("It cannot be.")) == "It cannot be."


def test_files_with_one_reason_are_told_together() -> None:
    empty = problem("It is empty.", remedy="Fill it.")
    large = [problem("It is large.", expected="at most 5", received=f"{size}") for size in (6, 7)]
    told_of = [NotTaken("b", large[0]), NotTaken("z", empty), NotTaken("a", large[1]), NotTaken("y", empty)]
    assert told_together(told_of) == (
        "  It is empty.\n    remedy    Fill it.\n    y\n    z\n  It is large.\n    expected  at most 5\n    a: 7\n    b: 6"
    )
