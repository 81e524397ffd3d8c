"""The tables of promises are those of the catalog and of the last `make promises`, and every test that they name exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.promises.__main__ import outcomes
from tests.promises.figures import Figure, worst
from tests.promises.tables import NOT_MEASURED, ROOT, Measured, Outcome, Promise, measured_figure, pages, read_catalog, read_measured

CATALOG = read_catalog()

# Run by a pytest of its own, with the fixture of tests/conftest.py.
SAMPLE = """
import pytest

@pytest.mark.parametrize("milliseconds", [1.26, 3.14])
def test_measured(record_figure, milliseconds):
    record_figure("{:.1f} ms", milliseconds)
    record_figure("{:.0f} % served", 100 - milliseconds, lowest=True)

def test_holds(): pass

@pytest.mark.parametrize("is_right", [True, False])
def test_broken(record_figure, is_right):
    record_figure("{:.1f} ms", 2)
    assert is_right

def test_skipped(): pytest.skip("a component is missing")
"""


def test_catalog_has_all_26_promises_in_order_and_what_the_sandbox_holds() -> None:
    numbers = [promise.number for promise in CATALOG.promises]
    assert numbers[:26] == [str(number) for number in range(1, 27)]
    assert numbers[26:] == ["S1", "S2", "S3", "S4"]
    assert all(promise.promise and promise.figure and promise.tests for promise in CATALOG.promises)


@pytest.mark.parametrize("test", sorted({test for promise in CATALOG.promises for test in promise.tests}))
def test_test_that_a_promise_names_exists(test: str) -> None:
    file, name = test.split("::")
    assert re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE), f"{file} has no {name}"


def test_pages_have_the_tables_of_the_catalog_and_of_the_last_run() -> None:
    for path, text in pages(CATALOG, read_measured()).items():
        assert path.read_text("utf-8") == text, f"{path.name} differs: run python -m tests.promises --tables"


def test_figures_of_a_run_are_those_of_the_tests_that_passed_in_every_case(tmp_path: Path) -> None:
    sample, report = tmp_path / "test_sample.py", tmp_path / "report.xml"
    sample.write_text(SAMPLE)
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command = [sys.executable, "-m", "pytest", *options, str(sample)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 1
    found = {test.partition("::")[2]: outcome for test, outcome in outcomes(report.read_text("utf-8")).items()}
    assert found.keys() == {"test_measured", "test_holds"}
    assert (found["test_measured"].cases, found["test_holds"]) == (2, Outcome(1, [], found["test_holds"].date))
    promise = Promise("1", "a promise", "a figure", ["t::test_measured", "t::test_holds"])
    run = Measured(2, {f"t::{name}": outcome for name, outcome in found.items()})
    assert measured_figure(promise, run) == "3.1 ms; 97 % served"
    promise.tests.append("t::test_broken")
    assert measured_figure(promise, run) == NOT_MEASURED


def test_worst_figure_is_the_highest_unless_the_lowest_is_worse() -> None:
    waits = [Figure("{:.0f} s", 1), Figure("{:.0f} s", 3), Figure("{:.0f} s", 2)]
    shares = [Figure("{:.0f} % right", value, lowest=True) for value in (99, 97, 98)]
    assert [str(figure) for figure in worst([*waits, *shares])] == ["3 s", "97 % right"]


@pytest.mark.parametrize(("cases", "text"), [(1, "holds"), (1_200, "holds in 1,200 cases")])
def test_promise_whose_tests_measure_nothing_holds_in_so_many_cases(cases: int, text: str) -> None:
    promise = Promise("1", "a promise", "a figure", ["t::test_a"])
    assert measured_figure(promise, Measured(2, {"t::test_a": Outcome(cases)})) == text


def test_links_of_the_security_policy_have_existing_targets() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#([^)]*))?\)", (ROOT / "SECURITY.md").read_text("utf-8"))
    assert links
    for target, anchor in links:
        page = (ROOT / target).read_text("utf-8")
        titles = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", page, re.MULTILINE)}
        assert not anchor or anchor in titles, f"{target}#{anchor}"
