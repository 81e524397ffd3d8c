"""The OpenAPI description says what the server takes."""

from typing import Any

import httpx
import pytest

from service.openapi import OPTION_EXAMPLES
from service.options import API_OPTIONS, OPTIONS
from tests import images
from tests.servers import Server


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def description(client: httpx.Client) -> dict[str, Any]:
    answer = client.get("/docs/openapi.json")
    assert answer.status_code == 200
    described: dict[str, Any] = answer.json()
    return described


def urls_schema(description: dict[str, Any]) -> dict[str, Any]:
    body = description["paths"]["/v1/images/{digest}/urls"]["post"]["requestBody"]["content"]["application/json"]
    schema: dict[str, Any] = body["schema"]["properties"]
    return schema


def test_description_has_every_option_with_its_meaning_and_range(description: dict[str, Any]) -> None:
    described = urls_schema(description)["transform"]["properties"]
    assert list(described) == list(API_OPTIONS)
    for key, option in API_OPTIONS.items():
        assert described[key]["description"] == option.help
        assert {name: described[key][name] for name in option.schema} == option.schema


def test_description_tells_the_order_in_which_options_act(description: dict[str, Any]) -> None:
    assert ", ".join(OPTIONS) in urls_schema(description)["transform"]["description"]


def test_description_has_every_route_and_what_each_takes(description: dict[str, Any]) -> None:
    assert description["openapi"].startswith("3.1")
    assert {"/v1/images", "/v1/images/{digest}", "/v1/images/{digest}/urls", "/health"} <= set(description["paths"])
    assert set(description["paths"]["/v1/images"]["post"]["requestBody"]["content"]) == {"application/octet-stream", "multipart/form-data"}
    patch = description["paths"]["/v1/images/{digest}"]["patch"]
    assert [parameter["name"] for parameter in patch["parameters"] if parameter["in"] == "header"] == ["If-Match"]
    assert set(patch["requestBody"]["content"]["application/json"]["schema"]["properties"]) == {"focal", "alt"}


@pytest.mark.parametrize("key", API_OPTIONS)
def test_example_of_every_option_is_accepted(client: httpx.Client, key: str) -> None:
    digest = client.post("/v1/images", content=images.photo_jpeg(800, 600)).json()["digest"]
    value = OPTION_EXAMPLES[key]
    if isinstance(value, dict):
        value = {**value, "digest": client.post("/v1/images", content=images.rgba_png(64, 64)).json()["digest"]}
    boxed = {"width": 320, "height": 240, "fit": "cover"}
    wanted = {**(boxed if key in {"fit", "gravity", "focal", "enlarge", "dpr"} else {}), key: value}
    answer = client.post(f"/v1/images/{digest}/urls", json={"transform": wanted, "format": "webp"})
    assert answer.status_code == 200, answer.text
    rendition = client.get(answer.json()["url"])
    assert (rendition.status_code, rendition.headers["content-type"]) == (200, "image/webp")


def test_examples_of_whole_bodies_are_accepted(client: httpx.Client, description: dict[str, Any]) -> None:
    first = client.post("/v1/images", content=images.photo_jpeg(800, 600))
    path = f"/v1/images/{first.json()['digest']}"
    bodies = description["paths"]["/v1/images/{digest}/urls"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert len(bodies) >= 2
    for example in bodies.values():
        assert client.post(f"{path}/urls", json=example["value"]).status_code == 200
    for example in description["paths"]["/v1/images/{digest}"]["patch"]["requestBody"]["content"]["application/json"]["examples"].values():
        answer = client.patch(path, json=example["value"], headers={"If-Match": "*"})
        assert answer.status_code == 200
        assert answer.json()["focal"] == example["value"]["focal"]
