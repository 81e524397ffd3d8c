"""`python -m tests.quality` prints tables for `quality=auto` and the default qualities, and writes `quality.json` and a page."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

# The same as in a render process. libvips reads it when it is loaded.
os.environ["VIPS_CONCURRENCY"] = "1"

import click
import msgspec
import pyvips

from tests.quality import tables

OUTPUT = Path("quality.json")


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality", description="quality=auto and the defaults, judged by SSIMULACRA2.")
    parser.add_argument("--width", type=int, nargs="+", default=[640, 1_280], help="widths of the renditions, in pixels")
    parser.add_argument("--only", choices=["auto", "defaults"], help="measure only one of the two tables")
    parser.add_argument("--page", type=Path, help="also write the tables to this file, as Markdown")
    arguments = parser.parse_args()
    if arguments.page is not None and arguments.only is not None:
        parser.error("--page needs both tables, so it cannot be combined with --only")
    pyvips.cache_set_max(0)
    widths = tuple(arguments.width)
    results = tables.Results(
        auto=[] if arguments.only == "defaults" else tables.measure_auto(widths),
        defaults=[] if arguments.only == "auto" else tables.measure_defaults(widths),
    )
    OUTPUT.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    if arguments.page is not None:
        arguments.page.write_text(tables.page(results), "utf-8")
    click.echo("\n\n".join(tables.text(results)))


if __name__ == "__main__":
    main()
