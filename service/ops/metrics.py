"""Metrics of this process for Prometheus, on a separate port that is not public.

Some are recorded where something happens (`service.instruments`). The collectors here read the others from the parts of the service when
they are scraped, in a thread of the scrape.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Literal, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, disable_created_metrics, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service import instruments
from service.errors import SettingsError
from service.ops.token_usage import TokenUsage

if TYPE_CHECKING:
    from service.library.warming_queue import WarmingQueue
    from service.ops.health import Health
    from service.rendering.pool import RenderPool
    from service.settings.sections import Settings

# How long a connection may stay open. A scrape takes milliseconds, and Prometheus gives up after 10 s by default.
SCRAPE_SECONDS = 10.0

# Maximum number of connections, and so of threads, at a time: enough for a few Prometheus servers and people.
MAX_SCRAPES = 32


class CountersView(Protocol):
    """The counters of one kind of response and one status: `edge.CacheCounters`, which this package may not import."""

    evicted: int
    fetches: int
    sent_bytes: int

    def by_result(self) -> Mapping[str, int]:
        """Return the number of requests by result."""


class HistogramView(Protocol):
    """Durations by size: `edge.counters.LatencyHistogram`."""

    sum_seconds: float

    def buckets(self) -> Sequence[tuple[str, float]]:
        """Return the cumulative counts by upper bound."""


class EdgeView(Protocol):
    """The figures of the edge that are exported."""

    @property
    def hit_seconds(self) -> HistogramView | None:
        """How long hits take, None if that is not measured."""

    @property
    def counters(self) -> Mapping[tuple[str, int], CountersView]:
        """The counters by kind of response and status."""

    @property
    def rejections(self) -> Mapping[Literal["full", "share", "origin"], int]:
        """The number of rejected requests by reason."""

    @property
    def stored_bytes(self) -> int:
        """The size of the stored responses in bytes."""

    @property
    def stored_entries(self) -> int:
        """The number of stored responses."""

    @property
    def waiting_requests(self) -> int:
        """The number of requests that wait for the service."""

    @property
    def max_waiting_requests(self) -> int:
        """The largest number of them."""


class EdgeCollector(Collector):
    """Reads the edge's counters at each scrape, so that counting costs a hit next to nothing."""

    def __init__(self, edge: EdgeView) -> None:
        """Collect the figures of `edge`."""
        self._edge = edge

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of the edge with its current value."""
        yield from self._requests()
        hits = HistogramMetricFamily("darkroom_edge_hit_seconds", "Time of a hit in the edge.")
        if self._edge.hit_seconds is not None:
            hits.add_metric([], list(self._edge.hit_seconds.buckets()), self._edge.hit_seconds.sum_seconds)
        yield hits
        rejected = CounterMetricFamily("darkroom_edge_rejections", "Requests that were rejected, by reason.", labels=["reason"])
        for reason, number in self._edge.rejections.items():
            rejected.add_metric([reason], number)
        yield rejected
        gauges = (
            ("stored_bytes", "Size of the stored responses in bytes, including bookkeeping.", self._edge.stored_bytes),
            ("stored_entries", "Number of stored responses.", self._edge.stored_entries),
            ("waiting_requests", "Requests that wait for the service.", self._edge.waiting_requests),
            ("max_waiting_requests", "Largest number of requests that may wait for the service.", self._edge.max_waiting_requests),
        )
        for name, documentation, value in gauges:
            yield GaugeMetricFamily(f"darkroom_edge_{name}", documentation, value)

    def _requests(self) -> Sequence[Metric]:
        requests = CounterMetricFamily(
            "darkroom_edge_requests", "Responses to clients by kind, status and result.", labels=["kind", "status", "result"]
        )
        fetches = CounterMetricFamily(
            "darkroom_edge_fetches", "Requests to the service by kind of response and its status.", labels=["kind", "status"]
        )
        sent = CounterMetricFamily("darkroom_edge_sent_bytes", "Bytes of bodies sent from memory.", labels=["kind"])
        evicted = CounterMetricFamily("darkroom_edge_evicted", "Stored responses that were evicted to make room.", labels=["kind"])
        sent_by_kind: dict[str, int] = {}
        evicted_by_kind: dict[str, int] = {}
        # A copy, because the event loop's thread may add counters meanwhile.
        for (kind, status), counters in dict(self._edge.counters).items():
            for result, number in counters.by_result().items():
                # Most of the combinations never occur.
                if number:
                    requests.add_metric([kind, str(status), result], number)
            if counters.fetches:
                fetches.add_metric([kind, str(status)], counters.fetches)
            sent_by_kind[kind] = sent_by_kind.get(kind, 0) + counters.sent_bytes
            evicted_by_kind[kind] = evicted_by_kind.get(kind, 0) + counters.evicted
        for kind, number in sent_by_kind.items():
            sent.add_metric([kind], number)
            evicted.add_metric([kind], evicted_by_kind[kind])
        return requests, fetches, sent, evicted


class RenderCollector(Collector):
    """Reads the state of the render pool and of the queue of images to warm at each scrape."""

    def __init__(self, pool: RenderPool, warming_queue: WarmingQueue | None) -> None:
        """Collect the figures of `pool` and `warming_queue`, `None` if no image is warmed."""
        self._pool = pool
        self._warming_queue = warming_queue

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics with their current values."""
        yield GaugeMetricFamily("darkroom_render_slots", "Number of render processes that may run.", self._pool.slot_count)
        yield GaugeMetricFamily("darkroom_render_busy_slots", "Number of render processes with a job.", self._pool.busy_slots)
        waiting = GaugeMetricFamily("darkroom_render_queue_length", "Jobs that wait for a render process.", labels=["lane"])
        work = GaugeMetricFamily("darkroom_render_queue_work_seconds", "Expected work of the jobs that wait.", labels=["lane"])
        for lane, (jobs, seconds) in self._pool.waiting().items():
            waiting.add_metric([lane], jobs)
            work.add_metric([lane], seconds)
        memory = GaugeMetricFamily(
            "darkroom_render_process_resident_memory_bytes", "Memory of the render process in a slot, 0 without one.", labels=["slot"]
        )
        for slot, resident_bytes in enumerate(self._pool.resident_bytes()):
            memory.add_metric([str(slot)], resident_bytes)
        failing = self._pool.start_failure is not None or self._pool.render_failure is not None
        yield from (waiting, work, memory)
        yield GaugeMetricFamily("darkroom_render_failing", "1 if renders of any image seem to fail, 0 if not.", int(failing))
        yield GaugeMetricFamily(
            "darkroom_warming_backlog",
            "Images that wait for their ladder to be rendered in advance; beyond 1,000, only the store knows the others.",
            0 if self._warming_queue is None else self._warming_queue.images_in_memory,
        )


class InfoCollector(Collector):
    """Says which process this is, and how it feels."""

    def __init__(self, health: Health, settings: Settings) -> None:
        """Collect the status of `health`, and the region in `settings`."""
        self._health = health
        self._settings = settings

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics with their current values."""
        _, report = self._health.report()
        fly = self._settings.fly
        yield InfoMetricFamily(
            "darkroom",
            "Version of Darkroom, and where this process runs on Fly.",
            {"version": report.version, "region": fly.region, "primary_region": self._settings.originals_region, "machine": fly.machine_id},
        )
        status = GaugeMetricFamily("darkroom_health", "1 for the current status of /health, 0 for the others.", labels=["status"])
        for each in ("ok", "degraded", "unavailable"):
            status.add_metric([each], int(report.status == each))
        yield status


class TracingView(Protocol):
    """The figures of the traces: `open_telemetry.Tracing`, which is imported only where traces are on."""

    @property
    def issue(self) -> str | None:
        """Why traces are not exported at present."""

    @property
    def spans(self) -> Mapping[str, int]:
        """The number of spans by result."""


class TelemetryCollector(Collector):
    """Reads what became of log lines and traces at each scrape."""

    def __init__(self, omitted_lines: Callable[[], int], tracing: TracingView | None) -> None:
        """Collect the number that `omitted_lines` returns, and the figures of `tracing`, `None` if traces are off."""
        self._omitted_lines = omitted_lines
        self._tracing = tracing

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield the metrics of the log and of the traces."""
        yield CounterMetricFamily(
            "darkroom_log_lines_omitted", "Lines that the log left out because there were too many of their kind.", self._omitted_lines()
        )
        spans = CounterMetricFamily("darkroom_trace_spans", "Spans that were exported, or lost because that failed.", labels=["result"])
        numbers = {"exported": 0, "failed": 0} if self._tracing is None else self._tracing.spans
        for result, number in numbers.items():
            spans.add_metric([result], number)
        yield spans
        failing = self._tracing is not None and self._tracing.issue is not None
        yield GaugeMetricFamily("darkroom_trace_export_failing", "Whether the last export of traces failed, 1 or 0.", int(failing))


class FailuresView(Protocol):
    """The figures of requests with wrong credentials: `http.failures.Failures`, which is in a layer above."""

    refused: int

    @property
    def failed(self) -> Mapping[Literal["token", "signature"], int]:
        """The number of requests by the kind of their credentials."""


class AccessCollector(Collector):
    """Reads the use of tokens and signing keys, and the number of wrong ones, at each scrape."""

    def __init__(self, usage: TokenUsage, key_last_used: Callable[[], Mapping[str, float]], failures: FailuresView) -> None:
        """Collect the figures of `usage` and `failures`, and the Unix times that `key_last_used` returns by the fingerprint of a key."""
        self._failures = failures
        self._usage = usage
        self._key_last_used = key_last_used

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield the metrics of all tokens and keys. One that was never used has no time of its last use."""
        requests = CounterMetricFamily("darkroom_token_requests", "Requests that a token permitted.", labels=["token"])
        received = GaugeMetricFamily("darkroom_token_bytes_today", "Bytes taken in with a token since midnight UTC.", labels=["token"])
        last = GaugeMetricFamily("darkroom_token_last_used_timestamp_seconds", "When a token was used last.", labels=["token"])
        for name, usage in dict(self._usage.by_name).items():
            requests.add_metric([name], usage.requests)
            received.add_metric([name], self._usage.bytes_today(name))
            if usage.last_used:
                last.add_metric([name], usage.last_used)
        keys = GaugeMetricFamily(
            "darkroom_signing_key_last_used_timestamp_seconds",
            "When a signature of a key was accepted last, for a request that no cache answered.",
            labels=["key"],
        )
        for fingerprint, used in self._key_last_used().items():
            if used:
                keys.add_metric([fingerprint], used)
        failed = CounterMetricFamily("darkroom_failed_credentials", "Requests with a wrong token or signature.", labels=["kind"])
        for kind, number in self._failures.failed.items():
            failed.add_metric([kind], number)
        yield from (requests, received, last, keys, failed)
        yield CounterMetricFamily(
            "darkroom_refused_failures", "Further ones, refused because of how many their client had sent.", self._failures.refused
        )


class _Handler(WSGIRequestHandler):
    """Handles one scrape without logging it."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the method that it overrides
        """Log nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    """Serves each connection in a thread of its own, with a limit to their number and duration.

    A connection is shut down `SCRAPE_SECONDS` after it was accepted, even in the middle of a response. If there would be more than
    `MAX_SCRAPES`, the oldest one is shut down, so that idle connections cannot block a scrape.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int) -> None:
        """Listen on a port.

        Parameters:
            host: A name or an address, IPv4 or IPv6.
            port: The TCP port.

        Raises:
            OSError: The port is in use, or the address is not one of this machine.
        """
        self.address_family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self._accepted: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(address[:2], _Handler)  # type: ignore[arg-type]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection that has just been accepted in a thread of its own."""
        with self._lock:
            if len(self._accepted) >= MAX_SCRAPES:
                self._shut_down(next(iter(self._accepted)))
            self._accepted[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection whose response was sent."""
        with self._lock:
            self._accepted.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Shut down connections that have been open too long. `serve_forever` calls this at least twice a second."""
        latest = time.monotonic() - SCRAPE_SECONDS
        with self._lock:
            for connection in [connection for connection, accepted in self._accepted.items() if accepted < latest]:
                self._shut_down(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error, unless the client disconnected or was shut down."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def _shut_down(self, connection: socket.socket) -> None:
        # The thread that reads from it or writes to it gets an error and closes it.
        del self._accepted[connection]
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def create_registry() -> CollectorRegistry:
    """Return a registry in which the service's instruments record from now on, with the metrics of the process and of Python."""
    # A second series for each one, with the time of its first event, would be the age of the process again.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    instruments.enable(registry)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


def serve(registry: CollectorRegistry, collectors: Sequence[Collector], host: str, port: int) -> None:
    """Serve `/metrics` on a port from daemon threads: what is in `registry`, and the metrics of `collectors`.

    Raises:
        SettingsError: The port is in use, or the address is not one of this machine.
    """
    for collector in collectors:
        registry.register(collector)
    try:
        server = _Server(host, port)
    except OSError as error:
        raise SettingsError.invalid("DARKROOM_METRICS_PORT", "a free port", str(port), f"{error.strerror}. Choose another port.") from error
    server.set_app(make_wsgi_app(registry))
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
