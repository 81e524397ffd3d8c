"""The open ladder of a real server: anyone who knows a digest can request it at the widths of the ladder, and nothing else."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest

from tests.http.test_from_source import check_problem
from tests.support import images
from tests.support.buckets import BucketServer, bucket_server
from tests.support.hostile_urls import FETCHING_FAULT, MISSING, Target, hostile_urls
from tests.support.server import HOST, Server, darkroom

VARIANTS = "card: width=400,height=300,fit=cover; gray: grayscale=true"
WIDTHS = (100, 200, 400)
IMMUTABLE = "public, max-age=31536000, immutable"


@pytest.fixture(scope="module")
def bucket() -> Iterator[BucketServer]:
    """Give a bucket without objects, which is the source `shop` of the server."""
    with bucket_server("gs") as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, bucket: BucketServer) -> Iterator[Server]:
    settings = {"keys": "11" * 32, "variants": VARIANTS, "widths": ",".join(map(str, WIDTHS)), "sources": f"shop={bucket.location}"}
    with darkroom(tmp_path_factory.mktemp("open"), **settings, **bucket.environment) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as found:
        yield found


@pytest.fixture(scope="module")
def photo(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.post("/v1/images", content=images.photo_jpeg(300, 200)).json()
    return found


def test_document_has_the_widths_of_the_setting_and_urls_without_signatures(photo: dict[str, Any]) -> None:
    for source in photo["sources"]:
        extension = {"image/jpeg": "jpg"}.get(source["type"], source["type"].removeprefix("image/"))
        assert [(link["width"], link["url"]) for link in source["renditions"]] == [
            (min(width, 300), f"/i/v3/{photo['digest']}/width={width}/-.{extension}") for width in WIDTHS
        ]
    assert photo["src"] == f"/i/v3/{photo['digest']}/width=400/-.jpg"


@pytest.mark.parametrize(
    ("transform", "size"),
    [
        ("width=200", (200, 133)),
        ("width=400", (300, 200)),
        ("width=400,height=300,fit=cover", (267, 200)),
        ("width=100,height=75,fit=cover", (100, 75)),
        ("grayscale=true", (300, 200)),
        ("width=100,grayscale=true", (100, 67)),
    ],
)
def test_open_transform_is_served_without_a_signature_and_may_be_kept_forever(
    client: httpx.Client, photo: dict[str, Any], transform: str, size: tuple[int, int]
) -> None:
    response = client.get(f"/i/v3/{photo['digest']}/{transform}/-.webp")
    assert (response.status_code, response.headers["content-type"]) == (200, "image/webp")
    assert (response.headers["cache-control"], response.headers["cdn-cache-control"]) == (IMMUTABLE, "max-age=31536000")
    assert images.decode(response.content).size == size


def test_url_that_the_server_makes_for_a_variant_is_the_open_one(client: httpx.Client, photo: dict[str, Any]) -> None:
    path = f"/v1/images/{photo['digest']}/urls"
    made = client.post(path, json={"variant": "gray", "transform": {"width": 100}, "format": "webp"}).json()["url"]
    assert made == f"/i/v3/{photo['digest']}/width=100,grayscale=true/-.webp"
    signed = client.post(path, json={"transform": {"width": 101}, "format": "webp"}).json()["url"]
    assert "/-." not in signed
    assert client.get(signed).status_code == 200


def test_auto_is_open_too(client: httpx.Client, photo: dict[str, Any]) -> None:
    response = client.get(f"/i/v3/{photo['digest']}/width=200/-.auto", headers={"Accept": "image/avif"})
    assert (response.status_code, response.headers["content-type"]) == (200, "image/avif")


def test_png_of_a_photo_needs_a_signature_and_the_error_names_the_open_formats(client: httpx.Client, photo: dict[str, Any]) -> None:
    response = client.get(f"/i/v3/{photo['digest']}/width=200/-.png")
    check_problem(response, 403, "bad-signature")
    assert response.json()["expected"] == "a signature, or one of the extensions jxl, avif, webp, jpg"
    assert response.json()["received"] == "png"


def test_png_of_an_image_with_transparency_is_open(client: httpx.Client) -> None:
    cutout = client.post("/v1/images", content=images.rgba_png(300, 200)).json()
    assert cutout["src"].endswith("/width=400/-.png")
    assert client.get(cutout["src"]).status_code == 200


def test_image_that_is_not_here_is_404(client: httpx.Client) -> None:
    for extension in ("webp", "png", "auto"):
        check_problem(client.get(f"/i/v3/{'a' * 32}/width=200/-.{extension}"), 404, "not-found")


def request_hostile_urls(server: Server, bucket: BucketServer, client: httpx.Client, photo: dict[str, Any], count: int) -> Counter[str]:
    """Request so many URLs that strangers may try, check each response, and return how many there were with each fault."""
    named = client.post("/v1/images?name=Größe 1.jpg", content=images.photo_jpeg(301, 200)).json()
    target = Target(named["digest"], named["name"], photo["digest"], "shop", WIDTHS)
    before = server.log().count("rendered")
    faults: Counter[str] = Counter()
    # Other clients do not send paths as they are.
    with closing(HTTPConnection(HOST, server.port)) as connection:
        for url in hostile_urls(random.Random(5), target, count):
            connection.request("GET", url.path)
            response = connection.getresponse()
            response.read()
            assert response.status in url.statuses, (url, response.status)
            # Nothing that a stranger can multiply is stored, except errors for the second in which many clients wait for them.
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers.get("Darkroom-CDN-Cache-Control", "max-age=1") == "max-age=1"
            faults[url.fault] += 1
    assert server.log().count("rendered") == before
    # Of a source, nothing is fetched but the objects that open URLs name.
    assert all(MISSING in key for key in bucket.requests)
    assert len(bucket.requests) <= faults[FETCHING_FAULT]
    return faults


def test_urls_that_are_not_open_are_refused_and_render_nothing(
    client: httpx.Client, server: Server, bucket: BucketServer, photo: dict[str, Any]
) -> None:
    assert len(request_hostile_urls(server, bucket, client, photo, 600)) == 19


@pytest.mark.long
def test_ten_thousand_urls_that_are_not_open_are_refused_and_render_nothing(
    client: httpx.Client, server: Server, bucket: BucketServer, photo: dict[str, Any]
) -> None:
    bucket.requests.clear()
    assert request_hostile_urls(server, bucket, client, photo, 10_000).total() == 10_000


def test_server_without_an_open_ladder_signs_every_url(tmp_path_factory: pytest.TempPathFactory) -> None:
    with darkroom(tmp_path_factory.mktemp("closed"), unsigned="none", warm="none") as closed, closed.client() as client:
        photo = client.post("/v1/images", content=images.photo_jpeg(300, 200)).json()
        assert "/-." not in photo["picture"]
        assert client.get(photo["src"]).status_code == 200
        response = client.get(f"/i/v3/{photo['digest']}/width=320/-.webp")
        check_problem(response, 403, "bad-signature")
        assert response.json()["expected"] == "a signature: DARKROOM_UNSIGNED is none"
