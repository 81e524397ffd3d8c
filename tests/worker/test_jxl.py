"""JPEG XL in and out: every kind against Chromium and arithmetic, the options of its encoder, and files that are broken or hostile."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import imagecodecs
import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image

from service.errors import BadTransformError, BrokenImageError, ServiceError, TooManyPixelsError
from service.images.geometry import Plan, is_worth_linking
from service.images.options import MAX_EFFORT
from service.rendering.pool import RenderPool
from service.worker.formats.jxl_library import ExtraChannel, Primaries, Transfer
from tests.support import images
from tests.support.chromium import Painter, visible_distance
from tests.support.jpeg_xl import boxes_of, icc_profile, shown_of_part
from tests.support.jxl_files import DEPTH, Colors, encode
from tests.support.lazy import LazyMapping
from tests.support.renders import LIMITS, Spent, check_words, probed, rendered, written

pytestmark = pytest.mark.anyio

WIDTH, HEIGHT = 64, 48
Pixels = npt.NDArray[np.uint8]

PICTURE: Pixels = np.asarray(images.picture(WIDTH, HEIGHT))
GRAY: Pixels = np.asarray(images.picture(WIDTH, HEIGHT).convert("L"))[..., np.newaxis]
ALPHA: Pixels = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))[..., np.newaxis]
RGBA: Pixels = np.concatenate([PICTURE, ALPHA], axis=2)
CMYK: Pixels = np.asarray(images.picture(WIDTH, HEIGHT).convert("CMYK"))
PREMULTIPLIED = np.concatenate([(PICTURE.astype(np.uint16) * ALPHA // 255).astype(np.uint8), ALPHA], axis=2)


def deep(pixels: Pixels) -> npt.NDArray[np.uint16]:
    return pixels.astype(np.uint16) * np.uint16(257)


def patch(width: int = 30, height: int = 20) -> Pixels:
    """Return a part of the picture that is mirrored and half transparent."""
    return np.concatenate([PICTURE[:height, :width][:, ::-1], 255 - ALPHA[:height, :width]], axis=2)


ORIGINALS = LazyMapping[bytes](
    {
        "RGB": lambda: encode([PICTURE]),
        "lossy": lambda: encode([PICTURE], lossless=False),
        "16 bits": lambda: encode([deep(PICTURE)]),
        "10 bits": lambda: encode([deep(PICTURE)], bits=10),
        "12 bits, lossy": lambda: encode([deep(PICTURE)], bits=12, lossless=False),
        "floating point": lambda: encode([(PICTURE / 255).astype(np.float32)]),
        "gray": lambda: encode([GRAY]),
        "gray, lossy": lambda: encode([GRAY], lossless=False),
        "gray, 16 bits": lambda: encode([deep(GRAY)]),
        "gray and alpha": lambda: encode([np.concatenate([GRAY, ALPHA], axis=2)]),
        "alpha": lambda: encode([RGBA]),
        "alpha, lossy": lambda: encode([RGBA], lossless=False),
        "alpha, 16 bits": lambda: encode([deep(RGBA)]),
        "premultiplied alpha": lambda: encode([PREMULTIPLIED], premultiplied=True),
        "container": lambda: encode([PICTURE], container=True),
        "other channels": lambda: encode([PICTURE], extra=[(DEPTH, ALPHA[..., 0])] * 3),
        "many channels": lambda: encode([RGBA], extra=[(DEPTH, ALPHA[..., 0])] * 40),
        "Display P3": lambda: encode([PICTURE], colors=Colors(Primaries.P3)),
        "Display P3, lossy": lambda: encode([PICTURE], colors=Colors(Primaries.P3), lossless=False),
        "Rec. 2020 primaries": lambda: encode([PICTURE], colors=Colors(Primaries.REC_2100)),
        "Rec. 709 curve": lambda: encode([PICTURE], colors=Colors(transfer=Transfer.REC_709)),
        "Rec. 709 curve, gray": lambda: encode([GRAY], colors=Colors(transfer=Transfer.REC_709)),
        "cinema curve": lambda: encode([PICTURE], colors=Colors(Primaries.P3, Transfer.DCI)),
        "cinema curve, gray": lambda: encode([GRAY], colors=Colors(transfer=Transfer.DCI)),
        "linear": lambda: encode([deep(PICTURE)], colors=Colors(transfer=8)),
        "gamma of 1.8": lambda: encode([PICTURE], colors=Colors(transfer=Transfer.GAMMA, gamma=1 / 1.8)),
        "gamma of 2.2, gray": lambda: encode([GRAY], colors=Colors(transfer=Transfer.GAMMA, gamma=1 / 2.2)),
        "PQ": lambda: encode([deep(PICTURE)], colors=Colors(Primaries.REC_2100, Transfer.PQ)),
        "HLG": lambda: encode([deep(PICTURE)], colors=Colors(Primaries.REC_2100, Transfer.HLG)),
        "profile": lambda: encode([PICTURE], colors=images.wide_profile()),
        "profile, lossy": lambda: encode([PICTURE], colors=images.wide_profile(), lossless=False),
        "profile of P3": lambda: encode([PICTURE], colors=images.p3_profile()),
        "profile of gray": lambda: encode([GRAY], colors=images.gray_profile()),
        "CMYK": lambda: encode([255 - CMYK[..., :3]], extra=[(ExtraChannel.BLACK, 255 - CMYK[..., 3])], colors=images.cmyk_profile()),
        "layers": lambda: encode([RGBA, patch()], crops=[(0, 0), (10, 5)]),
        "progressive": lambda: encode([PICTURE], lossless=False, settings={17: 1, 19: 1}),
        "progressive, lossless": lambda: encode([PICTURE], settings={16: 1}),
        **{f"orientation {number}": partial(encode, [PICTURE], orientation=number) for number in range(1, 9)},
    }
)


def to_png(body: bytes) -> Image.Image:
    return images.decode(body).convert("RGBA")


@pytest.mark.parametrize("kind", ORIGINALS)
async def test_original_of_every_kind_is_shown_as_chromium_shows_it(pool: RenderPool, painter: Painter, tmp_path: Path, kind: str) -> None:
    body = ORIGINALS[kind]
    expected = painter.draw(body, "jxl")
    assert expected is not None
    found = to_png((await rendered(pool, written(tmp_path, body), "full", "png")).body)
    # A canvas has premultiplied colors. Chromium converts CMYK in another way.
    assert visible_distance(found, expected) < {"CMYK": 2}.get(kind, 1)


@pytest.mark.parametrize("number", range(1, 9))
async def test_original_is_upright_whatever_its_orientation(pool: RenderPool, tmp_path: Path, number: int) -> None:
    body = ORIGINALS[f"orientation {number}"]
    expected = [None, None, "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"][
        number
    ]
    upright = Image.fromarray(PICTURE) if expected is None else Image.fromarray(PICTURE).transpose(Image.Transpose[expected])
    path = written(tmp_path, body)
    info = (await probed(pool, path)).info
    assert (info.width, info.height) == upright.size
    assert images.distance(to_png((await rendered(pool, path, "full", "png")).body), upright) == 0


async def test_orientation_in_the_exif_of_an_original_is_ignored(pool: RenderPool, tmp_path: Path) -> None:
    """That of the codestream counts (ISO/IEC 18181-2 §9.5)."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Artist] = images.ARTIST
    content = bytes(4) + exif.tobytes().removeprefix(b"Exif\0\0")
    for compressed in (False, True):
        body = encode([PICTURE], boxes=[(b"Exif", content, compressed), (b"xml ", b"<x:xmpmeta>kept</x:xmpmeta>", compressed)])
        found = images.decode((await rendered(pool, written(tmp_path, body), "metadata=all", "png")).body)
        assert found.size == (WIDTH, HEIGHT)
        assert found.getexif().get(ExifTags.Base.Orientation, 1) == 1
        assert found.getexif()[ExifTags.Base.Artist] == images.ARTIST
        assert b"kept" in str(found.info).encode()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("RGB", (WIDTH, HEIGHT, 1, False, "standard")),
        ("gray and alpha", (WIDTH, HEIGHT, 1, True, "standard")),
        ("layers", (WIDTH, HEIGHT, 1, True, "standard")),
        ("orientation 6", (HEIGHT, WIDTH, 1, False, "standard")),
        ("PQ", (WIDTH, HEIGHT, 1, False, "high")),
        ("HLG", (WIDTH, HEIGHT, 1, False, "high")),
    ],
)
async def test_probe_reads_the_header_of_an_original(pool: RenderPool, tmp_path: Path, kind: str, expected: tuple[object, ...]) -> None:
    info = (await probed(pool, written(tmp_path, ORIGINALS[kind]))).info
    assert (info.width, info.height, info.frames, info.alpha, info.dynamic_range) == expected


FILM = [PICTURE, np.roll(PICTURE, 9, axis=1), np.roll(PICTURE, 20, axis=0)]
ANIMATIONS = LazyMapping[bytes](
    {
        "RGB": lambda: encode(FILM, durations=[40, 120, 500], loops=3),
        "lossy": lambda: encode(FILM, durations=[40, 120, 500], lossless=False),
        "16 bits": lambda: encode([deep(frame) for frame in FILM], durations=[40, 120, 500]),
        "gray": lambda: encode([frame[..., :1] for frame in FILM], durations=[100] * 3, loops=1),
        "alpha and areas": lambda: encode([RGBA, patch(), patch(12, 9)], durations=[100] * 3, crops=[(0, 0), (10, 5), (40, 30)]),
        "Display P3": lambda: encode(FILM, durations=[100] * 3, colors=Colors(Primaries.P3)),
        "turned": lambda: encode(FILM, durations=[100] * 3, orientation=6),
    }
)


@pytest.mark.parametrize("kind", ANIMATIONS)
async def test_animation_has_the_frames_and_delays_that_chromium_shows(
    pool: RenderPool, painter: Painter, tmp_path: Path, kind: str
) -> None:
    path = written(tmp_path, ANIMATIONS[kind])
    info = (await probed(pool, path)).info
    assert (info.frames, info.animated) == (3, True)
    original = painter.play(ANIMATIONS[kind], "jxl")
    made = painter.play((await rendered(pool, path, "lossless=true", "webp")).body, "webp")
    assert (made.delays, made.plays) == (original.delays, original.plays)
    for shown, frame in zip(original.frames, made.frames, strict=True):
        assert visible_distance(shown, frame) < 0.6


async def test_still_rendition_of_an_animation_is_its_first_frame_or_the_one_that_is_named(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, ANIMATIONS["RGB"])
    for spelling, expected in (("lossless=true", 0), ("frame=2,lossless=true", 2)):
        found = images.decode((await rendered(pool, path, spelling, "jxl")).body)
        assert images.distance(found, Image.fromarray(FILM[expected])) == 0
    with pytest.raises(BadTransformError) as caught:
        await rendered(pool, path, "animate=true", "jxl")
    check_words(caught.value)


# What comes out.

LARGE = (240, 180)
SOURCES = LazyMapping[bytes](
    {
        "RGB": lambda: images.rgb_png(*LARGE),
        "alpha": lambda: images.rgba_png(*LARGE),
        "gray": lambda: images.gray_png(*LARGE),
        "gray and alpha": lambda: images.gray_png(*LARGE, alpha=True),
        "16 bits": lambda: images.png16(*LARGE),
        "gray, 16 bits": lambda: images.png16(*LARGE, gray=True),
        "palette": lambda: images.palette_png(*LARGE),
        "JPEG": lambda: images.photo_jpeg(*LARGE, orientation=6),
        "gray JPEG": lambda: images.gray_jpeg(*LARGE),
        "CMYK": lambda: images.cmyk_jpeg(*LARGE, profile=images.cmyk_profile()),
        "Lab": lambda: images.lab_tiff(*LARGE),
        "wide profile": lambda: images.rgb_png(*LARGE, profile=images.wide_profile()),
        "profile of gray": lambda: images.gray_jpeg(*LARGE, profile=images.gray_profile()),
        "one pixel": lambda: images.flat_png(1, 1, (200, 60, 30)),
        "narrow": lambda: images.rgb_png(240, 1),
        "JPEG XL": lambda: ORIGINALS["alpha, 16 bits"],
    }
)


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize(
    "spelling",
    ["full", "lossless=true"]
    + [pytest.param(more, marks=pytest.mark.long) for more in ("profile=p3", "profile=keep", "profile=keep,progressive=true", "width=180")],
)
async def test_chromium_shows_a_rendition_of_every_kind_like_the_png(
    pool: RenderPool, painter: Painter, tmp_path: Path, kind: str, spelling: str
) -> None:
    path = written(tmp_path, SOURCES[kind])
    made = (await rendered(pool, path, spelling, "jxl")).body
    same = spelling.replace("lossless=true", "full").replace(",progressive=true", "")
    expected = painter.draw((await rendered(pool, path, same, "png")).body, "png")
    shown = painter.draw(made, "jxl")
    assert shown is not None
    assert expected is not None
    # Small pictures with hard edges lose more than photos. Lossless JPEGs keep their coefficients.
    assert visible_distance(shown, expected) < (1.5 if spelling == "lossless=true" else 6)


@pytest.mark.parametrize("kind", SOURCES)
async def test_lossless_rendition_has_the_pixels_of_the_png(pool: RenderPool, tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, SOURCES[kind])
    found = to_png((await rendered(pool, path, "flip=horizontal,lossless=true", "jxl")).body)
    expected = to_png((await rendered(pool, path, "flip=horizontal", "png")).body)
    assert np.array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize(
    ("spelling", "profile"),
    [("full", b""), ("profile=p3", b"p3"), ("profile=keep", images.wide_profile()), ("profile=keep,lossless=true", images.wide_profile())],
)
async def test_rendition_has_the_profile_that_is_requested(pool: RenderPool, tmp_path: Path, spelling: str, profile: bytes) -> None:
    path = written(tmp_path, SOURCES["wide profile"])
    found = icc_profile((await rendered(pool, path, spelling, "jxl")).body)
    assert bool(found) == bool(profile)
    if "lossless" in spelling:
        assert found == profile


async def test_rendition_without_metadata_is_a_bare_codestream(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, images.camera_jpeg(WIDTH, HEIGHT))
    assert (await rendered(pool, path, "full", "jxl")).body.startswith(b"\xff\x0a")
    boxes = boxes_of((await rendered(pool, path, "metadata=all", "jxl")).body)
    assert images.PLACE.encode() in boxes[b"xml "]
    assert images.CAMERA.encode() in boxes[b"Exif"]


async def test_higher_quality_costs_bytes_and_is_nearer_to_the_picture(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, images.photo_jpeg(240, 180))
    expected = images.decode((await rendered(pool, path, "full", "png")).body)
    bodies = [(await rendered(pool, path, f"quality={level}", "jxl")).body for level in (1, 20, 50, 80, 95, 100)]
    distances = [images.distance(images.decode(body), expected) for body in bodies]
    assert [len(body) for body in bodies] == sorted(len(body) for body in bodies)
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1


async def test_automatic_quality_is_no_larger_than_the_default(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, images.photo_jpeg(400, 300))
    plain, auto = [(await rendered(pool, path, spelling, "jxl")).body for spelling in ("full", "quality=auto")]
    assert len(auto) <= len(plain)
    assert images.distance(images.decode(auto), images.decode(plain)) < 3


async def test_limit_of_bytes_is_kept_or_the_rendition_refused(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, images.photo_jpeg(240, 180))
    whole = len((await rendered(pool, path, "full", "jxl")).body)
    for limit in (whole, whole * 3 // 4, whole // 2):
        assert limit * 0.6 < len((await rendered(pool, path, f"max_bytes={limit}", "jxl")).body) <= limit
    with pytest.raises(ServiceError) as caught:
        await rendered(pool, path, "max_bytes=128", "jxl")
    check_words(caught.value)


async def test_every_effort_gives_the_same_lossless_pixels_and_the_highest_the_fewest_bytes(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, images.rgb_png(WIDTH, HEIGHT))
    bodies = [(await rendered(pool, path, f"lossless=true,effort={effort}", "jxl")).body for effort in range(MAX_EFFORT + 1)]
    assert all(images.distance(images.decode(body), images.picture(WIDTH, HEIGHT)) == 0 for body in bodies)
    assert len(bodies[-1]) == min(map(len, bodies))
    assert len(bodies[0]) == max(map(len, bodies))


@pytest.mark.parametrize("spelling", ["quality=70", "lossless=true"])
async def test_progressive_file_shows_the_picture_earlier(pool: RenderPool, tmp_path: Path, spelling: str) -> None:
    size = (480, 320)
    path = written(tmp_path, images.rgb_png(*size))
    progressive, plain = [(await rendered(pool, path, f"{spelling}{more}", "jxl")).body for more in (",progressive=true", "")]
    parts = [len(plain) * tenths // 10 for tenths in (7, 8, 9)]
    shown = [[shown_of_part(body, part, *size) for part in parts] for body in (progressive, plain)]
    distances = [sum(images.distance(picture, images.picture(*size)) for picture in pictures) for pictures in shown]
    assert distances[0] < 0.95 * distances[1]
    whole = [images.distance(images.decode(body), images.picture(*size)) for body in (progressive, plain)]
    assert whole[0] == pytest.approx(whole[1], abs=0.01)


@pytest.mark.long
@pytest.mark.parametrize(("bands", "side"), [(3, 2_048), (4, 1_796)])
async def test_largest_picture_to_which_a_document_links_fits_in_memory(pool: RenderPool, tmp_path: Path, bands: int, side: int) -> None:
    """The content that takes the most memory, in the shape in which the encoder holds it as a whole."""
    plan = Plan.whole(side, side, side, side)
    assert is_worth_linking(plan, "jxl", LIMITS, frames=1, alpha=bands == 4)
    noise = np.random.default_rng(0).integers(0, 256, (side, side, bands), dtype=np.uint8)
    original = io.BytesIO()
    Image.fromarray(noise).save(original, "PNG", compress_level=1)
    assert (await rendered(pool, written(tmp_path, original.getvalue()), "full", "jxl")).width == side


# Files that are broken or hostile.


def header(width: int, height: int) -> bytes:
    """Return a codestream of one frame with default metadata whose header declares a size (ISO/IEC 18181-1 §B.2), and nothing after it."""
    # From the lowest bit: not small, the height in 30 bits, no ratio, the width in 30 bits, default metadata, and a default frame.
    bits = "0" + f"{3:02b}"[::-1] + f"{height - 1:030b}"[::-1] + "000" + f"{3:02b}"[::-1] + f"{width - 1:030b}"[::-1] + "1" + "1"
    bits += "0" * (-len(bits) % 8)
    return b"\xff\x0a" + bytes(int(bits[start : start + 8][::-1], 2) for start in range(0, len(bits), 8)) + bytes(64)


async def still_works(pool: RenderPool, folder: Path) -> None:
    found = images.decode((await rendered(pool, written(folder, ORIGINALS["RGB"], "good"), "full", "png")).body)
    assert images.distance(found, Image.fromarray(PICTURE)) == 0


TRUNCATED = ["lossy", "alpha", "container", "profile, lossy", "CMYK", "progressive"]


@pytest.mark.parametrize("kind", TRUNCATED)
async def test_original_that_ends_early_is_broken(pool: RenderPool, tmp_path: Path, kind: str) -> None:
    body = ORIGINALS[kind]
    for length in sorted({2, 3, 5, 12, 20, 40, *(len(body) * tenth // 10 for tenth in range(1, 10)), len(body) - 1}):
        with pytest.raises(ServiceError) as caught:
            await probed(pool, written(tmp_path, body[:length]))
        check_words(caught.value)
        if length >= 12:
            assert isinstance(caught.value, BrokenImageError)
    await still_works(pool, tmp_path)


async def test_animation_that_ends_early_is_broken(pool: RenderPool, tmp_path: Path) -> None:
    body = ANIMATIONS["RGB"]
    for length in (len(body) // 4, len(body) // 2, len(body) * 3 // 4, len(body) - 1):
        with pytest.raises(BrokenImageError) as caught:
            await probed(pool, written(tmp_path, body[:length]))
        check_words(caught.value)
    await still_works(pool, tmp_path)


async def check_mutations(pool: RenderPool, folder: Path, kind: str, seeds: range) -> None:
    """Change bytes of a file: it is a picture, or refused by name, and costs little."""
    name = kind.removeprefix("animated, ")
    body = ORIGINALS[kind] if name == kind else ANIMATIONS[name]
    spent = Spent(pool)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        changed = bytearray(body)
        for at in rng.integers(2, len(body), 1 + seed % 3):
            changed[at] ^= 1 << int(rng.integers(0, 8))
        path = written(folder, bytes(changed))
        try:
            await probed(pool, path)
            await rendered(pool, path, "width=30", "webp")
        except ServiceError as error:
            check_words(error)
    # A process that ended itself would be an error of the server.
    spent.check(cpu_seconds=0.5 * len(seeds), more_bytes=400 << 20, may_be_replaced=True)
    await still_works(pool, folder)


@pytest.mark.parametrize("kind", ["lossy", "container", "CMYK", "animated, alpha and areas"])
async def test_original_with_changed_bits_is_a_picture_or_refused(pool: RenderPool, tmp_path: Path, kind: str) -> None:
    await check_mutations(pool, tmp_path, kind, range(8))


@pytest.mark.long
@pytest.mark.parametrize("kind", [*ORIGINALS, *(f"animated, {name}" for name in ANIMATIONS)])
async def test_original_with_many_changed_bits_is_a_picture_or_refused(pool: RenderPool, tmp_path: Path, kind: str) -> None:
    await check_mutations(pool, tmp_path, kind, range(8, 48))


@pytest.mark.parametrize(("width", "height"), [(1 << 30, 1 << 30), (1 << 30, 1), (200_000, 200_000), (30_000, 30_000), (1, 1 << 28)])
async def test_header_of_a_huge_picture_is_refused_at_once(pool: RenderPool, tmp_path: Path, width: int, height: int) -> None:
    spent = Spent(pool)
    with pytest.raises(ServiceError) as caught:
        await probed(pool, written(tmp_path, header(width, height)))
    check_words(caught.value)
    assert isinstance(caught.value, BrokenImageError | TooManyPixelsError)
    spent.check(cpu_seconds=2, more_bytes=64 << 20)
    await still_works(pool, tmp_path)


async def test_picture_beyond_a_limit_is_refused_by_its_header(pool: RenderPool, tmp_path: Path) -> None:
    pixels = WIDTH * HEIGHT
    refused = {
        "RGB": msgspec.structs.replace(LIMITS, max_whole_pixels=pixels - 1),
        "many channels": msgspec.structs.replace(LIMITS, codec_bytes=pixels * 100),
    }
    for kind, limits in refused.items():
        with pytest.raises(TooManyPixelsError) as caught:
            await probed(pool, written(tmp_path, ORIGINALS[kind]), limits=limits)
        check_words(caught.value)
        await probed(pool, written(tmp_path, ORIGINALS[kind]))
    limits = msgspec.structs.replace(LIMITS, max_frames=2)
    with pytest.raises(TooManyPixelsError) as caught:
        await probed(pool, written(tmp_path, ANIMATIONS["RGB"]), limits=limits)
    check_words(caught.value)


async def test_hundreds_of_channels_that_are_not_shown_are_too_many(pool: RenderPool, tmp_path: Path) -> None:
    side = 512
    plane = np.zeros((side, side), np.uint8)
    body = encode([np.zeros((side, side, 1), np.uint8)], extra=[(DEPTH, plane)] * 99)
    spent = Spent(pool)
    with pytest.raises(TooManyPixelsError) as caught:
        await probed(pool, written(tmp_path, body))
    check_words(caught.value)
    spent.check(cpu_seconds=1, more_bytes=64 << 20)
    await still_works(pool, tmp_path)


async def test_compressed_metadata_that_unfolds_to_a_hundred_megabytes_is_left_out(pool: RenderPool, tmp_path: Path) -> None:
    piece = bytes(imagecodecs.brotli_encode(bytes(120_000_000), level=1))
    box = b"brob" + b"xml " + piece
    body = ORIGINALS["container"]
    body += (4 + len(box)).to_bytes(4, "big") + box
    spent = Spent(pool)
    path = written(tmp_path, body)
    assert (await probed(pool, path)).info.format == "jxl"
    assert len((await rendered(pool, path, "metadata=all", "png")).body) < 50_000
    spent.check(cpu_seconds=3, more_bytes=300 << 20)
    await still_works(pool, tmp_path)


async def test_picture_of_a_kind_that_takes_too_much_memory_is_refused_and_others_go_on(pool: RenderPool, tmp_path: Path) -> None:
    side = 2_400
    body = encode([np.zeros((side, side, 4), np.uint16)])
    with pytest.raises(TooManyPixelsError) as caught:
        await probed(pool, written(tmp_path, body))
    check_words(caught.value)
    await still_works(pool, tmp_path)


async def test_decoded_levels_of_16_bits_are_exact(pool: RenderPool, tmp_path: Path) -> None:
    """A transform that stretches levels uses all of them."""
    ramp = np.tile(np.arange(30_000, 30_000 + WIDTH * 80, 80, dtype=np.uint16), (HEIGHT, 1))
    body = encode([np.repeat(ramp[..., np.newaxis], 3, axis=2)])
    stretched = np.asarray(images.decode((await rendered(pool, written(tmp_path, body), "contrast=4", "png")).body).convert("L"))
    levels = ((ramp[0] / 65_535 - 0.5) * 4 + 0.5).clip(0, 1) * 255
    assert np.abs(stretched[0] - levels).max() <= 1
    assert stretched[0, 0] < stretched[0, -1]


def test_written_files_are_read_by_an_independent_program() -> None:
    """The files of these tests are what they claim to be."""
    for kind, expected in (("RGB", PICTURE), ("alpha", RGBA), ("gray", GRAY[..., 0])):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(ORIGINALS[kind]))), expected)
