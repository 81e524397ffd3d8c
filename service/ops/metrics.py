"""Metrics: what this process does, in Prometheus' words, on a port of its own that is not public."""

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

# From its first byte to its last a scrape takes milliseconds, and Prometheus gives up after 10 s by default.
SCRAPE_SECONDS = 10.0

# Connections, and threads, at a time: a few Prometheus servers and people.
MAX_SCRAPES = 32

_RESULTS = ("hits", "stale", "misses", "revalidated", "collapsed", "passed", "elsewhere", "busy")


class Counted(Protocol):
    """How often requests for one kind of answer were answered in which way, entries evicted, and bytes sent from memory."""

    hits: int
    stale: int
    misses: int
    revalidated: int
    collapsed: int
    passed: int
    elsewhere: int
    busy: int
    evicted: int
    bytes: int


class EdgeFigures(Protocol):
    """What the edge counts, by kind of answer, and what it keeps."""

    @property
    def counts(self) -> Mapping[str, Counted]:
        """How often what was done, by kind of answer."""

    @property
    def kept_bytes(self) -> int:
        """What the kept answers count for, in bytes."""

    @property
    def kept_entries(self) -> int:
        """How many answers are kept."""


class EdgeCollector(Collector):
    """Reads the edge's plain numbers when somebody asks: nothing is counted twice, and a hit pays for none of this."""

    def __init__(self, edge: EdgeFigures) -> None:
        """Take what is asked."""
        self._edge = edge

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Give every figure of this moment."""
        counts = dict(self._edge.counts)
        requests = CounterMetricFamily("darkroom_edge_requests", "Requests by how the edge answered them.", labels=["kind", "result"])
        sent = CounterMetricFamily("darkroom_edge_sent_bytes", "Bytes of bodies sent from memory.", labels=["kind"])
        evicted = CounterMetricFamily("darkroom_edge_evicted", "Kept answers that had to go to make room.", labels=["kind"])
        for kind, count in counts.items():
            for result in _RESULTS:
                requests.add_metric([kind, result], getattr(count, result))
            sent.add_metric([kind], count.bytes)
            evicted.add_metric([kind], count.evicted)
        yield from (requests, sent, evicted)
        yield GaugeMetricFamily("darkroom_edge_kept_bytes", "What the kept answers count for, bookkeeping included.", self._edge.kept_bytes)
        yield GaugeMetricFamily("darkroom_edge_kept_entries", "Kept answers.", self._edge.kept_entries)


class _Handler(WSGIRequestHandler):
    """Handles one scrape, without a line of log."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the method that it overrides
        """Log nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, bounded in number and in time.

    A connection is shut down `SCRAPE_SECONDS` after it was accepted, whatever it is doing, and the oldest one when there would be more
    than `MAX_SCRAPES`: connections that send nothing make room for one that sends a request.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int) -> None:
        """Listen on `port` of `host`, IPv4 or IPv6; raises `OSError` where that cannot be."""
        self.address_family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self._accepted: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(address[:2], _Handler)  # type: ignore[arg-type]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Note when the connection was accepted, and hand it to a thread of its own."""
        with self._lock:
            if len(self._accepted) >= MAX_SCRAPES:
                self._shut_down(next(iter(self._accepted)))
            self._accepted[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that has been served."""
        with self._lock:
            self._accepted.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Shut down connections past their time; `serve_forever` calls this at least twice a second."""
        latest = time.monotonic() - SCRAPE_SECONDS
        with self._lock:
            for connection in [one for one, accepted in self._accepted.items() if accepted < latest]:
                self._shut_down(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing of a client that left or was made to."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def _shut_down(self, connection: socket.socket) -> None:
        # Its thread, which reads from it or writes to it, notices and closes it.
        del self._accepted[connection]
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def serve(edge: EdgeFigures, host: str, port: int) -> None:
    """Answer `/metrics` on a port from threads of its own until the process ends; raises `OSError` where that cannot be."""
    registry = CollectorRegistry()
    registry.register(EdgeCollector(edge))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    server = _Server(host, port)
    server.set_app(make_wsgi_app(registry))
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
