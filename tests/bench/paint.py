"""`python -m tests.bench.paint` measures the largest contentful paint of one page with different images, and prints a table in Markdown.

Chromium throttles itself as Lighthouse does for phones (Chrome DevTools Protocol). The latency that it adds to requests does not include
that of new connections, so a Darkroom on another host than the page has no disadvantage from them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import NamedTuple
from urllib.parse import urlsplit

import click
import msgspec
import pyvips
from PIL import Image
from playwright.sync_api import Browser, Response, sync_playwright

from tests.bench import photos
from tests.browser.sites import run_in_site, serve_site, site_folder
from tests.quality import judge
from tests.support.chromium import launch_chromium
from tests.support.server import Server, darkroom

SITE = Path(__file__).parent / "paint_site"
OUTPUT = Path("paint.json")

# The pages of the site, in the order of the table.
KINDS = {
    "img-2560": "`<img>` with a JPEG of 2,560 pixels",
    "img-1280": "`<img>` with a JPEG of 1,280 pixels",
    "next-image": "`next/image` with the optimizer of Next.js, `preload`",
    "next-image-85": "the same with `quality={85}`",
    "next-image-darkroom": "`next/image` with the loader of Darkroom, `preload`",
    "picture": "`Picture`",
    "picture-priority": "`Picture` with `priority`",
}

# Width and height of the window in CSS pixels, and device pixels for each of them: Lighthouse's phone, and a phone with a finer screen.
DEVICES = {"phone": (412, 823, 1.75), "fine-phone": (390, 844, 3)}

# Lighthouse's slow 4G: milliseconds, bytes per second.
_NETWORK = {"offline": False, "latency": 150, "downloadThroughput": 1_600_000 / 8, "uploadThroughput": 750_000 / 8}
_CPU_SLOWDOWN = 4

_TIMEOUT_MILLISECONDS = 120_000

_NAMES = {"jpeg": "JPEG", "jxl": "JPEG XL", "webp": "WebP", "avif": "AVIF"}

# Of JPEGs as sites have them.
_JPEG_QUALITY = 85

# The time at which the largest contentful paint was that of the image with this URL; the paint follows the last byte.
_PAINTED = """(url) => new Promise((resolve, reject) => {
    new PerformanceObserver((list) => list.getEntries().filter((entry) => entry.url === url).forEach((entry) => resolve(entry.startTime)))
        .observe({ type: "largest-contentful-paint", buffered: true });
    setTimeout(() => reject(new Error(`${url} was never the largest paint`)), 60_000);
})"""

# Of an image without a srcset it is in pixels of the image.
_WIDTH = "(url) => { const one = new Image(); one.src = url; return one.decode().then(() => one.naturalWidth); }"


class View(NamedTuple):
    """A view of a page: when its image, which is the largest paint, was painted; the file, media type and width in pixels of the image."""

    milliseconds: float
    body: bytes
    media_type: str
    width: int


class Figures(msgspec.Struct, frozen=True):
    """The figures of a kind of page on a device.

    milliseconds: the time to the largest contentful paint in each round. image_score: SSIMULACRA2 of the image, by tests.quality.judge.
    """

    kind: str
    device: str
    milliseconds: list[float]
    image_width: int
    image_bytes: int
    image_score: float
    media_type: str

    @property
    def text(self) -> str:
        """The median and the range in seconds, and the image."""
        lowest, middle, highest = (of(self.milliseconds) / 1_000 for of in (min, median, max))
        image_format = _NAMES[self.media_type.removeprefix("image/")]
        image = f"{self.image_width:,} px, {self.image_bytes / 1_000:,.0f} KB of {image_format}, score {self.image_score:.0f}"
        return f"**{middle:.2f} s** ({lowest:.2f} to {highest:.2f}): {image}"


def main() -> None:
    """Build the site, view its pages in turns, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.paint", description="Largest contentful paint on a slow phone.")
    parser.add_argument("--rounds", type=int, default=9, help="views of each page, each with an empty cache")
    rounds: int = parser.parse_args().rounds
    views: dict[tuple[str, str], list[View]] = defaultdict(list)
    pages = [(kind, device) for device in DEVICES for kind in KINDS]
    with tempfile.TemporaryDirectory(prefix="darkroom-paint-") as name, darkroom(Path(name) / "data") as server:
        photo, description = photos.photo(Path(name))
        # Its packages are those of the site that the tests build.
        with site_folder("next") as folder:
            _make_site(folder, server, photo)
            run_in_site("npm run build", folder)
            with serve_site("npm start", folder) as url, sync_playwright() as playwright:
                browser = launch_chromium(playwright)
                for kind, device in pages:
                    # Both servers have made their renditions before the first round.
                    view(browser, f"{url}/{kind}", device)
                for number in range(rounds):
                    for kind, device in _rotated(pages, number):
                        views[kind, device].append(view(browser, f"{url}/{kind}", device))
                    click.echo(f"round {number + 1} of {rounds}", err=True)
                browser.close()
        figures = [_figures(photo, kind, device, views[kind, device]) for kind, device in pages]
    OUTPUT.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n")
    click.echo(table(figures))
    click.echo(f"\n{description}; medians of {rounds} views")


def view(browser: Browser, url: str, device: str) -> View:
    """Open a page with an empty cache; raises an error of Playwright if the largest paint is not that of its image."""
    width, height, density = DEVICES[device]
    context = browser.new_context(viewport={"width": width, "height": height}, device_scale_factor=density)
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", _NETWORK)
    session.send("Emulation.setCPUThrottlingRate", {"rate": _CPU_SLOWDOWN})
    with page.expect_response(_is_image, timeout=_TIMEOUT_MILLISECONDS) as found:
        page.goto(url, timeout=_TIMEOUT_MILLISECONDS)
    image = found.value
    milliseconds = page.evaluate(_PAINTED, image.url)
    one = View(milliseconds, image.body(), image.headers["content-type"], page.evaluate(_WIDTH, image.url))
    context.close()
    return one


def _is_image(response: Response) -> bool:
    # The icon of the site is a data URL.
    return response.request.resource_type == "image" and urlsplit(response.url).scheme != "data"


def _figures(photo: Path, kind: str, device: str, views: list[View]) -> Figures:
    _, body, media_type, width = views[0]
    reference = pyvips.Image.thumbnail(str(photo), width, height=8_192, output_profile="srgb")
    score = judge.score(Image.fromarray(reference.numpy()), body)
    return Figures(kind, device, [one.milliseconds for one in views], width, len(body), score, media_type)


def table(figures: list[Figures]) -> str:
    """Return the figures as a table in Markdown, with one row for each kind of page and one column for each device."""
    cells = {(one.kind, one.device): one.text for one in figures}
    heads = [f"{width} pixels of CSS, {round(width * density):,} of the screen" for width, _, density in DEVICES.values()]
    rows = [["image", *heads], *([text, *(cells[kind, device] for device in DEVICES)] for kind, text in KINDS.items())]
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body])


def _make_site(folder: Path, server: Server, photo: Path) -> None:
    """Replace the pages of the site in `folder` by those that are measured, with the photo as files and as an image of `server`."""
    shutil.rmtree(folder / "app")
    shutil.copytree(SITE, folder, dirs_exist_ok=True)
    public = folder / "public"
    public.mkdir()
    shutil.copyfile(photo, public / "original.jpg")
    with Image.open(photo) as picture:
        for width in (1_280, 2_560):
            size = width, round(picture.height * width / picture.width)
            picture.resize(size, Image.Resampling.LANCZOS).save(public / f"{width}.jpg", quality=_JPEG_QUALITY)
    with server.client() as client:
        document = client.post("/v1/images", content=photo.read_bytes()).raise_for_status().json()
    (folder / "photo.json").write_text(json.dumps({"base": server.url} | {key: document[key] for key in ("digest", "width", "height")}))


def _rotated(pages: list[tuple[str, str]], number: int) -> list[tuple[str, str]]:
    """Return the pages with another first one in each round."""
    start = number % len(pages)
    return pages[start:] + pages[:start]


if __name__ == "__main__":
    main()
