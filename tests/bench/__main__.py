"""`python -m tests.bench [--quick]`: every measurement, one after the other; a table, and `bench.json` in the working folder."""

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
from tests.bench.report import Row, table, told

MEASUREMENTS: dict[str, Callable[[Bench], list[Row]]] = {
    "hit": hits.hit,
    "304": hits.not_modified,
    "entries": hits.many_entries,
    "latency": hits.while_rendering,
    "miss": misses.render,
    "collapse": misses.one_render_for_all,
    "ladder": ladders.ladder,
    "later": ladders.later,
    "warmed": warming.first_view,
    "push": pushing.push,
    "memory": footprint.memory,
    "peak": footprint.peak,
    "start": footprint.start,
}

OUTPUT = Path("bench.json")

_LOOK_SECONDS = 0.3


def main() -> None:
    """Measure, tell, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Darkroom against bare limits.")
    parser.add_argument("--quick", action="store_true", help="about a minute: fewer rounds, no row of many entries")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS), help="these measurements")
    asked = parser.parse_args()
    # Ended from outside, what was started is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    rows: list[Row] = []
    others: list[float] = []
    # Bytecode on both sides, whatever the environment says, and none of it in the checkout.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as name:
        folder = Path(name)
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        photo_path, photo_words = photos.photo(folder)
        with servers.darkroom(folder / "data") as server, connected(server.port) as client:
            bench = Bench(QUICK if asked.quick else FULL, folder, server, client, photo_path, photo_words, client.ingest(photo_path))
            for measurement in asked.only:
                others.append(measure.busy_cores(_LOOK_SECONDS))
                started = time.perf_counter()
                rows += MEASUREMENTS[measurement](bench)
                click.echo(f"{measurement}: {time.perf_counter() - started:.0f} s", err=True)
    conditions = {
        "cores": str(len(os.sched_getaffinity(0))),
        "cores busy with others' work": f"{min(others):.1f} to {max(others):.1f}, looked at before each measurement",
        "loader": load.LOADER,
        "photo": photo_words,
    }
    outcome = told(rows, quick=asked.quick, conditions=conditions)
    OUTPUT.write_bytes(msgspec.json.format(msgspec.json.encode(outcome), indent=2) + b"\n")
    click.echo(table(rows))
    click.echo("\n" + "\n".join(f"{name}: {value}" for name, value in outcome.conditions.items()))


if __name__ == "__main__":
    main()
