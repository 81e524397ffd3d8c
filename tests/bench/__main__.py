"""`python -m tests.bench [--quick] [--page FILE]` runs every measurement in turn, prints a table and writes `bench.json`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

import click
import msgspec

from tests.bench import (
    cold,
    footprint,
    harness,
    hits,
    ladders,
    measure,
    misses,
    page,
    pushing,
    quota,
    refusals,
    report_chart,
    sizes,
    warming,
)
from tests.bench.bench import FULL, QUICK, Bench
from tests.bench.peers.sides import PEERS
from tests.bench.report import Report, Row, make_report, table
from tests.bench.sides import DARKROOM, SIDES

MEASUREMENTS: dict[str, Callable[[Bench], list[Row]]] = {
    "hit": hits.hit,
    "entries": hits.many_entries,
    "latency": hits.while_rendering,
    "cold": cold.cold,
    "collapse": misses.collapsed_requests,
    "crowd": cold.crowd,
    "sizes": sizes.sizes,
    "ladder": ladders.ladder,
    "later": ladders.later,
    "warmed": warming.first_view,
    "push": pushing.push,
    "refuse": refusals.refuse,
    "idle": footprint.idle_memory,
    "memory": footprint.memory,
    "peak": footprint.peak,
    "start": footprint.start,
    "throttled": quota.throttled,
}

# Those of `--quick`: the others need images that take long to make, or many servers.
_QUICK_MEASUREMENTS = ["hit", "latency", "cold", "collapse", "ladder", "idle", "start"]

OUTPUT = Path("bench.json")
CHART = "benchmarks.svg"

# The condition that says which measurements failed, and why.
FAILED = "measurements that failed"


def main() -> None:
    """Run the chosen measurements, print the table, and write the JSON file and the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Darkroom against bare limits.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and no rows that take long; takes less than a minute")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, help="run only these measurements")
    parser.add_argument(
        "--sides", nargs="+", choices=[side.name for side in SIDES], default=[], help=f"measure only these besides {DARKROOM}"
    )
    parser.add_argument("--page", type=Path, help="also write the table to this file, as Markdown, and the chart beside it")
    arguments = parser.parse_args()
    measurements = arguments.only or (_QUICK_MEASUREMENTS if arguments.quick else list(MEASUREMENTS))
    is_complete = measurements == list(MEASUREMENTS) and not arguments.sides and not arguments.quick
    complete = "make bench PEERS=folder" if PEERS else "make bench"
    command = complete if is_complete else f"python -m tests.bench {' '.join(sys.argv[1:])}"
    report = _run(measurements, arguments.sides, command, quick=arguments.quick)
    OUTPUT.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    if arguments.page is not None:
        arguments.page.write_text(page.page(report, CHART), "utf-8")
        arguments.page.with_name(CHART).write_text(report_chart.draw(report.rows), "utf-8")
    click.echo(table(report.rows))
    click.echo("\n" + "\n".join(f"{name}: {value}" for name, value in report.conditions.items()))
    if FAILED in report.conditions:
        sys.exit(1)


def _run(measurements: Sequence[str], side_names: Sequence[str], command: str, *, quick: bool) -> Report:
    rows: list[Row] = []
    failures: dict[str, str] = {}
    busy_cores: list[float] = []
    began = time.perf_counter()
    with harness.prepared(QUICK if quick else FULL, side_names) as bench:
        cold.make_originals(bench)
        for measurement in measurements:
            busy_cores.append(measure.busy_cores(harness.BUSY_CORES_SECONDS))
            started = time.perf_counter()
            try:
                rows += MEASUREMENTS[measurement](bench)
            except (RuntimeError, OSError) as error:
                # The others have taken long, and are of use.
                failures[measurement] = str(error)
            click.echo(f"{measurement}: {time.perf_counter() - started:.0f} s", err=True)
    conditions = harness.conditions(bench, busy_cores)
    if failures:
        conditions[FAILED] = "; ".join(f"{measurement}: {error}" for measurement, error in failures.items())
    return make_report(
        rows,
        command=command,
        seconds=time.perf_counter() - began,
        quick=quick,
        busy_cores=mean(busy_cores),
        conditions=conditions,
        sides={side.name: side.settings() for side in bench.sides},
    )


if __name__ == "__main__":
    main()
