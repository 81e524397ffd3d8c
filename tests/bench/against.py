"""The CPU time of a hit against another checkout of Darkroom, such as the commit before: `python -m tests.bench.against CHECKOUT`.

The other checkout needs the packages of `make setup`.

Servers of both checkouts run at once, and take turns. Those of this checkout are: one as it is configured by default, with a log of one hit
in a thousand; one without a log of hits; one with metrics that are scraped as in `deploy/prometheus`; and one that traces one request in a
hundred, and exports it to a receiver. The order changes in every round, and only ratios of the same round count.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from tests.bench import load, photos, servers
from tests.bench.client import connected
from tests.bench.load import RequestPattern
from tests.bench.measure import alternate
from tests.bench.servers import MeasuredServer
from tests.support.otlp import otlp_receiver
from tests.support.server import free_port

_ROUNDS = 12
_SCRAPE_SECONDS = 15.0
_SECONDS = 3.0
_WIDTH = 480


@contextmanager
def _scraped(port: int) -> Iterator[None]:
    """Scrape metrics within the block."""
    ended = threading.Event()

    def scrape() -> None:
        while not ended.wait(_SCRAPE_SECONDS):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _server(commands: Path, folder: Path, photo: Path, **settings: object) -> Iterator[tuple[MeasuredServer, RequestPattern]]:
    """Yield a server of a checkout, and the request of a hit of about 20 kB that it has in memory."""
    with servers.darkroom_of(commands, folder, settings) as server, connected(server.port) as client:
        path = client.rendition_path(client.ingest(photo), "webp", width=_WIDTH)
        for _ in range(2):
            response = client.get(path)
        if "; hit" not in response.header("cache-status"):
            raise RuntimeError(f"expected a hit of {commands}, received {response.status} {response.headers}")
        yield server, RequestPattern(path)


def _measure(checkout: Path, folder: Path, rounds: int, only: Sequence[str]) -> None:
    picture, _ = photos.photo(folder)
    metrics_port = free_port()
    with ExitStack() as stack:
        receiver = stack.enter_context(otlp_receiver())
        traced = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.01",
        }
        variants: dict[str, dict[str, object]] = {
            "default": {},
            "no log of hits": {"log_hits": 0},
            "metrics": {"metrics_port": metrics_port},
            "traces": {**traced},
        }
        other = stack.enter_context(_server(checkout / ".venv" / "bin", folder / "other", picture))
        ours = {
            name: stack.enter_context(_server(servers.BIN, folder / name.replace(" ", "-"), picture, **settings))
            for name, settings in variants.items()
            if not only or name in only
        }
        if "metrics" in ours:
            stack.enter_context(_scraped(metrics_port))

        def microseconds(server: tuple[MeasuredServer, RequestPattern]) -> float:
            process, requests = server
            before = process.cpu_seconds()
            served = load.hammer(process.port, requests, _SECONDS, folder)
            return (process.cpu_seconds() - before) / served * 1e6

        for name, server in ours.items():
            figures = alternate(lambda server=server: microseconds(server), lambda: microseconds(other), rounds)  # type: ignore[misc]
            ratios = ", ".join(f"{ratio:.3f}" for ratio in figures.ratios)
            sys.stdout.write(
                f"{name}: {median(figures.ours):.1f} µs, other {median(figures.bare):.1f} µs; {figures.ratio:.3f} ({ratios})\n"
            )
            sys.stdout.flush()


def main() -> None:
    """Print the CPU time of a hit in both checkouts, and the medians of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--only", action="append", default=[], help="measure only this server of this checkout; may be repeated")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _measure(arguments.checkout.resolve(), Path(folder), arguments.rounds, arguments.only)


if __name__ == "__main__":
    main()
