"""The metrics that the parts of the service record, each declared once: its name, its meaning, and its labels with all of their values.

A part calls `Counter.add` or `Histogram.observe` where something happens. Nothing is recorded before `enable` has given the instruments to
a registry of Prometheus' client, which is imported only then: without `DARKROOM_METRICS_PORT`, an instrument costs one comparison.

Numbers that exist anyway, such as the length of a queue or the counters of the edge, need no instrument: `ops.metrics` reads them when they
are scraped.

**Labels** are bounded. Each value is in the declaration, or comes from the server's own settings or tables (the name of a source, a
format): never from a request. `job` and `instance` are names of labels that Prometheus adds.

**Exemplars.** An observation in a request that is traced has the trace's id, so that a dashboard leads from a slow one to its trace. The id
is that of the current span (`concurrency.spans`). Without tracing it is that of the request's `traceparent` (W3C Trace Context §3.2) if its
sender has sampled the trace, because others may have recorded it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import product
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from service.concurrency.spans import current_span

if TYPE_CHECKING:
    import prometheus_client
    from prometheus_client import CollectorRegistry

# From the read of a small file to the longest render.
_BOUNDS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

# The version, the ids of the trace and of the sender's span, and the flags. A later version may have more parts.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(?:(?<!^00.{53})-.*)?")
_SAMPLED = 0x01

_request_trace_id: ContextVar[str | None] = ContextVar("request_trace_id", default=None)


class Instrument:
    """What all instruments have: a name without the suffixes that the format adds, and labels."""

    def __init__(self, name: str, documentation: str, labels: Mapping[str, Sequence[str]] = MappingProxyType({})) -> None:
        """Declare a metric.

        name: in Prometheus' spelling, without `_total`.
        documentation: its meaning, as one sentence.
        labels: their values by name; no values for a label whose values are known only at run time.
        """
        self.name = name
        self.documentation = documentation
        self.labels = labels
        _INSTRUMENTS.append(self)

    def enable(self, registry: CollectorRegistry) -> None:
        """Record from now on."""
        raise NotImplementedError


_INSTRUMENTS: list[Instrument] = []


class Counter(Instrument):
    """A number of events, or of bytes, that only rises."""

    _metric: prometheus_client.Counter | None = None

    def enable(self, registry: CollectorRegistry) -> None:
        """Record from now on. The series of values that are known begin at 0, so that their first event is a rise."""
        from prometheus_client import Counter as Metric  # noqa: PLC0415 - see the module's docstring

        self._metric = Metric(self.name, self.documentation, tuple(self.labels), registry=registry)
        if self.labels:
            for values in product(*self.labels.values()):
                self._metric.labels(*values)

    def add(self, *values: str, amount: float = 1.0) -> None:
        """Count `amount` events with these values of the labels."""
        if self._metric is not None:
            (self._metric.labels(*values) if values else self._metric).inc(amount)


class Histogram(Instrument):
    """Durations in seconds."""

    _metric: prometheus_client.Histogram | None = None

    def enable(self, registry: CollectorRegistry) -> None:
        """Record from now on."""
        from prometheus_client import Histogram as Metric  # noqa: PLC0415 - see the module's docstring

        self._metric = Metric(self.name, self.documentation, tuple(self.labels), registry=registry, buckets=_BOUNDS_SECONDS)

    def observe(self, seconds: float, *values: str) -> None:
        """Count a duration with these values of the labels."""
        if self._metric is not None:
            trace_id = current_trace_id()
            metric = self._metric.labels(*values) if values else self._metric
            metric.observe(seconds, None if trace_id is None else {"trace_id": trace_id})

    @contextmanager
    def measuring(self, *values: str) -> Iterator[None]:
        """Count how long the block takes, whether it succeeds or not."""
        started = perf_counter()
        try:
            yield
        finally:
            self.observe(perf_counter() - started, *values)


# The operations of the store; a listing of several pages is one for each page.
StoreOperation: TypeAlias = Literal["get", "exists", "list", "put", "delete"]

_TIERS = ("store", "render")
_LANES = ("renditions", "uploads")
_OPERATIONS: Sequence[StoreOperation] = get_args(StoreOperation)
_JOBS = ("probe", "render", "ladder", "intermediate", "trim", "self-test")
_JOB_RESULTS = (
    "ok", "unsupported", "broken", "too-many-pixels", "too-complex", "too-costly", "damaged", "failed", "bad-transform", "cannot-fit",
    "crashed", "out-of-memory", "timed-out",
)  # fmt: skip

RENDITION_SECONDS = Histogram(
    "darkroom_rendition_seconds",
    "Time until the bytes of a requested rendition were there, by the tier that had them.",
    {"tier": _TIERS},
)
RENDITION_BYTES = Counter("darkroom_rendition_bytes", "Bytes of requested renditions by the tier that had them.", {"tier": _TIERS})

RENDER_SECONDS = Histogram(
    "darkroom_render_seconds",
    "Time of one stage of a render, for requests and in advance.",
    {"format": (), "stage": ("fetch", "decode", "encode")},
)
RENDER_QUEUE_SECONDS = Histogram("darkroom_render_queue_seconds", "Time that a job waited for a render process.", {"lane": _LANES})
RENDER_REFUSALS = Counter(
    "darkroom_render_refusals",
    "Jobs that were refused because too many were waiting, it would have ended too late, or had become too late to start.",
    {"lane": _LANES, "reason": ("full", "late", "expired")},
)
RENDER_JOBS = Counter(
    "darkroom_render_jobs", "Replies of render processes, and jobs that ended their process.", {"kind": _JOBS, "result": _JOB_RESULTS}
)
RENDER_PROCESS_ENDS = Counter(
    "darkroom_render_process_ends",
    "Render processes that ended or were killed, by the reason.",
    {"reason": ("crashed", "out-of-memory", "timed-out", "failed", "grown", "short-of-memory", "idle")},
)
RENDER_START_FAILURES = Counter("darkroom_render_start_failures", "Starts of a render process that failed.")

STORE_SECONDS = Histogram(
    "darkroom_store_seconds",
    "Time of an operation of the store, with its retries; of a listing, the time of each page.",
    {"operation": _OPERATIONS},
)
STORE_ERRORS = Counter(
    "darkroom_store_errors",
    "Operations of the store that failed after their retries.",
    {"operation": _OPERATIONS, "reason": ("unavailable", "full")},
)
STORE_RETRIES = Counter(
    "darkroom_store_retries", "Requests to a bucket that were repeated after a failure or silence.", {"operation": _OPERATIONS}
)
STORE_HEDGES = Counter(
    "darkroom_store_hedged_requests",
    "Requests to a bucket that were sent a second time while the first was silent.",
    {"operation": ("get", "exists")},
)

UPLOADS = Counter(
    "darkroom_uploads", "Files to ingest, uploaded or from a source, by result.", {"result": ("created", "known", "rejected", "failed")}
)
UPLOAD_BYTES = Counter("darkroom_upload_bytes", "Bytes of the files that were ingested, or were known.")
TAKEDOWNS = Counter("darkroom_takedowns", "Images that this process took down.")
WARMED_IMAGES = Counter(
    "darkroom_warmed_images", "Images whose ladder was rendered in advance, or could not be.", {"result": ("warmed", "gone", "failed")}
)
SOURCE_SECONDS = Histogram("darkroom_source_fetch_seconds", "Time of a request to a source.", {"source": ()})
SOURCE_FETCHES = Counter(
    "darkroom_source_fetches",
    "Requests to a source by result.",
    {"source": (), "result": ("fetched", "unchanged", "missing", "rejected", "slow", "failed")},
)


def declared() -> Sequence[Instrument]:
    """Return all instruments, in the order in which they are declared."""
    return tuple(_INSTRUMENTS)


def enable(registry: CollectorRegistry) -> None:
    """Record what happens from now on in a registry."""
    for instrument in _INSTRUMENTS:
        instrument.enable(registry)


def current_trace_id() -> str | None:
    """Return the id of the trace that the current task belongs to, 32 hexadecimal digits, `None` if it is not traced."""
    span = current_span.get()
    return _request_trace_id.get() if span is None else span.trace_id


@contextmanager
def tracing_request(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[None]:
    """Belong to the trace of a request within the block, if its sender has sampled one."""
    token = _request_trace_id.set(_sampled_trace_id(headers))
    try:
        yield
    finally:
        _request_trace_id.reset(token)


def _sampled_trace_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    values = [value for name, value in headers if name == b"traceparent"]
    found = _TRACEPARENT.fullmatch(values[0].strip()) if len(values) == 1 else None
    return found[1].decode("ascii") if found is not None and int(found[2], 16) & _SAMPLED else None
