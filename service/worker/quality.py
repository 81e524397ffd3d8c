"""Quality: a perceptual distance between pictures, `quality=auto`, which searches for the smallest file below a distance, and `max_bytes`.

Why a distance of our own: libvips has none. SSIMULACRA2, which agrees best with people, takes about 0.1 s compiled and more than 1 s in
NumPy for a picture of 1,280 × 853, where this one takes 0.05 s in libvips operations. Over 1,332 encodes (12 photos and 6 generated
pictures; avif, webp and jpeg at 8 qualities and several efforts, SSIMULACRA2 above 40) its rank correlation with SSIMULACRA2 is 0.988; on
photos it is 0.991, and at least 0.990 within each. Fitted without the picture that is judged, and before `shift` was added, it was 0.979
overall. Within a photo it is off by 0.9 points. It is less sensitive than SSIMULACRA2 to chroma subsampling at saturated edges.
`make quality` measures the resulting files with SSIMULACRA2 itself.
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
from service.worker import color
from service.worker.save import DEFAULT_OPTIONS, EncodeOptions, encode

# The goal of `auto` is at least the largest distance that is invisible, and at most that of SSIMULACRA2 60, "medium to low quality".
INVISIBLE = 1.0
CEILING = 9.0

_BLOCK = 4
# Smaller pictures are extended by their mirror image, so that they have a block at the smallest scale.
_MIN_SIDE = 32
_SCALES = 4
_CHROMA_SHRINK = 4

# Differences in transparency are visible on some backgrounds only: white and gray are tried.
_BACKGROUNDS = (255, 128)

# Variance that hides a difference even in a flat block, by the number of bands: lightness and the axes of Lab have different units.
_MASKING_VARIANCE = {1: 52.0, 2: 8.0}

# Weights of each plane, largest scale first and chroma last: structure (mean, 4-norm), lost contrast (mean, 4-norm), shift (4-norm). Those
# of shift are not fitted: a third per level of 255, or per unit of Lab, because a shift of three is just visible.
_WEIGHTS = (
    (5.6, 8.5, 0.0, 0.30, 0.0),
    (21.0, 11.0, 0.0, 0.0, 0.0),
    (153.0, 22.0, 0.0, 0.74, 0.0),
    (290.0, 66.0, 0.0, 0.18, 0.33),
    (0.0, 1.15, 0.61, 0.0, 0.33),
)

# The effort of each encoder in `auto`: the highest that takes about a second (AVIF: up to four) for 1,280 × 853 pixels. JPEG XL has none,
# because above its default effort no file is smaller at the same SSIMULACRA2: `auto` is its default quality.
_EFFORT: Mapping[Format, int] = {"avif": 3, "webp": 6, "jpeg": 4}
# With this effort JPEG has the same pixels as by default, in scans that take fewer bytes.
_LOSSLESS_EFFORT: Mapping[Format, int] = {"jpeg": 3}
# The goal is this fraction below the distance at the default effort, determined on photos: at equal distance, files of one encoder at two
# efforts differ this much in SSIMULACRA2.
_MARGIN: Mapping[Format, float] = {"avif": 0.03, "webp": 0.03, "jpeg": 0.0}

# Qualities to try. libheif maps 100 qualities to 64 quantizers; the lowest quality of each represents it.
_QUALITIES: Mapping[Format, Sequence[int]] = {
    "avif": sorted({((100 - quality) * 63 + 50) // 100: quality for quality in range(100, 0, -1)}.values()),
    "webp": range(1, 101),
    "jpeg": range(1, 101),
}
# While all encodes are on one side of the goal, each guess goes this many times farther than expected. There is one encode for each.
_STRIDES = (1, 2, 4, 8)
# The decrease of the logarithm of the distance that is expected per quality.
_LOG_DISTANCE_PER_QUALITY = 0.04
_MIN_DISTANCE = 1e-6

_MAX_SEARCHED_PIXELS = 2_600_000
_TILE_SIDE = 256
_TILES = 20


class PerceptualDistance:
    """The perceptual distance of encoded pictures from a lossless one.

    It is a weighted sum of differences in blocks of 4 × 4 pixels, of lightness at four scales and of the chroma axes of Lab at a quarter
    of the size. Three differences are measured in each block: `structure`, the variance of the difference divided by the sum of both
    variances, 0 to 1, which is 1 - SSIM without its term for means; `lost`, the contrast (standard deviation) that the encoded picture
    lacks; and `shift`, the difference of the means. They are combined over all blocks by their mean and their 4-norm, which is dominated
    by the worst blocks. The weights are fitted to SSIMULACRA2 by non-negative least squares.

    1 corresponds to SSIMULACRA2 90, where a difference is no longer visible side by side. In general the distance is about
    `((100 - SSIMULACRA2) / 10) ** 1.593`, which is 2.6 for 82, 4.3 for 75 and 5.8 for 70.
    """

    def __init__(self, picture: pyvips.Image) -> None:
        """Prepare the comparison with `picture`: 8 bits per band, sRGB or gray, with or without alpha, in memory."""
        self._backgrounds = _BACKGROUNDS if picture.hasalpha() else _BACKGROUNDS[:1]
        self._references = [[_Blocks.of(plane) for plane in _planes(_flatten(picture, background))] for background in self._backgrounds]

    def distance(self, body: bytes) -> float:
        """Return the distance of an encoded picture from the lossless one, 0 if they are equal. With alpha, the worst over all backgrounds.

        body: an image file of the same size. Raises `pyvips.Error` if it does not decode.
        """
        picture = _decode(body)
        return max(
            self._compare(reference, _planes(_flatten(picture, background)))
            for reference, background in zip(self._references, self._backgrounds, strict=True)
        )

    @staticmethod
    def _compare(reference: list[_Blocks], planes: list[pyvips.Image]) -> float:
        return math.fsum(
            amount * weight
            for blocks, plane, weights in zip(reference, planes, _WEIGHTS, strict=False)
            for amount, weight in zip(blocks.differences(plane), weights, strict=True)
        )


class _Blocks(NamedTuple):
    """A plane (one band of lightness, or two of chroma), and the mean, variance and standard deviation of each of its blocks."""

    plane: pyvips.Image
    mean: pyvips.Image
    variance: pyvips.Image
    deviation: pyvips.Image

    @classmethod
    def of(cls, plane: pyvips.Image) -> _Blocks:
        mean = plane.shrink(_BLOCK, _BLOCK).copy_memory()
        # `abs` because rounding may make it slightly negative.
        variance = ((plane * plane).shrink(_BLOCK, _BLOCK) - mean * mean).abs().copy_memory()
        return cls(plane, mean, variance, (variance**0.5).copy_memory())

    def differences(self, plane: pyvips.Image) -> tuple[float, float, float, float, float]:
        """Return mean and 4-norm of structure, mean and 4-norm of lost contrast, and 4-norm of shift, each summed over the bands."""
        other = _Blocks.of(plane)
        difference = self.plane - plane
        shift = self.mean - other.mean
        error_variance = ((difference * difference).shrink(_BLOCK, _BLOCK) - shift * shift).abs().copy_memory()
        structure = error_variance / (self.variance + other.variance + _MASKING_VARIANCE[plane.bands])
        deficit = self.deviation - other.deviation
        lost = (deficit + deficit.abs()) * 0.5
        bands, count = plane.bands, structure.width * structure.height
        # One pass over all maps. The columns of `stats` are min, max, sum, sum of squares, mean and so on; its first row is of all bands.
        stats = structure.bandjoin([structure * structure, lost, lost * lost, shift * shift]).stats()
        table = memoryview(bytes(stats.write_to_memory())).cast("d").tolist()
        rows = [table[start : start + stats.width] for start in range(stats.width, len(table), stats.width)]
        means = [row[4] for row in rows]
        norms = [(row[3] / count) ** 0.25 for row in rows]
        return (
            math.fsum(means[:bands]),
            math.fsum(norms[bands : 2 * bands]),
            math.fsum(means[2 * bands : 3 * bands]),
            math.fsum(norms[3 * bands : 4 * bands]),
            math.fsum(norms[4 * bands :]),
        )


def encode_auto(
    image: pyvips.Image,
    image_format: Format,
    default_quality: int,
    options: EncodeOptions = DEFAULT_OPTIONS,
    *,
    reopen: Callable[[], pyvips.Image] | None = None,
) -> bytes:
    """Return the smallest file that looks at least as good as the picture at its default quality, found in at most 6 encodes.

    The goal is the distance of this picture at the default quality and effort, less a margin, because people, and SSIMULACRA2, judge
    differently from our distance. It is never more than `CEILING`, as far as the format can reach that, and never less than `INVISIBLE`,
    because better quality would not be visible. The gain comes from an encoder with more time. A constant goal would take bytes from one
    picture and give them to another, and which of them has too many, the distance cannot say: it is right to about 2 points of SSIMULACRA2
    between pictures, but to half a point within one.

    Animations, and pictures of more than 2.6 megapixels, are searched on tiles spread over them. The whole is then encoded with the result
    and with the defaults, and the smaller file is returned. Formats without a quality, lossless files, and animations
    in AVIF are encoded with the defaults.

    image: in memory; the frames of an animation below one another.
    default_quality: 1 to 100.
    reopen: returns the image again if it is an animation that can be read only once, from top to bottom.

    Raises `pyvips.Error`.
    """
    # Tiles are stills, which the encoder of animated AVIF does not treat alike.
    is_animated_avif = image_format == "avif" and image.get_page_height() < image.height
    if image_format not in _QUALITIES or options.lossless or is_animated_avif:
        return encode(image, image_format, default_quality, options)
    if image.hasalpha() and not FORMATS[image_format].alpha:
        image = color.flatten_on_white(image).copy_memory()
    search_whole = image.get_page_height() == image.height and image.width * image.height <= _MAX_SEARCHED_PIXELS
    picture = image if search_whole else _tiles(image)
    reference = PerceptualDistance(picture)

    def attempt(quality: int, used: EncodeOptions) -> _Attempt:
        return _Attempt(quality, used, encode(picture, image_format, quality, used))

    default = attempt(default_quality, options)
    default_distance = reference.distance(default.body)
    goal = min(max(default_distance * (1 - _MARGIN[image_format]), INVISIBLE), CEILING)
    thorough = options if options.effort is not None else msgspec.structs.replace(options, effort=_EFFORT[image_format])
    found = _find_smallest(lambda quality: attempt(quality, thorough), reference, goal, _QUALITIES[image_format], default_quality)
    candidates = [found] if found else []
    if default_distance <= CEILING or not found:
        candidates.append(default)
        if options.effort is None and image_format in _LOSSLESS_EFFORT:
            candidates.append(attempt(default_quality, msgspec.structs.replace(options, effort=_LOSSLESS_EFFORT[image_format])))
    best = min(candidates, key=lambda candidate: len(candidate.body))
    if search_whole:
        return best.body
    finalists = [best] if best is default or default not in candidates else [best, default]
    return min((encode(reopen() if reopen else image, image_format, finalist.quality, finalist.options) for finalist in finalists), key=len)


def fit_max_bytes(max_bytes: int, encode_at: Callable[[int], bytes], max_quality: int) -> bytes:
    """Return the file of the highest quality from 1 to `max_quality` that has at most `max_bytes`, found in at most 8 encodes.

    encode_at: returns the file at a quality; a higher quality is assumed to need more bytes.
    max_quality: 1 to 100.

    Raises `ImageError`, `cannot-fit`, if no quality fits.
    """
    fitting = encode_at(max_quality)
    if len(fitting) <= max_bytes:
        return fitting
    low, high, smallest = 0, max_quality, len(fitting)
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
            "Even at the lowest quality this rendition has more bytes than `max_bytes`.",
            expected=f"at most {max_bytes} bytes",
            received=f"{smallest} bytes at quality 1",
            remedy="Ask for fewer pixels, another format, or more bytes.",
        )
    )


class _Attempt(NamedTuple):
    """An encoded file, with the quality and options that gave it."""

    quality: int
    options: EncodeOptions
    body: bytes


def _find_smallest(
    attempt: Callable[[int], _Attempt], reference: PerceptualDistance, goal: float, qualities: Sequence[int], first: int
) -> _Attempt | None:
    """Return the attempt of the lowest quality whose distance is at most `goal`, or `None` if 4 encodes find none.

    The logarithm of the distance is assumed to fall linearly. As long as all attempts are on one side of the goal, the next guess follows
    the expected slope, twice as far each time; after that it interpolates between the nearest attempt on either side.

    qualities: ascending.
    first: the quality to begin with.
    """
    # Indexes of the best quality that failed and of the lowest that passed, and the logarithms of their distances relative to the goal.
    failed, passed = -1, len(qualities)
    failed_excess, passed_excess = 0.0, 0.0
    found = None
    index = bisect.bisect_left(qualities, first)
    for stride in _STRIDES:
        tried = attempt(qualities[index])
        excess = math.log(max(reference.distance(tried.body), _MIN_DISTANCE) / goal)
        if excess <= 0:
            passed, passed_excess, found = index, excess, tried
        else:
            failed, failed_excess = index, excess
        if failed < 0:
            index = passed - math.floor(-passed_excess / _LOG_DISTANCE_PER_QUALITY) * stride
        elif passed == len(qualities):
            # If the distance hardly falls, the last guess is far up, because `CEILING` is a promise.
            far = (len(qualities) - failed) // 2 if stride == _STRIDES[-2] else 0
            index = failed + max(math.ceil(failed_excess / _LOG_DISTANCE_PER_QUALITY) * stride, far)
        else:
            index = failed + math.ceil((passed - failed) * failed_excess / (failed_excess - passed_excess))
        index = max(failed + 1, min(index, len(qualities) - 1))
        if index >= passed:
            # The next lower quality has failed, or is expected to fail.
            break
    return found


def _tiles(image: pyvips.Image) -> pyvips.Image:
    """Return up to 20 tiles of 256 × 256 pixels, spread evenly over a picture, joined into one picture in memory."""
    columns = max(1, min(image.width // _TILE_SIDE, round(math.sqrt(_TILES * image.width / image.height))))
    rows = max(1, min(image.height // _TILE_SIDE, _TILES // columns))
    width, height = min(_TILE_SIDE, image.width), min(_TILE_SIDE, image.height)
    tiles = [
        image.crop(
            (image.width - width) * (2 * column + 1) // (2 * columns), (image.height - height) * (2 * row + 1) // (2 * rows), width, height
        )
        for row in range(rows)
        for column in range(columns)
    ]
    joined = pyvips.Image.arrayjoin(tiles, across=columns).copy_memory()
    if joined.get_typeof("page-height"):
        joined = joined.copy()
        joined.remove("page-height")
    return joined


def _decode(body: bytes) -> pyvips.Image:
    """Return the picture of a file with 8 bits per band, in memory."""
    picture = pyvips.Image.new_from_buffer(body, "")
    if color.is_high_bit_depth(picture):
        # libvips drops the lower 8 bits, which would make the picture darker by half a level.
        picture = (picture + 128).cast("ushort")
    return color.to_8_bit(picture, gray=color.is_gray(picture)).copy_memory()


def _flatten(picture: pyvips.Image, background: int) -> pyvips.Image:
    """Return a picture in memory, at least 32 × 32, without alpha.

    background: the gray level, 0 to 255, behind a picture that has alpha.
    """
    if picture.hasalpha():
        picture = picture.flatten(background=[background] * (picture.bands - 1))
    if min(picture.width, picture.height) < _MIN_SIDE:
        picture = picture.embed(0, 0, max(_MIN_SIDE, picture.width), max(_MIN_SIDE, picture.height), extend="mirror")
    return picture.copy_memory()


def _planes(picture: pyvips.Image) -> list[pyvips.Image]:
    """Return lightness (0 to 255 on sRGB's curve) at scales 1, 1/2, 1/4 and 1/8, and for a color picture a and b of Lab at 1/4."""
    planes = [picture.colourspace("b-w").cast("float").copy_memory()]
    while len(planes) < _SCALES:
        planes.append(planes[-1].shrink(2, 2).copy_memory())
    if picture.bands == 3:
        small = picture.shrink(_CHROMA_SHRINK, _CHROMA_SHRINK)
        planes.append(small.colourspace("lab").extract_band(1, n=2).copy_memory())
    return planes
