"""The OpenAPI document describes what the server accepts and returns."""

import json
from typing import Any

import httpx
import pytest

from edge.asgi import Message
from edge.fly import FlyRegion
from service.errors import ServiceError, every_problem
from service.http.openapi.examples import MISDIRECTED, RANGE_NOT_SATISFIABLE, problem_example
from service.http.openapi.operations import OPERATIONS
from service.images.options import API_OPTIONS, OPTIONS
from tests.support import images


@pytest.fixture(scope="module")
def description(client: httpx.Client) -> dict[str, Any]:
    response = client.get("/docs/openapi.json")
    assert response.status_code == 200
    described: dict[str, Any] = response.json()
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


def test_description_has_the_order_in_which_options_are_applied(description: dict[str, Any]) -> None:
    assert ", ".join(OPTIONS) in urls_schema(description)["transform"]["description"]


def test_description_has_every_operation_with_its_bodies(description: dict[str, Any]) -> None:
    assert description["openapi"].startswith("3.1")
    assert {(path, method) for path, item in description["paths"].items() for method in item} == set(OPERATIONS)
    upload = description["paths"]["/v1/images"]["post"]["requestBody"]["content"]
    assert set(upload) == {"application/octet-stream", "application/json", "multipart/form-data"}
    patch = description["paths"]["/v1/images/{digest}"]["patch"]
    assert [parameter["name"] for parameter in patch["parameters"] if parameter["in"] == "header"] == ["If-Match"]
    assert set(patch["requestBody"]["content"]["application/json"]["schema"]["properties"]) == {"focal", "alt", "name"}


@pytest.mark.parametrize("key", API_OPTIONS)
def test_example_of_every_option_is_accepted(client: httpx.Client, key: str) -> None:
    digest = client.post("/v1/images", content=images.photo_jpeg(800, 600)).json()["digest"]
    value = API_OPTIONS[key].example
    if isinstance(value, dict):
        value = {**value, "digest": client.post("/v1/images", content=images.rgba_png(64, 64)).json()["digest"]}
    boxed = {"width": 320, "height": 240, "fit": "cover"}
    wanted = {**(boxed if key in {"fit", "gravity", "focal", "enlarge", "dpr"} else {}), key: value}
    image_format = "jpeg" if key == "dynamic_range" else "webp"
    response = client.post(f"/v1/images/{digest}/urls", json={"transform": wanted, "format": image_format})
    assert response.status_code == 200, response.text
    rendition = client.get(response.json()["url"])
    assert (rendition.status_code, rendition.headers["content-type"]) == (200, f"image/{image_format}")


def test_examples_of_whole_bodies_are_accepted(client: httpx.Client, description: dict[str, Any]) -> None:
    first = client.post("/v1/images", content=images.photo_jpeg(800, 600))
    path = f"/v1/images/{first.json()['digest']}"
    bodies = description["paths"]["/v1/images/{digest}/urls"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert len(bodies) >= 2
    for example in bodies.values():
        assert client.post(f"{path}/urls", json=example["value"]).status_code == 200
    for example in description["paths"]["/v1/images/{digest}"]["patch"]["requestBody"]["content"]["application/json"]["examples"].values():
        response = client.patch(path, json=example["value"], headers={"If-Match": "*"})
        assert response.status_code == 200
        assert response.json()["focal"] == example["value"]["focal"]


def bodies(description: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return every JSON body of every request and response, with a name for it."""
    found = []
    for path, item in description["paths"].items():
        for method, operation in item.items():
            parts = {"request": operation.get("requestBody", {}), **operation["responses"]}
            found += [
                (f"{method} {path} {name} {media_type}", body)
                for name, part in parts.items()
                for media_type, body in part.get("content", {}).items()
                if media_type.endswith("json")
            ]
    return found


def fits(description: dict[str, Any], value: object, schema: dict[str, Any]) -> None:
    """Raise unless `value` matches `schema`, which may refer to the components of the document."""
    import jsonschema  # noqa: PLC0415 - takes two seconds in every process that collects the tests

    jsonschema.Draft202012Validator({**schema, "components": description["components"]}).validate(value)


def test_description_is_valid_openapi(description: dict[str, Any]) -> None:
    from openapi_spec_validator import OpenAPIV31SpecValidator  # noqa: PLC0415 - takes a second in every process that collects the tests

    OpenAPIV31SpecValidator(description).validate()


def test_every_body_has_an_example_that_its_schema_allows(description: dict[str, Any]) -> None:
    found = bodies(description)
    assert len(found) > 60
    for name, body in found:
        assert body["examples"], name
        for example in body["examples"].values():
            fits(description, example["value"], body["schema"])


def test_every_operation_except_health_lists_its_problems(description: dict[str, Any]) -> None:
    for (path, method), operation in OPERATIONS.items():
        responses = description["paths"][path][method]["responses"]
        assert set(responses) == {*map(str, operation.replies), *(str(error.status_code) for error in operation.problems)}
        assert operation.problems or path in {"/health", "/livez"}


def test_responses_of_the_server_match_the_description(client: httpx.Client, description: dict[str, Any]) -> None:
    def check(response: httpx.Response, path: str, method: str) -> None:
        content = description["paths"][path][method]["responses"][str(response.status_code)]["content"]
        fits(description, response.json(), content[response.headers["content-type"].partition(";")[0]]["schema"])

    first = client.post("/v1/images", content=images.photo_jpeg(700, 500))
    digest = first.json()["digest"]
    check(first, "/v1/images", "post")
    check(client.post("/v1/images", content=images.photo_jpeg(700, 500)), "/v1/images", "post")
    check(client.post("/v1/images", content=b"no image"), "/v1/images", "post")
    check(client.post("/v1/images", files=[("file", b"no image"), ("file", images.photo_jpeg(700, 500))]), "/v1/images", "post")
    check(client.get("/v1/images", params={"limit": 2}), "/v1/images", "get")
    check(client.get("/v1/images", params={"limit": 0}), "/v1/images", "get")
    check(client.get(f"/v1/images/{digest}"), "/v1/images/{digest}", "get")
    check(client.get(f"/v1/images/{'a' * 32}"), "/v1/images/{digest}", "get")
    check(client.patch(f"/v1/images/{digest}", json={"alt": "Hills."}, headers={"If-Match": "*"}), "/v1/images/{digest}", "patch")
    check(client.patch(f"/v1/images/{digest}", json={"alt": "Hills."}), "/v1/images/{digest}", "patch")
    check(client.patch(f"/v1/images/{digest}", json={}, headers={"If-Match": '"other"'}), "/v1/images/{digest}", "patch")
    check(client.post(f"/v1/images/{digest}/urls", json={}), "/v1/images/{digest}/urls", "post")
    check(client.post(f"/v1/images/{digest}/urls", json={"format": "webp"}), "/v1/images/{digest}/urls", "post")
    check(client.post(f"/v1/images/{digest}/urls", json={"transform": {"wide": 1}}), "/v1/images/{digest}/urls", "post")
    check(client.post("/v1/images/known", json={"digests": [digest]}), "/v1/images/known", "post")
    check(client.get("/v1/sources"), "/v1/sources", "get")
    check(client.get("/v1/sources/cms/objects"), "/v1/sources/{name}/objects", "get")
    check(client.post("/v1/sources/cms/urls", json={"path": "a.jpg"}), "/v1/sources/{name}/urls", "post")
    check(client.get("/health"), "/health", "get")
    check(client.delete(f"/v1/images/{digest}"), "/v1/images/{digest}", "delete")
    check(client.post("/v1/images", content=images.photo_jpeg(700, 500)), "/v1/images", "post")


def test_every_operation_except_health_has_the_421_of_the_edge(description: dict[str, Any]) -> None:
    for path, item in description["paths"].items():
        for operation in item.values():
            assert ("421" in operation["responses"]) == (path not in {"/health", "/livez", "/v1/sources", "/v1/sources/{name}/objects"})


@pytest.mark.anyio
async def test_example_of_421_is_a_response_of_the_edge() -> None:
    async def receive() -> Message:
        raise AssertionError("the length of the body is declared")

    response = await FlyRegion(region="iad", primary="ams").replay_request([(b"content-length", b"960001")], receive)
    assert response is not None
    assert json.loads(response.body) == MISDIRECTED


def test_example_of_416_is_a_response_of_the_edge(client: httpx.Client) -> None:
    url = client.post("/v1/images", content=images.photo_jpeg(600, 400)).json()["src"]
    size = len(client.get(url).content)
    response = client.get(url, headers={"Range": f"bytes={size}-"})
    assert response.status_code == 416
    assert response.json()["detail"].replace(str(size), "52340") == RANGE_NOT_SATISFIABLE["detail"]


def test_every_problem_is_described_by_some_operation(description: dict[str, Any]) -> None:
    described = {
        example["value"]["type"]
        for name, body in bodies(description)
        if name.endswith("problem+json")
        for example in body["examples"].values()
    }
    # The edge's own problems have no page.
    assert described == {error.type_uri() for error in every_problem() if error is not ServiceError} | {"about:blank"}


@pytest.mark.parametrize("error", every_problem(), ids=lambda error: error.slug)
def test_every_problem_has_its_own_title_and_help(error: type[ServiceError]) -> None:
    assert {"slug", "title", "help"} <= set(vars(error))
    assert problem_example(error)["remedy"].endswith(".")  # type: ignore[index]


def test_several_files_that_fail_alike_have_a_documented_response(client: httpx.Client, description: dict[str, Any]) -> None:
    files = [("file", ("a.jpg", b"no image")), ("file", ("b.jpg", b"none either"))]
    response = client.post("/v1/images", files=files)
    assert response.status_code == 415
    documented = description["paths"]["/v1/images"]["post"]["responses"]["415"]["content"]
    assert documented["application/json"]["schema"] == {"$ref": "#/components/schemas/ImageDocuments"}
    assert response.headers["content-type"] in documented
    assert [problem["status"] for problem in response.json()["images"]] == [415, 415]
