"""The playground's controls: the options of a transform, and the alt text and the focal point that are stored with an image."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from service.images.options import API_OPTIONS
from tests.browser.conftest import TOKEN, Visit, Watch
from tests.browser.test_playground import as_payload, choose, part, preview, wait_until_measured, wait_until_painted
from tests.support.server import darkroom

READER = "reader-token-for-tests-0123"


@pytest.fixture(scope="module")
def reading_url(tmp_path_factory: pytest.TempPathFactory, small_photo: Path) -> Iterator[tuple[str, str]]:
    """The URL of a server that has a token with only the scope `read`, and the digest of an image on it."""
    with darkroom(tmp_path_factory.mktemp("reading"), tokens=f"{READER}:read,{TOKEN}") as server, server.client() as client:
        response = client.post("/v1/images", content=small_photo.read_bytes(), headers={"Authorization": f"Bearer {TOKEN}"})
        yield server.url, response.json()["digest"]


def choose_and_measure(page: Page, photo: Path) -> str:
    """Choose a photo, wait until its renditions are measured, and return its digest."""
    choose(page, photo)
    expect(page.get_by_role("heading", name=photo.name)).to_be_visible()
    wait_until_measured(page)
    return urlsplit(page.url).fragment


def option(page: Page, key: str) -> Locator:
    row = page.locator(f'[data-option="{key}"]')
    row.evaluate("row => { row.closest('details').open = true; }")
    return row


def requested_transform(page: Page) -> dict[str, Any]:
    """Return the transform of the page's last request, from its curl command."""
    found = re.search(r"--json '(.*)'$", part(page, "request").text_content() or "")
    assert found is not None
    transform: dict[str, Any] = json.loads(found[1]).get("transform", {})
    return transform


def test_every_option_of_the_api_has_a_control_with_its_help(page: Page, small_photo: Path) -> None:
    choose_and_measure(page, small_photo)
    rows = page.locator("[data-option]")
    assert set(rows.evaluate_all("rows => rows.map(row => row.dataset.option)")) == set(API_OPTIONS)
    for key, known in API_OPTIONS.items():
        row = page.locator(f'[data-option="{key}"]')
        assert row.locator(".hint").text_content() == known.help.replace("`", "")
        assert row.locator("input, select").count() > 0


def test_each_kind_of_control_changes_the_requested_transform(page: Page, small_photo: Path) -> None:
    choose_and_measure(page, small_photo)
    option(page, "width").get_by_role("spinbutton").fill("200")
    option(page, "flip").get_by_role("combobox").select_option("vertical")
    option(page, "lossless").get_by_role("switch").check()
    for name, value in (("Left %", "10"), ("Width %", "50")):
        option(page, "crop").get_by_role("spinbutton", name=name).fill(value)
    option(page, "saturation").locator("input[type=range]").evaluate(
        "scale => { scale.value = 2; scale.dispatchEvent(new Event('input')); }"
    )
    option(page, "pad").get_by_role("textbox").fill("4 8")
    option(page, "background").get_by_label("Background color").fill("#336699")
    option(page, "round").get_by_role("checkbox", name="max").check()
    wanted = {
        "width": 200,
        "flip": "vertical",
        "lossless": True,
        "crop": ["10%", "0%", "50%", "100%"],
        "saturation": 2,
        "pad": ["4", "8"],
        "background": "#336699",
        "round": "max",
    }
    canonical = "crop=10p:0p:50p:100p,flip=vertical,width=200,saturation=2,round=max,pad=4:8,background=336699,lossless=true"
    expect(part(page, "url")).to_contain_text(f"/{canonical}/")
    assert requested_transform(page) == wanted
    # Options are reset one by one, or all at once.
    page.get_by_role("button", name="Reset Crop").click()
    expect(part(page, "url")).not_to_contain_text("crop=")
    page.get_by_role("button", name="Reset all").click()
    expect(part(page, "request")).to_contain_text("--json '{}'")
    expect(option(page, "width").get_by_role("spinbutton")).to_have_value("")


def test_options_for_the_page_are_requested_and_in_every_snippet(page: Page, small_photo: Path) -> None:
    choose_and_measure(page, small_photo)
    option(page, "ratio").get_by_role("combobox").fill("16:9")
    expect(part(page, "url")).to_contain_text("ratio=16:9/")
    page.get_by_role("switch", name="Largest image of the first view").check()
    page.get_by_role("combobox", name="On narrow screens").select_option("4:5")
    expect(part(page, "request")).to_contain_text(
        '{"transform":{"ratio":"16:9"},"priority":true,"art_direction":[{"media":"(max-width: 40em)","transform":{"ratio":"4:5"}}]}'
    )
    for name, eager in (("picture", 'fetchpriority="high"'), ("react", 'fetchPriority="high"')):
        expect(part(page, name)).to_contain_text('<source media="(max-width: 40em)"')
        expect(part(page, name)).to_contain_text(f'loading="eager" {eager}')
        expect(part(page, name)).not_to_contain_text("auto,")
    expect(part(page, "plain")).to_contain_text('loading="eager" fetchpriority="high"')
    expect(part(page, "next")).to_contain_text('loading="eager" fetchPriority="high"')
    expect(part(page, "next")).not_to_contain_text("ratio=4:5")
    expect(part(page, "document")).to_contain_text('"preload"')
    # The table and the preview are those of the picture itself.
    assert page.locator("[data-part=formats] th").all_text_contents() == ["Width", "JPEG XL", "AVIF", "WebP", "JPEG"]
    page.get_by_role("combobox", name="On narrow screens").select_option("")
    page.get_by_role("switch", name="Largest image of the first view").uncheck()
    expect(part(page, "request")).to_contain_text('--json \'{"transform":{"ratio":"16:9"}}\'')


@pytest.mark.long
def test_overlay_is_requested_once_it_has_an_image(page: Page, small_photo: Path, transparent_picture: Path) -> None:
    badge = choose_and_measure(page, transparent_picture)
    choose_and_measure(page, small_photo)
    row = option(page, "overlay")
    row.get_by_label("Gravity").select_option("southeast")
    row.get_by_label("Digest").fill(badge)
    expect(part(page, "url")).to_contain_text(f"overlay={badge}:southeast")
    wait_until_painted(preview(page))


def test_contradictory_transform_shows_the_error_beside_the_controls_and_the_last_picture(
    page: Page, small_photo: Path, watches: list[Watch]
) -> None:
    digest = choose_and_measure(page, small_photo)
    watches[0].expect_refusal(f"/v1/images/{digest}/urls")
    before = part(page, "url").text_content()
    option(page, "fit").get_by_role("combobox").select_option("cover")
    message = part(page, "transform-problem").get_by_role("alert")
    for text in ("Bad transform", "`fit=cover` needs a box.", "width and height", "Give both, or leave `fit` out."):
        expect(message).to_contain_text(text)
    expect(message.get_by_role("link", name="More about this")).to_have_attribute("href", "/problems/bad-transform")
    expect(option(page, "fit").get_by_role("combobox")).to_have_attribute("aria-invalid", "true")
    assert part(page, "url").text_content() == before
    for key in ("width", "height"):
        option(page, key).get_by_role("spinbutton").fill("100")
    expect(message).to_have_count(0)
    expect(option(page, "fit").get_by_role("combobox")).to_have_attribute("aria-invalid", "false")
    expect(part(page, "url")).to_contain_text("width=100,height=100,fit=cover")


@pytest.mark.long
def test_transform_is_rendered_only_at_the_selected_width_until_all_are_measured(page: Page, photo: Path) -> None:
    choose_and_measure(page, photo)
    option(page, "grayscale").get_by_role("switch").check()
    expect(part(page, "measured")).to_have_text("4 of 16 measured")
    page.get_by_role("button", name="Measure all").click()
    wait_until_measured(page)


def test_change_by_someone_else_is_shown_before_it_can_be_overwritten(
    page: Page, small_photo: Path, playground_url: str, watches: list[Watch]
) -> None:
    digest = choose_and_measure(page, small_photo)
    path = f"/v1/images/{digest}"
    watches[0].expect_refusal(path)
    theirs = page.request.patch(playground_url + path, data={"alt": "Theirs."}, headers={"If-Match": "*"})
    assert theirs.ok
    alt = part(page, "alt")
    alt.fill("Mine.")
    page.keyboard.press("Enter")
    message = part(page, "subject-problem")
    expect(message).to_contain_text("Someone else changed this image after you opened it.")
    expect(message).to_contain_text("yours (“Mine.”) was not saved.")
    expect(alt).to_have_value("Theirs.")
    page.get_by_role("button", name="Overwrite with mine").click()
    expect(part(page, "status")).to_have_text("Alt text saved.")
    expect(message).to_be_empty()
    assert page.request.get(playground_url + path).json()["alt"] == "Mine."


@pytest.mark.long
def test_focal_point_is_set_by_keyboard_and_removed(page: Page, photo: Path, playground_url: str) -> None:
    digest = choose_and_measure(page, photo)
    page.get_by_role("slider", name="Horizontal").focus()
    page.keyboard.press("Home")
    expect(part(page, "focal-said")).to_have_text("Focal point: 0% from the left, 50% from the top. Crops keep it in view.")
    assert page.request.get(f"{playground_url}/v1/images/{digest}").json()["focal"] == [0, 0.5]
    page.get_by_role("button", name="Preview a square crop").click()
    expect(part(page, "url")).to_contain_text("width=600,height=600,fit=cover,gravity=focal:0:0.5")
    page.get_by_role("button", name="Remove").click()
    expect(part(page, "status")).to_have_text("Focal point removed.")
    expect(part(page, "url")).not_to_contain_text("focal")


def test_token_without_a_scope_shows_an_error_that_names_it(visit: Visit, reading_url: tuple[str, str], watches: list[Watch]) -> None:
    url, digest = reading_url
    page = visit(f"{url}/#{digest}")
    for path in ("/v1/images", f"/v1/images/{digest}"):
        watches[0].expect_refusal(path)
    page.get_by_label("Access token").fill(READER)
    page.get_by_role("button", name="Use token").click()
    wait_until_measured(page)
    part(page, "alt").fill("Hills.")
    page.keyboard.press("Enter")
    message = part(page, "subject-problem")
    expect(message).to_contain_text("a token with the scope `ingest`")
    expect(message).to_contain_text("a token with read")
    message.get_by_label("Access token").fill(TOKEN)
    # The change that failed is sent again with the new token.
    message.get_by_role("button", name="Use token").click()
    expect(part(page, "status")).to_have_text("Alt text saved.")
    assert TOKEN not in page.url


def test_recent_images_are_listed_in_pages_and_can_be_opened(visit: Visit, tmp_path: Path, small_photo: Path) -> None:
    with darkroom(tmp_path / "data") as server, server.client() as client:
        digests = []
        for number in range(14):
            path = tmp_path / f"{number}.png"
            Image.new("RGB", (40, 30), (number * 17, 90, 120)).save(path)
            digests.append(client.post("/v1/images", content=path.read_bytes()).json()["digest"])
        page = visit(server.url)
        recents = page.get_by_role("region", name="Recent images")
        expect(recents.get_by_role("listitem")).to_have_count(12)
        expect(recents.get_by_role("listitem").first).to_contain_text(digests[-1][:8])
        page.get_by_role("button", name="Show older images").click()
        expect(recents.get_by_role("listitem")).to_have_count(14)
        expect(page.get_by_role("button", name="Show older images")).to_be_hidden()
        recents.get_by_role("button", name=digests[0][:8]).click()
        wait_until_measured(page)
        assert urlsplit(page.url).fragment == digests[0]
        page.context.close()


@pytest.mark.long
def test_original_that_the_browser_cannot_show_is_replaced_by_a_lossless_rendition(page: Page, photo: Path, tmp_path: Path) -> None:
    scan = tmp_path / "scan.tif"
    with Image.open(photo) as picture:
        picture.resize((300, 225)).save(scan)
    choose_and_measure(page, scan)
    expect(part(page, "before")).to_have_attribute("src", re.compile(r"^/i/v3/.*lossless=true/"))
    expect(part(page, "divider")).to_be_visible()
    expect(part(page, "original")).to_have_attribute("src", re.compile(r"^/i/v3/"))


def test_help_of_an_option_opens_beside_it_and_closes_again(page: Page, small_photo: Path) -> None:
    choose_and_measure(page, small_photo)
    row = option(page, "fit")
    button, hint = row.get_by_role("button", name="Help for Fit"), row.locator(".hint")
    height = row.evaluate("row => row.offsetHeight")
    button.click()
    expect(button).to_have_attribute("aria-expanded", "true")
    expect(hint).to_contain_text("fills the box, cropped")
    assert hint.evaluate("hint => hint.offsetWidth") > 100
    assert row.evaluate("row => row.offsetHeight") > height
    button.click()
    expect(button).to_have_attribute("aria-expanded", "false")
    assert row.evaluate("row => row.offsetHeight") == height


def test_picture_and_controls_fit_into_a_window_of_1280_by_800(visit: Visit, playground_url: str, photo: Path) -> None:
    page = visit(playground_url, viewport={"width": 1280, "height": 800})
    choose_and_measure(page, photo)
    wait_until_painted(preview(page))
    frame, controls = part(page, "frame").bounding_box(), option(page, "gravity").bounding_box()
    assert frame is not None
    assert controls is not None
    assert frame["height"] >= 300
    assert frame["y"] + frame["height"] <= 800
    assert controls["y"] + controls["height"] <= 800


@pytest.mark.long
def test_picture_replaces_its_placeholder_when_it_has_loaded(page: Page, photo: Path) -> None:
    choose_and_measure(page, photo)
    wait_until_painted(preview(page))
    page.get_by_role("button", name="Replay loading").click()
    expect(preview(page)).to_have_count(0)
    expect(part(page, "placeholder")).to_be_visible()
    wait_until_painted(preview(page))
    expect(part(page, "frame")).not_to_have_class(re.compile("arriving"))


def test_tabs_are_selected_with_the_arrow_keys(page: Page, small_photo: Path) -> None:
    choose_and_measure(page, small_photo)
    page.get_by_role("tab", name="<picture>").focus()
    for key, name in (
        ("ArrowRight", "Next.js"),
        ("End", "curl"),
        ("ArrowRight", "<picture>"),
        ("ArrowLeft", "curl"),
        ("Home", "<picture>"),
    ):
        page.keyboard.press(key)
        tab = page.get_by_role("tab", name=name)
        expect(tab).to_be_focused()
        expect(tab).to_have_attribute("aria-selected", "true")
        expect(page.get_by_role("tabpanel", name=name)).to_be_visible()
        assert page.get_by_role("tabpanel").count() == 1


@pytest.mark.long
def test_several_photos_can_be_dropped_at_once(page: Page, small_photo: Path, transparent_picture: Path) -> None:
    transfer = page.evaluate_handle(
        """photos => {
          const transfer = new DataTransfer();
          for (const { name, content } of photos) {
            transfer.items.add(new File([Uint8Array.from(atob(content), (character) => character.charCodeAt(0))], name));
          }
          return transfer;
        }""",
        [as_payload(small_photo), as_payload(transparent_picture)],
    )
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    sheet = page.get_by_role("region", name="Photos", exact=True)
    expect(sheet.get_by_role("button")).to_have_count(3)
    expect(sheet.locator('[data-state="ready"]')).to_have_count(2)
