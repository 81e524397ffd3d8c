"""The bytes of each server's files at the same score: several photos, 640 pixels wide, in each format."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import click

from service.images.formats import Format
from tests.bench import cold, judging
from tests.bench.bench import Bench
from tests.bench.report import Row, row
from tests.bench.side import PHOTO, HttpSide, Work
from tests.quality.equal_score import TARGET, Search
from tests.support import images

WIDTH = 640

# Where the search for the quality begins, near that of most encoders. Next.js can be asked for each of them.
_FIRST_QUALITY: Mapping[Format, int] = {"webp": 81, "jpeg": 72, "avif": 60}
_NAMES: Mapping[Format, str] = {"webp": "WebP", "jpeg": "JPEG", "avif": "AVIF"}


def sizes(bench: Bench) -> list[Row]:
    """Return the kB of each photo at the same score, of all servers that make each format; nothing without other servers."""
    originals = _originals(bench)
    rows = []
    with cold.open_sides(bench, "sizes") as running:
        judge = judging.Judge(bench.folder / "sizes", bench.originals)
        for image_format in _FIRST_QUALITY:
            works = [Work(f"{image_format} of {original}", original, image_format, WIDTH) for original in originals]
            able = {name: side for name, side in running.items() if isinstance(side, HttpSide) and side.supports(works[0])}
            if len(able) < 2:
                continue
            figures: dict[str, list[float]] = {name: [] for name in able}
            for work in works:
                for name, size in _at_target(work, able, judge).items():
                    figures[name].append(size / 1e3)
                click.echo(f"sizes: {work.name}", err=True)
            # A side that failed has no figure for each photo.
            figures = {name: found for name, found in figures.items() if len(found) == len(works)}
            note = f"at SSIMULACRA2 {TARGET:g}; medians of {len(works)} photos, {WIDTH} pixels wide"
            rows.append(row(f"bytes at the same score, {_NAMES[image_format]}", figures, note))
    return rows


def _originals(bench: Bench) -> list[str]:
    """Put the photos of the directory of test images, if it exists, beside the other originals, and return their names there."""
    files = images.corpus_files("photo")
    names = [f"photo-{number}{file.suffix}" for number, file in enumerate(files)]
    for file, name in zip(files, names, strict=True):
        (bench.originals / name).symlink_to(file)
    return names or [PHOTO]


def _at_target(work: Work, running: Mapping[str, HttpSide], judge: judging.Judge) -> dict[str, float]:
    """Return the bytes of each side at the score `TARGET`."""
    searches = {name: Search(_FIRST_QUALITY[work.format], side.qualities) for name, side in running.items()}
    while wanted := {name: quality for name, search in searches.items() if (quality := search.next_quality()) is not None}:
        render = {name: partial(running[name].at_quality, work, quality) for name, quality in wanted.items()}
        bodies = judging.checked(work, render)
        for name in wanted.keys() - bodies.keys():
            del searches[name]
        for name, output in judge.outputs(work, bodies).items():
            if output.score is None:
                raise ValueError(f"{work.name} was not judged")
            searches[name].add(wanted[name], output.bytes, output.score)
    return {name: search.bytes_at_target() for name, search in searches.items()}
