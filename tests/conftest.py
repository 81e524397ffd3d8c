"""Fixtures that every folder of tests shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3 import Bucket, moto_bucket
from tests.s3_front import Front, front_of
from tests.servers import Server, darkroom


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Granian runs asyncio."""
    return "asyncio"


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
def front(s3: Bucket) -> Iterator[Front]:
    """Give a proxy before that server which does to it what stores do at their worst."""
    with front_of(s3) as running:
        yield running
