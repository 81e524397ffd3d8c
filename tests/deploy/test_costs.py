"""The table of costs in docs/operation.md."""

from __future__ import annotations

from pathlib import Path

from tests.deploy.costs import ROWS, Site, one_machine, table

OPERATION = (Path(__file__).parents[2] / "docs" / "operation.md").read_text("utf-8")


def test_costs_in_the_documentation_are_those_of_the_prices_and_measurements() -> None:
    assert table() in OPERATION
    assert len(ROWS) == 6


def test_costs_rest_on_the_figures_that_the_documentation_measured() -> None:
    assert "| `jxl,avif,webp,fallback`, the default | 4.2 s | 33 s | 3.4 MB |" in OPERATION
    quality = (Path(__file__).parents[2] / "docs" / "quality.md").read_text("utf-8")
    assert "| AVIF | 0.718 bpp, 18 ms | 0.619 bpp, 111 ms |" in quality


def test_costs_of_one_machine_without_photos_are_those_of_the_machine() -> None:
    assert round(one_machine(Site(0)), 2) == 10.39
