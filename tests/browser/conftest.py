"""Fixtures: a real server, a real browser, and a watch on the errors that a page logs and the hosts that it requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import ExifTags, Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, expect, sync_playwright

from tests.browser.landscape import evening_lake
from tests.support.chromium import launch_chromium
from tests.support.server import darkroom
from tests.support.waiting import PATIENCE_SECONDS

TOKEN = "secret-token-for-tests-0123"

expect.set_options(timeout=1_000 * PATIENCE_SECONDS)

Visit: TypeAlias = Callable[..., Page]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shots", metavar="FOLDER", help="write the README's screenshots of the playground to this directory")


@pytest.fixture(scope="session")
def shots(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = _shots_folder(request.config)
    if folder is None:
        return tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _shots_folder(config: pytest.Config) -> Path | None:
    # pytest only knows the option if this directory is among its arguments; otherwise it reads this file after the command line.
    folder = config.getoption("--shots", default=None)
    return Path(folder) if folder else None


# For all files, as every start and every rendition of the same photos takes CPU time.
@pytest.fixture(scope="package")
def playground_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with darkroom(tmp_path_factory.mktemp("open")) as server:
        yield server.url


@pytest.fixture(scope="module")
def guarded_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with darkroom(tmp_path_factory.mktemp("guarded"), tokens=f"{TOKEN}:ingest+read") as server:
        yield server.url


@pytest.fixture(scope="module")
def cdn_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server whose documents contain URLs of a CDN."""
    with darkroom(tmp_path_factory.mktemp("fronted"), public_url="https://img.example.com/photos") as server:
        yield server.url


# Not for the whole session: Playwright runs an event loop in this thread, and the tests of other directories need their own.
@pytest.fixture(scope="package")
def driver() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="package")
def chromium(driver: Playwright) -> Iterator[Browser]:
    browser = launch_chromium(driver)
    yield browser
    browser.close()


class Watch:
    """Records the errors of a browser context and the hosts to which it sends requests."""

    def __init__(self, context: BrowserContext) -> None:
        self._errors: list[str] = []
        # Messages of the console, each with the path of the resource to which it refers.
        self._logged: list[tuple[str, str]] = []
        self.hosts: set[str] = set()
        self._refused_paths: list[str] = []
        context.on("console", self._console)
        context.on("weberror", lambda error: self._errors.append(str(error.error)))
        context.on("request", lambda request: self._record_host(request.url))

    def expect_refusal(self, path: str) -> None:
        """Ignore the message that the browser logs when the response to a request for `path` is an error."""
        self._refused_paths.append(path)

    @property
    def errors(self) -> list[str]:
        """The errors so far, without those of expected refusals, even if they were logged before `expect_refusal` was called."""
        logged = (text for text, path in self._logged if not (text.startswith("Failed to load resource") and path in self._refused_paths))
        return [*self._errors, *logged]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._logged.append((message.text, urlsplit(message.location["url"]).path))

    def _record_host(self, url: str) -> None:
        if urlsplit(url).scheme not in {"data", "blob"}:
            self.hosts.add(urlsplit(url).netloc)


@pytest.fixture
def watches() -> list[Watch]:
    return []


@pytest.fixture
def visit(chromium: Browser, watches: list[Watch]) -> Iterator[Visit]:
    """Yield a function that opens a URL in a new context. At the end no page may have logged an error or sent a request to another host."""
    contexts: list[BrowserContext] = []
    hosts: list[str] = []

    def open_page(url: str, **options: Any) -> Page:
        context = chromium.new_context(**options)
        context.set_default_timeout(1_000 * PATIENCE_SECONDS)
        contexts.append(context)
        watches.append(Watch(context))
        hosts.append(urlsplit(url).netloc)
        page = context.new_page()
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    for watch, host in zip(watches, hosts, strict=True):
        assert watch.errors == []
        assert watch.hosts == {host}


@pytest.fixture
def page(visit: Visit, playground_url: str) -> Page:
    return visit(playground_url)


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo of 1200 × 900 pixels with soft colors and the grain of a sensor."""
    x, y = np.meshgrid(np.linspace(0, 1, 1200), np.linspace(0, 1, 900))
    colors = np.stack([90 + 140 * x, 60 + 110 * y, 170 - 120 * x * y], axis=-1)
    grain = np.random.default_rng(1).normal(0, 4, (900, 1200, 1))
    path = tmp_path_factory.mktemp("photos") / "evening.jpg"
    Image.fromarray(np.clip(colors + grain, 0, 255).astype(np.uint8)).save(path, quality=90)
    return path


@pytest.fixture(scope="session")
def small_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "small.png"
    Image.linear_gradient("L").resize((480, 320)).convert("RGB").save(path)
    return path


@pytest.fixture(scope="session")
def transparent_picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture with transparent parts."""
    path = tmp_path_factory.mktemp("photos") / "cut-out.png"
    picture = Image.new("RGBA", (400, 400), (176, 55, 31, 255))
    picture.putalpha(Image.radial_gradient("L").resize((400, 400)))
    picture.save(path)
    return path


@pytest.fixture(scope="session")
def rotated_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo of a camera that was held upright: 480 × 320 pixels, with an Exif orientation that rotates it by 90°."""
    path = tmp_path_factory.mktemp("photos") / "turned.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.linear_gradient("L").resize((480, 320)).convert("RGB").save(path, exif=exif)
    return path


@pytest.fixture(scope="session")
def photo_to_draw(photo: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The photo of the README's screenshots, or `photo` if none are written, because its large renditions take long."""
    if not _shots_folder(request.config):
        return photo
    path = tmp_path_factory.mktemp("photos") / "evening lake.jpg"
    path.write_bytes(evening_lake())
    return path
