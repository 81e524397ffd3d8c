"""Media conditions: which texts are accepted, and that combined conditions hold exactly where they should."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadRequestError
from service.images.media_condition import all_of, excluding, parse_media_condition

FEATURES = ["(max-width: 40em)", "(orientation: portrait)", "(prefers-color-scheme: dark)"]
CONDITIONS = [
    *FEATURES,
    f"{FEATURES[0]} and {FEATURES[1]}",
    f"{FEATURES[0]} or {FEATURES[2]}",
    f"not {FEATURES[1]}",
    f"({FEATURES[0]} or {FEATURES[1]}) and {FEATURES[2]}",
]


def holds(condition: str, truth: dict[str, bool]) -> bool:
    """Return whether a media query holds, given the truth of each feature in it."""
    rest = condition.removeprefix("not all and ")
    text = rest
    for feature, is_true in truth.items():
        text = text.replace(feature, f"({is_true})")
    assert re.fullmatch(r"(?:True|False|not|and|or|[() ])*", text)
    value: bool = eval(text)
    return value if rest == condition else not value


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("(max-width: 40em)", "(max-width: 40em)"),
        (" (max-width:40em)\n and\t(orientation: portrait) ", "(max-width:40em) and (orientation: portrait)"),
        ("(width < 40em)", "(width < 40em)"),
        ("(400px <= width <= 50em)", "(400px <= width <= 50em)"),
        ("not (hover)", "not (hover)"),
        ("(min-aspect-ratio: 16/9)", "(min-aspect-ratio: 16/9)"),
        ("((hover) or (pointer: fine)) and (width > 60em)", "((hover) or (pointer: fine)) and (width > 60em)"),
        ("(max-width: calc(40em + 1px))", "(max-width: calc(40em + 1px))"),
        ("(max-width: min(40em, 50vh))", "(max-width: min(40em, 50vh))"),
    ],
)
def test_condition_is_returned_with_single_spaces(text: str, condition: str) -> None:
    assert parse_media_condition(text) == condition


@pytest.mark.parametrize(
    "text",
    ["", " ", "()", "( )", "max-width: 40em", "screen", "screen and (max-width: 40em)", "not screen", "(a), (b)", "(a) and", "and (a)",
     "(a) (b)", "(a) and (b) or (c)", "not (a) and (b)", "((a)", "(a))", ")(", "(a) AND NOT (b)", '(a: "b")', "(a)>", "(a;b)", "(a)\0",
     "(é)", "(a) and ()", "(a)} img {color: red", "<script>", "(a\\)", "only (a)"],
)  # fmt: skip
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        parse_media_condition(text)
    assert refused.value.expected
    assert refused.value.remedy


@given(st.text(st.sampled_from("()ab:, <>andornot\n"), max_size=40))
def test_any_text_is_refused_or_stays_as_it_is(text: str) -> None:
    try:
        condition = parse_media_condition(text)
    except BadRequestError:
        return
    assert parse_media_condition(condition) == condition


def test_conditions_of_features_are_combined_without_nesting_them() -> None:
    assert all_of(FEATURES[0], "") == FEATURES[0]
    assert all_of("", FEATURES[0]) == FEATURES[0]
    assert all_of(f"{FEATURES[0]} and {FEATURES[1]}", FEATURES[2]) == " and ".join(FEATURES)
    assert all_of("(a) or (b)", "(c)") == "((a) or (b)) and (c)"
    assert excluding("", ["(a)"]) == "not all and (a)"
    assert excluding("", ["(a) and (b)"]) == "not all and (a) and (b)"
    assert excluding("", ["(a)", "(b) or (c)"]) == "(not (a)) and (not ((b) or (c)))"
    assert excluding("(a)", []) == "(a)"
    assert excluding("(a) or (b)", ["(c)"]) == "((a) or (b)) and (not (c))"


@given(st.lists(st.sampled_from(CONDITIONS), min_size=2, max_size=2))
def test_combined_condition_holds_where_both_do(conditions: list[str]) -> None:
    first, second = conditions
    for values in product((False, True), repeat=len(FEATURES)):
        truth = dict(zip(FEATURES, values, strict=True))
        assert holds(all_of(first, second), truth) == (holds(first, truth) and holds(second, truth))
    parse_media_condition(all_of(first, second))


@given(st.lists(st.sampled_from(CONDITIONS), unique=True))
def test_exactly_one_of_conditions_that_exclude_the_earlier_ones_holds(conditions: list[str]) -> None:
    everything = [*conditions, ""]
    for values in product((False, True), repeat=len(FEATURES)):
        truth = dict(zip(FEATURES, values, strict=True))
        exclusive = [excluding(condition, everything[:index]) for index, condition in enumerate(everything)]
        held = [index for index, condition in enumerate(exclusive) if not condition or holds(condition, truth)]
        # The first that holds, or the rest.
        assert held == [next((index for index, condition in enumerate(conditions) if holds(condition, truth)), len(conditions))]
