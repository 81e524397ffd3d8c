"""`python -m tests.bench [--quick]` runs every measurement in turn, prints a table and writes `bench.json` to the working directory."""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from tests.bench import footprint, hits, ladders, load, measure, misses, photos, pushing, servers, warming
from tests.bench.bench import FULL, QUICK, Bench
from tests.bench.client import connected
from tests.bench.report import Row, make_report, table

MEASUREMENTS: dict[str, Callable[[Bench], list[Row]]] = {
    "hit": hits.hit,
    "304": hits.not_modified,
    "entries": hits.many_entries,
    "latency": hits.while_rendering,
    "miss": misses.render,
    "collapse": misses.collapsed_requests,
    "ladder": ladders.ladder,
    "later": ladders.later,
    "warmed": warming.first_view,
    "push": pushing.push,
    "memory": footprint.memory,
    "peak": footprint.peak,
    "start": footprint.start,
}

OUTPUT = Path("bench.json")

_BUSY_CORES_SECONDS = 0.3


def main() -> None:
    """Run the chosen measurements, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Darkroom against bare limits.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and no row of many entries; takes about a minute")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS), help="run only these measurements")
    arguments = parser.parse_args()
    # On SIGTERM the servers and renderers that were started are ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _, max_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, max_files))
    rows: list[Row] = []
    busy_cores: list[float] = []
    # Both sides run from compiled bytecode, even if the environment disables it, and none of it is written into the checkout.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as name:
        folder = Path(name)
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        photo_path, photo_description = photos.photo(folder)
        with servers.darkroom(folder / "data") as server, connected(server.port) as client:
            bench = Bench(
                QUICK if arguments.quick else FULL, folder, server, client, photo_path, photo_description, client.ingest(photo_path)
            )
            for measurement in arguments.only:
                busy_cores.append(measure.busy_cores(_BUSY_CORES_SECONDS))
                started = time.perf_counter()
                rows += MEASUREMENTS[measurement](bench)
                click.echo(f"{measurement}: {time.perf_counter() - started:.0f} s", err=True)
    conditions = {
        "cores": str(len(os.sched_getaffinity(0))),
        "cores busy with other work": f"{min(busy_cores):.1f} to {max(busy_cores):.1f}, sampled before each measurement",
        "load generator": load.LOAD_GENERATOR,
        "photo": photo_description,
    }
    report = make_report(rows, quick=arguments.quick, conditions=conditions)
    OUTPUT.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    click.echo(table(rows))
    click.echo("\n" + "\n".join(f"{name}: {value}" for name, value in report.conditions.items()))


if __name__ == "__main__":
    main()
