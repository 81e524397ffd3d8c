"""Three regions: a real server in each with Fly's environment, one bucket or one volume each, and a fake of Fly's proxy in front."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.regions.background import listening
from tests.regions.fly import FlyProxy, Machine, fly_proxy
from tests.support.s3 import Bucket, moto_bucket
from tests.support.server import HOST, Server, darkroom
from tests.support.waiting import PATIENCE_SECONDS

# The primary region is first.
REGIONS = ("arn", "lhr", "iad")
PRIMARY = REGIONS[0]
MACHINES = {"arn": "148e21ea246389", "lhr": "e2865013a24908", "iad": "90802d5b47e568"}

_SETTINGS: dict[str, object] = {"keys": "0" * 64, "regions": ",".join(REGIONS), "PRIMARY_REGION": PRIMARY, "render_processes": 1}

# A folder that is a mount point on every machine, as a volume is.
_MOUNT = Path("/dev/shm")


class World:
    """Three running servers, and the addresses that clients near each of them use."""

    def __init__(self, proxy: FlyProxy, folder: Path, settings: dict[str, dict[str, object]]) -> None:
        self.proxy = proxy
        self.servers: dict[str, Server] = {}
        self._folder = folder
        self._settings = settings
        self._running: dict[str, AbstractContextManager[Server]] = {}

    def client(self, region: str, **options: Any) -> httpx.Client:
        """Return a client near a region."""
        return httpx.Client(base_url=self.proxy.url(region), timeout=PATIENCE_SECONDS, trust_env=False, verify=False, **options)

    def start(self, *regions: str) -> None:
        """Start the servers of `regions`."""
        contexts = {region: darkroom(self._folder / region, **self._settings[region]) for region in regions}
        with ThreadPoolExecutor(len(regions)) as threads:
            started = dict(zip(contexts, threads.map(lambda context: context.__enter__(), contexts.values()), strict=True))
        self._running |= contexts
        self.servers |= started
        self.proxy.machines |= {region: Machine(MACHINES[region], server.port) for region, server in started.items()}

    def kill(self, region: str) -> None:
        """Kill all processes of a region's Machine at once."""
        self.servers[region].stop(signal.SIGKILL)
        self._end(region)

    def cut_off(self, region: str) -> None:
        """Make a region's Machine unreachable."""
        self.proxy.machines[region].reachable = False

    def heal(self, region: str) -> None:
        """Make a region's Machine reachable again."""
        self.proxy.machines[region].reachable = True

    def end(self) -> None:
        """Stop all servers."""
        with ThreadPoolExecutor(len(REGIONS)) as threads:
            list(threads.map(self._end, list(self._running)))

    def _end(self, region: str) -> None:
        self._running.pop(region).__exit__(None, None, None)


def placed(response: httpx.Response) -> str:
    """Return the region that a response names, after checking that it names that region's Machine too."""
    words = dict(part.split(";desc=") for part in response.headers["server-timing"].split(", ") if part.startswith(("region;", "machine;")))
    assert words["machine"] == MACHINES[words["region"]]
    return words["region"]


class Line:
    """The connections from one region to the store. Bytes pass unchanged until the line is cut; then nothing passes."""

    def __init__(self, to_port: int) -> None:
        self.port = 0
        self._to_port = to_port
        self._whole = True

    def cut(self) -> None:
        """Drop all bytes from now on, without closing the connections."""
        self._whole = False

    def mend(self) -> None:
        """Let new connections pass; cut connections stay silent."""
        self._whole = True

    async def accept(self, connection: socket.socket) -> None:
        """Forward bytes in both directions of a connection."""
        with socket.create_connection((HOST, self._to_port)) as store:
            store.setblocking(False)
            store.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.gather(self._pass(connection, store), self._pass(store, connection))

    async def _pass(self, giver: socket.socket, taker: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        silenced = False
        with suppress(OSError):
            while data := await loop.sock_recv(giver, 1 << 16):
                silenced = silenced or not self._whole
                if not silenced:
                    await loop.sock_sendall(taker, data)
            if not silenced:
                taker.shutdown(socket.SHUT_WR)


@contextmanager
def lines(bucket: Bucket) -> Iterator[dict[str, Line]]:
    """Yield a line from each region to the server of a bucket."""
    port = int(bucket.endpoint.rpartition(":")[2])
    between = {region: Line(port) for region in REGIONS}
    with listening(*(line.accept for line in between.values())) as ports:
        for line, own in zip(between.values(), ports, strict=True):
            line.port = own
        yield between


@contextmanager
def _world(folder: Path, settings: dict[str, dict[str, object]]) -> Iterator[World]:
    with fly_proxy(REGIONS) as proxy:
        world = World(proxy, folder, settings)
        world.start(*settings)
        try:
            yield world
        finally:
            world.end()


@contextmanager
def shared_world(folder: Path, **settings: object) -> Iterator[tuple[World, dict[str, Line]]]:
    """Yield three regions that share a bucket, and their lines to it."""
    with ExitStack() as parts:
        bucket = parts.enter_context(moto_bucket())
        between = parts.enter_context(lines(bucket))
        each = {
            region: _SETTINGS
            | {"FLY_REGION": region, "FLY_MACHINE_ID": MACHINES[region], "store": f"s3://{bucket.name}"}
            | bucket.environment
            | {"AWS_ENDPOINT_URL_S3": f"http://{HOST}:{line.port}"}
            | settings
            for region, line in between.items()
        }
        yield parts.enter_context(_world(folder, each)), between


@contextmanager
def volume_world(*regions: str, **settings: object) -> Iterator[World]:
    """Yield three regions, or `regions`, with a volume each; originals are on the volume of the primary region."""
    if not os.path.ismount(_MOUNT) or not os.access(_MOUNT, os.W_OK):
        pytest.skip(f"{_MOUNT}, which stands for a volume, is no mount point that can be written")
    folder = Path(tempfile.mkdtemp(dir=_MOUNT))
    try:
        each = {
            region: _SETTINGS
            | {"FLY_REGION": region, "FLY_MACHINE_ID": MACHINES[region], "store": (folder / region / "store").as_uri()}
            | settings
            for region in regions or REGIONS
        }
        with _world(folder, each) as world:
            yield world
    finally:
        shutil.rmtree(folder)
