"""Three regions that share a bucket: all of them immediately serve an image that one of them ingested, with the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.regions.world import MACHINES, REGIONS, World, placed, shared_world
from tests.support import images


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with shared_world(tmp_path_factory.mktemp("world")) as (running, _):
        yield running


def test_photo_ingested_by_one_region_is_served_by_the_others_at_once(world: World) -> None:
    for number, home in enumerate(REGIONS):
        with world.client(home) as client:
            taken = client.post("/v1/images", content=images.photo_jpeg(400 + number, 300))
            assert (taken.status_code, placed(taken)) == (201, home)
        document = taken.json()
        for region in REGIONS:
            with world.client(region) as client:
                seen = client.get(f"/v1/images/{document['digest']}")
                assert (seen.status_code, seen.json(), placed(seen)) == (200, document, region)
                picture = client.get(document["src"])
                assert (picture.status_code, placed(picture)) == (200, region)
                assert images.decode(picture.content).size[0] == 400 + number


def test_rendition_requested_in_all_regions_at_once_has_the_same_bytes_and_etag(world: World) -> None:
    with world.client("lhr") as client:
        document = client.post("/v1/images", content=images.photo_jpeg(500, 400)).json()
    urls = [rendition["url"] for source in document["sources"] for rendition in source["renditions"]]
    assert len(urls) >= 3
    with ThreadPoolExecutor(len(REGIONS)) as threads:
        clients = [world.client(region) for region in REGIONS]
        for url in urls:
            # Cold in all three: the regions that store it later serve the bytes that were stored first.
            responses = list(threads.map(lambda client, url=url: client.get(url), clients))
            assert [response.status_code for response in responses] == [200] * 3
            assert [placed(response) for response in responses] == list(REGIONS)
            assert len({response.content for response in responses}) == 1
            assert len({(response.headers["etag"], response.headers["repr-digest"]) for response in responses}) == 1
            for client, first in zip(clients, responses, strict=True):
                again = client.get(url)
                assert (again.content, again.headers["etag"], placed(again)) == (first.content, first.headers["etag"], placed(first))
                assert again.headers["server-timing"].startswith("tier;desc=memory, region;desc=")
                known = client.get(url, headers={"If-None-Match": responses[0].headers["etag"]})
                assert (known.status_code, placed(known)) == (304, placed(first))
        for client in clients:
            client.close()


def test_every_region_accepts_reads_and_changes_without_replays(world: World) -> None:
    with world.client("arn") as client:
        digest = client.post("/v1/images", content=images.photo_jpeg(400, 300)).json()["digest"]
    for region, other in zip(REGIONS, REGIONS[1:] + REGIONS[:1], strict=True):
        with world.client(region) as client:
            seen = client.get(f"/v1/images/{digest}")
            changed = client.patch(f"/v1/images/{digest}", json={"alt": region}, headers={"If-Match": seen.headers["etag"]})
            assert (changed.status_code, placed(changed)) == (200, region)
        with world.client(other) as client:
            assert client.get(f"/v1/images/{digest}").json()["alt"] == region
            unknown = client.get(f"/v1/images/{'a' * 32}")
            assert (unknown.status_code, placed(unknown)) == (404, other)
            assert not {"darkroom-replay", "fly-replay"} & set(unknown.headers)
    assert {one.replays for one in world.proxy.exchanges} == {0}


def test_health_of_each_region_names_its_region(world: World) -> None:
    for region in REGIONS:
        with world.client(region) as client:
            report = client.get("/health").json()
        assert (report["region"], report["machine"], report["regions"]) == (region, MACHINES[region], list(REGIONS))
        assert not {"prefer_region", "warnings"} & set(report)
