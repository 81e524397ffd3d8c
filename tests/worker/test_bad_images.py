"""Invalid originals and transforms: each is refused with a clear error, cheaply if the header suffices, and no process is lost."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import msgspec
import pytest
import pyvips
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from service.errors import (
    BadTransformError,
    BrokenImageError,
    DamagedOriginalError,
    ServiceError,
    TooComplexError,
    TooCostlyError,
    TooManyPixelsError,
    UnsupportedFormatError,
)
from service.images.formats import FORMATS, Format
from service.images.geometry import feasible_plan
from service.images.transform import for_format, parse
from service.rendering.pool import RenderPool
from service.rendering.protocol import Rendered
from tests.promises.figures import RecordFigure
from tests.support import images
from tests.support.lazy import LazyMapping
from tests.support.renders import (
    HEADER_BYTES,
    HEADER_CPU_SECONDS,
    LIMITS,
    MEBIBYTE,
    Spent,
    check_words,
    probed,
    render_job,
    rendered,
    written,
)

pytestmark = pytest.mark.anyio

needs_corpus = pytest.mark.skipif(images.corpus() is None, reason="no corpus of real images beside the checkout")


async def refusal(pool: RenderPool, path: Path, spelling: str = "width=100", image_format: Format = "webp") -> ServiceError | None:
    """Return the error of a rendition, `None` if it succeeds."""
    try:
        result = await rendered(pool, path, spelling, image_format)
    except ServiceError as error:
        return error
    images.decode(result.body)
    return None


# Truncated files, and files that are no images.

DRAWING = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="200" height="150"><defs><linearGradient id="g"><stop offset="0" stop-color="red"/>'
    b'<stop offset="1" stop-color="#00f" stop-opacity=".5"/></linearGradient><filter id="f"><feGaussianBlur stdDeviation="3"/></filter>'
    b'</defs><rect width="90" height="60" fill="url(#g)" transform="rotate(20 50 50)"/><circle cx="130" cy="90" r="40" filter="url(#f)"/>'
    b'<text x="20" y="120" font-size="24">Text</text></svg>'
)

GOOD = LazyMapping[bytes](
    {
        "jpeg": lambda: images.photo_jpeg(200, 150),
        "jpeg, progressive": lambda: images.photo_jpeg(200, 150, progressive=True),
        "jpeg, cmyk": lambda: images.cmyk_jpeg(200, 150, profile=images.cmyk_profile()),
        "png": lambda: images.rgba_png(200, 150),
        "png, 16 bit": lambda: images.png16(200, 150),
        "png, palette": lambda: images.palette_png(200, 150),
        "gif": lambda: images.palette_gif(200, 150),
        "gif, animated": lambda: images.animation(images.film(), "GIF"),
        "webp": lambda: images.webp(200, 150),
        "webp, alpha": lambda: images.webp(200, 150, alpha=True),
        "webp, animated": lambda: images.animation(images.film(), "WEBP"),
        "avif": lambda: images.avif(200, 150),
        "tiff": lambda: images.tiff(200, 150),
        "tiff, pages": lambda: images.pages_tiff(images.film()),
        "tiff, pages of several sizes": lambda: images.pages_tiff([images.picture(90, 60), images.picture(40, 70), images.picture(60, 60)]),
        "tiff, lab": lambda: images.lab_tiff(200, 150),
        "svg": lambda: DRAWING,
    }
)


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("kind", ["jpeg", "jpeg, progressive", "png", "webp", "avif"])
async def test_truncated_original_is_broken_for_every_rendition(pool: RenderPool, tmp_path: Path, kind: str, image_format: Format) -> None:
    path = written(tmp_path, images.truncated(GOOD[kind]))
    for look in (partial(probed, pool, path), partial(rendered, pool, path, "width=100", image_format)):
        with pytest.raises(BrokenImageError) as caught:
            await look()
        check_words(caught.value)


@pytest.mark.parametrize("kind", GOOD)
async def test_original_truncated_at_any_byte_is_refused(pool: RenderPool, tmp_path: Path, kind: str) -> None:
    """If the header itself is truncated, the format is unknown."""
    for share in (0.01, 0.3, 0.6, 0.9, 0.999):
        # The last bytes may be irrelevant: a PNG ends with an empty chunk.
        path = written(tmp_path, images.truncated(GOOD[kind], min(share, 1 - 24 / len(GOOD[kind]))))
        with pytest.raises((BrokenImageError, UnsupportedFormatError)) as caught:
            await probed(pool, path)
        check_words(caught.value)


async def test_original_with_a_flipped_bit_is_damaged(pool: RenderPool, tmp_path: Path) -> None:
    body = bytearray(GOOD["jpeg"])
    job = render_job(written(tmp_path, bytes(body)), "width=100")
    body[len(body) // 2] ^= 1
    path = written(tmp_path, bytes(body), "flipped.jpg")
    with pytest.raises(DamagedOriginalError):
        await pool.run(msgspec.structs.replace(job, input_file=msgspec.structs.replace(job.input_file, path=str(path))), Rendered)


@pytest.mark.parametrize(
    ("body", "received"),
    [
        (b"%PDF-1.7 ...", "a PDF document"),
        (b'<?xml version="1.0"?><rss version="2.0"/>', "an XML document"),
        (b"<!DOCTYPE html><title>404</title>", "an HTML document"),
        (b'{"error": "no"}', "JSON"),
        (b"BM\x46\0\0\0\0\0\0\0", "BMP"),
        (b"GIF", "47 49 46"),
        (b"\0" * 64, "00 00"),
        (b"x", "78"),
    ],
)
async def test_file_that_is_no_image_is_refused_with_a_guess_of_its_type(
    pool: RenderPool, tmp_path: Path, body: bytes, received: str
) -> None:
    with pytest.raises(UnsupportedFormatError) as caught:
        await probed(pool, written(tmp_path, body, "photo.jpg"))
    assert received in str(caught.value.received)
    assert caught.value.status_code == 415


async def test_gif_with_a_frame_beyond_the_largest_canvas_is_broken_and_not_too_costly(pool: RenderPool, tmp_path: Path) -> None:
    body = bytearray(images.animated_gif(16, 16, frames=1))
    # The top position of the only frame follows its left position (GIF89a §20).
    at = body.index(b",\0\0\0\0\x10\0\x10\0") + 3
    body[at : at + 2] = struct.pack("<H", 65_530)
    with pytest.raises(BrokenImageError) as caught:
        await probed(pool, written(tmp_path, bytes(body)))
    check_words(caught.value)


async def test_profile_with_a_truncated_curve_is_not_out_of_memory(pool: RenderPool, tmp_path: Path) -> None:
    profile = bytearray(images.gray_profile())
    # The number of entries of the curve (ICC.1:2001-04 §6.5.3).
    at = profile.index(b"curv\0\0\0\0") + 8
    profile[at : at + 4] = struct.pack(">I", 20_000)
    path = written(tmp_path, images.gray_jpeg(60, 40, profile=bytes(profile)))
    for look in (partial(refusal, pool, path, "width=20", "png"), partial(refusal, pool, path, "width=20,profile=p3", "webp")):
        error = await look()
        if error is not None:
            check_words(error)


async def test_tiff_with_a_directory_without_entries_is_broken_and_not_too_costly(pool: RenderPool, tmp_path: Path) -> None:
    body = bytearray(images.pages_tiff([images.picture(60, 40), images.picture(50, 40)]))
    first = struct.unpack_from("<I", body, 4)[0]
    second = struct.unpack_from("<I", body, first + 2 + 12 * struct.unpack_from("<H", body, first)[0])[0]
    body[second : second + 2] = bytes(2)
    with pytest.raises(BrokenImageError) as caught:
        await probed(pool, written(tmp_path, bytes(body)))
    check_words(caught.value)


@pytest.mark.parametrize("offset", [1 << 20, 1 << 62, 1 << 63, (1 << 64) - 1])
async def test_big_tiff_whose_directory_lies_outside_the_file_is_broken(pool: RenderPool, tmp_path: Path, offset: int) -> None:
    body = bytearray(pyvips.Image.black(20, 10).tiffsave_buffer(bigtiff=True))
    first = struct.unpack_from("<Q", body, 8)[0]
    end = first + 8 + 20 * struct.unpack_from("<Q", body, first)[0]
    for link in (8, end):
        broken = bytearray(body)
        struct.pack_into("<Q", broken, link, offset)
        error = await refusal(pool, written(tmp_path, bytes(broken)))
        check_words(error)


@pytest.mark.parametrize("values", [1 << 20, 100_000_000, 392_847_363, (1 << 32) - 1])
async def test_tiff_whose_second_page_declares_more_samples_than_fit_in_memory_is_broken(
    pool: RenderPool, tmp_path: Path, values: int
) -> None:
    body = bytearray(images.pages_tiff([Image.new("RGB", (60, 45)), Image.new("RGB", (60, 45))]))
    # BitsPerSample of RGB is an array of three shorts (TIFF 6.0, tag 258).
    entry = body.rindex(struct.pack("<HHI", 258, 3, 3))
    struct.pack_into("<I", body, entry + 4, values)
    with pytest.raises(BrokenImageError) as caught:
        await probed(pool, written(tmp_path, bytes(body)))
    check_words(caught.value)


# Small files that declare much.


def tiff_bomb() -> bytes:
    """Return a short TIFF whose header declares 60,000 × 60,000 gray pixels in one strip."""
    entries = [
        (256, 4, 60_000),
        (257, 4, 60_000),
        (258, 3, 8),
        (259, 3, 5),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, 60_000),
        (279, 4, 9),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<I", 24) + bytes(16) + directory + bytes(4)


def endless_tiff() -> bytes:
    """Return a TIFF whose last page is followed by its first."""
    body = bytearray(images.pages_tiff(images.film()))
    first = struct.unpack_from("<I", body, 4)[0]
    at = first
    while True:
        link = at + 2 + 12 * struct.unpack_from("<H", body, at)[0]
        after = struct.unpack_from("<I", body, link)[0]
        if after == 0:
            struct.pack_into("<I", body, link, first)
            return bytes(body)
        at = after


def avif_bomb() -> bytes:
    """Return an AVIF whose item declares 60,000 × 60,000 pixels (ISO/IEC 23008-12 §6.5.3)."""
    body = bytearray(images.avif(64, 48))
    at = body.index(b"ispe") + 8
    body[at : at + 8] = struct.pack(">II", 60_000, 60_000)
    return bytes(body)


def with_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG with an additional chunk after its header."""
    body = images.flat_png(20, 10, (1, 2, 3))
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return body[:33] + chunk + body[33:]


BOMBS = LazyMapping[bytes](
    {
        "png": images.png_bomb,
        "gif": images.gif_bomb,
        "jpeg": images.jpeg_bomb,
        "jpeg, progressive": lambda: images.jpeg_bomb(progressive=True),
        "webp": images.webp_bomb,
        "tiff": tiff_bomb,
        "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"><circle r="9"/></svg>',
    }
)


@pytest.mark.parametrize("name", BOMBS)
async def test_bomb_is_refused_from_its_header(pool: RenderPool, tmp_path: Path, name: str, record_figure: RecordFigure) -> None:
    path = written(tmp_path, BOMBS[name])
    spent = Spent(pool)
    for look in (partial(probed, pool, path), partial(rendered, pool, path, "full")):
        with pytest.raises((TooManyPixelsError, BrokenImageError) if name == "svg" else TooManyPixelsError) as caught:
            await look()
        check_words(caught.value)
    cpu_seconds, more_bytes = spent.check(HEADER_CPU_SECONDS, HEADER_BYTES)
    record_figure("{:.0f} ms of CPU time", 1_000 * cpu_seconds)
    record_figure("{:.1f} MB", more_bytes / 1e6)


@pytest.mark.parametrize("page", [0, 1])
async def test_tiff_with_one_page_that_is_a_bomb_is_refused_from_its_header(pool: RenderPool, tmp_path: Path, page: int) -> None:
    body = bytearray(images.pages_tiff([images.picture(60, 40), images.picture(50, 40)]))
    # The directory of the page, and its entries for width and height.
    at = struct.unpack_from("<I", body, 4)[0]
    for _ in range(page):
        at = struct.unpack_from("<I", body, at + 2 + 12 * struct.unpack_from("<H", body, at)[0])[0]
    for entry in range(at + 2, at + 26, 12):
        struct.pack_into("<HHII", body, entry, struct.unpack_from("<H", body, entry)[0], 4, 1, 60_000)
    path = written(tmp_path, bytes(body))
    spent = Spent(pool)
    for look in (partial(probed, pool, path), partial(rendered, pool, path, "frame=1,width=10"), partial(rendered, pool, path, "width=10")):
        with pytest.raises(TooManyPixelsError) as caught:
            await look()
        check_words(caught.value)
    spent.check(HEADER_CPU_SECONDS, HEADER_BYTES)


async def test_animated_png_with_one_frame_is_a_still(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, with_chunk(b"acTL", struct.pack(">II", 1, 0)))
    assert (await probed(pool, path)).info.frames == 1


@pytest.mark.parametrize(
    ("change", "received"),
    [
        (lambda image: (image.colourspace("b-w") / 255).cast("float"), "1 bands of float, b-w"),
        (lambda image: (image * 16_000_000).cast("uint"), "3 bands of uint, srgb"),
        (lambda image: image.cast("short"), "3 bands of short, srgb"),
    ],
)
async def test_tiff_of_measurements_is_refused_with_its_sample_format(
    pool: RenderPool, tmp_path: Path, change: Callable[[pyvips.Image], pyvips.Image], received: str
) -> None:
    image = change(pyvips.Image.new_from_buffer(GOOD["png"], "").extract_band(0, n=3).copy_memory())
    with pytest.raises(UnsupportedFormatError) as caught:
        await probed(pool, written(tmp_path, image.tiffsave_buffer()))
    check_words(caught.value)
    assert received in str(caught.value.received)


@pytest.mark.parametrize(
    "change", [lambda image: image.colourspace("scrgb"), lambda image: image.colourspace("lab"), lambda image: image.colourspace("rgb16")]
)
async def test_tiff_of_colors_in_floating_point_or_16_bits_is_accepted(
    pool: RenderPool, tmp_path: Path, change: Callable[[pyvips.Image], pyvips.Image]
) -> None:
    image = pyvips.Image.new_from_buffer(images.rgb_png(200, 150), "").copy_memory()
    path = written(tmp_path, change(image).tiffsave_buffer())
    assert (await probed(pool, path)).info.width == 200
    assert images.distance(images.decode((await rendered(pool, path, "full", "png")).body), images.picture(200, 150)) < 1


async def test_many_small_frames_are_refused_from_the_header(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, images.animated_gif(4, 4, frames=400))
    for few in ({"max_whole_pixels": 15}, {"max_pixels": 400}, {"max_frames": 399}):
        limits = msgspec.structs.replace(LIMITS, **few)
        spent = Spent(pool)
        for look in (partial(probed, pool, path), partial(rendered, pool, path)):
            with pytest.raises(TooManyPixelsError) as caught:
                await look(limits=limits)
            check_words(caught.value)
        spent.check(HEADER_CPU_SECONDS, HEADER_BYTES)


ODD_FILES = LazyMapping[bytes](
    {
        "avif that says it is huge": avif_bomb,
        "tiff without an end": endless_tiff,
        "profile that unpacks to 64 MiB": lambda: with_chunk(b"iCCP", b"x\0\0" + images.compressed_zeros(64 << 20)),
        "text that unpacks to 64 MiB": lambda: with_chunk(b"zTXt", b"x\0\0" + images.compressed_zeros(64 << 20)),
        "profile that is none": lambda: with_chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile" * 99)),
        "profile of the other colors": lambda: images.rgb_png(20, 10, profile=images.cmyk_profile()),
        "gray profile of a color picture": lambda: images.rgb_png(20, 10, profile=images.gray_profile()),
        "profile cut short": lambda: images.rgb_png(20, 10, profile=images.p3_profile()[:200]),
        "Exif that is none": lambda: with_chunk(b"eXIf", b"MM\0*" + b"\xff" * 300),
    }
)


@pytest.mark.parametrize("name", ODD_FILES)
async def test_odd_file_is_rendered_or_refused_and_affects_no_other(pool: RenderPool, tmp_path: Path, name: str) -> None:
    path = written(tmp_path, ODD_FILES[name])
    spent = Spent(pool)
    for spelling in ("full", "width=10,profile=p3", "width=10,profile=keep", "metadata=all,width=12"):
        error = await refusal(pool, path, spelling, "jpeg")
        if error is not None:
            check_words(error)
    spent.check(3.0, 256 * MEBIBYTE)


@pytest.mark.parametrize("profile", [images.cmyk_profile(), images.gray_profile(), images.p3_profile()[:200], b"none at all"])
async def test_profile_that_does_not_fit_the_picture_is_ignored(pool: RenderPool, tmp_path: Path, profile: bytes) -> None:
    path = written(tmp_path, images.rgb_png(40, 30, profile=profile))
    for spelling in ("full", "profile=keep"):
        image = images.decode((await rendered(pool, path, spelling, "png")).body)
        assert images.distance(image, images.picture(40, 30)) < 1
        assert not image.info.get("icc_profile")


# Impossible transforms.


@pytest.mark.parametrize(
    ("spelling", "image_format", "error"),
    [
        ("crop=0:0:201:150", "webp", BadTransformError),
        ("crop=200:150:1:1", "png", BadTransformError),
        ("crop=999999:0:1:1,width=10", "jpeg", BadTransformError),
        ("frame=1", "webp", BadTransformError),
        ("width=8192,height=8192,fit=fill,enlarge=true", "webp", TooManyPixelsError),
        ("width=8192,height=8192,fit=contain", "png", TooManyPixelsError),
        ("pad=4096", "jpeg", TooManyPixelsError),
        ("crop=0:0:1:150,width=8192,enlarge=true", "png", TooManyPixelsError),
        ("crop=0:0:200:1,width=8192,height=8192,fit=cover,enlarge=true", "png", TooManyPixelsError),
        ("rotate=45,width=8192,enlarge=true", "png", TooManyPixelsError),
    ],
)
async def test_transform_impossible_for_the_original_is_refused_before_rendering(
    pool: RenderPool, tmp_path: Path, spelling: str, image_format: Format, error: type[ServiceError]
) -> None:
    path = written(tmp_path, GOOD["png"])
    spent = Spent(pool)
    with pytest.raises(error) as caught:
        await rendered(pool, path, spelling, image_format)
    check_words(caught.value)
    spent.check(HEADER_CPU_SECONDS, HEADER_BYTES)


@pytest.mark.parametrize("image_format", ["jpeg", "gif"])
def test_lossless_in_a_lossy_format_is_refused(image_format: Format) -> None:
    with pytest.raises(BadTransformError) as caught:
        for_format(parse("lossless=true"), image_format)
    check_words(caught.value)


async def test_trim_that_leaves_a_line_does_not_enlarge_it_into_too_many_pixels(pool: RenderPool, tmp_path: Path) -> None:
    """The trimmed part is known only after decoding: its size is checked then."""
    image = Image.new("RGB", (300, 100), (255, 255, 255))
    image.paste((0, 0, 0), (150, 0, 151, 100))
    path = written(tmp_path, images.oriented_jpeg(image, 1))
    # Untrimmed, its size is exactly the limit.
    feasible_plan((await probed(pool, path)).info, parse("width=8192,enlarge=true"), "png", LIMITS, frames=1)
    spent = Spent(pool)
    with pytest.raises(TooManyPixelsError) as caught:
        await rendered(pool, path, "trim=200,width=8192,enlarge=true", "png")
    check_words(caught.value)
    assert caught.value.received == "8192 x 819200"
    spent.check(HEADER_CPU_SECONDS * 2, HEADER_BYTES)


MARK = "a" * 32


@pytest.mark.parametrize(
    ("name", "body"), [("broken", images.truncated(GOOD["png"])), ("bomb", images.png_bomb()), ("text", b"no image at all")]
)
async def test_overlay_that_cannot_be_used_is_refused_and_affects_no_other(
    pool: RenderPool, tmp_path: Path, name: str, body: bytes
) -> None:
    path, overlay = written(tmp_path, GOOD["png"]), written(tmp_path, body, "overlay")
    spent = Spent(pool)
    with pytest.raises(ServiceError) as caught:
        await rendered(pool, path, f"overlay={MARK}", "webp", overlay=overlay)
    check_words(caught.value)
    spent.check(HEADER_CPU_SECONDS * 2, HEADER_BYTES)


@pytest.mark.parametrize("kind", ["gif, animated", "webp, animated", "tiff, pages", "jpeg, cmyk", "png, 16 bit", "tiff, lab"])
async def test_overlay_of_any_format_is_drawn_as_a_still(pool: RenderPool, tmp_path: Path, kind: str) -> None:
    path, overlay = written(tmp_path, GOOD["webp"]), written(tmp_path, GOOD[kind], "overlay")
    result = await rendered(pool, path, f"overlay={MARK}:center:1", "webp", overlay=overlay)
    assert images.decode(result.body).size == (200, 150)


# Mutations of good files.

# A mutated file may be rendered, or be refused for one of these reasons. It must never end the process or reach the deadline.
EXPECTED_ERRORS = (BrokenImageError, UnsupportedFormatError, TooManyPixelsError, TooComplexError, TooCostlyError)
CONCURRENT_JOBS = 8


# One kind of each decoder; the fuzzer mutates all of them, too.
MUTATED = {"jpeg", "png", "gif, animated", "webp", "avif", "tiff, pages", "svg"}


@pytest.mark.parametrize("kind", [kind if kind in MUTATED else pytest.param(kind, marks=pytest.mark.long) for kind in GOOD])
@given(
    seeds=st.lists(st.integers(0, 1 << 32), min_size=CONCURRENT_JOBS, max_size=CONCURRENT_JOBS, unique=True),
    changes=st.sampled_from((1, 3, 12, 60)),
)
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_mutated_file_is_rendered_or_refused(pool: RenderPool, tmp_path: Path, kind: str, seeds: list[int], changes: int) -> None:
    wrong: list[str] = []

    async def look(number: int, seed: int) -> None:
        path = written(tmp_path, images.mutated(GOOD[kind], seed, changes), f"{number}")
        spelling = ("width=60", "full", "rotate=20,blur=1", "width=40,height=40,fit=cover,gravity=attention")[number % 4]
        for answer in (partial(probed, pool, path), partial(rendered, pool, path, spelling, list(FORMATS)[number % len(FORMATS)])):
            try:
                await answer()
            except EXPECTED_ERRORS:
                pass
            except ServiceError as error:
                wrong.append(f"seed {seed}: {error!r}")

    async with anyio.create_task_group() as tasks:
        for number, seed in enumerate(seeds):
            tasks.start_soon(look, number, seed)
    assert wrong == []


# Files of the corpus.


@needs_corpus
@pytest.mark.parametrize("path", images.corpus_files("broken"), ids=lambda path: path.name)
async def test_corpus_broken_file_is_broken_or_unsupported(pool: RenderPool, path: Path) -> None:
    spent = Spent(pool)
    looks: list[Callable[[], Awaitable[object]]] = [partial(probed, pool, path)]
    looks += [partial(rendered, pool, path, "width=100", image_format) for image_format in FORMATS]
    for look in looks:
        with pytest.raises((BrokenImageError, UnsupportedFormatError)) as caught:
            await look()
        check_words(caught.value)
    spent.check(5.0, 256 * MEBIBYTE)


@needs_corpus
@pytest.mark.parametrize("path", images.corpus_files("bomb"), ids=lambda path: path.name)
async def test_corpus_bomb_is_refused_from_its_header(pool: RenderPool, path: Path) -> None:
    spent = Spent(pool)
    for look in (partial(probed, pool, path), partial(rendered, pool, path, "width=100"), partial(rendered, pool, path, "full")):
        with pytest.raises((TooManyPixelsError, UnsupportedFormatError, BrokenImageError)) as caught:
            await look()
        check_words(caught.value)
    spent.check(HEADER_CPU_SECONDS, HEADER_BYTES)


@needs_corpus
@pytest.mark.parametrize("path", images.corpus_files("svg-hostile"), ids=lambda path: path.name)
async def test_corpus_hostile_svg_is_rendered_or_refused(pool: RenderPool, path: Path) -> None:
    spent = Spent(pool)
    for image_format in FORMATS:
        error = await refusal(pool, path, "width=200", image_format)
        if error is not None:
            check_words(error)
    spent.check(5.0, 128 * MEBIBYTE)
