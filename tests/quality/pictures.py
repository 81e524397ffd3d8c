"""The pictures for measuring quality: photos of the corpus if it is available, and generated pictures of other kinds."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyvips
from PIL import Image, ImageDraw, ImageFont

from tests.support import images

WIDTHS = (640, 1_280)


class Picture(NamedTuple):
    """A lossless rendition, as an image of libvips for the service, and of Pillow for the judge."""

    name: str
    width: int
    image: pyvips.Image
    lossless: Image.Image


def photos(widths: tuple[int, ...] = WIDTHS) -> Iterator[Picture]:
    """Yield the photos of the corpus at each width, or generated scenes without a corpus."""
    files = images.corpus_files("photo")
    for width in widths:
        for file in files:
            yield _make_picture(_name(file), width, pyvips.Image.thumbnail(str(file), width, height=8_192, output_profile="srgb"))
        if not files:
            for seed in range(3):
                yield _make_picture(f"scene {seed}", width, for_service(images.picture(width, width * 3 // 4, seed=seed)))


def others(widths: tuple[int, ...] = WIDTHS) -> Iterator[Picture]:
    """Yield pictures that are not photos: text, graphics, a sky, noise."""
    for width in widths:
        for name, draw in _OTHERS.items():
            yield _make_picture(name, width, for_service(draw(width, width * 2 // 3)))


def text(width: int, height: int) -> Image.Image:
    """Return lines of text in black and red on white, of several sizes."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for line, top in enumerate(range(4, height, 26)):
        color = (170, 20, 20) if line % 3 == 0 else (20, 20, 30)
        draw.text(
            (12, top), "Sphinx of black quartz, judge my vow. 0123456789 " * 4, fill=color, font=ImageFont.load_default(11 + line % 9)
        )
    return image


def graphics(width: int, height: int) -> Image.Image:
    """Return flat shapes with hard edges."""
    rng = np.random.default_rng(7)
    image = Image.new("RGB", (width, height), (245, 246, 250))
    draw = ImageDraw.Draw(image)
    for shape in range(60):
        left, top = int(rng.integers(0, width)), int(rng.integers(0, height))
        size = int(rng.integers(8, width // 8))
        color = tuple(rng.integers(0, 256, 3).tolist())
        if shape % 3 == 0:
            draw.ellipse((left - size, top - size, left + size, top + size), fill=color)
        elif shape % 3 == 1:
            draw.rectangle((left, top, left + size, top + size // 2), fill=color)
        else:
            draw.line((left, top, int(rng.integers(0, width)), int(rng.integers(0, height))), fill=color, width=2)
    return image


def sky(width: int, height: int) -> Image.Image:
    """Return a sky: wide gradients of few levels, with noise of half a level that prevents banding."""
    vertical = np.linspace(0, 1, height)[:, None, None]
    pixels = np.array([120, 160, 215]) + vertical * np.array([70, 50, 25]) + np.random.default_rng(3).uniform(-0.5, 0.5, (height, width, 3))
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8), "RGB")


def noise(width: int, height: int) -> Image.Image:
    """Return noise in each band."""
    pixels = 128 + 40 * np.random.default_rng(5).standard_normal((height, width, 3))
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8), "RGB")


_OTHERS: dict[str, Callable[[int, int], Image.Image]] = {"text": text, "graphics": graphics, "sky": sky, "noise": noise}


def for_service(image: Image.Image) -> pyvips.Image:
    """Return an image of Pillow as an image of libvips, in memory."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return pyvips.Image.new_from_buffer(out.getvalue(), "").copy_memory()


def _make_picture(name: str, width: int, image: pyvips.Image) -> Picture:
    image = image.copy_memory()
    lossless = Image.open(io.BytesIO(image.pngsave_buffer(compression=1, keep="none")))
    lossless.load()
    return Picture(name, width, image, lossless)


def _name(file: Path) -> str:
    return file.stem.split("__", 1)[-1]
