"""How bytes grow with pixels, and how often ladders leave out the right steps (`MIN_STEP_RATIO` of service/images/ladder.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import log
from statistics import mean
from typing import TypeAlias

import click
import msgspec
import pyvips

from service.images.formats import Format
from service.images.ladder import MIN_STEP_RATIO
from service.images.transform import DEFAULTS, PIPELINE_VERSION
from service.worker.save import encode
from tests.quality.pictures import for_service, graphics, text
from tests.support import images

FORMATS: tuple[Format, ...] = ("jxl", "avif", "webp", "jpeg")
WIDTHS = (320, 360, 400, 480, 640, 720, 800, 960, 1_080, 1_280, 1_440, 1_600, 1_920, 2_240, 2_560)

# A step is worth a URL if the next one has at least so many times its bytes.
WORTHWHILE = 1.2
# Pictures twice as large are worth a URL in any case, so the rule is judged below that.
_MAX_RATIO = 2

Resize: TypeAlias = Callable[[int], pyvips.Image]


class Growth(msgspec.Struct, frozen=True):
    """The sizes of one picture in one format: pixels and bytes, smallest first."""

    picture: str
    photo: bool
    format: Format
    sizes: list[tuple[int, int]]

    @property
    def exponent(self) -> float:
        """The power of the pixels with which the bytes grow: the slope of the line that fits their logarithms."""
        x, y = [log(pixels) for pixels, _ in self.sizes], [log(size) for _, size in self.sizes]
        middle_x, middle_y = mean(x), mean(y)
        covariance = sum((one - middle_x) * (other - middle_y) for one, other in zip(x, y, strict=True))
        return covariance / sum((one - middle_x) ** 2 for one in x)

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """The ratio of pixels and the ratio of bytes of any two sizes that are less than `_MAX_RATIO` apart."""
        return [
            (more / pixels, larger / size)
            for index, (pixels, size) in enumerate(self.sizes)
            for more, larger in self.sizes[index + 1 :]
            if more < pixels * _MAX_RATIO
        ]


def pictures() -> Iterator[tuple[str, bool, Resize]]:
    """Yield the name of each picture, whether it is a photo, and a function that returns it at a width."""
    for file in images.corpus_files("photo"):
        yield file.stem.split("__", 1)[-1], True, partial(_photo_at_width, str(file))
    for name, draw in (("text", text), ("graphics", graphics)):
        yield name, False, for_service(draw(WIDTHS[-1], WIDTHS[-1] * 2 // 3)).thumbnail_image


def _photo_at_width(path: str, width: int) -> pyvips.Image:
    return pyvips.Image.thumbnail(path, width, height=8_192, size="down", output_profile="srgb")


def measure_steps(widths: Sequence[int] = WIDTHS, formats: Sequence[Format] = FORMATS) -> list[Growth]:
    """Measure the bytes of each picture at each width that it has, at the default quality of each format."""
    found = []
    quality = DEFAULTS[PIPELINE_VERSION].quality
    for name, is_photo, at_width in pictures():
        sizes: dict[Format, list[tuple[int, int]]] = {image_format: [] for image_format in formats}
        for width in widths:
            image = at_width(width).copy_memory()
            if image.width == width:
                for image_format in formats:
                    body = encode(image, image_format, quality[image_format])
                    sizes[image_format].append((image.width * image.height, len(body)))
        found += [Growth(name, is_photo, image_format, of_format) for image_format, of_format in sizes.items()]
        click.echo(f"steps: {name}", err=True)
    return found


def summary(rows: Sequence[Growth]) -> list[list[str]]:
    """Return a row for photos and for drawings in each format: the exponent, and how often the rule is right."""
    table = []
    for kind, is_photo in (("photos", True), ("drawings", False)):
        for image_format in FORMATS:
            chosen = [row for row in rows if row.photo == is_photo and row.format == image_format]
            pairs = [pair for row in chosen for pair in row.pairs]
            if not pairs:
                continue
            exponents = [row.exponent for row in chosen]
            left_out = [size for pixels, size in pairs if pixels < MIN_STEP_RATIO]
            right = mean((pixels < MIN_STEP_RATIO) == (size < WORTHWHILE) for pixels, size in pairs)
            exponent = f"{mean(exponents):.2f} ({min(exponents):.2f} to {max(exponents):.2f})"
            table.append([kind, image_format, exponent, f"{right:.0%} of {len(pairs)}", f"{mean(left_out):.2f}", f"{max(left_out):.2f}"])
    return table
