"""The report of a run: one row for each target, its verdict, and all of them as a table and as JSON."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import median
from typing import Literal, TypeAlias

import msgspec

from tests.bench.measure import Comparison, spread
from tests.bench.sides import DARKROOM
from tests.bench.targets import Target, limit_text, target

# "no verdict": the spread of the rounds is larger than the distance from the target, or the figure is that of a busy machine.
# "reported": there is no target.
Verdict: TypeAlias = Literal["met", "missed", "no verdict", "reported"]

# With more other work than this on average, a machine is busy.
MAX_BUSY_CORES = 0.3

_LIBRARIES = ("darkroom", "granian", "litestar", "pyvips", "pyvips-binary", "uvloop")


class Output(msgspec.Struct, frozen=True):
    """The file of a rendition: its bytes, and its SSIMULACRA2, `None` if it was not judged."""

    bytes: int
    score: float | None


class Row(msgspec.Struct, frozen=True):
    """One figure.

    name, unit: those of its target. sides: the median of the rounds of each side. rounds: Darkroom's figures, divided by those of `against`
    if it `is_ratio`. measured: the median of `rounds`, which is compared with `limit`. spread: of `rounds`.
    outputs: of the sides that made a rendition.
    """

    name: str
    unit: str
    sides: dict[str, float]
    rounds: list[float]
    measured: float
    spread: float
    against: str
    is_ratio: bool
    limit: float | None
    at_most: bool
    verdict: Verdict
    note: str = ""
    outputs: dict[str, Output] = {}

    @property
    def ours(self) -> float:
        """Darkroom's figure."""
        return self.sides[DARKROOM]

    @property
    def bare(self) -> float | None:
        """The figure of the bare limit, `None` if there is none."""
        return self.sides.get(self.against)


class Report(msgspec.Struct, frozen=True):
    """A whole run.

    finished: when it ended, in UTC. command: the command that repeats it. seconds: how long it took. quick: whether rounds were few and
    rows left out. busy_cores: how many cores other programs used on average. conditions: of the machine, and the versions.
    sides: the settings of each side.
    """

    finished: str
    command: str
    seconds: float
    quick: bool
    busy_cores: float
    conditions: dict[str, str]
    sides: dict[str, str]
    rows: list[Row]


def judge(rounds: Sequence[float], of: Target) -> Verdict:
    """Return whether the figures of all rounds reach a target."""
    if of.limit is None:
        return "reported"
    distance = median(rounds) - of.limit
    if len(rounds) == 1 and not of.once:
        return "no verdict"
    if spread(rounds) > abs(distance):
        return "no verdict"
    return "met" if distance == 0 or (distance < 0) == of.at_most else "missed"


def row(name: str, figures: Mapping[str, Sequence[float]], note: str = "", outputs: Mapping[str, Output] | None = None) -> Row:
    """Return the row of a target.

    name: of the target. figures: of each side, Darkroom's among them, one for each round.
    """
    of = target(name)
    if of.against not in figures:
        # Its bare limit was left out, so that there is nothing to compare a ratio with.
        of = msgspec.structs.replace(of, against="", is_ratio=False, limit=None if of.against and of.is_ratio else of.limit)
    is_ratio = of.is_ratio and bool(of.against)
    ours = list(figures[DARKROOM])
    rounds = [mine / bare for mine, bare in zip(ours, figures[of.against], strict=True)] if is_ratio else ours
    return Row(
        name=of.name,
        unit=of.unit,
        sides={side: median(found) for side, found in figures.items()},
        rounds=rounds,
        measured=median(rounds),
        spread=spread(rounds),
        against=of.against,
        is_ratio=is_ratio,
        limit=of.limit,
        at_most=of.at_most,
        verdict=judge(rounds, of),
        note=note,
        outputs=dict(outputs or {}),
    )


def comparison_row(name: str, figures: Comparison, note: str = "") -> Row:
    """Return the row of a target from the figures of Darkroom and of its bare limit."""
    return row(name, {DARKROOM: figures.ours, target(name).against: figures.bare}, note)


def make_report(
    rows: Sequence[Row],
    *,
    command: str,
    seconds: float,
    quick: bool,
    busy_cores: float,
    conditions: Mapping[str, str],
    sides: Mapping[str, str],
) -> Report:
    """Return the report of a run, with the versions of the libraries among its conditions."""
    versions = {name: version(name) for name in _LIBRARIES}
    all_conditions = {"Python": platform.python_version(), **versions, **conditions}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    found = [_on_busy_machine(each) for each in rows] if busy_cores > MAX_BUSY_CORES else list(rows)
    return Report(now, command, seconds, quick, busy_cores, all_conditions, dict(sides), found)


def _on_busy_machine(of: Row) -> Row:
    """Return a row without its verdict if it is about times on the clock."""
    is_judged = of.verdict in {"met", "missed"} and target(of.name).is_on_clock
    return msgspec.structs.replace(of, verdict="no verdict") if is_judged else of


def cells(of: Row) -> tuple[str, ...]:
    """Return what the tables say about a row: its name, ours, bare, the figure that is compared, spread, target and verdict."""
    return (
        of.name,
        f"{figure(of.ours)} {of.unit}".rstrip(),
        "–" if of.bare is None else f"{figure(of.bare)} {of.unit}",
        f"{of.measured:.3f}" if of.is_ratio else "–",
        "–" if len(of.rounds) == 1 else f"± {of.spread / 2:.3f}" if of.is_ratio else f"± {figure(of.spread / 2)}",
        limit_text(target(of.name)),
        of.verdict,
    )


HEADS = ("", "Darkroom", "bare", "ratio", "spread", "target", "verdict")


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text. A note follows below its row."""
    lines = [HEADS, *(cells(each) for each in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
    text = []
    for number, line in enumerate(lines):
        first, *figures = line
        text.append(
            "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(figures, widths[1:], strict=True))]).rstrip()
        )
        if number and rows[number - 1].note:
            text.append(f"    {rows[number - 1].note}")
    return "\n".join(text)


def figure(number: float) -> str:
    """Return a figure with three digits, or as many as it has before the point."""
    return f"{number:,.0f}" if abs(number) >= 100 or number == int(number) else f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"
