"""The footprint of the whole server: its memory at rest and after work, the peak of one large render, the time to start."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import count as count_up
from itertools import islice
from typing import NamedTuple

from service.settings.sections import Settings
from tests.bench import measure, photos, servers
from tests.bench.bench import Bench
from tests.bench.client import Client, Image, connected
from tests.bench.cold import place
from tests.bench.measure import alternate_all
from tests.bench.report import Row, row
from tests.bench.servers import MeasuredServer
from tests.bench.side import Side
from tests.bench.sides import DARKROOM, LIBVIPS, leave_out
from tests.bench.targets import BARE_START, FEWER_RENDERS

MEGABYTE = 1_000_000

_CLIENTS = 4
_LONGEST_SIDE = 1_280
_SETTLE_SECONDS = 1.0
_VARIED = "of a baseline JPEG, a progressive JPEG and a PNG with alpha"
_POLL_SECONDS = 0.005

# The formats of a hundred renditions, in about the proportions in which frontends request them.
_FORMATS = ("jxl",) * 15 + ("webp",) * 35 + ("jpeg",) * 30 + ("avif",) * 10 + ("png",) * 10
_FITS = ("inside", "cover", "contain", "outside", "fill")
_GRAVITIES = ("center", "northwest", "south", "attention", "focal:0.3:0.6")


def idle_memory(bench: Bench) -> list[Row]:
    """Return the memory of all sides at rest, and of the bare server, in MB of 10⁶ bytes."""
    functions = {name: partial(_idle_megabytes, opening) for name, opening in _openings(bench, "idle")}
    first = _first_figures(functions)
    rest = alternate_all({name: functions[name] for name in first}, bench.extent.idle_rounds - 1)
    figures = {name: [figure, *rest[name]] for name, figure in first.items()}
    return [row("memory, idle", figures, f"{_SETTLE_SECONDS:g} s after it was ready")]


def memory(bench: Bench) -> list[Row]:
    """Return the memory after many varied renders, and after very many, in MB of 10⁶ bytes."""
    extent = bench.extent
    progressive = photos.make_image("progressive", bench.photo_path, bench.folder / "progressive.jpg")
    png = photos.make_image("png", bench.photo_path, bench.folder / "alpha.png")
    with servers.darkroom(bench.folder / "memory") as server, connected(server.port) as client:
        images = [client.ingest(path) for path in (bench.photo_path, progressive, png)]
        varied = _varied(client, images)
        few = _after_renders(server, varied, extent.varied_renders)
        rows = [row("memory after varied renders", {DARKROOM: [few.megabytes]}, f"{extent.varied_renders:,} renders; {few}; {_VARIED}")]
        if extent.very_many_renders:
            many = _after_renders(server, varied, extent.very_many_renders - extent.varied_renders, few.cached)
            count = f"{extent.very_many_renders:,} renders; {many}"
            rows += [
                row("memory after very many varied renders", {DARKROOM: [many.megabytes]}, count),
                row("memory after very many, less cached bodies", {DARKROOM: [many.uncached], FEWER_RENDERS: [few.uncached]}, count),
            ]
    return rows


class _Memory(NamedTuple):
    """The memory of a server in MB: of all processes, and of the bodies that it has cached."""

    megabytes: float
    cached: float

    @property
    def uncached(self) -> float:
        return self.megabytes - self.cached

    def __str__(self) -> str:
        return f"{self.uncached:.0f} MB without the {self.cached:.0f} MB of cached bodies"


def _after_renders(server: MeasuredServer, paths: Iterator[str], count: int, cached: float = 0.0) -> _Memory:
    """Return the memory after so many more renders. `cached`: the megabytes of the bodies before."""
    requested = list(islice(paths, count))
    # The cache holds no more than its budget.
    cached = min(cached + sum(_body_sizes(server.port, requested)) / MEGABYTE, Settings().server.cache_bytes / MEGABYTE)
    time.sleep(_SETTLE_SECONDS)
    return _Memory(measure.pss_bytes(server.tree()) / MEGABYTE, cached)


def _openings(bench: Bench, purpose: str) -> Iterator[tuple[str, Callable[[], AbstractContextManager[MeasuredServer]]]]:
    """Yield, for each side that is a server and for the bare one, what starts it."""
    numbers = count_up()

    @contextmanager
    def start(side: Side) -> Iterator[MeasuredServer]:
        with side.open(place(bench, f"{purpose}-{next(numbers)}", side)) as running:
            if running.server is None:
                raise ValueError(f"{side.name} is no server")
            yield running.server

    yield BARE_START, servers.bare_starting
    yield from ((side.name, partial(start, side)) for side in bench.sides if side.name not in LIBVIPS)


def _first_figures(functions: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Return the first figure of each side that starts."""
    figures = {}
    for name, function in functions.items():
        try:
            figures[name] = function()
        except (RuntimeError, OSError) as error:
            if name == BARE_START:
                raise
            leave_out(name, error)
    return figures


def _idle_megabytes(opening: Callable[[], AbstractContextManager[MeasuredServer]]) -> float:
    with opening() as server:
        time.sleep(_SETTLE_SECONDS)
        return measure.pss_bytes(server.tree()) / MEGABYTE


def peak(bench: Bench) -> list[Row]:
    """Return the highest resident memory of a new render process during one render of a 100 Mpixel JPEG, in MB of 10⁶ bytes."""
    huge = photos.make_image("huge", bench.photo_path, bench.folder / "huge.jpg")
    data = bench.folder / "peak"
    with servers.darkroom(data) as server, connected(server.port) as client:
        image = client.ingest(huge)
        path = client.rendition_path(image, "webp", width=640)
    with servers.darkroom(data, render_processes=1) as server, connected(server.port) as client:
        with _highest_peak(server.process_id) as peaks:
            seconds = client.rendition(path).seconds
        highest = max(peaks) / MEGABYTE
    size = f"{image.width} × {image.height} baseline JPEG of {huge.stat().st_size / MEGABYTE:.0f} MB to WebP, 640 wide, in {seconds:.1f} s"
    huge.unlink()
    return [row("peak of one 100 Mpixel render", {DARKROOM: [highest]}, size)]


def start(bench: Bench) -> list[Row]:
    """Return the time from the start of the process to the first 200 on `/health`; all sides run from compiled bytecode."""
    cpu: dict[str, list[float]] = {DARKROOM: [], BARE_START: []}
    data = bench.folder / "start"

    def ours() -> float:
        with servers.darkroom_starting(data) as server:
            # The first 200 does not wait for the render processes, which start at the same time.
            serving = set(server.tree()) - set(measure.rendering_processes(server.process_id))
            cpu[DARKROOM].append(measure.cpu_seconds(serving) * 1e3)
            return server.start_seconds * 1e3

    def bare() -> float:
        with servers.bare_starting() as server:
            cpu[BARE_START].append(server.cpu_seconds() * 1e3)
            return server.start_seconds * 1e3

    def other(opening: Callable[[], AbstractContextManager[MeasuredServer]]) -> float:
        with opening() as server:
            return server.start_seconds * 1e3

    others = {name: partial(other, opening) for name, opening in _openings(bench, "start") if name not in {DARKROOM, BARE_START}}
    functions: dict[str, Callable[[], float]] = {DARKROOM: ours, BARE_START: bare, **others}
    # Compiles the bytecode, which is not measured.
    able = {name: functions[name] for name in _first_figures(functions)}
    for figures in cpu.values():
        figures.clear()
    return [
        row("start to 200 on /health", alternate_all(able, bench.extent.start_rounds), "from compiled bytecode"),
        row("start, CPU until then", cpu),
    ]


def _varied(client: Client, images: list[Image]) -> Iterator[str]:
    """Yield the paths of distinct renditions, the same ones in every run."""
    draw = random.Random(500)
    seen: set[str] = set()
    while True:
        transform: dict[str, object] = {"width": round(2 ** draw.uniform(6, 10.32))}
        if draw.random() < 0.5:
            transform |= {"height": draw.randrange(64, _LONGEST_SIDE), "fit": draw.choice(_FITS)}
        if transform.get("fit") == "cover":
            transform["gravity"] = draw.choice(_GRAVITIES)
        path = client.rendition_path(draw.choice(images), draw.choice(_FORMATS), **transform)
        if path not in seen:
            seen.add(path)
            yield path


def _body_sizes(port: int, paths: list[str]) -> list[int]:
    """Let several clients request these renditions, and return the sizes of their bodies in bytes."""

    def sizes(share: list[str]) -> list[int]:
        with connected(port) as client:
            return [len(client.rendition(path).body) for path in share]

    with ThreadPoolExecutor(_CLIENTS) as threads:
        return [size for share in threads.map(sizes, [paths[first::_CLIENTS] for first in range(_CLIENTS)]) for size in share]


@contextmanager
def _highest_peak(server: int) -> Iterator[list[int]]:
    """Yield a list to which the peaks of the render processes, in bytes, are added every few milliseconds.

    They have to be read during the render, because a process that has grown is replaced after its job.
    """
    peaks: list[int] = []
    done = threading.Event()

    def watch() -> None:
        processes = measure.render_processes(server)
        while not done.wait(_POLL_SECONDS):
            peaks.extend(measure.peak_bytes(process_id) for process_id in processes)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()
