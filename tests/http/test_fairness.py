"""Fairness among clients, of a real server behind a proxy: no client takes all places, and failures cost others nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.http.failures import MAX_FAILURES
from service.images.transform import PIPELINE_VERSION
from service.settings.signing_key import development_key
from service.urls.rendition_url import RenditionUrl
from service.urls.signing import Signer
from tests.support import images
from tests.support.prometheus import samples
from tests.support.server import Server, darkroom, free_port
from tests.support.waiting import wait_until

TOKEN = "token-of-the-owner"
PLACES = 6


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, metrics_port: int) -> Iterator[Server]:
    settings = {"trusted_proxies": "127.0.0.0/8", "max_cold_requests": PLACES, "render_processes": 1, "tokens": TOKEN}
    with darkroom(tmp_path_factory.mktemp("fairness"), metrics_port=metrics_port, **settings) as running:
        yield running


def jobs(metrics_port: int) -> float:
    """Return how many jobs a render process has or will have."""
    found = samples(metrics_port)
    return found["render_busy_slots",] + found["render_queue_length", "renditions"]


def of(client: str, **fields: str) -> dict[str, str]:
    """Return the fields of a request that a proxy passes on for a client, who wrote an address of its own."""
    return {"x-forwarded-for": f"8.8.8.8, {client}"} | fields


def test_client_with_its_share_of_cold_renditions_is_429_while_another_has_its_turn(server: Server, metrics_port: int) -> None:
    with server.client() as http, ThreadPoolExecutor(PLACES) as threads:
        owner = {"authorization": f"Bearer {TOKEN}"}
        digest = http.post("/v1/images", content=images.photo_jpeg(640, 480), headers=owner).json()["digest"]
        signer = Signer([development_key(server.data)])
        urls = [signer.sign(RenditionUrl(PIPELINE_VERSION, digest, f"width={width}", "png")) for width in range(100, 120)]
        assert http.get(urls[-1], headers=of("203.0.112.1")).status_code == 200
        with server.suspended_renders():
            # Two thirds of the places are its share. The addresses of one network of 64 bits are one client.
            greedy = [threads.submit(http.get, url, headers=of(f"2a00:1:2:3::{number}")) for number, url in enumerate(urls[:5])]
            wait_until(lambda: any(one.done() for one in greedy) and jobs(metrics_port) == 4)
            other = threads.submit(http.get, urls[5], headers=of("2a00:1:2:4::1"))
            assert http.get(urls[-1], headers=of("2a00:1:2:3::1")).status_code == 200, "hits are not limited"
            refused = next(one for one in greedy if one.done()).result()
            wait_until(lambda: jobs(metrics_port) == 5)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "detail=share" in refused.headers["cache-status"]
        assert sorted(one.result().status_code for one in greedy) == [200] * 4 + [429]
        assert other.result().status_code == 200
        rendered = re.findall(r'"event": "rendered".*"transform": "width=(10\d)"', server.log())
        assert len(rendered) == 5
        assert "105" in rendered[:-1], "it came last, and clients take turns"


def test_client_with_many_failures_is_429_for_further_ones_only(server: Server) -> None:
    attacker, other = "203.0.112.7", "203.0.112.8"
    forged = f"/i/v3/{'a' * 32}/width=123/{'a' * 26}.png"
    with server.client() as http:
        statuses = [http.get(forged, headers=of(attacker)).status_code for _ in range(MAX_FAILURES // 2)]
        statuses += [http.get("/v1/images", headers=of(attacker, authorization="Bearer wrong")).status_code for _ in range(MAX_FAILURES)]
        assert statuses[: MAX_FAILURES // 2] == [403] * (MAX_FAILURES // 2)
        assert set(statuses[MAX_FAILURES // 2 : MAX_FAILURES]) == {401}
        # Some of them are allowed again after each second.
        wrong = http.get("/v1/images", headers=of(attacker, authorization="Bearer wrong"))
        while wrong.status_code == 401:
            wrong = http.get("/v1/images", headers=of(attacker, authorization="Bearer wrong"))
        assert (wrong.status_code, wrong.json()["type"]) == (429, "/problems/too-many-failures")
        assert int(wrong.headers["retry-after"]) >= 1
        assert wrong.headers["cache-control"] == "no-store"
        # Valid requests of the same address, and any of another one.
        assert http.get("/v1/images", headers=of(attacker, authorization=f"Bearer {TOKEN}")).status_code == 200
        assert http.get(f"/i/v3/{'a' * 32}/width=640/-.png", headers=of(attacker)).status_code == 404
        assert http.get("/health", headers=of(attacker)).status_code == 200
        assert http.get(forged, headers=of(other)).status_code == 403
