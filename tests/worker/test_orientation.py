"""All eight orientations × every fit × focal points × rotations give the same picture, with the focal point in it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import numpy as np
import pytest
from PIL import Image, ImageDraw

from service.images.formats import Format
from service.images.options import COMPASS
from service.images.transform import parse
from service.rendering.pool import RenderPool
from tests.support import images, reference
from tests.support.renders import probed, rendered, written

pytestmark = pytest.mark.anyio

WIDTH, HEIGHT = 240, 180

# Levels of 8-bit sRGB: the loss of JPEG at quality 95 on the scene (0.9), plus the difference between two resamplers.
TOLERANCE = 1.5

# If a decoder shrinks on load, its mean of 2, 4 or 8 pixels is sharper or softer than that of a filter.
SHRINK_ON_LOAD_TOLERANCE = 2.5

# The others are turned or mirrored like one of these.
QUICK = {1, 6, 7}
ORIENTATIONS = [pytest.param(number, marks=() if number in QUICK else pytest.mark.long) for number in range(1, 9)]

BOX = "width=100,height=120"
FITS = [
    "full",
    "width=120",
    "height=70",
    BOX,
    f"{BOX},fit=outside",
    f"{BOX},fit=fill",
    *(f"{BOX},fit=contain,gravity={gravity}" for gravity in ("northwest", "southeast")),
    f"{BOX},fit=contain,background=204060",
    *(f"{BOX},fit=cover,gravity={gravity}".replace(",gravity=center", "") for gravity in COMPASS),
    *(
        f"width={width},height={height},fit=cover,gravity=focal:{x}:{y}"
        for width, height in ((60, 150), (180, 50))
        for x, y in (("0", "0"), ("1", "1"), ("0.25", "0.9"), ("0.75", "0.2"))
    ),
    "crop=12:20:100:150",
    "crop=5p:50p:60p:45p,width=80",
    "rotate=90",
    "rotate=180,flip=horizontal",
    "flip=vertical,width=120",
    "rotate=270,width=60,height=60,fit=cover,gravity=focal:0.9:0.1",
    "rotate=20,width=150",
    "crop=10p:10p:80p:80p,rotate=90,flip=horizontal,width=90,height=90,fit=cover,gravity=focal:0.2:0.8,round=20,pad=3",
]


@functools.cache
def ideal(width: int, height: int, spelling: str) -> Image.Image:
    """Return the reference of the scene."""
    return reference.reference(images.picture(width, height), parse(spelling))


async def differences(
    pool: RenderPool, path: Path, ideal_of: Callable[[str], Image.Image], spellings: list[str], tolerance: float
) -> list[str]:
    """Return the differences from the reference, a line for each."""
    disagreements: list[str] = []

    async def compare(spelling: str) -> None:
        image = images.decode((await rendered(pool, path, spelling, "png")).body)
        expected = ideal_of(spelling)
        if image.size != expected.size:
            disagreements.append(f"{spelling}: {image.size}, not {expected.size}")
            return
        away = images.distance(reference.flatten_on_white(image), reference.flatten_on_white(expected))
        if away > tolerance:
            disagreements.append(f"{spelling}: {away:.2f} away")

    async with anyio.create_task_group() as tasks:
        for spelling in spellings:
            tasks.start_soon(compare, spelling)
    return disagreements


@pytest.mark.parametrize("orientation", ORIENTATIONS)
async def test_rendition_of_any_orientation_and_fit_is_the_same_picture(pool: RenderPool, tmp_path: Path, orientation: int) -> None:
    for width, height in ((WIDTH, HEIGHT), (HEIGHT, WIDTH)):
        path = written(tmp_path, images.photo_jpeg(width, height, quality=95, orientation=orientation))
        spellings = FITS if width > height else FITS[::3]
        assert await differences(pool, path, partial(ideal, width, height), spellings, TOLERANCE) == []


@pytest.mark.parametrize("orientation", ORIENTATIONS)
async def test_rendition_of_any_orientation_that_is_shrunk_on_load_is_the_same_picture(
    pool: RenderPool, tmp_path: Path, orientation: int
) -> None:
    """Factors of eight, four and two, including odd sides."""
    for width, height, scale in ((1601, 1203, 8), (803, 601, 4), (601, 403, 2)):
        path = written(tmp_path, images.photo_jpeg(width, height, quality=92, orientation=orientation))
        narrow = width // scale
        spellings = [
            f"width={narrow}",
            f"width={narrow // 2},height={narrow // 2},fit=cover,gravity=focal:0.8:0.3",
            f"crop=101:55:{width - 300}:{height - 200},width={(width - 300) // scale},rotate=90",
        ]
        assert await differences(pool, path, partial(ideal, width, height), spellings, SHRINK_ON_LOAD_TOLERANCE) == []


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", range(2, 9))
async def test_rendition_of_an_orientation_in_another_format_is_the_same_picture(
    pool: RenderPool, tmp_path: Path, image_format: str, orientation: int
) -> None:
    path = written(tmp_path, images.oriented_scene(WIDTH, HEIGHT, orientation, image_format))
    info = (await probed(pool, path)).info
    assert (info.width, info.height) == (WIDTH, HEIGHT)
    tolerance = {"PNG": TOLERANCE, "TIFF": TOLERANCE, "WEBP": 6, "AVIF": 6}[image_format]
    assert await differences(pool, path, partial(ideal, WIDTH, HEIGHT), FITS[orientation % 2 :: 6], tolerance) == []


@pytest.mark.parametrize("orientation", [0, 9, 42, 65_535])
async def test_rendition_of_an_invalid_orientation_is_as_stored(pool: RenderPool, tmp_path: Path, orientation: int) -> None:
    path = written(tmp_path, images.photo_jpeg(400, 300, orientation=orientation))
    info = (await probed(pool, path)).info
    assert (info.width, info.height) == (400, 300)
    assert await differences(pool, path, partial(ideal, 400, 300), ["full", "width=100"], TOLERANCE) == []


@pytest.mark.parametrize("image_format", ["avif", "webp", "jpeg", "gif"])
async def test_rendition_in_any_format_is_upright_and_states_no_orientation(pool: RenderPool, tmp_path: Path, image_format: Format) -> None:
    for orientation in range(1, 9):
        path = written(tmp_path, images.photo_jpeg(WIDTH, HEIGHT, orientation=orientation))
        image = images.decode((await rendered(pool, path, "width=120", image_format)).body)
        assert image.size == (120, 90)
        assert not image.getexif()
        assert all(images.near(color, images.CORNERS[corner]) for corner, color in images.corner_colors(image).items())


MARKER = (255, 255, 0)
POSITIONS = [(0.12, 0.2), (0.5, 0.5), (0.9, 0.35), (0.66, 0.93)]
ROTATIONS = [
    "full",
    "rotate=90",
    "rotate=180",
    "rotate=270",
    "flip=horizontal",
    "flip=vertical",
    "rotate=90,flip=horizontal",
    "rotate=270,flip=vertical",
    "rotate=30",
    "rotate=200,flip=horizontal",
    "crop=20:10:460:380",
    "crop=5p:10p:94p:88p,rotate=90",
    "crop=5p:10p:94p:88p,rotate=270,flip=horizontal",
]


def picture_with_marker(place: tuple[float, float]) -> Image.Image:
    """Return a dark picture with a bright disc at a position."""
    image = Image.new("RGB", (500, 400), (20, 20, 90))
    x, y = place[0] * 500, place[1] * 400
    ImageDraw.Draw(image).ellipse((x - 9, y - 9, x + 9, y + 9), fill=MARKER)
    return image


@functools.cache
def turned(place: tuple[float, float], turn: str) -> Image.Image:
    return reference.reference(picture_with_marker(place), parse(turn))


def marker_position(image: Image.Image) -> tuple[float, float]:
    """Return the center of the bright disc, in pixels."""
    pixels = np.asarray(reference.flatten_on_color(image, (0, 0, 0))).astype(int)
    rows, columns = np.nonzero((pixels[..., 0] > 128) & (pixels[..., 2] < 100))
    assert rows.size > 20, "the disc is not there"
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


@pytest.mark.parametrize("orientation", ORIENTATIONS)
async def test_focal_point_stays_centered_through_crop_rotation_and_flip(pool: RenderPool, tmp_path: Path, orientation: int) -> None:
    wrong: list[str] = []

    async def look(path: Path, turn: str, place: tuple[float, float], width: int, height: int) -> None:
        prefix = "" if turn == "full" else f"{turn},"
        spelling = f"{prefix}width={width},height={height},fit=cover,gravity=focal:{place[0]}:{place[1]}"
        image = images.decode((await rendered(pool, path, spelling, "png")).body)
        # The position of the disc in the whole rotated picture, and its permitted positions after the crop.
        whole = turned(place, turn)
        scale = max(width / whole.width, height / whole.height)
        for found, there, side, length in zip(
            marker_position(image), marker_position(whole), (width, height), (whole.width * scale, whole.height * scale), strict=True
        ):
            start = min(max(there * scale - side / 2, 0), length - side)
            if abs(found - (there * scale - start)) > 1.2:
                wrong.append(f"{spelling}: at {found:.1f}, not {there * scale - start:.1f} of {side}")

    async with anyio.create_task_group() as tasks:
        for number, place in enumerate(POSITIONS[orientation % 2 :: 2]):
            path = written(tmp_path, images.oriented_jpeg(picture_with_marker(place), orientation), f"{number}.jpg")
            for turn in ROTATIONS:
                tasks.start_soon(look, path, turn, place, 60, 200)
                tasks.start_soon(look, path, turn, place, 200, 60)
    assert wrong == []


async def test_focal_point_outside_the_crop_moves_to_its_nearest_edge(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, images.rgb_png(400, 300))
    for focal, gravity in (("0:0", "northwest"), ("1:1", "southeast"), ("0.9:0.2", "east")):
        region = "crop=100:75:200:150,width=80,height=80,fit=cover"
        pointed, anchored = [(await rendered(pool, path, f"{region},gravity={kept}", "png")).body for kept in (f"focal:{focal}", gravity)]
        assert pointed == anchored


needs_corpus = pytest.mark.skipif(images.corpus() is None, reason="no corpus of real images beside the checkout")


@pytest.mark.long
@needs_corpus
async def test_corpus_orientations_are_upright(pool: RenderPool) -> None:
    for path in images.corpus_files("orientation"):
        original = reference.decode_upright(path.read_bytes())

        def ideal_of(spelling: str, original: Image.Image = original) -> Image.Image:
            return reference.reference(original, parse(spelling))

        assert (
            await differences(
                pool, path, ideal_of, ["width=300", "width=90,height=120,fit=cover", "rotate=90,width=200"], SHRINK_ON_LOAD_TOLERANCE
            )
            == []
        )
