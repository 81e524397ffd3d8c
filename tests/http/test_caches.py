"""Real caches in front: Varnish, nginx and Apache Traffic Server obey every header, and the server gets one request."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import httpx
import pytest

from tests.caches.running import CACHES, Counted, counting, is_installed
from tests.support import images
from tests.support.server import HOST, Server, darkroom
from tests.support.waiting import PATIENCE_SECONDS

ARRIVING = ("cache-control", "cdn-cache-control", "etag", "repr-digest", "cache-tag", "content-type", "access-control-allow-origin")

RANGES = [("bytes=0-99", slice(0, 100)), ("bytes=100-", slice(100, None)), ("bytes=-50", slice(-50, None))]

_widths = iter(range(100, 1_000))


class CacheInFront(NamedTuple):
    """A cache in front of a server: its name, a client of the cache, a client of the server, and the requests that reach the server."""

    name: str
    client: httpx.Client
    origin: httpx.Client
    counted: Counted
    digest: str


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with darkroom(tmp_path_factory.mktemp("origin"), unsigned="full") as server:
        yield server


@pytest.fixture(scope="module", params=CACHES)
def front(request: pytest.FixtureRequest, origin: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CacheInFront]:
    name: str = request.param
    if not is_installed(name):
        pytest.skip(f"{name} is not installed: .ci/run names the Debian package")
    _, running = CACHES[name]
    with counting(origin.url) as counted, running(tmp_path_factory.mktemp("cache"), counted.port) as port, origin.client() as direct:
        digest = direct.post("/v1/images", content=images.photo_jpeg(1_200, 900)).json()["digest"]
        with httpx.Client(base_url=f"http://{HOST}:{port}", trust_env=False, verify=False, timeout=PATIENCE_SECONDS) as client:
            yield CacheInFront(name, client, direct, counted, digest)


@pytest.fixture
def path(front: CacheInFront) -> str:
    """Give the path of a rendition that no client has requested."""
    wanted = {"transform": {"width": next(_widths)}, "format": "webp"}
    made: str = front.origin.post(f"/v1/images/{front.digest}/urls", json=wanted).json()["url"]
    return made


def purge(front: CacheInFront, path: str) -> httpx.Response:
    """Purge a path from a cache, in the way that this cache supports."""
    return front.client.get(f"/purge{path}") if front.name == "nginx" else front.client.request("PURGE", path)


def test_rendition_is_fetched_once_and_its_headers_arrive_whole(front: CacheInFront, path: str) -> None:
    responses = [front.client.get(path) for _ in range(5)]
    direct = front.origin.get(path)
    assert front.counted.fetches(path) == 1
    for response in responses:
        assert (response.status_code, response.content) == (200, direct.content)
        for name in ARRIVING:
            assert response.headers[name] == direct.headers[name]
        assert int(response.headers.get("age", "0")) >= 0
    assert responses[0].headers["cache-control"] == "public, max-age=31536000, immutable"


def test_rendition_requested_by_many_at_once_is_fetched_and_rendered_once(front: CacheInFront, path: str) -> None:
    with ThreadPoolExecutor(20) as threads:
        responses = list(
            threads.map(
                lambda _: httpx.get(front.client.base_url.join(path), trust_env=False, verify=False, timeout=PATIENCE_SECONDS), range(20)
            )
        )
    assert {response.status_code for response in responses} == {200}
    assert len({response.content for response in responses}) == 1
    # Traffic Server forwards each request that arrives before the first bytes do; the server still renders once.
    assert front.counted.fetches(path) == 1 or front.name == "Apache Traffic Server"
    assert "; hit; " in front.origin.get(path).headers["cache-status"]


def test_conditional_request_gets_304_from_the_cache(front: CacheInFront, path: str) -> None:
    etag = front.client.get(path).headers["etag"]
    # Varnish compares the whole field; a browser sends one tag.
    for condition in (etag,) if front.name == "Varnish" else (etag, f'"other", {etag}'):
        response = front.client.get(path, headers={"If-None-Match": condition})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == etag
    assert front.client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert front.counted.fetches(path) == 1


@pytest.mark.parametrize(("value", "part"), RANGES)
def test_range_is_served_from_the_stored_response(front: CacheInFront, path: str, value: str, part: slice) -> None:
    whole = front.client.get(path).content
    response = front.client.get(path, headers={"Range": value})
    assert (response.status_code, response.content) == (206, whole[part])
    assert response.headers["content-range"].endswith(f"/{len(whole)}")
    assert front.counted.fetches(path) == 1


def test_range_of_a_cold_rendition_is_right_and_so_is_the_whole_afterwards(front: CacheInFront, path: str) -> None:
    response = front.client.get(path, headers={"Range": "bytes=10-19"})
    whole = front.client.get(path)
    assert (response.status_code, response.content) == (206, whole.content[10:20])
    assert whole.status_code == 200


def test_range_beyond_the_end_is_416(front: CacheInFront, path: str) -> None:
    whole = front.client.get(path).content
    response = front.client.get(path, headers={"Range": f"bytes={len(whole)}-"})
    assert response.status_code == 416
    assert front.client.get(path).content == whole


def test_head_is_served_by_the_cache(front: CacheInFront, path: str) -> None:
    whole = front.client.get(path)
    response = front.client.head(path)
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-length"] == str(len(whole.content))
    assert (front.counted.fetches(path), front.counted.requests["HEAD", path]) == (1, 0)


def test_request_with_no_cache_gets_the_right_rendition(front: CacheInFront, path: str) -> None:
    whole = front.client.get(path).content
    for directive in ("no-cache", "max-age=0"):
        response = front.client.get(path, headers={"Cache-Control": directive})
        assert (response.status_code, response.content) == (200, whole)


def test_purged_rendition_is_fetched_again(front: CacheInFront, path: str) -> None:
    front.client.get(path)
    assert purge(front, path).status_code == 200
    assert front.client.get(path).status_code == 200
    assert front.counted.fetches(path) == 2


@pytest.mark.parametrize("front", ["Varnish"], indirect=True)
def test_varnish_purges_by_the_tag_of_an_image(front: CacheInFront, path: str) -> None:
    other = front.origin.post("/v1/images", content=images.photo_jpeg(200, 100)).json()["src"]
    for one in (path, other):
        front.client.get(one)
    assert front.client.request("BAN", "/", headers={"Cache-Tag": front.digest}).status_code == 200
    for one in (path, other):
        front.client.get(one)
    assert (front.counted.fetches(path), front.counted.fetches(other)) == (2, 1)


def test_taken_down_image_is_gone_once_the_cache_is_purged(front: CacheInFront) -> None:
    document = front.origin.post("/v1/images", content=images.photo_jpeg(next(_widths), 90)).json()
    assert front.client.get(document["src"]).status_code == 200
    front.origin.delete(f"/v1/images/{document['digest']}")
    purge(front, document["src"])
    for _ in range(2):
        assert front.client.get(document["src"]).status_code == 410


def test_error_is_never_stored(front: CacheInFront, path: str) -> None:
    unsigned = path.rpartition("/")[0] + "/-.webp"
    for wrong, status in ((unsigned, 403), (path.replace(".webp", ".xyz"), 400), ("/i/v3/nothing", 400), ("/nothing", 404)):
        for _ in range(2):
            response = front.client.get(wrong)
            assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
        assert front.counted.fetches(wrong) == 2


def test_negotiated_rendition_is_not_stored_by_caches_that_ignore_vary(front: CacheInFront) -> None:
    negotiated = f"/i/v3/{front.digest}/full/-.auto"
    for accept, media_type in (("image/avif,image/webp,*/*", "image/avif"), ("*/*", "image/jpeg"), ("image/webp", "image/webp")) * 2:
        response = front.client.get(negotiated, headers={"Accept": accept})
        assert (response.status_code, response.headers["content-type"]) == (200, media_type)


def test_upload_and_health_are_not_stored(front: CacheInFront) -> None:
    body = images.photo_jpeg(333, next(_widths))
    assert [front.client.post("/v1/images", content=body).status_code for _ in range(2)] == [201, 200]
    before = front.counted.fetches("/health")
    for _ in range(2):
        assert front.client.get("/health").json()["status"] == "ok"
    assert front.counted.fetches("/health") == before + 2
