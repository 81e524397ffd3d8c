"""`make promises`: runs the tests of all promises, and writes what they measured into docs/promises.md and README.md."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from tests.promises.figures import Figure
from tests.promises.tables import ROOT, Measured, Outcome, pages, read_catalog, read_measured, write_measured

# Tests that measure milliseconds or throughput have the machine to themselves; the others mostly wait.
_RUNS: Sequence[Sequence[str]] = (["-m", "not exclusive", "--numprocesses", "4", "--dist", "worksteal"], ["-m", "exclusive"])


def main() -> None:
    """Run the tests and write the tables. Exits with 1 if a test failed; its promises are then not measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.promises", description=__doc__)
    parser.add_argument("--tables", action="store_true", help="run no test: only write the tables again, after a change of catalog.toml")
    parser.add_argument("--only", nargs="+", metavar="NUMBER", help="run only the tests of these promises, such as 2 and S1")
    arguments = parser.parse_args()
    catalog = read_catalog()
    failed = False
    if not arguments.tables:
        promises = [promise for promise in catalog.promises if not arguments.only or promise.number in arguments.only]
        tests = list(dict.fromkeys(test for promise in promises for test in promise.tests))
        others = {test for promise in catalog.promises for test in promise.tests} - set(tests)
        kept = {test: outcome for test, outcome in read_measured().tests.items() if test in others}
        passed, failed = run(tests)
        write_measured(Measured(len(os.sched_getaffinity(0)), kept | passed))
    for path, text in pages(catalog, read_measured()).items():
        path.write_text(text, "utf-8")
    sys.exit(failed)


def run(tests: Sequence[str]) -> tuple[dict[str, Outcome], bool]:
    """Run tests. Returns those that passed with what they measured, and whether any of them failed."""
    passed: dict[str, Outcome] = {}
    failed = False
    with tempfile.TemporaryDirectory(prefix="darkroom-promises-") as folder:
        for number, options in enumerate(_RUNS):
            report = Path(folder) / f"{number}.xml"
            command = [sys.executable, "-m", "pytest", *options, f"--junitxml={report}", *tests]
            status = subprocess.run(command, cwd=ROOT, env={**os.environ, "CHECK_SECONDS": "1"}, check=False).returncode
            failed |= status not in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
            passed |= outcomes(report.read_text("utf-8"))
    return passed, failed


def outcomes(report: str) -> dict[str, Outcome]:
    """Return the tests of a JUnit report that passed in every case, with their figures. A test that was skipped measured nothing."""
    today = dt.datetime.now(dt.UTC).date().isoformat()
    found: dict[str, Outcome] = {}
    broken: set[str] = set()
    for case in ET.fromstring(report).iter("testcase"):
        test = f"{case.attrib['classname'].replace('.', '/')}.py::{case.attrib['name'].partition('[')[0]}"
        outcome = found.setdefault(test, Outcome(0, [], today))
        outcome.cases += 1
        outcome.figures += [
            msgspec.json.decode(entry.attrib["value"], type=Figure) for entry in case.iter("property") if entry.attrib["name"] == "figure"
        ]
        if any(case.find(tag) is not None for tag in ("failure", "error", "skipped")):
            broken.add(test)
    return {test: outcome for test, outcome in found.items() if test not in broken}


if __name__ == "__main__":
    main()
