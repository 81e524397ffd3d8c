"""docs/benchmarks.md, written from a report: what is measured and how, every row, the other sides, and the command that repeats it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.bench.report import HEADS, MAX_BUSY_CORES, Report, Row, cells, figure
from tests.bench.sides import LIBVIPS
from tests.bench.targets import TARGETS, limit_text, target

NOT_MEASURED = "not measured"

_INTRODUCTION = """\
Written by `{command}` at the end of a run of {minutes:.0f} minutes, on {date}. No figure is written by hand. To repeat it, run the same
command in a checkout, on a machine with nothing else to do. `make bench-quick` takes less than a minute, and leaves out what takes long."""

_BUSY = """\
**The machine had other work at the same time.** Times on the clock and throughputs are those of that machine, and say little, so that
none of them has a verdict. CPU times are higher than on an idle machine, for all sides."""

_HOW = """\
Absolute times on a shared machine mean little. So each figure is taken beside its bare limit, which the benchmark starts itself: the least
that anyone has to do for the same result. All sides take turns in every round, and each round begins with another one. A target that is a
ratio is compared with the median of the rounds' ratios, any other with the median of Darkroom's figures.

- *Spread* is half the interquartile range of the rounds, or half of the whole range if there are fewer than four.
- There is *no verdict* where the interquartile range is larger than the distance from the target, where there was only one round, and
  about times on the clock and throughputs if the machine had other work.
- *CPU* is the user and system time of all processes of a side, read from `/proc`: the load of other programs hardly changes it. *p50* is a
  time on the clock, which it does change.
- A row without a target is reported because it explains another one."""

_CAVEATS = """\
- Clients, servers and libvips share the cores of one machine, and requests go over loopback.
- Darkroom's render processes and libvips run at niceness 19, other servers at that of the benchmark.
- Uploads prepare the originals of Darkroom: a rendition of one above 8 megapixels comes from its intermediate, while libvips and other
  servers decode the original. Only *libvips, same calls* reads the intermediate too. A row says what an upload costs.
- Each side has its own default quality and effort: times of different sides are only comparable together with the bytes and the score.
- The score is SSIMULACRA2 against the original, decoded as a whole and scaled down by libvips. It depends on the resampler too. A crop has
  none, because each side cuts out another part of the picture.
- Targets that were set in milliseconds are used as ratios to the bare limit that was measured with them."""


def page(report: Report, picture: str) -> str:
    """Return the page. `picture`: the file name of the chart."""
    found = {row.name: row for row in report.rows}
    bases = ((target.name, target.against or "–", target.basis) for target in TARGETS if target.basis)
    return "\n\n".join([
        "# Benchmarks",
        _INTRODUCTION.format(command=report.command, minutes=report.seconds / 60, date=report.finished[:10]),
        *([_BUSY] if report.busy_cores > MAX_BUSY_CORES else []),
        "\n".join(f"- {name}: {value}" for name, value in report.conditions.items()),
        f"![Each figure as a multiple of its target]({picture})",
        "## Targets",
        summary(report.rows),
        _HOW,
        _table(HEADS, (_target_cells(found.get(target.name), target.name) for target in TARGETS)),
        "## What a row is compared with",
        _table(("row", "bare limit", "what it is, or where the target comes from"), bases),
        *_sides(report),
        "## Details",
        "\n".join(f"- {row.name}: {row.note}" for row in report.rows if row.note),
        "## Caveats",
        _CAVEATS + "\n",
    ])  # fmt: skip


def summary(rows: Sequence[Row]) -> str:
    """Return how many targets are met, and which are not, as a sentence."""
    by_verdict = {verdict: [row.name for row in rows if row.verdict == verdict] for verdict in ("met", "missed", "no verdict")}
    judged = sum(map(len, by_verdict.values()))
    sentences = [f"{len(by_verdict['met'])} of {judged} targets are met."]
    if by_verdict["missed"]:
        sentences.append(f"Missed: {'; '.join(by_verdict['missed'])}.")
    if by_verdict["no verdict"]:
        sentences.append(f"Without a verdict: {'; '.join(by_verdict['no verdict'])}.")
    return " ".join(sentences)


def _target_cells(row: Row | None, name: str) -> Iterable[str]:
    return cells(row) if row is not None else (name, NOT_MEASURED, "–", "–", "–", limit_text(target(name)), "–")


def _sides(report: Report) -> list[str]:
    """Return the tables of the rows that several sides have in common: the figures of each, and the bytes and scores."""
    names = list(report.sides)
    compared = [row for row in report.rows if sum(name in names for name in row.sides) > 1]
    if not compared:
        return []
    rows = ([f"{row.name}, {row.unit}", *(_cell(row, name, names) for name in names)] for row in compared)
    judged = [row for row in compared if row.outputs]
    outputs = ([row.name.removesuffix(", p50"), *(_output(row, name) for name in names)] for row in judged)
    return [
        "## Sides",
        *(["The best server of each row is in bold."] if len(set(names) - set(LIBVIPS)) > 1 else []),
        "\n".join(f"- {name}: {settings}" for name, settings in report.sides.items()),
        _table(("", *names), rows),
        *(["Bytes, and SSIMULACRA2 where it was judged:", _table(("", *names), outputs)] if judged else []),
    ]


def _cell(row: Row, name: str, names: Sequence[str]) -> str:
    if name not in row.sides:
        return "–"
    text = figure(row.sides[name])
    servers = [row.sides[each] for each in names if each in row.sides and each not in LIBVIPS]
    best = min(servers) if row.at_most else max(servers)
    return f"**{text}**" if len(servers) > 1 and name not in LIBVIPS and row.sides[name] == best else text


def _output(row: Row, name: str) -> str:
    output = row.outputs.get(name)
    if output is None:
        return "–"
    return f"{output.bytes:,}" + ("" if output.score is None else f" / {output.score:.1f}")


def _table(heads: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in rows)])
