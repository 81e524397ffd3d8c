"""`python -m tests.fuzz [--seconds N] [--seed S]` sends bad and good inputs to a real server. Its exit code is 1 if it found anything."""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
import tempfile
from pathlib import Path

import click
import msgspec

from tests.fuzz.campaign import Plan, run


def main() -> None:
    """Run, print the summary, and exit with 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Bad images and bad requests against a real server.")
    parser.add_argument("--seconds", type=float, default=300, help="how long to send inputs, in seconds")
    parser.add_argument("--seed", type=int, default=None, help="the number that determines every input; random by default")
    parser.add_argument("--only", type=int, nargs="+", default=[], help="send only the inputs with these numbers")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="directory for the inputs that led to findings")
    parser.add_argument("--report", type=Path, default=None, help="file for the summary as JSON")
    arguments = parser.parse_args()
    # On SIGTERM the server is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    with tempfile.TemporaryDirectory(prefix="darkroom-fuzz-") as name:
        plan = Plan(seed, arguments.seconds, Path(name), arguments.findings / str(seed), tuple(arguments.only))
        report = run(plan, lambda line: click.echo(line, err=True))
    click.echo(report.text())
    if arguments.report is not None:
        arguments.report.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    sys.exit(1 if report.findings else 0)


if __name__ == "__main__":
    main()
