"""What a job will cost: seconds of a render process, estimated before the job runs and corrected by the jobs that did.

An estimate has two parts. The *prior* is arithmetic: so many seconds for each megapixel that is decoded, and for each that is encoded. It
knows the original and the transform, but not this machine. A *factor* corrects it, the mean of measured by prior seconds. There is one
for the machine, one for each kind of job (such as WebP from JPEG), and one for each kind and power of two of the prior: a rate measured on
large pictures is wrong for small ones. A factor that was never measured starts as the next wider one.

All factors change slowly, so that one odd job does not spoil them. The *pace* changes fast: it is the mean of measured by estimated seconds
of the latest jobs whose kind is well known, and it multiplies every estimate. It rises within a few jobs when the machine gets other work,
such as the many requests of a crowd, and returns to 1 as the factors follow.

The estimates of one kind never fall as the prior rises. Where the factors of two neighboring powers of two would make them fall, the
larger job is taken to cost as much as the largest of the smaller ones.

Whoever sends images decides what is measured here. So the number of kinds is bounded, a single measurement moves a factor by a bounded
part, and factors stay within `_FACTOR_RANGE`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from service.images.formats import Format
from service.images.options import AUTO
from service.images.render_request import RenderRequest
from service.images.transform import Transform
from service.rendering.protocol import FindTrim, Job, MakeIntermediate, Probe, Render

# Seconds for each megapixel on a core of 2020 or so, to within a factor of two. Measurements correct them.
_DECODE_SECONDS: Mapping[str, float] = {
    "jpeg": 0.006,
    "png": 0.025,
    "webp": 0.02,
    "gif": 0.015,
    "avif": 0.03,
    "heic": 0.03,
    "jxl": 0.05,
    "tiff": 0.01,
    "intermediate": 0.02,
}
_SLOWEST_DECODE_SECONDS = max(_DECODE_SECONDS.values())
# A drawing is drawn at the size of the rendition.
_DRAW_SECONDS = 0.1
_ENCODE_SECONDS: Mapping[Format, float] = {"jxl": 0.2, "avif": 0.1, "webp": 0.05, "jpeg": 0.01, "png": 0.1, "gif": 0.2}
# Each step of `effort` (docs/quality.md has measurements), lossless encoders, and searches for a quality.
_EFFORT_RATIO = 1.6
_LOSSLESS_RATIO = 4.0
_SEARCH_RATIO = 6.0
# For each job, whatever it does.
_OVERHEAD_SECONDS = 0.005
# A job about whose pixels the server knows only the size of their file: a photo of 4 MB takes about half a second.
_FILE_SECONDS = 0.05
_SECONDS_PER_FILE_BYTE = 0.12e-6

_MEGAPIXEL = 1e6

# The powers of two of a prior that have factors of their own, from 4 ms to 4 min; the outer ones include what is beyond them.
_LOWEST_LEVEL, _HIGHEST_LEVEL = -8, 7
_MAX_KINDS = 256

# A measurement counts as at most so many times its factor, and as at least the inverse of that.
_MAX_SURPRISE = 4.0
# The weight of the newest measurement once there are many.
_NEWEST_WEIGHT = 0.1
# A factor that was measured so many times is good enough to judge the pace of the machine by.
_WELL_KNOWN_COUNT = 10
_FACTOR_RANGE = (1e-3, 1e3)

_FILE_VERSION = 2


class Work(NamedTuple):
    """A kind of job, the prior of its cost in seconds, and whether that is good enough to learn from it about the machine."""

    kind: str
    prior_seconds: float
    rates_machine: bool = True


def work_of(job: Job) -> Work:
    """Return the work of a job whose files exist."""
    match job:
        case Render(request=request):
            return render_work(request)
        case Probe(path=path):
            return _file_work("probe", path)
        case MakeIntermediate(input_file=input_file):
            return _file_work("intermediate", input_file.path)
        case FindTrim(input_file=input_file):
            return _file_work("trim", input_file.path)
        case _:
            # A rendition of a ladder, or the test of a pixel, in the background.
            return Work("background", 0.1, rates_machine=False)


def render_work(request: RenderRequest) -> Work:
    """Return the work of a render, which its document and its transform determine."""
    info, transform = request.info, request.transform
    source = info.format
    decoded = info.width * info.height * (request.frames if info.animated else 1)
    if request.from_intermediate and info.intermediate is not None:
        source = "intermediate"
        decoded = math.prod(info.intermediate)
    encoded = math.prod(request.plan.output_size) * request.frames
    decode_seconds = (
        _DRAW_SECONDS * encoded if info.vector else _DECODE_SECONDS.get(source, _SLOWEST_DECODE_SECONDS) * decoded
    ) / _MEGAPIXEL
    encode_seconds = _ENCODE_SECONDS[request.format] * encoded / _MEGAPIXEL
    labels = ["render", source, request.format]
    if info.needs_full_decode and source == "jpeg":
        labels.append("progressive")
        decode_seconds *= 3
    for label, ratio in _encoder_options(transform):
        labels.append(label)
        encode_seconds *= ratio
    return Work(" ".join(labels), _OVERHEAD_SECONDS + decode_seconds + encode_seconds)


def _encoder_options(transform: Transform) -> list[tuple[str, float]]:
    """Return the options that multiply the time of an encoder, with their ratios."""
    found: list[tuple[str, float]] = []
    if transform.effort is not None:
        found.append((f"effort={transform.effort}", _EFFORT_RATIO ** (transform.effort - 1)))
    if transform.lossless:
        found.append(("lossless", _LOSSLESS_RATIO))
    if transform.quality == AUTO or transform.max_bytes is not None:
        found.append(("search", _SEARCH_RATIO))
    return found


def _file_work(kind: str, path: str) -> Work:
    try:
        size = Path(path).stat().st_size
    except OSError:
        # The job fails when its file is opened.
        size = 0
    return Work(kind, _FILE_SECONDS + size * _SECONDS_PER_FILE_BYTE, rates_machine=False)


class Factor(msgspec.Struct):
    """The mean of measured by prior seconds, and the number of measurements."""

    value: Annotated[float, msgspec.Meta(ge=_FACTOR_RANGE[0], le=_FACTOR_RANGE[1])]
    count: Annotated[int, msgspec.Meta(ge=0)] = 0

    def learn(self, ratio: float) -> None:
        """Take a measurement into account."""
        bounded = min(max(ratio, self.value / _MAX_SURPRISE), self.value * _MAX_SURPRISE)
        # At first the initial value counts as one measurement.
        weight = max(1 / (self.count + 2), _NEWEST_WEIGHT)
        lowest, highest = _FACTOR_RANGE
        self.value = min(max(self.value + weight * (bounded - self.value), lowest), highest)
        self.count += 1


class KindFactors(msgspec.Struct):
    """The factor of a kind of job, and its factors by the power of two of the prior."""

    factor: Factor
    levels: dict[int, Factor] = {}

    def least_seconds(self) -> dict[int, float]:
        """Return by level the least that a job of it is expected to cost: as much as the largest of any lower level."""
        found: dict[int, float] = {}
        least = 0.0
        for level in range(_LOWEST_LEVEL, _HIGHEST_LEVEL + 1):
            found[level] = least
            least = max(least, 2.0 ** (level + 1) * self.levels.get(level, self.factor).value)
        return found


class _Learned(msgspec.Struct):
    """The contents of a file."""

    version: int
    machine: Factor
    pace: Factor
    kinds: dict[str, KindFactors]


class CostModel:
    """Estimates the cost of jobs, and learns from those that have ended."""

    def __init__(self) -> None:
        self._machine = Factor(1.0)
        self._pace = Factor(1.0)
        # The kind that was measured longest ago comes first.
        self._kinds: dict[str, KindFactors] = {}
        # Of each kind since it was last measured: `KindFactors.least_seconds`.
        self._least_seconds: dict[str, dict[int, float]] = {}
        self.measurements = 0

    def __repr__(self) -> str:
        return (
            f"<CostModel machine={self._machine.value:.2f} pace={self._pace.value:.2f} kinds={len(self._kinds)}"
            f" measurements={self.measurements}>"
        )

    def estimate(self, work: Work) -> float:
        """Return the expected seconds of a render process; among works of one kind they never fall as the prior rises."""
        return self._pace.value * self._usual_seconds(work)

    def _usual_seconds(self, work: Work) -> float:
        """Return the expected seconds at the usual pace of the machine."""
        known = self._kinds.get(work.kind)
        if known is None:
            return work.prior_seconds * self._machine.value
        level = _level(work.prior_seconds)
        least = self._least_seconds.get(work.kind)
        if least is None:
            least = self._least_seconds[work.kind] = known.least_seconds()
        return max(work.prior_seconds * known.levels.get(level, known.factor).value, least[level])

    def learn(self, work: Work, seconds: float) -> None:
        """Take into account that a job took so many seconds of a render process."""
        ratio = seconds / work.prior_seconds
        known = self._kinds.pop(work.kind, None) or KindFactors(Factor(self._machine.value))
        self._kinds[work.kind] = known
        if len(self._kinds) > _MAX_KINDS:
            dropped = next(iter(self._kinds))
            del self._kinds[dropped]
            self._least_seconds.pop(dropped, None)
        level = known.levels.setdefault(_level(work.prior_seconds), Factor(known.factor.value))
        if work.rates_machine and level.count >= _WELL_KNOWN_COUNT:
            self._pace.learn(seconds / self._usual_seconds(work))
        self._least_seconds.pop(work.kind, None)
        for factor in (level, known.factor, *([self._machine] if work.rates_machine else [])):
            factor.learn(ratio)
        self.measurements += 1

    def encode(self) -> bytes:
        """Return everything learned so far, for `restore`."""
        return msgspec.json.encode(_Learned(_FILE_VERSION, self._machine, self._pace, self._kinds))

    def restore(self, body: bytes) -> bool:
        """Replace everything learned so far; return whether `body` is of this version and intact, and change nothing if it is not."""
        try:
            learned = msgspec.json.decode(body, type=_Learned)
        except msgspec.DecodeError:
            return False
        if learned.version != _FILE_VERSION or len(learned.kinds) > _MAX_KINDS:
            return False
        self._machine, self._pace, self._kinds, self._least_seconds = learned.machine, learned.pace, learned.kinds, {}
        return True


def _level(prior_seconds: float) -> int:
    """Return the power of two at or below a prior."""
    return min(max(math.floor(math.log2(prior_seconds)), _LOWEST_LEVEL), _HIGHEST_LEVEL)
