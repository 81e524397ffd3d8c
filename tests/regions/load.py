"""Clients near each region that request renditions continuously, and the result of each request."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import httpx

from tests.regions.world import World, placed

# Requests per second of each client: the load of three regions leaves a machine with two cores enough time to respond.
ASKS_PER_SECOND = 100

# With so many requests, one failure is within 99.9 %.
ENOUGH = 1_000


class LoadRequest(NamedTuple):
    """One request.

    region: near which its client is. at: its start in monotonic seconds. result: the status and the region, or the error.
    seconds: its duration.
    """

    region: str
    at: float
    right: bool
    cold: bool
    result: str
    seconds: float


class Load:
    """The requests of all clients. A response is right if it has the bytes and the entity tag that the URL has in every region."""

    def __init__(self, world: World, expected: Mapping[str, tuple[bytes, str]], cold: Mapping[str, Sequence[str]]) -> None:
        self.requests: list[LoadRequest] = []
        self._world = world
        self._expected = expected
        self._cold = cold
        self._ended = threading.Event()

    def run(self, region: str) -> None:
        """Send requests near a region until stopped: for hot renditions, and every 50th time for one that was never requested."""
        hot = list(self._expected)
        cold = iter(self._cold[region])
        number, due = 0, time.monotonic()
        with self._world.client(region) as client:
            while not self._ended.is_set():
                number += 1
                is_cold = number % 50 == 0
                path = next(cold, hot[0]) if is_cold else hot[number % len(hot)]
                self._send_request(client, region, path, is_cold=is_cold)
                due += 1 / ASKS_PER_SECOND
                self._ended.wait(max(0.0, due - time.monotonic()))

    def end(self) -> None:
        """Stop all clients."""
        self._ended.set()

    def goes_on(self, seconds: float, *regions: str) -> None:
        """Wait for `seconds`, and until clients near each of `regions` have sent enough requests to measure 99.9 %."""
        since = time.monotonic()
        deadline = since + 10 * seconds
        while time.monotonic() < since + seconds or (
            time.monotonic() < deadline and any(len(self.of(region, since, deadline)) < ENOUGH for region in regions)
        ):
            time.sleep(0.1)

    def of(self, region: str, since: float, until: float, *, cold: bool | None = None) -> list[LoadRequest]:
        """Return the requests near a region in a period of time: all of them, or only the cold or the hot ones."""
        return [one for one in self.requests if one.region == region and since <= one.at < until and cold in {None, one.cold}]

    def _send_request(self, client: httpx.Client, region: str, path: str, *, is_cold: bool) -> None:
        at = time.monotonic()
        try:
            response = client.get(path)
            right = response.status_code == 200 and (is_cold or (response.content, response.headers["etag"]) == self._expected[path])
            result = f"{response.status_code} from {placed(response)}" if "server-timing" in response.headers else str(response.status_code)
        except httpx.HTTPError as error:
            right, result = False, repr(error)
        self.requests.append(LoadRequest(region, at, right, is_cold, result, time.monotonic() - at))


def share_right(requests: Sequence[LoadRequest]) -> float:
    """Return the fraction of requests with the right response; fails if there are too few to measure 99.9 %."""
    assert len(requests) >= ENOUGH, len(requests)
    return sum(one.right for one in requests) / len(requests)


@contextmanager
def load(world: World, expected: Mapping[str, tuple[bytes, str]], cold: Mapping[str, Sequence[str]]) -> Iterator[Load]:
    """Yield a load near every region. `expected` has the response of each hot path, `cold` the paths that each region requests once."""
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
