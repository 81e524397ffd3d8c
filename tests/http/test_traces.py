"""Traces of a real server, received by a real receiver of OTLP: what is in them, and what happens if nobody receives them."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support import images
from tests.support.otlp import OtlpReceiver, ReceivedSpan, otlp_receiver
from tests.support.prometheus import scrape
from tests.support.s3 import Bucket
from tests.support.server import HOST, Server, darkroom, free_port
from tests.support.waiting import wait_until

KEY = "5ca1ab1e" * 8
TOKEN = "a-Token-of-the-Tests_0189"
HEADER = "an-api-key-of-the-collector"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

# Spans arrive at once, not after five seconds.
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def traced(receiver: OtlpReceiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server that traces every request, or those that their senders have sampled."""
    secret = tmp_path_factory.mktemp("secret") / "headers"
    secret.write_text(f"x-api-key={HEADER}\n")
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_EXPORTER_OTLP_HEADERS_FILE": str(secret),
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        **SOON,
    }
    with darkroom(tmp_path_factory.mktemp("traced") / "data", keys=KEY, tokens=TOKEN, unsigned="none", **settings) as server:
        yield server


@pytest.fixture(scope="module")
def signed(traced: Server) -> str:
    """Return the signed path of a rendition that nobody has requested."""
    with traced.client() as client:
        return upload(client)


def upload(client: httpx.Client, seed: int = 0, widths: int = 640) -> str:
    response = client.post(
        "/v1/images", content=images.photo_jpeg(widths, 480, seed=seed), headers={"authorization": f"Bearer {TOKEN}"}
    ).raise_for_status()
    path: str = response.json()["src"]
    return path


def trace_of(receiver: OtlpReceiver, response: httpx.Response, server: Server) -> list[ReceivedSpan]:
    """Return the spans of the request with this response, once the request itself is among them."""
    request_id = response.headers["x-request-id"]

    def roots() -> list[ReceivedSpan]:
        return [span for span in receiver.spans(kind="SERVER") if span.attributes.get("darkroom.request_id") == request_id]

    wait_until(lambda: bool(roots()))
    return receiver.spans(trace=roots()[0].trace)


def test_cold_request_is_one_trace_whose_stages_have_the_right_parents_and_nest(
    receiver: OtlpReceiver, traced: Server, signed: str
) -> None:
    with traced.client() as client:
        cold = client.get(signed)
    assert cold.status_code == 200
    spans = trace_of(receiver, cold, traced)
    by_id = {span.id: span for span in spans}
    shape = [(span.name, by_id[span.parent].name if span.parent else "") for span in spans]
    assert shape == [
        ("GET rendition", ""),
        ("service", "GET rendition"),
        ("store get", "service"),
        ("render queue", "service"),
        ("render", "service"),
        ("decode and operations", "render"),
        ("encode", "render"),
        ("store put", "service"),
        ("store exists", "service"),
    ]
    for span in spans:
        assert span.start_ns <= span.end_ns
        if span.parent:
            assert by_id[span.parent].start_ns <= span.start_ns
            assert span.end_ns <= by_id[span.parent].end_ns
    root = spans[0]
    signature = re.findall(r"[a-z2-7]{26}", signed)[-1]
    assert root.attributes == root.attributes | {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.response.body.size": len(cold.content),
        "url.path": signed.replace(signature, "***"),
        "darkroom.kind": "rendition",
        "darkroom.cache": "uri-miss",
        "darkroom.tier": "render",
    }
    assert not any(span.is_error for span in spans)
    assert root.resource["service.name"] == "darkroom"
    assert root.resource["deployment.environment.name"] == "test"
    keys = [str(span.attributes["darkroom.store.key"]).partition("/")[0] for span in spans if span.name.startswith("store ")]
    # The document is not read: the server knows the facts of an image that it has taken in.
    assert keys == ["renditions", "renditions", "tombstones"]
    # The lines of the log lead to the trace.
    lines = [json.loads(line) for line in traced.log().splitlines()]
    assert {line["event"] for line in lines if line.get("trace_id") == root.trace} == {"rendered", "request"}


def test_hit_is_one_span_and_continues_the_trace_of_its_sender(receiver: OtlpReceiver, traced: Server, signed: str) -> None:
    with traced.client() as client:
        client.get(signed)
        hit = client.get(signed, headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=value"})
        assert "; hit" in hit.headers["cache-status"]
        # The sender has not sampled it.
        client.get(signed, headers={"traceparent": f"00-{TRACE[::-1]}-{PARENT}-00"})
    wait_until(lambda: bool(receiver.spans(trace=TRACE)))
    (span,) = receiver.spans(trace=TRACE)
    assert (span.name, span.kind, span.parent) == ("GET rendition", "SERVER", PARENT)
    assert (span.attributes["darkroom.cache"], span.attributes["darkroom.tier"]) == ("hit", "memory")
    assert not receiver.spans(trace=TRACE[::-1])


def test_upload_and_error_are_traced_with_their_status(receiver: OtlpReceiver, traced: Server) -> None:
    with traced.client() as client:
        missing = client.get("/v1/images/" + "a" * 32, headers={"authorization": f"Bearer {TOKEN}"})
        assert missing.status_code == 404
    spans = trace_of(receiver, missing, traced)
    assert spans[0].attributes["http.response.status_code"] == 404
    assert not spans[0].is_error, "a 404 is the client's error"
    wait_until(lambda: bool(receiver.spans(name="POST api")))
    uploaded = receiver.spans(trace=receiver.spans(name="POST api")[0].trace)
    assert {"receive body", "render", "render queue", "store put"} <= {span.name for span in uploaded}


def test_health_checks_are_not_traced(receiver: OtlpReceiver, traced: Server) -> None:
    with traced.client() as client:
        client.get("/health")
        later = client.get("/nothing")
    trace_of(receiver, later, traced)
    assert not receiver.spans(name="GET health")


def test_no_attribute_has_a_secret(receiver: OtlpReceiver, traced: Server, signed: str) -> None:
    signature = re.findall(r"[a-z2-7]{26}", signed)[-1]
    with traced.client() as client:
        for path in (signed, f"/{TOKEN}?{TOKEN}", f"/from/x/{signature}.webp", f"/v1/uploads/1.1.any.i.{signature}"):
            last = client.get(path, headers={"authorization": f"Bearer {TOKEN}", "x-request-id": "id:17", "cookie": TOKEN})
        client.get("/nothing", headers={"x-request-id": TOKEN})
        raw = b"BREW /%0a%1b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        with socket.create_connection((HOST, traced.port)) as connection:
            connection.sendall(raw)
            while connection.recv(65_536):
                pass
        last = client.get("/nothing")
    trace_of(receiver, last, traced)
    wait_until(lambda: bool(receiver.spans(name="HTTP page")))
    sent = b"".join(receiver.bodies)
    for secret in (KEY, HEADER, TOKEN, signature):
        assert secret.encode() not in sent
    assert {headers["x-api-key"] for headers in receiver.headers} == {HEADER}
    assert HEADER not in traced.log()


@pytest.mark.long
def test_requests_to_a_bucket_are_stages_of_the_store_s(receiver: OtlpReceiver, s3: Bucket, data: Path) -> None:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_SERVICE_NAME": "pictures", **SOON}
    with darkroom(data, store=f"s3://{s3.name}", **s3.environment, **settings) as server, server.client() as client:
        cold = client.get(upload(client, seed=7))
        assert cold.status_code == 200
        spans = trace_of(receiver, cold, server)
    by_id = {span.id: span for span in spans}
    requests = [span for span in spans if span.name == "s3 request"]
    assert len(requests) >= 4
    attempts: dict[str, list[int]] = defaultdict(list)
    for span in requests:
        assert span.kind == "CLIENT"
        assert by_id[span.parent].name.startswith("store ")
        assert span.attributes["server.address"] == HOST
        attempts[span.parent].append(int(str(span.attributes["darkroom.s3.attempt"])))
    # On a busy machine a bucket may be so slow that there is a second attempt.
    assert all(sorted(numbers) == list(range(1, 1 + len(numbers))) for numbers in attempts.values())
    assert spans[0].resource["service.name"] == "pictures"


def test_endpoint_that_is_down_is_reported_once_and_again_when_it_works(data: Path) -> None:
    metrics_port, port = free_port(), free_port()
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{port}", "OTEL_EXPORTER_OTLP_TIMEOUT": "1", **SOON}
    with darkroom(data, metrics_port=metrics_port, **settings) as server, server.client() as client:
        for _ in range(20):
            assert client.get("/nothing").status_code == 404

        def warnings() -> list[str]:
            report: dict[str, list[str]] = client.get("/health").json()
            return [one for one in report.get("warnings", []) if "Traces are not exported" in one]

        wait_until(lambda: len(warnings()) == 1)
        assert client.get("/health").json()["status"] == "ok"
        assert "darkroom_trace_export_failing 1.0" in scrape(metrics_port)
        assert server.log().count("Traces are not exported") == 1
        with otlp_receiver(port) as own:

            def is_received() -> bool:
                client.get("/nothing")
                return bool(own.spans())

            wait_until(is_received)
            wait_until(lambda: "traces are exported again" in server.log())
            assert warnings() == []
            assert 'darkroom_trace_spans_total{result="failed"}' in scrape(metrics_port)
            assert "darkroom_trace_export_failing 0.0" in scrape(metrics_port)
    assert "Traceback" not in server.log()
    assert all(json.loads(line) for line in server.log().splitlines())


@pytest.mark.long
def test_endpoint_that_is_silent_does_not_delay_the_end(data: Path) -> None:
    with socket.create_server((HOST, 0)) as silent:
        endpoint = f"http://{HOST}:{silent.getsockname()[1]}"
        with (
            darkroom(data, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_EXPORTER_OTLP_TIMEOUT="600", **SOON) as server,
            server.client() as client,
        ):
            client.get("/nothing")
            # The exporter waits for the response to this.
            accepted, _ = silent.accept()
            client.get("/nothing")
            before = time.monotonic()
            assert server.stop(signal.SIGTERM) == 0
            # The SDK would wait for thirty seconds.
            assert time.monotonic() - before < 25
            accepted.close()
