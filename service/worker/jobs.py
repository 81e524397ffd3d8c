"""The jobs of a render process, from an open file to a reply. `run_render` is the list of steps that a rendition goes through."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pyvips

from service.images import geometry
from service.images.digest import digest_from_sha256
from service.images.formats import Format
from service.images.geometry import Box, Plan
from service.images.info import ImageInfo, Limits
from service.images.options import AUTO, BLUR, Profile
from service.images.render_request import RenderRequest, resolve
from service.images.transform import DEFAULTS, HIGH_RANGE_QUALITY, Transform
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
from service.worker import color, composite, gain_map, high_range, memory, original_metadata, placeholder, quality
from service.worker.adjust import adjust
from service.worker.failures import out_of_memory
from service.worker.files import ImageFile
from service.worker.formats import hdr, ultra_hdr
from service.worker.formats.animation import Animation
from service.worker.load import (
    SHRINK_RULES,
    check_decoded,
    check_original,
    check_repaired,
    load_animation,
    load_still,
    load_whole,
)
from service.worker.metadata import select_metadata
from service.worker.probe import decoding_failure, probe, probe_upload
from service.worker.recompress import recompress
from service.worker.save import EncodeOptions, encode, encode_intermediate, encode_options
from service.worker.strip import Strip

# Originals that need a full decode and have more pixels than this are processed one at a time, so that two of them together never exceed
# the memory of a small machine.
EXCLUSIVE_ABOVE_PIXELS = 40_000_000

# These encoders take rows as the decoder makes them, without a copy of all pixels in between. JPEG is encoded at the same time if a core
# is free: at 1,280 pixels it takes 0.84 of the time, and 0.96 of the CPU. WebP takes 0.98 of the CPU.
_STREAMED_FORMATS: frozenset[Format] = frozenset({"webp", "jpeg", "png"})

# Renditions of up to this many pixels are decoded completely before they are encoded in other formats, so that both can be timed: a copy
# costs little beside these encoders. Copying a larger one would take much memory.
_MAX_TIMED_PIXELS = 4_000_000

# An animation of up to this many pixels in all frames is kept in memory if it has to be encoded more often than once; a larger one is
# decoded again each time.
_MAX_HELD_PIXELS = 16_000_000

# Borders are searched in a picture whose sides are at most this long: half a megapixel gives the same result as a hundred.
_MAX_TRIM_SIDE = 2_048


class NeedsExclusiveError(Exception):
    """The job's original needs so much memory that no other such job may run at the same time."""


def run_render(job: Render, descriptor: int, overlay_descriptor: int | None = None) -> Rendered:
    """Return one rendition.

    descriptor, overlay_descriptor: the open files of `job.input_file` and `job.overlay`.

    Raises `ImageError`, `NeedsExclusiveError`, `BadTransformError`, `TooManyPixelsError` and `TooComplexError`.
    """
    started = time.perf_counter()
    file = ImageFile.open(job.input_file, descriptor)
    overlay_file = None if job.overlay is None or overlay_descriptor is None else ImageFile.open(job.overlay, overlay_descriptor)
    with _verified(file, job.limits, exclusive=job.exclusive) as info, _verified_overlay(job, overlay_file) as overlay_info:
        request = _resolve_for_file(job, file, info)
        transform, plan = request.transform, request.plan
        page = info.of_page(transform.frame)
        if recompressed := recompress(file, page, request, job.limits):
            seconds = time.perf_counter() - started
            return Rendered(recompressed, page.width, page.height, encode_seconds=seconds, started_at=started)
        overlay_image = _load_overlay(job, overlay_file, overlay_info, plan)
        if request.frames > 1:
            strip = Strip(_render_animation(file, page, transform, plan, overlay_image))
            with strip.frame_errors():
                return _finish(lambda: _with_metadata(strip.open(), file, info, request), request, started)
        image, complete = _render_still(file, page, request, overlay_image, job.limits)
        image = _with_metadata(image, file, info, request)
        return _finish(lambda: image, request, started, complete)


def _with_metadata(image: pyvips.Image, file: ImageFile, info: ImageInfo, request: RenderRequest) -> pyvips.Image:
    transform = request.transform
    if transform.metadata == "none":
        return image
    original = original_metadata.read(file.stored, info.format, transform.frame or 0)
    return select_metadata(image, transform.metadata, request.format, original)


def _resolve_for_file(job: Render, file: ImageFile, info: ImageInfo) -> RenderRequest:
    """Return the request of a job, resolved again as far as the file requires it.

    The document may be older than the code that reads headers now, and only the pixels show where the borders are that `trim` removes.
    """
    request = job.request
    # Only an upload finds out how large a drawing may be drawn.
    measured = msgspec.structs.replace(info, max_width=request.info.max_width)
    if measured != request.info:
        request = resolve(info, request.transform, request.format, job.limits, version=request.version)
    if request.transform.trim is None:
        return request
    trimmed = _find_trim(file, info.of_page(request.transform.frame), request.transform)
    return resolve(info, request.transform, request.format, job.limits, version=request.version, trimmed=trimmed)


def _finish(
    open_picture: Callable[[], pyvips.Image], request: RenderRequest, started: float, complete: Callable[[bytes], bytes] = bytes
) -> Rendered:
    """Return the rendition of a picture that is ready to be encoded.

    open_picture: returns a still or a strip with its metadata, each time as one that was not read yet.
    started: when the render began, in seconds of `time.perf_counter`.
    complete: completes an encoded picture.
    """
    image = open_picture()
    if request.format not in _STREAMED_FORMATS and image.width * image.height <= _MAX_TIMED_PIXELS:
        image = image.copy_memory()
    decoded = time.perf_counter()
    body = _encode(image, open_picture, request, complete)
    encoded = time.perf_counter()
    seconds = {"decode_seconds": decoded - started, "encode_seconds": encoded - decoded}
    return Rendered(body, image.width, image.get_page_height(), started_at=started, **seconds)


def _render_still(
    file: ImageFile, info: ImageInfo, request: RenderRequest, overlay_image: pyvips.Image | None, limits: Limits
) -> tuple[pyvips.Image, Callable[[bytes], bytes]]:
    """Return the finished picture, and the function that completes its encoded file."""
    transform, plan = request.transform, request.plan
    is_high = high_range.is_wanted(request, info)
    if is_high and request.format != "jpeg":
        box = _load_framed(file, info, request)[1] if plan.searched else plan.crop
        image = high_range.render(file, info, request, box, limits)
        if image is not None:
            return image, bytes
    framed, box = _load_framed(file, info, request)
    image = _apply_transform(framed, box, transform, plan, overlay_image)
    gains = high_range.render_gain_map(file, info, request, box, limits) if is_high else None
    if gains is None:
        return image, bytes
    encoded, meaning = gain_map.encode(gains, encode_options(transform, request.version)), gains.info
    return image, lambda body: ultra_hdr.join(body, encoded, meaning)


def _load_framed(file: ImageFile, info: ImageInfo, request: RenderRequest) -> tuple[pyvips.Image, Box | None]:
    """Return the picture scaled, rotated and flipped, and the box to crop."""
    transform, plan = request.transform, request.plan
    page, deep, shrink_rule = transform.frame or 0, transform.stretches, SHRINK_RULES[request.version]
    image = load_still(file, info, plan, profile=transform.profile, page=page, high_bit_depth=deep, shrink_rule=shrink_rule)
    image = composite.rotate_and_flip(image, plan)
    if plan.searched:
        image = image.copy_memory()
    return image, composite.crop_box(image, plan, transform)


def _render_animation(file: ImageFile, info: ImageInfo, transform: Transform, plan: Plan, overlay_image: pyvips.Image | None) -> Animation:
    """Return the animation with its frames finished. The crop that is found in the first frame applies to all."""
    box = plan.crop
    if plan.searched:
        first = load_still(file, info, plan, profile=transform.profile)
        box = composite.crop_box(composite.rotate_and_flip(first, plan).copy_memory(), plan, transform)
    return load_animation(file, info, plan, profile=transform.profile).map(
        lambda frame: _apply_transform(composite.rotate_and_flip(frame, plan), box, transform, plan, overlay_image)
    )


def _apply_transform(
    image: pyvips.Image, box: Box | None, transform: Transform, plan: Plan, overlay_image: pyvips.Image | None
) -> pyvips.Image:
    """Return a frame ready to be encoded: the options of a transform act in this order.

    image: scaled, rotated and flipped.
    box: to crop, in pixels of `image`.
    """
    image = composite.crop(image, box)
    image = adjust(image, transform)
    if transform.background == BLUR:
        # The picture is also its own backdrop, and a decoder reads it only once.
        image = image.copy_memory()
    picture = image
    image = composite.embed(image, plan.canvas)
    image = composite.draw_overlay(image, overlay_image, transform.overlay)
    image = composite.round_corners(image, transform.round)
    image = composite.embed(image, plan.padded)
    return composite.fill_background(image, transform.background, picture)


def _encode(image: pyvips.Image, reopen: Callable[[], pyvips.Image], request: RenderRequest, complete: Callable[[bytes], bytes]) -> bytes:
    """Return the file of a picture.

    reopen: returns it again, because a strip can be read only once.
    complete: completes an encoded picture.
    """
    transform, image_format = request.transform, request.format
    options = encode_options(transform, request.version)
    default_quality = DEFAULTS[request.version].quality[image_format]
    is_hdr = hdr.color_space(image) is not None
    if is_hdr:
        default_quality = HIGH_RANGE_QUALITY.get(image_format, default_quality)
    max_quality = transform.quality if isinstance(transform.quality, int) else default_quality
    # The distance between pictures is defined for a standard dynamic range: others have the default quality.
    is_auto = transform.quality == AUTO and not is_hdr
    if not is_auto and transform.max_bytes is None:
        return complete(encode(image, image_format, max_quality, options))
    if image.get_page_height() == image.height or image.width * image.height <= _MAX_HELD_PIXELS:
        in_memory = image = image.copy_memory()

        def reopen() -> pyvips.Image:
            return in_memory

    if is_auto:
        body = complete(quality.encode_auto(image, image_format, max_quality, options, reopen=reopen))
        if transform.max_bytes is None or len(body) <= transform.max_bytes:
            return body

    def encode_at(level: int) -> bytes:
        return complete(encode(reopen(), image_format, level, options))

    return quality.fit_max_bytes(transform.max_bytes or 0, encode_at, max_quality)


def _load_overlay(job: Render, file: ImageFile | None, info: ImageInfo | None, plan: Plan) -> pyvips.Image | None:
    """Return the overlay at its final size and in memory, because every frame needs it."""
    transform = job.request.transform
    overlay = transform.overlay
    if overlay is None or file is None or info is None:
        return None
    width, height = composite.overlay_size(overlay, *plan.picture_size, info.width, info.height)
    # Keep wide colors only if the rendition has them too.
    profile: Profile = "p3" if transform.profile == "p3" else "srgb"
    image = load_still(file, info, Plan.whole(info.width, info.height, width, height), profile=profile)
    return image.copy_memory()


def run_ladder(job: RenderLadder, descriptor: int) -> Iterator[Rendered]:
    """Yield the plain renditions of a ladder, widest first. Only the widest is decoded; the others are scaled down from it.

    Raises `ImageError`, `NeedsExclusiveError`, `TooManyPixelsError` and `TooComplexError`.
    """
    widths = sorted(job.widths, reverse=True)
    quality, options = {**DEFAULTS[job.version].quality, **job.quality}, EncodeOptions(version=job.version)
    file = ImageFile.open(job.input_file, descriptor)
    with _verified(file, job.limits, exclusive=job.exclusive) as info:
        plan = geometry.feasible_plan(info, Transform(width=widths[0]), job.formats[0], job.limits, frames=1)
        widest = load_still(file, info, plan, shrink_rule=SHRINK_RULES[job.version]).copy_memory()
    for width in widths:
        plan = _width_plan(info, width)
        image = widest if width == widths[0] else _scale_down(widest, plan.width, plan.height).copy_memory()
        for image_format in job.formats:
            started = time.perf_counter()
            body = encode(image, image_format, quality[image_format], options)
            yield Rendered(body, image.width, image.height, encode_seconds=time.perf_counter() - started)


def _width_plan(info: ImageInfo, width: int) -> Plan:
    return geometry.make_plan(info.width, info.height, Transform(width=width), vector=info.vector)


def _scale_down(image: pyvips.Image, width: int, height: int) -> pyvips.Image:
    small = image.thumbnail_image(width, height=height, size="force", **color.icc_options(image, "srgb"))
    return color.to_8_bit(small, gray=color.is_gray(image))


def run_probe(job: Probe, descriptor: int) -> Probed:
    """Return the header information, the placeholder and the intermediate of an original. Raises `ImageError` and `NeedsExclusiveError`."""
    file = ImageFile.uploaded(descriptor)
    info, warnings = probe_upload(file.body, job.limits)
    _require_exclusive(info, exclusive=job.exclusive)
    with _translate_vips_errors(file, info):
        check_original(file, info)
        if info.intermediate is None:
            plan = Plan.whole(info.width, info.height, *placeholder.size(info.width, info.height))
            small = load_still(file, info, plan).copy_memory()
            check_decoded(info)
            return Probed(info, placeholder.make(small), None, warnings)
        whole = load_whole(file, info).copy_memory()
        check_decoded(info)
        small = _scale_down(whole, *placeholder.size(whole.width, whole.height))
        return Probed(info, placeholder.make(small), encode_intermediate(whole, halved=info.shrinks_on_load), warnings)


def run_make_intermediate(job: MakeIntermediate, descriptor: int) -> Intermediate:
    """Return the intermediate of an original that has one. Raises `ImageError` and `NeedsExclusiveError`."""
    file = ImageFile.open(job.input_file, descriptor)
    with _verified(file, job.limits, exclusive=job.exclusive) as info:
        body = encode_intermediate(load_whole(file, info), halved=info.shrinks_on_load)
    return Intermediate(body)


def run_find_trim(job: FindTrim, descriptor: int) -> Trimmed:
    """Return the part of an original inside its borders. Raises `ImageError`, `NeedsExclusiveError` and `BadTransformError`."""
    file = ImageFile.open(job.input_file, descriptor)
    with _verified(file, job.limits, exclusive=job.exclusive) as info:
        box = _find_trim(file, info.of_page(job.transform.frame), job.transform)
    return Trimmed(box.left, box.top, box.width, box.height)


def _find_trim(file: ImageFile, info: ImageInfo, transform: Transform) -> Box:
    region = geometry.make_plan(info.width, info.height, Transform(crop=transform.crop)).region
    scale = min(1, _MAX_TRIM_SIDE / max(region.width, region.height))
    plan = Plan(region=region, width=max(1, round(region.width * scale)), height=max(1, round(region.height * scale)))
    image = load_still(file, info, plan, page=transform.frame or 0).copy_memory()
    return composite.find_content_box(image, transform.trim or 0, region)


@contextmanager
def _verified(file: ImageFile, limits: Limits, *, exclusive: bool) -> Iterator[ImageInfo]:
    """Return a context that yields the header information of an original, and compares its digest when the context ends.

    The digest is computed meanwhile. If the body of the context fails, a wrong digest takes precedence over that failure: an image that
    seems broken may be a damaged copy of a good one. For an intermediate it yields the header of its original, and no digest is compared.

    Raises `ImageError` and `NeedsExclusiveError`.
    """
    if file.intermediate_of is not None:
        with _translate_vips_errors(file, file.intermediate_of):
            yield file.intermediate_of
        return
    digest = _BackgroundDigest(file.stored)
    try:
        info = probe(file.body, limits)
        _require_exclusive(info, exclusive=exclusive)
        with _translate_vips_errors(file, info):
            if file.body is not file.stored:
                check_repaired(file, info)
            yield info
    except ImageError as error:
        digest.check(file.digest)
        raise error from None
    digest.check(file.digest)


@contextmanager
def _verified_overlay(job: Render, file: ImageFile | None) -> Iterator[ImageInfo | None]:
    if file is None:
        yield None
        return
    with _verified(file, job.limits, exclusive=job.exclusive) as info:
        yield info


@contextmanager
def _translate_vips_errors(file: ImageFile, info: ImageInfo) -> Iterator[None]:
    """Raise the errors of libvips as `ImageError`. Decoding is lazy, so a broken file may be discovered at any step."""
    try:
        yield
    except pyvips.Error as error:
        message = str(error)
        failure = out_of_memory(message) if memory.is_out_of_memory(message) else decoding_failure(info.format, file.body, message)
        raise ImageError(failure) from error


def _require_exclusive(info: ImageInfo, *, exclusive: bool) -> None:
    if info.needs_full_decode and info.decoded_pixels > EXCLUSIVE_ABOVE_PIXELS and not exclusive:
        raise NeedsExclusiveError


class _BackgroundDigest:
    """The digest of a file, computed in a thread while libvips decodes it: hashlib and libvips both release the GIL."""

    def __init__(self, body: memoryview) -> None:
        self._body = body
        self._digest = ""
        self._thread = threading.Thread(target=self._compute)
        self._thread.start()

    def _compute(self) -> None:
        self._digest = digest_from_sha256(hashlib.sha256(self._body).digest())

    def check(self, expected: str) -> None:
        """Wait for the digest and compare it. Raises `ImageError`, `damaged`."""
        self._thread.join()
        if self._digest != expected:
            raise ImageError(
                Failure(
                    "damaged",
                    f"The stored original {expected} is damaged: its bytes no longer match its digest.",
                    expected=expected,
                    received=self._digest,
                    remedy="Upload the same file again, which repairs it.",
                )
            )
