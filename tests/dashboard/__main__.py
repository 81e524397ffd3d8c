"""`python -m tests.dashboard FILE.svg [--scale SHARE]`: let everything fail, and draw the dashboard as SVG.

Its exit code is 1 if a query has no data, or if an alert did not fire or has not resolved.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import click

from tests.dashboard.observation import observe
from tests.dashboard.scenario import run, watched


def main() -> None:
    """Run, draw, and report what is missing."""
    parser = argparse.ArgumentParser(prog="python -m tests.dashboard", description=__doc__)
    parser.add_argument("picture", type=Path, help="the SVG file to write")
    parser.add_argument("--scale", type=float, default=1.0, help="the length of the run, and of all durations in alerts, as a share")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="darkroom-dashboard-") as folder, watched(Path(folder), scale=arguments.scale) as servers:
        span = asyncio.run(run(servers, scale=arguments.scale, log=lambda line: click.echo(line, err=True)))
        found = observe(servers, span)
    arguments.picture.write_text(found.picture, "utf-8")
    complaints = [*found.without_data, *found.alerts]
    click.echo("\n".join(complaints) or "Every query has data, and every alert fired and resolved.")
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
