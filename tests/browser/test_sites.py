"""Sites made from a manifest, with Next.js, Vite and others: the browser fetches the right renditions, and nothing else."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Browser, Response

from tests.browser.conftest import Watch
from tests.browser.sites import SITES, BuildError, build, served
from tests.support.server import DARKROOM, darkroom, environment

LAKE, EVENING = "lake.jpg", "evening.png"

# Each site, the folder that it is built into, and the page that shows both photos.
PAGES = {
    "next": ("next", "out", "/"),
    "vite": ("vite", "dist", "/"),
    "astro": ("astro", "dist", "/"),
    "svelte": ("components", "dist", "/?svelte"),
    "vue": ("components", "dist", "/?vue"),
    "unpic": ("components", "dist", "/?unpic"),
}

# Width of the window in CSS pixels and its density → the widths of the two renditions that fit: the lake fills the window, the evening
# half of one that is at least 60em wide.
WINDOWS = {(320, 1): (320, 320), (800, 1): (960, 960), (1200, 1): (1280, 640), (390, 3): (1280, 1280)}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Give the manifest of two photos while the Darkroom that has them runs."""
    folder = tmp_path_factory.mktemp("sites")
    photos = folder / "photos"
    photos.mkdir()
    Image.linear_gradient("L").resize((2_000, 1_500)).save(photos / LAKE)
    Image.radial_gradient("L").resize((1_600, 1_200)).save(photos / EVENING)
    with darkroom(folder / "data") as server:
        command = [str(DARKROOM), "push", str(photos), "--server", server.url, "--manifest", str(folder / "images.json")]
        subprocess.run(command, env=environment(), check=True, capture_output=True)
        yield json.loads((folder / "images.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def sites(manifest: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Give the addresses of the built sites."""
    folder = tmp_path_factory.mktemp("built")
    with ExitStack() as stack:
        addresses = {}
        for site, output in sorted({(site, output) for site, output, _ in PAGES.values()}):
            build(site, manifest, output=output, into=folder / site)
            addresses[site] = stack.enter_context(served(folder / site))
        yield addresses


def look(chromium: Browser, url: str, window: tuple[int, int], manifest: dict[str, Any]) -> list[Response]:
    """Open a page, see that both photos are right and that nothing went wrong, and return what came from other hosts."""
    (width, density), widths = window, WINDOWS[window]
    context = chromium.new_context(viewport={"width": width, "height": 800}, device_scale_factor=density)
    watch = Watch(context)
    fetched: list[Response] = []

    def note(answer: Response) -> None:
        if urlsplit(answer.url).netloc not in {urlsplit(url).netloc, ""}:
            fetched.append(answer)

    context.on("response", note)
    page = context.new_page()
    page.goto(url, wait_until="networkidle")
    shown = page.evaluate(
        "() => Promise.all([...document.images].map((one) => one.decode().then(() => [one.currentSrc, one.naturalWidth, one.alt])))"
    )
    answers = list(fetched)
    expected = expected_urls(manifest, window)
    assert [src for src, _, _ in shown] == expected
    # Of an image with a srcset the natural width is that of its place, which the browser cuts off to whole pixels.
    assert [natural for _, natural, _ in shown] == pytest.approx([width, width / 2 if width >= 960 else width], abs=1)
    assert all(alt for _, _, alt in shown)
    # By itself an image tells how many pixels it has.
    alone = "(url) => { const one = new Image(); one.src = url; return one.decode().then(() => one.naturalWidth); }"
    assert tuple(page.evaluate(alone, src) for src in expected) == widths
    assert watch.complaints == []
    context.close()
    return answers


def expected_urls(manifest: dict[str, Any], window: tuple[int, int]) -> list[str]:
    """Return the URLs of the AVIF renditions of both photos that fit a window."""
    return [
        link["url"]
        for path, width in zip((LAKE, EVENING), WINDOWS[window], strict=True)
        for source in manifest["images"][path]["sources"]
        if source["type"] == "image/avif"
        for link in source["renditions"]
        if link["width"] == width
    ]


@pytest.mark.long
@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: f"{window[0]}x{window[1]}")
@pytest.mark.parametrize("name", PAGES)
def test_site_in_a_window_fetches_the_avif_renditions_that_fit_it_and_nothing_else(
    chromium: Browser, sites: dict[str, str], manifest: dict[str, Any], name: str, window: tuple[int, int]
) -> None:
    site, _, path = PAGES[name]
    answers = look(chromium, sites[site] + path, window, manifest)
    assert sorted(answer.url for answer in answers) == sorted(expected_urls(manifest, window))
    assert {(answer.status, answer.headers["content-type"]) for answer in answers} == {(200, "image/avif")}


def test_page_that_imports_the_module_from_darkroom_shows_the_renditions_that_fit(
    chromium: Browser, manifest: dict[str, Any], tmp_path: Path
) -> None:
    darkroom_url = manifest["images"][LAKE]["src"].partition("/i/")[0]
    text = (SITES / "plain" / "index.html").read_text("utf-8")
    (tmp_path / "index.html").write_text(text.replace("https://img.example.com", darkroom_url), "utf-8")
    (tmp_path / "images.json").write_text(json.dumps(manifest), "utf-8")
    window = (320, 1)
    with served(tmp_path) as url:
        redirect, module, *photos = look(chromium, url, window, manifest)
    assert (redirect.url, redirect.status) == (f"{darkroom_url}/darkroom.js", 302)
    assert (module.status, module.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert module.url.startswith(f"{darkroom_url}/web/darkroom.")
    assert sorted(answer.url for answer in photos) == sorted(expected_urls(manifest, window))


@pytest.mark.long
def test_site_with_a_manifest_of_another_version_is_not_built_and_says_what_to_do(manifest: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        build("next", manifest | {"version": 0}, output="out", into=tmp_path / "out")
    assert "expected version 1, got version 0. Remove its file and run `darkroom push --manifest` again" in str(caught.value)


@pytest.mark.long
def test_site_with_an_image_that_was_not_pushed_is_not_built_and_says_what_is_near(manifest: dict[str, Any], tmp_path: Path) -> None:
    moved = {f"photos/{path}": image for path, image in manifest["images"].items()}
    with pytest.raises(BuildError) as caught:
        build("next", manifest | {"images": moved}, output="out", into=tmp_path / "out")
    assert 'The manifest has no image "lake.jpg". Near it of its 2 paths: "photos/lake.jpg".' in str(caught.value)
