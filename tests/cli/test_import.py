"""`darkroom import` against a real server with a bucket: images, manifests, output and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.sources.test_buckets import NAMES
from tests.support import images
from tests.support.buckets import BucketServer, Failure, bucket_server
from tests.support.command import run
from tests.support.server import HOST, Server, darkroom

TOKEN = "token-for-imports"

# Every test has a folder of its own in the bucket, so that all of them can use one server.
numbers = count()


@pytest.fixture(scope="module")
def bucket() -> Iterator[BucketServer]:
    """Yield a bucket, which is the source `shop`."""
    with bucket_server("gs") as running:
        yield running


@pytest.fixture(scope="module")
def source_server(bucket: BucketServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server with that bucket, and with the hosts `web` as a source whose objects cannot be listed."""
    variables = {f"DARKROOM_SOURCE_SHOP_{name}": value for name, value in bucket.environment.items()}
    sources = f"shop={bucket.location}/all; web=https://images.example.com/uploads"
    tokens = f"{TOKEN}:ingest,other-token-of-reads:read"
    with darkroom(tmp_path_factory.mktemp("server"), sources=sources, tokens=tokens, max_upload_bytes=100_000, **variables) as running:
        yield running


@pytest.fixture
def folder(bucket: BucketServer) -> Iterator[str]:
    """Yield a new folder of the bucket with two images, and a third one in a folder below."""
    bucket.failure_for = lambda _: None
    name = f"folder-{next(numbers)}"
    for path in ("one.png", "two.png", "below/Größe 3.png"):
        bucket.put(f"all/{name}/{path}", picture())
    bucket.requests.clear()
    yield name
    bucket.failure_for = lambda _: None


def picture() -> bytes:
    """Return an image that no other test has."""
    return images.flat_png(200 + next(numbers), 20, (40, 90, 160))


def imported(server: Server, *arguments: object, token: str = TOKEN, given: str | None = None) -> Any:
    return run("import", *arguments, server=server.url, token=token, given=given)


def manifest_of(path: Path) -> dict[str, Any]:
    written = json.loads(path.read_bytes())
    assert (list(written), written["version"]) == (["version", "images"], 1)
    found: dict[str, Any] = written["images"]
    return found


def test_import_writes_the_images_of_a_folder_to_a_manifest(source_server: Server, folder: str, tmp_path: Path) -> None:
    manifest = tmp_path / "images.json"
    result = imported(source_server, f"shop/{folder}", "--manifest", manifest)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"3 images on {source_server.url}: 3 new, in ")
    written = manifest_of(manifest)
    assert list(written) == [f"{folder}/below/Größe 3.png", f"{folder}/one.png", f"{folder}/two.png"]
    entry = written[f"{folder}/one.png"]
    assert entry["src"].startswith(f"{source_server.url}/i/")
    assert entry["srcset"] == entry["sources"][-1]["srcset"]
    with source_server.client() as client:
        assert client.get(entry["src"]).status_code == 200
        # The same image has a URL in its source.
        assert client.get(f"/from/shop/{folder}/below/Gr%C3%B6%C3%9Fe%203.png/width=320/-.webp").status_code == 200


def test_import_again_fetches_only_what_has_changed(source_server: Server, bucket: BucketServer, folder: str, tmp_path: Path) -> None:
    manifest = tmp_path / "images.json"
    assert imported(source_server, f"shop/{folder}", "--manifest", manifest).exit_code == 0
    before = manifest.read_bytes()
    bucket.bodies.clear()
    again = imported(source_server, f"shop/{folder}", "--manifest", manifest)
    assert (again.exit_code, manifest.read_bytes()) == (0, before)
    assert again.stdout.startswith(f"3 images on {source_server.url}: 0 new")
    assert not bucket.bodies
    bucket.put(f"all/{folder}/one.png", picture())
    assert imported(source_server, f"shop/{folder}", "--manifest", manifest).stdout.startswith("3 images on")
    assert bucket.bodies == [f"all/{folder}/one.png"]
    assert manifest_of(manifest)[f"{folder}/one.png"]["digest"] != json.loads(before)["images"][f"{folder}/one.png"]["digest"]


def test_import_lists_objects_that_are_no_images(source_server: Server, bucket: BucketServer, folder: str, tmp_path: Path) -> None:
    bucket.put(f"all/{folder}/notes.txt", b"Shot in May")
    bucket.put(f"all/{folder}/film.mp4", bytes(100_001))
    bucket.put(f"all/{folder}/below/", b"")
    manifest = tmp_path / "images.json"
    result = imported(source_server, f"shop/{folder}/", "--manifest", manifest)
    assert result.exit_code == 1
    assert len(manifest_of(manifest)) == 3
    assert "2 images were not imported:" in result.stderr
    assert "Leave it out, or convert it" in result.stderr
    assert f"{folder}/notes.txt: bytes that begin 53 68" in result.stderr
    assert f"{folder}/film.mp4: 100001 bytes" in result.stderr


def test_import_goes_on_after_an_object_that_fails(source_server: Server, bucket: BucketServer, folder: str) -> None:
    bucket.failure_for = lambda key: Failure(403, "AccessDenied") if key.endswith("one.png") else None
    result = imported(source_server, f"shop/{folder}", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["new"] == 2
    assert sorted(found["images"]) == [f"{folder}/below/Größe 3.png", f"{folder}/two.png"]
    (rejected,) = found["rejected"]
    assert (rejected["path"], rejected["problem"]["type"]) == (f"{folder}/one.png", "/problems/source-failed")


def test_import_goes_through_all_pages_of_a_list(
    source_server: Server, bucket: BucketServer, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cli.client.server._PAGE_OBJECTS", 2)
    body = picture()
    for number in range(7):
        bucket.put(f"all/{folder}/page/{number}.png", body)
    # Its name sorts between the folder and its contents.
    bucket.put(f"all/{folder}/page-of-others.png", body)
    manifest = tmp_path / "images.json"
    assert imported(source_server, f"shop/{folder}/page", "--manifest", manifest).exit_code == 0
    assert list(manifest_of(manifest)) == [f"{folder}/page/{number}.png" for number in range(7)]


def test_import_of_any_name_has_a_url(source_server: Server, bucket: BucketServer, folder: str) -> None:
    names = [*NAMES, "100%25.jpg"]
    for name in names:
        bucket.put(f"all/{folder}/names/{name}", picture())
    # Some servers decode a path twice, so this one has no URL.
    bucket.put(f"all/{folder}/names/%2e%2e", picture())
    result = imported(source_server, f"shop/{folder}/names", "--json")
    assert result.exit_code == 0
    assert sorted(json.loads(result.stdout)["images"]) == sorted(f"{folder}/names/{name}" for name in names)
    with source_server.client() as client:
        for name in names:
            encoded = "/".join(quote(segment, safe="!*'()") for segment in name.split("/"))
            assert client.get(f"/from/shop/{folder}/names/{encoded}/width=320/-.webp").status_code == 200


def test_import_prunes_entries_of_missing_images(source_server: Server, bucket: BucketServer, folder: str, tmp_path: Path) -> None:
    manifest = tmp_path / "images.json"
    imported(source_server, f"shop/{folder}", "--manifest", manifest)
    bucket.delete(f"all/{folder}/two.png")
    imported(source_server, f"shop/{folder}", "--manifest", manifest)
    assert len(manifest_of(manifest)) == 3
    imported(source_server, f"shop/{folder}", "--manifest", manifest, "--prune", "--relative")
    assert list(manifest_of(manifest)) == [f"{folder}/below/Größe 3.png", f"{folder}/one.png"]
    assert manifest_of(manifest)[f"{folder}/one.png"]["src"].startswith("/i/")


def test_import_of_an_empty_folder_fails(source_server: Server, folder: str) -> None:
    for name in (f"{folder}/nothing", f"{folder}/one.png"):
        result = imported(source_server, f"shop/{name}")
        assert (result.exit_code, "There are no objects to import." in result.stderr) == (2, True)


def test_import_of_an_unknown_source_names_the_others(source_server: Server) -> None:
    result = imported(source_server, "store")
    assert result.exit_code == 2
    assert "There is no source with this name." in result.stderr
    assert "shop, web" in result.stderr


def test_import_of_a_host_says_what_to_do(source_server: Server) -> None:
    result = imported(source_server, "web")
    assert (result.exit_code, "--urls" in result.stderr or "URLs" in result.stderr) == (2, True)


def test_import_without_the_scope_fails_at_once(source_server: Server, folder: str) -> None:
    for token in ("", "other-token-of-reads"):
        result = imported(source_server, f"shop/{folder}", token=token)
        assert result.exit_code == 2


def test_import_from_a_bucket_without_access_fails(source_server: Server, bucket: BucketServer, folder: str) -> None:
    bucket.failure_for = lambda _: Failure(403, "AccessDenied")
    result = imported(source_server, f"shop/{folder}")
    assert result.exit_code == 2
    assert "The bucket of this source denies the server access." in result.stderr
    assert "DARKROOM_SOURCE_SHOP_GOOGLE_APPLICATION_CREDENTIALS" in result.stderr


def test_import_needs_either_a_source_or_urls(source_server: Server, tmp_path: Path) -> None:
    urls = tmp_path / "urls.txt"
    urls.write_text("https://images.example.com/uploads/a.jpg")
    for arguments in ([], ["shop", "--urls", urls]):
        result = imported(source_server, *arguments)
        assert (result.exit_code, "Name a SOURCE" in result.stderr) == (2, True)


@pytest.mark.parametrize("text", ["/photos", "./shop", "https://cms.example.com/a.jpg", "urls.txt", "Shop"])
def test_import_of_something_else_than_a_source_names_the_other_ways(source_server: Server, text: str) -> None:
    result = imported(source_server, text)
    assert (result.exit_code, f"{text} does not begin with the name of a source" in result.stderr) == (2, True)


def test_import_to_another_version_of_the_manifest_imports_nothing(
    source_server: Server, bucket: BucketServer, folder: str, tmp_path: Path
) -> None:
    manifest = tmp_path / "images.json"
    manifest.write_text('{"version": 2}')
    result = imported(source_server, f"shop/{folder}", "--manifest", manifest)
    assert (result.exit_code, bucket.requests) == (2, [])


def test_import_of_urls_reads_them_from_standard_input(source_server: Server) -> None:
    """These hosts are not reached, but each URL gets its own error."""
    given = "# from the CMS\n\nhttps://elsewhere.example.com/a.jpg\nhttps://elsewhere.example.com/a.jpg\nhttp://x\n"
    result = imported(source_server, "--urls", "-", "--json", given=given)
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert {one["path"]: one["problem"]["type"] for one in found["rejected"]} == {
        "https://elsewhere.example.com/a.jpg": "/problems/source-refused",
        "http://x": "/problems/source-refused",
    }


def test_import_from_no_server_says_how_to_continue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.cli.client.server.PAUSES_SECONDS", (0.0, 0.0))
    result = run("import", "shop", server=f"http://{HOST}:1")
    assert result.exit_code == 2
    assert "The server does not respond." in result.stderr
    assert "Run the command again to continue" in result.stderr
