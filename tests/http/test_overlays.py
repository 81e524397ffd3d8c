"""A rendition of two images is tagged with both, and needs both."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import httpx

from tests.support import images
from tests.support.server import darkroom

KEY = "00112233445566778899aabbccddeeff"


def url(client: httpx.Client, digest: str, **transform: object) -> str:
    """Return the URL of a WebP rendition."""
    response = client.post(f"/v1/images/{digest}/urls", json={"transform": transform, "format": "webp"})
    made: str = response.raise_for_status().json()["url"]
    return made


def test_rendition_with_an_overlay_is_tagged_with_both_digests_so_that_either_can_be_purged(client: httpx.Client) -> None:
    under = client.post("/v1/images", content=images.photo_jpeg(400, 300)).json()["digest"]
    over = client.post("/v1/images", content=images.rgba_png(100, 80)).json()["digest"]
    plain = client.get(url(client, under, width=200))
    laid = client.get(url(client, under, width=200, overlay=over))
    assert plain.headers["cache-tag"] == under
    assert laid.headers["cache-tag"] == f"{under},{over}"
    assert images.distance(images.decode(plain.content), images.decode(laid.content)) > 0


def signed(digest: str, transform: str) -> str:
    """Return the path of a WebP rendition, signed by the test: the server makes no URL for an unknown overlay."""
    mac = hmac.new(bytes.fromhex(KEY), f"/i/v3/{digest}/{transform}.webp".encode(), hashlib.sha256).digest()
    return f"/i/v3/{digest}/{transform}/{base64.b32encode(mac[:16]).decode().rstrip('=').lower()}.webp"


def test_rendition_with_an_unknown_overlay_is_404_that_names_it_and_renders_nothing(data: Path) -> None:
    missing = "a" * 32
    with darkroom(data, warm="none", keys=KEY) as server, server.client() as client:
        under = client.post("/v1/images", content=images.photo_jpeg(400, 300)).json()["digest"]
        response = client.get(signed(under, f"width=200,overlay={missing}"))
        assert (response.status_code, response.json()["type"]) == (404, "/problems/not-found")
        assert "overlay" in response.json()["detail"]
        assert response.json()["received"] == missing
        assert response.headers["cache-control"] == "no-store"
        assert server.stored("renditions") == []
        assert '"event": "rendered"' not in server.log()
        assert client.get(signed(under, "width=200")).status_code == 200
