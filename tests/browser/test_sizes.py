"""The width of the rendition that Chromium fetches: of a lazy image by its layout, of an image with priority by its `sizes`, and once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, ViewportSize

from tests.browser.test_caching import serve_page
from tests.support import images
from tests.support.server import Server
from tests.support.waiting import PATIENCE_SECONDS

WIDTH, HEIGHT = 1_000, 750
WINDOW: ViewportSize = {"width": 900, "height": 700}
SIZES = "(min-width: 40em) 50vw, 100vw"

# Resolves to the width of the first image's layout when it has loaded.
SHOWN = "() => document.images[0].decode().then(() => document.images[0].clientWidth)"


@pytest.fixture(scope="module")
def digest(server: Server) -> str:
    with server.client() as client:
        found: str = client.post("/v1/images", content=images.photo_jpeg(WIDTH, HEIGHT)).json()["digest"]
    return found


def urls(server: Server, digest: str, **wanted: object) -> dict[str, Any]:
    """Return the markup of `POST …/urls`, with URLs that work on a page of another origin."""
    with server.client() as client:
        response = client.post(f"/v1/images/{digest}/urls", json=wanted)
    markup: dict[str, Any] = response.json()
    for member in markup.keys() & {"picture", "preload"}:
        markup[member] = markup[member].replace("/i/", f"{server.url}/i/")
    return markup


def url_of(server: Server, markup: dict[str, Any], width: int) -> str:
    """Return the URL of a step in JPEG XL, the first source."""
    (found,) = (link["url"] for link in markup["sources"][0]["renditions"] if link["width"] == width)
    return f"{server.url}{found}"


def page_of(body: str) -> str:
    return f'<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>Page</title>{body}'


@contextmanager
def opened(chromium: Browser, url: str) -> Iterator[tuple[Page, list[str]]]:
    """Yield a page and the URLs of renditions that it requests."""
    context = chromium.new_context(viewport=WINDOW)
    context.set_default_timeout(1_000 * PATIENCE_SECONDS)
    requested: list[str] = []
    context.on("request", lambda request: requested.append(request.url) if "/i/" in request.url else None)
    page = context.new_page()
    page.goto(url, wait_until="networkidle")
    yield page, requested
    context.close()


@pytest.mark.parametrize(
    ("style", "shown", "fetched"),
    [
        ("img { max-width: 100%; height: auto }", 300, 320),
        ("img { width: 100%; height: auto }", 300, 320),
        ("img { width: 640px; height: 100px; object-fit: cover }", 640, 640),
        ("", WIDTH, WIDTH),
        # Without a width, an image with `auto` is 300 pixels wide, because its layout must not depend on its file.
        ("div { width: 800px } img { width: auto; max-width: 100%; height: auto }", 300, 320),
    ],
)
def test_lazy_picture_fetches_the_rendition_for_its_layout(  # noqa: PLR0917 - fixtures and parameters
    chromium: Browser, server: Server, digest: str, style: str, shown: int, fetched: int
) -> None:
    markup = urls(server, digest)
    body = f"<style>div {{ width: 300px }} {style}</style><div>{markup['picture']}</div>"
    with serve_page(page_of(body)) as url, opened(chromium, url) as (page, requested):
        assert page.evaluate(SHOWN) == shown
        assert requested == [url_of(server, markup, fetched)]


def test_lazy_picture_below_the_view_is_fetched_when_it_comes_near(chromium: Browser, server: Server, digest: str) -> None:
    markup = urls(server, digest)
    style = "img { max-width: 100%; height: auto } p { height: 20000px }"
    body = f'<style>{style}</style><p>Text</p><div style="width: 300px">{markup["picture"]}</div>'
    with serve_page(page_of(body)) as url, opened(chromium, url) as (page, requested):
        assert requested == []
        page.evaluate("() => document.images[0].scrollIntoView()")
        assert page.evaluate(SHOWN) == 300
        assert requested == [url_of(server, markup, 320)]


def test_lazy_picture_in_a_browser_without_auto_fetches_the_rendition_for_the_window(
    chromium: Browser, server: Server, digest: str
) -> None:
    markup = urls(server, digest)
    # A word that no browser knows is to Chromium what `auto` is to a browser that does not know it.
    html = markup["picture"].replace('sizes="auto, 100vw"', 'sizes="tomorrow, 100vw"')
    with serve_page(page_of(f'<div style="width: 300px">{html}</div>')) as url, opened(chromium, url) as (page, requested):
        page.evaluate(SHOWN)
        assert html != markup["picture"]
        assert requested == [url_of(server, markup, WIDTH)]


@pytest.mark.parametrize(("sizes", "fetched"), [({}, WIDTH), ({"sizes": SIZES}, 640), ({"sizes": f"auto, {SIZES}"}, 640)])
def test_picture_with_priority_below_the_view_is_fetched_at_once(
    chromium: Browser, server: Server, digest: str, sizes: dict[str, str], fetched: int
) -> None:
    markup = urls(server, digest, priority=True, **sizes)
    body = f'<p style="height: 20000px">Text</p><div style="width: 300px">{markup["picture"]}</div>'
    with serve_page(page_of(body)) as url, opened(chromium, url) as (page, requested):
        page.evaluate(SHOWN)
        assert requested == [url_of(server, markup, fetched)]


@pytest.mark.parametrize("preloaded", [False, True], ids=["picture", "preload"])
def test_image_with_priority_has_a_high_priority_in_the_first_request(
    chromium: Browser, server: Server, digest: str, preloaded: bool
) -> None:
    markup = urls(server, digest, priority=True)
    priorities: list[str] = []
    context = chromium.new_context(viewport=WINDOW)
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.on(
        "Network.requestWillBeSent",
        lambda event: priorities.append(event["request"]["initialPriority"]) if "/i/" in event["request"]["url"] else None,
    )
    session.send("Network.enable")
    headers = {"Link": markup["preload"]} if preloaded else {}
    with serve_page(page_of("" if preloaded else markup["picture"]), **headers) as url:
        page.goto(url, wait_until="networkidle")
    context.close()
    # Without `fetchpriority`, Chromium fetches images with the priority "Low" or "Medium" until they have a layout.
    assert priorities == ["High"]


@pytest.mark.parametrize(("sizes", "fetched"), [({}, WIDTH), ({"sizes": SIZES}, 640), ({"sizes": f"auto, {SIZES}"}, 640)])
def test_preload_fetches_the_rendition_that_the_picture_then_shows_and_only_it(
    chromium: Browser, server: Server, digest: str, sizes: dict[str, str], fetched: int
) -> None:
    markup = urls(server, digest, priority=True, **sizes)
    expected = [url_of(server, markup, fetched)]
    with serve_page(page_of("<main></main>"), Link=markup["preload"]) as url, opened(chromium, url) as (page, requested):
        assert requested == expected
        page.evaluate("html => { document.querySelector('main').innerHTML = html; }", markup["picture"])
        assert page.evaluate(SHOWN) == WIDTH
        assert page.evaluate("() => document.images[0].currentSrc") == expected[0]
        assert requested == expected
        # One fetch, begun by the header: a second one would have an entry of its own.
        entries = page.evaluate("() => performance.getEntriesByType('resource').map(({ name, initiatorType }) => [name, initiatorType])")
        assert [initiator for name, initiator in entries if "/i/" in name] == ["link"]


def test_preload_of_a_type_that_the_browser_does_not_know_fetches_nothing(chromium: Browser, server: Server, digest: str) -> None:
    header = urls(server, digest, priority=True)["preload"].replace("image/jxl", "image/of-tomorrow")
    with serve_page(page_of("<main></main>"), Link=header) as url, opened(chromium, url) as (_, requested):
        assert requested == []


def test_preload_links_of_the_module_fetch_the_rendition_that_its_picture_then_shows(
    chromium: Browser, server: Server, digest: str
) -> None:
    markup = urls(server, digest, priority=True, sizes=SIZES)
    expected = [url_of(server, markup, 640)]
    with opened(chromium, f"{server.url}/healthz") as (page, requested):
        page.set_content("<main></main>")
        image = {"alt": "A lake", **urls(server, digest)}
        with page.expect_response(expected[0]):
            page.evaluate(
                """async ([image, sizes]) => {
                  const { preloadLinks } = await import("/darkroom.js");
                  document.head.innerHTML = preloadLinks(image, { sizes });
                }""",
                [image, SIZES],
            )
        page.evaluate(
            """async ([image, sizes]) => {
              const { picture } = await import("/darkroom.js");
              document.querySelector("main").innerHTML = picture(image, { sizes, priority: true });
            }""",
            [image, SIZES],
        )
        assert page.evaluate(SHOWN) == WIDTH
        assert requested == expected
