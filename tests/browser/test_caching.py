"""The browser's cache: a rendition is fetched once, no matter how many pages show it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from tests.caches.running import counting
from tests.support import images
from tests.support.server import HOST, darkroom
from tests.support.threads import serving


@contextmanager
def serve_page(html: str, **headers: str) -> Iterator[str]:
    """Yield the URL of a site that responds with `html` and further `headers` to every request, and allows no response to be stored."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = html.encode()
            self.send_response(200)
            fields = {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(body)), "Cache-Control": "no-store", **headers}
            for name, value in fields.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: Any) -> None:
            pass

    with serving(Handler) as port:
        yield f"http://{HOST}:{port}"


def test_browser_fetches_a_rendition_once_over_several_page_visits(chromium: Browser, tmp_path: Path) -> None:
    with darkroom(tmp_path / "data") as server, counting(server.url) as counted, server.client() as client:
        document = client.post("/v1/images", content=images.photo_jpeg(1_200, 900)).json()
        path = document["sources"][1]["renditions"][1]["url"]
        html = f'<!doctype html><title>Page</title><img src="http://{HOST}:{counted.port}{path}" width="640" height="480">'
        with serve_page(html) as site:
            context = chromium.new_context()
            for visit in ("/", "/other", "/", "/third"):
                page = context.new_page()
                page.goto(site + visit)
                assert page.evaluate("document.images[0].decode().then(() => document.images[0].naturalWidth)") == 640
                # A reload revalidates resources, except for those that are `immutable` (RFC 8246).
                page.reload()
                assert page.evaluate("document.images[0].decode().then(() => document.images[0].naturalWidth)") == 640
                page.close()
            context.close()
        assert counted.fetches(path) == 1
