"""The parameters of a run, which every measurement receives: durations and counts, the server, the photo."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.bench.client import Client, Image
from tests.bench.servers import MeasuredServer
from tests.bench.side import Side


class Extent(msgspec.Struct, frozen=True):
    """How much is measured. Durations are seconds of one round, for each side.

    slow_images: whether images are measured that take ten seconds to make. scores: whether renditions are judged.
    rsgi: whether hits are also compared with a function for Granian's own protocol.
    very_many_renders: 0 leaves them out.
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
    very_many_renders: int
    idle_rounds: int
    start_rounds: int
    clients_at_once: int
    ladder_rounds: int
    later_rounds: int
    warm_rounds: int
    push_rounds: int
    push_images: int
    refusals: int
    throttled_seconds: int
    slow_images: bool
    scores: bool
    rsgi: bool


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
    very_many_renders=10_000,
    idle_rounds=5,
    start_rounds=11,
    clients_at_once=1_000,
    ladder_rounds=7,
    later_rounds=9,
    warm_rounds=4,
    push_rounds=5,
    push_images=100,
    refusals=10_000,
    throttled_seconds=60,
    slow_images=True,
    scores=True,
    rsgi=True,
)

QUICK = Extent(
    hit_rounds=2,
    hit_seconds=1,
    entries=0,
    latency_rounds=2,
    latency_seconds=1,
    miss_rounds=3,
    misses_per_round=2,
    throughput_rounds=2,
    throughput_misses=6,
    varied_renders=20,
    very_many_renders=0,
    idle_rounds=1,
    start_rounds=2,
    clients_at_once=200,
    ladder_rounds=2,
    later_rounds=2,
    warm_rounds=1,
    push_rounds=1,
    push_images=100,
    refusals=600,
    throttled_seconds=10,
    slow_images=False,
    scores=False,
    rsgi=False,
)


class Bench(msgspec.Struct, frozen=True):
    """One run.

    folder: a temporary directory that is removed at the end. client: a connection to `server`, which all measurements share.
    photo_path: a JPEG, described by `photo_description`, which the server has stored as `photo`.
    sides: everything that is measured in the rows that servers have in common, Darkroom first.
    """

    extent: Extent
    folder: Path
    server: MeasuredServer
    client: Client
    photo_path: Path
    photo_description: str
    photo: Image
    sides: list[Side]

    @property
    def originals(self) -> Path:
        """The directory of the originals of all sides."""
        return self.folder / "originals"
