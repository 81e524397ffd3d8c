"""Hits: the cost that the edge adds to an ASGI function that only sends, and whether renders slow hits down."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from service.settings.sections import Settings
from tests.bench import load, measure, servers, sides
from tests.bench.bare import ENTRIES, ENTRY_BODY_BYTES, RESPONSE_FILE, FixedResponse
from tests.bench.bench import Bench
from tests.bench.client import Client, Response, connected
from tests.bench.cold import place
from tests.bench.load import RequestPattern
from tests.bench.measure import alternate, alternate_all, percentile
from tests.bench.report import Row, comparison_row, row
from tests.bench.servers import MeasuredServer
from tests.bench.side import HIT, OpenSide
from tests.bench.sides import DARKROOM, LIBVIPS
from tests.bench.targets import BARE_ASGI, BARE_RSGI

BODY_BYTES = 20_000

# The edge sends the `Date` of the stored response, so that Granian does not add one.
_ADDED_BY_GRANIAN = frozenset({"server"})
_TIMES = frozenset({"age", "cache-status", "date"})

_HITS_PER_SECOND = 200
_AVIF_WIDTHS = range(1_500, 2_500, 3)


class _Hit(NamedTuple):
    """A response that a server has in its cache: the request for it, and for a 304, `None` if the server sends none."""

    server: MeasuredServer
    whole: RequestPattern
    conditional: RequestPattern | None


def hit(bench: Bench) -> list[Row]:
    """Return the CPU time of a hit of about 20 kB, and of one whose response is 304, of all servers that cache renditions."""
    path = _path_of_size(bench, BODY_BYTES)
    whole = _get_hit(bench.client, path)
    condition = {"If-None-Match": whole.header("etag")}
    not_modified = bench.client.get(path, condition)
    if not_modified.status != 304:
        raise RuntimeError(f"expected 304 for {condition}, received {not_modified.status}")
    peers = [side for side in bench.sides if side.name not in {DARKROOM, *LIBVIPS}]
    with sides.opened(peers, partial(place, bench, "hit")) as running:
        hits = {name: _hit_of(side) for name, side in running.items() if side.caches and side.supports(HIT)}
        of_whole = {name: (each.server, each.whole) for name, each in hits.items()}
        of_conditional = {name: (each.server, each.conditional) for name, each in hits.items() if each.conditional is not None}
        return [
            _compare_with_fixed("hit, CPU per request", bench, whole, RequestPattern(path), of_whole),
            _compare_with_fixed("hit 304, CPU per request", bench, not_modified, RequestPattern(path, condition), of_conditional),
        ]


def _hit_of(side: OpenSide) -> _Hit:
    if side.server is None:
        raise ValueError("only servers have hits")
    whole = RequestPattern(side.cold_path(HIT), side.headers(HIT))
    with connected(side.server.port) as client:
        client.get(whole.path, whole.headers)
        etag = client.get(whole.path, whole.headers).header("etag")
        conditional = RequestPattern(whole.path, {**whole.headers, "If-None-Match": etag})
        responds = bool(etag) and client.get(conditional.path, conditional.headers).status == 304
    return _Hit(side.server, whole, conditional if responds else None)


def many_entries(bench: Bench) -> list[Row]:
    """Return the CPU time of a hit among very many entries, or no rows if the extent has no entries."""
    entries = bench.extent.entries
    if not entries:
        return []
    figures, rates = among_entries(bench, entries)
    note = f"{entries:,} entries of {ENTRY_BODY_BYTES:,} bytes, requested at random; bare is a dict of them with one header list; {rates}"
    return [row("hit among many entries, CPU per request", figures, note)]


def among_entries(bench: Bench, entries: int) -> tuple[dict[str, list[float]], str]:
    """Return the µs of CPU of a hit among so many entries with bodies of their own, and of a look-up in a dict of them; and the rates."""
    response = _get_hit(bench.client, _path_of_size(bench, BODY_BYTES))
    stored_headers = [pair for pair in _headers_of_edge(response) if pair[0] not in _TIMES]
    stored_file = _write_response(bench.folder / "entries-origin", FixedResponse(200, stored_headers, b""))
    sent_file = _write_response(bench.folder / "entries-sent", FixedResponse(200, _headers_of_edge(response), b""))
    count = {ENTRIES: str(entries)}
    with (
        servers.bare("filled_edge", {RESPONSE_FILE: str(stored_file), **count}, within_seconds=180) as edge,
        servers.bare("dict_lookup", {RESPONSE_FILE: str(sent_file), **count}, within_seconds=180) as bare,
    ):
        requests = RequestPattern(entries=entries)
        return alternate_cpu(bench, {DARKROOM: (edge, requests), BARE_ASGI: (bare, requests)})


@contextmanager
def one_hit(bench: Bench) -> Iterator[dict[str, tuple[MeasuredServer, RequestPattern]]]:
    """Yield the server with a request for a hit of about 20 kB, and an ASGI function that always sends the same response."""
    path = _path_of_size(bench, BODY_BYTES)
    response = _get_hit(bench.client, path)
    sent = FixedResponse(response.status, _headers_of_edge(response), response.body)
    file = _write_response(bench.folder / "one-hit", sent)
    with servers.bare("fixed_response", {RESPONSE_FILE: str(file)}) as bare:
        yield {DARKROOM: (bench.server, RequestPattern(path)), BARE_ASGI: (bare, RequestPattern(path))}


def while_rendering(bench: Bench) -> list[Row]:
    """Return the p99 latency of a hit while every render process makes AVIF, against the same on an idle server."""
    path = _path_of_size(bench, BODY_BYTES)
    _get_hit(bench.client, path)
    extent = bench.extent
    # Twice as many clients as slots, so that no slot waits for a client.
    clients = 2 * Settings().rendering.processes
    avif_paths = iter([bench.client.rendition_path(bench.photo, "avif", width=width) for width in _AVIF_WIDTHS])
    shares: list[float] = []

    def p99() -> float:
        return percentile(load.at_constant_rate(bench.server.port, path, _HITS_PER_SECOND, extent.latency_seconds), 0.99) * 1e3

    def p99_while_rendering() -> float:
        with _rendering(bench.server, avif_paths, clients):
            before = measure.cpu_seconds(measure.render_processes(bench.server.process_id))
            latency = p99()
            after = measure.cpu_seconds(measure.render_processes(bench.server.process_id))
            shares.append((after - before) / extent.latency_seconds)
        return latency

    figures = alternate(p99_while_rendering, p99, extent.latency_rounds)
    note = f"{_HITS_PER_SECOND} hits a second; meanwhile the render processes used {median(shares):.1f} cores"
    return [comparison_row("hit p99 while AVIF is made", figures, note)]


def _compare_with_fixed(
    name: str, bench: Bench, response: Response, requests: RequestPattern, others: Mapping[str, tuple[MeasuredServer, RequestPattern]]
) -> Row:
    """Return the comparison of a hit with ASGI and RSGI functions that always send `response`, and with other servers."""
    sent = FixedResponse(response.status, _headers_of_edge(response), response.body)
    environ = {RESPONSE_FILE: str(_write_response(bench.folder / f"fixed-{response.status}", sent))}
    factories = {BARE_ASGI: "fixed_response", **({BARE_RSGI: "fixed_rsgi"} if bench.extent.rsgi else {})}
    with ExitStack() as stack:
        bare = {each: (stack.enter_context(servers.bare(factory, environ)), requests) for each, factory in factories.items()}
        figures, rates = alternate_cpu(bench, {DARKROOM: (bench.server, requests), **bare, **others})
    rsgi = f"; {BARE_RSGI} {median(figures[BARE_RSGI]):.1f} µs" if BARE_RSGI in figures else ""
    note = f"{len(response.body):,} bytes, {len(response.headers)} fields{rsgi}; {rates}"
    return row(name, figures, note)


def alternate_cpu(bench: Bench, targets: Mapping[str, tuple[MeasuredServer, RequestPattern]]) -> tuple[dict[str, list[float]], str]:
    """Return the µs of CPU per request in all processes of each side, and a phrase with their requests per second."""
    seconds = bench.extent.hit_seconds
    rates: dict[str, list[float]] = defaultdict(list)

    def microseconds(name: str) -> float:
        server, requests = targets[name]
        before = server.cpu_seconds()
        served = load.hammer(server.port, requests, seconds, bench.folder)
        rates[name].append(served / seconds)
        return (server.cpu_seconds() - before) / served * 1e6

    figures = alternate_all({name: partial(microseconds, name) for name in targets}, bench.extent.hit_rounds)
    return figures, "requests per second: " + ", ".join(f"{name} {median(found):,.0f}" for name, found in rates.items())


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
