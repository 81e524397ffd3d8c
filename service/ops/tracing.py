"""Traces: OpenTelemetry's SDK exports the spans of sampled requests over OTLP, as the standard `OTEL_*` variables configure it.

Nothing of OpenTelemetry is imported unless an endpoint is configured. The packages are the extra `otel`.

**Sampling** is decided once for each request, by the sampler in `OTEL_TRACES_SAMPLER`, before anything is recorded: most requests are hits,
and one that is not sampled costs a hit little. Stages of a sampled request are always recorded.

**Failures.** Spans are exported in batches by a thread of the SDK, from a queue of bounded length. If the endpoint does not respond, spans
are dropped, and no request waits. The log says once that it fails, and once that it works again; `/health` and the metrics say so too.
At the end of the process the last spans have a second, and none if the endpoint was failing already.

**Attributes** are few, and none has a secret: paths are masked as in the log, and of an error there is only the name of its type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import structlog

if TYPE_CHECKING:
    from service.ops.open_telemetry import Tracing

log = structlog.get_logger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
_SAMPLERS = (
    "always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio",
)  # fmt: skip


class TracingSetup(NamedTuple):
    """The traces of this process: `tracing` if they are on, `issue` if they should be on but cannot."""

    tracing: Tracing | None = None
    issue: str | None = None


def open_tracing(environ: Mapping[str, str], *, version: str, region: str = "", machine: str = "") -> TracingSetup:
    """Return the traces that the environment asks for; write one line of log if they cannot be had.

    version: that of Darkroom.
    region, machine: where this process runs, empty if that is not known.
    """
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    is_wanted = any(environ.get(name) for name in _ENDPOINTS) or exporter == "otlp"
    if not is_wanted or exporter == "none" or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return TracingSetup()
    issue = _unusable(environ)
    if issue is not None:
        log.warning(issue)
        return TracingSetup(issue=issue)
    try:
        from service.ops.open_telemetry import Tracing  # noqa: PLC0415 - see the module's docstring
    except ImportError:
        name = _first(environ, _ENDPOINTS)[0] or "OTEL_TRACES_EXPORTER"
        issue = (
            f"{name} is set, but OpenTelemetry is not installed, so there are no traces. "
            "Run pip install 'darkroom-image-cdn[otel]', or unset it."
        )
        log.warning(issue)
        return TracingSetup(issue=issue)
    headers = _first(environ, _HEADERS)[1]
    try:
        return TracingSetup(Tracing(_endpoint(environ), headers=headers, version=version, region=region, machine=machine))
    except Exception as error:
        # Whatever the SDK refuses, images are served without it.
        log.exception("OpenTelemetry could not be started")
        return TracingSetup(issue=f"There are no traces, because OpenTelemetry could not be started: {type(error).__name__}. See the log.")


def _unusable(environ: Mapping[str, str]) -> str | None:
    """Return why traces cannot be exported, and what to do, `None` if they can."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter not in {"", "otlp"}:
        return f"OTEL_TRACES_EXPORTER is invalid: expected otlp or none, got {exporter!r}. There are no traces."
    name, protocol = _first(environ, _PROTOCOLS)
    if protocol not in {"", "http/protobuf"}:
        return (
            f"{name} is invalid: expected http/protobuf, got {protocol!r}. There are no traces. Unset it, and let the endpoint be the "
            "collector's port for HTTP, usually 4318."
        )
    name, endpoint = _first(environ, _ENDPOINTS)
    if endpoint and not _is_url(endpoint):
        return f"{name} is invalid: expected http:// or https:// and a host, such as http://localhost:4318. There are no traces."
    return _unusable_sampler(environ)


def _unusable_sampler(environ: Mapping[str, str]) -> str | None:
    sampler = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    if sampler and sampler not in _SAMPLERS:
        return f"OTEL_TRACES_SAMPLER is invalid: expected one of {', '.join(_SAMPLERS)}, got {sampler!r}. There are no traces."
    if sampler.endswith("traceidratio") and (text := environ.get("OTEL_TRACES_SAMPLER_ARG")):
        try:
            is_ratio = 0 <= float(text) <= 1
        except ValueError:
            is_ratio = False
        if not is_ratio:
            return f"OTEL_TRACES_SAMPLER_ARG is invalid: expected a number from 0 to 1, got {text!r}. There are no traces."
    return None


def _first(environ: Mapping[str, str], names: Sequence[str]) -> tuple[str, str]:
    """Return the first of these variables that is set, and its value; that for traces goes before that for all signals."""
    return next(((name, environ[name]) for name in names if environ.get(name)), ("", ""))


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _endpoint(environ: Mapping[str, str]) -> str:
    """Return the host and port of the endpoint, without anything that could be a secret."""
    return urlsplit(_first(environ, _ENDPOINTS)[1] or "http://localhost:4318").netloc.rpartition("@")[2]
