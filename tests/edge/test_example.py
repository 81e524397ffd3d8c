"""The example in the docstring of `edge` runs and prints what it says."""

from __future__ import annotations

import doctest

import edge


def test_example_in_the_docstring_of_the_edge_runs() -> None:
    outcome = doctest.testmod(edge)
    assert outcome.attempted > 5
    assert outcome.failed == 0
