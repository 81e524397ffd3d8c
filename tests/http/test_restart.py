"""A restart keeps everything that was acknowledged: it serves every earlier URL byte for byte, and renders nothing again."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support import images
from tests.support.server import darkroom


@pytest.mark.parametrize("ending", [pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGKILL])
def test_restart_serves_every_earlier_url_with_the_same_bytes_and_etags(data: Path, ending: signal.Signals) -> None:
    with darkroom(data) as server, server.client() as client:
        document = client.post("/v1/images", content=images.photo_jpeg(700, 500)).json()
        urls = [link["url"] for source in document["sources"] for link in source["renditions"]]
        before = {url: client.get(url) for url in urls}
        server.stop(ending)
    with darkroom(data) as server, server.client() as client:
        assert client.get(f"/v1/images/{document['digest']}").json() == document
        for url, earlier in before.items():
            now = client.get(url)
            assert (now.content, now.headers["etag"]) == (earlier.content, earlier.headers["etag"])
            assert now.headers["server-timing"].startswith("tier;desc=store;")


def test_signing_key_of_development_is_made_once_and_readable_by_its_owner_only(data: Path) -> None:
    with darkroom(data):
        key = (data / "signing.key").read_text()
        assert (data / "signing.key").stat().st_mode & 0o777 == 0o600
    with darkroom(data):
        assert (data / "signing.key").read_text() == key


def test_temporary_files_of_killed_writes_are_removed_at_the_start(data: Path) -> None:
    with darkroom(data) as server, server.client() as client:
        client.post("/v1/images", content=images.photo_jpeg(64, 48))
        (original,) = server.stored("originals")
    leftover = original.with_name(original.name + "#1")
    leftover.write_bytes(b"half")
    (data / "spool" / "half").write_bytes(b"half")
    with darkroom(data):
        assert not leftover.exists()
        assert list((data / "spool").iterdir()) == []
        assert original.exists()
