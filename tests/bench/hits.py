"""Hits: the cost that the edge adds to an ASGI function that only sends, and whether renders slow hits down."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import msgspec

from tests.bench import load, measure, servers
from tests.bench.bare import ENTRIES, ENTRY_BODY_BYTES, RESPONSE_FILE, FixedResponse
from tests.bench.bench import Bench
from tests.bench.client import Client, Response, connected
from tests.bench.load import RequestPattern
from tests.bench.measure import Comparison, alternate, percentile
from tests.bench.report import Row, comparison_row
from tests.bench.servers import MeasuredServer

BODY_BYTES = 20_000

_ADDED_BY_GRANIAN = frozenset({"date", "server"})
_TIMES = frozenset({"age", "cache-status"})

_HITS_PER_SECOND = 200
_AVIF_WIDTHS = range(1_500, 2_500, 3)


def hit(bench: Bench) -> list[Row]:
    """Return the CPU time of a hit of about 20 kB."""
    path = _path_of_size(bench, BODY_BYTES)
    response = _get_hit(bench.client, path)
    return [
        _compare_with_fixed(
            "hit, CPU per request", bench, response, RequestPattern(path), f"{len(response.body):,} bytes, {len(response.headers)} fields"
        )
    ]


def not_modified(bench: Bench) -> list[Row]:
    """Return the CPU time of a hit whose response is 304."""
    path = _path_of_size(bench, BODY_BYTES)
    condition = {"If-None-Match": _get_hit(bench.client, path).header("etag")}
    response = bench.client.get(path, condition)
    if response.status != 304:
        raise RuntimeError(f"expected 304 for {condition}, received {response.status}")
    return [
        _compare_with_fixed("hit 304, CPU per request", bench, response, RequestPattern(path, condition), f"{len(response.headers)} fields")
    ]


def many_entries(bench: Bench) -> list[Row]:
    """Return the CPU time of a hit among very many entries, or no rows if the extent has no entries."""
    entries = bench.extent.entries
    if not entries:
        return []
    response = _get_hit(bench.client, _path_of_size(bench, BODY_BYTES))
    stored_headers = [pair for pair in _headers_of_edge(response) if pair[0] not in _TIMES]
    stored_file = _write_response(bench.folder / "entries-origin", FixedResponse(200, stored_headers, b""))
    sent_file = _write_response(bench.folder / "entries-sent", FixedResponse(200, _headers_of_edge(response), b""))
    count = {ENTRIES: str(entries)}
    with (
        servers.bare("filled_edge", {RESPONSE_FILE: str(stored_file), **count}, within_seconds=180) as edge,
        servers.bare("dict_lookup", {RESPONSE_FILE: str(sent_file), **count}, within_seconds=180) as bare,
    ):
        figures, rates = _alternate_cpu(bench, edge, bare, RequestPattern(entries=entries))
    note = f"{ENTRY_BODY_BYTES:,} bytes each, requested at random; bare is a dict of the same bodies with one header list; {rates}"
    return [comparison_row(f"hit among {entries:,} entries, CPU per request", "µs", figures, 1.10, note=note)]


def while_rendering(bench: Bench) -> list[Row]:
    """Return the p99 latency of a hit while every render process makes AVIF, against the same on an idle server."""
    path = _path_of_size(bench, BODY_BYTES)
    _get_hit(bench.client, path)
    extent = bench.extent
    # Twice as many clients as slots, so that no slot waits for a client.
    clients = 2 * len(measure.render_processes(bench.server.process_id))
    avif_paths = iter([bench.client.rendition_path(bench.photo, "avif", width=width) for width in _AVIF_WIDTHS])
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

    figures = alternate(p99_while_rendering, p99, extent.latency_rounds)
    note = f"{_HITS_PER_SECOND} hits a second; meanwhile the render processes used {median(shares):.1f} cores"
    return [comparison_row("hit p99 while AVIF is made, against idle", "ms", figures, 3, note=note)]


def _compare_with_fixed(name: str, bench: Bench, response: Response, requests: RequestPattern, note: str) -> Row:
    """Return the comparison of a hit with an ASGI function that always sends `response`."""
    file = _write_response(
        bench.folder / f"fixed-{response.status}", FixedResponse(response.status, _headers_of_edge(response), response.body)
    )
    with servers.bare("fixed_response", {RESPONSE_FILE: str(file)}) as bare:
        figures, rates = _alternate_cpu(bench, bench.server, bare, requests)
    return comparison_row(name, "µs", figures, 1.10, note=f"{note}; {rates}")


def _alternate_cpu(bench: Bench, ours: MeasuredServer, bare: MeasuredServer, requests: RequestPattern) -> tuple[Comparison, str]:
    """Return the µs of CPU per request in all processes of each side, and a sentence with their requests per second."""
    seconds = bench.extent.hit_seconds
    rates: dict[int, list[float]] = {ours.process_id: [], bare.process_id: []}

    def microseconds(server: MeasuredServer) -> float:
        before = server.cpu_seconds()
        served = load.hammer(server.port, requests, seconds, bench.folder)
        rates[server.process_id].append(served / seconds)
        return (server.cpu_seconds() - before) / served * 1e6

    figures = alternate(lambda: microseconds(ours), lambda: microseconds(bare), bench.extent.hit_rounds)
    return figures, f"{median(rates[ours.process_id]):,.0f} requests a second, bare {median(rates[bare.process_id]):,.0f}"


def _path_of_size(bench: Bench, wanted_bytes: int) -> str:
    """Return the path of a WebP rendition of about `wanted_bytes`, found from the rule that its size grows about with its area."""
    width = 320
    for _ in range(2):
        response = bench.client.get(bench.client.rendition_path(bench.photo, "webp", width=width))
        width = round(width * math.sqrt(wanted_bytes / len(response.body)))
    path = bench.client.rendition_path(bench.photo, "webp", width=width)
    bench.client.get(path)
    return path


def _get_hit(client: Client, path: str) -> Response:
    client.get(path)
    response = client.get(path)
    if response.status != 200 or "; hit" not in response.header("cache-status"):
        raise RuntimeError(f"expected a hit, received {response.status} {response.headers}")
    return response


def _headers_of_edge(response: Response) -> list[tuple[str, str]]:
    return [pair for pair in response.headers if pair[0] not in _ADDED_BY_GRANIAN]


def _write_response(path: Path, response: FixedResponse) -> Path:
    path.write_bytes(msgspec.msgpack.encode(response))
    return path


@contextmanager
def _rendering(server: MeasuredServer, paths: Iterator[str], clients: int) -> Iterator[None]:
    """Within the block, let `clients` clients request one cold rendition after the other; on leaving, wait for their last ones."""
    stop = threading.Event()
    lock = threading.Lock()
    failures: list[Exception] = []

    def request_renditions() -> None:
        try:
            with connected(server.port) as client:
                while not stop.is_set():
                    with lock:
                        path = next(paths)
                    client.rendition(path)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=request_renditions) for _ in range(clients)]
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
