"""Sites that Next.js, Vite and others build from a manifest: the browser fetches the renditions that fit, and nothing else."""

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
from tests.browser.sites import SITES, BuildError, build, serve_files
from tests.support.server import DARKROOM, darkroom, environment

LAKE, EVENING = "lake.jpg", "evening.png"

# For each name: the site, the directory of its build, the page that shows both photos, and the media types that Chromium chooses for
# the lake and the evening: the first source of a `<picture>`, or the one format of a loader, which these sites set to AVIF.
PAGES = {
    "next": ("next", "out", "/", ("image/avif", "image/jxl")),
    "vite": ("vite", "dist", "/", ("image/jxl", "image/jxl")),
    "astro": ("astro", "dist", "/", ("image/avif", "image/jxl")),
    "svelte": ("components", "dist", "/?svelte", ("image/jxl", "image/jxl")),
    "vue": ("components", "dist", "/?vue", ("image/jxl", "image/jxl")),
    "unpic": ("components", "dist", "/?unpic", ("image/avif", "image/avif")),
}

# Width of the window in CSS pixels and its device pixel ratio → the widths of the two renditions that fit. The lake fills the window; the
# evening fills half of a window that is at least 60em wide, and all of a narrower one.
WINDOWS = {(320, 1): (320, 320), (800, 1): (960, 960), (1200, 1): (1280, 640), (390, 3): (1280, 1280)}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Yield the manifest of two photos, while a server that has them runs."""
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
    """Yield the URL of every built site."""
    folder = tmp_path_factory.mktemp("built")
    with ExitStack() as stack:
        urls = {}
        for site, output in sorted({(site, output) for site, output, _, _ in PAGES.values()}):
            build(site, manifest, output=output, into=folder / site)
            urls[site] = stack.enter_context(serve_files(folder / site))
        yield urls


def fetch_page(chromium: Browser, url: str, window: tuple[int, int], expected: list[str]) -> list[Response]:
    """Open a page, check that it shows the `expected` renditions of both photos without errors, and return the responses of other hosts."""
    (width, density), widths = window, WINDOWS[window]
    context = chromium.new_context(viewport={"width": width, "height": 800}, device_scale_factor=density)
    watch = Watch(context)
    fetched: list[Response] = []

    def record(response: Response) -> None:
        if urlsplit(response.url).netloc not in {urlsplit(url).netloc, ""}:
            fetched.append(response)

    context.on("response", record)
    page = context.new_page()
    page.goto(url, wait_until="networkidle")
    shown = page.evaluate(
        "() => Promise.all([...document.images].map((one) => one.decode().then(() => [one.currentSrc, one.naturalWidth, one.alt])))"
    )
    responses = list(fetched)
    assert [src for src, _, _ in shown] == expected
    # The natural width of an image with a srcset is in CSS pixels, which the browser truncates to whole ones.
    assert [natural for _, natural, _ in shown] == pytest.approx([width, width / 2 if width >= 960 else width], abs=1)
    assert all(alt for _, _, alt in shown)
    # The natural width of an image without a srcset is in its own pixels.
    natural_width = "(url) => { const one = new Image(); one.src = url; return one.decode().then(() => one.naturalWidth); }"
    assert tuple(page.evaluate(natural_width, src) for src in expected) == widths
    assert watch.errors == []
    context.close()
    return responses


def expected_urls(manifest: dict[str, Any], window: tuple[int, int], media_types: tuple[str, str]) -> list[str]:
    """Return the URLs of the renditions of both photos that fit a window, each in its media type."""
    return [
        link["url"]
        for path, width, media_type in zip((LAKE, EVENING), WINDOWS[window], media_types, strict=True)
        for source in manifest["images"][path]["sources"]
        if source["type"] == media_type
        for link in source["renditions"]
        if link["width"] == width
    ]


@pytest.mark.long
@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: f"{window[0]}x{window[1]}")
@pytest.mark.parametrize("name", PAGES)
def test_site_in_a_window_fetches_the_renditions_that_fit_it_and_nothing_else(
    chromium: Browser, sites: dict[str, str], manifest: dict[str, Any], name: str, window: tuple[int, int]
) -> None:
    site, _, path, media_types = PAGES[name]
    expected = expected_urls(manifest, window, media_types)
    responses = fetch_page(chromium, sites[site] + path, window, expected)
    assert sorted(response.url for response in responses) == sorted(expected)
    assert {(response.status, response.headers["content-type"]) for response in responses} == {
        (200, media_type) for media_type in media_types
    }


def test_page_that_imports_the_module_from_darkroom_shows_the_renditions_that_fit(
    chromium: Browser, manifest: dict[str, Any], tmp_path: Path
) -> None:
    darkroom_url = manifest["images"][LAKE]["src"].partition("/i/")[0]
    text = (SITES / "plain" / "index.html").read_text("utf-8")
    (tmp_path / "index.html").write_text(text.replace("https://img.example.com", darkroom_url), "utf-8")
    (tmp_path / "images.json").write_text(json.dumps(manifest), "utf-8")
    window = (320, 1)
    expected = expected_urls(manifest, window, ("image/jxl", "image/jxl"))
    with serve_files(tmp_path) as url:
        redirect, module, *photos = fetch_page(chromium, url, window, expected)
    assert (redirect.url, redirect.status) == (f"{darkroom_url}/darkroom.js", 302)
    assert (module.status, module.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert module.url.startswith(f"{darkroom_url}/web/darkroom.")
    assert sorted(response.url for response in photos) == sorted(expected)


@pytest.mark.long
def test_site_with_a_manifest_of_another_version_fails_to_build_with_a_remedy(manifest: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        build("next", manifest | {"version": 0}, output="out", into=tmp_path / "out")
    assert "expected version 1, got version 0. Delete the file and run `darkroom push --manifest` again" in str(caught.value)


@pytest.mark.long
def test_site_with_an_image_that_was_not_pushed_fails_to_build_with_similar_paths(manifest: dict[str, Any], tmp_path: Path) -> None:
    moved = {f"photos/{path}": image for path, image in manifest["images"].items()}
    with pytest.raises(BuildError) as caught:
        build("next", manifest | {"images": moved}, output="out", into=tmp_path / "out")
    assert 'The manifest has no image "lake.jpg". Near it of its 2 paths: "photos/lake.jpg".' in str(caught.value)
