"""`python -m tests.quality`: the tables of `quality=auto` and of the default qualities; `quality.json` in the working folder, a page."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

# As a render process has it; libvips reads it when it loads.
os.environ["VIPS_CONCURRENCY"] = "1"

import click
import msgspec
import pyvips

from tests.quality import tables

OUTPUT = Path("quality.json")


def main() -> None:
    """Judge, tell, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality", description="quality=auto and the defaults, judged by SSIMULACRA2.")
    parser.add_argument("--width", type=int, nargs="+", default=[640, 1_280], help="widths of the renditions, in pixels")
    parser.add_argument("--only", choices=["auto", "defaults"], help="one of the two tables")
    parser.add_argument("--page", type=Path, help="also write the tables to this file, as Markdown")
    asked = parser.parse_args()
    if asked.page is not None and asked.only is not None:
        parser.error("--page has both tables: leave --only out")
    pyvips.cache_set_max(0)
    widths = tuple(asked.width)
    outcome = tables.Outcome(
        auto=[] if asked.only == "defaults" else tables.autos(widths),
        defaults=[] if asked.only == "auto" else tables.defaults(widths),
    )
    OUTPUT.write_bytes(msgspec.json.format(msgspec.json.encode(outcome), indent=2) + b"\n")
    if asked.page is not None:
        asked.page.write_text(tables.page(outcome), "utf-8")
    click.echo("\n\n".join(tables.told(outcome)))


if __name__ == "__main__":
    main()
