"""`python -m tests.soak [--seconds N] [--store bucket|disk]`: a soak. Its exit code is 1 if a response was unexpected or memory grew."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path
from typing import get_args

import click

from tests.soak import chart, report
from tests.soak.load import run_load
from tests.soak.phases import DISTURBANCES, rounds
from tests.soak.system import Store, running_system


def main() -> None:
    """Run, print the figures, and exit with 1 if there is a complaint."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Mixed load against a real server, of which parts fail.")
    parser.add_argument("--seconds", type=float, default=600, help="how long the load lasts, in seconds")
    parser.add_argument("--store", choices=get_args(Store), default="bucket", help="where the server stores images; a disk does not fail")
    parser.add_argument("--page", type=Path, help="also write the figures to this file, as Markdown, and the chart beside it")
    parser.add_argument("--busy", action="store_true", help="the machine has other work: permit slow renders at any time")
    arguments = parser.parse_args()
    # On SIGTERM the server is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with (
        tempfile.TemporaryDirectory(prefix="darkroom-soak-") as name,
        running_system(Path(name) / "data", arguments.store) as system,
    ):
        fails = [one for one in DISTURBANCES if system.store is not None or "store" not in one]
        phases = rounds(arguments.seconds, fails)
        result = asyncio.run(run_load(system, phases, is_busy=arguments.busy, log=lambda line: click.echo(line, err=True)))
        complaints = [*report.complaints(result), *system.stop()]
    for part in (report.requests_table(result), report.phases_table(result), "\n".join(report.summary(result))):
        click.echo(f"{part}\n")
    if arguments.page is not None:
        picture = arguments.page.with_suffix(".svg")
        picture.write_text(chart.draw(result), "utf-8")
        arguments.page.write_text(report.page(result, complaints, picture.name), "utf-8")
    click.echo("\n".join(complaints) or "No complaint.")
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
