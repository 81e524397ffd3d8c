"""HDR in Chromium: only a screen that shows it gets it, and there it is as bright as the original."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Playwright

from tests.browser.test_caching import serve_page
from tests.support import images
from tests.support.chromium import launch_chromium
from tests.support.gain_maps import STOPS, Floats, gain_map_jpeg, iso, levels, stops_field
from tests.support.waiting import PATIENCE_SECONDS

WIDTH, HEIGHT = 320, 240


@pytest.fixture(scope="module")
def markup(playground_url: str) -> dict[str, Any]:
    """Return the markup of an HDR photo with a high dynamic range."""
    gains = levels(stops_field(WIDTH, HEIGHT))
    photo = gain_map_jpeg(images.picture(WIDTH, HEIGHT), gains, iso([STOPS[0]], [STOPS[1]]))
    with httpx.Client(base_url=playground_url, trust_env=False, timeout=PATIENCE_SECONDS) as client:
        digest = client.post("/v1/images", content=photo).json()["digest"]
        response = client.post(f"/v1/images/{digest}/urls", json={"transform": {"dynamic_range": "high"}, "priority": True})
        found: dict[str, Any] = response.json()
    return found


@pytest.fixture(scope="module", params=["srgb", "hdr10"])
def screen(request: pytest.FixtureRequest, driver: Playwright) -> Iterator[tuple[str, Browser]]:
    browser = launch_chromium(driver, screen=request.param)
    yield request.param, browser
    browser.close()


def shown(browser: Browser, base: str, html: str) -> tuple[str, np.ndarray[Any, Any]]:
    """Return the URL that an image element has chosen, and what a page shows."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    page.set_default_timeout(1_000 * PATIENCE_SECONDS)
    try:
        # A document of the same origin as the images.
        page.goto(f"{base}/healthz")
        page.set_content(f'<body style="margin:0">{html}')
        page.wait_for_function("() => document.images[0].complete && document.images[0].naturalWidth > 0")
        page.evaluate("() => document.images[0].decode()")
        url: str = page.evaluate("() => document.images[0].currentSrc")
        return url, np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), dtype=np.float64)
    finally:
        page.close()


def test_picture_gives_hdr_only_to_screens_that_show_it(playground_url: str, markup: dict[str, Any], screen: tuple[str, Browser]) -> None:
    name, browser = screen
    assert markup["sources"][0]["media"] == "(dynamic-range: high)"
    url, _ = shown(browser, playground_url, markup["picture"])
    assert ("dynamic_range=high" in url) == (name == "hdr10")


def test_preload_fetches_the_rendition_that_fits_the_screen(
    playground_url: str, markup: dict[str, Any], screen: tuple[str, Browser]
) -> None:
    name, browser = screen
    context = browser.new_context()
    requested: list[str] = []
    context.on("request", lambda request: requested.append(request.url) if "/i/" in request.url else None)
    header = markup["preload"].replace("/i/", f"{playground_url}/i/")
    with serve_page("<!doctype html><title>Page</title>", Link=header) as site:
        context.new_page().goto(site, wait_until="networkidle")
    context.close()
    assert ["dynamic_range=high" in url for url in requested] == [name == "hdr10"]


@pytest.fixture(scope="module")
def canvas(playground_url: str, driver: Playwright) -> Iterator[Page]:
    """Yield a page whose canvases can be as bright as a screen with a high dynamic range."""
    browser = launch_chromium(driver, experimental=True)
    page = browser.new_page()
    page.set_default_timeout(1_000 * PATIENCE_SECONDS)
    page.goto(f"{playground_url}/healthz")
    if not page.evaluate("() => 'globalHDRHeadroom' in OffscreenCanvasRenderingContext2D.prototype"):
        pytest.skip("this Chromium has no canvas for HDR")
    yield page
    browser.close()


_DRAW = """
async ([url, stops]) => {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext("2d", {colorType: "float16"});
    context.globalHDRHeadroom = stops;
    context.drawImage(image, 0, 0);
    const {data} = context.getImageData(0, 0, canvas.width, canvas.height, {pixelFormat: "rgba-float16"});
    const bytes = new Uint8Array(data.buffer);
    let text = "";
    for (let start = 0; start < bytes.length; start += 32768) {
        text += String.fromCharCode(...bytes.subarray(start, start + 32768));
    }
    return btoa(text);
}
"""


def light_on(canvas: Page, url: str, stops: float) -> Floats:
    """Return the light of a picture, 1 for white, on a screen whose brightest white is so many stops above that."""
    samples = np.frombuffer(base64.b64decode(canvas.evaluate(_DRAW, [url, stops])), dtype=np.float16)
    return linear(samples.astype(np.float64).reshape(HEIGHT, WIDTH, 4)[..., :3].clip(0, None))


def linear(level: Floats) -> Floats:
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


def high_url(markup: dict[str, Any], image_format: str) -> str:
    source = next(source for source in markup["sources"] if source["type"] == f"image/{image_format}" and source.get("media"))
    url: str = source["renditions"][-1]["url"]
    return url


@pytest.mark.parametrize("image_format", ["jpeg", "avif", "jxl"])
def test_chromium_shows_the_light_of_the_original(markup: dict[str, Any], canvas: Page, image_format: str) -> None:
    found = light_on(canvas, high_url(markup, image_format), STOPS[1])
    picture = linear(np.asarray(images.picture(WIDTH, HEIGHT), dtype=np.float64) / 255)
    expected = (picture + 1 / 64) * 2 ** stops_field(WIDTH, HEIGHT)[..., None] - 1 / 64
    difference = np.log2(found + 1 / 64) - np.log2(expected.clip(0, None) + 1 / 64)
    # In stops. Without its gain map, the picture is half a stop darker.
    assert np.abs(difference).mean() < 0.15
    assert abs(difference.mean()) < 0.03


def test_chromium_shows_the_standard_picture_of_a_jpeg_with_a_gain_map_on_other_screens(markup: dict[str, Any], canvas: Page) -> None:
    url = high_url(markup, "jpeg")
    standard = next(source for source in markup["sources"] if source["type"] == "image/jpeg" and not source.get("media"))
    expected = light_on(canvas, standard["renditions"][-1]["url"], 0)
    assert np.array_equal(light_on(canvas, url, 0), expected)
    assert not np.array_equal(light_on(canvas, url, STOPS[1]), expected)
