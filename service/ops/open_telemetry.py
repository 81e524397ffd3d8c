"""The spans of OpenTelemetry's SDK. Imported only where traces are on: its packages are an extra, and slow to import."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from random import getrandbits
from typing import NamedTuple, TypeVar

import anyio.to_thread
import requests
import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.re import parse_env_headers

from service.concurrency.spans import Attribute, current_span

log = structlog.get_logger(__name__)

# How long the end of the process waits for the last spans.
_FLUSH_SECONDS = 1.0

# W3C Trace Context §3.3.1.1: vendors should propagate at least so many characters.
_MAX_TRACESTATE_BYTES = 512

# The fields of a request that may name the sender's span.
_CONTEXT_FIELDS = (b"traceparent", b"fly-replay-src", b"tracestate")

_NAMESPACE = "darkroom."

# For a method that is not registered, as OpenTelemetry's conventions for HTTP have it.
OTHER_METHOD = "_OTHER"


class _Ids(RandomIdGenerator):
    """Gives the next trace the id for which it was sampled."""

    next_trace_id = 0

    def generate_trace_id(self) -> int:
        return self.next_trace_id or super().generate_trace_id()


class Sample(NamedTuple):
    """A request that is traced: the id of its trace if it has no parent, and the sender's span if it has one."""

    trace_id: int
    parent: Context | None


class Tracing:
    """Decides which requests are traced, records them, and exports what was recorded."""

    def __init__(self, endpoint: str, *, headers: str, version: str, region: str, machine: str) -> None:
        """Start to export, as the environment configures it.

        endpoint: its host and port, for messages.
        headers: the fields of its requests, as in `OTEL_EXPORTER_OTLP_HEADERS`, which may be in a file that the SDK does not know.
        version: that of Darkroom.
        region, machine: where this process runs, empty if that is not known.
        """
        named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        facts = {"service.name": "" if named else "darkroom", "service.instance.id": machine, "cloud.region": region}
        resource = Resource.create({"service.version": version, **{name: value for name, value in facts.items() if value}})
        self._ids = _Ids()
        provider = TracerProvider(resource=resource, shutdown_on_exit=False, id_generator=self._ids)
        # The provider has read the sampler from the environment. It is asked before a span is made, and not again.
        self._sampler = provider.sampler
        provider.sampler = ALWAYS_ON
        self._bound = _root_bound(os.environ)
        self._propagator = TraceContextTextMapPropagator()
        exporter = OTLPSpanExporter(headers=parse_env_headers(headers, liberal=True) or None, session=_session())
        self._exporter = ReportingExporter(exporter, endpoint)
        self._processor = BatchSpanProcessor(self._exporter)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("darkroom", version)
        # They would report each failure, and each span that is dropped.
        for name in ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal", "opentelemetry.sdk.trace.export"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    @property
    def issue(self) -> str | None:
        """Why traces are not exported at present, `None` while they are."""
        return self._exporter.issue

    @property
    def spans(self) -> Mapping[str, int]:
        """The number of spans by result, `exported` or `failed`."""
        return {"exported": self._exporter.exported, "failed": self._exporter.failed}

    def sample(self, headers: Iterable[tuple[bytes, bytes]]) -> Sample | None:
        """Return the sample that a request with these header fields is, `None` for most. It is called for every hit."""
        trace_id = getrandbits(128)
        for name, _ in headers:
            if name in _CONTEXT_FIELDS:
                break
        else:
            # As the sampler would decide, in a tenth of its time.
            return Sample(trace_id, None) if trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < self._bound else None
        parent = self._parent(headers)
        decision = self._sampler.should_sample(parent, trace_id, "request", SpanKind.SERVER).decision
        return Sample(trace_id, parent) if decision is Decision.RECORD_AND_SAMPLE else None

    def request(self, sample: Sample, method: str, kind: str) -> AbstractContextManager[RequestSpan]:
        """Return a context that records a request that is sampled.

        method: one that is registered, or `OTHER_METHOD`.
        kind: that of the request, of which there are few.
        """
        self._ids.next_trace_id = sample.trace_id
        name = f"{'HTTP' if method == OTHER_METHOD else method} {kind}"
        span = self._tracer.start_span(name, sample.parent, SpanKind.SERVER, {"http.request.method": method, "darkroom.kind": kind})
        self._ids.next_trace_id = 0
        return _current(RequestSpan(span, self._tracer))

    async def aclose(self) -> None:
        """Export the last spans, unless the endpoint is failing or does not respond within `_FLUSH_SECONDS`."""
        if self._exporter.issue is not None:
            return
        # A daemon: the end of the process does not wait for it.
        flush = threading.Thread(target=self._processor.shutdown, name="traces", daemon=True)
        flush.start()
        await anyio.to_thread.run_sync(flush.join, _FLUSH_SECONDS)

    def _parent(self, headers: Iterable[tuple[bytes, bytes]]) -> Context | None:
        """Return the sender's span. A request that Fly's proxy has replayed here has it from the region that the request came to first."""
        fields: dict[bytes, list[bytes]] = {name: [] for name in _CONTEXT_FIELDS}
        for name, value in headers:
            if name in fields:
                fields[name].append(value)
        parents, replays, states = fields.values()
        if replays:
            parents = [value.partition(b"state=")[2].partition(b";")[0] for value in replays if b"state=" in value] or parents
        if len(parents) != 1:
            return None
        carrier = {"traceparent": parents[0].decode("latin-1").strip()}
        state = b",".join(states)
        if state and len(state) <= _MAX_TRACESTATE_BYTES:
            carrier["tracestate"] = state.decode("latin-1")
        return self._propagator.extract(carrier)


class RecordedSpan:
    """A span of OpenTelemetry, as the service uses it."""

    __slots__ = ("_tracer", "otel_span", "trace_id")

    def __init__(self, span: trace.Span, tracer: trace.Tracer) -> None:
        self.otel_span = span
        self._tracer = tracer
        self.trace_id = f"{span.get_span_context().trace_id:032x}"

    def child(self, name: str, attributes: dict[str, Attribute], *, calls: str = "") -> AbstractContextManager[RecordedSpan]:
        """Return a context that is recorded as a stage of this one, and is the current span within."""
        span = self._tracer.start_span(
            name,
            set_span_in_context(self.otel_span),
            SpanKind.CLIENT if calls else SpanKind.INTERNAL,
            {**_named(attributes), **({"server.address": calls} if calls else {})},
        )
        return _current(RecordedSpan(span, self._tracer))

    def record(self, name: str, start: float, end: float, attributes: dict[str, Attribute]) -> None:
        """Record a stage that has ended."""
        now, now_ns = time.perf_counter(), time.time_ns()
        start_ns, end_ns = (now_ns - int((now - seconds) * 1e9) for seconds in (start, end))
        span = self._tracer.start_span(name, set_span_in_context(self.otel_span), attributes=_named(attributes), start_time=start_ns)
        span.end(end_ns)


class RequestSpan(RecordedSpan):
    """The span of a request."""

    __slots__ = ()

    @property
    def traceparent(self) -> str:
        """The value of `traceparent` that makes another server's span a child of this one (W3C Trace Context §3.2)."""
        context = self.otel_span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def end_with(self, status: int, attributes: dict[str, Attribute]) -> None:
        """Add the response. status: 0 without one. attributes: with their full names."""
        self.otel_span.set_attributes({**attributes, **({"http.response.status_code": status} if status else {})})
        if status >= 500:
            self.otel_span.set_attribute("error.type", str(status))
            self.otel_span.set_status(StatusCode.ERROR)


SpanT = TypeVar("SpanT", bound=RecordedSpan)


class ReportingExporter(SpanExporter):
    """Exports with another exporter, counts its results, and reports when it begins to fail and when it works again.

    The thread of the SDK calls it; any thread may read the counters.
    """

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        """Export with `exporter`. endpoint: its host and port, for messages."""
        self._exporter = exporter
        self._endpoint = endpoint
        self.exported = 0
        self.failed = 0
        self.issue: str | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export spans, and note whether that succeeded."""
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
            log.exception("traces could not be exported")
        if result is SpanExportResult.SUCCESS:
            self.exported += len(spans)
            if self.issue is not None:
                self.issue = None
                log.warning("traces are exported again", lost=self.failed)
        else:
            self.failed += len(spans)
            if self.issue is None:
                self.issue = (
                    f"Traces are not exported: {self._endpoint} does not accept them. Check OTEL_EXPORTER_OTLP_ENDPOINT and the "
                    "collector; the server works without it."
                )
                log.warning(self.issue)
        return result

    def shutdown(self) -> None:
        """Stop exporting."""
        self._exporter.shutdown()


@contextmanager
def _current(span: SpanT) -> Iterator[SpanT]:
    """Make a span the current one within the block, and end it with the block."""
    token = current_span.set(span)
    try:
        yield span
    except Exception as error:
        # Not its text, which may have anything in it.
        span.otel_span.set_attribute("error.type", type(error).__name__)
        span.otel_span.set_status(StatusCode.ERROR)
        raise
    except BaseException:
        span.otel_span.set_attribute("darkroom.canceled", value=True)
        raise
    finally:
        current_span.reset(token)
        span.otel_span.end()


def _session() -> requests.Session | None:
    """Return the session of the exporter, for which a redirect is a failure: the SDK does not follow it, and takes it for success."""
    if any(name.startswith("OTEL_PYTHON_EXPORTER_OTLP") and name.endswith("CREDENTIAL_PROVIDER") for name in os.environ):
        # The SDK makes one with credentials, unless it is given one.
        return None

    def refuse_redirect(response: requests.Response, *_: object, **__: object) -> None:
        if 300 <= response.status_code < 400:
            response.close()
            raise requests.TooManyRedirects(f"The endpoint redirects with {response.status_code}.")

    session = requests.Session()
    session.hooks["response"].append(refuse_redirect)
    return session


def _root_bound(environ: Mapping[str, str]) -> int:
    """Return the number below which the last 64 bits of a trace's id must be, for a request without a parent to be sampled."""
    sampler = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    rate = 1.0
    if sampler.endswith("always_off"):
        rate = 0.0
    elif sampler.endswith("traceidratio"):
        rate = float(environ.get("OTEL_TRACES_SAMPLER_ARG") or 1)
    return TraceIdRatioBased.get_bound_for_rate(rate)


def _named(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    """Return attributes with the names that they have in the trace."""
    return {_NAMESPACE + name.replace("_", ".", 1): value for name, value in attributes.items()}
