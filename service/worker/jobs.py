"""One render: the visible list of steps."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pyvips

from service.images import geometry
from service.images.digest import digest_from_sha256
from service.images.geometry import Box, Plan, plan
from service.images.info import ImageInfo, Limits
from service.images.options import AUTO, BLUR, Profile
from service.images.transform import DEFAULTS, Transform, for_format
from service.rendering.protocol import (
    Failure,
    FindTrim,
    ImageError,
    Intermediate,
    MakeIntermediate,
    Probe,
    Probed,
    Render,
    Rendered,
    RenderLadder,
    Trimmed,
)
from service.worker import color, composite, load, memory, placeholder, quality
from service.worker.adjust import adjusted
from service.worker.files import Input, mapped
from service.worker.formats import animation
from service.worker.metadata import with_metadata
from service.worker.probe import broken, probe
from service.worker.save import encode, encode_intermediate, encoding

# Originals that decode whole and have more pixels than this are worked on one at a time, so that two of them never need a small
# machine's memory at once.
HEAVY_PIXELS = 40_000_000

# A rendition of so many pixels is decoded before it is encoded, so that each can be told apart: a copy of it costs next to nothing. A
# larger one would cost memory.
_APART_PIXELS = 4_000_000

# Borders are looked for in a picture no larger than this a side: half a megapixel tells as much as a hundred.
_TRIM_SIDE = 2_048


class NeedsExclusiveError(Exception):
    """The original of this job needs so much memory that it must be the only such one."""


def run_probe(job: Probe, descriptor: int) -> Probed:
    """Return the facts, the placeholder and the intermediate of an original; raises `ImageError` and `NeedsExclusiveError`."""
    body = mapped(descriptor)
    info = probe(body, job.limits, uploaded=True)
    _require_exclusive(info, exclusive=job.exclusive)
    source = Input(body, "", None)
    with _translate_vips_errors(info):
        load.check(source, info)
        if info.intermediate is None:
            steps = Plan.whole(info.width, info.height, *placeholder.size(info.width, info.height))
            return Probed(info, placeholder.make(load.still(source, info, steps)), None)
        whole = load.reduced(source, info).copy_memory()
        return Probed(info, placeholder.make(_shrunk(whole, *placeholder.size(whole.width, whole.height))), encode_intermediate(whole))


def run_make_intermediate(job: MakeIntermediate, descriptor: int) -> Intermediate:
    """Return the intermediate of an original that has one; raises `ImageError` and `NeedsExclusiveError`."""
    source = Input.of(job.input_file, descriptor)
    with _verified(source, job.limits, exclusive=job.exclusive) as info:
        body = encode_intermediate(load.reduced(source, info))
    return Intermediate(body)


def run_find_trim(job: FindTrim, descriptor: int) -> Trimmed:
    """Return what trimming leaves of an original; raises `ImageError`, `NeedsExclusiveError` and `BadTransformError`."""
    source = Input.of(job.input_file, descriptor)
    with _verified(source, job.limits, exclusive=job.exclusive) as info:
        box = _trimmed(source, info.of_page(job.transform.frame), job.transform)
    return Trimmed(box.left, box.top, box.width, box.height)


def run_render(job: Render, descriptor: int, overlay_descriptor: int | None = None) -> Rendered:
    """Return one rendition; raises `ImageError`, `NeedsExclusiveError`, and what `geometry.check` and `for_format` do."""
    started = time.perf_counter()
    transform = for_format(job.transform, job.format)
    source = Input.of(job.input_file, descriptor)
    overlay = None if job.overlay is None or overlay_descriptor is None else Input.of(job.overlay, overlay_descriptor)
    with _verified(source, job.limits, exclusive=job.exclusive) as info, _overlay_verified(job, overlay) as overlay_info:
        animated = info.animates(transform, job.format, by_default=DEFAULTS[job.version].animates)
        frames = info.frames if animated else 1
        geometry.check(info, transform, job.format, job.limits, frames=frames)
        page = info.of_page(transform.frame)
        trimmed = None if transform.trim is None else _trimmed(source, page, transform)
        if trimmed is not None:
            # What is left may be of another shape, and larger at the size that is asked for.
            geometry.check(info, transform, job.format, job.limits, frames=frames, trimmed=trimmed)
        steps = plan(page.width, page.height, transform, vector=page.vector, trimmed=trimmed)
        over = _overlay_picture(job, overlay, overlay_info, steps)
        image = (_animation if animated else _still)(source, page, transform, steps, over)
        image = with_metadata(image, transform)
        if image.width * image.height <= _APART_PIXELS:
            image = image.copy_memory()
        decoded = time.perf_counter()
        body = _encoded(image, job, transform)
        encoded = time.perf_counter()
    return Rendered(body, image.width, image.get_page_height(), decode_seconds=decoded - started, encode_seconds=encoded - decoded)


def run_ladder(job: RenderLadder, descriptor: int) -> Iterator[Rendered]:
    """Give the plain renditions of a ladder from one decode: the widest is decoded, the others are made of it.

    Raises `ImageError` and `NeedsExclusiveError`.
    """
    widths = sorted(job.widths, reverse=True)
    defaults = DEFAULTS[job.version]
    source = Input.of(job.input_file, descriptor)
    with _verified(source, job.limits, exclusive=job.exclusive) as info:
        geometry.check(info, Transform(width=widths[0]), job.formats[0], job.limits, frames=1)
        widest = load.still(source, info, _plain(info, widths[0])).copy_memory()
    for width in widths:
        steps = _plain(info, width)
        image = widest if width == widths[0] else _shrunk(widest, steps.width, steps.height).copy_memory()
        for image_format in job.formats:
            started = time.perf_counter()
            body = encode(image, image_format, defaults.quality[image_format])
            yield Rendered(body, image.width, image.height, encode_seconds=time.perf_counter() - started)


def _still(source: Input, info: ImageInfo, transform: Transform, steps: Plan, over: pyvips.Image | None) -> pyvips.Image:
    page = transform.frame or 0
    image = load.still(source, info, steps, profile=transform.profile, page=page, deep=transform.stretches)
    image = composite.turned(image, steps)
    if steps.searched:
        image = image.copy_memory()
    box = composite.cut_box(image, steps, transform)
    return _picture(image, box, transform, steps, over)


def _animation(source: Input, info: ImageInfo, transform: Transform, steps: Plan, over: pyvips.Image | None) -> pyvips.Image:
    """Return the finished frames below one another. What is cut of the first frame is cut of all."""
    box = steps.crop
    if steps.searched:
        first = load.still(source, info, steps, profile=transform.profile)
        box = composite.cut_box(composite.turned(first, steps).copy_memory(), steps, transform)
    strip, frames = load.frames(source, info, steps, profile=transform.profile)
    # In memory one by one: the pipeline of each would take some megabytes, most of them lost to fragmentation, until the last is encoded.
    pictures = [_picture(composite.turned(frame, steps), box, transform, steps, over).copy_memory() for frame in frames]
    return animation.joined(pictures, animation.timing(strip))


def _picture(image: pyvips.Image, box: Box | None, transform: Transform, steps: Plan, over: pyvips.Image | None) -> pyvips.Image:
    """Return a frame, decoded and turned, as it is to be encoded: the order in which a transform acts."""
    image = composite.cut(image, box)
    image = adjusted(image, transform)
    if transform.background == BLUR:
        # It is looked at twice; a decoder goes forward only.
        image = image.copy_memory()
    picture = image
    image = composite.laid_on(image, steps.canvas)
    image = composite.overlaid(image, over, transform.overlay)
    image = composite.rounded(image, transform.round)
    image = composite.laid_on(image, steps.padded)
    return composite.on_background(image, transform.background, picture)


def _encoded(image: pyvips.Image, job: Render, transform: Transform) -> bytes:
    asked = encoding(transform)
    best = transform.quality if isinstance(transform.quality, int) else DEFAULTS[job.version].quality[job.format]
    if transform.quality != AUTO and transform.max_bytes is None:
        return encode(image, job.format, best, asked)
    image = image.copy_memory()
    if transform.quality == AUTO:
        body = quality.auto(image, job.format, best, asked)
        if transform.max_bytes is None or len(body) <= transform.max_bytes:
            return body
    return quality.within(transform.max_bytes or 0, lambda level: encode(image, job.format, level, asked), best)


def _overlay_picture(job: Render, source: Input | None, info: ImageInfo | None, steps: Plan) -> pyvips.Image | None:
    """Return the image to be laid over, at its final size and in memory: each frame needs it."""
    overlay = job.transform.overlay
    if overlay is None or source is None or info is None:
        return None
    width, height = composite.overlay_size(overlay, *steps.picture, info.width, info.height)
    # Of wide colours as many stay as the picture has room for.
    profile: Profile = "p3" if job.transform.profile == "p3" else "srgb"
    over = load.still(source, info, Plan.whole(info.width, info.height, width, height), profile=profile)
    return over.copy_memory()


def _trimmed(source: Input, info: ImageInfo, transform: Transform) -> Box:
    within = plan(info.width, info.height, Transform(crop=transform.crop)).region
    scale = min(1, _TRIM_SIDE / max(within.width, within.height))
    width, height = max(1, round(within.width * scale)), max(1, round(within.height * scale))
    steps = Plan(region=within, width=width, height=height)
    image = load.still(source, info, steps, page=transform.frame or 0).copy_memory()
    return composite.within_borders(image, transform.trim or 0, within)


def _plain(info: ImageInfo, width: int) -> Plan:
    return plan(info.width, info.height, Transform(width=width), vector=info.vector)


def _shrunk(image: pyvips.Image, width: int, height: int) -> pyvips.Image:
    small = image.thumbnail_image(width, height=height, size="force", **color.conversion(image, "srgb"))
    return color.of_8_bits(small, grey=color.is_grey(image))


@contextmanager
def _verified(source: Input, limits: Limits, *, exclusive: bool) -> Iterator[ImageInfo]:
    """Give what the original's header tells, and compare its digest while it is worked on: unless all went well, first of all."""
    if source.intermediate_of is not None:
        with _translate_vips_errors(source.intermediate_of):
            yield source.intermediate_of
        return
    digest = _DigestBeside(source.body)
    try:
        info = probe(source.body, limits)
        _require_exclusive(info, exclusive=exclusive)
        with _translate_vips_errors(info):
            yield info
    except ImageError as error:
        # What looks like a broken image may be a damaged copy of a good one.
        digest.check(source.digest)
        raise error from None
    digest.check(source.digest)


@contextmanager
def _overlay_verified(job: Render, overlay: Input | None) -> Iterator[ImageInfo | None]:
    if overlay is None:
        yield None
        return
    with _verified(overlay, job.limits, exclusive=job.exclusive) as info:
        yield info


@contextmanager
def _translate_vips_errors(info: ImageInfo) -> Iterator[None]:
    """Turn what libvips raises into `ImageError`: decoding is lazy, so a broken file may show at any step."""
    try:
        yield
    except pyvips.Error as error:
        raise ImageError(too_costly(str(error)) if memory.ran_out(str(error)) else broken(info.format, error)) from error


def _require_exclusive(info: ImageInfo, *, exclusive: bool) -> None:
    if info.needs_full_decode and info.pixels > HEAVY_PIXELS and not exclusive:
        raise NeedsExclusiveError


def too_costly(cause: str) -> Failure:
    """Return that a render needs more memory than it may have."""
    return Failure(
        "too-costly",
        "This image needs more memory to render than a render may have.",
        remedy="Ask for a smaller rendition, send a smaller image or one that is not progressive or interlaced, "
        "or raise DARKROOM_RENDER_MEMORY_BYTES on the server.",
        cause=cause,
        short_of_memory=True,
    )


class _DigestBeside:
    """The digest of a file, computed in a thread while libvips decodes it: hashlib and libvips both let the interpreter go."""

    def __init__(self, body: memoryview) -> None:
        self._body = body
        self._digest = ""
        self._thread = threading.Thread(target=self._compute)
        self._thread.start()

    def _compute(self) -> None:
        self._digest = digest_from_sha256(hashlib.sha256(self._body).digest())

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
