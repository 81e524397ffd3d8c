"""Animations: frames, delays and loops survive gif ↔ webp with any transform; stills are the requested frame; limits."""

from __future__ import annotations

import functools
import io
import struct
from pathlib import Path

import anyio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from PIL import ExifTags, Image, ImageSequence

from service.errors import BadTransformError, TooManyPixelsError
from service.images.formats import Format
from service.images.info import ImageInfo
from service.images.transform import for_format, parse
from service.rendering.pool import RenderPool
from service.urls.signing import Signer, UrlBuilder
from service.worker.formats import avif_sequence
from service.worker.formats.animation import gif_delays
from service.worker.formats.tiff import page_sizes
from tests.support import images, reference
from tests.support.renders import LIMITS, MEBIBYTE, probed, render_pool, rendered, written

pytestmark = pytest.mark.anyio

ANIMATED: tuple[Format, ...] = ("gif", "webp", "avif")
STILL: tuple[Format, ...] = ("jpeg", "png", "jxl")
DELAYS = [40, 120, 200, 80, 500]
MARK = "a" * 32

# Largest mean difference of a frame from the reference, in levels of 8-bit sRGB. The pictures have a few flat colors, whose edges GIF's
# palette rounds and WebP and AVIF blur at their default quality.
TOLERANCE: dict[Format, float] = {"gif": 2.5, "webp": 3.0, "avif": 3.0}

# The same for the first and the last row only, where a neighboring frame could bleed in: a black row beside white would differ by 255.
EDGE_TOLERANCE = 12.0

TRANSFORMS = [
    "full",
    "width=61",
    "height=37",
    "width=50,height=50",
    "width=50,height=50,fit=cover,gravity=east",
    "width=60,height=20,fit=cover,gravity=focal:0.3:0.9",
    "width=70,height=71,fit=contain,gravity=south",
    "width=47,height=80,fit=fill",
    "width=200,enlarge=true",
    "crop=11:7:90:61",
    "crop=10p:50p:80p:50p,width=40",
    "rotate=90,width=40",
    "rotate=180",
    "flip=vertical",
    "rotate=20,background=336699",
    "blur=2",
    "grayscale=true,brightness=0.8",
    "round=20,background=ffcc00",
    "pad=3:5,background=224466",
    f"width=80,overlay={MARK}:southeast:0.3",
]


def frames_of(body: bytes) -> list[Image.Image]:
    image = images.decode(body)
    return [frame.convert("RGBA") for frame in ImageSequence.Iterator(image)]


def timing_of(body: bytes) -> tuple[list[int], int]:
    """Return the delays in milliseconds and how often the animation is played, 0 for endlessly.

    A GIF states how often it is repeated, or nothing if it is played once; a WebP and an AVIF state how often it is played.
    """
    image = images.decode(body)
    delays = []
    for frame in range(getattr(image, "n_frames", 1)):
        image.seek(frame)
        image.load()
        delays.append(int(image.info["duration"]))
    if image.format == "AVIF":
        return delays, avif_sequence.survey(memoryview(body), len(delays)).timing.loops
    if image.format == "WEBP":
        return delays, int(image.info["loop"])
    again = image.info.get("loop")
    return delays, 1 if again is None else int(again) + 1 if again else 0


@functools.cache
def ideal_frames(spelling: str) -> list[Image.Image]:
    """Return the frames of the film after a transform."""
    mark = Image.new("RGB", (30, 20), (250, 120, 0))
    return [reference.reference(picture, parse(spelling), mark) for picture in images.film()]


@pytest.mark.parametrize("source", ["GIF", "WEBP"])
async def test_animation_with_any_transform_keeps_every_frame(pool: RenderPool, tmp_path: Path, source: str) -> None:
    path = written(tmp_path, images.animation(images.film(), source, delays=DELAYS, loops=3))
    overlay = written(tmp_path, images.flat_png(30, 20, (250, 120, 0)), "overlay")
    wrong: list[str] = []

    async def look(spelling: str, image_format: Format) -> None:
        result = await rendered(pool, path, spelling, image_format, overlay=overlay if "overlay" in spelling else None)
        frames, ideals = frames_of(result.body), ideal_frames(spelling)
        if timing_of(result.body)[0] != DELAYS:
            wrong.append(f"{spelling} {image_format}: delays {timing_of(result.body)[0]}")
        if {frame.size for frame in frames} != {(result.width, result.height)} or frames[0].size != ideals[0].size:
            wrong.append(f"{spelling} {image_format}: {frames[0].size}, not {ideals[0].size}")
            return
        for number, (frame, ideal) in enumerate(zip(frames, ideals, strict=True)):
            one, other = reference.flatten_on_white(frame), reference.flatten_on_white(ideal)
            away = images.distance(one, other)
            across = (0, 0, one.width, 1), (0, one.height - 1, one.width, one.height)
            rim = max(images.distance(one.crop(row), other.crop(row)) for row in across)
            if away > TOLERANCE[image_format] or rim > EDGE_TOLERANCE:
                wrong.append(f"{spelling} {image_format} frame {number}: {away:.2f} away, {rim:.2f} at the rim")

    async with anyio.create_task_group() as tasks:
        for image_format in ANIMATED:
            for spelling in TRANSFORMS:
                tasks.start_soon(look, spelling, image_format)
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "loops", "shown"),
    [("GIF", None, 1), ("GIF", 0, 0), ("GIF", 1, 2), ("GIF", 9, 10), ("WEBP", 0, 0), ("WEBP", 1, 1), ("WEBP", 4, 4)],
)
async def test_animation_has_the_loop_count_of_the_original(
    pool: RenderPool, tmp_path: Path, source: str, loops: int | None, shown: int
) -> None:
    body = images.animation(images.film(60, 40), source, delays=DELAYS, loops=loops)
    if source == "GIF" or loops:
        assert timing_of(body)[1] == shown
    for target in ANIMATED:
        for spelling in ("full", "width=30", "animate=true,width=20"):
            result = await rendered(pool, written(tmp_path, body), spelling, target)
            assert timing_of(result.body) == (DELAYS, shown)


@pytest.mark.parametrize("source", ["GIF", "WEBP"])
@pytest.mark.parametrize("image_format", [*STILL, *ANIMATED])
async def test_still_of_an_animation_is_the_requested_frame(pool: RenderPool, tmp_path: Path, source: str, image_format: Format) -> None:
    pictures = images.film()
    path = written(tmp_path, images.animation(pictures, source, delays=DELAYS))
    info = (await probed(pool, path)).info
    assert (info.frames, info.width, info.height) == (5, 120, 90)
    meant = [("frame=0", 0), ("animate=false", 0), ("frame=3", 3), ("frame=4,width=60,height=60,fit=cover", 4)]
    if image_format in STILL:
        meant += [("full", 0), ("width=60", 0)]
    for spelling, frame in meant:
        result = await rendered(pool, path, spelling, image_format)
        (image,) = frames_of(result.body)
        ideal = reference.reference(pictures[frame], parse(spelling))
        assert images.distance(reference.flatten_on_white(image), reference.flatten_on_white(ideal)) < 3


@pytest.mark.parametrize("frame", [5, 9_999])
@pytest.mark.parametrize("image_format", ["gif", "png"])
async def test_frame_beyond_the_last_is_a_bad_transform(pool: RenderPool, tmp_path: Path, frame: int, image_format: Format) -> None:
    for body in (images.animation(images.film(), "GIF"), images.animation(images.film(), "WEBP"), images.rgb_png()):
        with pytest.raises(BadTransformError) as caught:
            await rendered(pool, written(tmp_path, body), f"frame={frame}", image_format)
        assert str(frame) in str(caught.value.received)
        assert caught.value.remedy


@pytest.mark.parametrize("image_format", STILL)
def test_animate_true_in_a_format_without_animation_is_refused(image_format: Format) -> None:
    with pytest.raises(BadTransformError):
        for_format(parse("animate=true,width=60"), image_format)


async def test_animate_true_of_a_still_original_is_a_still(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, images.rgb_png(120, 90))
    for image_format in ANIMATED:
        assert len(frames_of((await rendered(pool, path, "animate=true,width=60", image_format)).body)) == 1


async def test_rendition_of_pipeline_version_1_is_a_still_without_animate(pool: RenderPool, tmp_path: Path) -> None:
    pictures = images.film()
    path = written(tmp_path, images.animation(pictures, "GIF", delays=DELAYS))
    for spelling, count in (("full", 1), ("width=60", 1), ("frame=2", 1), ("animate=true", 5)):
        result = await rendered(pool, path, spelling, "webp", version=1)
        assert len(frames_of(result.body)) == count


# Limits.


@pytest.mark.parametrize("source", ["GIF", "WEBP"])
async def test_original_with_too_many_frames_is_refused(pool: RenderPool, tmp_path: Path, source: str) -> None:
    path = written(tmp_path, images.animation(images.film(frames=9), source))
    few = structs.replace(LIMITS, max_frames=8)
    with pytest.raises(TooManyPixelsError) as caught:
        await probed(pool, path, limits=few)
    assert caught.value.received == "9 or more"
    with pytest.raises(TooManyPixelsError):
        await rendered(pool, path, "width=30", "webp", limits=few)
    assert len(frames_of((await rendered(pool, path, "width=30", "webp", limits=structs.replace(LIMITS, max_frames=9))).body)) == 9


async def test_animation_with_too_many_pixels_in_total_is_refused_and_its_still_is_not(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, images.animation(images.film(frames=9), "GIF"))
    limits = structs.replace(LIMITS, max_output_pixels=120 * 90 * 5)
    with pytest.raises(TooManyPixelsError) as caught:
        await rendered(pool, path, "full", "webp", limits=limits)
    assert "frame" in str(caught.value.remedy)
    within: list[tuple[str, Format]] = [("frame=8", "webp"), ("full", "png"), ("width=80", "webp")]
    for spelling, image_format in within:
        assert (await rendered(pool, path, spelling, image_format, limits=limits)).width in {80, 120}


async def test_animation_whose_strip_is_longer_than_the_longest_side_is_made(pool: RenderPool, tmp_path: Path) -> None:
    """250 frames of 90 rows are 22,500 rows, more than a WebP picture can have."""
    pictures = images.film(frames=250)
    path = written(tmp_path, images.animation(pictures, "GIF"))
    for image_format in ANIMATED:
        frames = frames_of((await rendered(pool, path, "full", image_format)).body)
        assert len(frames) == 250
        assert images.distance(frames[249], pictures[249]) < TOLERANCE[image_format]


async def encode_in_little_memory(folder: Path, image_format: Format, frames: int, width: int, height: int) -> None:
    """Render an animation in a process that has no room for all frames: the limit of its address space is the assertion."""
    limits = structs.replace(LIMITS, max_output_pixels=frames * width * height, max_pixels=frames * width * height, max_frames=frames)
    path = written(folder, images.animated_gif(width, height, frames=frames))
    async with render_pool(memory_bytes=256 * MEBIBYTE) as pool:
        result = await rendered(pool, path, "full", image_format, limits=limits)
    assert images.decode(result.body).n_frames == frames  # type: ignore[attr-defined]


async def test_animated_avif_is_encoded_in_less_memory_than_all_its_frames_take(tmp_path: Path) -> None:
    await encode_in_little_memory(tmp_path, "avif", 90, 640, 480)


@pytest.mark.long
@pytest.mark.parametrize("image_format", ANIMATED)
async def test_memory_does_not_grow_with_the_length_of_an_animation(tmp_path: Path, image_format: Format) -> None:
    await encode_in_little_memory(tmp_path, image_format, 600, 472, 298)


# Transparency, and frames that change only a part.


def transparent_film() -> list[Image.Image]:
    """Return frames whose left half is transparent and in which a disc moves."""
    pictures = []
    for picture in images.film():
        mask = np.full((90, 120), 255, np.uint8)
        mask[:, :60] = 0
        clear = picture.convert("RGBA")
        clear.putalpha(Image.fromarray(mask, "L"))
        pictures.append(clear)
    return pictures


@pytest.mark.parametrize("source", ["GIF", "WEBP"])
@pytest.mark.parametrize("target", ANIMATED)
async def test_animation_is_transparent_where_the_original_is(pool: RenderPool, tmp_path: Path, source: str, target: Format) -> None:
    path = written(tmp_path, images.animation(transparent_film(), source, disposal=2))
    assert (await probed(pool, path)).info.alpha
    for spelling in ("full", "width=60", "rotate=180,width=60"):
        for frame, picture in zip(frames_of((await rendered(pool, path, spelling, target)).body), transparent_film(), strict=True):
            alpha, ideal = [np.asarray(image.getchannel("A")) for image in (frame, reference.reference(picture, parse(spelling)))]
            middle = alpha.shape[1] // 2
            for half in (np.s_[:, : middle - 2], np.s_[:, middle + 2 :]):
                assert np.abs(alpha[half].astype(int) - ideal[half]).max() <= 5
    jpeg = images.decode((await rendered(pool, path, "full", "jpeg")).body)
    assert np.asarray(jpeg)[:, :50].min() >= 250


async def test_animation_of_partial_frames_is_composed(pool: RenderPool, tmp_path: Path) -> None:
    """Each frame of the file is a small patch over the previous one."""
    pictures = [Image.new("RGB", (100, 80), (20, 30, 60))]
    for number in range(1, 5):
        picture = pictures[-1].copy()
        picture.paste(images.FRAME_COLORS[number % 4], (number * 18, 10, number * 18 + 12, 50))
        pictures.append(picture)
    body = images.animation(pictures, "GIF", disposal=1)
    assert images.decode(body).n_frames == 5  # type: ignore[attr-defined]
    for image_format in ANIMATED:
        # This test is not about the edges of saturated colors.
        spelling = "width=50,lossless=true" if image_format == "webp" else "width=50"
        tolerance = 9 if image_format == "avif" else TOLERANCE[image_format]
        result = await rendered(pool, written(tmp_path, body), spelling, image_format)
        for frame, picture in zip(frames_of(result.body), pictures, strict=True):
            assert images.distance(frame, reference.reference(picture, parse("width=50"))) < tolerance


# Pages of a TIFF are not frames of an animation.


@pytest.mark.parametrize("image_format", ["webp", "png", "gif", "jpeg"])
async def test_pages_of_a_tiff_are_stills(pool: RenderPool, tmp_path: Path, image_format: Format) -> None:
    pictures = [*images.film()[:3], Image.new("RGB", (50, 70), (10, 200, 90))]
    path = written(tmp_path, images.pages_tiff(pictures))
    info = (await probed(pool, path)).info
    assert (info.frames, info.width, info.height) == (4, 120, 90)
    for spelling, page in (("full", 0), ("frame=0", 0), ("frame=2", 2)):
        (image,) = frames_of((await rendered(pool, path, spelling, image_format)).body)
        assert images.distance(reference.flatten_on_white(image), pictures[page]) < 3


SIZES = [(120, 90), (40, 70), (200, 30)]


def pages_of_different_sizes(*, orientation: int = 1) -> bytes:
    """Return a TIFF whose pages differ in size; the last one has an orientation."""
    body = io.BytesIO()
    first, *others = [images.picture(*size, seed=number) for number, size in enumerate(SIZES)]
    others[-1] = others[-1].transpose(Image.Transpose.ROTATE_90) if orientation == 6 else others[-1]
    others[-1].encoderinfo = {"tiffinfo": {ExifTags.Base.Orientation.value: orientation}}
    first.save(body, "TIFF", save_all=True, append_images=others)
    return body.getvalue()


@pytest.mark.parametrize("orientation", [1, 6])
async def test_page_of_another_size_keeps_its_aspect_ratio(pool: RenderPool, tmp_path: Path, orientation: int) -> None:
    path = written(tmp_path, pages_of_different_sizes(orientation=orientation))
    info = (await probed(pool, path)).info
    assert (info.frames, info.width, info.height, info.page_sizes) == (3, 120, 90, tuple(SIZES))
    for page, size in enumerate(SIZES):
        picture = images.picture(*size, seed=page)
        crop = f"crop=0:0:{size[0]}:{size[1] - 5}"
        for spelling in ("", "width=30", "width=20,height=20,fit=cover,gravity=east", crop, "trim=0", "rotate=90"):
            options = ",".join(filter(None, (f"frame={page}" if page else "", spelling))) or "full"
            image = images.decode((await rendered(pool, path, options, "png")).body)
            ideal = reference.reference(picture, parse(options))
            assert image.size == ideal.size, options
            assert images.distance(image, reference.flatten_on_white(ideal)) < 2.5, options
    with pytest.raises(BadTransformError):
        await rendered(pool, path, "frame=1,crop=0:0:41:70", "png")


def test_markup_of_a_page_of_another_size_has_its_sizes() -> None:
    info = ImageInfo("tiff", 120, 90, 3, alpha=False, needs_full_decode=True, page_sizes=tuple(SIZES))
    made = UrlBuilder(Signer([b"k" * 16]), "", LIMITS).markup("a" * 32, info, parse("frame=1"))
    assert [(step.width, step.height) for step in made.sources[0].renditions] == [(40, 70)]


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True), (">", True)])
def test_page_sizes_are_read_from_every_kind_of_directory(tmp_path: Path, order: str, big: bool) -> None:
    """Hand-written files: both byte orders, directories of 32 and of 64 bits, sizes in 16 and in 32 bits."""
    offset, count, entry = ("Q", "Q", "HHQ") if big else ("I", "H", "HHI")
    body = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HHH" if big else f"{order}H", *((43, 8, 0) if big else (42,)))
    at = len(body) + struct.calcsize(f"={offset}")
    body += struct.pack(order + offset, at)
    for number, (width, height) in enumerate(SIZES):
        values = [(256, "H", width), (257, "I", height), (274, "H", 8)]
        directory = struct.pack(order + count, len(values))
        for tag, packed, value in values:
            directory += struct.pack(order + entry, tag, 3 if packed == "H" else 4, 1)
            directory += struct.pack(order + packed, value).ljust(8 if big else 4, b"\0")
        at += len(directory) + struct.calcsize(f"={offset}")
        body += directory + struct.pack(order + offset, at if number + 1 < len(SIZES) else 0)
    assert page_sizes(memoryview(body), 9) == [(height, width) for width, height in SIZES]
    with pytest.raises(ValueError, match="outside"):
        page_sizes(memoryview(body[:-9]), 9)


@given(delays=st.lists(st.integers(0, 3_000), min_size=1, max_size=60))
def test_gif_delays_add_up_and_none_becomes_too_short_for_browsers(delays: list[int]) -> None:
    rounded = gif_delays(delays)
    assert all(delay % 10 == 0 for delay in rounded)
    assert all((before > 10) == (after > 10) and (before == 0 or after > 0) for before, after in zip(delays, rounded, strict=True))
    # The minimum of 20 ms never delays frames of 25 ms or more.
    if min(delays) >= 25:
        assert all(abs(sum(rounded[:end]) - sum(delays[:end])) <= 5 for end in range(1, len(delays) + 1))


async def test_gif_with_delays_between_hundredths_lasts_as_long_as_the_original(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, images.animation(images.film(), "WEBP", delays=[33, 33, 33, 45, 16]))
    delays, _ = timing_of((await rendered(pool, path, "full", "gif")).body)
    assert delays == [30, 40, 30, 40, 20]


needs_corpus = pytest.mark.skipif(images.corpus() is None, reason="no corpus of real images beside the checkout")


def frames_at(body: bytes, times: list[int]) -> list[Image.Image]:
    """Return the frame that an animation shows at each of some times, in milliseconds from its beginning."""
    ends = np.cumsum(timing_of(body)[0])
    frames = frames_of(body)
    return [frames[int(np.searchsorted(ends, moment, side="right"))] for moment in times]


@pytest.mark.long
@needs_corpus
async def test_corpus_animations_show_the_same_at_every_moment(pool: RenderPool) -> None:
    """Equal frames may be merged into one that lasts as long."""
    paths = images.corpus_files("animated")
    assert len(paths) == 4
    for path in paths:
        original = path.read_bytes()
        delays, shown = timing_of(original)
        middles = [sum(delays[:number]) + delay // 2 for number, delay in enumerate(delays)]
        for image_format in ANIMATED:
            body = (await rendered(pool, path, "width=64", image_format)).body
            assert timing_of(body)[1] == shown, path.name
            assert sum(timing_of(body)[0]) == sum(delays), path.name
            for frame, picture in zip(frames_at(body, middles), frames_of(original), strict=True):
                ideal = reference.reference(picture, parse("width=64"))
                assert images.distance(reference.flatten_on_white(frame), reference.flatten_on_white(ideal)) < 9, path.name


@needs_corpus
async def test_corpus_animation_of_a_thousand_frames_is_refused_from_its_header(pool: RenderPool) -> None:
    (path,) = [path for path in images.corpus_files("bomb") if path.name == "images__1024-pages.gif"]
    with pytest.raises(TooManyPixelsError) as caught:
        await probed(pool, path)
    assert caught.value.received == "1001 or more"
    many = structs.replace(LIMITS, max_frames=1_024)
    assert (await probed(pool, path, limits=many)).info.frames == 1_024
