"""What the command-line client adds to an ingest: names, digests, questions, a manifest."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import count

from tests.bench import photos, servers
from tests.bench.bench import Bench
from tests.bench.measure import in_turn
from tests.bench.report import Row, compared

AT_A_TIME = 4


def push(bench: Bench) -> list[Row]:
    """Return how many images a second the command pushes, from its start to its end, against a loop that only posts the same bytes.

    Each round has a server of its own, so that every image is new to it.
    """
    paths = photos.album(bench.photo_path, bench.folder, bench.extent.push_images)
    folder = bench.folder / "pushed"
    folder.mkdir()
    for number, path in enumerate(paths):
        (folder / f"{number:03}-{path.name}").symlink_to(path)
    numbers = count()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}

    def pushed() -> float:
        with servers.darkroom(bench.folder / f"push-{next(numbers)}") as server:
            options = ["--server", f"http://{servers.HOST}:{server.port}", "--parallel", str(AT_A_TIME)]
            manifest = ["--manifest", str(bench.folder / "images.json"), "--quiet"]
            return _per_second([str(servers.BIN / "darkroom"), "push", str(folder), *options, *manifest], "", environ, len(paths))

    def posted() -> float:
        with servers.darkroom(bench.folder / f"push-{next(numbers)}") as server:
            command = [sys.executable, "-m", "tests.bench.bare_push", str(server.port), str(AT_A_TIME)]
            return _per_second(command, "\n".join(str(path) for path in paths), environ, len(paths))

    figures = in_turn(pushed, posted, bench.extent.push_rounds)
    size = sum(path.stat().st_size for path in paths)
    note = f"{len(paths)} images, {size / 1e6:.0f} MB, {AT_A_TIME} at a time, with the start of the command; bare: a loop that posts them"
    return [compared(f"{len(paths)} images pushed", "/s", figures, 0.9, at_most=False, note=note)]


def _per_second(command: list[str], given: str, environ: dict[str, str], images: int) -> float:
    started = time.perf_counter()
    subprocess.run(command, input=given, text=True, cwd=servers.REPOSITORY, env=environ, check=True)
    return images / (time.perf_counter() - started)
