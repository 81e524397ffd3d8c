"""The sides that are measured: Darkroom, and bare libvips with three ways to decode, and other servers."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version

import click
import msgspec

from service.images.formats import FORMATS
from service.images.transform import PIPELINE_VERSION, parse
from service.urls.rendition_url import RenditionUrl
from service.urls.signing import Signer
from tests.bench import servers
from tests.bench.bare_render import Batch, BatchResult, Reduction
from tests.bench.client import connected
from tests.bench.peers.sides import PEERS
from tests.bench.side import ColdRenders, HttpSide, OpenSide, Place, Side, Work
from tests.support.processes import running
from tests.support.renditions import distinct_transform

DARKROOM = "Darkroom"
LIBVIPS = SAME_CALLS, THUMBNAIL, WHOLE_REDUCTION = "libvips, same calls", "libvips, its thumbnail", "libvips, whole reduction"

_KEY = "0" * 64


@contextmanager
def darkroom(place: Place, **settings: object) -> Iterator[OpenSide]:
    """Yield a server with default settings but for `settings`. It ingests an original before the first rendition of it."""
    signer = Signer([bytes.fromhex(_KEY)])
    digests: dict[str, str] = {}
    with servers.darkroom(place.folder, keys=_KEY, **settings) as server:

        def path(work: Work, number: int, quality: int | None) -> str:
            if work.original not in digests:
                with connected(server.port) as client:
                    digests[work.original] = client.ingest(place.originals / work.original).digest
            url = RenditionUrl(PIPELINE_VERSION, digests[work.original], transform(work, number, quality), FORMATS[work.format].extension)
            return signer.sign(url)

        yield HttpSide(server, path, is_cold=lambda response: response.rendered)


def transform(work: Work, number: int, quality: int | None = None) -> str:
    """Return the transform of a rendition, in canonical form: another one with the same pixels for each number from 0 on.

    quality: 1 to 100, `None` for the default.
    """
    text = distinct_transform(work.width, number)
    if work.smart_crop:
        # Nothing is transparent, so that the background has no effect.
        text = f"width={work.width},height={work.height},fit=cover,gravity=attention,background={number:06x}"
    return parse(text if quality is None else f"{text},quality={quality}").canonical_form


class _Libvips:
    """libvips in one process, without a server."""

    server = None
    caches = False

    def __init__(self, process: subprocess.Popen[bytes], place: Place, reduction: Reduction) -> None:
        self._process = process
        self._place = place
        self._reduction: Reduction = reduction

    def supports(self, work: Work) -> bool:  # noqa: ARG002 - the same signature
        return True

    def headers(self, work: Work) -> Mapping[str, str]:  # noqa: ARG002
        return {}

    def cold_path(self, work: Work) -> str:  # noqa: ARG002
        raise ValueError("libvips is no server")

    def render(self, work: Work, count: int) -> ColdRenders:
        result = self._run(work, count, 1)
        return ColdRenders(result.render_seconds, result.cpu_seconds, base64.b64decode(result.body))

    def renders_per_second(self, work: Work, count: int, clients: int) -> float:
        """Render in a thread for each client, but no more than there are cores: more would not make it faster."""
        return count / self._run(work, count, min(clients, len(os.sched_getaffinity(0)))).seconds

    def _run(self, work: Work, count: int, threads: int) -> BatchResult:
        if self._process.stdin is None or self._process.stdout is None:
            raise ValueError("the process was started without pipes")
        original = str(self._place.originals / work.original)
        batch = Batch(original, transform(work, 0), work.format, self._reduction, count, threads)
        self._process.stdin.write(msgspec.json.encode(batch) + b"\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._process.stdout.readline(), type=BatchResult)


@contextmanager
def _libvips(place: Place, *, reduction: Reduction) -> Iterator[OpenSide]:
    environ = {**os.environ, "VIPS_CONCURRENCY": "1", "MALLOC_ARENA_MAX": "2"}
    command = [sys.executable, "-m", "tests.bench.bare_render", msgspec.json.encode(place.priority).decode()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    # In its own session, whose priority it sets (sched(7), autogroup).
    with running(command, cwd=servers.REPOSITORY, env=environ, start_new_session=True, **pipes) as process:
        yield _Libvips(process, place, reduction)


def _libvips_side(name: str, reduction: Reduction, decoder: str) -> Side:
    def settings() -> str:
        return (
            f"pyvips {version('pyvips')} in one process at the priority of Darkroom's render processes, with the settings of Darkroom's "
            f"encoders; the decoder of a JPEG {decoder}"
        )

    return Side(name, partial(_libvips, reduction=reduction), settings)


SIDES: tuple[Side, ...] = (
    Side(DARKROOM, darkroom, lambda: f"{version('darkroom')} with default settings, warming off"),
    _libvips_side(SAME_CALLS, "ours", "shrinks as much as Darkroom's, and reads the intermediate where Darkroom does"),
    _libvips_side(THUMBNAIL, "thumbnail", "shrinks as much as `vips_thumbnail` makes it, which leaves a factor of two to the resampler"),
    _libvips_side(WHOLE_REDUCTION, "whole", "shrinks as much as it can"),
    *PEERS,
)


def present(names: Sequence[str]) -> list[Side]:
    """Return the sides that can run here, of those with these names, or of all without names. Say why the others cannot."""
    found = []
    for side in SIDES:
        if names and side.name not in names and side.name != DARKROOM:
            continue
        if reason := side.missing():
            click.echo(f"{side.name} is left out: {reason}", err=True)
        else:
            found.append(side)
    return found


@contextmanager
def opened(sides: Sequence[Side], place: Callable[[Side], Place]) -> Iterator[dict[str, OpenSide]]:
    """Yield these sides, running, by name, without those of others that do not start."""
    with ExitStack() as stack:
        running = {}
        for side in sides:
            try:
                running[side.name] = stack.enter_context(side.open(place(side)))
            except (RuntimeError, OSError) as error:
                leave_out(side.name, error)
        yield running


def leave_out(name: str, error: Exception) -> None:
    """Say that a side of others is left out because of an error; raise the error again if the side is Darkroom or bare libvips."""
    if name in {DARKROOM, *LIBVIPS}:
        raise error
    click.echo(f"{name} is left out: {error}", err=True)
