"""A real server, a real browser, and a watch on what the page says and whom it asks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import ExifTags, Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.browser.landscape import evening_lake
from tests.support.server import darkroom
from tests.support.waiting import PATIENCE_SECONDS

TOKEN = "secret-token-for-tests-0123"

expect.set_options(timeout=1_000 * PATIENCE_SECONDS)

Visit: TypeAlias = Callable[..., Page]

_CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shots", metavar="FOLDER", help="write the playground's pictures for the README into this folder")


@pytest.fixture(scope="session")
def shots(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = _shots_folder(request.config)
    if folder is None:
        return tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _shots_folder(config: pytest.Config) -> Path | None:
    # The option is unknown where pytest read this file after its command line: `--shots` needs `pytest tests/browser`.
    asked = config.getoption("--shots", default=None)
    return Path(asked) if asked else None


@pytest.fixture(scope="module")
def playground_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with darkroom(tmp_path_factory.mktemp("open")) as server:
        yield server.url


@pytest.fixture(scope="module")
def guarded_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with darkroom(tmp_path_factory.mktemp("guarded"), tokens=f"{TOKEN}:ingest+read") as server:
        yield server.url


@pytest.fixture(scope="module")
def fronted_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose documents name the URLs of a CDN in front of it."""
    with darkroom(tmp_path_factory.mktemp("fronted"), public_url="https://img.example.com/photos") as server:
        yield server.url


# Not for the session: an event loop runs as long as Playwright does, and other tests in this process want one of their own.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


class Watch:
    """What went wrong in a browser context, in words; and what it was asked to overlook."""

    def __init__(self, context: BrowserContext) -> None:
        self._errors: list[str] = []
        # The texts of the console, and the paths of the resources that they are about.
        self._logged: list[tuple[str, str]] = []
        self.hosts: set[str] = set()
        self._refused_paths: list[str] = []
        context.on("console", self._console)
        context.on("weberror", lambda error: self._errors.append(str(error.error)))
        context.on("request", lambda request: self._asked(request.url))

    def expect_refusal(self, path: str) -> None:
        """Overlook the line that the browser itself writes when a request for `path` is answered with an error."""
        self._refused_paths.append(path)

    @property
    def complaints(self) -> list[str]:
        """What went wrong, without the refusals to overlook, which may have come before a test could name their paths."""
        logged = (text for text, path in self._logged if not (text.startswith("Failed to load resource") and path in self._refused_paths))
        return [*self._errors, *logged]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._logged.append((message.text, urlsplit(message.location["url"]).path))

    def _asked(self, url: str) -> None:
        if urlsplit(url).scheme not in {"data", "blob"}:
            self.hosts.add(urlsplit(url).netloc)


@pytest.fixture
def watches() -> list[Watch]:
    return []


@pytest.fixture
def visit(chromium: Browser, watches: list[Watch]) -> Iterator[Visit]:
    """Give what opens a URL in a context of its own; afterwards no page may have complained or asked another host."""
    contexts: list[BrowserContext] = []
    served: list[str] = []

    def opened(url: str, **options: Any) -> Page:
        context = chromium.new_context(**options)
        context.set_default_timeout(1_000 * PATIENCE_SECONDS)
        contexts.append(context)
        watches.append(Watch(context))
        served.append(urlsplit(url).netloc)
        page = context.new_page()
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    for watch, host in zip(watches, served, strict=True):
        assert watch.complaints == []
        assert watch.hosts == {host}


@pytest.fixture
def page(visit: Visit, playground_url: str) -> Page:
    return visit(playground_url)


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo of 1200 × 900 pixels: soft colours, and grain as a sensor gives it."""
    x, y = np.meshgrid(np.linspace(0, 1, 1200), np.linspace(0, 1, 900))
    colours = np.stack([90 + 140 * x, 60 + 110 * y, 170 - 120 * x * y], axis=-1)
    grain = np.random.default_rng(1).normal(0, 4, (900, 1200, 1))
    path = tmp_path_factory.mktemp("photos") / "evening.jpg"
    Image.fromarray(np.clip(colours + grain, 0, 255).astype(np.uint8)).save(path, quality=90)
    return path


@pytest.fixture(scope="session")
def small_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "small.png"
    Image.linear_gradient("L").resize((480, 320)).convert("RGB").save(path)
    return path


@pytest.fixture(scope="session")
def cut_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture with transparent parts."""
    path = tmp_path_factory.mktemp("photos") / "cut-out.png"
    picture = Image.new("RGBA", (400, 400), (176, 55, 31, 255))
    picture.putalpha(Image.radial_gradient("L").resize((400, 400)))
    picture.save(path)
    return path


@pytest.fixture(scope="session")
def turned_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo taken with the camera held upright: 480 × 320 pixels, and the word of EXIF to turn it by a quarter."""
    path = tmp_path_factory.mktemp("photos") / "turned.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.linear_gradient("L").resize((480, 320)).convert("RGB").save(path, exif=exif)
    return path


@pytest.fixture(scope="session")
def photo_to_draw(photo: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Give what the pictures of the README show; its large renditions take their time."""
    if not _shots_folder(request.config):
        return photo
    path = tmp_path_factory.mktemp("photos") / "evening lake.jpg"
    path.write_bytes(evening_lake())
    return path
