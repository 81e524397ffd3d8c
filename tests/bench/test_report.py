"""Verdicts, tables, the page and the chart of a benchmark, from figures that nobody has to measure."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.bench import page, report, report_chart
from tests.bench.measure import alternate_all, spread
from tests.bench.report import Output, Report, Row, judge, row
from tests.bench.sides import DARKROOM, SAME_CALLS, SIDES, WHOLE_REDUCTION
from tests.bench.targets import BARE_ASGI, TARGETS, Target, target

BENCHMARKS = Path(__file__).parents[2] / "docs" / "benchmarks.md"

AT_MOST = Target("a", "ms", 1.10, "bare")
AT_LEAST = Target("b", "/s", 0.90, "bare", at_most=False)
COUNTED = Target("c", "", 1, once=True)

HIT = "hit, CPU per request"
THROUGHPUT = "renders per second, against the same calls"


def make_report(*rows: Row) -> Report:
    sides = {DARKROOM: "with default settings", SAME_CALLS: "bare", "other": "of somebody else"}
    return Report(
        "2026-11-29T12:00:00+00:00",
        "make bench",
        125.0,
        quick=False,
        busy_cores=0.1,
        conditions={"cores": "2"},
        sides=sides,
        rows=list(rows),
    )


def columns(text: str, name: str) -> list[str]:
    """Return the cells of the first row of a page that has this name."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(
    ("rounds", "of", "verdict"),
    [
        ([1.00, 1.01, 1.02, 1.03, 1.04], AT_MOST, "met"),
        ([1.20, 1.21, 1.22, 1.23, 1.24], AT_MOST, "missed"),
        ([0.95, 0.96, 0.97, 0.98, 0.99], AT_LEAST, "met"),
        ([0.80, 0.81, 0.82, 0.83, 0.84], AT_LEAST, "missed"),
        ([0.90, 1.00, 1.05, 1.20, 1.30], AT_MOST, "no verdict"),
        ([0.90, 1.00, 1.15, 1.25, 1.40], AT_MOST, "no verdict"),
        ([0.50, 1.01, 1.02, 1.03, 9.00], AT_MOST, "met"),
        ([1.00, 1.00], AT_MOST, "met"),
        ([0.90, 1.04], AT_MOST, "no verdict"),
        ([0.20], AT_MOST, "no verdict"),
        ([1.0], COUNTED, "met"),
        ([2.0], COUNTED, "missed"),
        ([5.0, 6.0], Target("d", "ms"), "reported"),
    ],
)
def test_verdict_is_given_only_where_the_spread_is_no_larger_than_the_distance(rounds: list[float], of: Target, verdict: str) -> None:
    assert judge(rounds, of) == verdict


def test_spread_of_many_rounds_ignores_a_round_that_was_disturbed() -> None:
    assert spread([1, 2, 3, 4, 5]) == 2
    assert spread([1, 2, 3, 4, 500]) == 2


def test_spread_of_few_rounds_is_the_whole_range() -> None:
    assert spread([1, 3, 9]) == 8
    assert spread([4]) == 0


def test_every_round_measures_all_sides_and_begins_with_another_one() -> None:
    order: list[str] = []

    def measure(name: str) -> int:
        order.append(name)
        return len(order)

    figures = alternate_all({name: lambda name=name: measure(name) for name in "abc"}, 3)  # type: ignore[misc]
    assert order == [*"abc", *"bca", *"cab"]
    assert figures == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}


def test_row_compares_ratios_of_the_same_round() -> None:
    # The machine was three times as slow in the second round.
    found = row(HIT, {DARKROOM: [10.0, 31.5, 10.2], BARE_ASGI: [10.0, 30.0, 10.0]})
    assert found.rounds == pytest.approx([1.0, 1.05, 1.02])
    assert found.measured == pytest.approx(1.02)
    assert (found.ours, found.bare, found.verdict) == (10.2, 10.0, "met")


def test_row_whose_bare_limit_was_left_out_has_no_verdict_about_another_unit() -> None:
    found = row("cold → WebP 640, p50", {DARKROOM: [80.0, 81.0]})
    assert (found.limit, found.bare, found.verdict) == (None, None, "reported")


def test_report_of_a_busy_machine_has_no_verdict_about_times_on_the_clock() -> None:
    rows = [
        row("cold → JPEG 640, p50", {DARKROOM: [20.0, 20.0], WHOLE_REDUCTION: [10.0, 10.0]}),
        row("first view of a warmed rendition, p50", {DARKROOM: [1.0, 1.0]}),
        row(THROUGHPUT, {DARKROOM: [20.0, 20.0], SAME_CALLS: [10.0, 10.0]}),
        row(HIT, {DARKROOM: [20.0, 20.0], BARE_ASGI: [10.0, 10.0]}),
        row("peak of one 100 Mpixel render", {DARKROOM: [80.0]}),
    ]

    def verdicts(busy_cores: float) -> list[str]:
        made = report.make_report(rows, command="make bench", seconds=1, quick=False, busy_cores=busy_cores, conditions={}, sides={})
        return [each.verdict for each in made.rows]

    assert verdicts(0.1) == ["missed", "met", "met", "missed", "met"]
    assert verdicts(1.5) == ["no verdict", "no verdict", "no verdict", "missed", "met"]


def test_names_of_targets_and_sides_are_distinct_and_every_bare_limit_is_named() -> None:
    assert len({each.name for each in TARGETS}) == len(TARGETS)
    assert len({side.name for side in SIDES}) == len(SIDES)
    assert all(each.against == "" or len(each.against) > 3 for each in TARGETS)


def test_page_has_a_row_for_each_target_and_says_which_were_not_measured() -> None:
    text = page.page(make_report(row(HIT, {DARKROOM: [10.0, 10.1], BARE_ASGI: [10.0, 10.0]})), "chart.svg")
    assert columns(text, HIT) == [HIT, "10.1 µs", "10 µs", "1.005", "± 0.005", "≤ 1.1", "met"]
    for each in TARGETS:
        if each.name != HIT:
            assert columns(text, each.name)[1] == page.NOT_MEASURED
    assert "1 of 1 targets are met." in text
    assert "![Each figure as a multiple of its target](chart.svg)" in text


def test_page_lists_what_was_missed_and_what_has_no_verdict() -> None:
    missed = row(HIT, {DARKROOM: [20.0, 20.0], BARE_ASGI: [10.0, 10.0]})
    unclear = row(THROUGHPUT, {DARKROOM: [10.0, 5.0], SAME_CALLS: [10.0, 10.0]})
    assert page.summary([missed, unclear]) == f"0 of 2 targets are met. Missed: {HIT}. Without a verdict: {THROUGHPUT}."


def test_page_shows_the_best_server_in_bold_and_never_libvips() -> None:
    figures = {DARKROOM: [20.0, 20.0], SAME_CALLS: [10.0, 10.0], "other": [30.0, 30.0]}
    text = page.page(make_report(row("cold → JPEG 640, p50", {**figures, WHOLE_REDUCTION: [9.0, 9.0]})), "chart.svg")
    assert columns(text, "cold → JPEG 640, p50, ms") == ["cold → JPEG 640, p50, ms", "**20**", "10", "30"]
    more = page.page(make_report(row("renders per second, 4 clients", {**figures, WHOLE_REDUCTION: [9.0, 9.0]})), "chart.svg")
    assert columns(more, "renders per second, 4 clients, /s")[1:] == ["20", "10", "**30**"]


def test_page_shows_bytes_next_to_their_score() -> None:
    outputs = {DARKROOM: Output(12_345, 71.26), "other": Output(20_000, None)}
    figures = {DARKROOM: [20.0, 20.0], WHOLE_REDUCTION: [19.0, 19.0], "other": [30.0, 30.0]}
    text = page.page(make_report(row("cold → JPEG 640, p50", figures, outputs=outputs)), "chart.svg")
    assert columns(text, "cold → JPEG 640") == ["cold → JPEG 640", "12,345 / 71.3", "–", "20,000"]


def test_table_of_the_terminal_has_each_row_with_its_note() -> None:
    text = report.table([row(HIT, {DARKROOM: [10.0, 10.1], BARE_ASGI: [10.0, 10.0]}, "20 kB")])
    assert text.splitlines()[1].split() == [*HIT.split(), "10.1", "µs", "10", "µs", "1.005", "±", "0.005", "≤", "1.1", "met"]
    assert text.splitlines()[2] == "    20 kB"


def test_chart_places_met_rows_on_the_left_of_their_target_and_missed_ones_on_the_right() -> None:
    met = row(HIT, {DARKROOM: [10.0, 10.2], BARE_ASGI: [10.0, 10.0]})
    missed = row(THROUGHPUT, {DARKROOM: [5.0, 5.2], SAME_CALLS: [10.0, 10.0]})
    low, middle, high = report_chart.relative(met)
    assert low < middle < high < 1
    low, middle, high = report_chart.relative(missed)
    assert 1 < low < middle < high
    root = ET.fromstring(report_chart.draw([met, missed]))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert HIT in texts
    assert THROUGHPUT in texts


def test_benchmarks_page_has_a_row_for_each_target_and_its_limit() -> None:
    text = BENCHMARKS.read_text("utf-8")
    for each in TARGETS:
        limit = columns(text, each.name)[5]
        assert limit == "–" or re.match(rf"[≤≥] {re.escape(f'{target(each.name).limit:g}')}", limit)
