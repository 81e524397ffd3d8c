"""The report of a run: one row for each figure, as a table and as JSON."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import median

import msgspec

from tests.bench.measure import Comparison


class Row(msgspec.Struct, frozen=True):
    """One figure and its target, if it has one.

    `ours` and `bare` are medians in `unit`. `measured`, which is the ratio of the two or `ours`, is compared with the target:
    it may be at most the target, or at least if `at_most` is false. `ratios` are those of the individual rounds.
    """

    name: str
    unit: str
    ours: float
    bare: float | None
    measured: float
    target: float | None = None
    at_most: bool = True
    ratios: list[float] = []
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; `None` if there is none."""
        if self.target is None:
            return None
        return self.measured <= self.target if self.at_most else self.measured >= self.target


class Report(msgspec.Struct, frozen=True):
    """A whole run: when it ended, its conditions, its rows, and which of them met their targets."""

    finished: str
    quick: bool
    conditions: dict[str, str]
    rows: list[Row]
    met: dict[str, bool | None]


def comparison_row(name: str, unit: str, figures: Comparison, target: float | None, *, at_most: bool = True, note: str = "") -> Row:
    """Return the row of a comparison; its target applies to the median of the rounds' ratios."""
    return Row(
        name,
        unit,
        ours=median(figures.ours),
        bare=median(figures.bare),
        measured=figures.ratio,
        target=target,
        at_most=at_most,
        ratios=figures.ratios,
        note=note,
    )


def make_report(rows: Sequence[Row], *, quick: bool, conditions: dict[str, str]) -> Report:
    """Return the report of a run, with the versions of the libraries among its conditions."""
    versions = {name: version(name) for name in ("darkroom", "granian", "litestar", "pyvips", "pyvips-binary", "uvloop")}
    all_conditions = {"python": platform.python_version(), **versions, **conditions}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Report(now, quick, all_conditions, list(rows), {row.name: row.met for row in rows})


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text. The last column is the lowest and the highest ratio of a round; a note follows below its row."""
    head = ("", "ours", "bare", "measured", "target", "met", "rounds")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = []
    for number, line in enumerate(lines):
        first, *figures = line
        text.append(
            "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(figures, widths[1:], strict=True))]).rstrip()
        )
        if number and rows[number - 1].note:
            text.append(f"    {rows[number - 1].note}")
    return "\n".join(text)


def _cells(row: Row) -> tuple[str, ...]:
    met = {True: "yes", False: "NO", None: "-"}[row.met]
    sign = "≤" if row.at_most else "≥"
    return (
        row.name,
        f"{_figure(row.ours)} {row.unit}",
        "-" if row.bare is None else _figure(row.bare),
        _figure(row.measured, ratio=bool(row.ratios)),
        "-" if row.target is None else f"{sign} {row.target:g}",
        met,
        f"{min(row.ratios):.2f}–{max(row.ratios):.2f}" if row.ratios else "",
    )


def _figure(number: float, *, ratio: bool = False) -> str:
    if ratio:
        return f"{number:.3f}"
    return f"{number:,.0f}" if abs(number) >= 1_000 or number == int(number) else f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"
