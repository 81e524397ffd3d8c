"""The format that a browser gets: of a `<picture>` the first source that it knows, and of `.auto` the first that it names."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Browser, Response

from service.images.transform import PIPELINE_VERSION
from service.settings.signing_key import development_key
from service.urls.rendition_url import RenditionUrl
from service.urls.signing import Signer
from tests.support import images
from tests.support.server import Server
from tests.support.waiting import PATIENCE_SECONDS

WIDTH, HEIGHT = 400, 300


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    with server.client() as client:
        found: dict[str, Any] = client.post("/v1/images", content=images.photo_jpeg(WIDTH, HEIGHT)).json()
    return found


def loaded(browser: Browser, base: str, html: str) -> tuple[list[tuple[str, str]], int]:
    """Return the extension and the media type of every picture that a page loads, and the width of the one that it shows."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    page.set_default_timeout(1_000 * PATIENCE_SECONDS)
    responses: list[Response] = []
    try:
        # A document of the same origin as the images.
        page.goto(f"{base}/healthz")
        page.on("response", lambda response: responses.append(response))  # noqa: PLW0108 - Playwright marks the function
        page.set_content('<body style="margin:0">' + html)
        page.wait_for_function("() => document.images[0].complete && document.images[0].naturalWidth > 0")
        width: int = page.evaluate("() => document.images[0].decode().then(() => document.images[0].naturalWidth)")
        found = [(response.url.rpartition(".")[2], response.headers["content-type"]) for response in responses if "/i/" in response.url]
        return found, width
    finally:
        page.close()


def test_picture_makes_chromium_load_jpeg_xl_and_nothing_else(chromium: Browser, server: Server, document: dict[str, Any]) -> None:
    assert [source["type"] for source in document["sources"]] == ["image/jxl", "image/avif", "image/webp", "image/jpeg"]
    assert loaded(chromium, server.url, document["picture"]) == ([("jxl", "image/jxl")], WIDTH)


def test_picture_makes_a_browser_without_jpeg_xl_load_the_next_source(chromium: Browser, server: Server, document: dict[str, Any]) -> None:
    html = document["picture"].replace("image/jxl", "image/of-tomorrow")
    assert loaded(chromium, server.url, html) == ([("avif", "image/avif")], WIDTH)


def test_auto_gives_chromium_jpeg_xl(chromium: Browser, server: Server, document: dict[str, Any]) -> None:
    url = Signer([development_key(server.data)]).sign(RenditionUrl(PIPELINE_VERSION, document["digest"], "full", "auto"))
    assert loaded(chromium, server.url, f'<img src="{url}">') == ([("auto", "image/jxl")], WIDTH)
