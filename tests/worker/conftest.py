"""A fixture of the tests of render processes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from service.rendering.pool import RenderPool
from tests.support.renders import render_pool


@pytest.fixture(scope="module")
async def pool(anyio_backend: object) -> AsyncIterator[RenderPool]:
    """Yield a pool of one render process, whose start takes a third of a second of CPU time. The tests of a module must not harm it."""
    async with render_pool() as running:
        yield running
