"""`python -m tests.bench.growth [--quick] [--page FILE]`: how costs grow with entries, originals, clients and render processes."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import mean, median

import click
import msgspec

from service.library.image_store import ImageStore
from service.library.listing import Listing
from service.library.takedowns import Takedowns
from service.storage.keys import document_key, recent_key
from service.storage.object_store import open_storage
from tests.bench import growth_page, harness, hits, load, measure, sides
from tests.bench.bench import FULL, QUICK, Bench
from tests.bench.cold import place
from tests.bench.growth_page import CHART, Curve, Growth
from tests.bench.load import RequestPattern
from tests.bench.measure import alternate_all
from tests.bench.renderer import renderer
from tests.bench.servers import MeasuredServer
from tests.bench.side import THROUGHPUT
from tests.bench.sides import DARKROOM, SAME_CALLS
from tests.support import images

OUTPUT = Path("growth.json")

ENTRY_STEPS = (1, 10, 100, 1_000, 10_000, 100_000)
ORIGINAL_STEPS = (100, 1_000, 10_000, 100_000, 1_000_000)
CLIENT_STEPS = (1, 4, 16, 64, 256, 1_000, 2_000)

# Of `--quick`, the largest step of each.
_QUICK_ENTRIES, _QUICK_ORIGINALS = 10_000, 10_000

# In each second of a load, so many clients connect. It is longer by the time that they take.
_CLIENTS_PER_SECOND = 500

# What a page of the list shows, and what a command looks up at a time.
_PAGE = 50

# When the first of the originals that are only names was uploaded. Two others follow each second, all before the originals of the page.
_OLD = datetime(2020, 1, 1, tzinfo=UTC)
_UPLOAD_INTERVAL = timedelta(seconds=0.5)

_MILLISECOND_TICKS = (0.1, 1, 10, 100, 1_000, 10_000)


def entries(bench: Bench, steps: Sequence[int]) -> list[Curve]:
    """Return the CPU time of a hit by the number of stored entries."""
    found = [hits.among_entries(bench, count)[0] for count in steps]
    return [_curve("Hit, µs of CPU per request", "stored entries", steps, found)]


def originals(bench: Bench, steps: Sequence[int]) -> list[Curve]:
    """Return the time of a page of the list and of a look-up by the number of originals on disk.

    The originals of the page exist. The others are empty files with the names of their documents and of their places in the list.
    """
    found: list[Mapping[str, list[float]]] = []
    with renderer(bench.folder / "originals-of-growth") as rendering:
        digests = []
        for number in range(_PAGE):
            file = bench.folder / f"{number}.jpg"
            file.write_bytes(images.photo_jpeg(64 + number, 64))
            digests.append(rendering.ingest(file).digest)
    folder = bench.folder / "originals-of-growth" / "store"
    storage = open_storage(folder.as_uri(), {})
    store = ImageStore(storage)
    listing = Listing(storage, store, Takedowns(store, list, None))

    async def page() -> int:
        return len((await listing.page("", _PAGE)).documents)

    async def lookup() -> int:
        return len((await listing.lookup(digests)).documents)

    with asyncio.Runner() as runner:
        functions = {
            f"a page of {_PAGE}": partial(_cpu_milliseconds, runner, page),
            f"{_PAGE} looked up": partial(_cpu_milliseconds, runner, lookup),
        }
        made = _PAGE
        for count in steps:
            for number in range(made, count):
                digest = f"{number:032}"
                (folder / document_key(digest)).touch()
                runner.run(storage.put_if_absent(recent_key(digest, (_OLD + number * _UPLOAD_INTERVAL).isoformat()), b"", durable=False))
            made = max(made, count)
            found.append(alternate_all(functions, bench.extent.miss_rounds))
    return [_curve("List of images, ms of CPU", "originals on disk", steps, found, _MILLISECOND_TICKS)]


def clients(bench: Bench, steps: Sequence[int]) -> list[Curve]:
    """Return the CPU time and the p99 latency of a hit by the number of clients that request it all the time."""
    if load.WRK is None:
        click.echo("clients are left out: wrk is not installed", err=True)
        return []
    cpu: list[Mapping[str, list[float]]] = []
    p99: list[Mapping[str, list[float]]] = []
    with hits.one_hit(bench) as targets:
        for count in steps:
            found = {name: partial(_load_once, bench, server, requests, count) for name, (server, requests) in targets.items()}
            both = alternate_all(found, bench.extent.hit_rounds)
            cpu.append({name: [each[0] for each in rounds] for name, rounds in both.items()})
            p99.append({name: [each[1] for each in rounds] for name, rounds in both.items()})
    return [
        _curve("Hit, µs of CPU per request", "clients", steps, cpu),
        _curve("Hit, p99 in ms", "clients", steps, p99, _MILLISECOND_TICKS),
    ]


def processes(bench: Bench, steps: Sequence[int]) -> list[Curve]:
    """Return the throughput of renders by the number of render processes, with a client more than there are."""
    found: list[Mapping[str, list[float]]] = []
    count = bench.extent.throughput_misses
    chosen = [side for side in bench.sides if side.name in {DARKROOM, SAME_CALLS}]
    for number in steps:
        with ExitStack() as stack:
            functions: dict[str, Callable[[], float]] = {}
            for side in chosen:
                where = place(bench, f"processes-{number}", side)
                opening = sides.darkroom(where, render_processes=number) if side.name == DARKROOM else side.open(where)
                opened = stack.enter_context(opening)
                opened.render(THROUGHPUT, 2)
                # libvips has a thread for each client, and the server a client more than it has processes.
                functions[side.name] = partial(opened.renders_per_second, THROUGHPUT, count, number + (side.name == DARKROOM))
            found.append(alternate_all(functions, bench.extent.throughput_rounds))
    return [_curve("Renders per second, WebP 640", "render processes, or threads of libvips", steps, found)]


def _load_once(bench: Bench, server: MeasuredServer, requests: RequestPattern, connections: int) -> tuple[float, float]:
    before = server.cpu_seconds()
    pattern = msgspec.structs.replace(requests, connections=connections)
    served, p99 = load.measure_load(server.port, pattern, bench.extent.hit_seconds + connections // _CLIENTS_PER_SECOND, bench.folder)
    return (server.cpu_seconds() - before) / served * 1e6, p99 * 1e3


def _cpu_milliseconds(runner: asyncio.Runner, work: Callable[[], Coroutine[None, None, int]]) -> float:
    """Return the CPU time of a request to the list, in all threads; raises `RuntimeError` unless it returns all images of a page."""
    before = time.process_time()
    number = runner.run(work())
    spent = time.process_time() - before
    if number != _PAGE:
        raise RuntimeError(f"expected {_PAGE} images, received {number}")
    return spent * 1e3


def _curve(
    title: str, steps_title: str, steps: Sequence[int], found: Sequence[Mapping[str, Sequence[float]]], ticks: Sequence[float] = ()
) -> Curve:
    names = list(found[0])
    return Curve(
        title=title,
        steps_title=steps_title,
        steps=list(steps),
        values={name: [median(each[name]) for each in found] for name in names},
        spreads={name: [measure.spread(each[name]) for each in found] for name in names},
        ticks=list(ticks),
    )


def main() -> None:
    """Measure, print the tables, and write the JSON file and the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.growth", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and smaller numbers of entries and originals")
    parser.add_argument("--page", type=Path, help="also write the tables to this file, as Markdown, and the chart beside it")
    arguments = parser.parse_args()
    quick = arguments.quick
    began = time.perf_counter()
    busy_cores: list[float] = []
    curves: list[Curve] = []
    with harness.prepared(QUICK if quick else FULL, [SAME_CALLS]) as bench:
        bench.originals.mkdir()
        (bench.originals / THROUGHPUT.original).symlink_to(bench.photo_path)
        cores = len(os.sched_getaffinity(0))
        measurements: Sequence[Callable[[], list[Curve]]] = (
            partial(entries, bench, [step for step in ENTRY_STEPS if not quick or step <= _QUICK_ENTRIES]),
            partial(clients, bench, CLIENT_STEPS),
            partial(processes, bench, range(1, cores + 1)),
            partial(originals, bench, [step for step in ORIGINAL_STEPS if not quick or step <= _QUICK_ORIGINALS]),
        )
        for measurement in measurements:
            busy_cores.append(measure.busy_cores(harness.BUSY_CORES_SECONDS))
            curves += measurement()
        conditions = harness.conditions(bench, busy_cores)
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    command = f"python -m tests.bench.growth {' '.join(sys.argv[1:])}" if quick else "make bench-growth"
    growth = Growth(command, finished, time.perf_counter() - began, mean(busy_cores), conditions, curves)
    OUTPUT.write_bytes(msgspec.json.format(msgspec.json.encode(growth), indent=2) + b"\n")
    if arguments.page is not None:
        arguments.page.write_text(growth_page.page(growth), "utf-8")
        arguments.page.with_name(CHART).write_text(growth_page.draw(curves), "utf-8")
    click.echo("\n\n".join(growth_page.table(curve) for curve in curves))


if __name__ == "__main__":
    main()
