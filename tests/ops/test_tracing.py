"""Whether traces are on: nothing is imported without an endpoint, and a setting that cannot be used is one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import structlog

from service.concurrency.spans import current_span, stage
from service.ops.tracing import TracingSetup, open_tracing

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


def opened(environ: Mapping[str, str]) -> TracingSetup:
    return open_tracing(environ, version="1.0")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "pictures", "OTEL_TRACES_SAMPLER": "always_on"},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "true"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
)
def test_traces_that_nobody_asks_for_are_off_without_a_word(environ: dict[str, str], logged: list[structlog.typing.EventDict]) -> None:
    assert opened(environ) == TracingSetup(None, None)
    assert logged == []


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"},
            "OTEL_EXPORTER_OTLP_ENDPOINT is invalid: expected http:// or https:// and a host",
        ),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://[::"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is invalid"),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "expected http/protobuf, got 'grpc'"),
        (
            {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is invalid: expected http/protobuf, got 'http/json'",
        ),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is invalid: expected otlp or none, got 'zipkin'"),
        ({**ENDPOINT, "OTEL_TRACES_SAMPLER": "sometimes"}, "OTEL_TRACES_SAMPLER is invalid: expected one of always_on"),
        (
            {**ENDPOINT, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1%"},
            "OTEL_TRACES_SAMPLER_ARG is invalid: expected a number from 0 to 1, got '1%'",
        ),
        (
            {**ENDPOINT, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "nan"},
            "expected a number from 0 to 1",
        ),
    ],
)
def test_variable_that_cannot_be_used_is_one_line_and_a_warning(
    environ: dict[str, str], message: str, logged: list[structlog.typing.EventDict]
) -> None:
    tracing, issue = opened(environ)
    assert tracing is None
    assert issue is not None
    assert message in issue
    assert [(event["event"], event["log_level"]) for event in logged] == [(issue, "warning")]


def test_endpoint_without_the_extra_is_one_line_that_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, logged: list[structlog.typing.EventDict]
) -> None:
    monkeypatch.delitem(sys.modules, "service.ops.open_telemetry", raising=False)
    # Python reports a module as missing that is None here.
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    tracing, issue = opened(ENDPOINT)
    assert tracing is None
    assert issue == (
        "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed, so there are no traces. Run "
        "pip install 'darkroom-image-cdn[otel]', "
        "or unset it."
    )
    assert [event["event"] for event in logged] == [issue]


def test_server_without_an_endpoint_imports_nothing_of_opentelemetry(tmp_path: Path) -> None:
    code = "import sys, json; from service.asgi import build; build(); print(json.dumps(sorted(sys.modules)))"
    environ = {"PATH": "/usr/bin:/bin", "DARKROOM_DATA": str(tmp_path), "OTEL_SERVICE_NAME": "pictures"}
    # `build` would end this process with its parent, and hold signals back, only while it runs.
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    loaded = json.loads(done.stdout)
    assert "service.ops.tracing" in loaded
    # Of OpenTelemetry, Litestar imports the names of some attributes if they are there.
    assert not [name for name in loaded if name.startswith(("opentelemetry.sdk", "opentelemetry.trace", "service.ops.open_telemetry"))]


def test_stage_without_a_trace_is_nothing() -> None:
    assert current_span.get() is None
    with stage("a stage", calls="example.com", some_number=1) as span:
        assert span is None
