"""`art_direction` of `POST /v1/images/{digest}/urls`: other crops, or other images, for some screens."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support import images

NARROW = "(max-width: 40em)"


@pytest.fixture(scope="module")
def digest(client: httpx.Client) -> str:
    found: str = client.post("/v1/images", content=images.photo_jpeg(1_000, 750)).json()["digest"]
    return found


def urls(client: httpx.Client, digest: str, crops: list[dict[str, Any]], **wanted: Any) -> httpx.Response:
    return client.post(f"/v1/images/{digest}/urls", json={"art_direction": crops, **wanted})


def test_every_url_of_each_crop_is_200_and_has_its_shape(client: httpx.Client, digest: str) -> None:
    crops = [{"media": NARROW, "transform": {"ratio": "1:1"}, "sizes": "90vw"}]
    response = urls(client, digest, crops, transform={"ratio": "16:9"}, widths=[160, 320], formats=["webp", "jpeg"])
    assert response.status_code == 200
    markup = response.json()
    described = [(source.get("media"), source.get("sizes"), source.get("width"), source.get("height")) for source in markup["sources"]]
    assert described == [(NARROW, "90vw", 320, 320)] * 2 + [(None, None, None, None)] * 2
    for source in markup["sources"]:
        for link in source["renditions"]:
            assert link["height"] == (link["width"] if "media" in source else link["width"] * 9 / 16)
            assert images.decode(client.get(link["url"]).content).size == (link["width"], link["height"])


def test_crop_uses_the_focal_point_of_its_image_and_a_variant(client: httpx.Client, digest: str) -> None:
    other = client.post("/v1/images", content=images.photo_jpeg(300, 200)).json()["digest"]
    client.patch(f"/v1/images/{other}", json={"focal": [0.25, 0.5]}, headers={"If-Match": "*"})
    crops = [{"media": NARROW, "digest": other, "transform": {"ratio": "1:1", "trim": 5}}, {"media": "(hover)"}]
    markup = urls(client, digest, crops, widths=[100], formats=["webp"]).json()
    first, second, rest = (source["renditions"][0]["url"] for source in markup["sources"])
    assert f"/{other}/" in first
    assert "ratio=1:1,gravity=focal:0.25:0.5" in first
    assert second.split("/", 4)[3:] == rest.split("/", 4)[3:]
    assert f"/{digest}/" in rest


@pytest.mark.parametrize(
    ("crops", "wanted", "kind", "expected"),
    [
        ([{"media": "screen"}], {}, "bad-request", "features in parentheses"),
        ([{"media": "(a), (b)"}], {}, "bad-request", "features in parentheses"),
        ([{"media": '(a) "><script>'}], {}, "bad-request", "features in parentheses"),
        ([{"media": ""}], {}, "bad-request", "string"),
        ([{"media": "(a)" * 90}], {}, "bad-request", "at most 200 characters"),
        ([{}], {}, "bad-request", "an object with `media`, and optionally `transform`, `variant`, `digest`, `sizes`"),
        ([{"media": NARROW, "transfrom": {}}], {}, "bad-request", "an object with `media`"),
        ([{"media": NARROW, "transform": {"ratio": "0:1"}}], {}, "bad-transform", "1:100 to 100:1"),
        ([{"media": NARROW, "transform": {"height": 9}}], {}, "bad-transform", "only a width"),
        ([{"media": NARROW, "variant": "none"}], {}, "bad-transform", "DARKROOM_VARIANTS"),
        ([{"media": NARROW, "digest": "a" * 32}], {}, "not-found", "digest"),
        ([{"media": NARROW}] * 8, {}, "bad-request", "at most 7 items"),
        ([{"media": f"(width < {width}em)"} for width in range(7)], {"widths": [100, 200, 300, 400]}, "bad-request", "at most 96"),
        ([{"media": NARROW}], {"widths": list(range(1, 26)), "formats": ["webp", "jpeg"]}, "bad-request", "at most 96"),
        ([{"media": NARROW}], {"format": "webp"}, "bad-request", "one or the other"),
    ],
)
def test_crop_that_cannot_be_made_is_refused_by_name(  # noqa: PLR0917 - fixtures and parameters
    client: httpx.Client, digest: str, crops: list[dict[str, Any]], wanted: dict[str, Any], kind: str, expected: str
) -> None:
    response = urls(client, digest, crops, **wanted)
    assert response.status_code in {400, 404}
    problem = response.json()
    assert problem["type"] == f"/problems/{kind}"
    assert expected in problem["expected"]
    assert problem["remedy"]


def test_unknown_member_of_a_crop_is_named_with_its_place(client: httpx.Client, digest: str) -> None:
    problem = urls(client, digest, [{"media": NARROW}, {"media": NARROW, "transfrom": {}}]).json()
    assert problem["detail"] == "`transfrom` is not a member of `art_direction[1]`."
    assert problem["remedy"] == "Did you mean `transform`?"
    problem = urls(client, digest, [{"sizes": "1px"}]).json()
    assert problem["detail"].startswith("`art_direction[0].media` is missing: expected a string")
