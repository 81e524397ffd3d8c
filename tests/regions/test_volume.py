"""Three regions whose originals are on a volume in the primary region: Fly's proxy replays requests for missing images there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from edge.fly import REPLAY_BYTES
from service.urls.signing import Signer
from service.urls.source_url import SourceUrl
from tests.regions.world import PRIMARY, REGIONS, World, placed, volume_world
from tests.support import images
from tests.support.server import DARKROOM, environment

READERS = REGIONS[1:]
CLIENTS = 50

# Each test has its own images.
_widths = iter(range(300, 1_000))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    # As many cold requests as clients, so that none of them gets 503.
    with volume_world(max_cold_requests=2 * CLIENTS, sources="cms=https://images.example.com") as running:
        yield running


def taken_in(world: World, region: str) -> dict[str, str]:
    with world.client(region) as client:
        taken = client.post("/v1/images", content=images.photo_jpeg(next(_widths), 240))
        assert (taken.status_code, placed(taken)) == (201, PRIMARY)
        document: dict[str, str] = taken.json()
        return document


def padded(photo: bytes, size: int) -> bytes:
    """Return a JPEG of so many bytes; decoders ignore the bytes after its end marker."""
    return photo + bytes(size - len(photo))


def check_problem(response: httpx.Response, status: int, region: str) -> dict[str, str]:
    assert (response.status_code, response.headers["content-type"], placed(response)) == (status, "application/problem+json", region)
    assert response.headers["cache-control"] == "no-store"
    problem: dict[str, str] = response.json()
    return problem


@pytest.mark.parametrize("reader", READERS)
def test_small_upload_and_every_read_in_a_replica_are_replayed_to_the_primary(world: World, reader: str) -> None:
    document = taken_in(world, reader)
    assert world.proxy.replays("/v1/images")[-1] == 1
    path = document["src"]
    with world.client(PRIMARY) as client:
        original = client.get(path)
        assert (original.status_code, placed(original)) == (200, PRIMARY)
    for region in READERS:
        with world.client(region) as client:
            for _ in range(2):
                seen = client.get(path)
                assert (seen.status_code, placed(seen)) == (200, PRIMARY)
                assert (seen.content, seen.headers["etag"]) == (original.content, original.headers["etag"])
                assert not {"darkroom-replay", "fly-replay"} & set(seen.headers)
            assert client.head(path).status_code == 200
            assert client.get(path, headers={"If-None-Match": seen.headers["etag"]}).status_code == 304
            assert client.get(f"/v1/images/{document['digest']}").json() == document
            newest = client.get("/v1/images?limit=1")
            assert (newest.json(), placed(newest)) == ({"images": [document]}, PRIMARY)
            known = client.post("/v1/images/known", json={"digests": [document["digest"], "a" * 32]})
            assert (known.json()["images"], placed(known)) == ([document], PRIMARY)
            assert world.servers[region].stored("originals") == []
    assert world.proxy.replays(path) == [0] + [1] * 8


def test_fifty_clients_of_one_cold_rendition_in_a_replica_each_get_it_after_one_replay(world: World) -> None:
    document = taken_in(world, PRIMARY)
    with world.client(PRIMARY) as client:
        url_request = {"transform": {"width": 200}, "format": "webp"}
        path = client.post(f"/v1/images/{document['digest']}/urls", json=url_request).json()["url"]
    rendered = world.servers[PRIMARY].log().count('"event": "rendered"')
    with ThreadPoolExecutor(CLIENTS) as threads, world.client("iad", limits=httpx.Limits(max_connections=CLIENTS)) as client:
        responses = list(threads.map(client.get, [path] * CLIENTS))
    assert [response.status_code for response in responses] == [200] * CLIENTS
    assert {placed(response) for response in responses} == {PRIMARY}
    assert len({(response.content, response.headers["etag"]) for response in responses}) == 1
    assert world.proxy.replays(path) == [1] * CLIENTS
    assert world.servers[PRIMARY].log().count('"event": "rendered"') == rendered + 1


@pytest.mark.parametrize("reader", READERS)
def test_changes_and_takedowns_in_a_replica_are_made_in_the_primary(world: World, reader: str) -> None:
    document = taken_in(world, PRIMARY)
    path = f"/v1/images/{document['digest']}"
    with world.client(reader) as client:
        minted = client.post(f"{path}/urls", json={"transform": {"width": 100}, "format": "jpeg"})
        assert (minted.status_code, placed(minted)) == (200, PRIMARY)
        assert client.get(minted.json()["url"]).status_code == 200
        changed = client.patch(path, json={"alt": "A lake."}, headers={"If-Match": client.get(path).headers["etag"]})
        assert (changed.status_code, changed.json()["alt"], placed(changed)) == (200, "A lake.", PRIMARY)
        late = client.patch(path, json={"alt": "A sea."}, headers={"If-Match": '"x"'})
        assert (late.status_code, placed(late)) == (412, PRIMARY)
        gone = client.delete(path)
        assert (gone.status_code, placed(gone)) == (200, PRIMARY)
    for region in REGIONS:
        with world.client(region) as client:
            assert client.get(path).status_code == 410
            assert client.get(minted.json()["url"]).status_code == 410


@pytest.mark.parametrize("chunked", [False, True])
def test_large_upload_in_a_replica_is_refused_with_a_remedy_that_works(world: World, chunked: bool) -> None:
    # Large enough to be refused while it is still being sent.
    body = padded(images.photo_jpeg(299 + chunked, 240), 8 * REPLAY_BYTES)
    with world.client("lhr") as client:
        refused = client.post("/v1/images", content=iter([body[:300_000], body[300_000:]]) if chunked else body)
        problem = check_problem(refused, 421, "lhr")
        assert problem["prefer_region"] == refused.headers["fly-prefer-region"] == PRIMARY
        assert problem["detail"].endswith("Send it again with the header fly-prefer-region: arn.")
        assert client.get("/health").json()["prefer_region"] == PRIMARY
        taken = client.post("/v1/images", content=body, headers={"fly-prefer-region": problem["prefer_region"]})
        assert (taken.status_code, placed(taken)) == (201, PRIMARY)
        assert client.get(taken.json()["src"]).status_code == 200


def test_push_in_a_replica_sends_large_files_to_the_primary_at_once(world: World, tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(padded(images.photo_jpeg(next(_widths), 240), REPLAY_BYTES + 1))
    before = len(world.proxy.exchanges)
    url = world.proxy.url("iad")
    done = subprocess.run([DARKROOM, "push", tmp_path, "--server", url], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    uploads = [one for one in world.proxy.exchanges[before:] if (one.method, one.path.partition("?")[0]) == ("POST", "/v1/images")]
    # Both requests may have been in flight before the first response.
    refused = [one for one in uploads if one.status == 421]
    assert 1 <= len(refused) <= 2
    assert [(one.status, one.regions) for one in uploads if one.status != 421] == [(201, [PRIMARY])] * 2


def test_upload_of_the_largest_size_that_is_replayed_succeeds(world: World) -> None:
    body = padded(images.photo_jpeg(next(_widths), 240), REPLAY_BYTES)
    with world.client("iad") as client:
        taken = client.post("/v1/images", content=body)
        assert (taken.status_code, placed(taken)) == (201, PRIMARY)
        assert check_problem(client.post("/v1/images", content=body + b"x"), 421, "iad")["prefer_region"] == PRIMARY


def test_request_that_a_replica_can_handle_itself_is_not_replayed(world: World) -> None:
    document = taken_in(world, PRIMARY)
    with world.client("lhr") as client:
        unsigned = client.get(f"{document['src'].rpartition('/')[0]}/{'a' * 26}.jpg")
        assert check_problem(unsigned, 403, "lhr")["type"] == "/problems/bad-signature"
        for path in ("/", "/livez", "/health"):
            response = client.get(path)
            assert (response.status_code, placed(response)) == (200, "lhr")


def test_source_in_a_replica_is_replayed_to_the_primary(world: World) -> None:
    signed = Signer((bytes(32),)).sign(SourceUrl("cms", "a", "full", "jpg"))
    with world.servers["lhr"].client() as client:
        response = client.get(signed)
        check_problem(response, 421, "lhr")
        assert response.headers["fly-replay"] == "region=arn;timeout=5s;fallback=prefer_self"
        assert client.get(signed.replace("jpg", "png")).status_code == 403
    assert list((world.servers["lhr"].data / "spool").iterdir()) == []


def test_replay_that_does_not_name_its_origin_ends_in_the_primary_too(world: World) -> None:
    document = taken_in(world, PRIMARY)
    unknown = f"/v1/images/{'b' * 32}"
    world.proxy.names_source = False
    try:
        with world.client("iad") as client:
            assert client.get(document["src"]).status_code == 200
            check_problem(client.get(unknown), 404, PRIMARY)
            check_problem(client.delete(unknown), 404, PRIMARY)
    finally:
        world.proxy.names_source = True
    assert world.proxy.replays(unknown) == [1, 1]


def test_unreachable_primary_is_reported_by_the_replica_until_it_can_be_reached(world: World) -> None:
    document = taken_in(world, PRIMARY)
    with world.client("lhr") as client:
        world.proxy.machines[PRIMARY].reachable = False
        try:
            small = images.photo_jpeg(next(_widths), 240)
            preferred = {"fly-prefer-region": PRIMARY}
            responses = [
                client.get(document["src"]),
                client.get(f"/v1/images/{document['digest']}"),
                client.post("/v1/images", content=small),
                client.delete(f"/v1/images/{document['digest']}"),
                client.post("/v1/images", content=padded(small, REPLAY_BYTES + 1), headers=preferred),
            ]
        finally:
            world.proxy.machines[PRIMARY].reachable = True
        for response in responses:
            assert check_problem(response, 503, "lhr")["title"] == "Primary region out of reach"
            assert response.headers["retry-after"] == "5"
        assert client.get(document["src"]).status_code == 200
        assert client.post("/v1/images", content=small).status_code == 201
    assert world.servers["lhr"].stored("originals") == []
