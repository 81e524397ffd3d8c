"""`python -m tests.bench.bare_render <priority>` makes the libvips calls of a render and nothing else, in one process.

For each line of standard input, a `Batch` in JSON, it writes a line with a `BatchResult` to standard output.
"""

from __future__ import annotations

import base64
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import msgspec
import pyvips

from service.images.formats import Format
from service.images.geometry import Plan, intermediate_suffices, make_plan
from service.images.info import SHRINK_ON_LOAD, ImageInfo
from service.images.transform import DEFAULTS, PIPELINE_VERSION, parse
from service.worker import color
from service.worker.files import ImageFile
from service.worker.load import FAIL_ON, SHRINK_RULES, load_whole, shrink_on_load
from service.worker.save import encode, encode_intermediate
from tests.bench.measure import Priority

# How far the decoder of a JPEG shrinks: as far as Darkroom's settings say, and from the intermediate where Darkroom has one; as far as
# libvips' `thumbnail` does, which leaves a factor of two to the resampler; as far as it can.
Reduction: TypeAlias = Literal["ours", "thumbnail", "whole"]


class Batch(msgspec.Struct, frozen=True):
    """Render the file at `path` `count` times in all, in `threads` threads, with Darkroom's settings of the encoder.

    transform: in canonical form, with nothing but a box and a gravity.
    """

    path: str
    transform: str
    format: Format
    reduction: Reduction
    count: int
    threads: int


class BatchResult(msgspec.Struct, frozen=True):
    """The outcome of a batch.

    render_seconds: how long each render took. seconds: how long all of them took together. cpu_seconds: user and system time of
    this process meanwhile. body: the bytes of the last rendition, in base64.
    """

    render_seconds: list[float]
    seconds: float
    cpu_seconds: float
    body: str


def main() -> None:
    """Serve batches at the priority of the first argument, a `Priority` in JSON."""
    msgspec.json.decode(sys.argv[1], type=Priority).apply()
    pyvips.cache_set_max(0)
    for line in sys.stdin.buffer:
        result = _run_batch(msgspec.json.decode(line, type=Batch))
        sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
        sys.stdout.buffer.flush()


def _run_batch(batch: Batch) -> BatchResult:
    render = _Render(batch)
    cpu = time.process_time()
    started = time.perf_counter()
    if batch.threads == 1:
        renders = [render() for _ in range(batch.count)]
    else:
        with ThreadPoolExecutor(batch.threads) as threads:
            renders = list(threads.map(lambda _: render(), range(batch.count)))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    return BatchResult([each for each, _ in renders], seconds, cpu_seconds, base64.b64encode(renders[-1][1]).decode())


class _Render:
    """The renders of a batch. What Darkroom decides without libvips is decided once."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._path = batch.path
        image = pyvips.Image.new_from_file(self._path)
        info = _info(image)
        self._plan = make_plan(image.width, image.height, parse(batch.transform))
        if batch.reduction == "ours" and intermediate_suffices(info, parse(batch.transform), self._plan):
            # Its path is valid as long as it is open.
            self._intermediate = _intermediate(self._path, info)
            self._path = f"/proc/self/fd/{self._intermediate.fileno()}"
            image = pyvips.Image.new_from_file(self._path)
        self._factor = _factor(image, info, self._plan, batch.reduction) if _is_jpeg(image) else 1
        self._quality = DEFAULTS[PIPELINE_VERSION].quality[batch.format]

    def __call__(self) -> tuple[float, bytes]:
        """Render once, and return the seconds and the bytes."""
        started = time.perf_counter()
        body = encode(self._picture(), self._batch.format, self._quality)
        return time.perf_counter() - started, body

    def _picture(self) -> pyvips.Image:
        plan = self._plan
        shrink = {"shrink": self._factor} if self._factor > 1 else {}
        image = pyvips.Image.new_from_file(self._path, access="sequential", fail_on=FAIL_ON, **shrink)
        image = image.thumbnail_image(plan.width, height=plan.height, size="force", **color.icc_options(image, "srgb"))
        if plan.crop is None:
            return image
        return image.copy_memory().smartcrop(plan.crop.width, plan.crop.height, interesting="attention")


def _info(image: pyvips.Image) -> ImageInfo:
    progressive = image.get_typeof("interlaced") != 0
    image_format = "jpeg" if _is_jpeg(image) else "png"
    return ImageInfo(image_format, image.width, image.height, 1, alpha=False, needs_full_decode=progressive)


def _is_jpeg(image: pyvips.Image) -> bool:
    return str(image.get("vips-loader")).startswith("jpegload")


def _intermediate(path: str, info: ImageInfo) -> BinaryIO:
    """Return the open intermediate of an original."""
    with Path(path).open("rb") as original:
        whole = load_whole(ImageFile.uploaded(original.fileno()), info)
        body = encode_intermediate(whole, halved=info.shrinks_on_load)
    file = os.fdopen(os.memfd_create("intermediate"), "w+b")
    file.write(body)
    file.flush()
    return file


def _factor(image: pyvips.Image, info: ImageInfo, plan: Plan, reduction: Reduction) -> int:
    if reduction == "ours":
        return shrink_on_load(image.width, image.height, info, plan, SHRINK_RULES[PIPELINE_VERSION])
    left_to_resampler = 2 if reduction == "thumbnail" else 1
    scale = min(image.width / plan.width, image.height / plan.height)
    return next((factor for factor in SHRINK_ON_LOAD if scale >= factor * left_to_resampler), 1)


if __name__ == "__main__":
    main()
