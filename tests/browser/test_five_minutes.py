"""The first five minutes with Darkroom: drop a photo, look at it, change it, set its focal point and alt text, copy the snippets."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image, ImageChops, ImageStat
from playwright.sync_api import Locator, Page, expect

from tests.browser.axe import axe_source, serious_violations, violations
from tests.browser.conftest import Visit
from tests.browser.test_playground import part, preview, wait_until_measured, wait_until_painted

SCREENS: dict[str, dict[str, Any]] = {
    "desktop": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "phone": {
        "color_scheme": "dark",
        "viewport": {"width": 360, "height": 740},
        "device_scale_factor": 2,
        "has_touch": True,
        "is_mobile": True,
    },
}


GRAY_SQUARE = {"width": 400, "height": 400, "fit": "cover", "grayscale": True}
ALT = 'Evening "light".'


@pytest.fixture
def screen_photo(photo: Path, tmp_path: Path, screen: str) -> Path:
    """A different photo for each screen, because the alt text and the focal point of an image are stored on the server."""
    path = tmp_path / f"evening on a {screen}.jpg"
    with Image.open(photo) as picture:
        picture.crop((0, 0, 1200, 896 if screen == "phone" else 898)).save(path, quality=90)
    return path


@pytest.fixture(scope="module")
def axe() -> str:
    return axe_source()


def drop(page: Page, *photos: Path) -> None:
    """Drag files from the desktop onto the page and drop them, with the events that the browser itself sends."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(photo) for photo in photos], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 150, "y": 300, "data": data})
        if kind == "dragOver":
            expect(part(page, "landing")).to_be_visible()


def option(page: Page, key: str) -> Locator:
    """Open the group of an option and return its control."""
    row = page.locator(f'[data-option="{key}"]')
    row.evaluate("row => { row.closest('details').open = true; }")
    return row


def open_all_details(page: Page) -> None:
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")


def colorfulness(picture: Image.Image) -> float:
    """Return how far a picture is from gray: the mean difference between red and blue, 0 to 255."""
    red, _, blue = picture.convert("RGB").split()
    (mean,) = ImageStat.Stat(ImageChops.difference(red, blue)).mean
    return float(mean)


# On a phone it is the same page; that it fits there is checked by `test_playground.py` in `make test` too.
@pytest.mark.parametrize("screen", ["desktop", pytest.param("phone", marks=pytest.mark.long)])
def test_five_minutes_from_a_dropped_photo_to_a_page(visit: Visit, playground_url: str, screen_photo: Path, screen: str, axe: str) -> None:
    page = visit(playground_url, reduced_motion="reduce", permissions=["clipboard-read", "clipboard-write"], **SCREENS[screen])
    assert serious_violations(violations(page, axe)) == []

    drop(page, screen_photo)
    expect(page.get_by_role("heading", name=screen_photo.name)).to_be_visible()
    wait_until_measured(page)
    wait_until_painted(preview(page))
    expect(part(page, "before")).to_have_attribute("src", re.compile("^blob:"))
    images = f"{playground_url}/v1/images/{urlsplit(page.url).fragment}"

    request_a_gray_square(page)
    compare_with_the_original(page)
    set_focal_point_alt_text_and_name(page)
    document = page.request.get(images).json()
    assert document["focal"] == pytest.approx([0.75, 0.25], abs=0.01)
    assert document["alt"] == ALT
    assert document["name"] == "evening-light"
    page.get_by_role("combobox", name="Display width").fill("50vw")
    expect(part(page, "picture")).to_contain_text('sizes="50vw"')
    copy_the_snippets(page, page.request.post(f"{images}/urls", data={"transform": GRAY_SQUARE, "sizes": "50vw"}).json())

    # Accessible in the light and in the dark color scheme.
    open_all_details(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert serious_violations(violations(page, axe)) == []
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0


def request_a_gray_square(page: Page) -> None:
    for key in ("width", "height"):
        option(page, key).get_by_role("spinbutton").fill("400")
    option(page, "fit").get_by_role("combobox").select_option("cover")
    option(page, "grayscale").get_by_role("switch").check()
    expect(part(page, "url")).to_contain_text("width=400,height=400,fit=cover,grayscale=true")
    expect(part(page, "caption")).to_contain_text("JPEG XL, 400 × 400,")
    # The sizes of all formats are compared.
    bars = page.get_by_role("list", name="Formats at this width").get_by_role("listitem")
    expect(bars).to_have_text(
        [
            re.compile(r"^JPEG XL[\d.]+ kB\d+% saved$"),
            re.compile(r"^AVIF[\d.]+ kB\d+% saved$"),
            re.compile(r"^WebP[\d.]+ kB\d+% \w+$"),
            re.compile(r"^JPEG[\d.]+ kB$"),
        ]
    )
    rendition = Image.open(io.BytesIO(page.request.get(part(page, "url").text_content() or "").body()))
    assert rendition.size == (400, 400)
    assert colorfulness(rendition) < 2


def compare_with_the_original(page: Page) -> None:
    """Move the divider with the keyboard and the mouse; the picture is colored on its left and gray on its right."""
    expect(part(page, "divider")).to_be_visible()
    part(page, "split").focus()
    page.keyboard.press("Home")
    expect(part(page, "split")).to_have_attribute("aria-valuetext", "0% original")
    frame = part(page, "frame")
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 2, box["y"] + box["height"] / 3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 3, steps=4)
    page.mouse.up()
    expect(part(page, "split")).to_have_attribute("aria-valuetext", re.compile(r"^(49|50|51)% original$"))
    expect(part(page, "before")).to_have_attribute("src", re.compile("lossless=true"))
    shown = Image.open(io.BytesIO(frame.screenshot()))
    # The lowest quarter, which has neither labels nor the handle of the divider.
    left = shown.crop((8, shown.height * 3 // 4, shown.width // 2 - 8, shown.height - 8))
    right = shown.crop((shown.width // 2 + 8, shown.height * 3 // 4, shown.width - 8, shown.height - 8))
    assert colorfulness(left) > 20
    assert colorfulness(right) < 4


def set_focal_point_alt_text_and_name(page: Page) -> None:
    original = part(page, "original")
    original.scroll_into_view_if_needed()
    size = original.bounding_box()
    assert size is not None
    original.locator("..").click(position={"x": size["width"] * 0.75, "y": size["height"] * 0.25})
    expect(part(page, "status")).to_have_text("Focal point saved.")
    expect(part(page, "url")).to_contain_text("gravity=focal:0.7")
    page.get_by_role("textbox", name="Alt text").fill(ALT)
    page.keyboard.press("Enter")
    expect(part(page, "status")).to_have_text("Alt text saved.")
    expect(part(page, "picture")).to_contain_text("Evening &quot;light&quot;.")
    name = page.get_by_role("textbox", name="Name in URLs")
    expect(name).not_to_have_value("")
    name.fill("evening-light")
    page.keyboard.press("Enter")
    expect(part(page, "status")).to_have_text("Name saved.")


def copy_the_snippets(page: Page, expected: dict[str, Any]) -> None:
    """Copy the snippets, whose URLs have to be those of `expected`, the server's response to the same request."""
    assert part(page, "picture").text_content() == expected["picture"]
    urls = {link["url"] for source in expected["sources"] for link in source["renditions"]}
    for tab, line in (("Next.js", 'import Image from "next/image";'), ("React", "export function Photo(props) {")):
        page.get_by_role("tab", name=tab).click()
        page.get_by_role("button", name=f"Copy {tab}").click()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert line in copied
        assert set(re.findall(r'/i/v3/[^" ]+', copied)) <= urls
        assert r'alt={"Evening \"light\"."}' in copied


@pytest.mark.parametrize("path", ["/docs", "/problems/bad-transform"])
def test_pages_about_the_api_are_accessible_and_need_no_other_host(visit: Visit, playground_url: str, axe: str, path: str) -> None:
    page = visit(playground_url + path, color_scheme="dark")
    if path == "/docs":
        page.get_by_role("button", name=re.compile("Upload an image")).first.click()
        expect(page.get_by_text("The same bytes are already stored.", exact=True)).to_be_visible()
        # The accessibility of Swagger UI itself is outside this project.
        page.evaluate("document.getElementById('api').remove()")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert serious_violations(violations(page, axe)) == []
