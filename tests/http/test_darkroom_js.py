"""darkroom.js as the service serves it: at an immutable URL, to which a well-known URL redirects."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.http.npm_package import npm_package
from tests.support.server import Server

WEB = Path(__file__).parents[2] / "service" / "web"


@pytest.mark.parametrize(
    ("name", "media_type", "content"),
    [
        ("darkroom.js", "text/javascript; charset=utf-8", (WEB / "darkroom.js").read_bytes()),
        ("darkroom.d.ts", "application/typescript", (WEB / "darkroom.d.ts").read_bytes()),
        ("darkroom.js.tgz", "application/gzip", npm_package(WEB)),
    ],
    ids=["darkroom.js", "darkroom.d.ts", "darkroom.js.tgz"],
)
def test_module_name_redirects_to_a_url_that_is_stored_for_a_year(server: Server, name: str, media_type: str, content: bytes) -> None:
    with server.client() as client:
        redirect = client.get(f"/{name}")
        assert (redirect.status_code, redirect.content) == (302, b"")
        # The hash is before the extension, of which `.d.ts` is one.
        assert re.sub(r"\.[a-z2-7]{16}(?=\.)", "", redirect.headers["location"]) == f"web/{name}"
        assert redirect.headers["cache-control"] == "public, max-age=300"
        response = client.get(redirect.headers["location"])
        assert response.status_code == 200
        assert response.content == content
        assert response.headers["content-type"] == media_type
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["cdn-cache-control"] == "max-age=31536000"
        for one in (redirect, response):
            # Pages of every origin may import it, cross-origin isolated ones too.
            assert one.headers["access-control-allow-origin"] == "*"
            assert one.headers["cross-origin-resource-policy"] == "cross-origin"
            assert one.headers["x-content-type-options"] == "nosniff"


def test_module_response_names_its_types(server: Server) -> None:
    with server.client(follow_redirects=True) as client:
        module = client.get("/darkroom.js")
        types = client.get(module.url.join(module.headers["x-typescript-types"]))
        assert types.text == (WEB / "darkroom.d.ts").read_text("utf-8")
        assert "x-typescript-types" not in types.headers


def test_module_head_has_the_headers_of_get_without_a_body(server: Server) -> None:
    with server.client() as client:
        redirect = client.get("/darkroom.js")
        for path in ("/darkroom.js", "/" + redirect.headers["location"]):
            got, headed = client.get(path), client.head(path)
            assert headed.status_code == got.status_code
            assert headed.content == b""
            assert headed.headers.get("location") == got.headers.get("location")
            assert headed.headers["cache-control"] == got.headers["cache-control"]
