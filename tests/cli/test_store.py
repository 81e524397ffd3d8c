"""`darkroom store check | sweep | copy`, as the command that people and scripts run."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import structlog
from click.testing import CliRunner

from service.cli.commands import main
from service.images.digest import digest_from_sha256
from service.storage import checksum
from tests.support import images
from tests.support.s3 import Bucket, moto_bucket
from tests.support.server import DARKROOM, darkroom, environment

numbers = count()


@pytest.fixture(scope="module")
def taken_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a store with three images, two renditions of each and an intermediate, one more that was taken down."""
    data = tmp_path_factory.mktemp("taken-in")
    with darkroom(data) as server, server.client() as client:
        bodies = [images.photo_jpeg(400, 300), images.photo_jpeg(401, 300), images.large_jpeg(3_600, 2_400, progressive=True)]
        for body in bodies:
            document = client.post("/v1/images", content=body).json()
            for source in document["sources"][1:3]:
                client.get(source["renditions"][0]["url"]).raise_for_status()
        gone = client.post("/v1/images", content=images.photo_jpeg(402, 300)).json()["digest"]
        client.delete(f"/v1/images/{gone}").raise_for_status()
    return data / "store"


@pytest.fixture
def store(taken_in: Path, tmp_path: Path) -> Path:
    """Give a copy of that store to damage, all of whose files are two hours old."""
    folder = tmp_path / "store"
    subprocess.run(["cp", "-a", taken_in, folder], check=True)
    for path in folder.rglob("*"):
        age(path, 7_200)
    return folder


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def old(path: Path, body: bytes) -> Path:
    """Return a new file that looks two hours old."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    age(path, 7_200)
    return path


def output_of(*arguments: object, code: int = 0, variables: Mapping[str, object] | None = None) -> str:
    """Return what a command prints; check its exit code, and that it shows no progress, since the output is not a terminal."""
    try:
        with patch.dict(os.environ, environment(**(variables or {})), clear=True):
            ended = CliRunner().invoke(main, ["store", *map(str, arguments)])
    finally:
        # The command configures the log for its process, which is this one here.
        structlog.reset_defaults()
    assert ended.exit_code == code, ended.stderr
    assert "Traceback" not in ended.stderr
    if code < 2:
        assert ended.stderr == ""
    return ended.stdout if code < 2 else ended.stderr


def json_of(*arguments: object, code: int = 0, variables: Mapping[str, object] | None = None) -> Any:
    return json.loads(output_of(*arguments, "--json", code=code, variables=variables))


def files(folder: Path, *kinds: str) -> dict[str, bytes]:
    """Return the objects of a store by key: those under the prefixes `kinds`, or all."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {key: body for key, body in found.items() if not kinds or key.split("/")[0] in kinds}


def one(store: Path, kind: str) -> Path:
    return next(path for path in sorted((store / kind).rglob("*")) if path.is_file())


def empty_bucket(s3: Bucket) -> str:
    name = f"bucket-{next(numbers)}"
    s3.add_bucket(name)
    return f"s3://{name}"


# check


def test_check_of_an_intact_store_is_0_and_counts_objects(store: Path) -> None:
    found = json_of("check", store.as_uri())
    assert found["findings"] == []
    assert found["objects"] == {"originals": 3, "documents": 3, "renditions": 6, "intermediates": 1}
    looked_at = files(store, "originals", "documents", "renditions", "intermediates")
    assert found["bytes"] == sum(map(len, looked_at.values()))
    assert "3 originals, 3 documents, 6 renditions, 1 intermediates" in output_of("check", store.as_uri())


def test_check_reports_each_kind_of_fault_with_a_remedy_and_changes_nothing(store: Path) -> None:
    digests = sorted(path.name for path in (store / "documents").iterdir())
    original = store / "originals" / digests[0]
    body = original.read_bytes()
    old(original, body[:-9] + bytes([body[-9] ^ 1]) + body[-8:])
    (store / "originals" / digests[1]).unlink()
    old(store / "documents" / digests[2], b'{"digest": ')
    rendition = one(store, "renditions")
    old(rendition, rendition.read_bytes()[:-1])
    lonely = digest_from_sha256(hashlib.sha256(b"lonely").digest())
    old(store / "originals" / lonely, b"lonely")
    (tombstone,) = (store / "tombstones").iterdir()
    os.utime(old(store / "originals" / tombstone.name, b"left"), (time.time() - 9_000, time.time() - 9_000))
    old(store / "renditions" / ("b" * 32) / "0", checksum.wrap(b"stray"))
    old(store / "warming" / ("c" * 32), b"")
    old(store / "originals" / f"{lonely}#1", b"half")
    old(store / "sources" / ("0" * 64), b"no mapping")
    old(store / "documents" / "readme.txt", b"somebody's")
    before = files(store)
    found = json_of("check", store.as_uri(), code=1)["findings"]
    assert {(finding["kind"], finding["key"]) for finding in found} == {
        ("damaged-original", f"originals/{digests[0]}"),
        ("missing-original", f"documents/{digests[1]}"),
        ("damaged-document", f"documents/{digests[2]}"),
        ("damaged-rendition", str(rendition.relative_to(store))),
        ("missing-document", f"originals/{lonely}"),
        ("taken-down-remains", f"originals/{tombstone.name}"),
        ("stray", f"renditions/{'b' * 32}/0"),
        ("stray", f"warming/{'c' * 32}"),
        ("leftover", f"originals/{lonely}#1"),
        ("damaged-source-mapping", f"sources/{'0' * 64}"),
        ("unknown-object", "documents/readme.txt"),
    }
    assert all(finding["detail"] and finding["remedy"] for finding in found)
    assert files(store) == before
    words = output_of("check", store.as_uri(), code=1)
    assert f"damaged-original  originals/{digests[0]}" in words
    assert "11 problems found." in words


def test_check_during_an_upload_finds_nothing(store: Path) -> None:
    """Its original is stored before its document."""
    (store / "originals" / digest_from_sha256(hashlib.sha256(b"on its way").digest())).write_bytes(b"on its way")
    (store / "originals" / "x#1").write_bytes(b"half")
    assert json_of("check", store.as_uri())["findings"] == []


def test_check_uses_the_store_of_the_settings_and_the_variables_of_a_bucket(store: Path, s3: Bucket) -> None:
    assert json_of("check", variables={"store": store.as_uri()})["objects"]["originals"] == 3
    url = empty_bucket(s3)
    output_of("copy", store.as_uri(), url, "--renditions", variables=s3.environment)
    assert json_of("check", url, variables=s3.environment)["objects"] == {
        "originals": 3,
        "documents": 3,
        "renditions": 6,
        "intermediates": 1,
    }


def test_store_that_cannot_be_opened_is_2_with_the_reason(tmp_path: Path, s3: Bucket) -> None:
    missing = (tmp_path / "nowhere").as_uri()
    assert f"{missing}: there is no such folder" in output_of("check", missing, code=2)
    assert not (tmp_path / "nowhere").exists()
    assert "The bucket of the store does not exist." in output_of("check", "s3://no-such-bucket", code=2, variables=s3.environment)
    assert "AWS_ACCESS_KEY_ID" in output_of("sweep", "s3://bucket", code=2)
    assert "memory:// is in the memory of a running server" in output_of("copy", "memory://", missing, code=2)
    assert "the same store" in output_of("copy", tmp_path.as_uri(), tmp_path.as_uri(), code=2)
    assert "SOURCE_AWS_SECRET_ACCESS_KEY" in output_of("copy", "s3://one", missing, code=2, variables={"SOURCE_AWS_ACCESS_KEY_ID": "key"})


def test_check_shows_progress_only_on_standard_error_and_to_a_terminal(store: Path) -> None:
    terminal, end = pty.openpty()
    try:
        ended = subprocess.run(
            [DARKROOM, "store", "check", store.as_uri()],
            env=environment() | {"TERM": "xterm"},
            stdout=subprocess.PIPE,
            stderr=end,
            check=True,
        )
        shown = os.read(terminal, 65_536)
    finally:
        os.close(end)
        os.close(terminal)
    assert b"renditions" in shown
    assert ended.stdout.startswith(b"Checked 3 originals")


@pytest.mark.parametrize(("folder", "code", "printed"), [("store", 0, b"No problems found."), ("nowhere", 2, b"there is no such folder")])
def test_check_in_its_own_process_prints_everything_and_ends_with_its_exit_code(
    store: Path, folder: str, code: int, printed: bytes
) -> None:
    url = (store.parent / folder).as_uri()
    ended = subprocess.run([DARKROOM, "store", "check", url], env=environment(), capture_output=True, check=False)
    assert ended.returncode == code
    assert printed in ended.stdout + ended.stderr


# sweep


def test_sweep_removes_garbage_and_nothing_else(store: Path, tmp_path: Path) -> None:
    kept = files(store)
    (tombstone,) = (store / "tombstones").iterdir()
    for key in (f"originals/{tombstone.name}", f"documents/{tombstone.name}", f"renditions/{tombstone.name}/0"):
        os.utime(old(store / key, b"left"), (time.time() - 9_000, time.time() - 9_000))
    old(store / "originals" / f"{'d' * 32}#1", b"half")
    old(store / "warming" / ("c" * 32), b"")
    old(store / "intermediates" / ("b" * 32), checksum.wrap(b"stray"))
    os.utime(old(store / "keys" / "former", b""), (0, 0))
    lonely = old(store / "originals" / ("e" * 32), b"an original without a document is somebody's picture")
    spool = tmp_path / "spool"
    old(spool / "ended", b"half an upload")
    young = [store / "originals" / "y#2", store / "warming" / ("f" * 32), spool / "under-way"]
    for path in young:
        path.write_bytes(b"under way")
    settings = {"data": tmp_path, "store": store.as_uri()}
    removed = json_of("sweep", variables=settings)["removed"]
    assert removed == {"killed-writes": 1, "taken-down": 3, "strays": 2, "key-notes": 1, "uploads": 1}
    assert files(store) == kept | {str(path.relative_to(store)): path.read_bytes() for path in (lonely, *young[:2])}
    assert [path.name for path in spool.iterdir()] == ["under-way"]
    assert output_of("sweep", variables=settings) == "Removed: nothing.\n"


def test_sweep_leaves_an_image_that_was_uploaded_again_after_its_takedown(store: Path) -> None:
    digest = one(store, "documents").name
    os.utime(old(store / "tombstones" / digest, b'{"taken_down": "2026-01-01T00:00:00Z"}'), (1, 1))
    before = files(store)
    assert json_of("sweep", store.as_uri())["removed"] == {}
    assert files(store) == before


# copy


def test_copy_there_and_back_copies_every_byte(store: Path, tmp_path: Path, s3: Bucket) -> None:
    old(store / "warming" / one(store, "documents").name, b"")
    url = empty_bucket(s3)
    done = json_of("copy", store.as_uri(), url, "--renditions", variables=s3.environment)
    moved = files(store, "originals", "documents", "recent", "tombstones", "warming", "renditions", "intermediates")
    assert sum(done["copied"].values()) == len(moved)
    assert done["bytes"] == sum(map(len, moved.values()))
    assert (done["there_already"], done["removed"], done["not_copied"]) == (0, 0, [])
    back = tmp_path / "back"
    output_of("copy", url, back.as_uri(), "--renditions", variables=s3.environment)
    assert files(back) == moved
    again = json_of("copy", store.as_uri(), back.as_uri(), "--renditions")
    assert (again["copied"], again["there_already"]) == ({}, len(moved))


def test_copy_without_renditions_leaves_derived_objects(store: Path, tmp_path: Path) -> None:
    output_of("copy", store.as_uri(), (tmp_path / "there").as_uri())
    assert files(tmp_path / "there") == files(store, "originals", "documents", "recent", "tombstones")


def test_copy_has_the_upload_urls_that_were_used(store: Path, tmp_path: Path) -> None:
    used = store / "uploads" / f"01795946294-{'a' * 16}"
    used.parent.mkdir()
    used.write_bytes(b"used")
    assert json_of("copy", store.as_uri(), (tmp_path / "there").as_uri())["copied"]["uploads"] == 1
    assert (tmp_path / "there" / used.relative_to(store)).read_bytes() == b"used"


def test_second_copy_copies_changes_of_the_source_and_keeps_changes_of_the_destination(store: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    first, second, _ = sorted((store / "documents").iterdir())
    output_of("copy", store.as_uri(), there.as_uri())
    changed_here = first.read_bytes().replace(b'"alt":""', b'"alt":"changed before the move"')
    changed_there = second.read_bytes().replace(b'"alt":""', b'"alt":"changed after the move"')
    assert changed_here != first.read_bytes()
    age(there / "documents" / first.name, 60)
    first.write_bytes(changed_here)
    (there / "documents" / second.name).write_bytes(changed_there)
    assert json_of("copy", store.as_uri(), there.as_uri())["copied"] == {"documents": 1}
    assert (there / "documents" / first.name).read_bytes() == changed_here
    assert (there / "documents" / second.name).read_bytes() == changed_there


def test_copy_skips_damaged_objects_and_repairs_damaged_ones_in_the_destination(store: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    first, second, third = sorted(path.name for path in (store / "originals").iterdir())
    whole = (store / "originals" / first).read_bytes()
    (store / "originals" / first).write_bytes(whole[:-1])
    (store / "documents" / second).write_bytes(b"{}")
    old(there / "originals" / third, b"cut short")
    done = json_of("copy", store.as_uri(), there.as_uri(), code=1)
    assert done["not_copied"] == [
        {"key": f"documents/{first}", "reason": "no-original"},
        {"key": f"documents/{second}", "reason": "damaged"},
        {"key": f"originals/{first}", "reason": "damaged"},
    ]
    assert (there / "originals" / third).read_bytes() == (store / "originals" / third).read_bytes()
    assert not (there / "originals" / first).exists()
    assert f"originals/{first}\n  The object is damaged." in output_of("copy", store.as_uri(), there.as_uri(), code=1)
    (store / "originals" / first).write_bytes(whole)
    assert json_of("copy", store.as_uri(), there.as_uri(), code=1)["copied"] == {"originals": 1, "documents": 1}


def test_second_copy_repeats_takedowns_but_not_of_images_uploaded_again(store: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    output_of("copy", store.as_uri(), there.as_uri(), "--renditions")
    gone, again, _ = sorted(path.name for path in (store / "documents").iterdir())
    for digest in (gone, again):
        (store / "tombstones" / digest).write_bytes(b'{"taken_down": "2099-01-01T00:00:00Z"}')
    created = json.loads((there / "documents" / again).read_bytes())["created"]
    later = (there / "documents" / again).read_bytes().replace(created.encode(), b"2099-06-01T00:00:00Z")
    (there / "documents" / again).write_bytes(later)
    left = len(files(there))
    done = json_of("copy", store.as_uri(), there.as_uri(), "--renditions")
    assert done["copied"] == {"tombstones": 1}
    assert done["removed"] >= 4
    assert len(files(there)) == left - done["removed"] + 1
    assert not any(gone in key for key in files(there) if not key.startswith("tombstones/"))
    assert (there / "originals" / again).exists()
    assert not (there / "tombstones" / again).exists()


def test_copy_between_two_s3_servers_uses_separate_variables_for_the_source(store: Path, s3: Bucket) -> None:
    with moto_bucket() as other:
        url = empty_bucket(other)
        output_of("copy", store.as_uri(), url, variables=other.environment)
        source = {f"SOURCE_{name}": value for name, value in other.environment.items()}
        goal = empty_bucket(s3)
        done = json_of("copy", url, goal, variables=source | s3.environment)
        assert done["copied"] == {"tombstones": 1, "originals": 3, "documents": 3, "recent": 3}
        assert json_of("check", goal, variables=s3.environment)["findings"] == []
