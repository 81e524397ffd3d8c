"""Sites of Next.js, Nuxt, Astro and others: the browser fetches the renditions that fit, and nothing else."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Browser, Response

from tests.browser.conftest import Watch
from tests.browser.sites import EXAMPLE_URL, SITES, build, run_in_site, serve_files, serve_site, site_folder
from tests.browser.sites.guide import commands
from tests.support.buckets import bucket_server
from tests.support.server import DARKROOM, Server, darkroom, environment

LAKE, EVENING, UPRIGHT = "lake.jpg", "evening.png", "upright.jpg"

# The path of a photo in the source `cms`, and how URLs spell it.
IN_SOURCE, SPELLED = "2026/Größe 1.jpg", "2026/Gr%C3%B6%C3%9Fe%201.jpg"

# For each name: the site, the path of its page but for the digest of the photo, and the extension that Chromium fetches: of the first
# source of a `<picture>`, or of the one format of a loader.
PAGES = {
    "next": ("next", "/?photo=", "webp"),
    "nuxt": ("nuxt", "/?photo=", "webp"),
    "astro": ("astro", "/?photo=", "webp"),
    "react": ("components", "/?page=react&photo=", "jxl"),
    "svelte": ("components", "/?page=svelte&photo=", "jxl"),
    "unpic": ("components", "/?page=unpic&photo=", "webp"),
    "vue": ("components", "/?page=vue&photo=", "jxl"),
}

# The section of docs/frameworks.md that has the commands and the code of a site.
SECTIONS = {"next": "Next.js", "nuxt": "Nuxt", "astro": "Astro"}

# Width of the window in CSS pixels and its device pixel ratio → the widths of the renditions that fit: of a photo that fills the window,
# and of the second photo of a page, which fills half of a window that is at least 60em wide, and all of a narrower one.
WINDOWS = {(320, 1): (320, 320), (390, 3): (1280, 1280), (1200, 1): (1280, 640)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    photo = io.BytesIO()
    Image.linear_gradient("L").resize((1_600, 1_200)).save(photo, "JPEG")
    with bucket_server("gs") as bucket:
        bucket.put(f"uploads/{IN_SOURCE}", photo.getvalue())
        credentials = {f"DARKROOM_SOURCE_CMS_{name}": value for name, value in bucket.environment.items()}
        data = tmp_path_factory.mktemp("darkroom") / "data"
        with darkroom(data, sources=f"cms={bucket.location}/uploads", **credentials) as running:
            yield running


@pytest.fixture(scope="module")
def manifest(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the manifest of three photos."""
    folder = tmp_path_factory.mktemp("photos")
    photos = folder / "photos"
    photos.mkdir()
    Image.linear_gradient("L").resize((2_000, 1_500)).save(photos / LAKE)
    Image.radial_gradient("L").resize((1_600, 1_200)).save(photos / EVENING)
    Image.radial_gradient("L").resize((1_500, 2_000)).save(photos / UPRIGHT)
    command = [str(DARKROOM), "push", str(photos), "--server", server.url, "--manifest", str(folder / "images.json")]
    subprocess.run(command, env=environment(), check=True, capture_output=True)
    found: dict[str, Any] = json.loads((folder / "images.json").read_text("utf-8"))
    return found


@pytest.fixture(scope="module")
def sites(server: Server, manifest: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yield the URL of every site, built and served by the commands of the guide, or, without a server of its own, as files."""
    with ExitStack() as stack:
        urls = {}
        for site, section in SECTIONS.items():
            folder = stack.enter_context(site_folder(site, server.url))
            (folder / "images.json").write_text(json.dumps(manifest), "utf-8")
            # The first command makes the site with its packages, which `site_folder` has done.
            _, *preparations, serve = commands(section)
            run_in_site("\n".join(preparations).replace(EXAMPLE_URL, server.url), folder)
            urls[site] = stack.enter_context(serve_site(serve, folder))
        files = tmp_path_factory.mktemp("built") / "components"
        build("components", {}, url=server.url, output="dist", into=files)
        urls["components"] = stack.enter_context(serve_files(files))
        yield urls


def fetch_page(chromium: Browser, url: str, window: tuple[int, int], expected: list[str]) -> list[Response]:
    """Open a page, check that it shows the `expected` renditions without errors, and return the responses of other hosts and all images."""
    width, density = window
    context = chromium.new_context(viewport={"width": width, "height": 800}, device_scale_factor=density)
    watch = Watch(context)
    # New sites have no icon, for which browsers look there.
    watch.expect_refusal("/favicon.ico")
    fetched: list[Response] = []

    def record(response: Response) -> None:
        address = urlsplit(response.url)
        if address.scheme != "data" and (address.netloc != urlsplit(url).netloc or response.request.resource_type == "image"):
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
    assert [natural for _, natural, _ in shown] == pytest.approx([width, width / 2 if width >= 960 else width][: len(shown)], abs=1)
    assert all(alt for _, _, alt in shown)
    # The natural width of an image without a srcset is in its own pixels.
    natural_width = "(url) => { const one = new Image(); one.src = url; return one.decode().then(() => one.naturalWidth); }"
    assert tuple(page.evaluate(natural_width, src) for src in expected) == WINDOWS[window][: len(expected)]
    assert watch.errors == []
    context.close()
    return responses


def expected_urls(manifest: dict[str, Any], window: tuple[int, int], *paths: str) -> list[str]:
    """Return the URLs in JPEG XL of the renditions of photos that fit a window."""
    return [
        link["url"]
        for path, width in zip(paths, WINDOWS[window], strict=False)
        for source in manifest["images"][path]["sources"]
        if source["type"] == "image/jxl"
        for link in source["renditions"]
        if link["width"] == width
    ]


@pytest.mark.long
@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: f"{window[0]}x{window[1]}")
@pytest.mark.parametrize("name", PAGES)
def test_page_whose_photo_is_chosen_at_run_time_fetches_the_rendition_that_fits_and_nothing_else(
    chromium: Browser, sites: dict[str, str], manifest: dict[str, Any], name: str, window: tuple[int, int]
) -> None:
    site, path, extension = PAGES[name]
    # One build shows different photos.
    document = manifest["images"][LAKE if window[0] >= 390 else EVENING]
    darkroom_url, digest = document["src"].partition("/i/")[0], document["digest"]
    expected = f"{darkroom_url}/i/v3/{digest}/width={WINDOWS[window][0]}/-.{extension}"
    responses = fetch_page(chromium, f"{sites[site]}{path}{digest}", window, [expected])
    assert [(response.url, response.status) for response in responses] == [(expected, 200)]


@pytest.mark.long
@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: f"{window[0]}x{window[1]}")
def test_page_whose_photo_is_in_a_source_fetches_the_rendition_that_fits_and_nothing_else(
    chromium: Browser, server: Server, sites: dict[str, str], window: tuple[int, int]
) -> None:
    expected = f"{server.url}/from/cms/{SPELLED}/width={WINDOWS[window][0]}/-.jxl"
    responses = fetch_page(chromium, f"{sites['components']}/?page=source&photo={quote(IN_SOURCE)}", window, [expected])
    assert [(response.url, response.status) for response in responses] == [(expected, 200)]


@pytest.mark.long
@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: f"{window[0]}x{window[1]}")
def test_page_from_a_manifest_fetches_the_renditions_that_fit_and_nothing_else(
    chromium: Browser, sites: dict[str, str], manifest: dict[str, Any], window: tuple[int, int]
) -> None:
    expected = expected_urls(manifest, window, LAKE, EVENING)
    responses = fetch_page(chromium, f"{sites['next']}/lakes", window, expected)
    assert sorted((response.url, response.status) for response in responses) == sorted((url, 200) for url in expected)


@pytest.mark.long
@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: f"{window[0]}x{window[1]}")
def test_page_with_art_direction_fetches_the_photo_for_its_window_and_nothing_else(
    chromium: Browser, sites: dict[str, str], manifest: dict[str, Any], window: tuple[int, int]
) -> None:
    expected = expected_urls(manifest, window, UPRIGHT if window[0] <= 640 else LAKE)
    responses = fetch_page(chromium, f"{sites['next']}/hero", window, expected)
    assert [(response.url, response.status) for response in responses] == [(url, 200) for url in expected]


def test_page_that_imports_the_module_from_darkroom_shows_the_renditions_that_fit(
    chromium: Browser, server: Server, manifest: dict[str, Any], tmp_path: Path
) -> None:
    text = (SITES / "plain" / "index.html").read_text("utf-8")
    (tmp_path / "index.html").write_text(text.replace(EXAMPLE_URL, server.url), "utf-8")
    (tmp_path / "images.json").write_text(json.dumps(manifest), "utf-8")
    window = (320, 1)
    expected = expected_urls(manifest, window, LAKE, EVENING)
    with serve_files(tmp_path) as url:
        redirect, module, *photos = fetch_page(chromium, url, window, expected)
    assert (redirect.url, redirect.status) == (f"{server.url}/darkroom.js", 302)
    assert (module.status, module.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert module.url.startswith(f"{server.url}/web/darkroom.")
    assert sorted(response.url for response in photos) == sorted(expected)
