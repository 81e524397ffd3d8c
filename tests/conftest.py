"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

from service.rendering.pool import RenderPool
from tests.support.renders import render_pool
from tests.support.s3 import Bucket, moto_bucket
from tests.support.s3_proxy import S3Proxy, s3_proxy_of
from tests.support.server import Server, darkroom

# The machine that runs the tests may be busy: how long one example takes says nothing.
hypothesis.settings.register_profile("unhurried", deadline=None, max_examples=100)
hypothesis.settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Granian runs asyncio on uvloop."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
async def pool(anyio_backend: object) -> AsyncIterator[RenderPool]:
    """Give two render processes to tests that do them no harm."""
    async with render_pool(slots=2) as running:
        yield running


@pytest.fixture
def logged() -> Iterator[list[structlog.typing.EventDict]]:
    """Give what is logged meanwhile."""
    with structlog.testing.capture_logs() as events:
        yield events


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Give the list of files and folders that were synced to disk so far, in order."""
    paths: list[Path] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        paths.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    return paths


@pytest.fixture(scope="module")
def without_foreign_variables() -> Iterator[None]:
    """Have no setting of this machine for S3, and no proxy of its, on the way to a server of loopback."""
    foreign = ("AWS_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(foreign):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give one real server with default settings for tests that leave nothing behind that others would mind."""
    with darkroom(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Give a fresh data folder for a server of the test's own."""
    return tmp_path / "data"


@pytest.fixture(scope="module")
def s3() -> Iterator[Bucket]:
    """Give a real S3 server with a bucket."""
    with moto_bucket() as running:
        yield running


@pytest.fixture
def s3_proxy(s3: Bucket) -> Iterator[S3Proxy]:
    """Give a proxy before that server which does to it what stores do at their worst."""
    with s3_proxy_of(s3) as running:
        yield running
