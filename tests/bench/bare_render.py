"""`python -m tests.bench.bare_render <priority>` makes the libvips calls of a render and nothing else, in one process.

To make a photo narrower, it calls only `thumbnail` for the steps of `service/worker/jobs.py`. The resulting bytes must be the same.

For each line of standard input, a `Batch` in JSON, it writes a line with a `BatchResult` to standard output.
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

# The same as in service/worker/save.py; with another effort the bytes of the rendition differ.
_WEBP_EFFORT = 2


class Batch(msgspec.Struct, frozen=True):
    """Render the file at `path` to `width` × `height` pixels as WebP, `count` times in all, in `threads` threads.

    `quality`: 1 to 100. `profile`: whether the file has a color profile, from which its colors are converted to sRGB.
    """

    path: str
    width: int
    height: int
    quality: int
    count: int
    threads: int
    profile: bool


class BatchResult(msgspec.Struct, frozen=True):
    """The outcome of a batch.

    `render_seconds`: how long each render took. `seconds`: how long all of them took together. `cpu_seconds`: user and system time of
    this process meanwhile. `sha256`: of the last rendition's bytes, in hexadecimal digits.
    """

    render_seconds: list[float]
    seconds: float
    cpu_seconds: float
    sha256: str


def main() -> None:
    """Serve batches at the priority of the first argument, a `Priority` in JSON."""
    msgspec.json.decode(sys.argv[1], type=Priority).apply()
    pyvips.cache_set_max(0)
    for line in sys.stdin.buffer:
        result = _run_batch(msgspec.json.decode(line, type=Batch))
        sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
        sys.stdout.buffer.flush()


def _run_batch(batch: Batch) -> BatchResult:
    cpu = time.process_time()
    started = time.perf_counter()
    if batch.threads == 1:
        renders = [_render(batch) for _ in range(batch.count)]
    else:
        with ThreadPoolExecutor(batch.threads) as threads:
            renders = list(threads.map(_render, [batch] * batch.count))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    return BatchResult([each for each, _ in renders], seconds, cpu_seconds, hashlib.sha256(renders[-1][1]).hexdigest())


def _render(batch: Batch) -> tuple[float, bytes]:
    started = time.perf_counter()
    conversion = {"output_profile": "srgb", "intent": RENDERING_INTENT} if batch.profile else {}
    image = pyvips.Image.thumbnail(batch.path, batch.width, height=batch.height, size="force", fail_on="error", **conversion)
    body = image.webpsave_buffer(Q=batch.quality, effort=_WEBP_EFFORT, keep="none")
    return time.perf_counter() - started, body


if __name__ == "__main__":
    main()
