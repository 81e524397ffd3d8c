"""The memory of a server's processes over time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import mean

import msgspec

from tests.bench import measure

_EVERY_SECONDS = 1.0


class Sample(msgspec.Struct, frozen=True):
    """The processes of a server at a time, in seconds since the beginning of the load.

    server_bytes: the proportional set size of all processes but those that render. render_bytes: that of the render processes.
    descriptors: how many files the server's processes have open.
    """

    at: float
    server_bytes: int
    render_bytes: int
    descriptors: int

    @property
    def bytes(self) -> int:
        """The proportional set size of all processes together."""
        return self.server_bytes + self.render_bytes


class Sampler:
    """Samples the processes below one, every second."""

    def __init__(self, root: int) -> None:
        self.samples: list[Sample] = []
        self._root = root

    async def run(self, now: Callable[[], float]) -> None:
        """Sample until canceled; `now` returns the time that samples get."""
        while True:
            self.samples.append(await asyncio.to_thread(self._sample, now()))
            await asyncio.sleep(_EVERY_SECONDS)

    def _sample(self, at: float) -> Sample:
        renderers = measure.rendering_processes(self._root)
        others = sorted(set(measure.process_tree(self._root)) - set(renderers))
        return Sample(at, measure.pss_bytes(others), measure.pss_bytes(renderers), sum(map(_descriptors, others)))


def _descriptors(process_id: int) -> int:
    with suppress(OSError):
        return len(os.listdir(Path(f"/proc/{process_id}/fd")))  # noqa: PTH208 - the number is all that is wanted
    return 0


def average(samples: Sequence[Sample], begins: float, ends: float, figure: Callable[[Sample], float]) -> float:
    """Return the mean of a figure between two times, in seconds since the beginning."""
    return mean(figure(sample) for sample in samples if begins <= sample.at <= ends)
