"""The outcome: one row for each figure, as a table and as JSON."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import median

import msgspec

from tests.bench.measure import Compared


class Row(msgspec.Struct, frozen=True):
    """One figure beside its target. `ours` and `bare` are medians in `unit`; `measured`, a ratio or `ours`, is held against the target.

    Without a target the figure is only told; `ratios` are those of the single rounds.
    """

    what: str
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
        """Whether the target is reached, `None` without one."""
        if self.target is None:
            return None
        return self.measured <= self.target if self.at_most else self.measured >= self.target


class Told(msgspec.Struct, frozen=True):
    """All of a run: under what conditions, and the rows."""

    started: str
    quick: bool
    conditions: dict[str, str]
    rows: list[Row]
    met: dict[str, bool | None]


def compared(what: str, unit: str, figures: Compared, target: float | None, *, at_most: bool = True, note: str = "") -> Row:
    """Return the row of a comparison: the rounds' ratios decide."""
    return Row(
        what,
        unit,
        ours=median(figures.ours),
        bare=median(figures.bare),
        measured=figures.ratio,
        target=target,
        at_most=at_most,
        ratios=figures.ratios,
        note=note,
    )


def told(rows: Sequence[Row], *, quick: bool, conditions: dict[str, str]) -> Told:
    """Return the run's outcome with the versions that it was measured with."""
    versions = {name: version(name) for name in ("darkroom", "granian", "litestar", "pyvips", "pyvips-binary", "uvloop")}
    everything = {"python": platform.python_version(), **versions, **conditions}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Told(now, quick, everything, list(rows), {row.what: row.met for row in rows})


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text: a column each for the figures, the spread of the rounds' ratios (lowest to highest) and the note below."""
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
        row.what,
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
