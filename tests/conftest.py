"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

import tests.support.jpeg_xl  # noqa: F401 - lets Pillow read JPEG XL
from service.rendering.pool import RenderPool
from tests.support.chromium import Painter, chromium_painter
from tests.support.renders import render_pool
from tests.support.s3 import Bucket, moto_bucket
from tests.support.s3_proxy import S3Proxy, s3_proxy_of
from tests.support.server import Server, darkroom

# Examples have no deadline, because the machine that runs the tests may be busy.
hypothesis.settings.register_profile("unhurried", deadline=None, max_examples=100)
hypothesis.settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Granian runs asyncio on uvloop."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
async def pool(anyio_backend: object) -> AsyncIterator[RenderPool]:
    """Yield a pool of two render processes that the tests of a module share. They must not harm it."""
    async with render_pool(slots=2) as running:
        yield running


@pytest.fixture
def logged() -> Iterator[list[structlog.typing.EventDict]]:
    """Yield the list of log events, to which every event of the test is added."""
    with structlog.testing.capture_logs() as events:
        yield events


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The paths of the files and directories that were synced to disk, in order."""
    paths: list[Path] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        paths.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    return paths


@pytest.fixture(scope="module")
def without_foreign_variables() -> Iterator[None]:
    """Remove the machine's settings of S3 and of proxies, so that they do not affect requests to loopback."""
    foreign = ("AWS_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(foreign):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def painter() -> Iterator[Painter]:
    """Yield a browser that draws image files, the reference for their pixels; tests that use it are skipped without Chromium."""
    with chromium_painter() as running:
        yield running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a real server with default settings that all tests share. They must not leave anything that affects other tests."""
    with darkroom(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder of a server that only this test uses; it does not exist yet."""
    return tmp_path / "data"


@pytest.fixture(scope="module")
def s3() -> Iterator[Bucket]:
    """Yield a bucket of a real S3 server."""
    with moto_bucket() as running:
        yield running


@pytest.fixture
def s3_proxy(s3: Bucket) -> Iterator[S3Proxy]:
    """Yield a proxy in front of the S3 server that can fail and stall like real stores."""
    with s3_proxy_of(s3) as running:
        yield running
