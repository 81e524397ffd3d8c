"""A restart keeps everything that was acknowledged: it serves every earlier URL byte for byte, and renders nothing again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.support import images
from tests.support.server import Server, darkroom


class Restart(NamedTuple):
    """A server that was started again on its data folder, and the state of the first one."""

    server: Server
    document: dict[str, Any]
    # Every URL of the document, and its response.
    before: dict[str, httpx.Response]
    signing_key: str
    signing_key_mode: int
    original: Path
    # The temporary file of a write that was killed, which is next to the original.
    leftover: Path


@pytest.fixture(scope="module", params=[pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGKILL])
def restart(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Restart]:
    data = tmp_path_factory.mktemp("restart") / "data"
    key = data / "signing.key"
    with darkroom(data) as server, server.client() as client:
        document = client.post("/v1/images", content=images.photo_jpeg(700, 500)).json()
        urls = [link["url"] for source in document["sources"] for link in source["renditions"]]
        before = {url: client.get(url) for url in urls}
        (original,) = server.stored("originals")
        signing_key, mode = key.read_text(), key.stat().st_mode & 0o777
        server.stop(request.param)
    leftover = original.with_name(original.name + "#1")
    leftover.write_bytes(b"half")
    (data / "spool" / "half").write_bytes(b"half")
    with darkroom(data) as server:
        yield Restart(server, document, before, signing_key, mode, original, leftover)


def test_restart_serves_every_earlier_url_with_the_same_bytes_and_etags(restart: Restart) -> None:
    with restart.server.client() as client:
        assert client.get(f"/v1/images/{restart.document['digest']}").json() == restart.document
        for url, earlier in restart.before.items():
            now = client.get(url)
            assert (now.content, now.headers["etag"]) == (earlier.content, earlier.headers["etag"])
            assert now.headers["server-timing"].startswith("tier;desc=store;")


def test_signing_key_of_development_is_made_once_and_readable_by_its_owner_only(restart: Restart) -> None:
    assert restart.signing_key_mode == 0o600
    assert (restart.server.data / "signing.key").read_text() == restart.signing_key


def test_temporary_files_of_killed_writes_are_removed_at_the_start(restart: Restart) -> None:
    assert not restart.leftover.exists()
    assert list((restart.server.data / "spool").iterdir()) == []
    assert restart.original.exists()
