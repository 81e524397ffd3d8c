"""A soak test of one render process: after thousands of good and bad images, the same input gives the same result as at the start."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from service.errors import ServiceError
from service.images.formats import Format
from service.rendering.pool import RenderPool
from tests.support import images
from tests.support.renders import probed, ready, render_pool, rendered, written

pytestmark = [pytest.mark.anyio, pytest.mark.long]

JOBS = 2_000

# Larger files of the corpus would take most of the time, and would not put more strain on the process.
MAX_CORPUS_BYTES = 400_000

# A probe, and renditions given as transform and format.
Task = tuple[str, Format] | None
TASKS: tuple[Task, ...] = (None, ("width=60", "webp"), ("width=90", "jpeg"), ("width=40", "avif"), ("width=48", "gif"), ("width=70", "png"))


def good_images() -> dict[str, bytes]:
    return {
        "jpeg": images.photo_jpeg(320, 240),
        "progressive": images.photo_jpeg(320, 240, progressive=True),
        "cmyk": images.cmyk_jpeg(160, 120),
        "png": images.rgb_png(160, 120, profile=images.p3_profile()),
        "webp": images.webp(320, 240, alpha=True),
        "animated webp": images.animated_webp(64, 48),
        "gif": images.animated_gif(200, 150, frames=20),
        "long gif": images.animated_gif(120, 90, frames=200),
        "avif": images.avif(160, 120),
        "heic": images.heic(160, 120),
        "tiff": images.tiff(80, 60),
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="300" height="200"><text x="9" y="90" font-size="40">Darkroom</text></svg>',
    }


def bad_images() -> dict[str, bytes]:
    bad = {
        "profile that is not UTF-8": images.rgb_jpeg(64, 48, profile=images.unreadable_profile()),
        "text": b"neither image nor text",
        "bomb of a png": images.png_bomb(),
        "bomb of a jpeg": images.jpeg_bomb(),
    }
    for name, body in good_images().items():
        bad[f"cut {name}"] = images.truncated(body)
        bad |= {f"mutated {name} {seed}": images.mutated(body, seed) for seed in (1, 2, 3)}
    return bad


def corpus_images() -> dict[str, bytes]:
    root = images.corpus()
    if root is None:
        return {}
    files = (path for folder in sorted(root.iterdir()) if folder.is_dir() for path in sorted(folder.iterdir()))
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in files if path.stat().st_size <= MAX_CORPUS_BYTES}


async def result_of(pool: RenderPool, path: Path, task: Task) -> str:
    """Return the result of a job as text: a hash of the rendition, the header information, or the complete error."""
    try:
        if task is None:
            found = await probed(pool, path)
            return f"{found.info} {found.placeholder.thumbhash}"
        return hashlib.sha256((await rendered(pool, path, *task)).body).hexdigest()
    except ServiceError as error:
        return f"{type(error).__name__} {error.problem()}"


async def test_process_replies_the_same_after_2000_jobs_as_at_first(tmp_path: Path) -> None:
    originals = {**good_images(), **bad_images(), **corpus_images()}
    paths = {name: written(tmp_path, body, str(number)) for number, (name, body) in enumerate(originals.items())}
    chance = random.Random(11)
    first = [(name, chance.choice(TASKS)) for name in paths]
    between = [(chance.choice(list(paths)), chance.choice(TASKS)) for _ in range(JOBS - 2 * len(first))]
    answers: dict[tuple[str, Task], str] = {}
    used: set[int] = set()
    changed: list[str] = []
    async with render_pool() as pool:
        for job in [*first, *between, *first]:
            used.update(await ready(pool))
            found = await result_of(pool, paths[job[0]], job[1])
            if answers.setdefault(job, found) != found:
                changed.append(f"{job}: first {answers[job]}, then {found}")
    assert changed == []
    ours = ("RenderFailedError", "RenderGaveUpError", "TooCostlyError", "DeadlineExceededError")
    assert {job: found for job, found in answers.items() if found.startswith(ours)} == {}
    assert {name: answers[name, task] for name, task in first if name in good_images() and "Error " in answers[name, task]} == {}
    # The processes must have done many jobs, and not have been replaced by new ones.
    assert len(used) <= JOBS / 100
