"""`python -m tests.bench.bare_render <priority>`: the libvips calls of a render and nothing else, in one process.

`thumbnail` alone does what `service/worker/jobs.py` does in steps for a photo that is made narrower; the bytes must be the same.

Reads a `Batch` as a line of JSON, answers with a `Done` on a line, until its standard input ends.
"""

from __future__ import annotations

import hashlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pyvips

from service.worker.color import RENDERING_INTENT
from tests.bench.measure import Priority

# That of service/worker/save.py; if it is another one there, other bytes come out.
_WEBP_EFFORT = 2


class Batch(msgspec.Struct, frozen=True):
    """Render the file at `path` to `width` × `height` pixels as WebP, `count` times in all, in so many threads.

    `profile`: the file carries a colour profile, so that its colours are converted.
    """

    path: str
    width: int
    height: int
    quality: int
    count: int
    threads: int
    profile: bool


class Done(msgspec.Struct, frozen=True):
    """How long each render took, how long all of them, and user and system time of this process meanwhile, in seconds.

    `sha256` is that of the last rendition's bytes, in hexadecimal digits.
    """

    each: list[float]
    seconds: float
    cpu_seconds: float
    sha256: str


def main() -> None:
    """Serve batches at the given priority, JSON of a `Priority`."""
    msgspec.json.decode(sys.argv[1], type=Priority).take()
    pyvips.cache_set_max(0)
    for line in sys.stdin.buffer:
        done = _done(msgspec.json.decode(line, type=Batch))
        sys.stdout.buffer.write(msgspec.json.encode(done) + b"\n")
        sys.stdout.buffer.flush()


def _done(batch: Batch) -> Done:
    cpu = time.process_time()
    started = time.perf_counter()
    if batch.threads == 1:
        made = [_render(batch) for _ in range(batch.count)]
    else:
        with ThreadPoolExecutor(batch.threads) as threads:
            made = list(threads.map(_render, [batch] * batch.count))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    return Done([each for each, _ in made], seconds, cpu_seconds, hashlib.sha256(made[-1][1]).hexdigest())


def _render(batch: Batch) -> tuple[float, bytes]:
    started = time.perf_counter()
    colours = {"output_profile": "srgb", "intent": RENDERING_INTENT} if batch.profile else {}
    image = pyvips.Image.thumbnail(batch.path, batch.width, height=batch.height, size="force", fail_on="error", **colours)
    body = image.webpsave_buffer(Q=batch.quality, effort=_WEBP_EFFORT, keep="none")
    return time.perf_counter() - started, body


if __name__ == "__main__":
    main()
