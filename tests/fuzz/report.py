"""Findings, with the inputs that led to them, and the summary of a run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from tests.fuzz.cases import ApiCase, Case, ImageCase, UrlCase, WireCase
from tests.fuzz.client import Outcome

# A run stops after this many findings, as more of them add little.
MAX_FINDINGS = 60
_MAX_SAVED_BYTES = 32 << 20
_COSTLIEST = 8


class Finding(msgspec.Struct, frozen=True):
    """A wrong behavior of the server: the number and the label of the input that led to it, and the reason."""

    number: int
    label: str
    reason: str


class Cost(msgspec.Struct, frozen=True, order=True):
    """The CPU time in seconds that render processes used for an input."""

    cpu_seconds: float
    number: int
    label: str


class Report(msgspec.Struct):
    """The inputs, responses and findings of a run."""

    seed: int
    seconds: float = 0.0
    inputs: Counter[str] = msgspec.field(default_factory=Counter)
    statuses: Counter[str] = msgspec.field(default_factory=Counter)
    canaries: int = 0
    findings: list[Finding] = []
    costliest: list[Cost] = []
    notes: list[str] = []

    def count(self, case: Case) -> None:
        """Count an input."""
        self.inputs[type(case).__name__.removesuffix("Case").lower()] += 1

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.statuses[f"{outcome.kind} {outcome.status or 'none'}{' ' + outcome.problem if outcome.status == 503 else ''}"] += 1

    def add_cost(self, cost: Cost) -> None:
        """Record the cost of an input if it is one of the costliest."""
        self.costliest = sorted([*self.costliest, cost], reverse=True)[:_COSTLIEST]

    @property
    def total(self) -> int:
        """The number of inputs."""
        return self.inputs.total()

    def text(self) -> str:
        """Return the summary as text."""
        lines = [f"{self.total} inputs in {self.seconds:.0f} s with seed {self.seed}, good images checked {self.canaries} times"]
        lines += [f"  {name}: {count}" for name, count in sorted(self.inputs.items())]
        lines += ["responses:", *(f"  {name}: {count}" for name, count in sorted(self.statuses.items()))]
        lines += [
            "costliest for render processes:",
            *(f"  {cost.cpu_seconds:.2f} s of CPU time: input {cost.number}, {cost.label}" for cost in self.costliest),
        ]
        lines += self.notes
        lines += [
            f"{len(self.findings)} findings",
            *(f"  input {finding.number}, {finding.label}\n    {finding.reason}" for finding in self.findings),
        ]
        return "\n".join(lines)


class FindingsFolder:
    """The directory to which the inputs that led to findings are written, up to a total size."""

    def __init__(self, folder: Path) -> None:
        """Use a directory, which is created for the first finding."""
        self._folder = folder
        self._remaining_bytes = _MAX_SAVED_BYTES

    def add(self, finding: Finding, case: Case | None) -> None:
        """Write the finding, and the input if there is one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        body = b"" if case is None else input_bytes(case)
        with (self._folder / "findings.txt").open("a", encoding="utf-8") as file:
            file.write(f"input {finding.number}, {finding.label}\n  {finding.reason}\n")
        if 0 < len(body) <= self._remaining_bytes:
            self._remaining_bytes -= len(body)
            (self._folder / f"{finding.number}.bin").write_bytes(body)


def input_bytes(case: Case) -> bytes:
    """Return the bytes of an input: the file, the path, the request."""
    match case:
        case ImageCase():
            return case.body
        case UrlCase():
            return case.path
        case ApiCase():
            return f"{case.method} {case.path} {case.headers}\n".encode() + case.body
        case WireCase():
            return case.request.body
