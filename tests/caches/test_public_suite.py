"""How results of the public suite of cache tests are compared and counted; `make test-caches` runs the suite itself."""

from __future__ import annotations

import json

import pytest

from tests.caches.public_suite import EXPECTED, Verdict, differences, passed, table

VERDICTS = {
    "a": Verdict("required", "pass"),
    "b": Verdict("required", "fail", "Response 2 comes from cache"),
    "c": Verdict("optimal", "optional_fail"),
    "d": Verdict("check", "yes"),
    "e": Verdict("check", "no"),
}
RESULTS = {name: verdict.result for name, verdict in VERDICTS.items()}


def test_results_that_are_the_expected_ones_have_no_differences() -> None:
    assert differences(RESULTS, VERDICTS) == []


@pytest.mark.parametrize(
    ("expected", "changed"),
    [
        ({**RESULTS, "a": "fail"}, ["a"]),
        ({**RESULTS, "b": "pass"}, ["b"]),
        ({**RESULTS, "gone": "pass"}, ["gone"]),
        ({name: result for name, result in RESULTS.items() if name != "c"}, ["c"]),
    ],
    ids=["better", "worse", "removed", "new"],
)
def test_any_change_of_a_result_is_a_difference(expected: dict[str, str], changed: list[str]) -> None:
    assert differences(expected, VERDICTS) == changed


def test_passed_tests_are_counted_by_kind() -> None:
    assert passed(VERDICTS) == {"required": (1, 2), "optimal": (0, 1), "check": (1, 2)}
    assert "1 / 2" in table({"edge": VERDICTS})


def test_stored_results_fail_only_the_test_that_asgi_has_no_messages_for() -> None:
    results: dict[str, str] = json.loads(EXPECTED.read_text())
    # docs/caching.md has the reasons for this one, and for the two that cannot be judged.
    assert {name for name, result in results.items() if result in {"fail", "harness_fail"}} == {"interim-not-cached"}
    assert results["headers-store-Set-Cookie"] == results["headers-store-Transfer-Encoding"] == "setup_fail"
