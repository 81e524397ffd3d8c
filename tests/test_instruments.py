"""The instruments of the service: what they record, what they need without metrics, and which trace an observation belongs to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from service import instruments
from service.concurrency.spans import Span, current_span
from service.instruments import current_trace_id, tracing_request

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01".encode("ascii")


def samples(registry: CollectorRegistry) -> Mapping[tuple[str, ...], float]:
    return {(sample.name, *sample.labels.values()): sample.value for family in registry.collect() for sample in family.samples}


def test_instruments_that_are_not_enabled_record_nothing_and_import_no_client() -> None:
    code = (
        "import sys; from service import instruments; instruments.TAKEDOWNS.add(); instruments.UPLOADS.add('created');"
        "instruments.STORE_SECONDS.observe(1.0, 'get'); print('prometheus_client' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_counters_begin_at_zero_for_every_value_of_their_labels(registry: CollectorRegistry) -> None:
    found = samples(registry)
    assert [series[1] for series in found if series[0] == "darkroom_uploads_total"] == list(instruments.UPLOADS.labels["result"])
    instruments.UPLOADS.add("known")
    instruments.UPLOAD_BYTES.add(amount=7)
    found = samples(registry)
    assert [found["darkroom_uploads_total", result] for result in ("created", "known")] == [0, 1]
    assert found["darkroom_upload_bytes_total",] == 7


def test_block_that_fails_is_measured_too(registry: CollectorRegistry) -> None:
    with pytest.raises(OSError, match="down"), instruments.STORE_SECONDS.measuring("get"):
        raise OSError("down")
    assert samples(registry)["darkroom_store_seconds_count", "get"] == 1


@pytest.mark.parametrize(
    ("values", "trace"),
    [
        ([PARENT], TRACE),
        ([b" " + PARENT + b"\t"], TRACE),
        ([PARENT[:-2] + b"03"], TRACE),
        ([b"cc" + PARENT[2:] + b"-more"], TRACE),
        ([], None),
        ([PARENT[:-2] + b"00"], None),
        ([PARENT, PARENT], None),
        ([PARENT + b"-more"], None),
        ([b"ff" + PARENT[2:]], None),
        ([PARENT.upper()], None),
        ([b"00-" + b"0" * 32 + PARENT[35:]], None),
        ([PARENT[:36] + b"0" * 16 + b"-01"], None),
        ([PARENT[:-1]], None),
        ([b"\xff" * 55], None),
        ([b""], None),
    ],
)
def test_trace_of_a_request_is_that_of_its_traceparent_if_it_is_sampled(values: list[bytes], trace: str | None) -> None:
    with tracing_request([(b"host", b"x"), *((b"traceparent", value) for value in values)]):
        assert current_trace_id() == trace
    assert current_trace_id() is None


def test_trace_of_a_request_that_is_recorded_here_is_that_of_its_span(registry: CollectorRegistry) -> None:
    span = SimpleNamespace(trace_id="4bf92f3577b34da6a3ce929d0e0e4736")
    token = current_span.set(cast(Span, span))
    try:
        with tracing_request([(b"traceparent", PARENT)]):
            instruments.STORE_SECONDS.observe(0.2, "get")
    finally:
        current_span.reset(token)
    (exemplar,) = (sample.exemplar for family in registry.collect() for sample in family.samples if sample.exemplar)
    assert exemplar.labels == {"trace_id": span.trace_id}
    assert exemplar.value == 0.2
