"""The footprint of the whole server: its memory at rest and after work, the peak of one large render, the time to start."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice

from tests.bench import measure, photos, servers
from tests.bench.bench import Bench
from tests.bench.client import Client, Image, connected
from tests.bench.measure import Comparison, alternate
from tests.bench.report import Row, comparison_row

MEGABYTE = 1_000_000

_CLIENTS = 4
_LONGEST_SIDE = 1_280
_SETTLE_SECONDS = 1.0
_POLL_SECONDS = 0.005

# The formats of a hundred renditions, in about the proportions in which frontends request them.
_FORMATS = ("jxl",) * 15 + ("webp",) * 35 + ("jpeg",) * 30 + ("avif",) * 10 + ("png",) * 10
_FITS = ("inside", "cover", "contain", "outside", "fill")
_GRAVITIES = ("center", "northwest", "south", "attention", "focal:0.3:0.6")


def memory(bench: Bench) -> list[Row]:
    """Return the memory of a server at rest and after many varied renders, in MB of 10⁶ bytes."""
    count = bench.extent.varied_renders
    progressive = photos.make_image("progressive", bench.photo_path, bench.folder / "progressive.jpg")
    png = photos.make_image("png", bench.photo_path, bench.folder / "alpha.png")
    with servers.darkroom(bench.folder / "memory") as server, connected(server.port) as client:
        time.sleep(_SETTLE_SECONDS)
        idle = measure.pss_bytes(server.tree()) / MEGABYTE
        images = [client.ingest(path) for path in (bench.photo_path, progressive, png)]
        paths = list(islice(_varied(client, images), count))
        cached = sum(_body_sizes(server.port, paths)) / MEGABYTE
        time.sleep(_SETTLE_SECONDS)
        after = measure.pss_bytes(server.tree()) / MEGABYTE
        processes = len(server.tree())
    note = f"{after - cached:.0f} MB without the {cached:.0f} MB of cached bodies; of a baseline JPEG, a progressive JPEG, a PNG with alpha"
    return [
        Row("memory, idle", "MB", idle, None, idle, note=f"PSS of {processes} processes; no target"),
        Row(f"memory after {count} varied renders", "MB", after, None, after, 350, note=note),
    ]


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
    return [Row("peak of one 100 Mpixel render", "MB", highest, None, highest, 150, note=f"VmHWM of its process; {size}")]


def start(bench: Bench) -> list[Row]:
    """Return the time from the start of the process to the first 200 on `/health`; both sides run from compiled bytecode."""
    data = bench.folder / "start"
    cpu = Comparison([], [])

    def ours() -> float:
        with servers.darkroom_starting(data) as server:
            # The first 200 does not wait for the render processes, which start at the same time.
            serving = set(server.tree()) - set(measure.render_processes(server.process_id))
            cpu.ours.append(measure.cpu_seconds(serving) * 1e3)
            return server.start_seconds * 1e3

    def bare() -> float:
        with servers.bare_starting() as server:
            cpu.bare.append(server.cpu_seconds() * 1e3)
            return server.start_seconds * 1e3

    for compile_bytecode in (ours, bare):
        compile_bytecode()
    cpu.ours.clear()
    cpu.bare.clear()
    figures = alternate(ours, bare, bench.extent.start_rounds)
    return [
        comparison_row(
            "start to 200 on /health", "ms", figures, 1.25, note="bare: Litestar and Granian, pyvips imported; bytecode on both sides"
        ),
        comparison_row("start, CPU until then", "ms", cpu, None, note="without the render processes, which start meanwhile; no target"),
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
