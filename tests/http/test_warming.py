"""Warming: the first request for a rendition of the default ladder finds it stored."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import images
from tests.support.s3 import Bucket, moto_bucket
from tests.support.server import Server, darkroom
from tests.support.upload import upload
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with moto_bucket() as running:
        yield running


@pytest.fixture(scope="module")
def warming(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server with which tests share the cost of a start: each of them uploads other images."""
    with darkroom(tmp_path_factory.mktemp("warming"), warm="webp,fallback") as running:
        yield running


def urls(document: dict[str, Any], *types: str) -> list[str]:
    """Return the URLs of a document that have some media types."""
    return [link["url"] for source in document["sources"] if source["type"] in types for link in source["renditions"]]


def tiers(client: httpx.Client, paths: list[str]) -> list[str]:
    """Return where the origin had the rendition of each first request from: `store` or `render`."""
    return [client.get(path).raise_for_status().headers["server-timing"].split(";")[1].removeprefix("desc=") for path in paths]


def renders(server: Server) -> int:
    """Return how many renditions were rendered for requests, from the log."""
    return server.log().count('"event": "rendered"')


def warm(server: Server) -> bool:
    """Return whether no image is left to be warmed."""
    return server.stored("warming") == []


@pytest.mark.parametrize(
    ("make", "types"),
    [
        (lambda: images.photo_jpeg(1_200, 900), ("image/webp", "image/jpeg")),
        pytest.param(lambda: images.rgba_png(720, 520), ("image/webp", "image/png"), marks=pytest.mark.long),
        (lambda: images.large_jpeg(3_600, 2_400, progressive=True), ("image/webp", "image/jpeg")),
    ],
    ids=["photo", "with alpha", "with an intermediate"],
)
def test_request_for_a_warmed_rendition_needs_no_render(warming: Server, make: Callable[[], bytes], types: tuple[str, ...]) -> None:
    with warming.client() as client:
        stored, rendered = len(warming.stored("renditions")), renders(warming)
        document = upload(client, make())
        wait_until(lambda: warm(warming))
        paths = urls(document, *types)
        assert len(paths) == len(warming.stored("renditions")) - stored >= 6
        assert tiers(client, paths) == ["store"] * len(paths)
        assert renders(warming) == rendered
        for source in document["sources"]:
            for link in source["renditions"] if source["type"] in types else ():
                assert images.decode(client.get(link["url"]).content).size == (link["width"], link["height"])
        assert tiers(client, urls(document, "image/avif")[:1]) == ["render"]
        assert renders(warming) == rendered + 1


def test_warming_of_every_format_leaves_nothing_to_render(data: Path) -> None:
    with darkroom(data, warm="avif,webp,fallback") as server, server.client() as client:
        document = upload(client, images.photo_jpeg(640, 480))
        wait_until(lambda: warm(server))
        paths = urls(document, "image/avif", "image/webp", "image/jpeg")
        assert tiers(client, paths) == ["store"] * 6
        assert renders(server) == 0


def test_warming_with_the_servers_quality_leaves_nothing_of_the_document_to_render(data: Path) -> None:
    with darkroom(data, warm="webp,fallback", quality="webp=20,jpeg=30") as server, server.client() as client:
        photo, film = upload(client, images.photo_jpeg(640, 480)), upload(client, images.animated_gif(100, 80))
        wait_until(lambda: warm(server))
        paths = urls(photo, "image/webp", "image/jpeg")
        assert [path.split("/")[4] for path in paths] == [f"width={width},quality={level}" for level in (20, 30) for width in (320, 640)]
        assert tiers(client, [*paths, *urls(film, "image/webp", "image/gif")]) == ["store"] * 6
        plain = client.get(f"/i/v3/{photo['digest']}/width=640/-.webp").content
        assert len(client.get(paths[1]).content) < len(plain) / 2
        # `auto` has the quality of the pipeline version.
        assert client.get(f"/i/v3/{photo['digest']}/width=640/-.auto", headers={"Accept": "image/webp"}).content == plain


def test_warming_of_an_animation_leaves_nothing_to_render_in_animated_formats(warming: Server) -> None:
    with warming.client() as client:
        document = upload(client, images.animated_gif(400, 300))
        wait_until(lambda: warm(warming))
        paths = urls(document, "image/webp", "image/gif")
        assert tiers(client, paths) == ["store"] * 4
        for path in paths:
            assert getattr(images.decode(client.get(path).content), "n_frames", 1) == 3


def test_warming_switched_off_renders_and_notes_nothing(server: Server, client: httpx.Client) -> None:
    stored = server.stored("renditions")
    document = upload(client, images.photo_jpeg(648, 486))
    assert tiers(client, [document["src"]]) == ["render"]
    assert len(server.stored("renditions")) == len(stored) + 1
    assert not (server.data / "store" / "warming").exists()


def test_upload_of_a_stored_image_warms_nothing_again(warming: Server) -> None:
    with warming.client() as client:
        before = warming.log().count('"event": "warmed"')
        upload(client, images.photo_jpeg(320, 240))
        wait_until(lambda: warm(warming))
        upload(client, images.photo_jpeg(320, 240))
        upload(client, images.photo_jpeg(321, 240))
        wait_until(lambda: warm(warming))
        assert warming.log().count('"event": "warmed"') == before + 2


@pytest.mark.parametrize("ending", [pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGKILL])
def test_warming_that_is_stopped_midway_is_finished_after_the_next_start(data: Path, ending: signal.Signals) -> None:
    with darkroom(data, warm="webp,fallback") as server, server.client() as client:
        documents: list[dict[str, Any]] = []
        code = None
        while code is None:
            documents.append(upload(client, images.large_jpeg(1_300 + len(documents), 900)))
            with server.suspended_renders():
                # With two images left, one of them may just be finished.
                if len(server.stored("renditions")) >= 3 and len(server.stored("warming")) >= 2:
                    code = server.stop(ending)
        assert code == (0 if ending == signal.SIGTERM else -signal.SIGKILL)
        before = {path: path.stat().st_mtime_ns for path in server.stored("renditions")}
        noted = server.stored("warming")
        every = [path for document in documents for path in urls(document, "image/webp", "image/jpeg")]
        assert 3 <= len(before) < len(every)
        assert noted
    with darkroom(data, warm="webp,fallback") as server, server.client() as client:
        wait_until(lambda: warm(server))
        assert len(server.stored("renditions")) == len(every)
        assert {path: path.stat().st_mtime_ns for path in before} == before
        assert set(tiers(client, every)) == {"store"}
        assert server.log().count('"event": "warmed"') >= len(noted)
        assert renders(server) == 0


def test_request_during_warming_is_served_before_the_rest_of_the_ladder(data: Path) -> None:
    with darkroom(data, warm="avif", render_processes=1) as server, server.client() as client:
        document = upload(client, images.photo_jpeg(2_560, 1_920))
        wait_until(lambda: len(server.stored("renditions")) >= 1)
        path = client.post(f"/v1/images/{document['digest']}/urls", json={"transform": {"width": 50}, "format": "jpeg"}).json()["url"]
        assert tiers(client, [path]) == ["render"]
        assert not warm(server)
        wait_until(lambda: warm(server))
        assert tiers(client, urls(document, "image/avif")) == ["store"] * 6


def test_original_that_cannot_be_rendered_loses_its_warming_note_and_is_logged(data: Path) -> None:
    with darkroom(data, warm="none") as server, server.client() as client:
        document = upload(client, images.photo_jpeg(640, 480))
    (original,) = server.stored("originals")
    original.write_bytes(images.truncated(original.read_bytes()))
    (data / "store" / "warming").mkdir()
    (data / "store" / "warming" / document["digest"]).touch()
    with darkroom(data, warm="webp") as server:
        wait_until(lambda: warm(server))
        assert server.log().count('"event": "an image was not warmed"') == 1
        assert '"problem": "damaged-original"' in server.log()
    with darkroom(data, warm="webp") as server, server.client() as client:
        upload(client, images.photo_jpeg(320, 240))
        wait_until(lambda: server.log().count('"event": "warmed"') == 1)
        assert server.log().count('"event": "an image was not warmed"') == 1


def test_warming_over_an_object_store_leaves_nothing_to_render_and_no_note(data: Path, bucket: Bucket) -> None:
    with darkroom(data, warm="webp,fallback", store=f"s3://{bucket.name}", **bucket.environment) as server, server.client() as client:
        document = upload(client, images.photo_jpeg(640, 480))
        wait_until(lambda: server.log().count('"event": "warmed"') == 1)
        assert tiers(client, urls(document, "image/webp", "image/jpeg")) == ["store"] * 4
        assert renders(server) == 0
        wait_until(lambda: not any(key.startswith("warming/") for key in bucket.objects()))
