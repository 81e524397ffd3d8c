"""URLs that strangers may try without a valid signature: the CPU time of the server until it has refused or redirected one."""

from __future__ import annotations

import random
from collections import defaultdict

from service.images.ladder import LADDER_WIDTHS
from tests.bench import servers
from tests.bench.bench import Bench
from tests.bench.client import Client, connected
from tests.bench.report import Row, row
from tests.bench.servers import MeasuredServer
from tests.bench.sides import DARKROOM
from tests.support import images
from tests.support.buckets import bucket_server
from tests.support.hostile_urls import FETCHING_FAULT, Target, hostile_urls


def refuse(bench: Bench) -> list[Row]:
    """Return the mean CPU time of all processes for each response: over all faults, for the costliest one, and for the one that fetches."""
    with bucket_server("gs") as bucket:
        variables = {f"source_shop_{name.lower()}": value for name, value in bucket.environment.items()}
        with (
            servers.darkroom(
                bench.folder / "refusals", sources=f"shop={bucket.location}", log_lines_per_second=10_000, **variables
            ) as server,
            connected(server.port) as client,
        ):
            return _measure(bench, server, client)


def _measure(bench: Bench, server: MeasuredServer, client: Client) -> list[Row]:
    photo = bench.folder / "Größe 1.jpg"
    photo.write_bytes(images.photo_jpeg(301, 200))
    named = client.ingest(photo)
    photo.write_bytes(images.photo_jpeg(302, 200))
    nameless = client.ingest(photo.rename(photo.with_name("….jpg")))
    target = Target(named.digest, named.name, nameless.digest, "shop", LADDER_WIDTHS)
    paths: dict[str, list[str]] = defaultdict(list)
    for url in hostile_urls(random.Random(7), target, bench.extent.refusals):
        paths[url.fault].append(url.path)
    milliseconds: dict[str, float] = {}
    rendered = len(server.events("rendered"))
    total = 0.0
    for fault, found in paths.items():
        before = server.cpu_seconds()
        for path in found:
            client.get(path)
        used = (server.cpu_seconds() - before) * 1e3
        milliseconds[fault] = used / len(found)
        total += used
    if len(server.events("rendered")) > rendered:
        raise RuntimeError("a URL that no stranger may use was rendered")
    mean = total / bench.extent.refusals
    fetching = milliseconds.pop(FETCHING_FAULT)
    worst = max(milliseconds.values())
    note = "; ".join(f"{fault}: {milliseconds[fault]:.2f} ms" for fault in sorted(milliseconds))
    return [
        row("hostile URL, CPU, mean", {DARKROOM: [mean]}, f"{bench.extent.refusals:,} URLs, nothing rendered"),
        row("hostile URL, CPU, costliest kind", {DARKROOM: [worst]}, note),
        row("object that a source does not have, CPU", {DARKROOM: [fetching]}),
    ]
