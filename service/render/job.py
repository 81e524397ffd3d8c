"""One render: the visible list of steps."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyvips

from service.address import digest_text
from service.render import colour, placeholder
from service.render.encode import encode
from service.render.geometry import Plan, plan
from service.render.messages import Failure, ImageInfo, Limits, Probe, Probed, Render, Rendered
from service.render.probe import ImageError, broken, probe, ran_out_of_memory
from service.transform import Gravity

# WebP and AVIF hold no longer side.
_LONGEST_SIDE = {"webp": 16_383, "avif": 16_384, "jpeg": 65_500, "png": 65_500}

# Originals that decode whole and have more pixels than this are worked on one at a time, so that two of them never need a small
# machine's memory at once.
HEAVY_PIXELS = 40_000_000

# Truncation and failed check sums are errors; what a decoder only warns of (many cameras' files) is not.
_FAIL_ON = "error"


class HeavyError(Exception):
    """The original of this job needs so much memory that it must be the only such one."""


def run_probe(job: Probe) -> Probed:
    """Return the facts and the placeholder of an original; raises `ImageError` and `HeavyError`."""
    info = probe(job.path, job.limits)
    _check_alone(info, job)
    with _failures_told(info):
        small = _decoded(job.path, info, Plan(*placeholder.size(info.width, info.height)))
        return Probed(info, placeholder.make(small))


def run_render(job: Render) -> Rendered:
    """Return one rendition; raises `ImageError` and `HeavyError`."""
    digest = _DigestBeside(job.path)
    try:
        info = probe(job.path, job.limits)
        _check_alone(info, job)
        steps = plan(info.width, info.height, job.transform)
        _check_output(steps, job)
        with _failures_told(info):
            image = _decoded(job.path, info, steps)
            image = _cut(image, steps, job.transform.gravity)
            image = _laid_on_canvas(image, steps)
            body = encode(image, job.format, job.quality)
    except ImageError as error:
        # What looks like a broken image may be a damaged copy of a good one.
        digest.check(job.digest)
        raise error from None
    digest.check(job.digest)
    return Rendered(body, image.width, image.height)


@contextmanager
def _failures_told(info: ImageInfo) -> Iterator[None]:
    """Turn what libvips raises into `ImageError`: decoding is lazy, so a broken file may show at any step."""
    try:
        yield
    except pyvips.Error as error:
        raise ImageError(too_costly(str(error)) if ran_out_of_memory(error) else broken(info.format, error)) from error


def _check_alone(info: ImageInfo, job: Probe | Render) -> None:
    if info.decodes_whole and info.pixels > HEAVY_PIXELS and not job.alone:
        raise HeavyError


def _decoded(path: str, info: ImageInfo, steps: Plan) -> pyvips.Image:
    """Return the original upright, in sRGB or grey, at the planned size, in memory if its pixels are looked at twice.

    `thumbnail` shrinks while it decodes where the codec can, which is most of the speed.
    """
    options = {"output_profile": colour.OUTPUT_PROFILE, "intent": colour.RENDERING_INTENT} if info.profile else {}
    image = pyvips.Image.thumbnail(path, steps.width, height=steps.height, size="force", fail_on=_FAIL_ON, **options)
    image = colour.to_srgb(image)
    return image.copy_memory() if steps.searched else image


def _cut(image: pyvips.Image, steps: Plan, gravity: Gravity) -> pyvips.Image:
    if steps.crop is None:
        return image
    crop = steps.crop
    if steps.searched:
        return image.smartcrop(crop.width, crop.height, interesting=gravity)
    return image.crop(crop.left, crop.top, crop.width, crop.height)


def _laid_on_canvas(image: pyvips.Image, steps: Plan) -> pyvips.Image:
    if steps.canvas is None:
        return image
    if not image.hasalpha():
        image = image.addalpha()
    canvas = steps.canvas
    return image.embed(canvas.left, canvas.top, canvas.width, canvas.height, extend="background", background=[0] * image.bands)


def _check_output(steps: Plan, job: Render) -> None:
    limits: Limits = job.limits
    longest = _LONGEST_SIDE[job.format]
    width, height = steps.output
    if width * height <= limits.max_output_pixels and max(width, height) <= longest:
        return
    raise ImageError(
        Failure(
            "too-many-pixels",
            "The rendition would have more pixels than are made.",
            expected=f"at most {limits.max_output_pixels} pixels, and no side of {job.format} longer than {longest}",
            received=f"{width} x {height}",
            remedy="Ask for a smaller width or height.",
        )
    )


def too_costly(cause: str) -> Failure:
    """Return that a render needs more memory than it may have."""
    return Failure(
        "too-costly",
        "This image needs more memory to render than a render may have.",
        remedy="Ask for a smaller rendition, send a smaller image or one that is not progressive or interlaced, "
        "or raise DARKROOM_RENDER_MEMORY_BYTES on the server.",
        cause=cause,
    )


class _DigestBeside:
    """The digest of a file, computed in a thread while libvips decodes it: hashlib and libvips both let the interpreter go."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._digest = ""
        self._thread = threading.Thread(target=self._compute)
        self._thread.start()

    def _compute(self) -> None:
        with open(self._path, "rb") as file:  # noqa: PTH123 - also a descriptor's path in /proc
            self._digest = digest_text(hashlib.file_digest(file, "sha256").digest())

    def check(self, expected: str) -> None:
        """Return if the file is the original `expected`; raises `ImageError` if its bytes have changed."""
        self._thread.join()
        if self._digest != expected:
            raise ImageError(
                Failure(
                    "damaged",
                    f"The stored original {expected} is damaged: its bytes are no longer those that it is named by.",
                    expected=expected,
                    received=self._digest,
                    remedy="Upload the same file again: that puts it right.",
                )
            )
