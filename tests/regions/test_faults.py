"""The loss of a region, a region without network, and a takedown: their effects on the other regions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.library.takedowns import REFRESH_EVERY_SECONDS
from tests.promises.figures import RecordFigure
from tests.regions.load import load, share_right
from tests.regions.world import REGIONS, Line, World, placed, shared_world
from tests.support import images
from tests.support.server import ladder_urls
from tests.support.waiting import limit, wait_until

pytestmark = pytest.mark.long

PHASE_SECONDS = 15.0
HEALS_WITHIN_SECONDS = 10.0

# Number of cold renditions for each region: two a second for the longest duration of the test.
COLD = 240

Regions = tuple[World, dict[str, Line]]


@pytest.fixture
def regions(tmp_path: Path) -> Iterator[Regions]:
    # The loads have more requests than one Machine on Fly gets, because the limit on cold requests is not tested here.
    with shared_world(tmp_path, max_cold_requests=64) as running:
        yield running


def taken_in(client: httpx.Client, number: int) -> str:
    digest: str = client.post("/v1/images", content=images.photo_jpeg(160 + number, 120)).raise_for_status().json()["digest"]
    return digest


def requested(world: World) -> tuple[dict[str, tuple[bytes, str]], dict[str, list[str]]]:
    """Return the response and entity tag of each hot URL, and the cold URLs of each region."""
    with world.client("arn") as client:
        hot = [url for number in range(4) for url in ladder_urls(client, taken_in(client, number), range(40, 48), "jpeg")]
        cold = {}
        for place, region in enumerate(REGIONS):
            digests = [taken_in(client, 10 + 10 * place + number) for number in range(2)]
            cold[region] = [url for digest in digests for url in ladder_urls(client, digest, range(30, 150), "jpeg")]
            assert len(cold[region]) == COLD
    expected: dict[str, tuple[bytes, str]] = {}
    for url in hot:
        for region in REGIONS:
            with world.client(region) as client:
                response = client.get(url).raise_for_status()
            expected.setdefault(url, (response.content, response.headers["etag"]))
    return expected, cold


def test_region_that_is_killed_and_one_that_is_cut_off_leave_the_others_at_999_in_1000_and_heal(
    regions: Regions, record_figure: RecordFigure
) -> None:
    world, between = regions
    expected, cold = requested(world)
    with load(world, expected, cold) as running:
        running.goes_on(PHASE_SECONDS / 3)

        killed = time.monotonic()
        world.kill("iad")
        running.goes_on(PHASE_SECONDS, "arn", "lhr")
        revived = time.monotonic()
        world.start("iad")
        back = time.monotonic()
        running.goes_on(PHASE_SECONDS / 3)

        cut = time.monotonic()
        between["lhr"].cut()
        running.goes_on(PHASE_SECONDS, "arn", "iad")
        mended = time.monotonic()
        between["lhr"].mend()
        running.goes_on(HEALS_WITHIN_SECONDS)
        # Cold requests need the store: the latest one succeeded.
        wait_until(lambda: [one.right for one in running.of("lhr", mended, float("inf"), cold=True)][-1:] == [True])
        healed = time.monotonic()
        running.goes_on(PHASE_SECONDS / 3)

        unreachable = time.monotonic()
        world.cut_off("lhr")
        running.goes_on(PHASE_SECONDS, "arn", "iad")
        reachable = time.monotonic()
        world.heal("lhr")
        running.goes_on(PHASE_SECONDS / 3)
        ended = time.monotonic()

    wrong = [one for one in running.requests if not one.right]
    shares = {
        "iad killed, arn": share_right(running.of("arn", killed, revived)),
        "iad killed, lhr": share_right(running.of("lhr", killed, revived)),
        "lhr cut from the store, arn": share_right(running.of("arn", cut, mended)),
        "lhr cut from the store, iad": share_right(running.of("iad", cut, mended)),
        "lhr out of reach, arn": share_right(running.of("arn", unreachable, reachable)),
        "lhr out of reach, iad": share_right(running.of("iad", unreachable, reachable)),
    }
    record_figure("{:.2f} % right in the others", 100 * min(shares.values()), lowest=True)
    assert all(share >= 0.999 for share in shares.values()), (shares, wrong)

    # Another region serves the clients near the lost region, except for the requests in flight when it was lost.
    lost = running.of("iad", killed, revived)
    assert sum(not one.right for one in lost) <= 2, wrong
    assert {one.result for one in lost if one.right} <= {"200 from iad", "200 from lhr"}
    assert back - revived < limit(HEALS_WITHIN_SECONDS / 2)
    assert {one.result for one in running.of("iad", back + 1, cut)} == {"200 from iad"}

    # Without its store, a region still serves every hit, and responds to the rest with Retry-After.
    assert all(one.right for one in running.of("lhr", cut, mended, cold=False)), wrong
    assert {one.result for one in running.of("lhr", cut + 1, mended - 1, cold=True) if not one.right} <= {"503 from lhr"}
    assert healed - mended < limit(HEALS_WITHIN_SECONDS + 1)
    assert all(one.right for one in running.of("lhr", healed, unreachable)), wrong

    # A region that the proxy cannot reach is as good as lost, and is back as soon as it can be reached.
    assert all(one.right for one in running.of("lhr", unreachable + 1, reachable)), wrong
    assert {one.result for one in running.of("lhr", reachable + 1, ended)} == {"200 from lhr"}
    for region in REGIONS:
        with world.client(region) as client:
            wait_until(lambda client=client: client.get("/health").json()["status"] == "ok")  # type: ignore[misc]
            assert client.get("/health").json()["region"] == region


def test_takedown_in_one_region_is_seen_by_the_others_within_its_bound(regions: Regions, record_figure: RecordFigure) -> None:
    world, _ = regions
    with world.client("iad") as client:
        digest = taken_in(client, 0)
        path = ladder_urls(client, digest, range(100, 101), "jpeg")[0]
    clients = {region: world.client(region) for region in REGIONS}
    try:
        for client in clients.values():
            client.get(path).raise_for_status()
            assert "; hit; " in client.get(path).headers["cache-status"]
        began = time.monotonic()
        assert clients["arn"].delete(f"/v1/images/{digest}").status_code == 200
        seen: dict[str, float] = {}
        while len(seen) < len(REGIONS) and time.monotonic() < began + limit(REFRESH_EVERY_SECONDS + 10):
            for region, client in clients.items():
                response = client.get(path)
                assert placed(response) == region
                if response.status_code == 410:
                    seen.setdefault(region, time.monotonic() - began)
                else:
                    assert response.status_code == 200
                    assert region not in seen, "what was gone is back"
            time.sleep(0.1)
    finally:
        for client in clients.values():
            client.close()
    assert set(seen) == set(REGIONS)
    record_figure("a takedown is seen everywhere within {:.0f} s", max(seen.values()))
    assert seen["arn"] < limit(1)
    # Both the poll of takedowns and the round of requests take some time.
    assert all(seconds <= limit(REFRESH_EVERY_SECONDS + 1) for seconds in seen.values()), seen
