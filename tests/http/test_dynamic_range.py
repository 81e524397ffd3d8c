"""`dynamic_range=high` through the API: documents, ladders, negotiation and refusals."""

from __future__ import annotations

import io
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.images.transform import PIPELINE_VERSION
from service.settings.signing_key import development_key
from service.urls.rendition_url import RenditionUrl
from service.urls.signing import Signer
from tests.support import images
from tests.support.gain_maps import STOPS, gain_map_jpeg, iso, levels, stops_field
from tests.support.server import Server

WIDTH, HEIGHT = 400, 300


@pytest.fixture(scope="module")
def hdr(client: httpx.Client) -> dict[str, Any]:
    """Return the document of an HDR photo."""
    body = gain_map_jpeg(images.picture(WIDTH, HEIGHT), levels(stops_field(WIDTH, HEIGHT)), iso([STOPS[0]], [STOPS[1]]))
    found: dict[str, Any] = client.post("/v1/images", content=body).json()
    return found


def urls(client: httpx.Client, digest: str, transform: dict[str, Any], **more: Any) -> httpx.Response:
    return client.post(f"/v1/images/{digest}/urls", json={"transform": {"dynamic_range": "high", **transform}, **more})


def test_document_states_the_dynamic_range_and_links_to_the_standard_one(client: httpx.Client, hdr: dict[str, Any]) -> None:
    assert hdr["dynamic_range"] == "high"
    assert client.get(f"/v1/images/{hdr['digest']}").json()["dynamic_range"] == "high"
    assert "dynamic_range" not in hdr["picture"]
    assert not any("media" in source for source in hdr["sources"])
    plain = client.post("/v1/images", content=images.photo_jpeg(WIDTH, HEIGHT)).json()
    assert plain["dynamic_range"] == "standard"


def test_every_url_of_a_ladder_with_a_high_dynamic_range_is_200(client: httpx.Client, hdr: dict[str, Any]) -> None:
    markup = urls(client, hdr["digest"], {"width": 200, "height": 200, "fit": "cover"}, widths=[100, 200]).json()
    assert [bool(source.get("media")) for source in markup["sources"]] == sorted(
        (bool(source.get("media")) for source in markup["sources"]), reverse=True
    )
    for source in markup["sources"]:
        for link in source["renditions"]:
            response = client.get(link["url"])
            assert response.status_code == 200, link
            assert response.headers["Content-Type"] == source["type"]
            is_high = source["type"] == "image/jpeg" and "media" in source
            assert (b"urn:iso:std:iso:ts:21496" in response.content) == is_high


def test_jpeg_with_a_gain_map_has_the_pixels_of_the_standard_one(client: httpx.Client, hdr: dict[str, Any]) -> None:
    high = urls(client, hdr["digest"], {"width": 160}, format="jpeg").json()["url"]
    standard = client.post(f"/v1/images/{hdr['digest']}/urls", json={"transform": {"width": 160}, "format": "jpeg"}).json()["url"]
    one, other = [np.asarray(Image.open(io.BytesIO(client.get(url).content))) for url in (high, standard)]
    assert np.array_equal(one, other)


@pytest.mark.parametrize("image_format", ["webp", "png", "gif"])
def test_format_without_a_high_dynamic_range_is_refused(client: httpx.Client, hdr: dict[str, Any], image_format: str) -> None:
    response = urls(client, hdr["digest"], {}, format=image_format)
    assert response.status_code == 400
    assert "contradicts the format" in response.json()["detail"]
    assert "avif" in response.json()["expected"]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [("image/jxl,image/avif,image/webp,*/*", "image/jxl"), ("image/avif,image/webp,*/*", "image/avif"), ("image/webp,*/*", "image/jpeg")],
)
def test_negotiated_format_holds_the_high_dynamic_range(
    client: httpx.Client, server: Server, hdr: dict[str, Any], accept: str, media_type: str
) -> None:
    url = Signer([development_key(server.data)]).sign(RenditionUrl(PIPELINE_VERSION, hdr["digest"], "width=100,dynamic_range=high", "auto"))
    response = client.get(url, headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["Content-Type"] == media_type


def test_photo_without_hdr_has_one_ladder_and_its_url_is_200(client: httpx.Client) -> None:
    digest = client.post("/v1/images", content=images.photo_jpeg(WIDTH, HEIGHT)).json()["digest"]
    markup = urls(client, digest, {"width": 160}).json()
    assert not any("media" in source for source in markup["sources"])
    assert client.get(urls(client, digest, {"width": 160}, format="avif").json()["url"]).status_code == 200
