"""Efforts: the bytes and the CPU time of each encoder at the same SSIMULACRA2, for each of its efforts and several widths."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean

import click
import msgspec

from service.images.formats import Format
from service.images.transform import DEFAULTS, PIPELINE_VERSION
from service.worker.save import EncodeOptions, encode
from tests.quality.equal_score import Search
from tests.quality.judge import score
from tests.quality.pictures import Picture, photos

FORMATS: tuple[Format, ...] = ("jxl", "avif", "webp", "jpeg")

# How many photos are measured at each width, spread over the corpus: large ones take long.
PHOTOS_OF_WIDTH: Mapping[int, int] = {480: 7, 1_280: 4, 2_560: 2}

# The efforts that a server could think of. `None` is the default.
_EFFORTS: Mapping[Format, Sequence[int | None]] = {
    "jxl": (None, 2, 5),
    "avif": (None, 1, 2, 3),
    "webp": (None, 0, 4, 6),
    "jpeg": (None, 3, 4),
}
# The previous version for comparison, where it differs.
_CHANGED: tuple[Format, ...] = ("avif", "jpeg")

# The time of short encodes is the shortest of several.
_SHORT_SECONDS = 0.1


class Effort(msgspec.Struct, frozen=True):
    """One effort of one encoder at one width: mean bits per pixel, and CPU milliseconds for a picture of 3:2, at the score `TARGET`.

    effort: `None` for the default. version: the pipeline version. relative: the bytes relative to WebP by default, as a geometric mean.
    """

    width: int
    format: Format
    effort: int | None
    version: int
    relative: float
    bits_per_pixel: float
    milliseconds: float


def measure_efforts() -> list[Effort]:
    """Measure all efforts."""
    rows: list[Effort] = []
    for width, count in PHOTOS_OF_WIDTH.items():
        found: dict[tuple[Format, int | None, int], list[tuple[float, float, float]]] = {}
        for picture in _spread(list(photos((width,))), count):
            pixels = picture.image.width * picture.image.height
            measured = {setting: _at_target(picture, *setting) for setting in _settings()}
            webp_bytes, _ = measured["webp", None, PIPELINE_VERSION]
            for setting, (size, seconds) in measured.items():
                found.setdefault(setting, []).append((math.log(size / webp_bytes), 8 * size / pixels, seconds / pixels))
            click.echo(f"efforts: {picture.name}, {width} wide", err=True)
        for (image_format, effort, version), figures in found.items():
            relative, bits, seconds = (mean(column) for column in zip(*figures, strict=True))
            milliseconds = 1_000 * seconds * width * width * 2 / 3
            rows.append(Effort(width, image_format, effort, version, math.exp(relative), bits, milliseconds))
    return rows


def _settings() -> Iterable[tuple[Format, int | None, int]]:
    for image_format, efforts in _EFFORTS.items():
        for effort in efforts:
            yield image_format, effort, PIPELINE_VERSION
    for image_format in _CHANGED:
        yield image_format, None, PIPELINE_VERSION - 1


def _at_target(picture: Picture, image_format: Format, effort: int | None, version: int) -> tuple[float, float]:
    """Return the bytes at the score `TARGET`, and the CPU seconds of the nearest encode."""
    options = EncodeOptions(effort=effort, version=version)
    search = Search(DEFAULTS[version].quality[image_format])
    seconds: dict[int, float] = {}
    while (quality := search.next_quality()) is not None:
        size, found, seconds[quality] = _encode(picture, image_format, quality, options)
        search.add(quality, size, found)
    return search.bytes_at_target(), seconds[search.nearest]


def _encode(picture: Picture, image_format: Format, quality: int, options: EncodeOptions) -> tuple[int, float, float]:
    """Return the bytes of a file, its score, and the CPU seconds that it takes."""
    times: list[float] = []
    while len(times) < 1 or (min(times) < _SHORT_SECONDS and len(times) < 3):
        started = time.process_time()
        body = encode(picture.image, image_format, quality, options)
        times.append(time.process_time() - started)
    return len(body), score(picture.lossless, body), min(times)


def _spread(pictures: Sequence[Picture], count: int) -> list[Picture]:
    """Return up to `count` pictures, spread evenly, the first and the last included."""
    if len(pictures) <= count:
        return list(pictures)
    return [pictures[round(number * (len(pictures) - 1) / (count - 1))] for number in range(count)]
