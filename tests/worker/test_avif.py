"""AVIF with layers and tiles, and files that libheif refuses: the right picture, or the true reason, never an error of the server."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.errors import BrokenImageError, ServiceError, TooComplexError, UnsupportedFormatError
from service.rendering.pool import RenderPool
from service.worker import bounds, failures, memory
from tests.support import boxes, code_points, images
from tests.support.renders import probed, ready, rendered, written

pytestmark = pytest.mark.anyio

RED, GREEN, BLUE = (200, 40, 40), (40, 160, 60), (30, 60, 220)
TOLERANCE = 3


def lsel(layer: int) -> bytes:
    return boxes.box(b"lsel", struct.pack(">H", layer))


def a1op(point: int) -> bytes:
    return boxes.box(b"a1op", bytes([point]))


def flat(color: images.Color) -> Image.Image:
    return Image.new("RGB", (96, 64), color)


@pytest.mark.parametrize(
    ("selection", "color"),
    [((), GREEN), ((lsel(0),), RED), ((lsel(1),), GREEN), ((lsel(0xFFFF),), GREEN), ((a1op(0),), GREEN), ((a1op(1),), RED)],
)
async def test_layered_avif_shows_the_selected_layer(
    pool: RenderPool, tmp_path: Path, selection: tuple[bytes, ...], color: images.Color
) -> None:
    path = written(tmp_path, boxes.layered(flat(RED), flat(GREEN), *selection))
    assert (await probed(pool, path)).info.format == "avif"
    for spelling, size in (("full", (96, 64)), ("width=24", (24, 16)), ("rotate=90", (64, 96))):
        image = images.decode((await rendered(pool, path, spelling, "png")).body)
        assert image.size == size
        assert images.near(image.convert("RGB").getpixel((5, 5)), color, TOLERANCE)  # type: ignore[arg-type]


async def test_layered_avif_follows_its_code_points(pool: RenderPool, tmp_path: Path) -> None:
    body = code_points.with_nclx(boxes.layered(flat(RED), flat(GREEN), lsel(0)), code_points.SRGB, 8)
    image = images.decode((await rendered(pool, written(tmp_path, body), "full", "png")).body)
    ideal = code_points.in_srgb(np.array(RED) / 255, code_points.SRGB, 8)
    assert np.abs(np.array(image.convert("RGB").getpixel((5, 5))) - ideal).max() <= 2 * TOLERANCE


async def test_layered_avif_without_the_selected_layer_is_broken(pool: RenderPool, tmp_path: Path) -> None:
    with pytest.raises(BrokenImageError):
        await rendered(pool, written(tmp_path, boxes.layered(flat(RED), flat(GREEN), lsel(3))))


@pytest.mark.parametrize(("columns", "rows"), [(2, 2), (16, 17)])
async def test_avif_of_many_tiles_is_taken(pool: RenderPool, tmp_path: Path, columns: int, rows: int) -> None:
    """libvips would let libheif read 256 items."""
    path = written(tmp_path, boxes.tiled(columns, rows, 64, [RED, GREEN, BLUE]))
    info = (await probed(pool, path)).info
    assert (info.width, info.height) == (64 * columns, 64 * rows)
    image = images.decode((await rendered(pool, path, "full", "png")).body).convert("RGB")
    for number in (0, 1, columns, columns * rows - 1):
        row, column = divmod(number, columns)
        seen = image.getpixel((64 * column + 32, 64 * row + 32))
        assert images.near(seen, (RED, GREEN, BLUE)[number % 3], TOLERANCE)  # type: ignore[arg-type]


async def test_avif_of_too_many_items_is_too_complex(pool: RenderPool, tmp_path: Path) -> None:
    with pytest.raises(TooComplexError) as caught:
        await probed(pool, written(tmp_path, boxes.tiled(32, 32, 64, [RED])))
    assert caught.value.status_code == 422
    assert caught.value.expected == f"at most {bounds.MAX_ITEMS} items"


@pytest.mark.parametrize("make", [images.avif, pytest.param(images.heic, marks=pytest.mark.long)])
async def test_picture_of_another_size_than_declared_is_an_error_of_the_client(
    pool: RenderPool, tmp_path: Path, make: Callable[[int, int], bytes]
) -> None:
    body = make(400, 300)
    before = await ready(pool)
    for size in ((64, 48), (1, 1), (0, 0), (399, 300), (500, 400), (1 << 31, 1 << 31), (1 << 15, 1 << 15)):
        path = written(tmp_path, body.replace(boxes.ispe(400, 300), boxes.ispe(*size)))
        with pytest.raises(ServiceError) as caught:
            await rendered(pool, path)
        assert caught.value.status_code in {413, 422}
        assert caught.value.remedy
    assert pool.process_ids == before


@pytest.mark.parametrize("matrix", [11, 14, 17])
async def test_avif_of_a_matrix_that_libheif_lacks_is_unsupported(pool: RenderPool, tmp_path: Path, matrix: int) -> None:
    body = code_points.with_nclx(code_points.avif(images.picture(96, 64)), code_points.SRGB, 13, matrix)
    with pytest.raises(UnsupportedFormatError) as caught:
        await rendered(pool, written(tmp_path, body))
    assert caught.value.received == "Unsupported color conversion"


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("heif: Memory allocation error: Security limit exceeded: iloc box contains 9 items, which is too many. (6.1000)\n", "too-complex"),
        ("heif: Invalid input: Security limit exceeded: ipma box wants 9 items (2.1000)\n", "too-complex"),
        ("heif: Memory allocation error: Security limit exceeded: Image size 9x9 exceeds the maximum image size 4\n (6.1000)\n", "broken"),
        ("heif: Memory allocation error: Invalid image size: zero width or height (6.129)\n", "broken"),
        ("heif: Memory allocation error: Invalid box size: Box size too large (6.101)\n", "broken"),
        ("RuntimeError: Memory allocation error: Security limit exceeded: File has 2000 brands", "too-complex"),
        ("heif: Unsupported feature: Unsupported color conversion (4.3003)\n", "unsupported"),
        ("heif: Invalid input: No 'ipco' box (2.108)\n", "broken"),
    ],
)
def test_refusal_of_libheif_names_its_reason_and_is_not_for_lack_of_memory(message: str, kind: str) -> None:
    assert not memory.is_out_of_memory(message)
    failure = failures.undecodable("avif", message)
    assert failure.kind == kind
    assert not failure.short_of_memory
    if kind != "broken":
        assert failure.received
        assert failure.received in message
        assert "(" not in failure.received


async def status(pool: RenderPool, path: Path) -> int:
    try:
        await rendered(pool, path, "width=64", "webp")
    except ServiceError as error:
        return error.status_code
    return 200


async def test_small_heic_is_taken_by_a_process_that_has_read_many_broken_ones(pool: RenderPool, tmp_path: Path) -> None:
    good = images.heic(128, 128)
    path = written(tmp_path, good)
    first = (await rendered(pool, path, "full", "png")).body
    for number in range(40):
        broken = images.truncated(good, 0.5 + number / 100) if number % 2 else images.mutated(good, number)
        assert await status(pool, written(tmp_path, broken, "broken")) < 500
        assert (await rendered(pool, path, "full", "png")).body == first
