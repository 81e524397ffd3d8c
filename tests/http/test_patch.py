"""`PATCH /v1/images/{digest}`: the focal point and the alternative text, against a real server."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import images
from tests.support.server import darkroom

COVER = {"width": 64, "height": 64, "fit": "cover"}


_seeds = iter(range(1_000, 2_000))


@pytest.fixture
def image(client: httpx.Client) -> httpx.Response:
    """Give the response to the upload of a new image."""
    response = client.post("/v1/images", content=images.photo_jpeg(next(_seeds), 300))
    assert response.status_code == 201
    return response


def path(image: httpx.Response) -> str:
    return f"/v1/images/{image.json()['digest']}"


def change(client: httpx.Client, image: httpx.Response, body: Any, if_match: str | None = "*") -> httpx.Response:
    return client.patch(path(image), json=body, headers={} if if_match is None else {"If-Match": if_match})


def url(client: httpx.Client, image: httpx.Response, **transform: Any) -> str:
    response = client.post(f"{path(image)}/urls", json={"transform": transform, "format": "webp"})
    found: str = response.json()["url"]
    return found


def check_problem(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    problem: dict[str, Any] = response.json()
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert response.headers["cache-control"] == "no-store"
    assert problem["type"] == f"/problems/{kind}"
    assert problem["expected"]
    assert problem["remedy"]
    return problem


def test_patch_stores_focal_point_and_alternative_text(client: httpx.Client, image: httpx.Response) -> None:
    response = change(client, image, {"focal": [0.3, 0.6], "alt": "A panda"}, image.headers["etag"])
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
    document = client.get(path(image))
    assert document.json() == response.json()
    assert document.headers["etag"] == response.headers["etag"] != image.headers["etag"]
    assert document.json()["focal"] == [0.3, 0.6]
    assert 'alt="A panda"' in document.json()["picture"]
    for name in ("digest", "created", "placeholder", "sources"):
        assert document.json()[name] == image.json()[name]


def test_patch_changes_only_the_members_that_it_has(client: httpx.Client, image: httpx.Response) -> None:
    change(client, image, {"focal": [0.3, 0.6], "alt": "A panda"})
    assert change(client, image, {"alt": "Two pandas"}).json()["focal"] == [0.3, 0.6]
    assert change(client, image, {"focal": None}).json()["alt"] == "Two pandas"
    assert client.get(path(image)).json()["focal"] is None
    assert change(client, image, {}).json()["alt"] == "Two pandas"


def test_patch_of_more_than_four_decimals_is_rounded(client: httpx.Client, image: httpx.Response) -> None:
    assert change(client, image, {"focal": [0.123456, 1]}).json()["focal"] == [0.1235, 1.0]


def test_stored_focal_point_replaces_a_default_but_not_a_requested_gravity(client: httpx.Client, image: httpx.Response) -> None:
    before = url(client, image, **COVER)
    change(client, image, {"focal": [0.25, 0.75]})
    for guess in ({}, {"gravity": "center"}, {"gravity": "attention"}, {"gravity": "entropy"}):
        assert "gravity=focal:0.25:0.75" in url(client, image, **COVER, **guess)
    assert "gravity=north/" in url(client, image, **COVER, gravity="north")
    assert "gravity=focal:0.1:0.2" in url(client, image, **COVER, focal=[0.1, 0.2])
    for other in ({"width": 64}, {**COVER, "fit": "contain"}, {**COVER, "fit": "fill"}):
        assert "gravity" not in url(client, image, **other)
    assert client.get(before).status_code == 200


def test_patch_without_if_match_is_428_and_changes_nothing(client: httpx.Client, image: httpx.Response) -> None:
    check_problem(change(client, image, {"alt": "x"}, None), 428, "precondition-required")
    assert client.get(path(image)).json() == image.json()


@pytest.mark.parametrize("tag", ['"someone-else-s"', 'W/"x", "y"'])
def test_patch_of_another_version_is_412_and_changes_nothing(client: httpx.Client, image: httpx.Response, tag: str) -> None:
    problem = check_problem(change(client, image, {"alt": "x"}, tag), 412, "precondition-failed")
    assert problem["expected"] == image.headers["etag"]
    assert client.get(path(image)).json() == image.json()


def test_patch_with_a_list_of_tags_matches_any_of_them(client: httpx.Client, image: httpx.Response) -> None:
    assert change(client, image, {"alt": "x"}, f'"another", {image.headers["etag"]}').status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"focal": [1.5, 0]},
        {"focal": [0.5]},
        {"focal": "0.5,0.5"},
        {"focal": [-0.1, 0]},
        {"alt": None},
        {"alt": 5},
        {"alt": "x" * 2_001},
        {"width": 5},
        [],
    ],
    ids=str,
)
def test_patch_with_an_invalid_member_is_400(client: httpx.Client, image: httpx.Response, body: Any) -> None:
    check_problem(change(client, image, body), 400, "bad-request")
    assert client.get(path(image)).json() == image.json()


def test_patch_without_json_is_400_and_of_an_unknown_image_404(client: httpx.Client, image: httpx.Response) -> None:
    check_problem(client.patch(path(image), content=b"{", headers={"If-Match": "*"}), 400, "bad-request")
    check_problem(client.patch(f"/v1/images/{'a' * 32}", json={}, headers={"If-Match": "*"}), 404, "not-found")


def test_patch_by_many_at_once_succeeds_for_one(client: httpx.Client, image: httpx.Response) -> None:
    tag = image.headers["etag"]
    with ThreadPoolExecutor(20) as threads:
        responses = list(threads.map(lambda number: change(client, image, {"alt": f"by {number}"}, tag), range(20)))
    assert sorted(response.status_code for response in responses) == [200] + [412] * 19
    (winner,) = (response for response in responses if response.status_code == 200)
    assert client.get(path(image)).json() == winner.json()


def test_patch_needs_the_scope_ingest_and_survives_a_restart(data: Path) -> None:
    reader, writer = "reader-token-16-long", "writer-token-16-long"
    tokens = {"tokens": f"{reader}:read,{writer}:ingest+read"}
    with darkroom(data, **tokens) as server, server.client(headers={"Authorization": f"Bearer {writer}"}) as client:
        image = client.post("/v1/images", content=images.photo_jpeg(90, 60))
        with server.client() as stranger:
            check_problem(change(stranger, image, {"alt": "x"}), 401, "unauthorized")
        with server.client(headers={"Authorization": f"Bearer {reader}"}) as other:
            check_problem(change(other, image, {"alt": "x"}), 403, "forbidden")
        assert change(client, image, {"focal": [0.5, 1], "alt": "kept"}, image.headers["etag"]).status_code == 200
        document = client.get(path(image)).json()
    with darkroom(data, **tokens) as server, server.client(headers={"Authorization": f"Bearer {writer}"}) as client:
        assert client.get(path(image)).json() == document
        # An upload of the same bytes is the same image, with its changes.
        assert client.post("/v1/images", content=images.photo_jpeg(90, 60)).json() == document


def test_document_is_304_until_it_changes(client: httpx.Client, image: httpx.Response) -> None:
    path = image.headers["location"]
    tag = client.get(path).headers["etag"]
    for condition in (tag, f"W/{tag}", f'"another", {tag}', "*"):
        unchanged = client.get(path, headers={"If-None-Match": condition})
        assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", tag)
        assert unchanged.headers["cache-control"] == "no-store"
    assert client.get(path, headers={"If-None-Match": '"another"'}).status_code == 200
    assert client.patch(path, json={"alt": "Hills."}, headers={"If-Match": tag}).status_code == 200
    changed = client.get(path, headers={"If-None-Match": tag})
    assert (changed.status_code, changed.json()["alt"]) == (200, "Hills.")
