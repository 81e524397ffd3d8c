"""The measurements and their presentation: efforts, `quality=auto` compared to the default, and the default qualities."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from math import log
from statistics import mean

import click
import msgspec

from service.images.formats import Format
from service.images.ladder import MIN_STEP_RATIO
from service.images.transform import DEFAULTS, PIPELINE_VERSION
from service.worker import quality
from service.worker.save import encode
from tests.quality.efforts import FORMATS, PHOTOS_OF_WIDTH, Effort
from tests.quality.equal_score import TARGET
from tests.quality.judge import score
from tests.quality.pictures import Picture, others, photos
from tests.quality.steps import WORTHWHILE, Growth, summary

# JPEG XL has no effort above its default that saves bytes, so `auto` is the default.
_AUTO_FORMATS: tuple[Format, ...] = ("avif", "webp", "jpeg")
_NAMES: dict[Format, str] = {"jxl": "JPEG XL", "avif": "AVIF", "webp": "WebP", "jpeg": "JPEG"}

_STEPS_HEADS = ["pictures", "format", "exponent", "right", "bytes of the next step", "at most"]

# Differences from the default quality that are measured.
_STEPS = (-4, 0, 4)


class AutoResult(msgspec.Struct, frozen=True):
    """`quality=auto` of one picture compared to the default quality: bytes, SSIMULACRA2, and the CPU seconds of `auto`."""

    picture: str
    width: int
    format: Format
    default_bytes: int
    default_score: float
    auto_bytes: int
    auto_score: float
    seconds: float

    @property
    def saved(self) -> float:
        """Fraction of the bytes saved, relative to the default."""
        return 1 - self.auto_bytes / self.default_bytes

    @property
    def is_no_worse(self) -> bool:
        """Whether `auto` has at most as many bytes as the default, and at least its score."""
        return self.auto_bytes <= self.default_bytes and self.auto_score >= self.default_score


class QualityResult(msgspec.Struct, frozen=True):
    """One quality of one format: the mean SSIMULACRA2 of photos and of other pictures, and the bits per pixel of photos."""

    format: Format
    quality: int
    default: bool
    photos: float
    others: float
    bits_per_pixel: float


class Results(msgspec.Struct, frozen=True):
    """The results of a run."""

    efforts: list[Effort]
    auto: list[AutoResult]
    defaults: list[QualityResult]
    steps: list[Growth]


def measure_auto(widths: tuple[int, ...]) -> list[AutoResult]:
    """Measure `quality=auto` and the default quality on each photo."""
    rows = []
    for picture in photos(widths):
        for image_format in _AUTO_FORMATS:
            default_quality = DEFAULTS[PIPELINE_VERSION].quality[image_format]
            default_body = encode(picture.image, image_format, default_quality)
            started = time.process_time()
            body = quality.encode_auto(picture.image, image_format, default_quality)
            seconds = time.process_time() - started
            default_score = score(picture.lossless, default_body)
            auto_score = default_score if body == default_body else score(picture.lossless, body)
            sizes_and_scores = len(default_body), default_score, len(body), auto_score
            rows.append(AutoResult(picture.name, picture.width, image_format, *sizes_and_scores, seconds))
        click.echo(f"auto: {picture.name}, {picture.width} wide", err=True)
    return rows


def measure_defaults(widths: tuple[int, ...]) -> list[QualityResult]:
    """Measure the default qualities, and the qualities that differ from them by `_STEPS`."""
    levels = {
        (image_format, default_quality + step): step == 0
        for image_format in FORMATS
        for step in _STEPS
        if (default_quality := DEFAULTS[PIPELINE_VERSION].quality[image_format])
    }
    found: dict[tuple[Format, int], tuple[list[float], list[float], list[float]]] = {level: ([], [], []) for level in levels}
    for photo, picture in _all(widths):
        for image_format, level in levels:
            body = encode(picture.image, image_format, level)
            of_photos, of_others, bits = found[image_format, level]
            (of_photos if photo else of_others).append(score(picture.lossless, body))
            if photo:
                bits.append(8 * len(body) / (picture.image.width * picture.image.height))
        click.echo(f"defaults: {picture.name}, {picture.width} wide", err=True)
    return [
        QualityResult(image_format, level, is_default, mean(of_photos), mean(of_others), mean(bits))
        for ((image_format, level), is_default) in levels.items()
        for of_photos, of_others, bits in [found[image_format, level]]
    ]


def text(results: Results) -> list[str]:
    """Return the tables as plain text."""
    parts = []
    if results.efforts:
        lines = [f"Efforts: bytes and CPU time at SSIMULACRA2 {TARGET:g}"]
        lines += [f"{'width':>6} {'format':<8}{'effort':>9}{'bytes':>9}{'bits per pixel':>16}{'ms':>9}"]
        lines += [
            f"{row.width:>6} {row.format:<8}{_effort(row):>9}{row.relative:>9.1%}{row.bits_per_pixel:>16.3f}{row.milliseconds:>9.1f}"
            for row in results.efforts
        ]
        parts.append("\n".join(lines))
    if results.auto:
        lines = ["quality=auto compared to the default; scores are SSIMULACRA2, seconds are of one core"]
        lines += [f"{'photo':<29}{'width':>6} {'format':<6}{'default':>9}{'score':>7}{'auto':>9}{'score':>7}{'saved':>8}{'s':>6}"]
        lines += [
            f"{row.picture:<29}{row.width:>6} {row.format:<6}{row.default_bytes:>9}{row.default_score:>7.2f}"
            f"{row.auto_bytes:>9}{row.auto_score:>7.2f}{row.saved:>8.1%}{row.seconds:>6.2f}{'' if row.is_no_worse else '  worse'}"
            for row in results.auto
        ]
        lines += savings(results.auto)
        parts.append("\n".join(lines))
    if results.defaults:
        lines = ["Default qualities (marked) and qualities around them; mean SSIMULACRA2 of the pictures"]
        lines += [f"{'format':<8}{'quality':>8}{'photos':>9}{'others':>9}{'bits per pixel':>17}"]
        lines += [
            f"{row.format:<8}{row.quality:>8}{row.photos:>9.2f}{row.others:>9.2f}{row.bits_per_pixel:>17.3f}"
            + ("  default" if row.default else "")
            for row in results.defaults
        ]
        parts.append("\n".join(lines))
    if results.steps:
        parts.append("Steps: " + ", ".join(_STEPS_HEADS) + "\n" + "\n".join("  ".join(row) for row in summary(results.steps)))
    return parts


_PAGE = """# Efforts, default qualities, and `quality=auto`

Generated by `make quality`. Scores are [SSIMULACRA2](https://github.com/cloudinary/ssimulacra2), from an implementation that the service
itself does not use: at 90 a difference is not visible side by side, 70 is high quality, 50 is medium.

## Bytes and CPU time of each encoder

At the same score, {target:g}: the quality is searched in at most four encodes, and the rest interpolated. Measured on {photos}.
Of photos wider than 1,280 pixels the middle is judged, and few are measured, so the figures of the last column are rough. Time is that of
one core for a picture of 3:2, decoding excluded.

![Bytes and CPU time of each encoder and effort at three widths](efforts.svg)

{defaults_by_width}

Why these are the defaults of pipeline v{version}:

- **JPEG XL, libjxl's effort 5** (`effort=4`): it is offered first, so it should be the smallest. With libjxl's effort 3 (`effort=2`), which
  takes a sixth of the time or less, it is about as large as AVIF. Above 5 it takes longer and saves nothing. A client that waits for it,
  decoding included, waits two to three times as long as for WebP.
- **AVIF, effort 0 with 10 bits**: a client that waits for AVIF, decoding included, waits less than twice as long as for WebP; with effort 1
  it would not. Ten bits avoid bands in a sky. `effort=1` saves 4 to 11 % of the bytes for three times the time, and `effort=3` 10 to 21 %
  for six to ten times.
- **WebP, effort 2**: `effort=4` takes twice the time or more for 2 to 5 % of the bytes.
- **JPEG, quantization table 5**: 3 to 5 % fewer bytes than with table 3 of v2, at no time. `effort=3` (progressive with optimized scans)
  saves 2 to 3 % more in four times the time, and `effort=4` (trellis quantization) 5 to 9 % in nine times.

A client that waits gets the same bytes as one whose rendition was warmed: a URL has one content, in every region. So warming uses no higher
efforts, and makes renditions that no client has to wait for. That is why JPEG XL, which takes the longest, is warmed by default.

{efforts}

## The default qualities

Their mean scores, and those of the qualities around them, on the same photos and on text, graphics, a sky and noise.

{defaults}

## `quality=auto` compared to the default

Bytes and score of each photo at the default quality, and of the file that `quality=auto` finds in at most 6 encodes. Seconds are CPU time.
The service searches with a distance of its own, which is fitted to SSIMULACRA2 and about twenty times as fast;
`service/worker/quality.py` explains how and why. JPEG XL is left at its default, because more effort would not make it smaller.

{auto}

{savings}

## Steps of a ladder

{steps_text}

{steps}
"""

_STEPS_TEXT = """\
A step of a ladder is worth a URL if the next wider one has at least {worthwhile:g} times its bytes. Ladders cannot know that
before anything is rendered, so they predict it: bytes grow as a power of pixels. A step is left out if the next one has less than
{ratio:g} times its pixels, which is right for an exponent of {exponent:.2f}. The table has the exponent of each kind of pictures
(mean, least and most), how often the rule is right about two sizes of a picture that are less than twice as large as each other,
and how many times the bytes of a step that it leaves out the next one has, on average and at most. Where it is wrong about
photos, a ladder mostly has a step that saves less than expected."""


def page(results: Results) -> str:
    """Return the tables as a page of Markdown."""
    auto = [
        [
            " ".join(row.picture.replace("_", " ").split()),
            f"{row.width}",
            row.format,
            f"{row.default_bytes:,}",
            f"{row.default_score:.2f}",
            f"{row.auto_bytes:,}",
            f"{row.auto_score:.2f}",
            f"{row.saved:.1%}",
            f"{row.seconds:.2f}",
        ]
        for row in results.auto
    ]
    judged = [
        [
            row.format,
            f"{row.quality}, the default" if row.default else f"{row.quality}",
            f"{row.photos:.2f}",
            f"{row.others:.2f}",
            f"{row.bits_per_pixel:.3f}",
        ]
        for row in results.defaults
    ]
    efforts = [
        [
            f"{row.width:,}",
            _NAMES[row.format],
            _effort(row),
            f"{row.relative:.0%}",
            f"{row.bits_per_pixel:.3f}",
            f"{row.milliseconds:,.1f}" if row.milliseconds < 10 else f"{row.milliseconds:,.0f}",
        ]
        for row in results.efforts
    ]
    return _PAGE.format(
        target=TARGET,
        version=PIPELINE_VERSION,
        photos=", ".join(f"{count} photos {width:,} pixels wide" for width, count in PHOTOS_OF_WIDTH.items()),
        defaults_by_width=_markdown(["", *(f"{width:,} px" for width in PHOTOS_OF_WIDTH)], _defaults_by_width(results.efforts)),
        efforts=_markdown(["width", "format", "effort", "bytes, of WebP's", "bits per pixel", "CPU ms"], efforts),
        auto=_markdown(["photo", "width", "format", "default, bytes", "score", "auto, bytes", "score", "saved", "seconds"], auto),
        savings="\n".join(f"- {line}" for line in savings(results.auto)),
        defaults=_markdown(["format", "quality", "photos", "others", "bits per pixel"], judged),
        steps_text=steps_text(),
        steps=steps_table(results.steps),
    )


def steps_text() -> str:
    """Return the paragraph about the steps of a ladder."""
    ratio = float(MIN_STEP_RATIO)
    return _STEPS_TEXT.format(worthwhile=WORTHWHILE, ratio=ratio, exponent=log(WORTHWHILE) / log(ratio))


def steps_table(rows: Sequence[Growth]) -> str:
    """Return the table about the steps of a ladder as Markdown."""
    return _markdown(_STEPS_HEADS, summary(rows))


def _effort(row: Effort) -> str:
    default = "default" if row.version == PIPELINE_VERSION else f"default of v{row.version}"
    return default if row.effort is None else f"{row.effort}"


def _defaults_by_width(rows: Sequence[Effort]) -> list[list[str]]:
    """Return rows with the bytes and the time of each format by default at each width, and with the bytes of JPEG XL against the others."""
    defaults = {(row.format, row.width): row for row in rows if row.effort is None and row.version == PIPELINE_VERSION}
    table = [
        [
            _NAMES[name],
            *(f"{(row := defaults[name, width]).bits_per_pixel:.3f} bpp, {row.milliseconds:.0f} ms" for width in PHOTOS_OF_WIDTH),
        ]
        for name in FORMATS
    ]
    for name in FORMATS[1:]:
        changes = [defaults["jxl", width].relative / defaults[name, width].relative - 1 for width in PHOTOS_OF_WIDTH]
        table.append([f"JPEG XL against {_NAMES[name]}", *(f"{change:+.0%}" for change in changes)])
    return table


def savings(rows: Sequence[AutoResult]) -> list[str]:
    """Return a sentence for each format about the average saving of `quality=auto`."""
    lines = []
    for image_format in _AUTO_FORMATS:
        of_format = [row for row in rows if row.format == image_format]
        gained = mean(row.auto_score - row.default_score for row in of_format)
        count = sum(row.is_no_worse for row in of_format)
        lines.append(
            f"{image_format}: {mean(row.saved for row in of_format):.1%} saved on average, score {gained:+.2f} on average, "
            f"no more bytes and no lower score for {count} of {len(of_format)}"
        )
    return lines


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows))


def _all(widths: tuple[int, ...]) -> Iterable[tuple[bool, Picture]]:
    for picture in photos(widths):
        yield True, picture
    for picture in others(widths):
        yield False, picture
