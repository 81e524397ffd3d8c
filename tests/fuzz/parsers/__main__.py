"""`python -m tests.fuzz.parsers [--seconds N | --runs N] [--target NAME …]` fuzzes the parsers. Its exit code is 1 if it found anything."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import click

from tests.fuzz.parsers.targets import TARGETS

# Loading the instrumented modules takes some seconds, and the last input may take a minute.
_GRACE_SECONDS = 180

# Bounds a hang of a run that has a number of inputs, on however busy a machine.
_MAX_SECONDS = 900


class Outcome(NamedTuple):
    """What one target did: inputs that ran, edges of the code that were covered, inputs that led to further ones, and any finding."""

    inputs: int
    edges: int
    corpus: int
    finding: str


class Limit(NamedTuple):
    """How much one target does: an amount of `seconds` or of `runs`, and after how many seconds it is ended whatever it does."""

    unit: str
    amount: int
    kill_after: int


def main() -> None:
    """Run the targets one after another, print what each did, and exit with 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.parsers", description="Fuzz the parsers, guided by the coverage.")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--seconds", type=float, default=300, help="how long to run in all, in seconds")
    amount.add_argument(
        "--runs", type=int, default=None, help="how many inputs each target gets; the same seed gives the same inputs on every machine"
    )
    parser.add_argument("--target", nargs="+", choices=sorted(TARGETS), default=list(TARGETS), help="run only these targets")
    parser.add_argument("--seed", type=int, default=None, help="the number that begins the random numbers; random by default")
    parser.add_argument(
        "--findings", type=Path, default=Path("fuzz-findings/parsers"), help="directory for the inputs that led to findings"
    )
    arguments = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        sys.exit("atheris is not installed: it has wheels for CPython 3.11 to 3.13 on Linux with x86-64.")
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    arguments.findings.mkdir(parents=True, exist_ok=True)
    seconds = max(1, round(arguments.seconds / len(arguments.target)))
    limit = Limit("seconds", seconds, seconds + _GRACE_SECONDS)
    if arguments.runs is not None:
        limit = Limit("runs", arguments.runs, _MAX_SECONDS)
    found = False
    for name in arguments.target:
        outcome = _run(name, limit, seed, arguments.findings)
        click.echo(
            f"{name:22} {outcome.inputs:>9,} inputs {outcome.edges:>6,} edges {outcome.corpus:>5,} in the corpus  {outcome.finding or 'ok'}"
        )
        found |= bool(outcome.finding)
    sys.exit(1 if found else 0)


def _run(name: str, limit: Limit, seed: int, findings: Path) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="darkroom-fuzz-") as corpus:
        command = [sys.executable, "-m", "tests.fuzz.parsers.engine", name, corpus, str(findings), limit.unit, str(limit.amount), str(seed)]
        # The order of sets, on which branches and so the next inputs depend, is the same in every run.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        try:
            done = subprocess.run(command, capture_output=True, check=False, env=environment, timeout=limit.kill_after)
            output, code = (done.stdout + done.stderr).decode("utf-8", "replace"), done.returncode
        except subprocess.TimeoutExpired as error:
            output, code = (error.stderr or b"").decode("utf-8", "replace"), 1
        (findings / f"{name}.log").write_text(output)
        return Outcome(
            _last_number(r"stat::number_of_executed_units:\s*(\d+)", output),
            _last_number(r"\bcov: (\d+)", output),
            _last_number(r"\bcorp: (\d+)", output),
            _finding(output) if code else "",
        )


def _last_number(pattern: str, output: str) -> int:
    numbers = re.findall(pattern, output)
    return int(numbers[-1]) if numbers else 0


def _finding(output: str) -> str:
    """Return the exception that ended a run, and the file with its input."""
    error = re.search(r"Uncaught Python exception: ===\n(.*)", output) or re.search(r"ERROR: libFuzzer: (.*)", output)
    artifact = re.search(r"Test unit written to (\S+)", output)
    return f"{error[1] if error else 'ended early'}; {artifact[1] if artifact else 'see its log'}"


if __name__ == "__main__":
    main()
