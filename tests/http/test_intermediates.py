"""Intermediates: made once at ingest, used wherever they are large enough, and never visible in the result."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.storage import checksum
from tests.support import images
from tests.support.s3 import Bucket, moto_bucket
from tests.support.server import Server, darkroom
from tests.support.upload import upload


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with moto_bucket() as running:
        yield running


@pytest.fixture(scope="module")
def large() -> bytes:
    """Return an original that needs a full decode and is large enough to have an intermediate."""
    return images.large_jpeg(3_600, 2_400, progressive=True)


def rendition(client: httpx.Client, document: dict[str, Any], **transform: object) -> httpx.Response:
    """Return the response to a request for a JPEG rendition."""
    response = client.post(f"/v1/images/{document['digest']}/urls", json={"transform": transform, "format": "jpeg"})
    return client.get(response.raise_for_status().json()["url"])


def without_renditions(server: Server) -> None:
    shutil.rmtree(server.data / "store" / "renditions")


def intermediates(server: Server) -> set[str]:
    return {path.name for path in server.stored("intermediates")}


def test_ingest_makes_an_intermediate_of_a_large_original_that_needs_a_full_decode(server: Server, large: bytes) -> None:
    before = intermediates(server)
    with server.client() as client:
        document = upload(client, large)
        assert intermediates(server) - before == {document["digest"]}
        upload(client, images.photo_jpeg(800, 600, progressive=True))
        upload(client, images.large_jpeg(3_600, 2_000))
    assert intermediates(server) - before == {document["digest"]}


def test_ingest_makes_a_small_intermediate_of_a_camera_s_jpeg(server: Server) -> None:
    body = images.large_jpeg(3_600, 2_400)
    with server.client() as client:
        document = upload(client, body)
        (intermediate,) = (path for path in server.stored("intermediates") if path.name == document["digest"])
        stored = intermediate.read_bytes()
        assert images.decode(checksum.verify(stored) or b"").size == (1_800, 1_200)
        assert len(stored) < len(body) / 2


def test_rendition_never_reads_the_original_if_the_intermediate_is_large_enough(server: Server, large: bytes) -> None:
    # Other bytes of the same picture, because the original is damaged.
    body = large + b"\0"
    with server.client() as client:
        document = upload(client, body)
        (original,) = (path for path in server.stored("originals") if path.name == document["digest"])
        original.write_bytes(images.truncated(body))
        for transform, size in (({"width": 640}, (640, 427)), ({"width": 300, "height": 300, "fit": "cover"}, (300, 300))):
            response = rendition(client, document, **transform)
            assert response.status_code == 200
            assert images.decode(response.content).size == size
        for needed in ({"width": 3_000}, {"width": 640, "metadata": "all"}):
            response = rendition(client, document, **needed)
            assert (response.status_code, response.json()["type"]) == (500, "/problems/damaged-original")


@pytest.mark.parametrize("harm", [pytest.param("flipped", marks=pytest.mark.long), pytest.param("missing", marks=pytest.mark.long), "cut"])
def test_intermediate_that_is_missing_or_damaged_is_made_again_and_renditions_have_the_same_bytes(
    data: Path, large: bytes, harm: str
) -> None:
    transforms: tuple[dict[str, object], ...] = ({"width": 640}, {"width": 1_280}, {"width": 200, "height": 200, "fit": "cover"})
    with darkroom(data, warm="none") as server, server.client() as client:
        document = upload(client, large)
        before = [rendition(client, document, **transform).content for transform in transforms]
    (intermediate,) = server.stored("intermediates")
    whole = intermediate.read_bytes()
    match harm:
        case "missing":
            intermediate.unlink()
        case "flipped":
            intermediate.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        case _:
            intermediate.write_bytes(whole[: len(whole) // 2])
    without_renditions(server)
    with darkroom(data, warm="none") as server, server.client() as client:
        assert [rendition(client, document, **transform).content for transform in transforms] == before
        assert server.log().count('"event": "rendered"') == 2 * len(transforms), "those of both starts"
    assert intermediate.read_bytes() == whole


@pytest.mark.long
def test_intermediate_looks_like_the_original(data: Path) -> None:
    body = images.large_jpeg(3_600, 2_700, progressive=True)
    with darkroom(data, warm="none") as server, server.client() as client:
        document = upload(client, body)
        assert len(server.stored("intermediates")) == 1
        reduced = images.decode(rendition(client, document, width=1_280, quality=95).content)
        whole = images.decode(rendition(client, document, width=1_280, quality=95, metadata="all").content)
        assert images.distance(reduced, whole) < 1.5


def test_intermediate_in_an_object_store_is_used_by_another_machine(tmp_path: Path, large: bytes, bucket: Bucket) -> None:
    settings = {"warm": "none", "keys": "0" * 64, "store": f"s3://{bucket.name}", **bucket.environment}
    with darkroom(tmp_path / "one", **settings) as server, server.client() as client:
        document = upload(client, large)
        assert f"intermediates/{document['digest']}" in bucket.objects()
    with darkroom(tmp_path / "two", **settings) as server, server.client() as client:
        response = rendition(client, document, width=640)
        assert images.decode(response.content).size == (640, 427)
        assert response.headers["server-timing"].startswith("tier;desc=render;")
