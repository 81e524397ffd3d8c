"""Every option of a transform, from the request to the bytes, against a real server."""

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.images.formats import FORMATS
from service.images.options import OPTIONS
from service.urls.rendition_url import RenditionUrl
from service.urls.signing import Signer
from tests.support import images
from tests.support.server import Server, darkroom
from tests.support.upload import upload

VARIANTS = "card: width=320,height=240,fit=cover,quality=70; badge: width=64,height=64,fit=cover,round=max"
UNSIGNED = "width=50,lossless=true width=50 frame=7"
MEDIA_TYPES = {name: f"image/{name}" for name in FORMATS}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with darkroom(tmp_path_factory.mktemp("transforms"), variants=VARIANTS, unsigned=UNSIGNED) as running:
        yield running


@pytest.fixture(scope="module")
def photo(client: httpx.Client) -> str:
    return str(upload(client, images.photo_jpeg(400, 300))["digest"])


@pytest.fixture(scope="module")
def badge(client: httpx.Client) -> str:
    return str(upload(client, images.rgba_png(64, 64))["digest"])


@pytest.fixture(scope="module")
def film(client: httpx.Client) -> str:
    return str(upload(client, images.animated_gif(120, 90))["digest"])


def request_urls(client: httpx.Client, digest: str, **wanted: Any) -> httpx.Response:
    return client.post(f"/v1/images/{digest}/urls", json=wanted)


def url(client: httpx.Client, digest: str, transform: dict[str, Any], image_format: str = "webp") -> str:
    response = request_urls(client, digest, transform=transform, format=image_format)
    assert response.status_code == 200, response.text
    found: str = response.json()["url"]
    return found


def check_problem(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    problem: dict[str, Any] = response.json()
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert "immutable" not in response.headers["cache-control"]
    assert problem["type"] == f"/problems/{kind}"
    assert problem["expected"]
    assert problem["received"]
    assert problem["remedy"]
    return problem


SIZES: list[tuple[dict[str, Any], tuple[int, int]]] = [
    ({}, (400, 300)),
    ({"frame": 0, "width": 100}, (100, 75)),
    ({"animate": False, "height": 75}, (100, 75)),
    ({"crop": [10, 20, 200, 100]}, (200, 100)),
    ({"crop": "25%,25%,50%,50%", "width": 100}, (100, 75)),
    ({"rotate": 90, "width": 150}, (150, 200)),
    ({"rotate": -90, "flip": "vertical"}, (300, 400)),
    ({"rotate": 30}, (496, 460)),
    ({"width": 800, "enlarge": True}, (800, 600)),
    ({"width": 800}, (400, 300)),
    ({"width": 100, "height": 100, "fit": "inside"}, (100, 75)),
    ({"width": 100, "ratio": "5:2"}, (100, 40)),
    ({"width": 100, "height": 100, "fit": "outside"}, (133, 100)),
    ({"width": 100, "height": 100, "fit": "cover", "gravity": "attention"}, (100, 100)),
    ({"width": 100, "height": 100, "fit": "cover", "focal": [0.9, 0.1]}, (100, 100)),
    ({"width": 100, "height": 100, "fit": "contain", "background": "blur"}, (100, 100)),
    ({"width": 100, "height": 100, "fit": "fill"}, (100, 100)),
    ({"brightness": 1.2, "contrast": 0.8, "gamma": 2, "saturation": 0.5, "width": 80}, (80, 60)),
    ({"grayscale": True, "blur": 2, "sharpen": 1, "width": 80}, (80, 60)),
    ({"overlay": {"digest": "{badge}", "gravity": "southeast"}, "width": 80}, (80, 60)),
    ({"round": 10, "pad": [1, 2, 3, 4], "background": "#fff", "width": 80}, (86, 64)),
    ({"width": 80, "pad": 5, "dpr": 2}, (180, 140)),
    ({"profile": "p3", "metadata": "all", "width": 80}, (80, 60)),
    ({"quality": "auto", "width": 80}, (80, 60)),
    ({"max_bytes": 2_000, "width": 80}, (80, 60)),
    ({"lossless": True, "effort": 0, "width": 80}, (80, 60)),
    ({"progressive": True, "effort": 4, "width": 80}, (80, 60)),
    ({"dynamic_range": "high", "width": 80}, (80, 60)),
    ({"trim": 5, "width": 80}, (80, 60)),
]


def test_transforms_of_these_tests_have_every_option() -> None:
    assert {key for options, _ in SIZES for key in options} - {"focal", "dpr"} == set(OPTIONS)


@pytest.mark.parametrize(("options", "size"), SIZES, ids=str)
def test_transform_gives_the_requested_picture(
    client: httpx.Client, photo: str, badge: str, options: dict[str, Any], size: tuple[int, int]
) -> None:
    if "overlay" in options:
        options = {**options, "overlay": {**options["overlay"], "digest": badge}}
    formats = [name for name in FORMATS if not (options.get("lossless") and name in {"jpeg", "gif"})]
    formats = [name for name in formats if "dynamic_range" not in options or FORMATS[name].high_dynamic_range]
    for image_format in formats:
        response = client.get(url(client, photo, options, image_format))
        assert (response.status_code, response.headers["content-type"]) == (200, MEDIA_TYPES[image_format])
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert images.decode(response.content).size == size
        if "max_bytes" in options:
            assert len(response.content) <= options["max_bytes"]
    tags = {photo, badge} if "overlay" in options else {photo}
    assert set(response.headers["cache-tag"].split(",")) == tags


def test_transform_in_any_order_has_one_url(client: httpx.Client, photo: str) -> None:
    options = {"quality": 50, "round": 9, "width": 99, "height": 77, "fit": "cover", "gravity": "north", "rotate": 90, "grayscale": True}
    pairs = list(options.items())
    urls = {url(client, photo, dict(random.Random(seed).sample(pairs, len(pairs)))) for seed in range(5)}
    assert len(urls) == 1


@pytest.mark.parametrize(
    ("options", "image_format", "words"),
    [
        ({"lossless": True}, "jpeg", "`lossless` contradicts the format"),
        ({"lossless": True}, "gif", "`lossless` contradicts the format"),
        ({"animate": True}, "png", "`animate` contradicts the format"),
        ({"lossless": True, "quality": 5}, "webp", "contradict each other"),
        ({"crop": [300, 0, 200, 100]}, "webp", "outside the picture"),
        ({"frame": 3}, "webp", "no such frame"),
        ({"rotate": 400}, "webp", "out of range"),
    ],
)
def test_contradiction_is_reported_when_a_url_is_requested(
    client: httpx.Client, photo: str, options: dict[str, Any], image_format: str, words: str
) -> None:
    problem = check_problem(request_urls(client, photo, transform=options, format=image_format), 400, "bad-transform")
    assert words in problem["detail"]
    if words != "contradict each other":
        check_problem(request_urls(client, photo, transform=options, formats=[image_format]), 400, "bad-transform")


def test_contradiction_in_an_unsigned_url_is_reported_before_anything_is_rendered(client: httpx.Client, photo: str) -> None:
    assert client.get(f"/i/v3/{photo}/width=50,lossless=true/-.webp").status_code == 200
    check_problem(client.get(f"/i/v3/{photo}/width=50,lossless=true/-.jpg"), 400, "bad-transform")
    check_problem(client.get(f"/i/v3/{photo}/frame=7/-.webp"), 400, "bad-transform")


def test_unknown_overlay_is_404_when_a_url_is_requested_and_when_it_is_rendered(client: httpx.Client, server: Server, photo: str) -> None:
    stranger = "a" * 32
    problem = check_problem(request_urls(client, photo, transform={"overlay": stranger}, format="webp"), 404, "not-found")
    assert problem["received"] == stranger
    key = bytes.fromhex((server.data / "signing.key").read_text())
    check_problem(client.get(Signer([key]).sign(RenditionUrl(2, photo, f"overlay={stranger}", "webp"))), 404, "not-found")


def test_variant_is_spelled_out_in_the_url(client: httpx.Client, photo: str) -> None:
    assert "/width=320,height=240,fit=cover,quality=70/" in request_urls(client, photo, variant="card", format="webp").json()["url"]
    over = request_urls(client, photo, variant="card", transform={"quality": 50, "gravity": "north"}, format="webp").json()["url"]
    assert "/width=320,height=240,fit=cover,gravity=north,quality=50/" in over
    ladder = request_urls(client, photo, variant="badge", widths=[32, 64]).json()
    assert [source["type"] for source in ladder["sources"]] == ["image/jxl", "image/avif", "image/webp", "image/png"]
    problem = check_problem(request_urls(client, photo, variant="crad"), 400, "bad-transform")
    assert (problem["expected"], problem["remedy"]) == ("card, badge", "Did you mean `card`?")


def test_trim_is_spelled_out_as_the_crop_that_it_found(client: httpx.Client) -> None:
    framed = upload(client, images.framed_png(200, 100, (20, 10)))["digest"]
    assert "/crop=20:10:200:100/" in url(client, framed, {"trim": 10}, "png")
    assert "/crop=20:10:200:100,width=100/" in url(client, framed, {"trim": 10, "width": 100}, "png")
    ladder = request_urls(client, framed, transform={"trim": 10}, widths=[100]).json()
    assert ladder["sources"][0]["renditions"][0]["height"] == 50
    assert "trim" not in ladder["src"]


def test_every_url_of_a_ladder_gives_the_width_that_its_srcset_says(client: httpx.Client, photo: str) -> None:
    options = {"width": 100, "height": 80, "fit": "cover", "round": 20, "pad": 4}
    ladder = request_urls(client, photo, transform=options, widths=[50, 100, 200]).json()
    for source in ladder["sources"]:
        for rendition in source["renditions"]:
            image = images.decode(client.get(rendition["url"]).content)
            assert image.size == (rendition["width"], rendition["height"])
    assert [rendition["width"] for rendition in ladder["sources"][0]["renditions"]] == [54, 108, 216]


def test_document_of_an_animation_offers_animated_formats(client: httpx.Client, film: str) -> None:
    document = client.get(f"/v1/images/{film}").json()
    assert document["frames"] == 3
    assert [source["type"] for source in document["sources"]] == ["image/avif", "image/webp", "image/gif"]
    for source in document["sources"]:
        image = images.decode(client.get(source["renditions"][0]["url"]).content)
        assert getattr(image, "n_frames", 1) == 3


@pytest.mark.parametrize(
    ("version", "accept", "media_type"),
    [
        (2, "image/avif,image/webp,*/*", "image/webp"),
        (2, "image/avif,*/*", "image/gif"),
        (3, "image/avif,image/webp,*/*", "image/avif"),
        (3, "image/jxl,image/webp,*/*", "image/webp"),
        (3, "image/jxl,*/*", "image/gif"),
        (3, "*/*", "image/gif"),
    ],
)
def test_negotiated_animation_is_never_a_still_image(client: httpx.Client, film: str, version: int, accept: str, media_type: str) -> None:
    response = client.get(f"/i/v{version}/{film}/width=50/-.auto", headers={"Accept": accept})
    assert (response.status_code, response.headers["content-type"], response.headers["vary"]) == (200, media_type, "Accept")
    assert getattr(images.decode(response.content), "n_frames", 1) == 3


def test_negotiated_picture_with_alpha_keeps_it(client: httpx.Client, badge: str) -> None:
    response = client.get(f"/i/v3/{badge}/width=50/-.auto", headers={"Accept": "*/*"})
    assert response.headers["content-type"] == "image/png"
    assert images.decode(response.content).mode == "RGBA"


def test_url_of_the_first_pipeline_version_gives_the_same_picture_as_ever(client: httpx.Client, photo: str, film: str) -> None:
    assert images.decode(client.get(f"/i/v1/{photo}/width=50/-.webp").content).size == (50, 38)
    still = client.get(f"/i/v1/{film}/width=50/-.webp")
    assert getattr(images.decode(still.content), "n_frames", 1) == 1
    negotiated = client.get(f"/i/v1/{film}/width=50/-.auto", headers={"Accept": "*/*"})
    assert getattr(images.decode(negotiated.content), "n_frames", 1) == 1


def test_max_bytes_that_no_quality_fits_is_422(client: httpx.Client, photo: str) -> None:
    problem = check_problem(client.get(url(client, photo, {"max_bytes": 200}, "jpeg")), 422, "cannot-fit")
    assert problem["expected"] == "at most 200 bytes"
    assert re.fullmatch(r"\d+ bytes at quality 1", problem["received"])


def test_hostile_or_broken_uploads_leave_the_server_responsive(client: httpx.Client, photo: str, tmp_path: Path) -> None:
    for body in (b"<svg xmlns='http://www.w3.org/2000/svg'>", images.truncated(images.animated_gif()), images.png_bomb()):
        assert 400 <= client.post("/v1/images", content=body).status_code < 500
    assert client.get(url(client, photo, {"width": 51})).status_code == 200
