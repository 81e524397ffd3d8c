"""`/llms.txt` and the guides as Markdown: every link works on the server, and nothing is named that does not exist."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from service.errors import every_problem
from service.http.guides import GUIDES, llms_text, read_guides, servable
from service.http.openapi.operations import OPERATIONS
from service.images.options import API_OPTIONS, OPTIONS
from service.settings.environment import load
from service.settings.help import CLIENT_HELP, HELP
from service.settings.sections import Settings
from service.urls.unsigned import UnsignedTransforms, unsigned_transforms
from tests.support import images

DOCS = Path(__file__).parents[2] / "docs"
GUIDE_PATHS = [f"/docs/{name}.md" for name in GUIDES]
PATHS = ["/llms.txt", *GUIDE_PATHS]


def without_code(markdown: str) -> str:
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "code", markdown, flags=re.MULTILINE | re.DOTALL)


def links(markdown: str) -> list[str]:
    return re.findall(r"\]\(([^)]*)\)", without_code(markdown))


def anchors(markdown: str) -> set[str]:
    """Return the fragments of the headings, as GitHub and other renderers of Markdown make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def index(settings: Settings | None = None, unsigned: UnsignedTransforms | None = None) -> str:
    return llms_text(settings or Settings(), unsigned or unsigned_transforms((), open_ladder=True))


def test_index_names_the_sources_of_the_server_and_no_place() -> None:
    assert "this server has no sources" in index()
    text = index(load({"DARKROOM_SOURCES": "shop=s3://hidden-bucket/prefix; cms=https://cms.test"}))
    assert "the sources `shop`, `cms`." in text
    assert "`/from/shop/2026/panda%201.jpg/width=640/-.webp`" in text
    assert "hidden-bucket" not in text
    assert "cms.test" not in text


def test_guides_are_the_pages_of_the_docs() -> None:
    assert sorted(GUIDES) == sorted(page.stem for page in DOCS.glob("*.md"))
    assert [(DOCS / f"{name}.md").read_text("utf-8").partition("\n")[0] for name in GUIDES] == [
        guide.partition("\n")[0] for guide in read_guides().values()
    ]


@pytest.mark.parametrize("path", PATHS)
def test_page_is_text_that_caches_revalidate(client: httpx.Client, path: str) -> None:
    page = client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"] == f"text/{'plain' if path == '/llms.txt' else 'markdown'}; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert re.fullmatch(r'"[a-z2-7]{16}"', page.headers["etag"])
    assert page.text.startswith("# ")
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length", "etag", "cache-control"):
        assert head.headers[name] == page.headers[name]
    unchanged = client.get(path, headers={"If-None-Match": page.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


@pytest.mark.parametrize("path", PATHS)
def test_links_of_a_page_work_on_the_server(client: httpx.Client, path: str) -> None:
    text = client.get(path).text
    assert not re.search(r"!\[|<img|<a |href=|<!--|^\[[^\]]+\]:", without_code(text), re.MULTILINE)
    for link in links(text):
        if link.startswith("https://"):
            continue
        target, _, fragment = urljoin(path, link).partition("#")
        response = client.get(target, follow_redirects=True)
        assert response.status_code == 200, link
        assert not fragment or fragment in anchors(response.text), link


def test_page_with_a_query_or_another_spelling_is_redirected_to_its_one_url(client: httpx.Client) -> None:
    for path, location in {
        "/llms.txt?x": "./llms.txt",
        "/docs/api.md?x=1": "./api.md",
        "/docs/api.md/": "/docs/api.md",
        "//llms.txt": "/llms.txt",
        "/docs/%61pi.md": "/docs/api.md",
    }.items():
        response = client.get(httpx.URL(client.base_url, raw_path=path.encode()))
        assert (response.status_code, response.headers["location"], response.headers["cache-control"]) == (308, location, "no-store"), path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("transform.md", "/docs/transforms.md"),
        ("transforms", "/docs/transforms.md"),
        ("Settings.md", "/docs/settings.md"),
        ("deploy.md", "/docs/deployments.md"),
        ("zzz.md", ", ".join(GUIDE_PATHS)),
    ],
)
def test_guide_that_does_not_exist_is_404_that_names_the_nearest(client: httpx.Client, name: str, expected: str) -> None:
    response = client.get(f"/docs/{name}")
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert response.headers["cache-control"] == "no-store"
    assert (response.json()["received"], response.json()["expected"]) == (name, expected)
    assert response.json()["remedy"] == "GET /llms.txt lists all guides."


@pytest.mark.parametrize(
    "path", ["/docs/..%2fsettings.md", "/docs/%2e%2e/pyproject.toml", "/docs/gallery/size.webp", "/docs/.md", "/docs/a%00.md"]
)
def test_guide_path_to_another_file_is_404(client: httpx.Client, path: str) -> None:
    response = client.get(httpx.URL(client.base_url, raw_path=path.encode()), follow_redirects=True)
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


def test_docs_page_links_to_every_guide(client: httpx.Client) -> None:
    hrefs = re.findall(r'href="([^"]+)"', client.get("/docs").text)
    assert [href for href in hrefs if href.endswith((".md", ".txt"))] == [*GUIDE_PATHS, "/llms.txt"]


def test_llms_text_has_the_parts_of_its_format_in_order() -> None:
    title, summary, *details = index().split("\n\n")
    assert title == "# Darkroom"
    assert re.fullmatch(r"> [^\n]+", summary)
    first = next(place for place, part in enumerate(details) if part.startswith("## "))
    assert not any(part.startswith("#") for part in details[:first])
    sections = list(zip(details[first::2], details[first + 1 :: 2], strict=True))
    assert [heading for heading, _ in sections][-1] == "## Optional"
    for heading, items in sections:
        assert re.fullmatch(r"## [^\n]+", heading)
        assert all(re.fullmatch(r"- \[[^\]]+\]\([^)]+\): .+", item) for item in items.strip().split("\n"))


def test_llms_text_links_to_every_guide_and_problem() -> None:
    linked = links(index())
    assert [link for link in linked if link.endswith(".md")][-len(GUIDES) :] == [path.removeprefix("/") for path in GUIDE_PATHS]
    assert {error.type_uri().removeprefix("/") for error in every_problem()} <= set(linked)


def test_llms_text_names_exactly_the_options_settings_and_routes_that_exist() -> None:
    text = index()
    rows = [f"| `{key}` | {option.help} |" for key, option in API_OPTIONS.items()]
    assert [line for line in text.splitlines() if line.startswith("| `")] == rows
    assert list(API_OPTIONS)[: len(OPTIONS)] == list(OPTIONS)
    assert set(re.findall(r"DARKROOM_[A-Z_]+", text)) == {*HELP, *CLIENT_HELP}
    for path, method in OPERATIONS:
        assert f"`{method.upper()} {path}`" in text


def test_llms_text_names_the_transforms_that_are_open_on_this_server() -> None:
    settings = load({"DARKROOM_VARIANTS": "card: width=640,height=480,fit=cover", "DARKROOM_PUBLIC_URL": "https://img.example.com"})
    unsigned = unsigned_transforms(["width=77"], open_ladder=True, widths=(100, 200), variants=tuple(settings.rendering.variants.values()))
    text = index(settings, unsigned)
    for transform in unsigned.in_order:
        assert f"`{transform}`" in text
    assert "/width=100/-.webp" in text
    assert "`width=320`" not in text
    assert "open in every format: `width=77`." in text
    assert "`card` is `width=640,height=480,fit=cover`" in text
    assert "On this server it begins with `https://img.example.com`." in text


def test_llms_text_of_a_server_that_signs_everything_says_so() -> None:
    text = index(unsigned=UnsignedTransforms())
    assert "nothing on this server (`DARKROOM_UNSIGNED=none`)" in text
    assert "/-." not in text


def test_unsigned_url_of_llms_text_is_served(client: httpx.Client) -> None:
    photo_digest = client.post("/v1/images", content=images.photo_jpeg(400, 300)).json()["digest"]
    (example,) = re.findall(r"^/i/\S+$", client.get("/llms.txt").text, re.MULTILINE)
    response = client.get(re.sub(r"/[a-z2-7]{32}/", f"/{photo_digest}/", example))
    assert (response.status_code, response.headers["content-type"]) == (200, "image/webp")


def test_servable_guide_has_no_pictures_notes_and_links_to_files_that_are_not_served() -> None:
    page = """\
# A page
<!-- a note -->
See [`edge/`](../edge) and [the
file](../fly.toml), [api](api.md#urls), [below](#a-page), [more](https://example.com/x), <!-- b -->and this.

![A picture](gallery/size.webp)

`[not a link](../x)` and `<!-- not a note -->`
```md
[not a link](../x)
![not a picture](y.png)
<!-- not a note -->
```
"""
    assert (
        servable(page)
        == """\
# A page
See `edge/` and the
file, [api](api.md#urls), [below](#a-page), [more](https://example.com/x), and this.

`[not a link](../x)` and `<!-- not a note -->`
```md
[not a link](../x)
![not a picture](y.png)
<!-- not a note -->
```
"""
    )
