"""Sites built with Next.js and Vite from a manifest: the browser fetches the right renditions, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Response

from tests import images
from tests.browser.conftest import Watch
from tests.browser.sites import built
from tests.servers import HOST, darkroom, free_port

pytestmark = pytest.mark.long

LAKE, EVENING = "photos/lake.jpg", "photos/evening.png"

# Each site, the folder that it is built into, and the page that shows both photos.
PAGES = {
    "next": ("next", "out", "/"),
    "vite": ("vite", "dist", "/"),
    "astro": ("astro", "dist", "/"),
    "svelte": ("components", "dist", "/svelte.html"),
    "vue": ("components", "dist", "/vue.html"),
    "unpic": ("components", "dist", "/unpic.html"),
}

# Width of the window in CSS pixels and its density → the widths of the two renditions that fit: the lake fills the window, the evening
# half of one that is at least 60em wide.
WINDOWS = {(320, 1): (320, 320), (800, 1): (960, 960), (1200, 1): (1280, 640), (390, 3): (1280, 1280)}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Give the manifest of two photos while the Darkroom that has them runs."""
    port = free_port()
    photos = {LAKE: images.photo_jpeg(2_000, 1_500), EVENING: images.photo_jpeg(1_600, 1_200)}
    with darkroom(tmp_path_factory.mktemp("sites"), port=port, public_url=f"http://{HOST}:{port}") as server, server.client() as client:
        documents = {path: client.post("/v1/images", content=photo).raise_for_status().json() for path, photo in photos.items()}
        listed = {path: document | {"srcset": document["sources"][-1]["srcset"]} for path, document in documents.items()}
        yield {"version": 1, "images": listed}


@pytest.fixture(scope="module")
def sites(manifest: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Give the addresses of the built sites."""
    with ExitStack() as stack:
        yield {
            site: stack.enter_context(built(site, manifest, output=output))
            for site, output in sorted({(site, output) for site, output, _ in PAGES.values()})
        }


def expected_url(manifest: dict[str, Any], path: str, width: int) -> str:
    """Return the URL of a photo's AVIF rendition of a width."""
    (found,) = (
        link["url"]
        for source in manifest["images"][path]["sources"]
        if source["type"] == "image/avif"
        for link in source["renditions"]
        if link["width"] == width
    )
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: f"{window[0]}x{window[1]}")
@pytest.mark.parametrize("name", PAGES)
def test_site_in_a_window_fetches_the_avif_renditions_that_fit_it_and_nothing_else(
    chromium: Browser, sites: dict[str, str], manifest: dict[str, Any], name: str, window: tuple[int, int]
) -> None:
    site, _, path = PAGES[name]
    (width, density), widths = window, WINDOWS[window]
    context = chromium.new_context(viewport={"width": width, "height": 800}, device_scale_factor=density)
    watch = Watch(context)
    fetched: list[Response] = []

    def note(answer: Response) -> None:
        fetched.append(answer)

    context.on("response", note)
    page = context.new_page()
    page.goto(sites[site] + path, wait_until="networkidle")
    shown = page.evaluate(
        "() => Promise.all([...document.images].map((one) => one.decode().then(() => [one.currentSrc, one.naturalWidth, one.alt])))"
    )
    here = urlsplit(sites[site]).netloc
    elsewhere = [answer for answer in fetched if urlsplit(answer.url).netloc not in {here, ""}]

    expected = [expected_url(manifest, LAKE, widths[0]), expected_url(manifest, EVENING, widths[1])]
    assert [url for url, _, _ in shown] == expected
    # Of an image with a srcset the natural width is that of its place, which the browser cuts off to whole pixels.
    assert [natural for _, natural, _ in shown] == pytest.approx([width, width / 2 if width >= 960 else width], abs=1)
    assert all(alt for _, _, alt in shown)
    assert sorted(answer.url for answer in elsewhere) == sorted(expected)
    assert {(answer.status, answer.headers["content-type"]) for answer in elsewhere} == {(200, "image/avif")}
    assert watch.complaints == []
    # By itself an image tells how many pixels it has.
    alone = "(url) => { const one = new Image(); one.src = url; return one.decode().then(() => one.naturalWidth); }"
    assert tuple(page.evaluate(alone, url) for url in expected) == widths
    context.close()
