"""`GET /v1/images` and `POST /v1/images/known`, against real servers."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.http.schemas import DEFAULT_LIMIT, MAX_DIGESTS, MAX_LIMIT
from tests.http.test_ingest import digest_of
from tests.http.test_takedowns import check_problem
from tests.support import images
from tests.support.server import darkroom
from tests.support.waiting import wait_until

UNKNOWN = "a" * 32
TOKENS = {"reader-token-00000": "read", "ingest-token-00000": "ingest", "delete-token-00000": "delete"}


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, list[str]]]:
    """Give a server with seven images, and their digests, newest first."""
    with darkroom(tmp_path_factory.mktemp("listed")) as server, server.client() as client:
        digests = [upload(client, 40 + number) for number in range(7)]
        yield client, digests[::-1]


def upload(client: httpx.Client, width: int) -> str:
    digest: str = client.post("/v1/images", content=images.flat_png(width, 30, (9, 9, 9))).raise_for_status().json()["digest"]
    # The next image must have another millisecond.
    time.sleep(0.002)
    return digest


def pages(client: httpx.Client, first: str) -> Iterator[list[str]]:
    """Return the digests of each page, following `Link`."""
    path: str | None = first
    while path is not None:
        response = client.get(path).raise_for_status()
        yield [document["digest"] for document in response.json()["images"]]
        link = response.headers.get("link")
        match = None if link is None else re.fullmatch(r'<(/v1/images\?limit=\d+&cursor=[0-9]{13}-[a-z2-7]{32})>; rel="next"', link)
        assert link is None or match is not None
        path = None if match is None else match[1]


def test_list_has_whole_documents_newest_first(listed: tuple[httpx.Client, list[str]]) -> None:
    client, digests = listed
    response = client.get("/v1/images")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert "link" not in response.headers
    assert [document["digest"] for document in response.json()["images"]] == digests
    assert response.json()["images"] == [client.get(f"/v1/images/{digest}").json() for digest in digests]


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (6, [6, 1]), (7, [7]), (MAX_LIMIT, [7])])
def test_list_page_by_page_has_every_image_once(listed: tuple[httpx.Client, list[str]], limit: int, sizes: list[int]) -> None:
    client, digests = listed
    found = list(pages(client, f"/v1/images?limit={limit}"))
    assert [len(page) for page in found] == sizes
    assert [digest for page in found for digest in page] == digests


@pytest.mark.parametrize("limit", ["0", "-1", str(MAX_LIMIT + 1), "9999999", "ten", "1.5", "", "%C2%B2"])
def test_list_with_a_bad_limit_is_400_with_expected(client: httpx.Client, limit: str) -> None:
    response = client.get(f"/v1/images?limit={limit}")
    check_problem(response, 400, "bad-request")
    assert response.json()["expected"] == f"a whole number from 1 to {MAX_LIMIT}"
    assert str(DEFAULT_LIMIT) in response.json()["remedy"]


@pytest.mark.parametrize(
    "cursor", ["", "x", UNKNOWN, f"8000000000000-{UNKNOWN.upper()}", f"8000000000000-{UNKNOWN}x", "..%2F..%2Fdocuments"]
)
def test_list_with_a_bad_cursor_is_400_with_a_remedy(client: httpx.Client, cursor: str) -> None:
    response = client.get(f"/v1/images?cursor={cursor}")
    check_problem(response, 400, "bad-request")
    assert response.json()["expected"] == 'the cursor of a Link with rel="next"'


@pytest.mark.parametrize("query", ["page=2", "limit=1&limit=2", "limit=1&offset=3"])
def test_list_with_an_unknown_or_repeated_parameter_is_400(client: httpx.Client, query: str) -> None:
    response = client.get(f"/v1/images?{query}")
    check_problem(response, 400, "bad-request")
    assert response.json()["received"] == query


def test_list_leaves_out_taken_down_images_until_they_are_uploaded_again(listed: tuple[httpx.Client, list[str]]) -> None:
    client, digests = listed
    older, newer = upload(client, 100), upload(client, 101)
    client.delete(f"/v1/images/{older}").raise_for_status()
    assert list(pages(client, "/v1/images?limit=8")) == [[newer, *digests]]
    client.delete(f"/v1/images/{older}/tombstone").raise_for_status()
    assert upload(client, 100) == older
    assert next(pages(client, "/v1/images?limit=2")) == [older, newer]
    for digest in (older, newer):
        client.delete(f"/v1/images/{digest}").raise_for_status()
    assert list(pages(client, "/v1/images")) == [digests]


def test_list_has_images_of_a_version_without_it(data: Path) -> None:
    with darkroom(data) as server, server.client() as client:
        digests = [upload(client, 200 + number) for number in range(3)]
        entries = server.stored("recent")
    assert len(entries) == 3
    # The store as such a version leaves it.
    for entry in entries:
        entry.unlink()
    (data / "store" / "recent-complete").unlink()
    with darkroom(data) as server, server.client() as client:
        wait_until(lambda: len(server.stored("recent")) == 3)
        assert [digest for page in pages(client, "/v1/images") for digest in page] == digests[::-1]
    assert [path.name for path in (data / "store" / "recent").iterdir() if "#" in path.name] == []


def test_lookup_returns_documents_of_stored_images_in_the_requested_order(listed: tuple[httpx.Client, list[str]]) -> None:
    client, digests = listed
    wanted = [digests[4], UNKNOWN, digests[1], digests[4]]
    response = client.post("/v1/images/known", json={"digests": wanted})
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.json() == {
        "images": [client.get(f"/v1/images/{digest}").json() for digest in (digests[4], digests[1])],
        "gone": [],
        "max_upload_bytes": 64 << 20,
    }


def test_lookup_of_no_digests_is_empty(client: httpx.Client) -> None:
    assert client.post("/v1/images/known", json={"digests": []}).json()["images"] == []


def test_lookup_reports_taken_down_images(client: httpx.Client) -> None:
    body = images.flat_png(77, 31, (1, 2, 3))
    client.post("/v1/images", content=body).raise_for_status()
    client.delete(f"/v1/images/{digest_of(body)}").raise_for_status()
    found = client.post("/v1/images/known", json={"digests": [digest_of(body), UNKNOWN]}).json()
    assert (found["images"], found["gone"]) == ([], [digest_of(body)])


def test_lookup_of_a_thousand_digests_succeeds_and_of_more_is_400(client: httpx.Client) -> None:
    digests = [digest_of(str(number).encode()) for number in range(MAX_DIGESTS + 1)]
    assert client.post("/v1/images/known", json={"digests": digests[:-1]}).json()["images"] == []
    response = client.post("/v1/images/known", json={"digests": digests})
    check_problem(response, 400, "bad-request")
    assert response.json()["received"] == "1,001 items"


@pytest.mark.parametrize(
    "body", [{"digests": ["short"]}, {"digests": [UNKNOWN.upper()]}, {"digests": "x"}, {"digests": [1]}, {}, [], {"digest": []}]
)
def test_lookup_with_a_bad_body_is_400_with_expected(client: httpx.Client, body: object) -> None:
    response = client.post("/v1/images/known", json=body)
    check_problem(response, 400, "bad-request")
    assert response.json()["expected"] in {
        "a digest of 32 characters of a-z and 2-7",
        "an array of at most 1,000 items, each a digest of 32 characters of a-z and 2-7",
        "an object with `digests`",
    }


def test_list_and_lookup_need_a_token_with_the_right_scope(data: Path) -> None:
    with darkroom(data, tokens=",".join(f"{token}:{scope}" for token, scope in TOKENS.items())) as server, server.client() as client:
        for scope, list_status, known_status in (("read", 200, 200), ("ingest", 403, 200), ("delete", 403, 403), ("", 401, 401)):
            token = next((token for token, granted in TOKENS.items() if granted == scope), "")
            fields = {"Authorization": f"Bearer {token}"} if token else {}
            assert client.get("/v1/images", headers=fields).status_code == list_status
            lookup = client.post("/v1/images/known", json={"digests": []}, headers=fields)
            assert lookup.status_code == known_status
        refused = client.post("/v1/images/known", json={"digests": []}, headers={"Authorization": "Bearer delete-token-00000"})
        assert refused.json()["expected"] == "a token with the scope `read` or `ingest`"


def test_openapi_examples_of_list_and_lookup_are_accepted(client: httpx.Client) -> None:
    paths = client.get("/docs/openapi.json").raise_for_status().json()["paths"]
    query = {parameter["name"]: parameter["example"] for parameter in paths["/v1/images"]["get"]["parameters"]}
    assert set(query) == {"limit", "cursor"}
    assert client.get("/v1/images", params=query).status_code == 200
    body = paths["/v1/images/known"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["properties"]["digests"]["maxItems"] == MAX_DIGESTS
    for example in body["examples"].values():
        assert client.post("/v1/images/known", json=example["value"]).status_code == 200
