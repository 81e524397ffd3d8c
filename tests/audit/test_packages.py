"""How a report of pip-audit is read. `make audit` makes the reports."""

from __future__ import annotations

from typing import Any

import pytest

from tests.audit.__main__ import summarize, worst

CLEAN = {"name": "anyio", "version": "4.16.0", "vulns": []}
VULNERABLE = {"name": "pillow", "version": "12.1.0", "vulns": [{"id": "CVE-2026-42308", "fix_versions": ["12.2.0"]}]}
UNKNOWN = {"name": "granian", "skip_reason": "Dependency not found on PyPI and could not be audited: granian (2.8.7)"}


@pytest.mark.parametrize(
    ("packages", "status", "line"),
    [
        ([CLEAN], 0, "x.lock: 1 packages audited, 0 with vulnerabilities"),
        ([CLEAN, VULNERABLE], 1, "x.lock: pillow 12.1.0: CVE-2026-42308, fixed in 12.2.0"),
        ([CLEAN, UNKNOWN], 2, "x.lock: NOT AUDITED: 1 of 2 packages, which the service did not know"),
        ([UNKNOWN, VULNERABLE], 1, "x.lock: pillow 12.1.0: CVE-2026-42308, fixed in 12.2.0"),
    ],
    ids=["clean", "vulnerable", "unknown", "both"],
)
def test_report_says_what_is_vulnerable_and_what_was_not_audited(packages: list[dict[str, Any]], status: int, line: str) -> None:
    found, lines = summarize("x.lock", {"dependencies": packages, "fixes": []})
    assert found == status
    assert line in lines


@pytest.mark.parametrize(("statuses", "result"), [([0, 0], 0), ([0, 2], 2), ([2, 1], 1), ([1, 0], 1), ([], 0)])
def test_vulnerability_is_a_worse_result_than_one_that_was_not_looked_for(statuses: list[int], result: int) -> None:
    assert worst(statuses) == result
