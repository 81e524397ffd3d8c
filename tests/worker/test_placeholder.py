import base64
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from thumbhash import rgba_to_thumb_hash, thumb_hash_to_approximate_aspect_ratio, thumb_hash_to_average_rgba

from service.rendering.pool import RenderPool
from service.worker.placeholder import size, thumbhash
from tests.support import images
from tests.support.lazy import LazyMapping
from tests.support.renders import probed, written

pytestmark = pytest.mark.anyio

SIZES = [(32, 32), (32, 24), (24, 32), (32, 18), (18, 32), (31, 7), (7, 31), (32, 1), (1, 32), (1, 1), (2, 2), (3, 5), (100, 75)]

Pixels = npt.NDArray[np.float64]


def rgba(width: int, height: int, *, seed: int = 0) -> bytes:
    return images.picture(width, height, seed=seed).convert("RGBA").tobytes()


def half_transparent(width: int, height: int) -> bytes:
    """Return the scene with its right half transparent."""
    image = images.picture(width, height).convert("RGBA")
    image.paste((0, 0, 0, 0), (width // 2, 0, width, height))
    return image.tobytes()


def nibbles(data: bytes) -> list[int]:
    return [part for byte in data for part in (byte & 15, byte >> 4)]


def decoded(hash_bytes: bytes, width: int, height: int) -> Pixels:
    """Return the decoded picture of a ThumbHash: height × width × RGBA, 0 to 1.

    Written from the description at https://evanw.github.io/thumbhash/, because the decoder of the package `thumbhash` gives one
    color for every pixel.
    """
    head, shape = int.from_bytes(hash_bytes[:3], "little"), int.from_bytes(hash_bytes[3:5], "little")
    alpha, landscape = bool(head >> 23), bool(shape >> 15)
    longest, shortest = 5 if alpha else 7, shape & 7
    columns, rows = (max(3, longest), max(3, shortest)) if landscape else (max(3, shortest), max(3, longest))
    waves = iter(nibbles(hash_bytes[6 if alpha else 5 :]))

    def plane(mean: float, scale: float, across: int, down: int) -> Pixels:
        out = np.full((height, width), mean)
        x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
        for row in range(down):
            for column in range(across):
                if column * down < across * (down - row) and (row or column):
                    wave = np.outer(np.cos(np.pi * row * y), np.cos(np.pi * column * x))
                    out += 2 * scale * (next(waves) / 7.5 - 1) * wave
        return out

    light = plane((head & 63) / 63, (head >> 18 & 31) / 31, columns, rows)
    yellow = plane((head >> 6 & 63) / 31.5 - 1, (shape >> 3 & 63) / 63, 3, 3)
    red_green = plane((head >> 12 & 63) / 31.5 - 1, (shape >> 9 & 63) / 63, 3, 3)
    cover = plane((hash_bytes[5] & 15) / 15, (hash_bytes[5] >> 4) / 15, 5, 5) if alpha else np.ones((height, width))
    blue = light - 2 / 3 * yellow
    red = (3 * light - blue + red_green) / 2
    return np.stack([red, red - red_green, blue, cover], axis=-1).clip(0, 1)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("seed", [0, 1])
def test_thumbhash_of_an_opaque_picture_equals_the_reference(width: int, height: int, seed: int) -> None:
    pixels = rgba(width, height, seed=seed)
    assert list(thumbhash(width, height, pixels)) == rgba_to_thumb_hash(width, height, list(pixels))


@pytest.mark.parametrize(("width", "height"), [(3, 5), (12, 7), (7, 12), (20, 20), (31, 3)])
@pytest.mark.parametrize("seed", range(8))
def test_thumbhash_of_opaque_noise_equals_the_reference(width: int, height: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    noise[..., 3] = 255
    pixels = noise.tobytes()
    assert list(thumbhash(width, height, pixels)) == rgba_to_thumb_hash(width, height, list(pixels))


@pytest.mark.parametrize(("width", "height"), [(32, 24), (24, 32), (32, 32)])
def test_thumbhash_decoded_looks_like_the_opaque_picture(width: int, height: int) -> None:
    pixels = rgba(width, height)
    picture = np.frombuffer(pixels, np.uint8).reshape(height, width, 4) / 255
    again = decoded(thumbhash(width, height, pixels), width, height)
    assert np.abs(again - picture)[..., :3].mean() < 0.15
    assert np.abs(again[..., :3].mean((0, 1)) - picture[..., :3].mean((0, 1))).max() < 0.03


@pytest.mark.parametrize(("width", "height"), [(32, 24), (24, 32), (32, 32), (9, 4)])
def test_thumbhash_decoded_of_a_half_transparent_picture_is_opaque_in_the_same_places(width: int, height: int) -> None:
    pixels = half_transparent(width, height)
    body = thumbhash(width, height, pixels)
    again = decoded(body, width, height)
    assert again[:, : width // 4, 3].mean() > 0.85
    assert again[:, -(width // 4) :, 3].mean() < 0.15
    picture = np.frombuffer(pixels, np.uint8).reshape(height, width, 4) / 255
    left = slice(0, max(1, width // 3))
    assert np.abs(again[:, left, :3].mean((0, 1)) - picture[:, left, :3].mean((0, 1))).max() < 0.15
    red, green, blue, alpha = thumb_hash_to_average_rgba(list(body))
    assert alpha == pytest.approx(picture[..., 3].mean(), abs=1 / 15)
    opaque = picture[picture[..., 3] == 1][:, :3].mean(0)
    assert [red, green, blue] == pytest.approx(list(opaque), abs=0.05)


def test_thumbhash_of_a_fully_transparent_picture_is_transparent() -> None:
    assert decoded(thumbhash(8, 8, bytes(8 * 8 * 4)), 8, 8)[..., 3].max() == 0


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1), st.booleans())
def test_thumbhash_of_any_pixels_is_short_and_states_the_aspect_ratio(width: int, height: int, seed: int, opaque: bool) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    noise[..., 3] = 255 if opaque else noise[..., 3] // 2
    body = thumbhash(width, height, noise.tobytes())
    assert 5 <= len(body) <= 25
    assert bool(body[2] & 0x80) != opaque
    assert bool(body[4] & 0x80) == (width > height)
    if max(width, height) <= 3 * min(width, height):
        assert thumb_hash_to_approximate_aspect_ratio(list(body)) == pytest.approx(width / height, rel=0.4)


@given(st.integers(1, 70_000), st.integers(1, 70_000))
def test_placeholder_size_of_any_image_is_small_and_has_its_aspect_ratio(width: int, height: int) -> None:
    small = size(width, height)
    assert 1 <= small[0] <= min(32, width)
    assert 1 <= small[1] <= min(32, height)
    assert max(small) == min(32, max(width, height))
    scale = max(small) / max(width, height)
    for side, whole in zip(small, (width, height), strict=True):
        assert side == 1 or abs(side - whole * scale) <= 0.51


ORIGINALS = LazyMapping[bytes](
    {
        "photo.jpg": lambda: images.photo_jpeg(640, 480),
        "lying.jpg": lambda: images.photo_jpeg(640, 480, orientation=6),
        "alpha.png": images.rgba_png,
        "gray.png": images.gray_png,
        "gray-alpha.png": lambda: images.gray_png(alpha=True),
        "deep.png": images.png16,
        "palette.png": images.palette_png,
        "cmyk.jpg": images.cmyk_jpeg,
        "animated.gif": images.animated_gif,
        "photo.webp": images.webp,
        "photo.avif": images.avif,
        "photo.tiff": images.tiff,
        "tiny.png": lambda: images.flat_png(1, 1, (10, 20, 30)),
        "line.png": lambda: images.rgb_png(2000, 1),
        "noise.png": lambda: images.noise_png(16, 16),
    }
)


@pytest.mark.parametrize("name", ORIGINALS)
async def test_placeholder_of_every_kind_of_original_has_a_thumbhash_a_small_picture_and_colors(
    pool: RenderPool, tmp_path: Path, name: str
) -> None:
    found = await probed(pool, written(tmp_path, ORIGINALS[name]))
    placeholder = found.placeholder
    body = base64.b64decode(placeholder.thumbhash, validate=True)
    assert 5 <= len(body) <= 25
    # A GIF may declare a transparent color that no pixel has.
    assert bool(body[2] & 0x80) == (found.info.alpha and found.info.format != "gif")
    assert len(placeholder.data_url) <= 400
    prefix, _, data = placeholder.data_url.partition(",")
    assert prefix == "data:image/webp;base64"
    small = images.decode(base64.b64decode(data, validate=True))
    assert small.format == "WEBP"
    assert max(small.size) <= 16
    if name != "line.png":
        assert small.width / small.height == pytest.approx(found.info.width / found.info.height, rel=0.1)
    assert 1 <= len(placeholder.palette) <= 5
    assert len(set(placeholder.palette)) == len(placeholder.palette)
    assert all(re.fullmatch("#[0-9a-f]{6}", color) for color in placeholder.palette)
    assert placeholder.color == placeholder.palette[0]


async def test_placeholder_picture_of_a_photo_looks_like_it(pool: RenderPool, tmp_path: Path) -> None:
    placeholder = (await probed(pool, written(tmp_path, images.photo_jpeg(640, 480)))).placeholder
    small = images.decode(base64.b64decode(placeholder.data_url.partition(",")[2]))
    assert images.distance(small, images.picture(640, 480).resize(small.size)) < 16


async def test_placeholder_of_a_half_transparent_original_is_half_transparent(pool: RenderPool, tmp_path: Path) -> None:
    placeholder = (await probed(pool, written(tmp_path, images.gray_png(alpha=True)))).placeholder
    small = np.asarray(images.decode(base64.b64decode(placeholder.data_url.partition(",")[2])).convert("RGBA"))
    assert small[:, :6, 3].min() > 200
    assert small[:, -6:, 3].max() < 50


def rgb(color: str) -> images.Color:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


@pytest.mark.parametrize("share", [0.25, 0.75])
async def test_placeholder_color_of_a_two_colored_picture_is_that_of_the_larger_part(
    pool: RenderPool, tmp_path: Path, share: float
) -> None:
    one, other = (200, 30, 40), (20, 90, 220)
    placeholder = (await probed(pool, written(tmp_path, images.two_color_png(320, 240, one, other, share)))).placeholder
    larger, smaller = (one, other) if share > 0.5 else (other, one)
    assert images.near(rgb(placeholder.color), larger, 3)
    assert images.near(rgb(placeholder.palette[1]), smaller, 3)


async def test_placeholder_colors_of_a_transparent_picture_are_the_visible_ones(pool: RenderPool, tmp_path: Path) -> None:
    seen = images.flat_png(64, 64, (12, 200, 100))
    assert images.near(rgb((await probed(pool, written(tmp_path, seen))).placeholder.color), (12, 200, 100), 2)
    nothing = (await probed(pool, written(tmp_path, images.clear_png(64, 64)))).placeholder
    assert nothing.palette == ["#ffffff"]
