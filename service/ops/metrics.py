"""Metrics of this process for Prometheus, on a separate port that is not public."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

# How long a connection may stay open. A scrape takes milliseconds, and Prometheus gives up after 10 s by default.
SCRAPE_SECONDS = 10.0

# Maximum number of connections, and so of threads, at a time: enough for a few Prometheus servers and people.
MAX_SCRAPES = 32


class CountersView(Protocol):
    """The counters of one kind of response: `edge.CacheCounters`, which this package may not import."""

    evicted: int
    sent_bytes: int

    def by_result(self) -> Mapping[str, int]:
        """Return the number of requests by result."""


class EdgeView(Protocol):
    """The figures of the edge that are exported."""

    @property
    def counters(self) -> Mapping[str, CountersView]:
        """The counters by kind of response."""

    @property
    def stored_bytes(self) -> int:
        """The size of the stored responses in bytes."""

    @property
    def stored_entries(self) -> int:
        """The number of stored responses."""


class EdgeCollector(Collector):
    """Reads the edge's counters at each scrape, so that metrics cost a hit nothing."""

    def __init__(self, edge: EdgeView) -> None:
        """Collect the figures of `edge`."""
        self._edge = edge

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield every metric of the edge with its current value."""
        requests = CounterMetricFamily("darkroom_edge_requests", "Requests by kind of response and result.", labels=["kind", "result"])
        sent = CounterMetricFamily("darkroom_edge_sent_bytes", "Bytes of bodies sent from memory.", labels=["kind"])
        evicted = CounterMetricFamily("darkroom_edge_evicted", "Stored responses that were evicted to make room.", labels=["kind"])
        # A copy, because the event loop's thread may add a kind meanwhile.
        for kind, counters in dict(self._edge.counters).items():
            for result, number in counters.by_result().items():
                requests.add_metric([kind, result], number)
            sent.add_metric([kind], counters.sent_bytes)
            evicted.add_metric([kind], counters.evicted)
        yield from (requests, sent, evicted)
        yield GaugeMetricFamily(
            "darkroom_edge_kept_bytes", "Size of the stored responses in bytes, including bookkeeping.", self._edge.stored_bytes
        )
        yield GaugeMetricFamily("darkroom_edge_kept_entries", "Number of stored responses.", self._edge.stored_entries)


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


def serve(edge: EdgeView, host: str, port: int) -> None:
    """Serve `/metrics` on a port from daemon threads.

    Raises:
        OSError: The port is in use, or the address is not one of this machine.
    """
    registry = CollectorRegistry()
    registry.register(EdgeCollector(edge))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    server = _Server(host, port)
    server.set_app(make_wsgi_app(registry))
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
