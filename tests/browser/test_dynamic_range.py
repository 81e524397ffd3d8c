"""HDR in Chromium: only a screen that shows it gets it, and the gain map of a rendition is applied there."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from tests.support import images
from tests.support.chromium import launch_chromium
from tests.support.gain_maps import STOPS, gain_map_jpeg, iso, levels, stops_field
from tests.support.waiting import PATIENCE_SECONDS

WIDTH, HEIGHT = 320, 240


@pytest.fixture(scope="module")
def markup(playground_url: str) -> dict[str, Any]:
    """Return the markup of an HDR photo with a high dynamic range."""
    gains = levels(stops_field(WIDTH, HEIGHT))
    photo = gain_map_jpeg(images.picture(WIDTH, HEIGHT), gains, iso([STOPS[0]], [STOPS[1]]))
    with httpx.Client(base_url=playground_url) as client:
        digest = client.post("/v1/images", content=photo).json()["digest"]
        response = client.post(f"/v1/images/{digest}/urls", json={"transform": {"dynamic_range": "high"}})
        found: dict[str, Any] = response.json()
    return found


@pytest.fixture(scope="module", params=["srgb", "hdr10"])
def screen(request: pytest.FixtureRequest) -> Iterator[tuple[str, Browser]]:
    with sync_playwright() as playwright:
        browser = launch_chromium(playwright, screen=request.param)
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
    url, _ = shown(browser, playground_url, markup["picture"].replace(' loading="lazy"', ""))
    assert ("dynamic_range=high" in url) == (name == "hdr10")


def test_gain_map_of_a_rendition_is_applied_on_screens_that_show_it_and_nowhere_else(
    playground_url: str, markup: dict[str, Any], screen: tuple[str, Browser]
) -> None:
    name, browser = screen
    high, standard = [
        next(source for source in markup["sources"] if source["type"] == "image/jpeg" and bool(source.get("media")) == is_high)
        for is_high in (True, False)
    ]
    pictures = [shown(browser, playground_url, f'<img src="{source["renditions"][-1]["url"]}">')[1] for source in (high, standard)]
    # The screenshot is mapped to a standard range again, so the difference is small, but the pictures themselves are equal byte by byte.
    assert (np.abs(pictures[0] - pictures[1]).mean() > 0.2) == (name == "hdr10")
