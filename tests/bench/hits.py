"""Hits: what the edge adds to an ASGI function that only sends, and whether renders disturb it."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import msgspec

from tests.bench import load, measure, servers
from tests.bench.bare import ANSWER_FILE, ENTRIES, ENTRY_BODY_BYTES, Fixed
from tests.bench.bench import Bench
from tests.bench.client import Client, Got, connected
from tests.bench.load import Requests
from tests.bench.measure import Compared, in_turn, percentile
from tests.bench.report import Row, compared
from tests.bench.servers import Server

BODY_BYTES = 20_000

_ADDED_BY_GRANIAN = frozenset({"date", "server"})
_TIMES = frozenset({"age", "cache-status"})

_HITS_PER_SECOND = 200
_AVIF_WIDTHS = range(1_500, 2_500, 3)


def hit(bench: Bench) -> list[Row]:
    """Return what a hit of about 20 kB costs."""
    path = _path_of_size(bench, BODY_BYTES)
    got = _hit(bench.client, path)
    return [_against_fixed("hit, CPU per request", bench, got, Requests(path), f"{len(got.body):,} bytes, {len(got.headers)} fields")]


def not_modified(bench: Bench) -> list[Row]:
    """Return what a hit answered with 304 costs."""
    path = _path_of_size(bench, BODY_BYTES)
    condition = {"If-None-Match": _hit(bench.client, path).header("etag")}
    got = bench.client.get(path, condition)
    if got.status != 304:
        raise RuntimeError(f"expected 304 for {condition}, received {got.status}")
    return [_against_fixed("hit 304, CPU per request", bench, got, Requests(path, condition), f"{len(got.headers)} fields")]


def many_entries(bench: Bench) -> list[Row]:
    """Return what a hit costs among very many entries, nothing where the extent has none."""
    entries = bench.extent.entries
    if not entries:
        return []
    got = _hit(bench.client, _path_of_size(bench, BODY_BYTES))
    kept = [pair for pair in _own_fields(got) if pair[0] not in _TIMES]
    kept_file = _answer_file(bench.folder / "entries-origin", Fixed(200, kept, b""))
    sent_file = _answer_file(bench.folder / "entries-sent", Fixed(200, _own_fields(got), b""))
    told = {ENTRIES: str(entries)}
    with (
        servers.bare("filled_edge", {ANSWER_FILE: str(kept_file), **told}, within_seconds=180) as edge,
        servers.bare("over_dict", {ANSWER_FILE: str(sent_file), **told}, within_seconds=180) as bare,
    ):
        figures, rates = _cpu_in_turn(bench, edge, bare, Requests(entries=entries))
    note = f"{ENTRY_BODY_BYTES:,} bytes each, asked for at random; bare is a dict of the same bodies under one header list; {rates}"
    return [compared(f"hit among {entries:,} entries, CPU per request", "µs", figures, 1.10, note=note)]


def while_rendering(bench: Bench) -> list[Row]:
    """Return a hit's p99 latency with every render process making AVIF."""
    path = _path_of_size(bench, BODY_BYTES)
    _hit(bench.client, path)
    extent = bench.extent
    # Twice as many as slots, so that no slot waits for a client.
    clients = 2 * len(measure.render_processes(bench.server.process_id))
    avif_paths = iter([bench.client.mint(bench.photo, "avif", width=width) for width in _AVIF_WIDTHS])
    shares: list[float] = []

    def p99() -> float:
        return percentile(load.at_constant_rate(bench.server.port, path, _HITS_PER_SECOND, extent.latency_seconds), 0.99) * 1e3

    def p99_while_rendering() -> float:
        processes = measure.render_processes(bench.server.process_id)
        with _rendering(bench.server, avif_paths, clients):
            before = measure.cpu_seconds(processes)
            latency = p99()
            shares.append((measure.cpu_seconds(processes) - before) / extent.latency_seconds)
        return latency

    figures = in_turn(p99_while_rendering, p99, extent.latency_rounds)
    note = f"{_HITS_PER_SECOND} hits a second; meanwhile the render processes used {median(shares):.1f} cores"
    return [compared("hit p99 while AVIF is made, against idle", "ms", figures, 3, note=note)]


def _against_fixed(what: str, bench: Bench, got: Got, requests: Requests, note: str) -> Row:
    """Return the comparison of a hit with an ASGI function that sends exactly what `got` is."""
    file = _answer_file(bench.folder / f"fixed-{got.status}", Fixed(got.status, _own_fields(got), got.body))
    with servers.bare("fixed", {ANSWER_FILE: str(file)}) as bare:
        figures, rates = _cpu_in_turn(bench, bench.server, bare, requests)
    return compared(what, "µs", figures, 1.10, note=f"{note}; {rates}")


def _cpu_in_turn(bench: Bench, ours: Server, bare: Server, requests: Requests) -> tuple[Compared, str]:
    """Return µs of CPU per request on both sides, all processes of each, and their requests per second in words."""
    seconds = bench.extent.hit_seconds
    rates: dict[int, list[float]] = {ours.process_id: [], bare.process_id: []}

    def microseconds(server: Server) -> float:
        before = server.cpu_seconds()
        served = load.hammer(server.port, requests, seconds, bench.folder)
        rates[server.process_id].append(served / seconds)
        return (server.cpu_seconds() - before) / served * 1e6

    figures = in_turn(lambda: microseconds(ours), lambda: microseconds(bare), bench.extent.hit_rounds)
    return figures, f"{median(rates[ours.process_id]):,.0f} requests a second, bare {median(rates[bare.process_id]):,.0f}"


def _path_of_size(bench: Bench, wanted_bytes: int) -> str:
    """Return the path of a WebP rendition of about so many bytes: bytes grow with the area, nearly."""
    width = 320
    for _ in range(2):
        got = bench.client.get(bench.client.mint(bench.photo, "webp", width=width))
        width = round(width * math.sqrt(wanted_bytes / len(got.body)))
    path = bench.client.mint(bench.photo, "webp", width=width)
    bench.client.get(path)
    return path


def _hit(client: Client, path: str) -> Got:
    client.get(path)
    got = client.get(path)
    if got.status != 200 or "; hit" not in got.header("cache-status"):
        raise RuntimeError(f"expected a hit, received {got.status} {got.headers}")
    return got


def _own_fields(got: Got) -> list[tuple[str, str]]:
    return [pair for pair in got.headers if pair[0] not in _ADDED_BY_GRANIAN]


def _answer_file(path: Path, answer: Fixed) -> Path:
    path.write_bytes(msgspec.msgpack.encode(answer))
    return path


@contextmanager
def _rendering(server: Server, paths: Iterator[str], clients: int) -> Iterator[None]:
    """Keep so many clients asking for one cold rendition after the other; on leaving, each gets its last one."""
    stop = threading.Event()
    lock = threading.Lock()
    failures: list[Exception] = []

    def ask() -> None:
        try:
            with connected(server.port) as client:
                while not stop.is_set():
                    with lock:
                        path = next(paths)
                    client.rendition(path)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
