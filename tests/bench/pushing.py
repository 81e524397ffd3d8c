"""Throughput of `darkroom push`, which adds to the uploads themselves: file names, digests, look-ups, a manifest; the cost of an upload."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import count

from tests.bench import photos, servers
from tests.bench.bench import Bench
from tests.bench.client import connected
from tests.bench.measure import alternate
from tests.bench.report import Row, comparison_row, row
from tests.bench.sides import DARKROOM

CONCURRENCY = 4

_UPLOADS_PER_ROUND = 5


def push(bench: Bench) -> list[Row]:
    """Return how many images per second the command pushes, from its start to its end, against a loop that only posts the same bytes.

    Each round has its own server, so that every image is new to it.
    """
    paths = photos.album(bench.photo_path, bench.folder, bench.extent.push_images)
    folder = bench.folder / "pushed"
    folder.mkdir()
    for number, path in enumerate(paths):
        (folder / f"{number:03}-{path.name}").symlink_to(path)
    numbers = count()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}

    def push_per_second() -> float:
        with servers.darkroom(bench.folder / f"push-{next(numbers)}") as server:
            options = ["--server", f"http://{servers.HOST}:{server.port}", "--parallel", str(CONCURRENCY)]
            manifest = ["--manifest", str(bench.folder / "images.json"), "--quiet"]
            return _per_second([str(servers.BIN / "darkroom"), "push", str(folder), *options, *manifest], "", environ, len(paths))

    def post_per_second() -> float:
        with servers.darkroom(bench.folder / f"push-{next(numbers)}") as server:
            command = [sys.executable, "-m", "tests.bench.bare_push", str(server.port), str(CONCURRENCY)]
            return _per_second(command, "\n".join(str(path) for path in paths), environ, len(paths))

    figures = alternate(push_per_second, post_per_second, bench.extent.push_rounds)
    size = sum(path.stat().st_size for path in paths)
    note = f"{len(paths)} images, {size / 1e6:.0f} MB, {CONCURRENCY} at a time, with the start of the command; bare: a loop that posts them"
    return [comparison_row("100 images pushed", figures, note), _upload(bench)]


def _upload(bench: Bench) -> Row:
    """Return what one upload of the photo costs."""
    copy = bench.folder / "upload.jpg"
    photo = bench.photo_path.read_bytes()
    numbers = count()
    with servers.darkroom(bench.folder / "upload") as server, connected(server.port) as client:

        def upload() -> None:
            # The same picture, and another digest: a decoder stops at the end marker.
            copy.write_bytes(photo + next(numbers).to_bytes(4, "big"))
            client.ingest(copy)

        def cpu_milliseconds() -> float:
            before = server.cpu_seconds()
            for _ in range(_UPLOADS_PER_ROUND):
                upload()
            return (server.cpu_seconds() - before) / _UPLOADS_PER_ROUND * 1e3

        upload()
        figures = [cpu_milliseconds() for _ in range(bench.extent.push_rounds)]
    return row("upload of a camera's JPEG, CPU", {DARKROOM: figures}, bench.photo_description)


def _per_second(command: list[str], standard_input: str, environ: dict[str, str], images: int) -> float:
    started = time.perf_counter()
    subprocess.run(command, input=standard_input, text=True, cwd=servers.REPOSITORY, env=environ, check=True)
    return images / (time.perf_counter() - started)
