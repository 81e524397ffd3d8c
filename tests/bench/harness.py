"""What every run begins with: limits of the process, a temporary directory, a server, the photo, and the sides; and its conditions."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench import load, photos, servers
from tests.bench.bench import Bench, Extent
from tests.bench.client import connected
from tests.bench.sides import present

# How long the load of the machine is measured before each measurement.
BUSY_CORES_SECONDS = 0.3


@contextmanager
def prepared(extent: Extent, sides: Sequence[str]) -> Iterator[Bench]:
    """Yield a run. `sides`: the names of the sides that are measured beside Darkroom; none for all."""
    # On SIGTERM the servers and renderers that were started are ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _, max_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, max_files))
    # All sides run from compiled bytecode, even if the environment disables it, and none of it is written into the checkout.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as name:
        folder = Path(name)
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        photo_path, description = photos.photo(folder)
        with servers.darkroom(folder / "data") as server, connected(server.port) as client:
            yield Bench(extent, folder, server, client, photo_path, description, client.ingest(photo_path), present(sides))


def conditions(bench: Bench, busy_cores: Sequence[float]) -> dict[str, str]:
    """Return the conditions of a run. `busy_cores`: how many cores other programs used, measured several times."""
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "cores busy with other work": f"{min(busy_cores):.1f} to {max(busy_cores):.1f}, sampled before each measurement",
        "load generator": load.LOAD_GENERATOR,
        "photo": bench.photo_description,
    }
