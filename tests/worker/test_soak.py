"""A soak test of one render process: after thousands of good and bad images, the same input gives the same result as at the start.

Every input of the fuzzer's seeds is there, as it is, truncated and mutated: all formats, all kinds of samples, animations, drawings.
"""

from __future__ import annotations

import hashlib
import random
import resource
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from service.errors import ServiceError
from service.images.formats import Format
from service.rendering.pool import RenderPool
from tests.fuzz.seeds import seeds
from tests.support import images
from tests.support.renders import probed, ready, render_pool, rendered, written

pytestmark = pytest.mark.anyio

# A third of the jobs, and the same ones in another order, and the first third again.
JOBS = 2_600

# By how much the memory of the process may grow in the last quarter, beyond the most that it had in the others, in which it meets every
# format for the first time.
GROWTH = 1.05

# Of a thread (pthread_create(3)).
STACK_BYTES, _ = resource.getrlimit(resource.RLIMIT_STACK)

# A probe, and renditions given as transform and format.
Task = tuple[str, Format] | None
Job = tuple[str, Task]
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


def seed_images() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for number, seed in enumerate(seeds()):
        found |= {
            seed.name: seed.body,
            f"cut {seed.name}": images.truncated(seed.body),
            f"mutated {seed.name}": images.mutated(seed.body, number),
        }
    return found


class Soak(NamedTuple):
    """The result of every job, complaints about the results that changed, and the memory of each process in each quarter of the jobs.

    The memory is the most that the process had after a job: the heap grows over many jobs, until its free pages are returned at once.
    """

    results: dict[Job, str]
    changed: list[str]
    memory: list[dict[int, tuple[int, int]]]


async def result_of(pool: RenderPool, path: Path, task: Task) -> str:
    """Return the result of a job as text: a hash of the rendition, the header information, or the complete error."""
    try:
        if task is None:
            found = await probed(pool, path)
            return f"{found.info} {found.placeholder.thumbhash}"
        return hashlib.sha256((await rendered(pool, path, *task)).body).hexdigest()
    except ServiceError as error:
        return f"{type(error).__name__} {error.problem()}"


async def soak(folder: Path, originals: dict[str, bytes], jobs: int) -> Soak:
    """Run jobs in one render process, of which every original is in at least one."""
    paths = {name: written(folder, body, str(number)) for number, (name, body) in enumerate(originals.items())}
    chance = random.Random(11)
    first = [(name, chance.choice(TASKS)) for name in paths]
    first += [(chance.choice(list(paths)), chance.choice(TASKS)) for _ in range(jobs // 4 - len(first))]
    found = Soak({}, [], [])
    async with render_pool() as pool:
        for part in (first, first, chance.sample(first, len(first)), first):
            most: dict[int, tuple[int, int]] = {}
            for job in part:
                result = await result_of(pool, paths[job[0]], job[1])
                if found.results.setdefault(job, result) != result:
                    found.changed.append(f"{job}: first {found.results[job]}, then {result}")
                for process in await ready(pool):
                    most[process] = largest(memory_of(process), most.get(process, (0, 0)))
            found.memory.append(most)
    return found


def memory_of(process_id: int) -> tuple[int, int]:
    """Return the resident memory of a process, and its address space without what depends on the scheduler, in bytes.

    That is the heap, which shrinks when its free pages are returned, and the stacks: libvips starts as many threads as happened to be
    needed at the same time, and keeps them. What leaks there is resident.
    """
    space = 0
    for line in Path(f"/proc/{process_id}/maps").read_text().splitlines():
        ends, permissions, *_, name = f"{line} -".split(maxsplit=5)
        start, end = (int(address, 16) for address in ends.split("-"))
        is_stack = permissions.startswith("rw") and end - start == STACK_BYTES
        if not is_stack and "[heap]" not in name:
            space += end - start
    return psutil.Process(process_id).memory_info().rss, space


def largest(*memory: tuple[int, int]) -> tuple[int, int]:
    resident, space = zip(*memory, strict=True)
    return max(resident), max(space)


def check(found: Soak) -> None:
    assert found.changed == []
    ours = ("RenderFailedError", "RenderGaveUpError", "TooCostlyError", "DeadlineExceededError")
    assert {job: result for job, result in found.results.items() if result.startswith(ours)} == {}
    good = good_images()
    assert {job: result for job, result in found.results.items() if job[0] in good and "Error " in result} == {}


@pytest.mark.long
async def test_process_replies_the_same_after_thousands_of_jobs_as_at_first_and_does_not_grow(tmp_path: Path) -> None:
    """It is the same process: none was lost, and none was replaced because it had grown."""
    found = await soak(tmp_path, {**good_images(), **bad_images(), **seed_images()}, JOBS)
    check(found)
    assert len(found.results) >= JOBS / 5
    *earlier, at_the_end = found.memory
    (process,) = at_the_end
    assert all(list(memory) == [process] for memory in earlier)
    most = largest(*(memory[process] for memory in earlier))
    assert [now <= then * GROWTH for now, then in zip(at_the_end[process], most, strict=True)] == [True, True], found.memory


async def test_process_replies_the_same_after_dozens_of_mixed_jobs_as_at_first(tmp_path: Path) -> None:
    originals = {name: body for name, body in {**good_images(), **bad_images()}.items() if "long" not in name and "mutated" not in name}
    found = await soak(tmp_path, originals, 4 * len(originals))
    check(found)
    assert len({process for memory in found.memory for process in memory}) == 1
