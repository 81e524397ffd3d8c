"""The parameters of a run, which every measurement receives: durations and counts, the server, the photo."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.bench.client import Client, Image
from tests.bench.servers import MeasuredServer


class Extent(msgspec.Struct, frozen=True):
    """How much is measured. Durations are seconds of one round, for each of the two sides.

    `slow_images`: also measure images that take ten seconds to make.
    """

    hit_rounds: int
    hit_seconds: int
    entries: int
    latency_rounds: int
    latency_seconds: float
    miss_rounds: int
    misses_per_round: int
    throughput_rounds: int
    throughput_misses: int
    varied_renders: int
    start_rounds: int
    clients_at_once: int
    ladder_rounds: int
    later_rounds: int
    warm_rounds: int
    push_rounds: int
    push_images: int
    slow_images: bool


FULL = Extent(
    hit_rounds=7,
    hit_seconds=3,
    entries=100_000,
    latency_rounds=5,
    latency_seconds=5,
    miss_rounds=10,
    misses_per_round=8,
    throughput_rounds=8,
    throughput_misses=32,
    varied_renders=500,
    start_rounds=11,
    clients_at_once=1_000,
    ladder_rounds=7,
    later_rounds=9,
    warm_rounds=4,
    push_rounds=5,
    push_images=100,
    slow_images=True,
)

QUICK = Extent(
    hit_rounds=3,
    hit_seconds=1,
    entries=0,
    latency_rounds=2,
    latency_seconds=1.5,
    miss_rounds=3,
    misses_per_round=4,
    throughput_rounds=2,
    throughput_misses=12,
    varied_renders=20,
    start_rounds=3,
    clients_at_once=200,
    ladder_rounds=1,
    later_rounds=2,
    warm_rounds=1,
    push_rounds=1,
    push_images=100,
    slow_images=False,
)


class Bench(msgspec.Struct, frozen=True):
    """One run.

    `folder`: a temporary directory that is removed at the end. `client`: a connection to `server`, which all measurements share.
    `photo_path`: a JPEG, described by `photo_description`, which the server has stored as `photo`.
    """

    extent: Extent
    folder: Path
    server: MeasuredServer
    client: Client
    photo_path: Path
    photo_description: str
    photo: Image
