"""`python -m tests.bench.source_views` compares the two responses to the URL of a source's image by the time until the picture is shown.

Chromium reaches Darkroom over a link with a round trip of 100 ms. The renditions are in Darkroom's memory, as they are for all but the
first visitor. For each response, a page with one picture and one with twelve are viewed three times: with an empty cache, again when the
browser has to revalidate what it has, and again after the pictures of the source have changed.

A machine that does other things makes some views longer, so the shortest of several is printed.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import click
import httpx
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from service.settings.sections import SourceResponse
from service.urls.source_url import SourceUrl
from tests.support import images
from tests.support.chromium import launch_chromium
from tests.support.network import PUBLIC_ADDRESS, own_network
from tests.support.server import HOST, darkroom
from tests.support.threads import serving

ROUND_TRIP_SECONDS = 0.1
# The shortest lifetime that browsers get, so that a second view does not have to wait for a minute.
FRESH_SECONDS = 2
ROUNDS = 5
COUNTS = (1, 12)
RESPONSES: tuple[SourceResponse, ...] = ("picture", "redirect")
VIEWS = ("empty cache", "to be revalidated", "after a change")

# Milliseconds from the first request until every picture is decoded.
_SHOW = """
async (urls) => {
    const start = performance.now();
    await Promise.all(urls.map(async (url) => {
        const image = new Image();
        image.src = url;
        await image.decode();
    }));
    return performance.now() - start;
}
"""


class _Photos:
    """A host whose photos all change when `edition` does."""

    edition = 0
    port = 0

    def body(self, number: int) -> bytes:
        """Return a photo."""
        return images.photo_jpeg(900 + number, 600 + self.edition)

    @contextmanager
    def listening(self) -> Iterator[None]:
        photos = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                number = int(self.path.strip("/").removesuffix(".jpg"))
                tag = f'"{number} {photos.edition}"'
                unchanged = self.headers.get("If-None-Match") == tag
                body = b"" if unchanged else photos.body(number)
                self.send_response(304 if unchanged else 200)
                self.send_header("ETag", tag)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: Any) -> None:
                pass

        with serving(Handler, "0.0.0.0") as self.port:
            yield


@contextmanager
def delayed(port: int) -> Iterator[int]:
    """Yield a port that leads to another one over a link with a round trip of `ROUND_TRIP_SECONDS`; a connection costs one more."""
    ports: list[int] = []
    ready, loop = threading.Event(), asyncio.new_event_loop()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds_until_open: float) -> None:
        open_at = time.monotonic() + seconds_until_open
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def write() -> None:
            while True:
                due, piece = await pieces.get()
                await asyncio.sleep(due - time.monotonic())
                if not piece:
                    writer.close()
                    return
                writer.write(piece)

        writing = asyncio.create_task(write())
        with suppress(ConnectionError):
            while piece := await reader.read(64 << 10):
                pieces.put_nowait((max(time.monotonic(), open_at) + ROUND_TRIP_SECONDS / 2, piece))
        pieces.put_nowait((time.monotonic() + ROUND_TRIP_SECONDS / 2, b""))
        await writing

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection(HOST, port)
        await asyncio.gather(relay(reader, onward_writer, ROUND_TRIP_SECONDS), relay(onward_reader, writer, 0))

    async def serve() -> None:
        server = await asyncio.start_server(connect, HOST, 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        with suppress(asyncio.CancelledError):
            await server.serve_forever()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    ready.wait()
    yield ports[0]
    # The connections of the browser are closed with the process.


@contextmanager
def blank_page() -> Iterator[str]:
    """Yield the URL of an empty page, which gives the browser's cache an origin."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", "15")
            self.end_headers()
            self.wfile.write(b"<!doctype html>")

        def log_message(self, *words: Any) -> None:
            pass

    with serving(Handler) as port:
        yield f"http://{HOST}:{port}/"


def view(context: BrowserContext, page_url: str, urls: list[str]) -> float:
    """Return the milliseconds until a new page shows all pictures."""
    page = context.new_page()
    page.goto(page_url)
    milliseconds: float = page.evaluate(_SHOW, urls)
    page.close()
    return milliseconds


class _Visitor:
    """A browser with a page, and the server that it loads pictures from: directly for the preparations, over the slow link for a view."""

    def __init__(self, browser: Browser, page_url: str, base: str, client: httpx.Client, photos: _Photos) -> None:
        self._browser = browser
        self._page_url = page_url
        self._base = base
        self._client = client
        self._photos = photos

    def views(self, count: int) -> list[float]:
        """Return the milliseconds of each of `VIEWS` of a page with so many pictures."""
        paths = [SourceUrl("photos", f"{number}.jpg", "width=640", "webp").path("-") for number in range(count)]
        urls = [self._base + path for path in paths]
        before = self._prime(paths)
        context = self._browser.new_context()
        found = [view(context, self._page_url, urls)]
        time.sleep(FRESH_SECONDS)
        self._prime(paths)
        found.append(view(context, self._page_url, urls))
        self._photos.edition += 1
        # The first requests get what was there before, and cause the revalidation.
        while set(self._prime(paths)) & set(before):
            time.sleep(0.2)
        time.sleep(FRESH_SECONDS)
        self._prime(paths)
        found.append(view(context, self._page_url, urls))
        context.close()
        return found

    def _prime(self, paths: list[str]) -> list[str]:
        """Make the server have responses for all paths in its memory, and the renditions. Return the entity tags of these."""
        return [self._client.get(path, follow_redirects=True).raise_for_status().headers["etag"] for path in paths]


def main() -> None:
    """Measure, and print a table."""
    shortest: dict[tuple[SourceResponse, int], list[float]] = {}

    def run() -> None:
        photos = _Photos()
        with ExitStack() as stack:
            stack.enter_context(photos.listening())
            page_url = stack.enter_context(blank_page())
            browser = launch_chromium(stack.enter_context(sync_playwright()))
            stack.callback(browser.close)
            for response in RESPONSES:
                data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="darkroom-bench-")))
                settings = {"source_seconds": FRESH_SECONDS, "source_response": response, "warm": "none"}
                server = stack.enter_context(darkroom(data, sources=f"photos=http://{PUBLIC_ADDRESS}:{photos.port}", **settings))
                base = f"http://{HOST}:{stack.enter_context(delayed(server.port))}"
                visitor = _Visitor(browser, page_url, base, stack.enter_context(server.client()), photos)
                for count in COUNTS:
                    rounds = [visitor.views(count) for _ in range(ROUNDS)]
                    shortest[response, count] = [min(column) for column in zip(*rounds, strict=True)]

    with own_network() as in_network:
        in_network(run)
    click.echo("| pictures | view | `picture` | `redirect` |\n|---|---|---|---|")
    for count in COUNTS:
        for index, name in enumerate(VIEWS):
            click.echo(f"| {count} | {name} | " + " | ".join(f"{shortest[response, count][index]:.0f} ms" for response in RESPONSES) + " |")


if __name__ == "__main__":
    main()
