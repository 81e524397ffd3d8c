"""Pictures in buckets of the three clouds, served by a real server without an upload."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.support.buckets import KINDS, BucketServer, Kind, bucket_server
from tests.support.server import Server, darkroom
from tests.support.waiting import wait_until

WIDTH = 320

# How long a picture of a source is fresh, in seconds: longer than all first views take on any machine, so that second views are hits.
FRESH_SECONDS = 3_600


def picture(number: int, *, shade: int = 0) -> bytes:
    """Return a small JPEG that differs from all other pictures."""
    pixels = np.full((240, 400, 3), (number % 256, number // 256 * 60, shade), np.uint8)
    pixels[number % 240] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    return file.getvalue()


def path_of(number: int) -> str:
    return f"products/{number // 100}/Größe {number:04}.jpg"


def url_of(number: int) -> str:
    return f"/from/shop/products/{number // 100}/Gr%C3%B6%C3%9Fe%20{number:04}.jpg/width={WIDTH}/-.webp"


@contextmanager
def server_of(bucket: BucketServer, data: Path, *, fresh_seconds: int = FRESH_SECONDS) -> Iterator[Server]:
    variables = {f"DARKROOM_SOURCE_SHOP_{name}": value for name, value in bucket.environment.items()}
    with darkroom(data, sources=f"shop={bucket.location}", source_seconds=fresh_seconds, **variables) as server:
        yield server


def average(response: httpx.Response) -> float:
    """Return the mean of the picture's blue channel."""
    return float(np.asarray(Image.open(io.BytesIO(response.content)).convert("RGB"))[..., 2].mean())


def serve(bucket: BucketServer, data: Path, number_of_pictures: int, clients: int) -> None:
    """View every picture twice, then change one, remove one, and stop the bucket."""
    numbers = range(number_of_pictures)
    for number in numbers:
        bucket.put(path_of(number), picture(number))
    with server_of(bucket, data) as server, server.client() as client, ThreadPoolExecutor(clients) as threads:
        bucket.requests.clear()
        first = list(threads.map(lambda number: client.get(url_of(number)), numbers))
        assert {response.status_code for response in first} == {200}
        assert {response.headers["content-type"] for response in first} == {"image/webp"}
        assert len({response.content for response in first}) == number_of_pictures
        assert sorted(bucket.requests) == sorted(map(path_of, numbers))

        bucket.requests.clear()
        second = list(threads.map(lambda number: client.get(url_of(number)), numbers))
        assert [response.content for response in second] == [response.content for response in first]
        assert all("darkroom; hit" in response.headers["cache-status"] for response in second)
        assert not bucket.requests
    changed_and_down(bucket, data)


def changed_and_down(bucket: BucketServer, data: Path) -> None:
    """Change one picture and remove another, then stop the bucket, for a server whose pictures are fresh for a second."""
    with server_of(bucket, data, fresh_seconds=1) as server, server.client() as client:
        assert average(client.get(url_of(1))) < 50
        bucket.put(path_of(1), picture(1, shade=200))
        # The edge serves what it has while it revalidates.
        wait_until(lambda: average(client.get(url_of(1))) > 150)
        bucket.delete(path_of(2))
        wait_until(lambda: client.get(url_of(2)).status_code == 404)
        bucket.stop()
        wait_until(lambda: client.get(url_of(1)).status_code == 200 and "the image it had is shown" in server.log())
        last = client.get(url_of(1))
        assert (last.status_code, average(last) > 150) == (200, True)
        assert client.get(url_of(999_999)).status_code == 502


def test_bucket_is_served_without_an_upload(data: Path) -> None:
    with bucket_server("gs") as bucket:
        serve(bucket, data, 4, 4)


# How many pictures there are matters once: clouds differ in how one picture is fetched. CI, whose time is short, has fewer.
MANY = 400 if os.environ.get("CI") else 1_000


@pytest.mark.long
@pytest.mark.parametrize(("kind", "pictures"), [(kind, MANY if kind == "s3" else 40) for kind in KINDS])
def test_bucket_of_many_pictures_is_served_without_an_upload(kind: Kind, pictures: int, data: Path) -> None:
    with bucket_server(kind) as bucket:
        serve(bucket, data, pictures, 16)
