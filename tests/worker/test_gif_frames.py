"""Areas of a GIF that no frame has painted, or that a disposal has cleared, are transparent, as in Chromium."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.images.formats import Format
from service.rendering.pool import RenderPool
from service.worker.files import open_image
from service.worker.formats import gif, gif_frames
from tests.support import images
from tests.support.chromium import Painter
from tests.support.renders import probed, rendered, written

pytestmark = pytest.mark.anyio

WIDTH, HEIGHT, COLORS = 16, 12, 8
PALETTE = np.random.default_rng(4).integers(0, 256, 3 * COLORS, np.uint8).tobytes()


class Part(NamedTuple):
    """A frame: where it lies, its size, its disposal (0 to 3), its transparent index if it has one, and whether it is interlaced."""

    left: int = 0
    top: int = 0
    width: int = WIDTH
    height: int = HEIGHT
    disposal: int = 1
    transparent: int | None = None
    interlaced: bool = False
    own_palette: bool = False
    seed: int = 0


def compressed(part: Part) -> bytes:
    """Return the minimum code size and the sub-blocks of random pixels."""
    pixels = np.random.default_rng(part.seed).integers(0, COLORS, (part.height, part.width), np.uint8)
    image = Image.fromarray(pixels, "P")
    image.putpalette(PALETTE)
    body = io.BytesIO()
    image.save(body, "GIF", optimize=False, interlace=part.interlaced)
    start = body.getvalue().index(b"\x2c")
    flags = body.getvalue()[start + 9]
    return body.getvalue()[start + 10 + (3 << (flags & 7) + 1 if flags & 0x80 else 0) : -1]


def animated_gif(parts: Sequence[Part], *, background: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    """Return a GIF of random frames (GIF89a §18 to §23) with a global color table of 8 colors."""
    body = b"GIF89a" + b"".join(side.to_bytes(2, "little") for side in size) + bytes([0x82, background, 0]) + PALETTE
    body += b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
    for part in parts:
        flags = part.disposal << 2 | (part.transparent is not None)
        body += b"\x21\xf9\x04" + bytes([flags]) + (5).to_bytes(2, "little") + bytes([part.transparent or 0]) + b"\0"
        place = b"".join(number.to_bytes(2, "little") for number in part[:4])
        table = bytes(reversed(PALETTE)) if part.own_palette else b""
        body += b"\x2c" + place + bytes([part.interlaced << 6 | (0x82 if table else 0)]) + table + compressed(part)
    return body + b"\x3b"


def on_white(pixels: np.ndarray) -> np.ndarray:
    alpha = pixels[..., 3:].astype(float) / 255
    return np.concatenate([pixels[..., :3] * alpha + 255 * (1 - alpha), pixels[..., 3:]], axis=-1)


part_strategy = st.tuples(
    st.booleans(),
    st.integers(0, 10),
    st.integers(0, 8),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(0, 3),
    st.sampled_from([None, None, 3]),
    st.booleans(),
    st.booleans(),
)
film_strategy = st.lists(part_strategy, min_size=1, max_size=5)


def film(drawn: Sequence[tuple[bool, int, int, int, int, int, int | None, bool, bool]]) -> list[Part]:
    parts = []
    for seed, (whole, left, top, width, height, disposal, transparent, interlaced, own_palette) in enumerate(drawn):
        place = (0, 0, WIDTH, HEIGHT) if whole else (left, top, width, height)
        parts.append(Part(*place, disposal, transparent, interlaced, own_palette, seed))
    return parts


def shown_by(painter: Painter, body: bytes) -> list[np.ndarray]:
    return [on_white(np.asarray(frame)) for frame in painter.play(body, "gif").frames]


def test_any_disposal_transparency_and_place_gives_the_frames_of_chromium(painter: Painter) -> None:
    """The frames come from our decoder where libvips would fill areas, and otherwise from libvips."""

    @settings(max_examples=80, deadline=None, database=None)
    @given(film_strategy, st.integers(0, COLORS - 1))
    def check(drawn: list[tuple[bool, int, int, int, int, int, int | None, bool, bool]], background: int) -> None:
        body = animated_gif(film(drawn), background=background)
        view = memoryview(body)
        opened = open_image(view, n=-1).copy_memory()
        if gif.has_filled_areas(view, 100):
            found = [frame.numpy() for frame in gif_frames.decode(view, opened)]
        else:
            strip = opened.colourspace("srgb")
            found = list((strip if strip.hasalpha() else strip.addalpha()).numpy().reshape(-1, HEIGHT, WIDTH, 4))
        shown = shown_by(painter, body)
        assert len(found) == len(shown)
        for frame, expected in zip(found, shown, strict=True):
            assert np.array_equal(on_white(frame), expected)

    check()


FILLED = {
    "first frame lies in a part": [Part(4, 3, 8, 6)],
    "later frames paint outside of the first": [Part(4, 3, 8, 6), Part(0, 0, 5, 5, seed=1)],
    "cleared area": [Part(disposal=2), Part(4, 3, 8, 6, seed=1)],
    "cleared area of one of several": [Part(), Part(4, 3, 8, 6, disposal=2, seed=1), Part(0, 0, 2, 2, seed=2)],
    "first frame removed": [Part(disposal=3), Part(4, 3, 8, 6, seed=1)],
    "cleared without transparent color beside a frame with one": [Part(transparent=2), Part(4, 3, 8, 6, disposal=2), Part(0, 0, 2, 2)],
}
OPAQUE = {
    "whole frames": [Part(), Part(seed=1)],
    "patches": [Part(), Part(4, 3, 8, 6, seed=1)],
    "whole frames that are cleared": [Part(disposal=2), Part(disposal=2, seed=1), Part(seed=2)],
    "cleared area that is painted over": [Part(), Part(4, 3, 8, 6, disposal=2, seed=1), Part(3, 2, 10, 9, seed=2)],
    "last frame cleared": [Part(), Part(4, 3, 8, 6, disposal=2, seed=1)],
}


@pytest.mark.parametrize("name", FILLED)
async def test_area_without_pixels_is_transparent_in_every_rendition(pool: RenderPool, painter: Painter, tmp_path: Path, name: str) -> None:
    body = animated_gif(FILLED[name], background=5)
    path = written(tmp_path, body)
    info = (await probed(pool, path)).info
    assert info.alpha
    shown = shown_by(painter, body)
    for target in ("webp", "gif"):
        spelling = "lossless=true" if target == "webp" else "full"
        found = painter.play((await rendered(pool, path, spelling, target)).body, target).frames
        assert len(found) == len(shown) == len(FILLED[name])
        for frame, expected in zip(found, shown, strict=True):
            assert np.abs(on_white(np.asarray(frame)) - expected).max() <= (0 if target == "webp" else 2)
    for number, expected in enumerate(shown):
        still = images.decode((await rendered(pool, path, f"frame={number}", "png")).body).convert("RGBA")
        assert np.abs(on_white(np.asarray(still)) - expected).max() == 0


@pytest.mark.parametrize("name", OPAQUE)
async def test_gif_that_is_painted_everywhere_is_opaque(pool: RenderPool, tmp_path: Path, name: str) -> None:
    assert not (await probed(pool, written(tmp_path, animated_gif(OPAQUE[name], background=5)))).info.alpha


async def test_frame_without_transparent_pixels_has_no_alpha_although_another_has(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, animated_gif(FILLED["cleared area of one of several"]))
    modes = [images.decode((await rendered(pool, path, f"frame={number}", "png")).body).mode for number in (0, 1, 2)]
    assert modes == ["RGB", "RGB", "RGBA"]


@pytest.mark.parametrize("image_format", ["webp", "gif", "jpeg"])
async def test_last_frame_that_libvips_cannot_decode_is_left_out(pool: RenderPool, tmp_path: Path, image_format: Format) -> None:
    drawn = animated_gif([Part(disposal=2, seed=1), Part(width=4, seed=2)])
    # GIF89a, appendix F: no minimum code size is larger than 8, and decoders know at most 11.
    broken = b"\x2c" + bytes([0, 0, 0, 255, 11, 73, 109, 97, 0, 101]) + compressed(Part(seed=3))[1:]
    path = written(tmp_path, drawn[:-1] + broken + b"\x3b")
    assert (await probed(pool, path)).info.frames == 2
    shown = Image.open(io.BytesIO((await rendered(pool, path, "full", image_format)).body))
    assert (shown.size, getattr(shown, "n_frames", 1)) == ((WIDTH, HEIGHT), 1 if image_format == "jpeg" else 2)


@pytest.mark.skipif(images.corpus() is None, reason="no corpus of real images beside the checkout")
@pytest.mark.parametrize("name", ["gif-dispose-bg.gif", "gif-offset-first-frame.gif"])
async def test_corpus_fault_is_shown_as_by_chromium(pool: RenderPool, painter: Painter, name: str) -> None:
    (path,) = [path for path in images.corpus_files("faults") if path.name == name]
    assert (await probed(pool, path)).info.alpha
    shown = painter.play(path.read_bytes(), "gif").frames
    made = painter.play((await rendered(pool, path, "lossless=true", "webp")).body, "webp").frames
    for frame, expected in zip(made, shown, strict=True):
        assert np.array_equal(on_white(np.asarray(frame)), on_white(np.asarray(expected)))
