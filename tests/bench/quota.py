"""A server with an eighth of a core, as a shared CPU has that has used up its credit: how much it renders, and whether hits go on."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from tests.bench import load, servers
from tests.bench.bench import Bench
from tests.bench.client import connected
from tests.bench.measure import percentile
from tests.bench.misses import WIDTH, ColdRenditions
from tests.bench.report import Row, row
from tests.bench.sides import DARKROOM

_GROUPS = Path("/sys/fs/cgroup")
_QUOTA_MICROSECONDS, _PERIOD_MICROSECONDS = 10_000, 80_000
_HITS_PER_SECOND = 5
_HOUR_SECONDS = 3_600


def throttled(bench: Bench) -> list[Row]:
    """Return the renders per hour of a server with an eighth of a core, or no rows if this process may not create a control group."""
    with servers.darkroom(bench.folder / "throttled") as server, connected(server.port) as client:
        image = client.ingest(bench.photo_path)
        cold = ColdRenditions(client, image)
        warm, *paths = cold.paths(bench.extent.throttled_seconds)
        client.rendition(warm)
        rendered = 0
        ends = time.perf_counter() + bench.extent.throttled_seconds
        latencies: list[float] = []

        def request_hits() -> None:
            latencies.extend(load.at_constant_rate(server.port, warm, _HITS_PER_SECOND, bench.extent.throttled_seconds))

        try:
            with _quota(server.tree()):
                hits = threading.Thread(target=request_hits)
                hits.start()
                for path in paths:
                    client.rendition(path)
                    if time.perf_counter() > ends:
                        break
                    rendered += 1
                hits.join()
        except OSError as error:
            click.echo(f"throttled: left out, because there can be no control group: {error}", err=True)
            return []
    p50, p99 = (percentile(latencies, share) * 1e3 for share in (0.5, 0.99))
    note = f"WebP {WIDTH} of the photo, one after the other; meanwhile {len(latencies)} hits, p50 {p50:.0f} ms, p99 {p99:.0f} ms"
    return [row("renders per hour with an eighth of a core", {DARKROOM: [rendered * _HOUR_SECONDS / bench.extent.throttled_seconds]}, note)]


@contextmanager
def _quota(process_ids: Sequence[int]) -> Iterator[None]:
    """Within the block, let these processes together use an eighth of a core. Raises `OSError` if that is not permitted."""
    name = f"darkroom-bench-{os.getpid()}"
    first_version = (_GROUPS / "cpu").is_dir()
    top = _GROUPS / "cpu" if first_version else _GROUPS
    group = top / name
    group.mkdir()
    try:
        if first_version:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_MICROSECONDS), "ascii")
            (group / "cpu.cfs_quota_us").write_text(str(_QUOTA_MICROSECONDS), "ascii")
        else:
            (group / "cpu.max").write_text(f"{_QUOTA_MICROSECONDS} {_PERIOD_MICROSECONDS}", "ascii")
        _move(process_ids, group)
        yield
    finally:
        # A group can be removed when nothing is in it any more.
        _move([int(line) for line in (group / "cgroup.procs").read_text("ascii").split()], top)
        group.rmdir()


def _move(process_ids: Sequence[int], group: Path) -> None:
    for process_id in process_ids:
        (group / "cgroup.procs").write_text(str(process_id), "ascii")
