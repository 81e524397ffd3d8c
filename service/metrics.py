"""Metrics: what this process does, in Prometheus' words, on a port of its own that is not public."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

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


def serve(edge: EdgeFigures, host: str, port: int) -> None:
    """Answer `/metrics` on a port from a thread of its own until the process ends; raises `OSError` where that cannot be."""
    registry = CollectorRegistry()
    registry.register(EdgeCollector(edge))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    start_http_server(port, host, registry)
