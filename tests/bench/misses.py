"""Misses: the cost that the server adds to the libvips calls of a render, and whether many clients share one render."""

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

from service.images.geometry import make_plan
from service.images.transform import DEFAULTS, Transform
from tests.bench import load, measure, photos, servers
from tests.bench.bare_render import Batch, BatchResult
from tests.bench.bench import Bench
from tests.bench.client import Client, Image
from tests.bench.measure import Priority, alternate
from tests.bench.report import Row, comparison_row
from tests.support.processes import running

WIDTH = 640
CLIENTS = 4

# Any number of URLs with the same pixels: boxes of this height or more do not limit the rendition.
_FIRST_BOX_HEIGHT = 2_000


class ColdRenditions:
    """Paths of WebP renditions of an image, 640 wide. All of them take the same work, and none has been requested before."""

    def __init__(self, client: Client, image: Image) -> None:
        self._client = client
        self._image = image
        self._height = _FIRST_BOX_HEIGHT

    def paths(self, count: int) -> list[str]:
        heights = range(self._height, self._height + count)
        self._height += count
        return [self._client.rendition_path(self._image, "webp", width=WIDTH, height=height) for height in heights]


def render(bench: Bench) -> list[Row]:
    """Return the latency and CPU of one miss at a time, and the throughput of several clients."""
    extent = bench.extent
    cores = len(os.sched_getaffinity(0))
    cold = ColdRenditions(bench.client, bench.photo)
    miss_cpu: list[float] = []
    priority = measure.priority(measure.render_processes(bench.server.process_id)[0])
    with _bare_renderer(priority) as bare_batch:

        def bare(count: int, threads: int) -> BatchResult:
            return bare_batch(_make_batch(bench, count, threads))

        def miss_milliseconds() -> float:
            paths = cold.paths(extent.misses_per_round)
            before = bench.server.cpu_seconds()
            seconds = median(bench.client.rendition(path).seconds for path in paths)
            miss_cpu.append((bench.server.cpu_seconds() - before) / len(paths) * 1e3)
            return seconds * 1e3

        bare_cpu: list[float] = []

        def bare_milliseconds() -> float:
            result = bare(extent.misses_per_round, 1)
            bare_cpu.append(result.cpu_seconds / extent.misses_per_round * 1e3)
            return median(result.render_seconds) * 1e3

        def misses_per_second() -> float:
            return extent.throughput_misses / _measure_seconds(bench.server.port, cold.paths(extent.throughput_misses))

        def bare_per_second() -> float:
            return extent.throughput_misses / bare(extent.throughput_misses, cores).seconds

        _measure_seconds(bench.server.port, cold.paths(4 * cores))
        _check_same_bytes(bench.client.rendition(cold.paths(1)[0]).body, bare(4 * cores, cores))
        latency = alternate(miss_milliseconds, bare_milliseconds, extent.miss_rounds)
        throughput = alternate(misses_per_second, bare_per_second, extent.throughput_rounds)
    work = f"WebP {WIDTH} wide from the photo; both sides at niceness {priority.nice}, VIPS_CONCURRENCY=1"
    cpu = measure.Comparison(miss_cpu, bare_cpu)
    return [
        comparison_row("miss, one at a time, p50", "ms", latency, 1.08, note=work),
        comparison_row("miss, one at a time, CPU per render", "ms", cpu, None, note="all processes; no target"),
        comparison_row(
            f"miss, {CLIENTS} clients, throughput", "/s", throughput, 0.93, at_most=False, note=f"bare in a pool of {cores} threads"
        ),
    ]


def collapsed_requests(bench: Bench) -> list[Row]:
    """Return how many renders are caused by many clients that request one cold rendition at the same time.

    Two counts from outside, of which the larger one is returned: the bytes that the render processes read, divided by those that one
    render reads; and the responses whose `Cache-Status` says that they were neither collapsed nor hits.
    """
    clients = bench.extent.clients_at_once
    reference, wanted = (
        bench.client.rendition_path(bench.photo, "jpeg", width=WIDTH, height=_FIRST_BOX_HEIGHT + number) for number in range(2)
    )
    processes = measure.render_processes(bench.server.process_id)
    before = measure.read_bytes(processes)
    bench.client.rendition(reference)
    middle = measure.read_bytes(processes)
    responses = load.request_at_once(bench.server.port, wanted, clients)
    renders = (measure.read_bytes(processes) - middle) / (middle - before)
    heads = [response.partition(b"\r\n\r\n")[0].lower() for response in responses]
    bodies = {response.partition(b"\r\n\r\n")[2] for response in responses}
    successes = sum(head.startswith(b"http/1.1 200") for head in heads)
    if successes != clients or len(bodies) != 1:
        raise RuntimeError(f"expected 200 and one body for {clients} clients, received {successes} times 200 and {len(bodies)} bodies")
    leaders = sum(b"fwd=uri-miss" in head and b"collapsed" not in head for head in heads)
    note = f"{clients} times 200 and the same bytes; originals read: {renders:.2f}; responses neither collapsed nor hits: {leaders}"
    return [
        Row(f"renders for {clients:,} clients at once", "", max(round(renders), leaders), None, max(round(renders), leaders), 1, note=note)
    ]


def _make_batch(bench: Bench, count: int, threads: int) -> Batch:
    size = make_plan(bench.photo.width, bench.photo.height, Transform(width=WIDTH))
    newest = DEFAULTS[max(DEFAULTS)]
    return Batch(
        str(bench.photo_path), size.width, size.height, newest.quality["webp"], count, threads, photos.has_profile(bench.photo_path)
    )


def _measure_seconds(port: int, paths: list[str]) -> float:
    """Return how many seconds `CLIENTS` clients take for all of these renditions."""
    remaining = iter(paths)
    lock = threading.Lock()

    def work(client: Client) -> None:
        while True:
            with lock:
                path = next(remaining, None)
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


def _check_same_bytes(body: bytes, result: BatchResult) -> None:
    if hashlib.sha256(body).hexdigest() != result.sha256:
        raise RuntimeError(
            "tests/bench/bare_render.py no longer makes the calls of service/worker/jobs.py: the bytes of the two renditions differ"
        )


@contextmanager
def _bare_renderer(priority: Priority) -> Iterator[Callable[[Batch], BatchResult]]:
    environ = {**os.environ, "VIPS_CONCURRENCY": "1", "MALLOC_ARENA_MAX": "2"}
    command = [sys.executable, "-m", "tests.bench.bare_render", msgspec.json.encode(priority).decode()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    # In its own session, whose priority it sets (sched(7), autogroup).
    with running(command, cwd=servers.REPOSITORY, env=environ, start_new_session=True, **pipes) as process:
        yield lambda batch: _request_batch(process, batch)


def _request_batch(process: subprocess.Popen[bytes], batch: Batch) -> BatchResult:
    if process.stdin is None or process.stdout is None:
        raise ValueError("the bare renderer was started without pipes")
    process.stdin.write(msgspec.json.encode(batch) + b"\n")
    process.stdin.flush()
    return msgspec.json.decode(process.stdout.readline(), type=BatchResult)
