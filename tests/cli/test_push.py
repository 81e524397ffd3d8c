"""`darkroom push` against a real server: uploads, output and manifests."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import signal
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from service.cli.client import server as client_server
from service.cli.client import upload as client_upload
from tests.http.test_ingest import digest_of
from tests.support import images
from tests.support.command import run, started
from tests.support.proxy import Fault, Proxy, proxy_of
from tests.support.server import DARKROOM, Server, darkroom, environment, free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

# Every test has its own images, so that all tests can use one server.
_sizes = iter(range(200, 2_000))


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with proxy_of(server.port) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with two images, and a third one in a folder below."""
    (tmp_path / "pictures" / "trips").mkdir(parents=True)
    for name in ("one.png", "two.png", "trips/three.png"):
        (tmp_path / "pictures" / name).write_bytes(picture())
    return tmp_path / "pictures"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without pauses."""
    monkeypatch.setattr(client_server, "PAUSES_SECONDS", (0.0, 0.0, 0.0, 0.0))


def picture() -> bytes:
    """Return an image that no other test has."""
    return images.flat_png(next(_sizes), 20, (40, 90, 160))


def noise() -> bytes:
    """Return an image that no other test has, larger than the buffer of a socket."""
    return images.noise_png(next(_sizes), 800)


def manifest_of(path: Path) -> dict[str, Any]:
    written = json.loads(path.read_bytes())
    assert list(written) == ["version", "images"]
    assert written["version"] == 1
    found: dict[str, Any] = written["images"]
    return found


def sent(proxy: Proxy) -> list[str]:
    return sorted(upload.digest for upload in proxy.uploads)


def digests(folder: Path) -> list[str]:
    return sorted(digest_of(path.read_bytes()) for path in folder.rglob("*.png"))


# Uploads


def test_push_of_a_folder_sends_every_image_once_and_then_nothing(proxy: Proxy, folder: Path) -> None:
    first = run("push", folder, server=proxy.url)
    assert (first.exit_code, first.stderr) == (0, "")
    assert re.fullmatch(
        rf"3 files \(3 images\) on {proxy.url}: 3 uploaded, \d+\.\d MB in \d+\.\d s\.\n",
        first.stdout,
    )
    assert sent(proxy) == digests(folder)
    again = run("push", folder, server=proxy.url)
    assert (again.exit_code, again.stderr) == (0, "")
    assert again.stdout == f"3 files (3 images) on {proxy.url}. Nothing had to be uploaded.\n"
    assert len(proxy.uploads) == 3


def test_push_gives_images_the_names_of_their_files(proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / "Größe 1 & 2%.png").write_bytes(picture())
    pushed = run("push", tmp_path, "--json", server=proxy.url)
    assert json.loads(pushed.stdout)["images"]["Größe 1 & 2%.png"]["name"] == "Größe-1-2"


def test_push_of_the_same_bytes_under_two_names_sends_them_once_and_lists_both_names(proxy: Proxy, folder: Path) -> None:
    (folder / "trips" / "copy of one.png").write_bytes((folder / "one.png").read_bytes())
    pushed = run("push", folder, "--json", server=proxy.url)
    assert pushed.exit_code == 0
    result = json.loads(pushed.stdout)
    assert result["sent"]["images"] == len(proxy.uploads) == 3
    assert result["images"]["one.png"] == result["images"]["trips/copy of one.png"]
    assert list(result["images"]) == ["one.png", "trips/copy of one.png", "trips/three.png", "two.png"]


def test_push_after_a_kill_sends_only_what_is_missing(proxy: Proxy, server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.png").write_bytes(noise())
    begun, killed, uploads = threading.Semaphore(0), threading.Event(), count(1)

    def hold_all_but_six() -> None:
        begun.release()
        if next(uploads) > 6:
            killed.wait(PATIENCE_SECONDS)

    proxy.on_upload = hold_all_but_six
    with started("push", folder, server=proxy.url) as process:
        for _ in range(6):
            assert begun.acquire(timeout=PATIENCE_SECONDS)
        process.send_signal(signal.SIGKILL)
    killed.set()
    proxy.wait_until_idle()
    wanted = {digest_of(path.read_bytes()): path.stat().st_size for path in folder.iterdir()}
    with server.client() as client:
        answer = client.post("/v1/images/known", json={"digests": list(wanted)})
    stored = {document["digest"] for document in answer.json()["images"]}
    assert 2 <= len(stored) < 12
    before = len(proxy.uploads)
    pushed = run("push", folder, "--json", server=proxy.url)
    assert pushed.exit_code == 0
    assert len(json.loads(pushed.stdout)["images"]) == 12
    later = proxy.uploads[before:]
    assert sorted(upload.digest for upload in later) == sorted(set(wanted) - stored)
    assert sum(upload.bytes for upload in later) == sum(size for digest, size in wanted.items() if digest not in stored)
    assert json.loads(pushed.stdout)["sent"] == {"images": len(later), "bytes": sum(upload.bytes for upload in later)}


@pytest.mark.long
def test_push_after_many_kills_sends_only_what_is_missing(proxy: Proxy, server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.png").write_bytes(noise())
    wanted = {digest_of(path.read_bytes()) for path in folder.iterdir()}
    moments = random.Random(6)
    stored: set[str] = set()
    seen = 0
    for _ in range(8):
        # At most so many uploads get to the server before the kill, and none after it: their bodies are not complete.
        passed = threading.Semaphore(moments.randint(1, 4))
        proxy.on_upload = partial(passed.acquire, timeout=PATIENCE_SECONDS)
        with started("push", folder, server=proxy.url) as process:
            wait_until(lambda seen=seen: len(proxy.uploads) > seen)  # type: ignore[misc]
            time.sleep(moments.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
        passed.release(len(wanted))
        proxy.wait_until_idle()
        assert not stored & {upload.digest for upload in proxy.uploads[seen:]}
        seen = len(proxy.uploads)
        with server.client() as client:
            answer = client.post("/v1/images/known", json={"digests": sorted(wanted)}).raise_for_status()
        stored = {document["digest"] for document in answer.json()["images"]}
    assert 8 <= len(stored) < 40
    assert run("push", folder, server=proxy.url).exit_code == 0
    assert sorted(upload.digest for upload in proxy.uploads[seen:]) == sorted(wanted - stored)
    assert not [path for path in server.stored("originals") if "#" in path.name]


def test_push_that_is_interrupted_says_how_to_continue_and_leaves_the_manifest(proxy: Proxy, folder: Path, tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        go_on.wait(PATIENCE_SECONDS)

    proxy.on_upload = hold
    with started("push", folder, "--manifest", tmp_path / "images.json", server=proxy.url) as process:
        assert begun.wait(PATIENCE_SECONDS)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE_SECONDS)
        go_on.set()
    assert (process.returncode, output) == (130, b"")
    assert errors == b"Stopped. Run the command again to continue: it uploads only what is missing. The manifest is unchanged.\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures"]


@pytest.mark.parametrize("at_a_time", [1, 3])
def test_push_redirected_to_a_region_uses_it_from_then_on(proxy: Proxy, folder: Path, at_a_time: int) -> None:
    together, arrivals = threading.Barrier(at_a_time), count()
    # Uploads that are in progress at the same time are all redirected. Those that are repeated do not wait.
    proxy.on_upload = lambda: next(arrivals) < at_a_time and together.wait(PATIENCE_SECONDS)
    proxy.faults.extend(Fault(status=421, headers={"fly-prefer-region": "arn"}, body=b"{}") for _ in range(at_a_time))
    assert run("push", folder, "--parallel", at_a_time, server=proxy.url).exit_code == 0
    regions = [upload.headers.get("fly-prefer-region") for upload in proxy.uploads]
    assert regions == [None] * at_a_time + ["arn"] * 3
    assert {upload.digest for upload in proxy.uploads[:at_a_time]} <= {upload.digest for upload in proxy.uploads[at_a_time:]}


@pytest.mark.usefixtures("quick")
def test_push_redirected_to_the_same_region_twice_is_refused(proxy: Proxy, folder: Path) -> None:
    proxy.faults.extend(Fault(status=421, headers={"fly-prefer-region": "arn"}) for _ in range(2))
    pushed = run("push", folder / "one.png", server=proxy.url)
    assert pushed.exit_code == 1
    assert "The server responded with 421 (Misdirected Request)." in pushed.stderr
    assert len(proxy.uploads) == 2


# Errors


@pytest.mark.usefixtures("quick")
def test_push_after_a_lost_response_does_not_send_again(proxy: Proxy, folder: Path) -> None:
    proxy.faults.append(Fault(lose_response=True))
    assert run("push", folder, server=proxy.url).exit_code == 0
    assert sent(proxy) == digests(folder)


@pytest.mark.usefixtures("quick")
def test_push_over_a_broken_connection_sends_that_image_again(proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / "noise.png").write_bytes(noise())
    proxy.faults.append(Fault(cut_after=40_000))
    pushed = run("push", tmp_path / "noise.png", "--json", server=proxy.url)
    assert pushed.exit_code == 0
    assert [upload.whole for upload in proxy.uploads] == [False, True]
    assert 40_000 <= proxy.uploads[0].bytes < proxy.uploads[1].bytes


def test_push_to_a_busy_server_waits_for_retry_after(proxy: Proxy, folder: Path) -> None:
    proxy.faults.append(Fault(status=503, headers={"Retry-After": "1"}))
    started_at = time.monotonic()
    assert run("push", folder, "--parallel", "1", server=proxy.url).exit_code == 0
    assert time.monotonic() - started_at >= 1
    assert len(proxy.uploads) == 4
    assert proxy.uploads[0].digest == proxy.uploads[1].digest


@pytest.mark.usefixtures("quick")
def test_push_of_an_image_with_too_many_503_responses_continues_with_the_rest(proxy: Proxy, folder: Path) -> None:
    proxy.faults.extend(Fault(status=503) for _ in range(5))
    pushed = run("push", folder, "--parallel", "1", server=proxy.url)
    assert pushed.exit_code == 1
    assert "2 files (2 images) on" in pushed.stdout
    assert "1 file was not uploaded:" in pushed.stderr
    assert "The server responded with 503 (Service Unavailable)." in pushed.stderr
    # Two files are hashed at a time, so either of them may be sent first.
    refused = {digest_of(path.read_bytes()): path for path in folder.rglob("*.png")}[proxy.uploads[0].digest]
    assert pushed.stderr.endswith(f"    {refused}\n")
    assert [upload.digest for upload in proxy.uploads].count(proxy.uploads[0].digest) == 5
    assert len(proxy.uploads) == 7


@pytest.mark.usefixtures("quick")
def test_push_to_a_server_that_stops_midway_fails_and_leaves_the_manifest(proxy: Proxy, tmp_path: Path, folder: Path) -> None:
    manifest = tmp_path / "images.json"
    before = b'{"version":1,"images":{"kept.png":{"digest":"x"}}}'
    manifest.write_bytes(before)
    behind = proxy.upstream_port

    def go_away() -> None:
        if len(proxy.uploads) == 1:
            proxy.upstream_port = free_port()

    proxy.on_upload = go_away
    pushed = run("push", folder, "--parallel", "1", "--manifest", manifest, server=proxy.url)
    assert (pushed.exit_code, pushed.stdout) == (2, "")
    assert pushed.stderr.startswith(f"darkroom: The server does not respond.\n  expected  a Darkroom server at {proxy.url}\n  received  ")
    assert pushed.stderr.endswith("Run the command again to continue: it uploads only what is missing. The manifest is unchanged.\n")
    assert manifest.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.json", "pictures"]
    # The server is back.
    proxy.on_upload, proxy.upstream_port, seen = (lambda: None), behind, len(proxy.uploads)
    assert run("push", folder, "--manifest", manifest, server=proxy.url).exit_code == 0
    assert [upload.digest for upload in proxy.uploads[seen:]].count(proxy.uploads[0].digest) == 0
    assert len(proxy.uploads) == seen + 2
    assert list(manifest_of(manifest)) == ["kept.png", "one.png", "trips/three.png", "two.png"]


@pytest.mark.usefixtures("quick")
def test_push_without_a_server_fails_with_the_url_and_a_remedy(folder: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    pushed = run("push", folder, server=url)
    assert (pushed.exit_code, pushed.stdout) == (2, "")
    assert "The server does not respond." in pushed.stderr
    assert f"a Darkroom server at {url}" in pushed.stderr
    assert "`darkroom serve`" in pushed.stderr
    result = run("push", folder, "--json", "--server", url)
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["detail"] == "The server does not respond."


@pytest.mark.parametrize(
    ("token", "detail"),
    [
        ("", "This request needs a token."),
        ("another-token-00000", "This request needs a token."),
        ("reader-token-00000", "This token does not permit the request."),
    ],
)
def test_push_without_the_right_token_names_the_variable_and_never_the_token(
    protected: Proxy, folder: Path, token: str, detail: str
) -> None:
    pushed = run("push", folder, server=protected.url, token=token)
    assert (pushed.exit_code, pushed.stdout) == (2, "")
    assert pushed.stderr.startswith(f"darkroom: {detail}\n")
    assert "DARKROOM_TOKEN" in pushed.stderr
    assert not token or token not in pushed.stderr
    assert all(not upload.whole or len(upload.digest) == 32 for upload in protected.uploads)


def test_push_with_a_token_for_ingest_succeeds(protected: Proxy, folder: Path) -> None:
    for _ in range(2):
        assert run("push", folder, server=protected.url, token="ingest-token-00000").exit_code == 0
    assert len(protected.uploads) == 3


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with darkroom(tmp_path_factory.mktemp("guarded"), tokens="reader-token-00000:read,ingest-token-00000:ingest") as running:
        yield running


@pytest.fixture
def protected(guarded: Server) -> Iterator[Proxy]:
    with proxy_of(guarded.port) as running:
        yield running


def test_push_to_a_url_that_redirects_names_the_target(proxy: Proxy, folder: Path) -> None:
    proxy.faults.append(Fault("/v1/images/known", status=301, headers={"Location": "https://img.example.com/v1/images/known"}))
    pushed = run("push", folder, server=proxy.url)
    assert pushed.exit_code == 2
    assert "remedy    Use --server https://img.example.com." in pushed.stderr


@pytest.mark.usefixtures("quick")
def test_push_over_tls_requires_a_trusted_certificate(
    server: Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with proxy_of(server.port, context) as proxy:
        untrusted = run("push", folder, server=proxy.url)
        assert untrusted.exit_code == 2
        assert "certificate verify failed" in untrusted.stderr.lower()
        authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        assert run("push", folder, server=proxy.url).exit_code == 0
        assert sent(proxy) == digests(folder)


@pytest.mark.parametrize("status", [200, 404, 405])
def test_push_to_another_kind_of_server_fails_with_the_reason(proxy: Proxy, folder: Path, status: int) -> None:
    proxy.faults.append(Fault("/v1/images/known", status=status, headers={"Content-Type": "text/html"}, body=b"<html>"))
    pushed = run("push", folder, server=proxy.url)
    assert pushed.exit_code == 2
    assert "This is not a Darkroom server, or one older than 0.2." in pushed.stderr
    assert proxy.uploads == []


def test_push_to_a_full_store_fails_at_once(proxy: Proxy, folder: Path) -> None:
    proxy.faults.append(Fault(status=507))
    pushed = run("push", folder, "--parallel", "1", server=proxy.url)
    assert pushed.exit_code == 2
    assert len(proxy.uploads) == 1


@pytest.mark.parametrize(
    "url",
    [
        "img.example.com",
        "ftp://img.example.com",
        "http://",
        "https://user:secret@img.example.com",
        "http://[::1",
        "http://a:99999",
        "https://img.example.com?token=secret",
    ],
)
def test_push_to_an_invalid_url_is_refused_without_showing_a_password(folder: Path, url: str) -> None:
    pushed = run("push", folder, "--server", url)
    assert pushed.exit_code == 2
    assert "This is not the URL of a server." in pushed.stderr
    assert "user:secret" not in pushed.stderr


def test_push_with_an_invalid_token_is_refused_without_showing_it(folder: Path) -> None:
    pushed = run("push", folder, token="two words\n")
    assert pushed.exit_code == 2
    assert pushed.stderr.startswith("darkroom: DARKROOM_TOKEN is not a valid token.")
    assert "two words" not in pushed.stderr


# Unusual files and folders


def test_push_of_a_folder_with_unusable_files_uploads_the_rest_and_lists_each(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    good, other = picture(), picture()
    wanted = {"good.png": good, "copy.png": good, "smörgås 猫.png": other, "two\nlines.png": picture()}
    for name, body in wanted.items():
        (folder / name).write_bytes(body)
    (folder / "link.png").symlink_to("good.png")
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "deep.png").write_bytes(other)
    (folder / "linked").symlink_to("elsewhere")
    (folder / ".hidden.png").write_bytes(picture())
    (folder / ".thumbs").mkdir()
    (folder / "notes.txt").write_text("Not a picture\n")
    (folder / "empty.jpg").touch()
    (folder / "broken.jpg").write_bytes(images.truncated(images.photo_jpeg(300, 200)))
    (folder / "broken copy.jpg").write_bytes(images.truncated(images.photo_jpeg(300, 200)))
    (folder / "huge.png").write_bytes(images.noise_png(300, 400))
    (folder / "dangling.jpg").symlink_to("nowhere")
    (folder / "elsewhere" / "up").symlink_to("..")
    os.mkfifo(folder / "pipe.png")
    (folder / os.fsdecode(b"latin\xe9.png")).write_bytes(picture())
    reasons = {
        "notes.txt": "This is not an image.",
        "empty.jpg": "The file is empty.",
        "broken.jpg": "This JPEG image is broken or incomplete.",
        "broken copy.jpg": "This JPEG image is broken or incomplete.",
        "huge.png": "The file is larger than the server accepts.",
        "dangling.jpg": "The file or folder cannot be read.",
        "elsewhere/up": "This link leads back to a folder that contains it.",
        "linked/up": "This link leads back to a folder that contains it.",
        "pipe.png": "This is not a regular file.",
        "latin\\xe9.png": "The name is not UTF-8.",
    }
    names = [*wanted, "link.png", "elsewhere/deep.png", "linked/deep.png"]
    with darkroom(data, max_upload_bytes=(folder / "huge.png").stat().st_size - 1) as server, proxy_of(server.port) as proxy:
        pushed = run("push", folder, "--json", "--manifest", tmp_path / "images.json", server=proxy.url)
        assert pushed.exit_code == 1
        result = json.loads(pushed.stdout)
        assert sorted(result["images"]) == sorted(names)
        assert result["images"] == manifest_of(tmp_path / "images.json")
        rejected = {
            one["path"].removeprefix(f"{folder}/").replace("\\udce9", "\\xe9"): one["problem"]["detail"] for one in result["rejected"]
        }
        assert rejected == reasons
        assert all(upload.whole for upload in proxy.uploads)
        # Three are images, and one is found to be broken only by the server.
        assert len(proxy.uploads) == len({upload.digest for upload in proxy.uploads}) == 4
        assert len(server.stored("originals")) == 3
        plain = run("push", folder, server=proxy.url)
        assert plain.exit_code == 1
        assert "10 files were not uploaded:" in plain.stderr
        assert "two\\nlines.png" not in plain.stderr
        assert "2 hidden files and folders skipped." in plain.stdout
        assert plain.stderr.count("This JPEG image is broken or incomplete.") == 1
        assert "a file that begins with `Not a picture\\n`" in plain.stderr


def test_push_of_unreadable_files_uploads_the_others(server: Server, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    for name in ("mine.png", "secret.png"):
        (tmp_path / name).write_bytes(picture())
    for name in ("secret.png", "closed"):
        (tmp_path / name).chmod(0)
    # Root loses the capabilities that let it read everything: capabilities(7).
    as_others = [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    ran = subprocess.run(
        [*as_others, DARKROOM, "push", tmp_path, "--json"], env=environment(server=server.url), capture_output=True, check=False
    )
    (tmp_path / "closed").chmod(0o700)
    assert (ran.returncode, ran.stderr) == (1, b"")
    result = json.loads(ran.stdout)
    assert list(result["images"]) == ["mine.png"]
    found = [(one["path"], one["problem"]["detail"], one["problem"]["received"]) for one in result["rejected"]]
    assert sorted(found) == [
        (str(tmp_path / name), "The file or folder cannot be read.", "Permission denied") for name in ("closed", "secret.png")
    ]


def test_push_of_an_image_that_was_taken_down_is_rejected_without_sending_it(proxy: Proxy, server: Server, folder: Path) -> None:
    body = (folder / "two.png").read_bytes()
    with server.client() as client:
        client.post("/v1/images", content=body).raise_for_status()
        client.delete(f"/v1/images/{digest_of(body)}").raise_for_status()
    pushed = run("push", folder, server=proxy.url)
    assert pushed.exit_code == 1
    assert "This image was taken down from the server." in pushed.stderr
    assert "DELETE /v1/images/{digest}/tombstone" in pushed.stderr
    assert digest_of(body) not in sent(proxy)
    assert "2 files (2 images) on" in pushed.stdout


def test_push_of_an_image_that_is_taken_down_meanwhile_is_rejected(proxy: Proxy, server: Server, tmp_path: Path) -> None:
    body = picture()
    (tmp_path / "one.png").write_bytes(body)
    with server.client() as client:

        def take_down() -> None:
            client.post("/v1/images", content=body).raise_for_status()
            client.delete(f"/v1/images/{digest_of(body)}").raise_for_status()

        proxy.on_upload = take_down
        pushed = run("push", tmp_path / "one.png", server=proxy.url)
    assert pushed.exit_code == 1
    assert "This image has been taken down." in pushed.stderr


def test_push_of_a_file_that_becomes_shorter_meanwhile_is_rejected_and_stores_nothing(proxy: Proxy, tmp_path: Path) -> None:
    path = tmp_path / "growing.png"
    path.write_bytes(noise())
    proxy.after_lookup = lambda: os.truncate(path, 1_000)
    pushed = run("push", path, server=proxy.url)
    assert pushed.exit_code == 1
    assert "The file became shorter during the upload." in pushed.stderr
    assert "growing.png: 1000 bytes\n" in pushed.stderr
    assert all(not upload.whole for upload in proxy.uploads)


def test_push_of_a_file_that_becomes_another_image_meanwhile_is_listed_with_its_new_digest(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With two tasks, either of the two files may be hashed first, and be the one that is sent.
    monkeypatch.setattr(client_upload, "_HASHING_TASKS", 1)
    size = next(_sizes)
    before, after = (images.flat_png(size, 20, color) for color in ((10, 20, 30), (30, 20, 10)))
    assert len(before) == len(after)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(before)
    proxy.after_lookup = lambda: (tmp_path / "a.png").write_bytes(after)
    pushed = run("push", tmp_path, "--json", server=proxy.url)
    assert pushed.exit_code == 0
    result = {name: image["digest"] for name, image in json.loads(pushed.stdout)["images"].items()}
    assert result == {"a.png": digest_of(after), "b.png": digest_of(before)}


def test_push_of_an_empty_folder_succeeds(server: Server, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run("push", tmp_path / "empty", server=server.url).exit_code == 0


def test_push_of_a_missing_path_is_refused_before_anything_is_sent(proxy: Proxy, folder: Path) -> None:
    pushed = run("push", folder, folder / "nowhere", server=proxy.url)
    assert pushed.exit_code == 2
    assert "nowhere" in pushed.stderr
    assert proxy.received == []


# The manifest


def test_manifest_has_the_document_with_absolute_urls_and_the_srcset_of_the_fallback(server: Server, folder: Path, tmp_path: Path) -> None:
    (folder / "one.png").write_bytes(images.photo_jpeg(next(_sizes), 400))
    assert run("push", folder, "--manifest", tmp_path / "images.json", server=f"{server.url}/").exit_code == 0
    found = manifest_of(tmp_path / "images.json")
    assert list(found) == ["one.png", "trips/three.png", "two.png"]
    entry = found["one.png"]
    with server.client() as client:
        document = client.get(f"/v1/images/{entry['digest']}").json()
        assert {**json.loads(json.dumps(document).replace("/i/v", f"{server.url}/i/v")), "srcset": entry["srcset"]} == entry
        assert entry["srcset"] == entry["sources"][-1]["srcset"]
        assert httpx.get(entry["src"], trust_env=False, timeout=PATIENCE_SECONDS, verify=False).status_code == 200
        for url in re.findall(r"http\S+(?= \d+w)", entry["picture"]):
            assert url.startswith(f"{server.url}/i/v3/{entry['digest']}/")


def test_manifest_with_relative_urls_has_the_unchanged_document(server: Server, folder: Path, tmp_path: Path) -> None:
    assert run("push", folder, "--manifest", tmp_path / "images.json", "--relative", server=server.url).exit_code == 0
    entry = manifest_of(tmp_path / "images.json")["one.png"]
    with server.client() as client:
        assert entry == {**client.get(f"/v1/images/{entry['digest']}").json(), "srcset": entry["sources"][-1]["srcset"]}


def test_manifest_of_a_push_without_changes_is_not_written_again(server: Server, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    run("push", folder, "--manifest", path, server=server.url)
    before = path.stat()
    run("push", folder, "--manifest", path, server=server.url)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino


def test_manifest_keeps_entries_of_missing_files_unless_it_is_pruned(server: Server, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    run("push", folder, "--manifest", path, server=server.url)
    (folder / "two.png").unlink()
    (folder / "one.png").write_bytes(images.truncated(images.photo_jpeg(300, 200)))
    (folder / "trips" / "three.png").write_bytes(b"")
    before = manifest_of(path)
    assert run("push", folder, "--manifest", path, server=server.url).exit_code == 1
    assert manifest_of(path) == before
    assert run("push", folder, "--manifest", path, "--prune", server=server.url).exit_code == 1
    # Files that exist but were rejected keep their entries.
    assert manifest_of(path) == {name: before[name] for name in ("one.png", "trips/three.png")}


def test_manifest_in_the_pushed_folder_is_not_pushed_and_keeps_its_mode(server: Server, folder: Path) -> None:
    path = folder / "images.json"
    mask = os.umask(0o027)
    try:
        assert run("push", folder, "--manifest", path, server=server.url).exit_code == 0
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        (folder / "four.png").write_bytes(picture())
        assert run("push", folder, "--manifest", path, server=server.url).exit_code == 0
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert list(manifest_of(path)) == ["four.png", "one.png", "trips/three.png", "two.png"]
    assert sorted(item.name for item in folder.iterdir()) == ["four.png", "images.json", "one.png", "trips", "two.png"]


@pytest.mark.parametrize(
    ("body", "received"),
    [
        (b'{"version": 2, "images": {}}', "version 2"),
        (b'{"version": 0, "images": {}}', "version 0"),
        (b'{"images": {}}', "something else"),
        (b'{"version": 1}', "version 1"),
        (b"[]", "something else"),
        (b"not JSON", "something else"),
        (b"", "something else"),
    ],
)
def test_manifest_of_another_version_is_unchanged_and_nothing_is_sent(
    proxy: Proxy, folder: Path, tmp_path: Path, body: bytes, received: str
) -> None:
    path = tmp_path / "images.json"
    path.write_bytes(body)
    pushed = run("push", folder, "--manifest", path, server=proxy.url)
    assert (pushed.exit_code, pushed.stdout) == (2, "")
    assert "is not a manifest of this version; it was not changed." in pushed.stderr
    assert f"received  {received}\n" in pushed.stderr
    assert "delete the file" in pushed.stderr
    assert path.read_bytes() == body
    assert proxy.received == []


@pytest.mark.parametrize("name", ["nowhere/images.json", "pictures"])
def test_manifest_that_cannot_be_written_is_refused_before_anything_is_sent(proxy: Proxy, folder: Path, tmp_path: Path, name: str) -> None:
    pushed = run("push", folder, "--manifest", tmp_path / name, server=proxy.url)
    assert pushed.exit_code == 2
    assert pushed.stderr.startswith("darkroom: The manifest cannot be written.")
    assert proxy.received == []


def test_manifest_with_the_same_name_in_two_folders_is_refused_but_not_a_push_without_one(
    proxy: Proxy, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "others"
    other.mkdir()
    (other / "one.png").write_bytes(picture())
    pushed = run("push", folder, other, "--manifest", tmp_path / "images.json", server=proxy.url)
    assert pushed.exit_code == 2
    assert "Two files would have the same name in the manifest." in pushed.stderr
    assert f"one.png for {folder}/one.png and for {other}/one.png" in pushed.stderr
    assert proxy.received == []
    assert run("push", folder, other, server=proxy.url).exit_code == 0
    # The same file twice is not a collision.
    assert run("push", folder, folder, folder / "one.png", "--manifest", tmp_path / "images.json", server=proxy.url).exit_code == 0
    assert list(manifest_of(tmp_path / "images.json")) == ["one.png", "trips/three.png", "two.png"]


# Output


def test_push_with_quiet_prints_only_errors(server: Server, folder: Path) -> None:
    assert run("push", folder, "--quiet", server=server.url).output == ""
    (folder / "notes.txt").write_text("text")
    pushed = run("push", folder, "--quiet", server=server.url)
    assert (pushed.exit_code, pushed.stdout) == (1, "")
    assert pushed.stderr.startswith("1 file was not uploaded:\n  This is not an image.\n    expected  JPEG")


def test_push_on_a_terminal_shows_files_bytes_rate_and_time_left(proxy: Proxy, folder: Path) -> None:
    (folder / "noise.png").write_bytes(noise())
    terminal, side = pty.openpty()
    slow = threading.Event()
    proxy.on_upload = lambda: slow.wait(0.4)
    with (
        os.fdopen(terminal, "rb", buffering=0) as screen,
        os.fdopen(side, "wb", buffering=0) as theirs,
        started("push", folder, server=proxy.url, stderr=theirs) as process,
    ):
        theirs.close()
        seen = b""
        # Reading from a terminal that no process has open fails (pty(7)).
        while True:
            try:
                seen += screen.read(4_096)
            except OSError:
                break
        assert process.wait(PATIENCE_SECONDS) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert re.search(r"\d/4 files", text)
    assert re.search(r"[kM]B", text)
    assert "/s" in text
    assert re.search(r"\d:\d\d|--:--", text)


# --watch


class Watching:
    """A running `darkroom push --watch` and its manifest."""

    def __init__(self, process: subprocess.Popen[bytes], manifest: Path) -> None:
        self.process = process
        self._manifest = manifest

    def images(self) -> dict[str, Any]:
        return manifest_of(self._manifest) if self._manifest.exists() else {}


@pytest.fixture
def watching(proxy: Proxy, folder: Path, tmp_path: Path) -> Iterator[Watching]:
    manifest = tmp_path / "images.json"
    with (
        (tmp_path / "log").open("wb") as log,
        started("push", folder, "--watch", "--prune", "--manifest", manifest, server=proxy.url, stdout=log, stderr=log) as process,
    ):
        running = Watching(process, manifest)
        wait_until(lambda: len(running.images()) == 3)
        yield running


def test_watch_pushes_new_and_changed_files_and_removes_deleted_ones(
    watching: Watching, proxy: Proxy, folder: Path, tmp_path: Path
) -> None:
    new, changed = picture(), picture()
    (folder / "new.png").write_bytes(new)
    (folder / "one.png").write_bytes(changed)
    (folder / "notes.txt").write_text("no picture")
    wait_until(lambda: watching.images().get("one.png", {}).get("digest") == digest_of(changed) and "new.png" in watching.images())
    assert watching.images()["new.png"]["digest"] == digest_of(new)
    (folder / "two.png").unlink()
    wait_until(lambda: "two.png" not in watching.images())
    assert len(proxy.uploads) == 5
    log = (tmp_path / "log").read_text()
    assert log.count("This is not an image.") == 1
    watching.process.send_signal(signal.SIGINT)
    assert watching.process.wait(PATIENCE_SECONDS) == 0
    assert "Traceback" not in log


@pytest.mark.long
def test_watch_continues_when_the_server_is_back(data: Path, folder: Path, tmp_path: Path) -> None:
    manifest, log = tmp_path / "images.json", tmp_path / "log"
    port = free_port()
    with proxy_of(port) as proxy:
        with darkroom(data) as server:
            proxy.upstream_port = server.port
            with (
                log.open("wb") as output,
                started("push", folder, "--watch", "--manifest", manifest, server=proxy.url, stdout=output, stderr=output) as process,
            ):
                wait_until(manifest.exists)
                server.stop()
                (folder / "new.png").write_bytes(picture())
                wait_until(lambda: "Retrying until it responds." in log.read_text())
                with darkroom(data) as back:
                    proxy.upstream_port = back.port
                    wait_until(lambda: "new.png" in manifest_of(manifest))
                assert process.poll() is None
        assert log.read_text().count("The server does not respond.") == 1
