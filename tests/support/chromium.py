"""Chromium as an independent reference: the pixels of image files as the browser shows them, in sRGB."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Playwright, Route, sync_playwright

from tests.support.waiting import PATIENCE_SECONDS

T = TypeVar("T")

# The type by which `<img>` and ImageDecoder know a format. A browser sniffs bitmap formats, but not SVG.
MEDIA_TYPES = {
    "avif": "image/avif",
    "gif": "image/gif",
    "heic": "image/heic",
    "jpeg": "image/jpeg",
    "jxl": "image/jxl",
    "png": "image/png",
    "svg": "image/svg+xml",
    "tiff": "image/tiff",
    "webp": "image/webp",
}

# A secure context, which ImageDecoder needs; no request leaves the browser.
_ADDRESS = "https://painter.test/"

_SCRIPT = """
const bytesOf = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
const png = async (source, width, height) => {
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d").drawImage(source, 0, 0, width, height);
    const bytes = new Uint8Array(await (await canvas.convertToBlob({type: "image/png"})).arrayBuffer());
    let text = "";
    for (let start = 0; start < bytes.length; start += 32768) {
        text += String.fromCharCode(...bytes.subarray(start, start + 32768));
    }
    return btoa(text);
};
window.draw = async ([text, type, size]) => {
    const url = URL.createObjectURL(new Blob([bytesOf(text)], {type}));
    const image = new Image();
    image.src = url;
    try {
        await image.decode();
    } catch {
        return null;
    }
    try {
        return await png(image, ...(size ?? [image.naturalWidth, image.naturalHeight]));
    } finally {
        URL.revokeObjectURL(url);
    }
};
const decoderOf = async (text, type, preferAnimation) => {
    const decoder = new ImageDecoder({data: bytesOf(text), type, preferAnimation});
    await decoder.tracks.ready;
    await decoder.completed;
    return decoder;
};
window.play = async ([text, type]) => {
    // An AVIF file that has no sequence is refused if one is preferred.
    const decoder = await decoderOf(text, type, true).catch(() => decoderOf(text, type, false));
    try {
        const track = decoder.tracks.selectedTrack;
        const frames = [];
        for (let frameIndex = 0; frameIndex < track.frameCount; frameIndex++) {
            const {image} = await decoder.decode({frameIndex});
            frames.push([await png(image, image.displayWidth, image.displayHeight), (image.duration ?? 0) / 1000]);
            image.close();
        }
        return [frames, track.repetitionCount === Infinity ? 0 : track.repetitionCount + 1];
    } finally {
        decoder.close();
    }
};
"""


class Animation(NamedTuple):
    """The frames of an animation, complete pictures in RGBA; the delay of each in milliseconds; and how often it is played, 0 for ever."""

    frames: list[Image.Image]
    delays: list[float]
    plays: int


class Painter:
    """Draws image files in Chromium.

    Its methods block, and may be called from any thread, also within an event loop: Playwright runs in a thread of its own.
    """

    def __init__(self, run: Callable[[Callable[[], Any]], Any], page: Page) -> None:
        self._run = run
        self._page = page

    def draw(self, body: bytes, image_format: str, size: tuple[int, int] | None = None) -> Image.Image | None:
        """Return the picture that `<img>` shows, upright and in RGBA, or `None` if the browser does not show it.

        `image_format`: a key of `MEDIA_TYPES`. `size`: in pixels; `None` for the natural size of the picture. The colors of pixels
        that are nearly transparent are inexact, because a canvas has premultiplied colors of 8 bits: compare with `visible_distance`.
        """
        found = self._call("draw", body, image_format, size)
        return None if found is None else _picture(found)

    def play(self, body: bytes, image_format: str) -> Animation:
        """Return all frames of an animation, or the one frame of a still, as decoded by ImageDecoder (WebCodecs §10)."""
        frames, plays = self._call("play", body, image_format, None)
        return Animation([_picture(text) for text, _ in frames], [delay for _, delay in frames], plays)

    def _call(self, function: str, body: bytes, image_format: str, size: tuple[int, int] | None) -> Any:
        argument = [base64.b64encode(body).decode("ascii"), MEDIA_TYPES[image_format], size]
        return self._run(lambda: self._page.evaluate(f"(argument) => window.{function}(argument)", argument))


def launch_chromium(playwright: Playwright, *, screen: str = "srgb", experimental: bool = False) -> Browser:
    """Start Debian's Chromium, or skip the test if it is not installed.

    `screen`: the color profile that the browser takes the screen for, such as `srgb` or `hdr10`. `experimental`: with features of the web
    that are not finished.
    """
    arguments = [*_ARGUMENTS, f"--force-color-profile={screen}"]
    if experimental:
        arguments.append("--enable-experimental-web-platform-features")
    return playwright.chromium.launch(executable_path=_executable(), args=arguments)


@contextmanager
def chromium_painter() -> Iterator[Painter]:
    """Run a browser that draws image files; skip the test if Chromium is not installed."""
    _executable()
    with ThreadPoolExecutor(1, "painter") as thread:

        def run(work: Callable[[], T]) -> T:
            return thread.submit(work).result()

        playwright = run(lambda: sync_playwright().start())
        try:
            browser = run(lambda: launch_chromium(playwright))
            page = run(lambda: _blank_page(browser))
            yield Painter(run, page)
            run(browser.close)
        finally:
            run(playwright.stop)


def visible_distance(one: Image.Image, other: Image.Image) -> float:
    """Return the mean absolute difference of two pictures of the same size, in steps of 8-bit sRGB, on the worse background.

    Both are laid on black and on white, because colors that nobody sees do not matter.
    """
    if one.size != other.size:
        raise ValueError(f"expected two pictures of the same size, got {one.size} and {other.size}")
    return max(float(np.abs(_on(level, one) - _on(level, other)).mean()) for level in (0, 255))


_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def _executable() -> str:
    """Return the path of the browser without a window, or of the one with it, whose every page takes four times as much CPU time."""
    executable = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if executable is None:
        pytest.skip("Chromium is not installed; install it with: apt-get install chromium-headless-shell")
    return executable


def _blank_page(browser: Browser) -> Page:
    page = browser.new_page()
    page.set_default_timeout(1_000 * PATIENCE_SECONDS)

    def respond(route: Route) -> None:
        if route.request.url == _ADDRESS:
            route.fulfill(body=f"<!doctype html><title>Painter</title><script>{_SCRIPT}</script>", content_type="text/html")
        else:
            route.abort()

    page.route("**/*", respond)
    page.goto(_ADDRESS)
    return page


def _picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGBA")


def _on(level: int, image: Image.Image) -> Any:
    pixels = np.asarray(image.convert("RGBA")).astype(np.float32)
    alpha = pixels[..., 3:] / 255
    return pixels[..., :3] * alpha + level * (1 - alpha)
