"""The web pages: every file that they link to exists, may be stored, and comes from this server."""

from __future__ import annotations

import re

import httpx
import pytest

from service.errors import ServiceError, every_problem
from service.http.routes.pages import hashed_files

PAGES = ("/", "/docs", "/problems")
IMMUTABLE = "public, max-age=31536000, immutable"


@pytest.mark.parametrize("path", PAGES)
def test_page_has_no_inline_code_and_loads_nothing_from_other_hosts(client: httpx.Client, path: str) -> None:
    page = client.get(path)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["cache-control"] == "no-cache"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", page.text)
    assert all(url.startswith("/") and not url.startswith("//") for url in re.findall(r'(?:src|href)="([^"]+)"', page.text))
    assert client.get(path, headers={"If-None-Match": page.headers["etag"]}).status_code == 304


@pytest.mark.parametrize("path", PAGES)
def test_page_links_to_files_at_urls_with_the_hash_of_their_content(client: httpx.Client, path: str) -> None:
    waiting = set(re.findall(r'(?:src|href)="(/(?:web|docs/files)/[^"]+)"', client.get(path).text))
    assert waiting
    seen: set[str] = set()
    while waiting:
        url = waiting.pop()
        seen.add(url)
        response = client.get(url)
        assert (response.status_code, response.headers["cache-control"]) == (200, IMMUTABLE), url
        assert re.fullmatch(r"/(web|docs/files)/[a-z-]+\.[a-z2-7]{16}\.(css|js|svg)", url)
        imported = re.findall(r'from "\./([^"]+)"', response.text) if url.startswith("/web/") else []
        waiting |= {f"/web/{name}" for name in imported} - seen


def test_page_file_of_another_version_is_404_that_says_to_reload(client: httpx.Client) -> None:
    for path in ("/web/playground.aaaaaaaaaaaaaaaa.js", "/docs/files/swagger-ui.aaaaaaaaaaaaaaaa.css"):
        response = client.get(path)
        assert (response.status_code, response.json()["type"]) == (404, "/problems/not-found")
        assert response.json()["remedy"] == "Reload the page: it links to the newest files."


def test_hash_of_a_module_depends_on_its_imports() -> None:
    read = {"a.js": b'import { b } from "./b.js";\n', "b.js": b'import { c } from "./c.js";\n', "c.js": b"export const c = 1;\n"}
    before = hashed_files(read)
    after = hashed_files({**read, "c.js": b"export const c = 2;\n"})
    assert [before[name][0] != after[name][0] for name in read] == [True, True, True]
    assert f'from "./{after["b.js"][0]}"' in after["a.js"][1].decode()


def test_modules_that_import_each_other_in_a_circle_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.js > b\.js > a\.js"):
        hashed_files({"a.js": b'import "x" from "./b.js";', "b.js": b'import "x" from "./a.js";'})


@pytest.mark.parametrize("error", every_problem(), ids=lambda error: error.slug)
def test_every_problem_has_a_page_at_its_type(client: httpx.Client, error: type[ServiceError]) -> None:
    page = client.get(error.type_uri())
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert f"<h2>{error.title}</h2>" in page.text
    assert f"{error.status_code} " in page.text
    assert "What to do" in page.text
    assert f'href="{error.type_uri()}"' in client.get("/problems").text


def test_type_of_a_received_problem_leads_to_its_page(client: httpx.Client) -> None:
    problem = client.post("/v1/images", content=b"not a photo").json()
    page = client.get(problem["type"])
    assert page.status_code == 200
    assert problem["title"] in page.text


def test_problem_that_does_not_exist_is_404(client: httpx.Client) -> None:
    response = client.get("/problems/of-another-world")
    assert (response.status_code, response.json()["remedy"]) == (404, "GET /problems lists all.")
