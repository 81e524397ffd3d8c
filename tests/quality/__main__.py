"""`python -m tests.quality` prints tables of efforts, default qualities, `quality=auto` and steps, and writes `quality.json` and a page."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

# The same as in a render process. libvips reads it when it is loaded.
os.environ["VIPS_CONCURRENCY"] = "1"

import click
import msgspec
import pyvips

from tests.quality import chart, efforts, steps, tables

OUTPUT = Path("quality.json")
CHART = "efforts.svg"


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality", description="Efforts, defaults and quality=auto.")
    parser.add_argument("--width", type=int, nargs="+", default=[640, 1_280], help="widths of the last two tables, in pixels")
    parser.add_argument("--only", choices=["efforts", "auto", "defaults", "steps"], help="measure only one of the tables")
    parser.add_argument("--page", type=Path, help="also write the tables to this file, as Markdown, and the chart beside it")
    arguments = parser.parse_args()
    if arguments.page is not None and arguments.only is not None:
        parser.error("--page needs all tables, so it cannot be combined with --only")
    pyvips.cache_set_max(0)
    widths = tuple(arguments.width)
    results = tables.Results(
        efforts=efforts.measure_efforts() if arguments.only in {None, "efforts"} else [],
        auto=tables.measure_auto(widths) if arguments.only in {None, "auto"} else [],
        defaults=tables.measure_defaults(widths) if arguments.only in {None, "defaults"} else [],
        steps=steps.measure_steps() if arguments.only in {None, "steps"} else [],
    )
    OUTPUT.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    if arguments.page is not None:
        arguments.page.write_text(tables.page(results), "utf-8")
        arguments.page.with_name(CHART).write_text(chart.draw(results.efforts), "utf-8")
    click.echo("\n\n".join(tables.text(results)))


if __name__ == "__main__":
    main()
