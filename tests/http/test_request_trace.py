"""Which requests are traced, and where the trace comes from and goes to: the middleware with OpenTelemetry's SDK and a real receiver."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import anyio.to_thread
import pytest

from service.concurrency.spans import current_span, stage
from service.http.request_trace import RequestTrace
from service.instruments import current_trace_id
from service.ops import open_telemetry
from service.ops.open_telemetry import Tracing
from service.ops.tracing import open_tracing
from tests.support.otlp import OtlpReceiver, otlp_receiver
from tests.support.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.anyio

TRACE, PARENT, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "b7ad6b7169203331"


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as receiver:
        yield receiver


async def traced(
    monkeypatch: pytest.MonkeyPatch, receiver: OtlpReceiver, *requests: list[tuple[bytes, bytes]], method: str = "GET", **variables: str
) -> tuple[list[Any], list[tuple[bytes, bytes]]]:
    """Return the spans of requests with these header fields, and the fields of the last response."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # However busy the machine is.
    monkeypatch.setattr(open_telemetry, "_FLUSH_SECONDS", PATIENCE_SECONDS)
    known = {span.id for span in receiver.spans()}
    tracing = open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, **variables}, version="1.0", region="arn").tracing
    assert isinstance(tracing, Tracing)
    sent: list[tuple[bytes, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with stage("a stage", some_number=1):
            span = current_span.get()
            assert current_trace_id() == (None if span is None else span.trace_id), "exemplars have the same id"
        headers = [(b"cache-status", b"darkroom; fwd=method"), (b"fly-replay", b"region=lhr")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"body"})

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            sent[:] = message["headers"]

    middleware = RequestTrace(cast(Any, app), tracing, lambda path: "health" if path == "/health" else "page")
    for headers in requests:
        path = "/health" if (b"x-health", b"1") in headers else "/p"
        await middleware(cast(Any, {"type": "http", "method": method, "path": path, "headers": headers}), receive, send)
    await tracing.aclose()
    return [span for span in receiver.spans() if span.id not in known], sent


async def test_request_without_trace_context_starts_a_trace(monkeypatch: pytest.MonkeyPatch, receiver: OtlpReceiver) -> None:
    (root, child), fields = await traced(monkeypatch, receiver, [])
    assert (root.name, root.kind, root.parent, child.name, child.parent) == ("GET page", "SERVER", "", "a stage", root.id)
    assert child.attributes == {"darkroom.some.number": 1}
    assert root.attributes["http.response.body.size"] == 4
    assert root.resource == root.resource | {"service.name": "darkroom", "service.version": "1.0", "cloud.region": "arn"}
    # Fly's proxy takes the trace along. The flags say that it is sampled, and that its id is random.
    assert (b"fly-replay", f"region=lhr;state=00-{root.trace}-{root.id}-03".encode()) in fields


@pytest.mark.parametrize(
    ("headers", "parent"),
    [
        ([(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())], PARENT),
        ([(b"fly-replay-src", f"instance=1;region=arn;t=1;state=00-{TRACE}-{SPAN}-01".encode())], SPAN),
        (
            [
                (b"traceparent", f"00-{TRACE[::-1]}-{PARENT}-01".encode()),
                (b"fly-replay-src", f"region=arn;state=00-{TRACE}-{SPAN}-01;t=1".encode()),
            ],
            SPAN,
        ),
        ([(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode()), (b"fly-replay-src", b"instance=1;region=arn")], PARENT),
    ],
)
async def test_request_with_trace_context_continues_the_trace(
    monkeypatch: pytest.MonkeyPatch, receiver: OtlpReceiver, headers: list[tuple[bytes, bytes]], parent: str
) -> None:
    (root, child), _ = await traced(monkeypatch, receiver, headers)
    assert (root.trace, root.parent, child.trace) == (TRACE, parent, TRACE)


@pytest.mark.parametrize(
    "value",
    [b"", b"00", b"x" * 5_000, f"00-{'0' * 32}-{PARENT}-01".encode(), f"ff-{TRACE}-{PARENT}-01".encode(), b"00-\x80-\xff-\t-", b"\x00\r\n"],
)
async def test_hostile_trace_context_starts_a_trace_of_its_own(
    monkeypatch: pytest.MonkeyPatch, receiver: OtlpReceiver, value: bytes
) -> None:
    hostile = [(b"traceparent", value), (b"tracestate", b"=,=" * 500), (b"fly-replay-src", b"state=;state=" + value)]
    (root, _), _ = await traced(monkeypatch, receiver, hostile)
    assert root.parent == ""
    twice = [(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())] * 2
    (root, _), _ = await traced(monkeypatch, receiver, twice)
    assert root.parent == ""


async def test_sampler_decides_once_for_each_request(monkeypatch: pytest.MonkeyPatch, receiver: OtlpReceiver) -> None:
    spans, _ = await traced(
        monkeypatch,
        receiver,
        *([[]] * 2_000),
        OTEL_TRACES_SAMPLER="traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0.1",
        OTEL_BSP_MAX_QUEUE_SIZE="9000",
    )
    roots = [span for span in spans if span.kind == "SERVER"]
    # Seven standard deviations around two hundred.
    assert 106 < len(roots) < 294
    assert len(spans) == 2 * len(roots), "a request that is sampled has all of its stages"


async def test_request_that_its_sender_has_not_sampled_is_not_traced(monkeypatch: pytest.MonkeyPatch, receiver: OtlpReceiver) -> None:
    not_sampled = [(b"traceparent", f"00-{TRACE}-{PARENT}-00".encode())]
    assert await traced(monkeypatch, receiver, not_sampled) == (
        [],
        [(b"cache-status", b"darkroom; fwd=method"), (b"fly-replay", b"region=lhr")],
    )
    spans, _ = await traced(monkeypatch, receiver, not_sampled, OTEL_TRACES_SAMPLER="always_on")
    assert [span.parent for span in spans if span.kind == "SERVER"] == [PARENT], "this sampler does not care"


async def test_health_checks_are_not_traced_and_methods_of_clients_own_making_have_one_name(
    monkeypatch: pytest.MonkeyPatch, receiver: OtlpReceiver
) -> None:
    spans, _ = await traced(monkeypatch, receiver, [(b"x-health", b"1")], [], method="BREW")
    assert [(span.name, span.attributes.get("http.request.method")) for span in spans if span.kind == "SERVER"] == [("HTTP page", "_OTHER")]


async def test_endpoint_that_redirects_does_not_count_as_working(monkeypatch: pytest.MonkeyPatch) -> None:
    with otlp_receiver() as elsewhere:
        elsewhere.status = 302
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", elsewhere.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        tracing = open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": elsewhere.url}, version="1.0").tracing
        assert tracing is not None
        sample = tracing.sample([])
        assert sample is not None
        with tracing.request(sample, "GET", "page"):
            pass
        await anyio.to_thread.run_sync(wait_until, lambda: sum(tracing.spans.values()) > 0)
        assert tracing.spans == {"exported": 0, "failed": 1}
        assert tracing.issue is not None
        # The end of a process does not wait for an endpoint that fails, so this closes the connection.
        tracing._exporter.shutdown()
