"""Cold renditions: every side makes them in turn, one at a time, and then for several clients at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import click

from tests.bench import judging, load, measure, photos, sides
from tests.bench.bench import Bench
from tests.bench.measure import alternate_all
from tests.bench.report import Output, Row, row
from tests.bench.side import LARGE_PNG, LARGE_PROGRESSIVE, PHOTO, THROUGHPUT, WORKS, ColdRenders, OpenSide, Place, Side, Work
from tests.bench.sides import DARKROOM, LIBVIPS, SAME_CALLS, WHOLE_REDUCTION
from tests.bench.targets import target

CLIENTS = 4

_WARM_UPS = 2

# Of one rendition, at once.
CROWD = 200

_ADDED = "miss, what the server adds"

# The renditions whose bytes have to be those of libvips' calls: nothing but a reduction of the original.
_PLAIN = [work for work in WORKS if not work.smart_crop]


def cold(bench: Bench) -> list[Row]:
    """Return the time and the CPU of each kind of rendition, and the throughput of several clients."""
    rows: list[Row] = []
    with open_sides(bench, "cold") as running:
        judged = judging.Judge(bench.folder / "judged", bench.originals)
        for work in WORKS:
            if work.is_large and not bench.extent.slow_images:
                continue
            able = {name: side for name, side in running.items() if side.supports(work)}
            bodies = _warm_up(work, able)
            # Only the bare limits that have a target, so that a round is short.
            able = {name: able[name] for name in bodies if name not in LIBVIPS or name in _limits(work)}
            found = _one_at_a_time(work, able, bench)
            outputs = (
                judged.outputs(work, bodies) if bench.extent.scores else {name: Output(len(body), None) for name, body in bodies.items()}
            )
            rows += _rows(work, found, outputs)
        rows += _throughput(running, bench)
    return rows


def crowd(bench: Bench) -> list[Row]:
    """Return how much CPU many clients cost that request one cold rendition at the same time, in renders of that rendition."""
    figures: dict[str, list[float]] = {}
    with open_sides(bench, "crowd") as running:
        for name, side in running.items():
            if side.server is None or not side.supports(THROUGHPUT):
                continue
            side.render(THROUGHPUT, 2)
            one = side.render(THROUGHPUT, bench.extent.misses_per_round).cpu_milliseconds / 1e3
            before = side.server.cpu_seconds()
            try:
                responses = load.request_at_once(
                    side.server.port, load.RequestPattern(side.cold_path(THROUGHPUT), side.headers(THROUGHPUT)), CROWD
                )
            except OSError as error:
                # A side that renders for each client may take longer than they wait.
                sides.leave_out(name, error)
                continue
            served = sum(response.startswith(b"HTTP/1.1 200") for response in responses)
            if served < CROWD:
                click.echo(f"{name} served {served} of {CROWD} clients", err=True)
                continue
            figures[name] = [(side.server.cpu_seconds() - before) / one]
    return [row("200 clients of one cold rendition, CPU", figures, "WebP 640")]


@contextmanager
def open_sides(bench: Bench, purpose: str) -> Iterator[dict[str, OpenSide]]:
    """Yield all sides that are measured, running, by name. `purpose`: the name of their folders."""
    with sides.opened(bench.sides, partial(place, bench, purpose)) as running:
        yield running


def place(bench: Bench, purpose: str, side: Side) -> Place:
    """Return the place of a side: a new folder, and the originals."""
    folder = bench.folder / "sides" / purpose / side.name.replace(" ", "-").replace(",", "")
    folder.mkdir(parents=True)
    return Place(folder, bench.originals, measure.priority(measure.render_processes(bench.server.process_id)[0]))


def make_originals(bench: Bench) -> None:
    """Fill the directory of the originals: originals that are slow to make only if they are measured."""
    bench.originals.mkdir()
    (bench.originals / PHOTO).symlink_to(bench.photo_path)
    if not bench.extent.slow_images:
        return
    for name, kind in ((LARGE_PNG, "large-png"), (LARGE_PROGRESSIVE, "large-progressive")):
        (bench.originals / name).symlink_to(photos.make_image(kind, bench.photo_path, bench.folder / kind))


def _warm_up(work: Work, running: Mapping[str, OpenSide]) -> dict[str, bytes]:
    """Return the file that each side makes of a rendition. A side that fails is left out of its rows."""

    def render(side: OpenSide) -> bytes:
        return side.render(work, _WARM_UPS).body

    bodies = judging.checked(work, {name: partial(render, side) for name, side in running.items()})
    if work in _PLAIN and SAME_CALLS in bodies and bodies[DARKROOM] != bodies[SAME_CALLS]:
        raise RuntimeError(f"tests/bench/bare_render.py does not make the calls of service/worker/jobs.py: {work.name} has other bytes")
    return bodies


def _limits(work: Work) -> set[str]:
    """Return the bare limits with which a rendition is compared."""
    names = [f"cold → {work.name}, p50", *([f"{_ADDED}, p50"] if work is THROUGHPUT else [])]
    return {target(name).against for name in names}


def _one_at_a_time(work: Work, running: Mapping[str, OpenSide], bench: Bench) -> dict[str, list[ColdRenders]]:
    def render(side: OpenSide) -> ColdRenders:
        return side.render(work, bench.extent.misses_per_round)

    functions: dict[str, Callable[[], ColdRenders]] = {name: partial(render, side) for name, side in running.items()}
    return alternate_all(functions, bench.extent.miss_rounds)


def _rows(work: Work, found: Mapping[str, Sequence[ColdRenders]], outputs: Mapping[str, Output]) -> list[Row]:
    milliseconds = {name: [each.milliseconds for each in rounds] for name, rounds in found.items()}
    cpu = {name: [each.cpu_milliseconds for each in rounds] for name, rounds in found.items()}
    name = f"cold → {work.name}"
    rows = [row(f"{name}, p50", milliseconds, outputs=outputs), row(f"{name}, CPU", cpu)]
    if work is THROUGHPUT:
        rows += [row(f"{_ADDED}, {part}", _only(figures, SAME_CALLS)) for part, figures in (("p50", milliseconds), ("CPU", cpu))]
    return rows


def _throughput(running: Mapping[str, OpenSide], bench: Bench) -> list[Row]:
    count = bench.extent.throughput_misses
    functions = {
        name: partial(side.renders_per_second, THROUGHPUT, count, CLIENTS)
        for name, side in running.items()
        if side.supports(THROUGHPUT) and (name not in LIBVIPS or name in {SAME_CALLS, WHOLE_REDUCTION})
    }
    for measure_once in functions.values():
        measure_once()
    figures = alternate_all(functions, bench.extent.throughput_rounds)
    return [
        row("renders per second, 4 clients", figures, "WebP 640; libvips in a thread for each core"),
        row("renders per second, against the same calls", _only(figures, SAME_CALLS)),
    ]


def _only(figures: Mapping[str, list[float]], against: str) -> dict[str, list[float]]:
    return {name: figures[name] for name in (DARKROOM, against) if name in figures}
