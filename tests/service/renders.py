"""Render processes for tests, and what to ask of them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from service.address import digest_text
from service.render.messages import Limits, Probe, Probed, Render, Rendered
from service.render.pool import RenderPool
from service.transform import DEFAULTS, Format, parse

LIMITS = Limits(max_pixels=128_000_000, max_whole_pixels=100_000_000, max_output_pixels=40_000_000)
MEBIBYTE = 1 << 20

# Longer than anything takes that is not hung, however busy the machine is.
PATIENCE_SECONDS = 30.0


@asynccontextmanager
async def render_pool(
    *,
    slots: int = 1,
    queue_limit: int = 256,
    memory_bytes: int = 512 * MEBIBYTE,
    render_seconds: float = 60.0,
    wait_seconds: float = 60.0,
) -> AsyncIterator[RenderPool]:
    """Run a pool and give it once all its processes are ready."""
    pool = RenderPool(
        slots=slots, queue_limit=queue_limit, memory_bytes=memory_bytes, render_seconds=render_seconds, wait_seconds=wait_seconds
    )
    async with pool.running():
        await ready(pool, slots)
        yield pool


async def ready(pool: RenderPool, processes: int = 1) -> list[int]:
    """Return the ids of the processes once there are so many."""
    await until(lambda: len(pool.process_ids) >= processes)
    return pool.process_ids


async def until(condition: Callable[[], bool]) -> None:
    """Return once a condition holds; raises `TimeoutError` if it never does."""
    with anyio.fail_after(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what other processes do sets no event
            await anyio.sleep(0.005)


def written(folder: Path, body: bytes, name: str = "original") -> Path:
    """Return a new file with the bytes of an original."""
    path = folder / name
    path.write_bytes(body)
    return path


def render_job(
    path: Path, spelling: str = "full", image_format: Format = "jpeg", *, quality: int | None = None, limits: Limits = LIMITS
) -> Render:
    """Return the job that makes one rendition of the original in a file."""
    transform = parse(spelling)
    quality = quality or transform.quality or DEFAULTS[1].quality[image_format]
    # A pipe has no digest; nothing is ever read from it.
    digest = digest_text(hashlib.sha256(path.read_bytes()).digest()) if path.is_file() else "a" * 32
    return Render(str(path), digest, transform, image_format, quality, limits)


async def rendered(
    pool: RenderPool,
    path: Path,
    spelling: str = "full",
    image_format: Format = "jpeg",
    *,
    quality: int | None = None,
    limits: Limits = LIMITS,
) -> Rendered:
    """Return a rendition of the original in a file."""
    return await pool.run(render_job(path, spelling, image_format, quality=quality, limits=limits), Rendered)


async def probed(pool: RenderPool, path: Path, *, limits: Limits = LIMITS) -> Probed:
    """Return what a probe tells of the original in a file."""
    return await pool.run(Probe(str(path), limits), Probed)
