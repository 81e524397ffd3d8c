"""The sides of a measurement: Darkroom, bare libvips, and other servers, each of which makes the same renditions in its own way.

All sides take turns in every round, so that whatever else the machine does affects them alike.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import Protocol

import msgspec

from service.images.formats import Format
from tests.bench.client import Client, Response, connected
from tests.bench.measure import Priority
from tests.bench.servers import MeasuredServer

# The files of the originals.
PHOTO, LARGE_PNG, LARGE_PROGRESSIVE = "photo.jpg", "large.png", "large-progressive.jpg"


class Work(msgspec.Struct, frozen=True):
    """One kind of rendition, which every side makes with its own default settings.

    name: such as "WebP 640". original: a file in `Place.originals`.
    width: in pixels; the height follows from the shape of the original, unless `smart_crop`.
    height, smart_crop: with both, the picture is cropped to `width` × `height` around its salient part.
    is_large: whether the original is slow to make and to decode.
    """

    name: str
    original: str
    format: Format
    width: int
    height: int | None = None
    smart_crop: bool = False
    is_large: bool = False


# The size of a hit: about 20 kB.
HIT = Work("WebP 480", PHOTO, "webp", 480)
THROUGHPUT = Work("WebP 640", PHOTO, "webp", 640)
WORKS = (
    THROUGHPUT,
    Work("JPEG 640", PHOTO, "jpeg", 640),
    Work("AVIF 640", PHOTO, "avif", 640),
    Work("smart crop 400²", PHOTO, "webp", 400, 400, smart_crop=True),
    Work("24 Mpixel PNG", LARGE_PNG, "webp", 640, is_large=True),
    Work("24 Mpixel progressive JPEG", LARGE_PROGRESSIVE, "webp", 640, is_large=True),
)


class Place(msgspec.Struct, frozen=True):
    """What a side gets when it is opened.

    folder: an empty directory of its own. originals: the directory of the originals, which it must not change.
    priority: of Darkroom's render processes, which bare libvips has too.
    """

    folder: Path
    originals: Path
    priority: Priority


class ColdRenders(msgspec.Struct, frozen=True):
    """Renditions that were made one after the other.

    seconds: how long each took. cpu_seconds: user and system time of all processes of the side for all of them.
    body: the file of the last one.
    """

    seconds: list[float]
    cpu_seconds: float
    body: bytes

    @property
    def milliseconds(self) -> float:
        """The median time of one rendition."""
        return median(self.seconds) * 1e3

    @property
    def cpu_milliseconds(self) -> float:
        """The mean CPU time of one rendition."""
        return self.cpu_seconds / len(self.seconds) * 1e3


class OpenSide(Protocol):
    """A side that is running. `server` is `None` for libvips, which has none."""

    @property
    def server(self) -> MeasuredServer | None: ...

    @property
    def caches(self) -> bool:
        """Whether the second request for a rendition is served from a cache."""

    def headers(self, work: Work) -> Mapping[str, str]:
        """Return the headers of a request for a rendition."""

    def supports(self, work: Work) -> bool:
        """Return whether it makes such renditions."""

    def cold_path(self, work: Work) -> str:
        """Return the path of a rendition that was never requested; raises `ValueError` without a server."""

    def render(self, work: Work, count: int) -> ColdRenders:
        """Make `count` renditions that were never made, one after the other."""

    def renders_per_second(self, work: Work, count: int, clients: int) -> float:
        """Make `count` renditions that were never made, for so many clients at a time, and return how many are made per second."""


class Side(msgspec.Struct, frozen=True):
    """A side.

    name: the head of its column. open: starts it and ends it. settings: its version, its settings, and what to consider, as one line.
    missing: why it cannot run on this machine, `None` if it can.
    """

    name: str
    open: Callable[[Place], AbstractContextManager[OpenSide]]
    settings: Callable[[], str]
    missing: Callable[[], str | None] = lambda: None


class HttpSide:
    """A server as a side."""

    def __init__(
        self,
        server: MeasuredServer,
        path: Callable[[Work, int, int | None], str | None],
        *,
        headers: Callable[[Work], Mapping[str, str]] = lambda work: {},  # noqa: ARG005
        qualities: Sequence[int] = range(1, 101),
        caches: bool = True,
        is_cold: Callable[[Response], bool] = lambda response: True,  # noqa: ARG005
    ) -> None:
        """Measure a server.

        path: returns the path of a rendition; for different numbers different URLs of the same pixels, so that no cache has them. `None`
            if the server does not make such renditions. The last argument is the quality, `None` for the server's default.
        headers: returns the headers of a request for a rendition.
        qualities: those that can be requested, ascending.
        caches: whether the second request for a rendition is served from a cache.
        is_cold: returns whether a response was rendered for its request, as far as the server says so.
        """
        self.server = server
        self.qualities = qualities
        self.caches = caches
        self._path = path
        self._headers = headers
        self._is_cold = is_cold
        self._numbers: dict[str, Iterator[int]] = defaultdict(itertools.count)

    def supports(self, work: Work) -> bool:
        return self._path(work, 0, None) is not None

    def cold_path(self, work: Work) -> str:
        return self._new_path(work, None)

    def headers(self, work: Work) -> Mapping[str, str]:
        return self._headers(work)

    def at_quality(self, work: Work, quality: int) -> bytes:
        """Return a rendition with a quality, one of `qualities`."""
        with connected(self.server.port) as client:
            return self._get(client, work, self._new_path(work, quality)).body

    def render(self, work: Work, count: int) -> ColdRenders:
        paths = [self.cold_path(work) for _ in range(count)]
        with connected(self.server.port) as client:
            before = self.server.cpu_seconds()
            responses = [self._get(client, work, path) for path in paths]
            cpu_seconds = self.server.cpu_seconds() - before
        return ColdRenders([response.seconds for response in responses], cpu_seconds, responses[-1].body)

    def renders_per_second(self, work: Work, count: int, clients: int) -> float:
        return count / self._seconds_of(work, [self.cold_path(work) for _ in range(count)], clients)

    def _seconds_of(self, work: Work, paths: Sequence[str], clients: int) -> float:
        remaining = iter(paths)
        lock = threading.Lock()

        def request_until_done(client: Client) -> None:
            while True:
                with lock:
                    path = next(remaining, None)
                if path is None:
                    return
                self._get(client, work, path)

        connections = [Client(self.server.port) for _ in range(clients)]
        try:
            with ThreadPoolExecutor(clients) as threads:
                started = time.perf_counter()
                list(threads.map(request_until_done, connections))
                return time.perf_counter() - started
        finally:
            for connection in connections:
                connection.close()

    def _new_path(self, work: Work, quality: int | None) -> str:
        path = self._path(work, next(self._numbers[work.name]), quality)
        if path is None:
            raise ValueError(f"{work.name} is not supported")
        return path

    def _get(self, client: Client, work: Work, path: str) -> Response:
        response = client.get(path, self.headers(work))
        if response.status != 200 or not self._is_cold(response):
            raise RuntimeError(f"expected {path} to be rendered, received {response.status} {response.headers} {response.body[:300]!r}")
        return response
