"""The figures and the verdict of a soak."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from tests.bench.measure import percentile
from tests.soak.load import Result
from tests.soak.memory import Sample, average
from tests.soak.phases import DISTURBANCES
from tests.soak.visitors import Measured

MEBIBYTE = 1 << 20

# The memory at the end, as a multiple of that at one third of the run.
MAX_GROWTH = 1.05

# Memory is the mean over this share of the run, because that of render processes depends on what they render at the moment.
_WINDOW_SHARE = 1 / 12

_MAX_SHOWN = 30


_WHAT = """\
Visitors come at random times, and none waits for another. They request renditions that are in memory, whole, with a condition and in
part; renditions that are new, and renditions that are being warmed; documents, listings and pages. They upload with a token and
with upload URLs, change documents, and take images down, which are requested again until the end and have to be 410. They request images
of a source, objects that the source fails to send, and hosts that are not public. They send forged signatures, wrong tokens, invalid
transforms and JSON, uploads that are too large, bytes that are not HTTP, bombs and damaged images, and leave in the middle of a request.

Meanwhile parts fail, one after the other, in three equal rounds:

- Render processes are killed with SIGKILL. A render may then be 500 `render-failed`, and nothing else. An image whose process was killed
  twice is refused for an hour: 422 `render-gave-up`.
- The store fails every fifth request and takes 0.3 s for each, then refuses all connections. Requests that need it may be 503
  `storage-unavailable` until 10 s after it is back. Hits have to go on.
- Forty more renditions are requested in each second than at other times. Those beyond the capacity may be 503 `overloaded`.

Every other response is unexpected: another status, an error that is no problem document, a 503 without `Retry-After`, another `ETag` than
before, a closed connection. The memory at the end may be at most 1.05 times that at one third of the run."""


_BUSY = """\
The machine had other work at the same time. So renders were permitted to be refused or too slow at any time, and the server had twelve
times as long to recover. Latencies are those of that machine."""


class Memory(msgspec.Struct, frozen=True):
    """The means of the proportional set size in bytes: at one third of the run, and at its end."""

    at_one_third: float
    at_the_end: float

    @property
    def growth(self) -> float:
        """The memory at the end as a multiple of that at one third."""
        return self.at_the_end / self.at_one_third


def memory(result: Result) -> Memory:
    """Return the memory of all processes together."""
    return Memory(*(average(result.samples, *window, _total) for window in windows(result.schedule.seconds)))


def server_memory(result: Result) -> Memory:
    """Return the memory of the processes that do not render."""
    return Memory(*(average(result.samples, *window, _server) for window in windows(result.schedule.seconds)))


def windows(seconds: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the two spans of time in which the memory is compared: those before one third, and before the end."""
    return ((seconds * (1 / 3 - _WINDOW_SHARE), seconds / 3), (seconds * (1 - _WINDOW_SHARE), seconds))


def unexpected(result: Result) -> list[Measured]:
    """Return the requests whose outcome is neither what they deserve nor permitted by a disturbance."""
    return [request for request in result.measured if not request.expected]


def complaints(result: Result) -> list[str]:
    """Return why the soak has failed; empty if it has not."""
    found = [f"{request.at:.1f} s, {request.kind}: {request.outcome}; {request.detail}" for request in unexpected(result)]
    if len(found) > _MAX_SHOWN:
        found = [*found[:_MAX_SHOWN], f"and {len(found) - _MAX_SHOWN} more unexpected responses"]
    grown = memory(result)
    if grown.growth > MAX_GROWTH:
        found.append(
            f"memory is {grown.at_the_end / MEBIBYTE:.0f} MiB at the end, {grown.growth:.2f} times the {grown.at_one_third / MEBIBYTE:.0f} "
            f"MiB at one third; expected at most {MAX_GROWTH} times"
        )
    return found


def requests_table(result: Result) -> str:
    """Return the requests by kind as a table in Markdown. Latencies are those of outcomes that the requests deserve."""
    lines = ["| request | number | outcomes | unexpected | p50, ms | p99, ms |", "|---|---|---|---|---|---|"]
    for kind in sorted({request.kind for request in result.measured}):
        found = [request for request in result.measured if request.kind == kind]
        outcomes = Counter(request.outcome + ("" if request.wanted else " \\*" if request.expected else " !") for request in found)
        text = ", ".join(f"{outcome}: {number:,}" for outcome, number in outcomes.most_common())
        bad = sum(not request.expected for request in found)
        lines.append(f"| {kind} | {len(found):,} | {text} | {bad:,} | {_p50_p99(request for request in found if request.wanted)} |")
    return "\n".join(lines)


def phases_table(result: Result) -> str:
    """Return, for each disturbance, how long hits, health checks and misses take, and how many requests it has failed."""
    lines = [
        "| disturbance | seconds | hits, p50 | p99, ms | health, p50 | p99, ms | misses, p50 | p99, ms | failed by it |",
        "|" + "---|" * 9,
    ]
    for disturbance in DISTURBANCES:
        seconds = sum(span.ends - span.begins for span in result.schedule.spans if span.disturbance == disturbance)
        found = [request for request in result.measured if result.schedule.disturbance(request.at) == disturbance]
        if seconds and found:
            cells = " | ".join(
                _p50_p99(request for request in found if request.kind.startswith(kind) and request.wanted)
                for kind in ("hit", "health", "miss")
            )
            failed = sum(request.expected and not request.wanted for request in found)
            lines.append(f"| {disturbance} | {seconds:.0f} | {cells} | {failed:,} |")
    return "\n".join(lines)


def summary(result: Result) -> list[str]:
    """Return the figures of the whole run as sentences."""
    seconds = result.schedule.seconds
    mebibytes = sum(request.bytes for request in result.measured) / MEBIBYTE
    number = len(result.measured)
    replaced = ", ".join(f"{count} that were {reason}" for reason, count in result.replaced.items() if count)
    total, server = memory(result), server_memory(result)
    failed = sum(request.expected and not request.wanted for request in result.measured)
    return [
        f"{number:,} requests in {seconds:.0f} s: {number / seconds:.0f} requests and {mebibytes / seconds:.1f} MiB of bodies per second.",
        f"{len(unexpected(result)):,} unexpected responses; {failed:,} that the disturbances explain.",
        f"{result.killed} render processes were killed. The server replaced {replaced or 'none'}.",
        f"Memory of all processes: {_growth(total)}.",
        f"Memory of the processes that do not render: {_growth(server)}.",
    ]


def page(result: Result, found: Sequence[str], picture: str) -> str:
    """Return the figures as a page of Markdown. `found`: the complaints. `picture`: the file name of the chart."""
    minutes, cores = result.schedule.seconds / 60, len(os.sched_getaffinity(0))
    holds = "No response was unexpected, and memory stayed within its bound."
    verdict = "\n".join(f"- {complaint}" for complaint in found) or holds
    return "\n\n".join([
        "# Everything at once",
        f"Generated by `make soak`, in {minutes:.3g} minutes on {cores} cores, shared by the server, its store and all clients.",
        *([_BUSY] if result.schedule.is_busy else []),
        _WHAT,
        "## Figures",
        "\n".join(f"- {line}" for line in summary(result)),
        verdict,
        f"![Memory, latencies and outcomes over time]({picture})",
        "The lines in the first panel are the means that are compared: those of the quiet seconds before one third, and before the end.",
        "## Latencies while something fails",
        phases_table(result),
        "## Requests",
        "Outcomes with \\* are what a disturbance explains, and those with ! are unexpected. Latencies are those of the other outcomes.",
        requests_table(result) + "\n",
    ])  # fmt: skip


def _growth(found: Memory) -> str:
    before, after = found.at_one_third / MEBIBYTE, found.at_the_end / MEBIBYTE
    return f"{before:.0f} MiB at one third of the run, {after:.0f} MiB at its end, {found.growth:.2f} times as much"


def _p50_p99(requests: Iterable[Measured]) -> str:
    found = sorted(request.seconds * 1e3 for request in requests)
    return f"{percentile(found, 0.5):,.1f} | {percentile(found, 0.99):,.1f}" if found else "– | –"


def _total(sample: Sample) -> float:
    return sample.bytes


def _server(sample: Sample) -> float:
    return sample.server_bytes
