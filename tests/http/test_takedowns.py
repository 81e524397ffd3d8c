"""`DELETE /v1/images/…`: an image is taken down in this process at once, in others soon, and stays down."""

from __future__ import annotations

import json
import os
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from tests.support import images
from tests.support.cloudflare import Fault, fake_cloudflare
from tests.support.server import HOST, Server, darkroom
from tests.support.waiting import PATIENCE_SECONDS, wait_until, within

# Each test takes down an image of its own.
_widths = iter(range(300, 1_000))


def uploaded(client: httpx.Client) -> tuple[str, bytes]:
    body = images.photo_jpeg(next(_widths), 240)
    return client.post("/v1/images", content=body).raise_for_status().json()["digest"], body


def url(client: httpx.Client, digest: str, image_format: str = "webp", **transform: object) -> str:
    response = client.post(f"/v1/images/{digest}/urls", json={"transform": transform, "format": image_format})
    made: str = response.raise_for_status().json()["url"]
    return made


def check_problem(response: httpx.Response, status: int, kind: str) -> None:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert response.headers["cache-control"] == "no-store"
    assert "cdn-cache-control" not in response.headers
    assert "darkroom-cdn-cache-control" not in response.headers
    problem = response.json()
    assert problem["type"] == f"/problems/{kind}"
    assert problem["expected"]
    assert problem["remedy"]


def test_render_that_waits_while_its_image_is_taken_down_is_gone(client: httpx.Client, server: Server) -> None:
    digest, _ = uploaded(client)
    # More than render processes may run, so that the files of some renders are not open yet.
    paths = [url(client, digest, width=width) for width in range(100, 104 + 2 * (os.cpu_count() or 1))]
    connections = [HTTPConnection(HOST, server.port, timeout=PATIENCE_SECONDS) for _ in paths]
    with server.suspended_renders():
        for connection, path in zip(connections, paths, strict=True):
            connection.request("GET", path)
        # The server has read the documents for the requests before it responds to a later one.
        for _ in range(3):
            client.get(f"/v1/images/{digest}").raise_for_status()
        assert client.delete(f"/v1/images/{digest}").status_code == 200
    responses = [connection.getresponse() for connection in connections]
    assert [(response.status, json.load(response)["type"]) for response in responses] == [(410, "/problems/gone")] * len(paths)
    for connection in connections:
        connection.close()


def test_takedown_is_confirmed_and_nothing_is_served_from_memory_afterwards(client: httpx.Client) -> None:
    digest, body = uploaded(client)
    paths = [url(client, digest, width=100), url(client, digest, "jpeg", width=100)]
    for path in paths:
        client.get(path)
        assert "; hit; " in client.get(path).headers["cache-status"]
    response = client.delete(f"/v1/images/{digest}")
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
    taken_down = response.json()
    assert taken_down == {"digest": digest, "taken_down": taken_down["taken_down"], "renditions": 2, "cdn": "none"}
    assert taken_down["taken_down"].endswith("Z")
    for path in paths:
        check_problem(client.get(path), 410, "gone")
    check_problem(client.get(f"/v1/images/{digest}"), 410, "gone")
    check_problem(client.post(f"/v1/images/{digest}/urls", json={}), 410, "gone")
    check_problem(client.patch(f"/v1/images/{digest}", json={"alt": "a"}, headers={"If-Match": "*"}), 410, "gone")
    check_problem(client.post("/v1/images", content=body), 410, "gone")
    several = client.post("/v1/images", files=[("file", body), ("file", images.rgb_png(64, 48))])
    assert several.status_code == 207
    assert [image.get("status", 201) for image in several.json()["images"]] == [410, 201]


def test_takedown_of_an_overlay_removes_renditions_that_show_it(client: httpx.Client) -> None:
    under, _ = uploaded(client)
    over, _ = uploaded(client)
    laid = url(client, under, width=200, overlay=over)
    plain = url(client, under, width=200)
    for path in (laid, plain):
        client.get(path)
        assert "; hit; " in client.get(path).headers["cache-status"]
    client.delete(f"/v1/images/{over}")
    check_problem(client.get(laid), 410, "gone")
    assert "; hit; " in client.get(plain).headers["cache-status"]


def test_takedown_removes_negotiated_responses(server: Server, client: httpx.Client, data: Path) -> None:
    with darkroom(data, unsigned="full") as own, own.client() as asking:
        digest, _ = uploaded(asking)
        path = f"/i/v3/{digest}/full/-.auto"
        for accept in ("image/webp", "*/*"):
            asking.get(path, headers={"Accept": accept})
            assert "; hit; " in asking.get(path, headers={"Accept": accept}).headers["cache-status"]
        asking.delete(f"/v1/images/{digest}")
        for accept in ("image/webp", "*/*"):
            check_problem(asking.get(path, headers={"Accept": accept}), 410, "gone")


def test_tombstone_deleted_lets_the_image_be_uploaded_again(client: httpx.Client) -> None:
    digest, body = uploaded(client)
    path = url(client, digest, width=100)
    before = client.get(path)
    client.delete(f"/v1/images/{digest}")
    lifted = client.delete(f"/v1/images/{digest}/tombstone")
    assert (lifted.status_code, lifted.content, lifted.headers["cache-control"]) == (204, b"", "no-store")
    check_problem(client.get(path), 404, "not-found")
    assert client.post("/v1/images", content=body).status_code == 201
    after = client.get(path)
    assert (after.status_code, after.content, after.headers["etag"]) == (200, before.content, before.headers["etag"])
    check_problem(client.delete(f"/v1/images/{digest}/tombstone"), 404, "not-found")


def test_takedown_repeated_has_the_same_response(client: httpx.Client) -> None:
    digest, _ = uploaded(client)
    first = client.delete(f"/v1/images/{digest}").json()
    again = client.delete(f"/v1/images/{digest}")
    assert (again.status_code, again.json()["taken_down"]) == (200, first["taken_down"])


@pytest.mark.parametrize("digest", ["a" * 32, "short", "A" * 32, "..%2f..%2fetc"])
@pytest.mark.parametrize("what", ["", "/tombstone"])
def test_takedown_of_an_unknown_image_is_404(client: httpx.Client, digest: str, what: str) -> None:
    response = client.delete(f"/v1/images/{digest}{what}")
    assert response.status_code == 404
    assert response.headers["cache-control"] == "no-store"


def test_takedown_needs_a_token_with_its_scope(data: Path) -> None:
    with darkroom(data, tokens="a-token-that-ingests:ingest+read,a-token-that-deletes:delete") as server, server.client() as client:
        ingests = {"Authorization": "Bearer a-token-that-ingests"}
        deletes = {"Authorization": "Bearer a-token-that-deletes"}
        digest = client.post("/v1/images", content=images.photo_jpeg(300, 200), headers=ingests).json()["digest"]
        for path in (f"/v1/images/{digest}", f"/v1/images/{digest}/tombstone"):
            assert client.delete(path).status_code == 401
            assert client.delete(path, headers=ingests).status_code == 403
        assert client.get(f"/v1/images/{digest}", headers=ingests).status_code == 200
        assert client.delete(f"/v1/images/{digest}", headers=deletes).status_code == 200
        assert client.delete(f"/v1/images/{digest}/tombstone", headers=deletes).status_code == 204


@pytest.mark.long
def test_takedown_reaches_the_hits_of_another_process_within_20_seconds_and_holds_after_a_restart(tmp_path: Path) -> None:
    store = (tmp_path / "store").as_uri()
    keys = "00112233445566778899aabbccddeeff"
    with (
        darkroom(tmp_path / "one", store=store, keys=keys) as one,
        darkroom(tmp_path / "two", store=store, keys=keys) as two,
        one.client() as first,
        two.client() as second,
    ):
        digest, body = uploaded(first)
        path = url(first, digest, width=100)
        second.get(path)
        assert "; hit; " in second.get(path).headers["cache-status"]
        first.delete(f"/v1/images/{digest}")
        with within(21):
            wait_until(lambda: second.get(path).status_code == 410)
        check_problem(second.post("/v1/images", content=body), 410, "gone")
    with darkroom(tmp_path / "three", store=store, keys=keys) as three, three.client() as third:
        check_problem(third.get(path), 410, "gone")


def test_takedown_purges_cloudflare_by_tag_and_reports_a_failure(data: Path) -> None:
    with fake_cloudflare() as cloudflare:
        settings = {"cloudflare_zone": cloudflare.zone, "cloudflare_token": cloudflare.token, "cloudflare_url": cloudflare.url}
        with darkroom(data, **settings) as server, server.client() as client:
            digest, _ = uploaded(client)
            response = client.delete(f"/v1/images/{digest}")
            assert (response.status_code, response.json()["cdn"]) == (200, "purged")
            assert cloudflare.purged_tags == [digest]
            other, _ = uploaded(client)
            cloudflare.fail(Fault(400))
            refused = client.delete(f"/v1/images/{other}")
            assert (refused.status_code, refused.json()["type"]) == (502, "/problems/cdn-failed")
            check_problem(client.get(f"/v1/images/{other}"), 410, "gone")
            assert client.delete(f"/v1/images/{other}").json()["cdn"] == "purged"
            assert cloudflare.purged_tags == [digest, other]
            assert cloudflare.token not in server.log()
