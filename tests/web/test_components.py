"""The entries of the package darkroom.js beside the packages of a site: their types, their HTML on servers, and their size in bundles."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.images.transform import PIPELINE_VERSION, Transform
from service.urls.rendition_url import RenditionUrl
from service.urls.signing import Signer, UrlBuilder
from service.urls.source_url import SourceUrl
from tests.browser.sites import site_folder
from tests.support.renders import LIMITS
from tests.web.conftest import WEB, DarkroomJs
from tests.web.test_darkroom_js import DIGEST, HDR, OPEN, document

pytestmark = pytest.mark.long

GUIDE = (WEB.parents[1] / "docs" / "frameworks.md").read_text("utf-8")
FRAMEWORKS = ("react", "svelte", "vue")
SERVER = {"base": "https://img.example.com"}

# The limit of issue 14 for what a loader adds to a bundle.
MAX_LOADER_BYTES = 1_536

# What a site uses of each entry, by the name that the guide gives it.
CODE = {
    "loader of `/next`": 'import { loader } from "darkroom.js/next"; export default loader({ base: "https://img.example.com" });',
    "transformer of `/unpic`": 'import { transformer } from "darkroom.js/unpic"; export default transformer({ base: "" });',
    "provider of `/nuxt`": 'export { default } from "darkroom.js/nuxt";',
    "provider of `/nuxt/manifest`": 'export { default } from "darkroom.js/nuxt/manifest";',
    "service of `/astro`": 'export { default } from "darkroom.js/astro";',
    "`Picture` of `/react`": 'export { Picture } from "darkroom.js/react";',
    "`Picture` of `/vue`": 'export { Picture } from "darkroom.js/vue";',
    "`picture` of the main module": 'export { picture } from "darkroom.js";',
    "`signer` of `/sign`": 'export { signer } from "darkroom.js/sign";',
}
LOADERS = ("loader of `/next`", "transformer of `/unpic`", "provider of `/nuxt`")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with site_folder("entries") as site:
        yield site


def run(folder: Path, *command: str) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout


class _Elements(HTMLParser):
    """Collects the elements with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # Svelte records the event of an image that loads before its script has run.
        own = [(name, value or "") for name, value in attrs if value != "this.__e=event"]
        self.found.append((tag, dict(own)))


def elements(html: str) -> list[tuple[str, dict[str, str]]]:
    parser = _Elements()
    parser.feed(html)
    return parser.found


def test_entries_in_typed_code_compile(folder: Path) -> None:
    assert run(folder, "node_modules/.bin/tsc", "--project", ".") == ""


def test_components_on_a_server_have_the_markup_of_the_service(folder: Path, js: DarkroomJs) -> None:
    builder = UrlBuilder(Signer([bytes(32)], OPEN), SERVER["base"], LIMITS)
    photo = document()
    hdr = {"alt": "", **msgspec.to_builtins(builder.markup(DIGEST, HDR, Transform(dynamic_range="high")))}
    options: list[dict[str, Any]] = [
        {},
        {"alt": '"<&', "sizes": "50vw", "priority": True},
        {"width": 300, "loading": "eager", "id": "boat"},
    ]
    cases = [({"image": image, **one}, js("picture", image, one)) for image in (photo, hdr) for one in options]
    servers: list[dict[str, Any]] = [
        {**SERVER, "src": DIGEST, "width": 2400, "height": 1800},
        {**SERVER, "src": "a/b.jpg", "source": "shop", "widths": [100], "variant": "ratio=1:1", "formats": ["png"]},
    ]
    cases += [({**server, "alt": "", **one}, js("picture", js("ladder", server), one)) for server in servers for one in options[:2]]
    rendered = json.loads(run(folder, "node", "render.js", json.dumps([properties for properties, _ in cases])))
    for found, (_, expected) in zip(rendered, cases, strict=True):
        assert {framework: elements(found[framework]) for framework in FRAMEWORKS} == dict.fromkeys(FRAMEWORKS, elements(expected))
        for framework in FRAMEWORKS:
            # Browsers fetch `src` at once if they do not know the candidates yet.
            assert list(elements(found[framework])[-1][1])[-2:] == ["srcset", "src"], framework


def test_signer_with_noble_hashes_signs_as_the_server_does(folder: Path) -> None:
    urls: list[RenditionUrl | SourceUrl] = [RenditionUrl(PIPELINE_VERSION, DIGEST, f"width={width}", "webp") for width in range(1, 50)]
    fields = [*map(msgspec.to_builtins, urls), {"source": "shop", "path": "ä b.jpg", "transform": "width=320"}]
    urls.append(SourceUrl("shop", "ä b.jpg", "width=320", "auto"))
    for length in (16, 64, 65, 100):
        key = bytes(range(length))
        signed = json.loads(run(folder, "node", "sign.js", json.dumps([key.hex(), fields])))
        assert signed == [Signer([key]).sign(url) for url in urls]


def test_entries_in_a_bundle_have_the_size_that_the_guide_gives(folder: Path) -> None:
    sizes = json.loads(run(folder, "node", "size.js", json.dumps(CODE)))
    for name in LOADERS:
        assert sizes[name]["gzip"] <= MAX_LOADER_BYTES
        assert sizes[name]["brotli"] <= MAX_LOADER_BYTES
    # A bundler that is not one for Node.js takes the package.
    assert sizes["`signer` of `/sign`"]["imports"] == ["@noble/hashes/hmac.js", "@noble/hashes/sha2.js"]
    rows = re.findall(r"^\| (.+?) \| ([0-9.]+) KB \| ([0-9.]+) KB \| ([0-9.]+) KB \|$", GUIDE, re.MULTILINE)
    assert [name for name, *_ in rows] == list(CODE)
    for name, *figures in rows:
        measured = [sizes[name][kind] / 1_000 for kind in ("bytes", "gzip", "brotli")]
        assert [float(figure) for figure in figures] == pytest.approx(measured, rel=0.1), name
