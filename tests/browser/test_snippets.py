"""The playground's snippets work: in a site that Next.js builds, they show the renditions that fit the window."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Visit
from tests.browser.sites import serve_files, site_folder
from tests.browser.test_playground import document_of, part

CONFIG = """
import { deviceSizes } from "darkroom.js/next";
export default { output: "export", images: { deviceSizes, imageSizes: [] } };
"""

PAGE = """
import { Photo as ByNext } from "../by-next.jsx";
import { Photo as ByReact } from "../by-react.jsx";

export default function Page() {
  return (
    <main>
      <style>{"body { margin: 0 }"}</style>
      <ByNext style={{ width: "100%", height: "auto" }} />
      <ByReact style={{ width: "100%", height: "auto" }} />
    </main>
  );
}
"""


def snippet(page: Page, name: str, host: str) -> str:
    """Return a snippet with the URLs that it would have on a server with a public URL."""
    return (part(page, name).text_content() or "").replace("/i/v3/", f"{host}/i/v3/")


def build(folder: Path) -> None:
    environment = os.environ | {"NEXT_TELEMETRY_DISABLED": "1", "CI": "1", "NODE_ENV": "production"}
    npm = shutil.which("npm")
    assert npm is not None
    result = subprocess.run([npm, "run", "build"], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def images_on_page(chromium: Browser, url: str) -> list[tuple[str, int, str]]:
    """Return the chosen URL, the natural width and the alt text of every image on the page."""
    context = chromium.new_context(viewport={"width": 800, "height": 800})
    page = context.new_page()
    page.goto(url)
    page.evaluate("for (const one of document.images) one.loading = 'eager'")
    found: list[Any] = page.evaluate(
        "() => Promise.all([...document.images].map((one) => one.decode().then(() => [one.currentSrc, one.naturalWidth, one.alt])))"
    )
    context.close()
    return [(source, width, alt) for source, width, alt in found]


@pytest.mark.long
def test_snippets_for_nextjs_and_react_in_a_built_site_show_the_renditions_that_fit(
    visit: Visit, playground_url: str, chromium: Browser, photo: Path
) -> None:
    page = visit(playground_url)
    document = document_of(page, photo)
    part(page, "alt").fill('Evening {"light"} & <shade>.')
    page.keyboard.press("Enter")
    expect(part(page, "next")).to_contain_text("shade")
    with site_folder("next") as folder:
        # The site has pages of its own, which need its server.
        for entry in (folder / "app").iterdir():
            if entry.name != "layout.js":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        (folder / "next.config.mjs").write_text(CONFIG, "utf-8")
        (folder / "by-next.jsx").write_text(snippet(page, "next", playground_url), "utf-8")
        (folder / "by-react.jsx").write_text(snippet(page, "react", playground_url), "utf-8")
        (folder / "app" / "page.jsx").write_text(PAGE, "utf-8")
        build(folder)
        with serve_files(folder / "out") as site:
            by_next, by_react = images_on_page(chromium, site)
    urls = {(source["type"], rendition["width"]): rendition["url"] for source in document["sources"] for rendition in source["renditions"]}
    assert (urlsplit(by_next[0]).path, by_next[1]) == (urls["image/webp", 960], 800)
    assert (urlsplit(by_react[0]).path, by_react[1]) == (urls["image/jxl", 960], 800)
    assert by_next[2] == by_react[2] == 'Evening {"light"} & <shade>.'
