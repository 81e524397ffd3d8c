"""`python -m tests.bench.overload`: what clients see while more renditions are requested than can be rendered, up to ten times as many.

Every request comes when it is due, however late the responses before it are: clients in the world do not wait for each other. Hits,
documents and health checks are requested beside the misses, at a constant rate. Each miss is for a rendition that was never requested.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import os
import random
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import click
import msgspec

from service.images.formats import FORMATS, Format
from service.images.transform import PIPELINE_VERSION
from service.urls.rendition_url import RenditionUrl
from service.urls.signing import Signer
from tests.bench import overload_chart, photos, servers
from tests.bench.client import HOST, Image, connected
from tests.bench.overload_chart import Level
from tests.support.renditions import distinct_transform

FACTORS = (0.5, 1.0, 1.5, 2.0, 4.0, 10.0)

KEY = "0" * 64
_OTHERS_PER_SECOND = {"hit": 20.0, "document": 4.0, "health": 4.0}
_TIMEOUT_SECONDS = 90.0

# How many clients the offered requests come from, and how many there are in the crowd.
_CLIENTS = 200
_CROWD = 500

_COLUMNS = (
    "load",
    "offered/s",
    "served/s",
    "hits, p50 / p99 ms",
    "documents",
    "health",
    "misses",
    "refusals",
    "refused",
    "late",
    "failed",
)

# How many originals, of 6 Mpixel and more.
_PHOTOS = 6

# A refusal later than this was not made at once.
_LATE_SECONDS = 1.0

# What is requested, as formats, widths and frequencies: cheap and expensive renditions, as on a page that offers several formats.
_MIX: Sequence[tuple[Format, int, int]] = (("webp", 320, 4), ("webp", 1_280, 3), ("jpeg", 640, 3), ("avif", 640, 3), ("avif", 1_280, 1))


class Measured(msgspec.Struct, frozen=True):
    """A response: the kind of its request, its status, its `Retry-After` (0 without one), and its latency in seconds."""

    kind: str
    status: int
    retry_after: int
    due: float
    seconds: float


class Connections:
    """HTTP/1.1 connections to one server, as many as there are requests at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def get(self, kind: str, path: str, due: float, client: int = 0) -> Measured:
        """Return the response to a request, whose latency counts from when it was due on the clock `time.perf_counter`.

        `client`: the number of the client that it comes from.
        """
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            request = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 198.18.{client >> 8}.{client & 255}\r\n\r\n".encode("ascii")
            reader, writer, head = await self._exchange(request)
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
        seconds = time.perf_counter() - due
        if re.search(rb"(?i)\r\nconnection: *close", head):
            writer.close()
        else:
            self._idle.append((reader, writer))
        retry_after = re.search(rb"(?i)\r\nretry-after: *(\d+)", head)
        return Measured(kind, int(head[9:12]), int(retry_after[1]) if retry_after else 0, due, seconds)

    async def _exchange(self, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        """Send a request, and return the connection and the header of the response."""
        while self._idle:
            # The server may have closed it meanwhile; then the request is repeated (RFC 9112 §9.3.1).
            reader, writer = self._idle.pop()
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                writer.write(request)
                return reader, writer, await reader.readuntil(b"\r\n\r\n")
            writer.close()
        reader, writer = await asyncio.open_connection(HOST, self._port)
        writer.write(request)
        return reader, writer, await reader.readuntil(b"\r\n\r\n")

    def close(self) -> None:
        """Close the connections that are idle."""
        for _, writer in self._idle:
            writer.close()


def cold_paths(images: Sequence[Image]) -> Iterator[str]:
    """Yield signed paths of renditions that were never requested, in the proportions of `_MIX`."""
    signer = Signer([bytes.fromhex(KEY)])
    draw = random.Random(7)
    for number in itertools.count():
        image_format, width, _ = draw.choices(_MIX, [frequency for *_, frequency in _MIX])[0]
        transform = distinct_transform(width, number)
        yield signer.sign(RenditionUrl(PIPELINE_VERSION, draw.choice(images).digest, transform, FORMATS[image_format].extension))


async def capacity(port: int, paths: Iterator[str], clients: int, seconds: float) -> float:
    """Return how many renditions per second are served to a few clients that each wait for one response after the other."""
    connections = Connections(port)
    served = 0
    ends = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal served
        while (now := time.perf_counter()) < ends:
            response = await connections.get("miss", next(paths), now)
            if response.status != 200:
                raise RuntimeError(f"a miss without any load was {response.status}")
            served += time.perf_counter() < ends

    await asyncio.gather(*(client() for _ in range(clients)))
    connections.close()
    return served / seconds


async def offer(port: int, paths: Mapping[str, Iterator[str]], per_second: float, seconds: float) -> list[Measured]:
    """Return the responses to the requests of so many seconds.

    `paths`: those of each kind of request. `per_second`: how many of them are misses.
    """
    connections = Connections(port)
    draw = random.Random(11)
    began = time.perf_counter() + 0.1

    async def stream(kind: str, rate: float, paths: Iterator[str]) -> list[Measured]:
        tasks: list[asyncio.Task[Measured]] = []
        due = began
        while (due := due + draw.expovariate(rate)) < began + seconds:
            await asyncio.sleep(due - time.perf_counter())
            tasks.append(asyncio.create_task(connections.get(kind, next(paths), due, draw.randrange(_CLIENTS))))
        return await asyncio.gather(*tasks)

    streams = await asyncio.gather(
        *(stream(kind, {"miss": per_second, **_OTHERS_PER_SECOND}[kind], found) for kind, found in paths.items())
    )
    connections.close()
    return [msgspec.structs.replace(response, due=response.due - began) for found in streams for response in found]


async def crowd(port: int, paths: Mapping[str, Iterator[str]], clients: int, seconds: float) -> list[Measured]:
    """Return the responses to so many clients, each of which requests another rendition as soon as it has a response.

    They do not even wait after a refusal, as badly written clients do. Hits, documents and health checks are requested beside them.
    """
    connections = Connections(port)
    found: list[Measured] = []
    began = time.perf_counter()
    ends = began + seconds

    async def client(number: int) -> None:
        while (now := time.perf_counter()) < ends:
            found.append(await connections.get("miss", next(paths["miss"]), now, number))

    others = {kind: each for kind, each in paths.items() if kind != "miss"}
    beside = asyncio.create_task(offer(port, others, 0.0, seconds))
    await asyncio.gather(*map(client, range(clients)))
    connections.close()
    return [msgspec.structs.replace(response, due=response.due - began) for response in found] + await beside


def level(factor: float, per_second: float, seconds: float, responses: Sequence[Measured]) -> Level:
    """Return the figures of one offered load."""
    misses = [response for response in responses if response.kind == "miss"]
    served = [response for response in misses if response.status == 200]
    refused = [response for response in misses if response.status == 503]
    last = max((response.due + response.seconds for response in served), default=0.0)
    return Level(
        factor=factor,
        offered=per_second if math.isfinite(per_second) else len(misses) / seconds,
        goodput=len(served) / max(seconds, last),
        hits=_p50_p99(response for response in responses if response.kind == "hit"),
        documents=_p50_p99(response for response in responses if response.kind == "document"),
        health=_p50_p99(response for response in responses if response.kind == "health"),
        misses=_p50_p99(served),
        refusals=_p50_p99(refused),
        refused=len(refused),
        late=sum(response.seconds > _LATE_SECONDS for response in refused),
        failed=sum(response.status not in {200, 503} for response in responses),
    )


def _p50_p99(responses: Iterable[Measured]) -> tuple[float, float]:
    found = sorted(response.seconds * 1e3 for response in responses)
    return (found[len(found) // 2], found[len(found) * 99 // 100]) if found else (0.0, 0.0)


def table(levels: Sequence[Level]) -> str:
    """Return the figures as a table in Markdown."""
    lines = [
        f"| {' | '.join(_COLUMNS)} |",
        f"|{' --- |' * len(_COLUMNS)}",
    ]
    for one in levels:
        pairs = " | ".join(f"{p50:,.0f} / {p99:,.0f}" for p50, p99 in (one.hits, one.documents, one.health, one.misses, one.refusals))
        name = f"{one.factor:g} ×" if math.isfinite(one.factor) else "crowd"
        lines.append(f"| {name} | {one.offered:.1f} | {one.goodput:.1f} | {pairs} | {one.refused:,} | {one.late:,} | {one.failed:,} |")
    return "\n".join(lines)


def main() -> None:
    """Measure each level, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="how long each level is offered")
    parser.add_argument("--wait-seconds", type=float, default=15.0, help="how long clients wait for a rendition")
    parser.add_argument("--factors", type=float, nargs="+", default=FACTORS, help="the levels, as multiples of the capacity")
    parser.add_argument("--page", type=Path, help="also write the figures to this file, as Markdown, and the chart beside it")
    arguments = parser.parse_args()
    levels: list[Level] = []
    with tempfile.TemporaryDirectory(prefix="darkroom-overload-") as name:
        folder = Path(name)
        photo, _ = photos.photo(folder)
        settings = {
            "keys": KEY,
            "trusted_proxies": HOST,
            "wait_seconds": arguments.wait_seconds,
            "render_seconds": max(60.0, arguments.wait_seconds),
        }
        with servers.darkroom(folder / "data", **settings) as server, connected(server.port) as client:
            album = sorted(photos.make_image("album", photo, folder / "album").iterdir())[:_PHOTOS]
            images = [client.ingest(path) for path in album]
            cold = cold_paths(images)
            warm = next(cold)
            client.rendition(warm)
            clients = 2 * len(os.sched_getaffinity(0))
            asyncio.run(capacity(server.port, cold, clients, 4))
            best = asyncio.run(capacity(server.port, cold, clients, max(4.0, arguments.seconds / 2)))
            click.echo(f"capacity: {best:.1f} renditions per second", err=True)
            paths = {
                "miss": cold,
                "hit": itertools.repeat(warm),
                "document": itertools.repeat(f"/v1/images/{images[0].digest}"),
                "health": itertools.repeat("/health"),
            }
            responses = asyncio.run(crowd(server.port, paths, _CROWD, arguments.seconds / 2))
            in_crowd = level(math.inf, math.inf, arguments.seconds / 2, responses)
            click.echo(table([in_crowd]).splitlines()[-1], err=True)
            for factor in arguments.factors:
                responses = asyncio.run(offer(server.port, paths, factor * best, arguments.seconds))
                levels.append(level(factor, factor * best, arguments.seconds, responses))
                click.echo(table(levels[-1:]).splitlines()[-1], err=True)
    click.echo(f"{table(levels)}\n\n{table([in_crowd])}")
    if arguments.page is not None:
        picture = arguments.page.with_suffix(".svg")
        picture.write_text(overload_chart.draw(levels), "utf-8")
        arguments.page.write_text(page(levels, in_crowd, best, arguments, picture.name), "utf-8")


def page(levels: Sequence[Level], in_crowd: Level, best: float, arguments: argparse.Namespace, picture: str) -> str:
    """Return the page of a run.

    in_crowd: what the clients saw that do not wait after a refusal. best: the capacity, in renditions per second.
    picture: the name of the file with the chart.
    """
    cores = len(os.sched_getaffinity(0))
    share = levels[-1].goodput / max(level.goodput for level in levels)
    return f"""# More renders than the server can make

Generated by `make overload`, with {arguments.seconds:g} seconds for each load, on {cores} cores, shared by the server and all clients.

The clients request renditions of photos of 6 megapixels and more that were never requested before: WebP 320 and 1280 pixels wide,
JPEG 640, AVIF 640 and 1280. The capacity is the number that a few clients get in a second that each wait for one response after the other:
{best:.1f} here. Then {_CLIENTS} clients request from half to ten times as many, each when it is due and however late the responses before
it are. Beside them come 20 hits, 4 documents and 4 health checks in a second.

{table(levels)}

Latencies are p50 and p99 in milliseconds; *misses* are the renditions that were served. A client waits {arguments.wait_seconds:g} s at
most. A render that is not expected to end in 0.7 of that is refused at once, with 503 and `Retry-After`. *Refused* counts
these refusals, *late* the refusals that took more than a second, and *failed* every other status. Goodput is the number of renditions
that are served in a second. At the highest load it is {share:.2f} of the best.

![Renditions served, and latencies, at rising load]({picture})

## A crowd that does not wait

{_CROWD} clients that request the next rendition as soon as they have a response, even a refusal, for {arguments.seconds / 2:g} seconds.
They take the time of one core, and the server that of the other, so renders, which have the lowest priority, get little of either:

{table([in_crowd])}
"""


if __name__ == "__main__":
    main()
