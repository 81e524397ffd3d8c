"""The soak in short, and its verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.soak import chart
from tests.soak.load import Result, run_load
from tests.soak.memory import Sample
from tests.soak.phases import DISTURBANCES, Disturbance, Need, Phase, Schedule, rounds
from tests.soak.report import MEBIBYTE, complaints, memory, page, requests_table, summary, unexpected
from tests.soak.system import running_system
from tests.soak.visitors import Measured
from tests.support.renditions import distinct_transform

RUN_SECONDS = 60.0


@pytest.mark.long
def test_soak_of_a_minute_ends_and_has_no_unexpected_response(tmp_path: Path) -> None:
    with running_system(tmp_path / "data") as system:
        result = asyncio.run(run_load(system, rounds(RUN_SECONDS)))
        assert unexpected(result) == []
        assert result.killed > 0
        assert result.replaced["crashed"] + result.replaced["not started"] >= result.killed
        assert result.samples[-1].at > RUN_SECONDS - 5
        assert {result.schedule.disturbance(request.at) for request in result.measured} == set(DISTURBANCES)
        outcomes = {request.outcome for request in result.measured}
        assert outcomes >= {
            "200",
            "201",
            "304",
            "206",
            "400",
            "410 gone",
            "409 upload-used",
            "413",
            "422 too-many-pixels",
            "502 source-failed",
        }
        assert system.stop() == []


def result_of(measured: Sequence[Measured] = (), *, grows_by: float = 0.0) -> Result:
    """Return the result of ten minutes in which memory grew evenly by a share of what it was at first."""
    seconds = 600
    samples = [Sample(at, int(100 * MEBIBYTE * (1 + grows_by * at / seconds)), 50 * MEBIBYTE, 60) for at in range(seconds)]
    return Result(Schedule(rounds(seconds)), measured, samples, 0, {})


def request(outcome: str = "200", *, wanted: bool = True, expected: bool = True) -> Measured:
    return Measured("hit", 1.0, 0.01, outcome, wanted, expected, 100)


def test_verdict_of_expected_responses_and_steady_memory_has_no_complaint() -> None:
    result = result_of([request(), request("503 overloaded", wanted=False)], grows_by=0.05)
    assert complaints(result) == []
    assert memory(result).growth == pytest.approx(1.02, abs=0.005)
    assert any("1 that the disturbances explain" in line for line in summary(result))
    assert "| hit | 2 | 200: 1, 503 overloaded \\*: 1 | 0 |" in requests_table(result)


def test_verdict_of_one_unexpected_response_names_it() -> None:
    (complaint,) = complaints(result_of([request(), request("500 internal-error", wanted=False, expected=False)]))
    assert complaint.startswith("1.0 s, hit: 500 internal-error")


def test_verdict_of_memory_that_grows_beyond_its_bound_names_both_figures() -> None:
    (complaint,) = complaints(result_of(grows_by=0.2))
    assert complaint.startswith("memory is 169 MiB at the end")


@pytest.mark.parametrize(
    ("disturbance", "need", "outcome"),
    [
        ("killed renders", "renders", "500 render-failed"),
        ("store outage", "store", "503 storage-unavailable"),
        ("failing store", "store", "503 storage-unavailable"),
        ("overload", "renders", "503 overloaded"),
    ],
)
def test_disturbance_permits_its_failures_until_the_server_must_have_recovered(disturbance: Disturbance, need: Need, outcome: str) -> None:
    schedule = Schedule([Phase("quiet", 20), Phase(disturbance, 10), Phase("quiet", 60)])
    needs = [need]
    assert schedule.permitted(needs, 18, 19) == set()
    assert schedule.permitted(needs, 19, 21) == {outcome}
    assert schedule.permitted(needs, 31, 32) == {outcome}
    assert schedule.permitted(needs, 60, 61) == set()
    assert schedule.permitted([], 21, 22) == set()


def test_page_and_chart_have_the_figures(tmp_path: Path) -> None:
    result = result_of([request(), request("500 internal-error", wanted=False, expected=False)], grows_by=0.05)
    text = page(result, complaints(result), "soak.svg")
    assert "![Memory, latencies and outcomes over time](soak.svg)" in text
    assert "- 1.0 s, hit: 500 internal-error" in text
    drawn = ET.fromstring(chart.draw(result))
    labels = {element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert labels >= {"10 min", "kills", "outage", "overload", f"{memory(result).at_the_end / MEBIBYTE:.0f}"}


def test_renditions_of_a_long_run_are_valid_and_distinct() -> None:
    assert len({distinct_transform(640, number) for number in range(10_000)}) == 10_000


def test_rounds_are_alike_and_take_the_time_together() -> None:
    phases = rounds(600)
    third = len(phases) // 3
    assert phases[:third] == phases[third : 2 * third] == phases[2 * third :]
    assert sum(phase.seconds for phase in phases) == pytest.approx(600)
    assert {phase.disturbance for phase in rounds(600, ["overload"])} == {"quiet", "overload"}
