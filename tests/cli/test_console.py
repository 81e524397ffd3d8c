"""Problems and other text as a terminal shows them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.cli.client.errors import Rejected, client_problem, format_rejected
from service.cli.console import escape, format_problem


@given(st.text())
def test_escape_of_any_text_is_printable_and_leaves_printable_text_unchanged(text: str) -> None:
    assert escape(text).isprintable()
    if text.isprintable():
        assert escape(text) == text


def test_escape_of_line_breaks_and_escape_sequences_shows_their_codes() -> None:
    assert escape("a\nb\x1b[2Jc \N{CJK UNIFIED IDEOGRAPH-732B}") == "a\\nb\\x1b[2Jc \N{CJK UNIFIED IDEOGRAPH-732B}"
    assert escape("latin\udce9") == "latin\\udce9"


def test_format_problem_without_some_parts_leaves_out_their_lines() -> None:
    problem = client_problem("It cannot be.", expected="that", received="this", remedy="Do it.")
    assert format_problem(problem) == "It cannot be.\n  expected  that\n  received  this\n  remedy    Do it."
    assert format_problem(client_problem("It cannot be.")) == "It cannot be."


def test_format_rejected_of_files_with_the_same_reason_groups_them() -> None:
    empty = client_problem("It is empty.", remedy="Fill it.")
    large = [client_problem("It is large.", expected="at most 5", received=f"{size}") for size in (6, 7)]
    rejected = [Rejected("b", large[0]), Rejected("z", empty), Rejected("a", large[1]), Rejected("y", empty)]
    assert format_rejected(rejected) == (
        "  It is empty.\n    remedy    Fill it.\n    y\n    z\n  It is large.\n    expected  at most 5\n    a: 7\n    b: 6"
    )
