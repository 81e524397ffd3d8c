"""Small requests for very much work: refused before the work; and the largest permitted ones are quick."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support import images
from tests.support.server import Server, darkroom

MOST_SECONDS = 1.5


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server of this module's own, because its CPU time is measured."""
    with darkroom(tmp_path_factory.mktemp("excessive"), sources="cms=https://images.example.com") as running:
        yield running


@pytest.fixture(scope="module")
def digest(own: Server) -> str:
    """Give the digest of a stored photo."""
    with own.client() as client:
        return str(client.post("/v1/images", content=images.photo_jpeg(1_600, 1_200)).json()["digest"])


def timed_request(server: Server, path: str, wanted: object, method: str = "POST") -> tuple[httpx.Response, float]:
    """Return the response to a request with a body of JSON, and the CPU time in seconds that it took."""
    worker = server.worker()
    before = worker.cpu_times()
    with server.client() as client:
        response = client.request(method, path, json=wanted)
    after = worker.cpu_times()
    return response, after.user + after.system - before.user - before.system


EXCESSIVE: dict[str, dict[str, Any]] = {
    "every width": {"widths": list(range(1, 8_000))},
    "one width very often": {"widths": [640] * 10_000},
    "every width in a format very often": {"widths": list(range(1, 4_000)), "formats": ["jpeg"] * 2_000},
    "a format twice": {"formats": ["webp", "jpeg", "webp"]},
    "one more width": {"widths": list(range(100, 133))},
    "one more URL": {"widths": list(range(100, 125)), "formats": ["avif", "webp", "jpeg", "png"]},
    "long sizes": {"sizes": "1" * 1_001},
    "long alternative text": {"alt": "<" * 2_001},
    "long variant": {"variant": "v" * 60_000},
    "long format": {"format": "f" * 60_000},
    "long key": {"transform": {"k" * 60_000: 1}},
    "many keys": {"transform": {f"k{number}": 1 for number in range(5_000)}},
    "long list": {"transform": {"crop": [1] * 20_000}},
    "long list as text": {"transform": {"crop": "1:" * 30_000}},
    "long focal point": {"transform": {"width": 9, "height": 9, "fit": "cover", "gravity": "focal:" + "1:" * 30_000}},
    "long sides": {"transform": {"pad": "1," * 30_000}},
    "long number": {"transform": {"width": "1" * 60_000}},
    "long word": {"transform": {"fit": "cover" * 12_000}},
    "long overlay": {"transform": {"overlay": "a" * 32 + ":1" * 30_000}},
    "overlay of many parts": {"transform": {"overlay": {f"k{number}": 1 for number in range(5_000)}}},
}


@pytest.mark.parametrize("name", EXCESSIVE)
def test_urls_of_an_excessive_request_are_400_at_little_cost(own: Server, digest: str, name: str) -> None:
    response, seconds = timed_request(own, f"/v1/images/{digest}/urls", EXCESSIVE[name])
    problem = response.json()
    assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")
    assert problem["expected"]
    assert problem["remedy"]
    assert len(problem["received"]) < 200
    assert seconds < MOST_SECONDS


@pytest.mark.parametrize("name", [name for name, body in EXCESSIVE.items() if "transform" in body or "variant" in body or "format" in body])
def test_source_url_of_an_excessive_request_is_400_at_little_cost(own: Server, name: str) -> None:
    response, seconds = timed_request(own, "/v1/sources/cms/urls", {"path": "a.jpg", **EXCESSIVE[name]})
    assert response.status_code == 400
    assert seconds < MOST_SECONDS


@pytest.mark.parametrize("body", [{"url": "https://images.example.com/" + "a" * 60_000}, {"source": "cms", "path": "a" * 60_000}])
def test_path_in_a_source_that_is_too_long_is_400_and_not_fetched(own: Server, body: dict[str, str]) -> None:
    response, seconds = timed_request(own, "/v1/images", body)
    assert (response.status_code, response.json()["type"]) == (400, "/problems/bad-request")
    assert seconds < MOST_SECONDS


def test_urls_of_the_most_widths_and_formats_are_made(own: Server, digest: str) -> None:
    wanted = {"widths": list(range(100, 132)), "formats": ["avif", "webp", "jpeg"], "sizes": "1" * 1_000, "alt": "<" * 2_000}
    response, seconds = timed_request(own, f"/v1/images/{digest}/urls", wanted)
    assert response.status_code == 200
    assert [len(source["renditions"]) for source in response.json()["sources"]] == [32, 32, 32]
    assert seconds < MOST_SECONDS


def test_urls_in_every_format_are_made(own: Server, digest: str) -> None:
    response, _ = timed_request(own, f"/v1/images/{digest}/urls", {"widths": [320, 640], "formats": ["png", "gif", "avif", "webp", "jpeg"]})
    assert [source["type"] for source in response.json()["sources"]] == [f"image/{name}" for name in ("png", "gif", "avif", "webp", "jpeg")]


def test_deep_and_broken_json_is_400(own: Server, digest: str) -> None:
    with own.client() as client:
        for body in (b'{"transform":{"crop":' + b"[" * 30_000 + b"]" * 30_000 + b"}}", b'{"alt":"\xed\xa0\x80"}'):
            for method, path in (
                ("POST", f"/v1/images/{digest}/urls"),
                ("PATCH", f"/v1/images/{digest}"),
                ("POST", "/v1/sources/cms/urls"),
            ):
                response = client.request(method, path, content=body)
                assert (response.status_code, response.json()["type"]) == (400, "/problems/bad-request")
