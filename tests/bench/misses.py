"""Misses: what stands around the libvips calls of a render, and whether many clients share one."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median

import msgspec

from service.images.geometry import plan
from service.images.transform import DEFAULTS, Transform
from tests.bench import load, measure, photos, servers
from tests.bench.bare_render import Batch, Done
from tests.bench.bench import Bench
from tests.bench.client import Client, Image
from tests.bench.measure import Priority, in_turn
from tests.bench.report import Row, compared

WIDTH = 640
CLIENTS = 4

# The same pixels under as many addresses as are wanted: a box this high bounds nothing.
_FIRST_BOX_HEIGHT = 2_000


class Cold:
    """Addresses of WebP renditions of an image, 640 wide, all the same work and none asked for before."""

    def __init__(self, client: Client, image: Image) -> None:
        self._client = client
        self._image = image
        self._height = _FIRST_BOX_HEIGHT

    def paths(self, count: int) -> list[str]:
        heights = range(self._height, self._height + count)
        self._height += count
        return [self._client.mint(self._image, "webp", width=WIDTH, height=height) for height in heights]


def render(bench: Bench) -> list[Row]:
    """Return the latency and CPU of one miss at a time, and the throughput of several clients."""
    extent = bench.extent
    cores = len(os.sched_getaffinity(0))
    cold = Cold(bench.client, bench.photo)
    spent: list[float] = []
    priority = measure.priority(measure.render_processes(bench.server.process_id)[0])
    with _bare_renderer(priority) as bare_batch:

        def bare(count: int, threads: int) -> Done:
            return bare_batch(_batch(bench, count, threads))

        def miss_milliseconds() -> float:
            paths = cold.paths(extent.misses_per_round)
            before = bench.server.cpu_seconds()
            seconds = median(bench.client.rendition(path).seconds for path in paths)
            spent.append((bench.server.cpu_seconds() - before) / len(paths) * 1e3)
            return seconds * 1e3

        bare_spent: list[float] = []

        def bare_milliseconds() -> float:
            done = bare(extent.misses_per_round, 1)
            bare_spent.append(done.cpu_seconds / extent.misses_per_round * 1e3)
            return median(done.each) * 1e3

        def misses_per_second() -> float:
            return extent.throughput_misses / _seconds(bench.server.port, cold.paths(extent.throughput_misses))

        def bare_per_second() -> float:
            return extent.throughput_misses / bare(extent.throughput_misses, cores).seconds

        _seconds(bench.server.port, cold.paths(4 * cores))
        _check_same(bench.client.rendition(cold.paths(1)[0]).body, bare(4 * cores, cores))
        latency = in_turn(miss_milliseconds, bare_milliseconds, extent.miss_rounds)
        throughput = in_turn(misses_per_second, bare_per_second, extent.throughput_rounds)
    work = f"WebP {WIDTH} wide from the photo; both sides at niceness {priority.nice}, VIPS_CONCURRENCY=1"
    cpu = measure.Compared(spent, bare_spent)
    return [
        compared("miss, one at a time, p50", "ms", latency, 1.08, note=work),
        compared("miss, one at a time, CPU per render", "ms", cpu, None, note="all processes; no target"),
        compared(f"miss, {CLIENTS} clients, throughput", "/s", throughput, 0.93, at_most=False, note=f"bare in a pool of {cores} threads"),
    ]


def one_render_for_all(bench: Bench) -> list[Row]:
    """Return how many renders many clients of one cold rendition cause.

    Counted from outside: by what the render processes read, in units of what one render reads, and by the answers
    that say they were neither collapsed nor hits.
    """
    clients = bench.extent.clients_at_once
    reference, wanted = (bench.client.mint(bench.photo, "jpeg", width=WIDTH, height=_FIRST_BOX_HEIGHT + number) for number in range(2))
    processes = measure.render_processes(bench.server.process_id)
    before = measure.read_bytes(processes)
    bench.client.rendition(reference)
    middle = measure.read_bytes(processes)
    answers = load.all_at_once(bench.server.port, wanted, clients)
    renders = (measure.read_bytes(processes) - middle) / (middle - before)
    heads = [answer.partition(b"\r\n\r\n")[0].lower() for answer in answers]
    bodies = {answer.partition(b"\r\n\r\n")[2] for answer in answers}
    right = sum(head.startswith(b"http/1.1 200") for head in heads)
    if right != clients or len(bodies) != 1:
        raise RuntimeError(f"of {clients} clients {right} were answered 200, with {len(bodies)} different bodies")
    leaders = sum(b"fwd=uri-miss" in head and b"collapsed" not in head for head in heads)
    note = f"{clients} times 200 and the same bytes; originals read: {renders:.2f}; answers neither collapsed nor hits: {leaders}"
    return [
        Row(f"renders for {clients:,} clients at once", "", max(round(renders), leaders), None, max(round(renders), leaders), 1, note=note)
    ]


def _batch(bench: Bench, count: int, threads: int) -> Batch:
    size = plan(bench.photo.width, bench.photo.height, Transform(width=WIDTH))
    newest = DEFAULTS[max(DEFAULTS)]
    return Batch(
        str(bench.photo_path), size.width, size.height, newest.quality["webp"], count, threads, photos.has_profile(bench.photo_path)
    )


def _seconds(port: int, paths: list[str]) -> float:
    """Return how long `CLIENTS` clients take for all of these renditions."""
    left = iter(paths)
    lock = threading.Lock()

    def work(client: Client) -> None:
        while True:
            with lock:
                path = next(left, None)
            if path is None:
                return
            client.rendition(path)

    clients = [Client(port) for _ in range(CLIENTS)]
    try:
        with ThreadPoolExecutor(CLIENTS) as threads:
            started = time.perf_counter()
            list(threads.map(work, clients))
            return time.perf_counter() - started
    finally:
        for client in clients:
            client.close()


def _check_same(body: bytes, done: Done) -> None:
    if hashlib.sha256(body).hexdigest() != done.sha256:
        raise RuntimeError("tests/bench/bare_render.py no longer makes the calls of service/worker/jobs.py: other bytes came out")


@contextmanager
def _bare_renderer(priority: Priority) -> Iterator[Callable[[Batch], Done]]:
    environ = {**os.environ, "VIPS_CONCURRENCY": "1", "MALLOC_ARENA_MAX": "2"}
    with servers.child([sys.executable, "-m", "tests.bench.bare_render", msgspec.json.encode(priority).decode()], environ) as process:

        def ask(batch: Batch) -> Done:
            return _asked(process, batch)

        yield ask


def _asked(process: subprocess.Popen[bytes], batch: Batch) -> Done:
    if process.stdin is None or process.stdout is None:
        raise ValueError("the bare renderer needs its pipes")
    process.stdin.write(msgspec.json.encode(batch) + b"\n")
    process.stdin.flush()
    return msgspec.json.decode(process.stdout.readline(), type=Done)
