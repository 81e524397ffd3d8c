"""First views of warmed renditions: their latency, and that none of them is rendered on request."""

from __future__ import annotations

import time
from statistics import median

import msgspec

from tests.bench import servers
from tests.bench.bench import Bench
from tests.bench.client import Client, Image, connected
from tests.bench.misses import ColdRenditions
from tests.bench.report import Row, row
from tests.bench.servers import MeasuredServer
from tests.bench.sides import DARKROOM
from tests.bench.targets import COLD_RENDER

# Two of the formats that are warmed by default: first views cost the same in all of them.
_WARM = "webp,fallback"
_WARMED_TYPES = frozenset({"image/webp", "image/jpeg"})
_WARM_SECONDS = 60.0
_POLL_SECONDS = 0.05


class _Step(msgspec.Struct, frozen=True):
    url: str


class _Source(msgspec.Struct, frozen=True):
    type: str
    renditions: list[_Step]


class _Document(msgspec.Struct, frozen=True):
    sources: list[_Source]


def first_view(bench: Bench) -> list[Row]:
    """Return the latency of the first request for each rendition of a warmed ladder, and how many of these requests caused a render.

    Two counts from outside, of which the larger one is returned: the events of the server's log, and the responses that were rendered.
    """
    warmed: list[float] = []
    cold: list[float] = []
    waits: list[float] = []
    renders = 0
    for number in range(bench.extent.warm_rounds):
        with (
            servers.darkroom(bench.folder / f"warm-{number}", warm=_WARM, log_lines_per_second=10_000) as server,
            connected(server.port) as client,
        ):
            started = time.perf_counter()
            image = client.ingest(bench.photo_path)
            _wait_until_warmed(server, image)
            waits.append(time.perf_counter() - started)
            ladder = _ladder(client, image)
            rendered = 0
            for path, cold_path in zip(ladder, ColdRenditions(client, image).paths(len(ladder)), strict=True):
                response = client.get(path)
                if response.status != 200:
                    raise RuntimeError(f"expected 200 for the warmed {path}, received {response.status} {response.body[:300]!r}")
                rendered += response.rendered
                warmed.append(response.seconds * 1e3)
                cold.append(client.rendition(cold_path).seconds * 1e3)
            transforms = {path.split("/")[4] for path in ladder}
            renders += max(rendered, sum(event["transform"] in transforms for event in server.events("rendered")))
    note = (
        f"{len(warmed)} first views, each followed by a cold render: WebP 640 wide of the same photo; "
        f"the ladder was complete {median(waits):.1f} s after the upload began"
    )
    return [
        row("first view of a warmed rendition, p50", {DARKROOM: warmed, COLD_RENDER: cold}, note),
        row("renders at first views of a warmed ladder", {DARKROOM: [renders]}, f"of {len(warmed)}, by log and responses"),
    ]


def _wait_until_warmed(server: MeasuredServer, image: Image) -> None:
    deadline = time.perf_counter() + _WARM_SECONDS
    while not any(event["digest"] == image.digest for event in server.events("warmed")):
        if time.perf_counter() > deadline:
            output = server.log.read_text("utf-8", "replace")[-2_000:]
            raise RuntimeError(f"expected the ladder to be warmed within {_WARM_SECONDS:g} seconds: {output}")
        time.sleep(_POLL_SECONDS)


def _ladder(client: Client, image: Image) -> list[str]:
    """Return the paths of an image's warmed renditions from its document."""
    document = msgspec.json.decode(client.get(f"/v1/images/{image.digest}").body, type=_Document)
    return [step.url for source in document.sources if source.type in _WARMED_TYPES for step in source.renditions]
