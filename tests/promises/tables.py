"""The tables of promises in docs/promises.md and README.md, written from catalog.toml and from the figures of the last run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import msgspec

from tests.promises.figures import Figure, worst

ROOT = Path(__file__).parents[2]
_MEASURED = Path(__file__).with_name("measured.json")
_START, _END = "<!-- Written by `make promises`. -->\n", "<!-- End of what `make promises` writes. -->\n"

NOT_MEASURED = "not measured"


class Promise(msgspec.Struct):
    """A promise: its number, its subject, the figure that is promised, and the IDs in pytest of the tests that fail if it is broken."""

    number: str
    promise: str
    figure: str
    tests: list[str]


class Section(msgspec.Struct):
    """A section of the page."""

    title: str
    promise: list[Promise]


class Catalog(msgspec.Struct):
    """All promises."""

    section: list[Section]

    @property
    def promises(self) -> list[Promise]:
        """The promises of all sections."""
        return [promise for section in self.section for promise in section.promise]


class Outcome(msgspec.Struct):
    """A test that passed with all its parameters: the number of its cases, the figures that it recorded, and the date of the run."""

    cases: int
    figures: list[Figure] = []
    date: str = ""


class Measured(msgspec.Struct):
    """The last run of each test that passed, and the number of cores of the machine."""

    cores: int = 0
    tests: dict[str, Outcome] = {}


def read_catalog() -> Catalog:
    """Return the promises."""
    return msgspec.toml.decode(Path(__file__).with_name("catalog.toml").read_bytes(), type=Catalog)


def read_measured() -> Measured:
    """Return the last run of the tests."""
    return msgspec.json.decode(_MEASURED.read_bytes(), type=Measured)


def write_measured(measured: Measured) -> None:
    """Replace the last run of the tests."""
    _MEASURED.write_bytes(msgspec.json.format(msgspec.json.encode(measured, order="deterministic")) + b"\n")


def measured_figure(promise: Promise, measured: Measured) -> str:
    """Return what the tests of a promise measured; all of them must have passed when they were last run."""
    outcomes = [measured.tests[test] for test in promise.tests if test in measured.tests]
    if len(outcomes) < len(promise.tests):
        return NOT_MEASURED
    figures = worst(figure for outcome in outcomes for figure in outcome.figures)
    cases = sum(outcome.cases for outcome in outcomes)
    return "; ".join(map(str, figures)) or (f"holds in {cases:,} cases" if cases > 1 else "holds")


def pages(catalog: Catalog, measured: Measured) -> dict[Path, str]:
    """Return the text of the pages with the tables that belong into them."""
    texts = {ROOT / "docs/promises.md": _full(catalog, measured), ROOT / "README.md": _short(catalog, measured)}
    return {path: _replaced(path.read_text("utf-8"), text) for path, text in texts.items()}


def _replaced(page: str, text: str) -> str:
    before, start, rest = page.partition(_START)
    _, end, after = rest.partition(_END)
    if not end:
        raise ValueError(f"expected a page with the lines {_START!r} and {_END!r}")
    return f"{before}{start}\n{text}\n{end}{after}"


def _full(catalog: Catalog, measured: Measured) -> str:
    lines = [_run(measured)]
    for section in catalog.section:
        lines += ["", f"## {section.title}", "", "| # | promise | promised | measured | tests |", "|---|---|---|---|---|"]
        for promise in section.promise:
            lines.append(
                f"| {promise.number} | {promise.promise} | {promise.figure} | {measured_figure(promise, measured)} "
                f"| {'; '.join(_by_file(promise.tests))} |"
            )
    return "\n".join(lines) + "\n"


def _by_file(tests: list[str]) -> Iterator[str]:
    for file, group in groupby((test.split("::") for test in tests), key=lambda parts: parts[0]):
        yield f"`{file}`: {', '.join(f'`{name}`' for _, name in group)}"


def _short(catalog: Catalog, measured: Measured) -> str:
    lines = [_run(measured), "", "| # | promise | promised | measured |", "|---|---|---|---|"]
    lines += [
        f"| {promise.number} | {promise.promise} | {promise.figure} | {measured_figure(promise, measured)} |"
        for promise in catalog.promises
        if promise.number.isdecimal()
    ]
    return "\n".join(lines) + "\n"


def _run(measured: Measured) -> str:
    dates = sorted({outcome.date for outcome in measured.tests.values()})
    if not dates:
        return "Nothing has been measured yet."
    period = f"on {dates[0]}" if len(dates) == 1 else f"from {dates[0]} to {dates[-1]}"
    return f"`make promises` measured these figures {period}, on a machine with {measured.cores} cores."
