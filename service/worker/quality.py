"""Quality: how far a rendition looks from its lossless self, the smallest file that looks alike, the best one that fits.

Why a distance of our own: libvips has none, and SSIMULACRA2, which agrees best with people, takes some 0.1 s compiled and more
than 1 s in NumPy for a picture of 1,280 × 853, where this one takes 0.05 s in libvips' own operations. Over 1,332 encodes (12 photos
and 6 generated pictures; avif, webp and jpeg at 8 qualities and several efforts, SSIMULACRA2 above 40) its rank correlation with
SSIMULACRA2 is 0.988, 0.991 on photos and there at least 0.990 within each; fitted without the picture that is judged, and before
`shift` was added, 0.979 on all. Within a photo it is off by 0.9 points. It sees less than SSIMULACRA2 of what halving the colours
does to saturated edges. `make quality` judges what it leads to with SSIMULACRA2 itself.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import pyvips

from service.images.formats import FORMATS, Format
from service.rendering.protocol import Failure, ImageError
from service.worker.color import on_white
from service.worker.save import PLAIN, Encoding, encode

# A goal of `auto` is never nearer than what is no longer seen, nor farther than SSIMULACRA2 60, "medium to low quality".
INVISIBLE = 1.0
CEILING = 9.0

_BLOCK = 4
# A picture smaller than a block at the smallest scale is continued by its mirror image.
_SMALLEST_SIDE = 32
_SCALES = 4
_CHROMA_SHRINK = 4

# What is seen of transparency depends on what lies behind: white, and grey.
_BACKGROUNDS = (255, 128)

# Variance that hides a difference even where the picture is flat, by the bands of the plane: lightness and Lab's axes have other units.
_UNSEEN_VARIANCE = {1: 52.0, 2: 8.0}

# Per plane, largest scale first, colour last: of structure the mean and the 4-norm, of lost contrast the same, of shift the 4-norm.
# Those of shift are not fitted: a third of a step for each of 255, or of Lab, so that three are a difference that is just seen.
_WEIGHTS = (
    (5.6, 8.5, 0.0, 0.30, 0.0),
    (21.0, 11.0, 0.0, 0.0, 0.0),
    (153.0, 22.0, 0.0, 0.74, 0.0),
    (290.0, 66.0, 0.0, 0.18, 0.33),
    (0.0, 1.15, 0.61, 0.0, 0.33),
)

# The effort that `auto` gives each encoder: the most that stays within about a second (AVIF: four) for 1,280 × 853 pixels.
_EFFORT: Mapping[Format, int] = {"avif": 3, "webp": 6, "jpeg": 4}
# JPEG at this effort has the pixels of the usual file, in scans that need fewer bytes.
_REPACKED: Mapping[Format, int] = {"jpeg": 3}
# How much nearer than the usual file the goal lies, as a share of the distance, found on photos: SSIMULACRA2 differs by so much where
# one encoder's files at two efforts are of one distance.
_MARGIN: Mapping[Format, float] = {"avif": 0.03, "webp": 0.03, "jpeg": 0.0}

# libheif takes 100 qualities and has 64: of those that give the same file the lowest stands for all.
_STEPS: Mapping[Format, Sequence[int]] = {
    "avif": sorted({((100 - quality) * 63 + 50) // 100: quality for quality in range(100, 0, -1)}.values()),
    "webp": range(1, 101),
    "jpeg": range(1, 101),
}
# One encode for each: how many times as far as expected a guess goes while all are on one side of the goal.
_STRIDES = (1, 2, 4, 8)
# What one step usually takes off the logarithm of the distance.
_FALL = 0.04
_LEAST = 1e-6

_SEARCHED_PIXELS = 2_600_000
_TILE = 256
_TILES = 20


class PerceptualDistance:
    """A lossless picture that encoded ones are held against.

    The distance is a sum of weighted differences in blocks of 4 × 4 pixels, of lightness at four scales and of the Lab colour
    axes at a quarter of the size. Of each block: `structure`, the variance of the difference over the variances of both, 0 to 1,
    which is 1 - SSIM without its term for means; `lost`, the contrast (standard deviation) that the encoded one is short of; and
    `shift`, the difference of the means. Of the blocks: the mean, and the 4-norm, which is that of the worst of them. The weights
    are fitted to SSIMULACRA2 by least squares, none below 0.

    1 is SSIMULACRA2 90, where a difference is no longer seen side by side, and so on: `((100 - SSIMULACRA2) / 10) ** 1.593`, which
    is 2.6 for 82, 4.3 for 75, 5.8 for 70.
    """

    def __init__(self, picture: pyvips.Image) -> None:
        """Take a picture of 8 bits a band, sRGB or grey, alpha or not, in memory."""
        self._backgrounds = _BACKGROUNDS if picture.hasalpha() else _BACKGROUNDS[:1]
        self._references = [[_Blocks.of(plane) for plane in _planes(_opaque(picture, background))] for background in self._backgrounds]

    def distance(self, body: bytes) -> float:
        """Return how far an encoded picture looks from the lossless one: 0 for equal, the worst over all backgrounds."""
        picture = _decoded(body)
        return max(
            self._compared(reference, _planes(_opaque(picture, background)))
            for reference, background in zip(self._references, self._backgrounds, strict=True)
        )

    @staticmethod
    def _compared(reference: list[_Blocks], planes: list[pyvips.Image]) -> float:
        return math.fsum(
            amount * weight
            for blocks, plane, weights in zip(reference, planes, _WEIGHTS, strict=False)
            for amount, weight in zip(blocks.differences(plane), weights, strict=True)
        )


class _Blocks(NamedTuple):
    """A plane (one band of lightness, or two of colour), and of each of its blocks the mean, the variance and the deviation."""

    plane: pyvips.Image
    mean: pyvips.Image
    variance: pyvips.Image
    deviation: pyvips.Image

    @classmethod
    def of(cls, plane: pyvips.Image) -> _Blocks:
        mean = plane.shrink(_BLOCK, _BLOCK).copy_memory()
        # Rounding may leave a little less than nothing.
        variance = ((plane * plane).shrink(_BLOCK, _BLOCK) - mean * mean).abs().copy_memory()
        return cls(plane, mean, variance, (variance**0.5).copy_memory())

    def differences(self, plane: pyvips.Image) -> tuple[float, float, float, float, float]:
        """Return of structure and of lost contrast the mean and the 4-norm, of shift the 4-norm; each the sum over the bands."""
        other = _Blocks.of(plane)
        difference = self.plane - plane
        shift = self.mean - other.mean
        apart = ((difference * difference).shrink(_BLOCK, _BLOCK) - shift * shift).abs().copy_memory()
        structure = apart / (self.variance + other.variance + _UNSEEN_VARIANCE[plane.bands])
        short = self.deviation - other.deviation
        lost = (short + short.abs()) * 0.5
        bands, count = plane.bands, structure.width * structure.height
        # One pass over all maps; the columns of `stats` are min, max, sum, sum of squares, mean …, its first row is of all bands.
        found = structure.bandjoin([structure * structure, lost, lost * lost, shift * shift]).stats()
        table = memoryview(bytes(found.write_to_memory())).cast("d").tolist()
        rows = [table[at : at + found.width] for at in range(found.width, len(table), found.width)]
        means = [row[4] for row in rows]
        norms = [(row[3] / count) ** 0.25 for row in rows]
        return (
            math.fsum(means[:bands]),
            math.fsum(norms[bands : 2 * bands]),
            math.fsum(means[2 * bands : 3 * bands]),
            math.fsum(norms[3 * bands : 4 * bands]),
            math.fsum(norms[4 * bands :]),
        )


def auto(image: pyvips.Image, image_format: Format, usual_quality: int, asked: Encoding = PLAIN) -> bytes:
    """Return the smallest file that looks at least as good as the picture does at `usual_quality`, found in at most 6 encodes.

    `image` is in memory; its frames, if it has several, stand below one another. The goal is the distance of this very picture at
    the usual quality and effort, less a margin, for the judgement of eyes, and of SSIMULACRA2, is not ours: never more than
    `CEILING`, as far as the format can, and never less than `INVISIBLE`, for nobody sees the bytes that go beyond. What an encoder
    with more time saves at that goal is the gain. A constant goal would take bytes from one picture and give them to the next; which
    of the two has too many, a metric that is right to about 2 points of SSIMULACRA2 between pictures, but to half a point within
    one, cannot say.

    Animations and pictures of more than 2.6 Mpixel are searched on tiles spread over them; then the whole is encoded as was found
    and as is usual, and the smaller one is taken. Formats without a quality, and `lossless`, are encoded as they are.
    """
    if image_format not in _STEPS or asked.lossless:
        return encode(image, image_format, usual_quality, asked)
    if image.hasalpha() and not FORMATS[image_format].alpha:
        image = on_white(image).copy_memory()
    whole = image.get_page_height() == image.height and image.width * image.height <= _SEARCHED_PIXELS
    picture = image if whole else _tiles(image)
    likeness = PerceptualDistance(picture)

    def choice(level: int, how: Encoding) -> _Choice:
        return _Choice(level, how, encode(picture, image_format, level, how))

    usual = choice(usual_quality, asked)
    seen = likeness.distance(usual.body)
    goal = min(max(seen * (1 - _MARGIN[image_format]), INVISIBLE), CEILING)
    thorough = asked if asked.effort is not None else msgspec.structs.replace(asked, effort=_EFFORT[image_format])
    found = _smallest(lambda level: choice(level, thorough), likeness, goal, _STEPS[image_format], usual_quality)
    choices = [found] if found else []
    if seen <= CEILING or not found:
        choices.append(usual)
        if asked.effort is None and image_format in _REPACKED:
            choices.append(choice(usual_quality, msgspec.structs.replace(asked, effort=_REPACKED[image_format])))
    best = min(choices, key=lambda one: len(one.body))
    if whole:
        return best.body
    finals = [best] if best is usual or usual not in choices else [best, usual]
    return min((encode(image, image_format, final.quality, final.how) for final in finals), key=len)


def within(max_bytes: int, encode_at: Callable[[int], bytes], best: int) -> bytes:
    """Return the file of the highest quality from 1 to `best` that has at most `max_bytes`, found in at most 8 encodes.

    Raises `ImageError`, `cannot-fit`, where none has. `best` is at most 100; a better quality is taken to need more bytes.
    """
    fitting = encode_at(best)
    if len(fitting) <= max_bytes:
        return fitting
    low, high, smallest = 0, best, len(fitting)
    while high - low > 1:
        middle = (low + high) // 2
        body = encode_at(middle)
        if len(body) <= max_bytes:
            low, fitting = middle, body
        else:
            high, smallest = middle, len(body)
    if low:
        return fitting
    raise ImageError(
        Failure(
            "cannot-fit",
            "Even at the lowest quality this rendition has more bytes than it may have.",
            expected=f"at most {max_bytes} bytes",
            received=f"{smallest} bytes at quality 1",
            remedy="Ask for fewer pixels, another format, or more bytes.",
        )
    )


class _Choice(NamedTuple):
    """A way to encode, and the file that it gives."""

    quality: int
    how: Encoding
    body: bytes


def _smallest(
    choice: Callable[[int], _Choice], likeness: PerceptualDistance, goal: float, steps: Sequence[int], first: int
) -> _Choice | None:
    """Return the choice of the lowest of the qualities `steps` whose distance is within `goal`; `None` if 4 encodes find none.

    The logarithm of the distance is taken to fall evenly with the steps: at the usual rate as long as all are on one side of the
    goal, and twice as far each time, then between the nearest on either side.
    """
    failed, passed = -1, len(steps)
    over, under = 0.0, 0.0
    found = None
    at = bisect.bisect_left(steps, first)
    for stride in _STRIDES:
        tried = choice(steps[at])
        excess = math.log(max(likeness.distance(tried.body), _LEAST) / goal)
        if excess <= 0:
            passed, under, found = at, excess, tried
        else:
            failed, over = at, excess
        if failed < 0:
            at = passed - math.floor(-under / _FALL) * stride
        elif passed == len(steps):
            # Where a distance hardly falls with the steps, the last guess is far up: the ceiling is a promise.
            far = (len(steps) - failed) // 2 if stride == _STRIDES[-2] else 0
            at = failed + max(math.ceil(over / _FALL) * stride, far)
        else:
            at = failed + math.ceil((passed - failed) * over / (over - under))
        at = max(failed + 1, min(at, len(steps) - 1))
        if at >= passed:
            # The next one below is known, or expected, to fail.
            break
    return found


def _tiles(image: pyvips.Image) -> pyvips.Image:
    """Return up to 20 tiles of 256 × 256 pixels, spread evenly over a picture, as one picture in memory."""
    across = max(1, min(image.width // _TILE, round(math.sqrt(_TILES * image.width / image.height))))
    down = max(1, min(image.height // _TILE, _TILES // across))
    width, height = min(_TILE, image.width), min(_TILE, image.height)
    tiles = [
        image.crop(
            (image.width - width) * (2 * column + 1) // (2 * across), (image.height - height) * (2 * row + 1) // (2 * down), width, height
        )
        for row in range(down)
        for column in range(across)
    ]
    joined = pyvips.Image.arrayjoin(tiles, across=across).copy_memory()
    if joined.get_typeof("page-height"):
        joined = joined.copy()
        joined.remove("page-height")
    return joined


def _decoded(body: bytes) -> pyvips.Image:
    return pyvips.Image.new_from_buffer(body, "").copy_memory()


def _opaque(picture: pyvips.Image, background: int) -> pyvips.Image:
    """Return a picture without alpha, laid on a grey if it had one, in memory, at least 32 × 32."""
    if picture.hasalpha():
        picture = picture.flatten(background=[background] * (picture.bands - 1))
    if min(picture.width, picture.height) < _SMALLEST_SIDE:
        picture = picture.embed(0, 0, max(_SMALLEST_SIDE, picture.width), max(_SMALLEST_SIDE, picture.height), extend="mirror")
    return picture.copy_memory()


def _planes(picture: pyvips.Image) -> list[pyvips.Image]:
    """Return lightness (0 to 255 on sRGB's curve) at 1, 1/2, 1/4 and 1/8, and if there is colour, a and b of Lab at 1/4."""
    planes = [picture.colourspace("b-w").cast("float").copy_memory()]
    while len(planes) < _SCALES:
        planes.append(planes[-1].shrink(2, 2).copy_memory())
    if picture.bands == 3:
        small = picture.shrink(_CHROMA_SHRINK, _CHROMA_SHRINK)
        planes.append(small.colourspace("lab").extract_band(1, n=2).copy_memory())
    return planes
