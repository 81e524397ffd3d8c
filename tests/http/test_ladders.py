"""Documents of images at the limits: every URL in them is 200, and so is every negotiated format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from service.settings.signing_key import development_key
from service.urls.rendition_url import RenditionUrl
from service.urls.signing import Signer
from tests.support import images
from tests.support.server import Server, darkroom

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="{}" height="{}"><circle cx="100" cy="100" r="90" fill="#a31"/></svg>'
FEW_PIXELS = 4_000_000
# Short lines, which the estimate must assume to be long: quick to draw, but too slow by the estimate at the largest width.
BUSY = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="4">%s</svg>' % (b'<line x2="9" y2="2" stroke="#a31"/>' * 2_000)
BROWSER = "image/avif,image/webp,image/apng,*/*;q=0.8"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with darkroom(tmp_path_factory.mktemp("ladders"), max_output_pixels=FEW_PIXELS) as running:
        yield running


def long_gif(width: int, height: int, frames: int) -> bytes:
    """Return an animation without two equal frames."""
    made = []
    for number in range(frames):
        frame = Image.new("P", (width, height), 0)
        frame.putpalette([30, 60, 90, 220, 180, 20])
        frame.paste(1, (number, number % height, min(width, number + 40), height))
        made.append(frame)
    return images.animation(made, "GIF", delays=[40] * frames)


def statuses(client: httpx.Client, document: dict[str, Any]) -> dict[str, int]:
    """Return the status of every URL of a document; requests are retried while the server is too busy."""
    found = {}
    urls = {link["url"] for source in document["sources"] for link in source["renditions"]} | {document["src"]}
    for url in sorted(urls):
        for _ in range(10):
            response = client.get(url)
            if response.status_code != 503 or response.json()["type"] != "/problems/deadline-exceeded":
                break
        found[url] = response.status_code
    return found


AT_THE_LIMITS = {
    "screenshot": lambda: images.flat_png(200, 18_000, (200, 90, 30)),
    "animation": lambda: long_gif(240, 180, 140),
    "drawing": lambda: SVG.format(100, 10_000).encode(),
    "busy drawing": lambda: BUSY,
    "line": lambda: images.flat_png(2, 70_000, (9, 9, 9)),
    "hair": lambda: images.flat_png(1, 70_000, (9, 9, 9)),
}


# Each takes some seconds to render.
COSTLY = {"animation", "busy drawing"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long) if name in COSTLY else name for name in AT_THE_LIMITS])
def test_every_url_of_the_document_of_an_image_at_the_limits_is_200(server: Server, name: str) -> None:
    with server.client() as client:
        response = client.post("/v1/images", content=AT_THE_LIMITS[name]())
        assert response.status_code == 201
        document = response.json()
        found = statuses(client, document)
        assert found
        assert {url: status for url, status in found.items() if status != 200} == {}
        for source in document["sources"]:
            assert [int(step.split()[1].removesuffix("w")) for step in source["srcset"].split(", ")] == [
                link["width"] for link in source["renditions"]
            ]
        largest = document["sources"][-1]["renditions"][-1]
        shown = images.decode(client.get(largest["url"]).content)
        assert shown.size == (largest["width"], largest["height"])
        assert getattr(shown, "n_frames", 1) == document["frames"]
        ladder = client.post(f"/v1/images/{document['digest']}/urls", json={}).json()
        assert (ladder["src"], ladder["sources"]) == (document["src"], document["sources"])


# Around the longest side of each format: 16,383 of WebP, 16,384 of AVIF, 65,500 of JPEG, PNG and JPEG XL, 65,535 of GIF.
SHAPES = [(1, 20_000), (3, 3), (16_385, 20), (65_536, 8)]
MORE_SHAPES = [(20_000, 1), (16_384, 4), (20, 16_385), (65_500, 8), (8, 65_536), (1, 65_536)]
EVERY_SHAPE = [*SHAPES, *(pytest.param(*shape, marks=pytest.mark.long) for shape in MORE_SHAPES)]
LONGEST_SIDES = {"webp": 16_383, "avif": 16_384, "jxl": 65_500, "jpg": 65_500, "png": 65_500, "gif": 65_535}
ACCEPTED = ["image/jxl", "image/avif", "image/webp", "image/png", "*/*", BROWSER, f"image/jxl,{BROWSER}"]


@pytest.mark.parametrize(("width", "height"), EVERY_SHAPE)
def test_every_url_of_an_image_of_any_shape_has_the_stated_size(server: Server, width: int, height: int) -> None:
    with server.client() as client:
        document = client.post("/v1/images", content=images.flat_png(width, height, (200, 90, 30))).json()
        links = [(link, source["type"]) for source in document["sources"] for link in source["renditions"]]
        assert links
        for link, media_type in links:
            response = client.get(link["url"])
            assert (response.status_code, response.headers["content-type"]) == (200, media_type), link["url"]
            assert images.decode(response.content).size == (link["width"], link["height"]), link["url"]
        assert client.get(document["src"]).status_code == 200
        signer = Signer([development_key(server.data)])
        sizes = {link["url"].split("/")[4]: (link["width"], link["height"]) for link, _ in links}
        if max(width, height) <= LONGEST_SIDES["jpg"]:
            sizes["full"] = width, height
        for transform, size in sizes.items():
            for accepted in ACCEPTED:
                url = signer.sign(RenditionUrl(3, document["digest"], transform, "auto"))
                response = client.get(url, headers={"Accept": accepted})
                assert response.status_code == 200, (transform, accepted)
                assert images.decode(response.content).size == size, (transform, accepted)


@pytest.mark.parametrize(("width", "height"), EVERY_SHAPE)
def test_format_that_holds_no_such_side_is_refused_with_its_limit(server: Server, width: int, height: int) -> None:
    with server.client() as client:
        digest = client.post("/v1/images", content=images.flat_png(width, height, (20, 90, 30))).json()["digest"]
        signer = Signer([development_key(server.data)])
        for extension, longest in LONGEST_SIDES.items():
            response = client.get(signer.sign(RenditionUrl(3, digest, "full", extension)))
            if max(width, height) <= longest:
                assert response.status_code == 200, extension
                assert images.decode(response.content).size == (width, height), extension
                continue
            problem = response.json()
            assert (response.status_code, problem["type"]) == (422, "/problems/too-many-pixels"), extension
            assert f"{longest}" in problem["expected"].replace(",", ""), problem["expected"]
            assert problem["received"] == f"{width} x {height}"
            assert problem["remedy"]


def test_document_of_a_drawing_that_is_slow_to_draw_ends_with_the_widest_that_is_rendered(server: Server) -> None:
    with server.client() as client:
        document = client.post("/v1/images", content=BUSY).json()
        path = f"/v1/images/{document['digest']}/urls"
        widest = document["sources"][-1]["renditions"][-1]["width"]
        assert 1_280 < widest < 2_560
        assert {source["renditions"][-1]["width"] for source in document["sources"]} == {widest}
        url = Signer([development_key(server.data)]).sign(RenditionUrl(2, document["digest"], f"width={widest + 1}", "png"))
        for refused in (
            client.get(url),
            client.post(path, json={"widths": [widest + 1]}),
            client.post(path, json={"transform": {"width": widest + 1}, "format": "png"}),
        ):
            problem = refused.json()
            assert (refused.status_code, problem["type"]) == (422, "/problems/too-complex")
            assert problem["expected"]
            assert problem["received"] == f"{widest + 1} x {(widest + 1 + 5) // 10}"
            assert problem["remedy"]
        assert client.post(path, json={"widths": [widest]}).status_code == 200


def test_negotiated_url_gets_a_format_that_the_rendition_can_be_made_in(server: Server) -> None:
    with server.client() as client:
        digest = client.post("/v1/images", content=images.flat_png(200, 18_000, (20, 90, 30))).json()["digest"]
        for transform, media_type in (("width=100", "image/avif"), ("full", "image/jpeg")):
            url = Signer([development_key(server.data)]).sign(RenditionUrl(2, digest, transform, "auto"))
            response = client.get(url, headers={"Accept": BROWSER})
            assert (response.status_code, response.headers["content-type"]) == (200, media_type)


def test_requested_urls_that_cannot_be_made_are_422(server: Server) -> None:
    with server.client() as client:
        digest = client.post("/v1/images", content=images.flat_png(200, 18_000, (20, 9, 30))).json()["digest"]
        path = f"/v1/images/{digest}/urls"
        for wanted in ({"widths": [100, 200], "formats": ["webp"]}, {"format": "webp"}, {"formats": ["avif"], "widths": [200]}):
            response = client.post(path, json=wanted)
            assert (response.status_code, response.json()["type"], response.json()["received"]) == (
                422,
                "/problems/too-many-pixels",
                "200 x 18000",
            )
        ladder = client.post(path, json={"widths": [100, 200]}).json()
        assert [(source["type"], len(source["renditions"])) for source in ladder["sources"]] == [
            ("image/jxl", 2),
            ("image/avif", 1),
            ("image/webp", 1),
            ("image/jpeg", 2),
        ]


def reported() -> dict[str, bytes]:
    """Return the reported images whose documents had URLs that were 422."""
    made = {
        "animation": long_gif(800, 600, 140),
        "drawing": SVG.format(400, 10_000).encode(),
        "line": images.flat_png(2, 70_000, (9, 9, 9)),
        "screenshot": images.flat_png(1_200, 18_000, (200, 90, 30)),
    }
    corpus = images.corpus()
    if corpus is not None:
        made["screenshot of the corpus"] = (corpus / "faults" / "tall-1200x18000.png").read_bytes()
    return made


@pytest.mark.long
def test_every_url_of_the_reported_documents_is_200(tmp_path: Path) -> None:
    with darkroom(tmp_path, wait_seconds=100, render_seconds=200) as server, server.client() as client:
        client.timeout = 120
        for name, body in reported().items():
            document = client.post("/v1/images", content=body).json()
            assert {url: status for url, status in statuses(client, document).items() if status != 200} == {}, name
