"""What the whole server takes: memory, at rest and after work; the peak of one large render; the time to start."""

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
from tests.bench.measure import Compared, in_turn
from tests.bench.report import Row, compared

MEGABYTE = 1_000_000

_CLIENTS = 4
_LONGEST_SIDE = 1_280
_SETTLE_SECONDS = 1.0
_POLL_SECONDS = 0.005

# Of a hundred renditions: what frontends ask for.
_FORMATS = ("webp",) * 40 + ("jpeg",) * 35 + ("avif",) * 15 + ("png",) * 10
_FITS = ("inside", "cover", "contain", "outside", "fill")
_GRAVITIES = ("center", "northwest", "south", "attention", "focal:0.3:0.6")


def memory(bench: Bench) -> list[Row]:
    """Return the memory of a server at rest and after many varied renders, in MB of 10⁶ bytes."""
    count = bench.extent.varied_renders
    progressive = photos.made("progressive", bench.photo_path, bench.folder / "progressive.jpg")
    png = photos.made("png", bench.photo_path, bench.folder / "alpha.png")
    with servers.darkroom(bench.folder / "memory") as server, connected(server.port) as client:
        time.sleep(_SETTLE_SECONDS)
        idle = measure.pss_bytes(server.tree()) / MEGABYTE
        images = [client.ingest(path) for path in (bench.photo_path, progressive, png)]
        paths = list(islice(_varied(client, images), count))
        kept = sum(_body_sizes(server.port, paths)) / MEGABYTE
        time.sleep(_SETTLE_SECONDS)
        after = measure.pss_bytes(server.tree()) / MEGABYTE
        processes = len(server.tree())
    note = f"{after - kept:.0f} MB without the {kept:.0f} MB of bodies kept; of a baseline JPEG, a progressive JPEG, a PNG with alpha"
    return [
        Row("memory, idle", "MB", idle, None, idle, note=f"PSS of {processes} processes; no target"),
        Row(f"memory after {count} varied renders", "MB", after, None, after, 350, note=note),
    ]


def peak(bench: Bench) -> list[Row]:
    """Return the most memory that a fresh render process has in RAM for one render of a 100 Mpixel JPEG, in MB of 10⁶ bytes."""
    huge = photos.made("huge", bench.photo_path, bench.folder / "huge.jpg")
    data = bench.folder / "peak"
    with servers.darkroom(data) as server, connected(server.port) as client:
        image = client.ingest(huge)
        path = client.mint(image, "webp", width=640)
    with servers.darkroom(data, render_processes=1) as server, connected(server.port) as client:
        with _highest_peak(server.process_id) as peaks:
            seconds = client.rendition(path).seconds
        highest = max(peaks) / MEGABYTE
    size = f"{image.width} × {image.height} baseline JPEG of {huge.stat().st_size / MEGABYTE:.0f} MB to WebP, 640 wide, in {seconds:.1f} s"
    huge.unlink()
    return [Row("peak of one 100 Mpixel render", "MB", highest, None, highest, 150, note=f"VmHWM of its process; {size}")]


def start(bench: Bench) -> list[Row]:
    """Return the time from the start of the process to the first 200 on `/health`, bytecode compiled on both sides."""
    data = bench.folder / "start"
    spent = Compared([], [])

    def ours() -> float:
        with servers.darkroom_starting(data) as server:
            # The render processes start beside the server; the first 200 does not wait for them.
            serving = set(server.tree()) - set(measure.render_processes(server.process_id))
            spent.ours.append(measure.cpu_seconds(serving) * 1e3)
            return server.start_seconds * 1e3

    def bare() -> float:
        with servers.bare_starting() as server:
            spent.bare.append(server.cpu_seconds() * 1e3)
            return server.start_seconds * 1e3

    for compile_bytecode in (ours, bare):
        compile_bytecode()
    spent.ours.clear()
    spent.bare.clear()
    figures = in_turn(ours, bare, bench.extent.start_rounds)
    return [
        compared(
            "start to 200 on /health", "ms", figures, 1.25, note="bare: Litestar and Granian, pyvips imported; bytecode on both sides"
        ),
        compared("start, CPU until then", "ms", spent, None, note="without the render processes, which start meanwhile; no target"),
    ]


def _varied(client: Client, images: list[Image]) -> Iterator[str]:
    """Give addresses of distinct renditions, the same ones in every run."""
    draw = random.Random(500)
    seen: set[str] = set()
    while True:
        transform: dict[str, object] = {"width": round(2 ** draw.uniform(6, 10.32))}
        if draw.random() < 0.5:
            transform |= {"height": draw.randrange(64, _LONGEST_SIDE), "fit": draw.choice(_FITS)}
        if transform.get("fit") == "cover":
            transform["gravity"] = draw.choice(_GRAVITIES)
        path = client.mint(draw.choice(images), draw.choice(_FORMATS), **transform)
        if path not in seen:
            seen.add(path)
            yield path


def _body_sizes(port: int, paths: list[str]) -> list[int]:
    """Return the sizes in bytes of these renditions, asked for by several clients."""

    def sizes(share: list[str]) -> list[int]:
        with connected(port) as client:
            return [len(client.rendition(path).body) for path in share]

    with ThreadPoolExecutor(_CLIENTS) as threads:
        return [size for share in threads.map(sizes, [paths[first::_CLIENTS] for first in range(_CLIENTS)]) for size in share]


@contextmanager
def _highest_peak(server: int) -> Iterator[list[int]]:
    """Give a list that grows by the peaks seen, in bytes, while they can be: a process that has grown is replaced after its job."""
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
