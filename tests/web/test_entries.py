"""The entries of the package darkroom.js for frameworks, called as the frameworks call them."""

from __future__ import annotations

from typing import Any

import pytest

from service.images.ladder import LADDER_WIDTHS
from tests.web.conftest import DarkroomJs
from tests.web.test_darkroom_js import DIGEST, document, error_of, manifest

BASE = "https://img.example.com"
BOAT = "photos/boat.jpg"


def open_url(transform: str, extension: str = "webp") -> str:
    return f"{BASE}/i/v3/{DIGEST}/{transform}/-.{extension}"


# ---- Next.js


def test_device_sizes_for_next_are_the_widths_of_the_ladder(js: DarkroomJs) -> None:
    assert js("deviceSizes") == list(LADDER_WIDTHS)


def test_image_properties_for_next_are_those_of_the_manifest(js: DarkroomJs) -> None:
    boat = document(placeholder={"data_url": "data:image/webp;base64,UklGRg=="})
    assert js("imageProps", manifest(**{BOAT: boat}), BOAT) == {
        "src": BOAT,
        "width": 2400,
        "height": 1800,
        "alt": "A boat",
        "placeholder": "data:image/webp;base64,UklGRg==",
    }


# ---- Nuxt


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("modifiers", "transform", "extension"),
    [
        # @nuxt/image has modifiers without a value.
        ({"width": 640, "height": None, "quality": None}, "width=640", "webp"),
        ({"width": 641, "format": "avif"}, "width=960", "avif"),
        ({"width": 640, "format": "jpeg", "quality": "50"}, "width=640,quality=50", "jpg"),
        ({"width": 640, "quality": 80, "fit": "cover", "height": 480}, "width=640", "webp"),
        ({"width": 640, "variant": "rotate=90"}, "rotate=90,width=640", "webp"),
        ({}, "width=2560", "webp"),
    ],
)
def test_nuxt_provider_maps_modifiers(js: DarkroomJs, version: int, modifiers: dict[str, Any], transform: str, extension: str) -> None:
    # @nuxt/image puts a slash before every source, and passes the options of the component too.
    options = {"baseURL": BASE, "variants": ["quality=50"], "modifiers": modifiers, "sizes": "100vw"}
    assert js("nuxt", version, f"/{DIGEST}", options) == open_url(transform, extension)


def test_nuxt_provider_with_a_manifest_knows_the_size_and_the_placeholder(js: DarkroomJs) -> None:
    boat = document(placeholder={"data_url": "data:image/webp;base64,UklGRg=="})
    options = {"manifest": manifest(**{BOAT: boat}), "modifiers": {"width": 300}}
    assert js("nuxtManifest", f"/{BOAT}", options) == {
        "url": boat["sources"][2]["renditions"][0]["url"],
        "width": 2400,
        "height": 1800,
        "placeholder": "data:image/webp;base64,UklGRg==",
    }


def test_nuxt_provider_without_a_base_is_an_error_that_names_the_option(js: DarkroomJs) -> None:
    assert error_of(js, "nuxt", 2, f"/{DIGEST}", {"modifiers": {}}).startswith("The base is invalid: expected the origin of a Darkroom")


# ---- unpic


@pytest.mark.parametrize(
    ("url", "src", "operations", "options"),
    [
        (open_url("width=640"), DIGEST, {"width": 640, "format": "webp"}, {"base": BASE}),
        (open_url("full", "auto"), DIGEST, {"format": "auto"}, {"base": BASE}),
        (
            f"/i/v2/{DIGEST}/rotate=90,width=640,quality=5/-/Bärensee.jpg".replace("ä", "%C3%A4"),
            f"{DIGEST}/Bärensee",
            {"width": 640, "format": "jpg", "variant": "rotate=90,quality=5"},
            {"base": ""},
        ),
        (
            f"{BASE}/from/shop/a%20b/c.png/width=320/-.avif",
            "a b/c.png",
            {"width": 320, "format": "avif"},
            {"base": BASE, "source": "shop"},
        ),
    ],
)
def test_unpic_extracts_the_parts_of_an_open_url(
    js: DarkroomJs, url: str, src: str, operations: dict[str, Any], options: dict[str, Any]
) -> None:
    assert js("extract", url) == {"src": src, "operations": operations, "options": options}
    # Without a width, it is the widest step.
    assert js("unpic", url, {}, {}) == url.replace("/v2/", "/v3/").replace("full", "width=2560")


@pytest.mark.parametrize("url", [DIGEST, f"/i/v3/{DIGEST}/width=640/abcdefghijklmnopqrstuvwxyz.webp", "https://example.com/a.jpg", ""])
def test_unpic_extracts_nothing_from_other_urls(js: DarkroomJs, url: str) -> None:
    assert js("extract", url) is None


def test_unpic_transforms_digests_and_open_urls(js: DarkroomJs) -> None:
    assert js("unpic", DIGEST, {"width": 500, "format": "avif"}, {"base": BASE}) == open_url("width=640", "avif")
    assert js("unpic", open_url("width=640", "jpg"), {"width": "900"}) == open_url("width=960", "jpg")


# ---- Astro


def test_astro_service_requests_steps_of_the_ladder_only(js: DarkroomJs) -> None:
    wanted = {"src": f"/{DIGEST}", "width": 800, "height": 600, "widths": [1600, 400, 640, 800, 640], "alt": "A boat", "quality": 80}
    image = js("astro", {"base": BASE}, wanted)
    assert image["src"] == open_url("width=960")
    assert image["srcset"] == [f"{open_url(f'width={width}')} {width}w" for width in (640, 960, 1920)]
    assert image["attributes"] == {"alt": "A boat", "width": 800, "height": 600, "loading": "lazy", "decoding": "async"}


def test_astro_service_with_densities_requests_steps_of_the_ladder_only(js: DarkroomJs) -> None:
    image = js("astro", {"base": BASE, "format": "avif"}, {"src": DIGEST, "width": 300, "densities": [1, "2x"], "loading": "eager"})
    assert image["src"] == open_url("width=320", "avif")
    assert image["srcset"] == [f"{open_url('width=320', 'avif')} 1x", f"{open_url('width=640', 'avif')} 2x"]
    assert image["attributes"] == {"width": 300, "loading": "eager", "decoding": "async"}


def test_astro_service_maps_the_aspect_ratio_and_the_quality_to_a_variant(js: DarkroomJs) -> None:
    config = {"base": BASE, "variants": ["width=160,height=90,fit=cover,quality=50"]}
    wanted = {"src": DIGEST, "width": 750, "height": 422, "widths": [750, 1500], "quality": 50, "format": "jpg"}
    image = js("astro", config, wanted)
    assert image["srcset"] == [
        f"{open_url('width=960,height=540,fit=cover,quality=50', 'jpg')} 960w",
        f"{open_url('width=1920,height=1080,fit=cover,quality=50', 'jpg')} 1920w",
    ]


def test_astro_service_with_a_manifest_knows_the_size_and_the_widths(js: DarkroomJs) -> None:
    boat = document()
    image = js("astro", {"manifest": manifest()}, {"src": f"/{BOAT}", "widths": [320, 5000]})
    assert image["attributes"] == {"width": 2400, "height": 1800, "loading": "lazy", "decoding": "async"}
    webp = boat["sources"][2]["renditions"]
    assert image["srcset"] == [f"{webp[0]['url']} 320w", f"{webp[-1]['url']} 2400w"]
    assert image["src"] == webp[-1]["url"]


def test_astro_service_leaves_imported_files_as_they_are(js: DarkroomJs) -> None:
    imported = {"src": "/_astro/logo.png", "width": 100, "height": 50, "format": "png"}
    image = js("astro", {"base": BASE}, {"src": imported, "widths": [50, 100], "alt": "Logo"})
    assert image == {
        "src": "/_astro/logo.png",
        "srcset": [],
        "attributes": {"width": 100, "height": 50, "alt": "Logo", "loading": "lazy", "decoding": "async"},
    }
