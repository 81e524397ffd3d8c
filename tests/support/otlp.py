"""A real receiver of traces in tests: OTLP over HTTP with protobuf, as collectors speak it (https://opentelemetry.io/docs/specs/otlp/)."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

from tests.support.server import HOST


class ReceivedSpan(NamedTuple):
    """A span as it was received; its ids are hexadecimal, and `parent` is empty for none."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    start_ns: int
    end_ns: int
    attributes: dict[str, object]
    is_error: bool
    resource: dict[str, object]


class OtlpReceiver:
    """Receives traces, or fails with a status."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.status = 200
        self.requests = 0
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self._spans: list[ReceivedSpan] = []
        self._lock = threading.Lock()

    def receive(self, body: bytes, headers: dict[str, str]) -> None:
        """Take one request in."""
        with self._lock:
            self.requests += 1
            self.headers.append(headers)
            if self.status == 200:
                self.bodies.append(body)
                self._spans += _spans(ExportTraceServiceRequest.FromString(body))

    def spans(self, **fields: object) -> list[ReceivedSpan]:
        """Return the spans with these fields so far, in the order of their starts."""
        with self._lock:
            found = [span for span in self._spans if all(getattr(span, name) == value for name, value in fields.items())]
        return sorted(found, key=lambda span: span.start_ns)

    def tree(self, trace: str) -> str:
        """Return a trace as text: each span under its parent, with its duration."""
        spans = self.spans(trace=trace)
        ids = {span.id for span in spans}

        def lines(parent: ReceivedSpan | None, indent: str) -> Iterator[str]:
            for span in spans:
                if (span.parent not in ids) if parent is None else (span.parent == parent.id):
                    yield f"{indent}{span.name:{40 - len(indent)}} {(span.end_ns - span.start_ns) / 1e6:8.2f} ms"
                    yield from lines(span, f"{indent}  ")

        return "\n".join(lines(None, ""))


@contextmanager
def otlp_receiver(port: int = 0) -> Iterator[OtlpReceiver]:
    """Yield a receiver on a port of loopback, by default a free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.receive(body, dict(self.headers.items()))
            reply = ExportTraceServiceResponse().SerializeToString()
            self.send_response(receiver.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parameter's name in the base class
            pass

    with ThreadingHTTPServer((HOST, port), Handler) as server:
        receiver = OtlpReceiver(f"http://{HOST}:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


def _spans(request: ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    for resource_spans in request.resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield ReceivedSpan(
                    span.name,
                    ProtoSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    _attributes(span.attributes),
                    span.status.code == 2,
                    resource,
                )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, object]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)
