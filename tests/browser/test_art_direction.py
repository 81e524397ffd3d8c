"""Art direction in Chromium: each screen fetches its own crop, in the best format, and nothing else, and nothing on the page moves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route

from tests.browser.test_caching import serve_page
from tests.browser.test_sizes import SHOWN, page_of, urls
from tests.support import images
from tests.support.server import Server
from tests.support.waiting import PATIENCE_SECONDS

CROPS = [
    {"media": "(max-width: 30em)", "transform": {"ratio": "1:1"}},
    {"media": "(max-width: 50em)", "transform": {"ratio": "4:3"}, "sizes": "50vw"},
]
# The width of the window, the crop that it shows, and the width of the rendition.
SCREENS = [(400, "1:1", 640), (700, "4:3", 640), (1_200, "16:9", 1_280)]
QUICK_SCREENS = [pytest.param(*screen, marks=pytest.mark.long if index else ()) for index, screen in enumerate(SCREENS)]

STYLE = "<style>body { margin: 0 } img { width: 100%; height: auto; display: block }</style>"
PAINTED = "() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(resolve))))"
SHIFT = """() => new Promise((resolve) => {
  let shift = 0;
  new PerformanceObserver((list) => { for (const entry of list.getEntries()) shift += entry.value; })
    .observe({ type: "layout-shift", buffered: true });
  requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => resolve(shift), 100)));
})"""


@pytest.fixture(scope="module")
def digest(server: Server) -> str:
    with server.client() as client:
        found: str = client.post("/v1/images", content=images.photo_jpeg(1_600, 1_200)).json()["digest"]
    return found


@contextmanager
def opened(chromium: Browser, url: str, width: int) -> Iterator[tuple[Page, list[str]]]:
    """Yield a page in a window of some width, and the URLs of renditions that it requests. None arrives before the page is painted."""
    context = chromium.new_context(viewport={"width": width, "height": 900})
    context.set_default_timeout(1_000 * PATIENCE_SECONDS)
    requested: list[str] = []
    held: list[Route] = []
    painted = False

    def hold_until_painted(route: Route) -> None:
        if painted:
            route.continue_()
        else:
            held.append(route)

    context.on("request", lambda request: requested.append(request.url) if "/i/" in request.url else None)
    context.route("**/i/**", hold_until_painted)
    page = context.new_page()
    page.goto(url, wait_until="domcontentloaded")
    page.evaluate(PAINTED)
    painted = True
    for route in held:
        route.continue_()
    page.wait_for_load_state("networkidle")
    yield page, requested
    context.close()


def directed(server: Server, digest: str, **wanted: Any) -> dict[str, Any]:
    return urls(server, digest, transform={"ratio": "16:9"}, art_direction=CROPS, **wanted)


def url_of(server: Server, markup: dict[str, Any], transform: str) -> str:
    """Return the URL of a rendition in JPEG XL, the first source of each crop."""
    (found,) = (
        link["url"]
        for source in markup["sources"]
        for link in source["renditions"]
        if f"/{transform}/" in link["url"] and source["type"] == "image/jxl"
    )
    return f"{server.url}{found}"


@pytest.mark.parametrize(("width", "ratio", "rendition"), SCREENS)
def test_each_screen_fetches_its_crop_and_nothing_on_the_page_moves(  # noqa: PLR0917 - fixtures and parameters
    chromium: Browser, server: Server, digest: str, width: int, ratio: str, rendition: int
) -> None:
    markup = directed(server, digest)
    body = f"{STYLE}{markup['picture']}<p>Text below the picture</p>"
    with serve_page(page_of(body)) as url, opened(chromium, url, width) as (page, requested):
        assert page.evaluate(SHOWN) == width
        assert requested == [url_of(server, markup, f"width={rendition},ratio={ratio}")]
        across, down = map(int, ratio.split(":"))
        assert abs(page.evaluate("() => document.images[0].clientHeight") - width * down / across) <= 1
        assert page.evaluate(SHIFT) == 0


def test_page_moves_without_the_sizes_of_the_crop_on_its_sources(chromium: Browser, server: Server, digest: str) -> None:
    # So that the test above would notice a source without them.
    markup = directed(server, digest, priority=True)
    html = re.sub(r'(<source [^>]*) width="\d+" height="\d+">', r"\1>", markup["picture"])
    assert html != markup["picture"]
    with serve_page(page_of(f"{STYLE}{html}<p>Text below the picture</p>")) as url, opened(chromium, url, 400) as (page, _):
        page.evaluate(SHOWN)
        assert page.evaluate(SHIFT) > 0


@pytest.mark.parametrize(("width", "ratio", "rendition"), QUICK_SCREENS)
def test_preload_of_each_screen_is_the_crop_that_the_picture_then_shows_and_only_it(  # noqa: PLR0917 - fixtures and parameters
    chromium: Browser, server: Server, digest: str, width: int, ratio: str, rendition: int
) -> None:
    markup = directed(server, digest, priority=True)
    expected = [url_of(server, markup, f"width={rendition},ratio={ratio}")]
    with serve_page(page_of(f"{STYLE}<main></main>"), Link=markup["preload"]) as url, opened(chromium, url, width) as (page, requested):
        assert requested == expected
        page.evaluate("html => { document.querySelector('main').innerHTML = html; }", markup["picture"])
        page.evaluate(SHOWN)
        assert page.evaluate("() => document.images[0].currentSrc") == expected[0]
        assert requested == expected


@pytest.mark.parametrize(("width", "ratio", "rendition"), QUICK_SCREENS)
def test_picture_of_the_module_from_documents_shows_the_same_crop(  # noqa: PLR0917 - fixtures and parameters
    chromium: Browser, server: Server, digest: str, width: int, ratio: str, rendition: int
) -> None:
    plain = urls(server, digest, transform={"ratio": "16:9"})
    crops = [{**crop, "image": urls(server, digest, transform=crop["transform"])} for crop in CROPS]
    expected = url_of(server, directed(server, digest), f"width={rendition},ratio={ratio}")
    with opened(chromium, f"{server.url}/healthz", width) as (page, requested):
        page.set_content(f"{STYLE}<main></main>")
        page.evaluate(
            """async ([image, crops]) => {
              const { picture, withArtDirection } = await import("/darkroom.js");
              document.querySelector("main").innerHTML = picture(withArtDirection(image, crops), { priority: true });
            }""",
            [{"alt": "A lake", **plain}, crops],
        )
        page.evaluate(SHOWN)
        assert requested == [expected]
