"""A page of another origin uploads a photo with the form of docs/api.md, and shows the picture."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.server import Server, darkroom
from tests.support.waiting import PATIENCE_SECONDS

API_PAGE = Path(__file__).parents[2] / "docs" / "api.md"
MAX_BYTES = 1_000_000


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the overridden method
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    """Yield the URL of a server of static pages."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=folder)) as static:
        thread = threading.Thread(target=static.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{static.server_port}"
        static.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def images_server(site: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with darkroom(tmp_path_factory.mktemp("images"), cors_origins=site) as server:
        yield server


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    page = chromium.new_page()
    page.set_default_timeout(1_000 * PATIENCE_SECONDS)
    yield page
    page.close()


def example() -> str:
    """Return the form of the documentation, of 20 lines at most."""
    (found,) = re.findall(r"<!-- upload form: .*? -->\n```html\n(.*?)```", API_PAGE.read_text("utf-8"), re.DOTALL)
    assert len(found.splitlines()) <= 20
    return str(found)


def open_form(page: Page, server: Server, site: str, folder: Path, **wanted: object) -> None:
    """Open a page with the form, whose URLs are relative to the image server."""
    url = httpx.post(f"{server.url}/v1/uploads", json=wanted, trust_env=False, timeout=PATIENCE_SECONDS).json()["url"]
    html = f'<!doctype html><base href="{server.url}/"><title>Upload</title>{example().replace("UPLOAD_URL", url)}'
    (folder / "index.html").write_text(html)
    page.goto(f"{site}/index.html")


def send(page: Page, file: Path) -> None:
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_role("button", name="Upload").click()


def test_page_of_another_origin_uploads_a_photo_and_shows_it(
    page: Page, images_server: Server, site: str, folder: Path, photo: Path
) -> None:
    open_form(page, images_server, site, folder, max_bytes=MAX_BYTES, formats=["jpeg"])
    send(page, photo)
    page.wait_for_function("() => document.images[0]?.complete && document.images[0].naturalWidth > 0")
    assert page.evaluate("() => document.images[0].currentSrc").startswith(f"{images_server.url}/i/")
    assert (
        images_server.data / "store" / "originals" / page.evaluate("() => document.images[0].currentSrc").split("/")[5]
    ).read_bytes() == (photo.read_bytes())
    # The same form again: the error can be read.
    send(page, photo)
    expect(page.locator("output")).to_have_text("This upload URL has been used. Request a new upload URL with POST /v1/uploads.")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"formats": ["png"]}, "This upload URL does not take images of this format."),
        ({"max_bytes": 20_000}, "The request's body is too large."),
    ],
)
def test_page_of_another_origin_reads_why_an_upload_is_refused(
    page: Page, images_server: Server, site: str, folder: Path, photo: Path, *, wanted: dict[str, object], message: str
) -> None:
    open_form(page, images_server, site, folder, **wanted)
    send(page, photo)
    expect(page.locator("output")).to_contain_text(message)


def test_page_sends_the_file_itself_with_put_after_a_preflight(
    page: Page, images_server: Server, site: str, folder: Path, photo: Path
) -> None:
    open_form(page, images_server, site, folder)
    page.locator("input[type=file]").set_input_files(photo)
    status = page.evaluate(
        """async () => {
          const [form] = document.forms;
          const [file] = form.elements.file.files;
          const response = await fetch(form.action, { method: "PUT", body: file });
          return [response.status, (await response.json()).bytes, response.headers.get("ETag") !== null];
        }"""
    )
    assert status[0] in {200, 201}
    assert status[1:] == [photo.stat().st_size, True]


def test_page_of_an_origin_that_is_not_listed_cannot_read_the_response(page: Page, images_server: Server, site: str, folder: Path) -> None:
    open_form(page, images_server, site.replace("127.0.0.1", "localhost"), folder)
    found = page.evaluate("() => fetch(document.forms[0].action, { method: 'POST', body: 'x' }).then(() => 'read', (error) => error.name)")
    assert found == "TypeError"


def test_form_without_a_script_shows_the_document(chromium: Browser, images_server: Server, site: str, folder: Path, photo: Path) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_default_timeout(1_000 * PATIENCE_SECONDS)
    open_form(page, images_server, site, folder)
    send(page, photo)
    expect(page.locator("body")).to_contain_text('"digest":')
    context.close()
