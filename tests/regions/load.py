"""Clients near each region that ask for renditions without a pause, and what became of each of their requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import httpx

from tests.regions.world import World, placed

# Each client asks so many times a second: three regions together leave a machine of two cores room to answer.
ASKS_PER_SECOND = 100

# Of so many requests, one that fails is within 99.9 %.
ENOUGH = 1_000


class Asked(NamedTuple):
    """One request: where its client is, when it was asked (monotonic seconds), whether it was right, and what it was."""

    region: str
    at: float
    right: bool
    cold: bool
    said: str
    seconds: float


class Load:
    """What clients have asked, and whether they got it: the bytes and the entity tag that the URL has everywhere, or it was wrong."""

    def __init__(self, world: World, expected: Mapping[str, tuple[bytes, str]], cold: Mapping[str, Sequence[str]]) -> None:
        self.asked: list[Asked] = []
        self._world = world
        self._expected = expected
        self._cold = cold
        self._ended = threading.Event()

    def run(self, region: str) -> None:
        """Ask near a region until told to end: what is hot, and every 50th time for what nobody has asked for yet."""
        hot = list(self._expected)
        cold = iter(self._cold[region])
        number, due = 0, time.monotonic()
        with self._world.client(region) as client:
            while not self._ended.is_set():
                number += 1
                is_cold = number % 50 == 0
                path = next(cold, hot[0]) if is_cold else hot[number % len(hot)]
                self._ask(client, region, path, is_cold=is_cold)
                due += 1 / ASKS_PER_SECOND
                self._ended.wait(max(0.0, due - time.monotonic()))

    def end(self) -> None:
        """Have all clients end."""
        self._ended.set()

    def goes_on(self, seconds: float, *regions: str) -> None:
        """Return after so many seconds, and no sooner than near each of `regions` enough has been asked to tell 99.9 %."""
        since = time.monotonic()
        deadline = since + 10 * seconds
        while time.monotonic() < since + seconds or (
            time.monotonic() < deadline and any(len(self.of(region, since, deadline)) < ENOUGH for region in regions)
        ):
            time.sleep(0.1)

    def of(self, region: str, since: float, until: float, *, cold: bool | None = None) -> list[Asked]:
        """Return what was asked near a region in some span of time, all or only what was cold or hot."""
        return [one for one in self.asked if one.region == region and since <= one.at < until and cold in {None, one.cold}]

    def _ask(self, client: httpx.Client, region: str, path: str, *, is_cold: bool) -> None:
        at = time.monotonic()
        try:
            answer = client.get(path)
            right = answer.status_code == 200 and (is_cold or (answer.content, answer.headers["etag"]) == self._expected[path])
            said = f"{answer.status_code} from {placed(answer)}" if "server-timing" in answer.headers else str(answer.status_code)
        except httpx.HTTPError as error:
            right, said = False, repr(error)
        self.asked.append(Asked(region, at, right, is_cold, said, time.monotonic() - at))


def share_right(asked: Sequence[Asked]) -> float:
    """Return which share of some requests was answered as it should be; fails where they are too few to tell 99.9 %."""
    assert len(asked) >= ENOUGH, len(asked)
    return sum(one.right for one in asked) / len(asked)


@contextmanager
def load(world: World, expected: Mapping[str, tuple[bytes, str]], cold: Mapping[str, Sequence[str]]) -> Iterator[Load]:
    """Give a load that runs near every region: `expected` is what each hot path gives, `cold` what each region asks for once."""
    running = Load(world, expected, cold)
    threads = [threading.Thread(target=running.run, args=(region,)) for region in cold]
    for thread in threads:
        thread.start()
    try:
        yield running
    finally:
        running.end()
        for thread in threads:
            thread.join()
