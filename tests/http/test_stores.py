"""Uploads and renditions over each kind of store; for S3, over a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.support.s3 import Bucket, moto_bucket
from tests.support.server import darkroom, was_stored


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with moto_bucket() as running:
        yield running


def test_memory_store_serves_an_upload_and_writes_no_image_to_disk(data: Path) -> None:
    with darkroom(data, store="memory://") as server, server.client() as client:
        document = client.post("/v1/images", content=images.photo_jpeg(800, 600)).json()
        response = client.get(document["src"])
        assert response.status_code == 200
        assert was_stored(response, document["src"])
        assert not (data / "store").exists()
        assert list((data / "spool").iterdir()) == []


@pytest.mark.parametrize("named_by", ["url", "BUCKET_NAME"])
def test_s3_store_serves_an_upload_and_a_second_machine_serves_the_same_bytes(tmp_path: Path, bucket: Bucket, named_by: str) -> None:
    settings = {"store": f"s3://{bucket.name}"} if named_by == "url" else {"store": "s3://", "BUCKET_NAME": bucket.name}
    settings |= bucket.environment | {"keys": "0" * 64}
    with darkroom(tmp_path / "one", **settings) as server, server.client() as client:
        document = client.post("/v1/images", content=images.photo_jpeg(800, 600)).json()
        first = client.get(document["src"])
        assert first.status_code == 200
        assert was_stored(first, document["src"])
    with darkroom(tmp_path / "two", **settings) as server, server.client() as client:
        assert client.get(f"/v1/images/{document['digest']}").json() == document
        again = client.get(document["src"])
        assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])
        assert again.headers["server-timing"].startswith("tier;desc=store;")
    folders = {"documents", "keys", "originals", "recent", "recent-complete", "renditions"}
    assert {key.split("/")[0] for key in bucket.objects()} == folders
