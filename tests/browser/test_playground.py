"""The playground in a real browser, from a real server."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image, ImageStat
from playwright.sync_api import Browser, FilePayload, Locator, Page, Response, Route, expect

from tests.browser.conftest import TOKEN, Visit, Watch
from tests.caches.running import counting
from tests.support.server import HOST

ALL_MEASURED = re.compile(r"^(\d+) of \1 measured$")

LARGEST_SHOT_BYTES = 400_000

SCREENSHOTS: dict[str, dict[str, Any]] = {
    "playground": {"color_scheme": "light", "viewport": {"width": 1280, "height": 1250}},
    "playground-dark-phone": {"color_scheme": "dark", "viewport": {"width": 360, "height": 868}, "device_scale_factor": 2},
}

UNITS = {"bytes": 1, "kB": 1_000, "MB": 1_000_000}


def part(page: Page, name: str) -> Locator:
    return page.locator(f'[data-part="{name}"]')


def choose(page: Page, *photos: Path | FilePayload) -> None:
    part(page, "chooser").set_input_files(photos)  # type: ignore[arg-type]


def wait_until_measured(page: Page) -> None:
    expect(part(page, "measured")).to_have_text(ALL_MEASURED)


def document_of(page: Page, photo: Path) -> dict[str, Any]:
    """Choose `photo`, wait until all of its renditions are measured, and return its document from the server."""
    choose(page, photo)
    expect(page.get_by_role("heading", name=photo.name)).to_be_visible()
    wait_until_measured(page)
    address = urlsplit(page.url)
    response = page.request.get(f"{address.scheme}://{address.netloc}/v1/images/{address.fragment}")
    assert response.ok
    document: dict[str, Any] = response.json()
    return document


def rendition_urls(document: dict[str, Any]) -> list[str]:
    return [rendition["url"] for source in document["sources"] for rendition in source["renditions"]]


def preview(page: Page) -> Locator:
    return page.locator(".frame .rendition")


def wait_until_painted(picture: Locator) -> None:
    expect(picture).to_have_js_property("complete", value=True)
    assert picture.evaluate("picture => picture.naturalWidth") > 0


def step(page: Page, name: str) -> Locator:
    return page.get_by_role("radio", name=name)


def as_payload(photo: Path) -> dict[str, str]:
    return {"name": photo.name, "content": base64.b64encode(photo.read_bytes()).decode("ascii")}


TRANSFER = """({name, content}) => {
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  return transfer;
}"""


def test_empty_playground_explains_darkroom_and_how_to_try_it(page: Page, playground_url: str) -> None:
    expect(page.get_by_role("heading", name="One photo in. Every size out.")).to_be_visible()
    expect(part(page, "curl")).to_have_text(f"curl --data-binary @photo.jpg {playground_url}/v1/images")


def test_chosen_photo_shows_each_rendition_with_its_size(page: Page, photo: Path, playground_url: str) -> None:
    document = document_of(page, photo)
    assert [source["type"] for source in document["sources"]] == ["image/jxl", "image/avif", "image/webp", "image/jpeg"]
    shown = page.locator(".step").evaluate_all("steps => steps.map(step => step.innerText.replaceAll('\\n', ' '))")
    by_width = sorted(
        ((rendition["width"], rendition["url"]) for source in document["sources"] for rendition in source["renditions"]),
        key=lambda found: found[0],
    )
    assert len(shown) == len(by_width)
    for text, (width, url) in zip(shown, by_width, strict=True):
        match = re.fullmatch(r"[\w ]+, (\d+) pixels wide: ([\d.]+) (kB|MB|bytes) \W?[\d.,]+%", text)
        assert match is not None, text
        size = len(page.request.get(playground_url + url).body())
        assert int(match[1]) == width
        assert float(match[2]) * UNITS[match[3]] == pytest.approx(size, rel=0.005)


def test_chosen_photo_shows_the_properties_in_its_document(page: Page, photo: Path) -> None:
    document = document_of(page, photo)
    facts = part(page, "facts")
    for text in ("JPEG", "1,200 × 900 (1.08 MP)", f"{document['digest'][:8]}…"):
        expect(facts).to_contain_text(text)
    expect(facts.get_by_role("img", name=document["placeholder"]["color"], exact=True)).to_be_visible()
    expect(part(page, "placeholder")).to_have_attribute("src", document["placeholder"]["data_url"])


def test_preview_shows_a_rendition(page: Page, photo: Path) -> None:
    document = document_of(page, photo)
    wait_until_painted(preview(page))
    shown = urlsplit(preview(page).evaluate("picture => picture.currentSrc")).path
    assert shown in rendition_urls(document)
    expect(step(page, "JPEG XL, ")).to_have_count(4)
    assert shown.endswith(".jxl")


def test_selected_rendition_becomes_the_preview(page: Page, photo: Path) -> None:
    document = document_of(page, photo)
    wanted = next(rendition for rendition in document["sources"][2]["renditions"] if rendition["width"] == 960)
    step(page, "WebP, 960 pixels wide").check()
    expect(preview(page)).to_have_attribute("src", wanted["url"])
    wait_until_painted(preview(page))
    expect(part(page, "caption")).to_contain_text("WebP, 960 × 720")
    expect(part(page, "caption")).to_contain_text("than JPEG at this width")
    expect(part(page, "open")).to_have_attribute("href", wanted["url"])


def test_markup_to_copy_is_that_of_the_document(page: Page, small_photo: Path, playground_url: str) -> None:
    document = document_of(page, small_photo)
    assert part(page, "picture").text_content() == document["picture"]
    assert part(page, "src").text_content() == playground_url + document["src"]
    expect(part(page, "relative")).to_be_visible()


def test_dropped_photo_is_uploaded(page: Page, small_photo: Path) -> None:
    transfer = page.evaluate_handle(TRANSFER, as_payload(small_photo))
    page.dispatch_event("body", "dragover", {"dataTransfer": transfer})
    expect(part(page, "landing")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(part(page, "landing")).to_be_hidden()
    wait_until_measured(page)
    expect(page.get_by_role("heading", name=small_photo.name)).to_be_visible()


def test_pasted_photo_is_uploaded(page: Page, small_photo: Path) -> None:
    transfer = page.evaluate_handle(TRANSFER, as_payload(small_photo))
    page.evaluate("clipboardData => document.dispatchEvent(new ClipboardEvent('paste', {clipboardData, bubbles: true}))", transfer)
    wait_until_measured(page)
    expect(page.get_by_role("heading", name=small_photo.name)).to_be_visible()


def test_several_photos_are_listed_and_each_can_be_shown(page: Page, photo: Path, small_photo: Path) -> None:
    choose(page, photo, small_photo)
    sheet = page.get_by_role("region", name="Photos", exact=True)
    expect(sheet.get_by_role("button")).to_have_count(3)
    wait_until_measured(page)
    sheet.get_by_role("button", name=small_photo.name).click()
    expect(page.get_by_role("heading", name=small_photo.name)).to_be_visible()
    wait_until_measured(page)
    wait_until_painted(preview(page))
    # The same bytes are the same image, which is not listed twice.
    choose(page, photo)
    expect(page.get_by_role("heading", name=photo.name)).to_be_visible()
    expect(part(page, "facts")).to_contain_text("already stored")
    expect(sheet.get_by_role("button")).to_have_count(3)


def test_text_file_shows_the_members_of_the_problem_document(page: Page, playground_url: str, watches: list[Watch]) -> None:
    watches[0].expect_refusal("/v1/images")
    problem = page.request.post(f"{playground_url}/v1/images", data=b"not a photo").json()
    choose(page, {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"not a photo"})
    alert = page.get_by_role("alert")
    for member in ("title", "detail", "expected", "received", "remedy"):
        expect(alert).to_contain_text(problem[member])
    expect(page.get_by_label("Access token")).to_be_hidden()


def test_file_name_with_markup_is_shown_as_text(page: Page, small_photo: Path) -> None:
    name = "<img src=x onerror=document.body.remove()>.png"
    choose(page, {"name": name, "mimeType": "image/png", "buffer": small_photo.read_bytes()})
    wait_until_measured(page)
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    assert page.locator("img[src=x]").count() == 0


def test_transparent_picture_has_a_png_fallback_and_a_checkered_frame(page: Page, transparent_picture: Path) -> None:
    document = document_of(page, transparent_picture)
    assert document["sources"][-1]["type"] == "image/png"
    wait_until_painted(preview(page))
    expect(part(page, "frame")).to_have_class(re.compile("see-through"))
    expect(part(page, "placeholder")).to_be_hidden()


def test_rotated_photo_is_shown_upright(page: Page, rotated_photo: Path) -> None:
    document_of(page, rotated_photo)
    expect(part(page, "facts")).to_contain_text("320 × 480")
    wait_until_painted(preview(page))
    width, height = preview(page).evaluate("picture => [picture.naturalWidth, picture.naturalHeight]")
    box = part(page, "frame").bounding_box()
    assert box is not None
    assert width / height == pytest.approx(320 / 480)
    assert box["width"] / box["height"] == pytest.approx(320 / 480, rel=0.01)


def test_copied_picture_loads_its_first_source_in_a_page_of_the_same_origin(
    page: Page, photo: Path, playground_url: str, watches: list[Watch]
) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    document = document_of(page, photo)
    page.get_by_role("button", name="Copy <picture>").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == document["picture"]
    # The browser requests this icon for a page that names none.
    watches[0].expect_refusal("/favicon.ico")
    other = page.context.new_page()
    other.goto(f"{playground_url}/livez")
    other.evaluate("markup => { document.body.innerHTML = markup; }", copied)
    picture = other.locator("picture img")
    picture.scroll_into_view_if_needed()
    expect(picture).to_have_js_property("complete", value=True)
    expect(picture).not_to_have_js_property("naturalWidth", value=0)
    loaded = urlsplit(picture.evaluate("picture => picture.currentSrc")).path
    assert loaded in [rendition["url"] for rendition in document["sources"][0]["renditions"]]


def test_rendition_is_fetched_once_over_two_visits(chromium: Browser, small_photo: Path, playground_url: str) -> None:
    # A proxy counts the requests, because the browser does not report a response whose `<img>` was removed before it arrived.
    with counting(playground_url) as counted, chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"http://{HOST}:{counted.port}/")
        document = document_of(page, small_photo)
        page.goto("about:blank")
        page.goto(f"http://{HOST}:{counted.port}/")
        document_of(page, small_photo)
        wait_until_painted(preview(page))
        expect(part(page, "delivery")).to_contain_text("without a request")
        assert {path: counted.fetches(path) for path in rendition_urls(document)} == dict.fromkeys(rendition_urls(document), 1)


def test_reload_from_server_shows_a_cache_hit(page: Page, small_photo: Path) -> None:
    document_of(page, small_photo)
    page.get_by_role("button", name="Reload from server").click()
    expect(part(page, "delivery")).to_contain_text(re.compile(r"^Loaded from the server.s memory in \d+ ms\."))
    expect(part(page, "delivery")).to_contain_text("Cache-Status: darkroom; hit")


def test_request_to_a_busy_server_is_repeated_after_retry_after(page: Page, small_photo: Path, watches: list[Watch]) -> None:
    requested: list[str] = []

    def busy_at_first(route: Route) -> None:
        path = urlsplit(route.request.url).path
        requested.append(path)
        if requested.count(path) > 1:
            route.continue_()
        else:
            watches[0].expect_refusal(path)
            route.fulfill(status=503, headers={"Retry-After": "0"}, json={"title": "Too busy", "status": 503})

    page.route("**/i/**", busy_at_first)
    document = document_of(page, small_photo)
    assert {path for path in requested if document["digest"] in path} == set(rendition_urls(document))


def test_rendition_that_failed_shows_the_reason_and_can_be_reloaded(page: Page, small_photo: Path, watches: list[Watch]) -> None:
    problem = {"title": "Took too long", "status": 500, "detail": "It was not ready.", "remedy": "Ask again."}

    def fail(route: Route) -> None:
        watches[0].expect_refusal(urlsplit(route.request.url).path)
        route.fulfill(status=500, json=problem)

    page.route("**/*.webp", fail)
    choose(page, small_photo)
    expect(part(page, "measured")).to_have_text("6 of 8 measured, 2 failed")
    failed = step(page, "WebP, 320 pixels wide: failed")
    failed.check()
    expect(part(page, "caption")).to_contain_text("Took too long")
    expect(part(page, "delivery")).to_have_text("It was not ready. Ask again.")
    page.unroute("**/*.webp")
    page.get_by_role("button", name="Reload from server").click()
    expect(part(page, "measured")).to_have_text("7 of 8 measured, 1 failed")
    wait_until_painted(preview(page))


def test_format_that_the_browser_cannot_show_is_reported(page: Page, small_photo: Path) -> None:
    page.route("**/*.jxl", lambda route: route.fulfill(status=200, content_type="image/jxl", body=b"a codec of tomorrow"))
    document_of(page, small_photo)
    expect(part(page, "delivery")).to_have_text("This browser cannot show JPEG XL. Select another format.")
    step(page, "WebP, 480 pixels wide").check()
    wait_until_painted(preview(page))


def test_upload_shows_its_progress(page: Page, photo: Path) -> None:
    session = page.context.new_cdp_session(page)
    # A minute, of which all but the beginning passes at once.
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": photo.stat().st_size / 60}
    session.send("Network.emulateNetworkConditions", slow)
    choose(page, photo)
    expect(part(page, "progress-text")).to_contain_text("Uploading")
    expect(page.get_by_role("progressbar", name="Upload progress")).to_have_attribute("value", re.compile(r"^0\.0*[1-9]"))
    session.send("Network.emulateNetworkConditions", slow | {"uploadThroughput": -1})
    wait_until_measured(page)


def test_reload_shows_the_same_photo(page: Page, small_photo: Path) -> None:
    document = document_of(page, small_photo)
    assert page.url.endswith(f"#{document['digest']}")
    page.reload()
    wait_until_measured(page)
    assert part(page, "picture").text_content() == document["picture"]


def test_missing_token_is_requested_stored_for_the_tab_and_never_in_a_url(
    visit: Visit, guarded_url: str, small_photo: Path, watches: list[Watch]
) -> None:
    page = visit(guarded_url)
    watches[0].expect_refusal("/v1/images")
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    choose(page, small_photo)
    expect(page.get_by_role("alert")).to_contain_text("This request needs a token.")
    page.get_by_label("Access token").fill("not-the-token-0123456789")
    page.get_by_role("button", name="Use token").click()
    expect(page.get_by_label("Access token")).to_have_value("")
    page.get_by_label("Access token").fill(TOKEN)
    page.keyboard.press("Enter")
    wait_until_measured(page)
    wait_until_painted(preview(page))
    expect(part(page, "curl")).to_contain_text('-H "Authorization: Bearer $TOKEN"')
    page.reload()
    wait_until_measured(page)
    assert page.evaluate("localStorage.length") == 0
    assert not [url for url in [*requested, page.url] if TOKEN in url]


def test_urls_of_a_cdn_are_shown_unchanged_and_measured_on_the_server(visit: Visit, cdn_url: str, small_photo: Path) -> None:
    page = visit(cdn_url)
    document = document_of(page, small_photo)
    assert document["src"].startswith("https://img.example.com/photos/i/v3/")
    assert part(page, "picture").text_content() == document["picture"]
    assert part(page, "src").text_content() == document["src"]
    expect(part(page, "relative")).to_be_hidden()
    wait_until_painted(preview(page))


def test_unreachable_server_is_reported_and_the_upload_can_be_tried_again(page: Page, small_photo: Path, watches: list[Watch]) -> None:
    watches[0].expect_refusal("/v1/images")
    page.route("**/v1/images?*", lambda route: route.abort())
    choose(page, small_photo)
    expect(page.get_by_role("alert")).to_contain_text("The server could not be reached")
    page.unroute("**/v1/images?*")
    page.get_by_role("button", name="Try again").click()
    wait_until_measured(page)


def test_photo_and_rendition_can_be_chosen_with_only_the_keyboard(page: Page, photo: Path) -> None:
    # The listener is registered first, because without one the browser opens a dialog of the system.
    page.once("filechooser", lambda chooser: chooser.set_files(photo))
    button = page.get_by_role("button", name="Choose photos")
    for _ in range(5):
        page.keyboard.press("Tab")
        if button.evaluate("button => button === document.activeElement"):
            break
    expect(button).to_be_focused()
    assert button.evaluate("button => getComputedStyle(button).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    wait_until_measured(page)
    chosen = page.locator(".step input:checked")
    for _ in range(60):
        page.keyboard.press("Tab")
        if chosen.evaluate("input => input === document.activeElement"):
            break
    expect(chosen).to_be_focused()
    before = preview(page).get_attribute("src")
    page.keyboard.press("ArrowDown")
    expect(preview(page)).not_to_have_attribute("src", before or "")
    wait_until_painted(preview(page))


def test_page_on_a_phone_never_scrolls_sideways(visit: Visit, playground_url: str, small_photo: Path, watches: list[Watch]) -> None:
    page = visit(playground_url, viewport={"width": 360, "height": 740}, device_scale_factor=2, has_touch=True, is_mobile=True)
    watches[0].expect_refusal("/v1/images")
    sideways = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(sideways) == 0
    document_of(page, small_photo)
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    for tab in page.get_by_role("tab").all():
        tab.click()
        assert page.evaluate(sideways) == 0, tab.text_content()
    choose(page, {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"x" * 300})
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.evaluate(sideways) == 0


def test_page_with_reduced_motion_has_no_animations(visit: Visit, playground_url: str, small_photo: Path) -> None:
    page = visit(playground_url, reduced_motion="reduce")
    document_of(page, small_photo)
    wait_until_painted(preview(page))
    assert page.evaluate("document.getAnimations().length") == 0


def test_files_of_the_page_may_be_cached_for_a_year(page: Page) -> None:
    cache_control: dict[str, str] = {}

    def record(response: Response) -> None:
        path = urlsplit(response.url).path
        if path.startswith("/web/"):
            cache_control[path] = response.headers["cache-control"]

    page.on("response", record)
    page.reload()
    assert {path.rpartition(".")[2] for path in cache_control} >= {"css", "js", "svg"}
    assert all(re.fullmatch(r"/web/[\w-]+\.[a-z2-7]{16}\.\w+", path) for path in cache_control)
    assert set(cache_control.values()) == {"public, max-age=31536000, immutable"}


@pytest.mark.parametrize("name", SCREENSHOTS)
def test_screenshots_are_drawn_in_light_and_dark(visit: Visit, playground_url: str, photo_to_draw: Path, shots: Path, name: str) -> None:
    page = visit(playground_url, reduced_motion="reduce", **SCREENSHOTS[name])
    choose(page, {"name": "evening lake.jpg", "mimeType": "image/jpeg", "buffer": photo_to_draw.read_bytes()})
    wait_until_measured(page)
    # Change the saturation, so that the two sides of the divider differ.
    page.locator('[data-option="saturation"]').evaluate("row => { row.closest('details').open = true; }")
    page.locator('[data-option="saturation"] input[type=number]').fill("0.25")
    expect(part(page, "measured")).to_have_text(re.compile("^4 of"))
    expect(part(page, "divider")).to_be_visible()
    wait_until_painted(preview(page))
    page.evaluate("document.activeElement.blur()")
    if page.evaluate("innerWidth < 500"):
        page.locator(".preview").evaluate("preview => scrollTo(0, preview.getBoundingClientRect().top - 16)")
    else:
        page.evaluate("scrollTo(0, 0)")
    path = shots / f"{name}.png"
    page.screenshot(path=path)
    with Image.open(path) as drawn:
        (paper,) = ImageStat.Stat(drawn.crop((0, 0, 8, 8)).convert("L")).mean
        colors = drawn.convert("RGB")
        colors.quantize(palette=colors.quantize(256)).save(path, optimize=True)
    assert (paper > 200) == (SCREENSHOTS[name]["color_scheme"] == "light")
    assert path.stat().st_size < LARGEST_SHOT_BYTES
