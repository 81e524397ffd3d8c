"""Fixtures for all tests."""

from __future__ import annotations

import gc
import inspect
import os
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import cache, wraps
from pathlib import Path

import httpcore
import hypothesis
import msgspec
import pytest
import structlog
from prometheus_client import CollectorRegistry

import tests.support.jpeg_xl  # noqa: F401 - lets Pillow read JPEG XL
from service import instruments
from service.rendering.pool import RenderPool
from service.settings.sections import available_cores
from tests.promises.figures import Figure, RecordFigure
from tests.support.chromium import Painter, chromium_painter
from tests.support.renders import render_pool
from tests.support.s3 import Bucket, moto_bucket
from tests.support.s3_proxy import S3Proxy, s3_proxy_of
from tests.support.server import Server, darkroom

_TESTS = Path(__file__).parent

# No example fails because the machine that runs the tests is busy. Where CI is set, as .ci/run does, every run has the same examples.
hypothesis.settings.register_profile("unhurried", deadline=None, max_examples=100, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("unhurried")

# A shell without job control starts commands in the background with SIGINT ignored, which the servers of tests would inherit (POSIX, sh).
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Folders and files whose tests take long come first, so that no process still has one when the others have nothing left. The files that
# build the same site as `test_sites.py`, which only one process can do at a time, are far from it.
_LONGEST_FIRST = (
    "browser/", "fuzz/", "cli/", "http/", "attacks/", "soak/", "dashboard/", "browser/test_site_builds.py", "browser/test_snippets.py",
    "faults/", "regions/", "library/", "rendering/", "worker/", "quality/", "storage/", "sources/", "web/", "deploy/", "ops/",
)  # fmt: skip


@cache
def _place(file: Path) -> int:
    # A test of this configuration runs a file that is elsewhere.
    path = file.relative_to(_TESTS).as_posix() if file.is_relative_to(_TESTS) else ""
    starts = [start for start in _LONGEST_FIRST if path.startswith(start)]
    return _LONGEST_FIRST.index(max(starts, key=len)) if starts else len(_LONGEST_FIRST)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests into the order of `_LONGEST_FIRST`. They stay in their order within a folder."""
    items.sort(key=lambda item: _place(item.path))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect the tests without garbage collection, and exclude the objects that this makes from it, because all of them stay.

    Traversing ten thousand tests again and again takes every process a fifth of the time of its collection.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Have a failure within a task group fail only its own test.

    `pytest.fail` and `pytest.raises` raise a BaseException. A task group puts it into a BaseExceptionGroup, which would end the event loop
    that the later tests of the file need for their fixtures.
    """
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = _without_outcomes_in_groups(pyfuncitem.obj)


def _without_outcomes_in_groups(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @wraps(test)
    async def wrapper(*arguments: object, **fixtures: object) -> None:
        try:
            await test(*arguments, **fixtures)
        except BaseExceptionGroup as group:
            if group.subgroup((pytest.fail.Exception, pytest.skip.Exception)) is None:
                raise
            raise AssertionError("the test failed within a task group") from group

    return wrapper


@pytest.fixture(scope="session", autouse=True)
def shared_certificates() -> Iterator[None]:
    """Read the certificates of the authorities once: each reading takes 75 ms of CPU time, and each client in this process does it."""
    read = httpcore.default_ssl_context

    @cache
    def context_of(cert_file: str | None, cert_dir: str | None) -> ssl.SSLContext:
        return read()

    with pytest.MonkeyPatch.context() as patch:
        # These variables name others (SSL_CTX_set_default_verify_paths(3)), which tests do.
        patch.setattr(httpcore, "default_ssl_context", lambda: context_of(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")))
        yield


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Granian runs asyncio on uvloop."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def record_figure(request: pytest.FixtureRequest) -> RecordFigure:
    """Return a function that records a figure which the test measured, for the tables that `make promises` writes."""

    def record(text: str, value: float, *, lowest: bool = False) -> None:
        figure = msgspec.json.encode(Figure(text, value, lowest)).decode()
        request.node.user_properties.append(("figure", figure))

    return record


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
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    """Give a registry in which all instruments record during the test."""
    registry = CollectorRegistry()
    for instrument in instruments.declared():
        monkeypatch.setattr(instrument, "_metric", None)
    instruments.enable(registry)
    return registry


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
    with darkroom(tmp_path_factory.mktemp("server"), render_processes=available_cores()) as running:
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
