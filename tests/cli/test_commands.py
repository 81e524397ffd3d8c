"""`darkroom url`, `info`, `rm` and `open` against a real server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.http.test_ingest import digest_of
from tests.support import images
from tests.support.command import run
from tests.support.server import DARKROOM, Server, environment
from tests.support.waiting import PATIENCE_SECONDS

_sizes = iter(range(2_000, 3_000))
UNKNOWN = "a" * 32


@pytest.fixture
def photo(server: Server, tmp_path: Path) -> Path:
    """Give the file of an image that the server has, and no other test."""
    path = tmp_path / "photo.png"
    path.write_bytes(images.flat_png(next(_sizes), 900, (200, 30, 90)))
    with server.client() as client:
        client.post("/v1/images", content=path.read_bytes()).raise_for_status()
    return path


def digest(path: Path) -> str:
    return digest_of(path.read_bytes())


@pytest.mark.parametrize(
    ("arguments", "spelling", "extension"),
    [
        ((), "width=2", "jpg"),
        (("width=300",), "width=300", "jpg"),
        (("width=300", "--format", "webp"), "width=300", "webp"),
        (("width=300,height=300,fit=cover,round=max",), "width=300,height=300,fit=cover,round=max", "png"),
        (("height=300", "--format", "avif"), "height=300", "avif"),
        (("focal=0.3:0.6,width=200,height=200,fit=cover",), "width=200,height=200,fit=cover,gravity=focal:0.3:0.6", "jpg"),
        (("full", "--format", "png"), "full", "png"),
    ],
)
def test_url_of_a_digest_and_of_its_file_is_the_same_and_shows_the_image(
    server: Server, photo: Path, arguments: tuple[str, ...], spelling: str, extension: str
) -> None:
    made = run("url", photo, *arguments, server=server.url)
    assert (made.exit_code, made.stderr) == (0, "")
    assert made.stdout == run("url", digest(photo), *arguments, server=server.url).stdout
    url = made.stdout.removesuffix("\n")
    assert url.startswith(f"{server.url}/i/v3/{digest(photo)}/{spelling}")
    assert url.endswith(f".{extension}")
    assert httpx.get(url, trust_env=False, timeout=PATIENCE_SECONDS, verify=False).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "detail", "code"),
    [
        (("widht=300",), "The transform has an unknown key.", 1),
        (("width",), "This is not a transform.", 2),
        (("width=1,width=2",), "This is not a transform.", 2),
        (("width=300", "--variant", "card"), "There is no such variant.", 1),
        (("height=300",), "A ladder needs a width: this transform has only a height.", 1),
    ],
)
def test_url_of_a_bad_transform_is_refused_with_the_reason(
    server: Server, photo: Path, arguments: tuple[str, ...], detail: str, code: int
) -> None:
    made = run("url", photo, *arguments, server=server.url)
    assert (made.exit_code, made.stdout) == (code, "")
    assert made.stderr.startswith(f"darkroom: {detail}\n  expected  ")
    assert "\n  remedy    " in made.stderr


@pytest.mark.parametrize("command", ["url", "info", "open"])
def test_command_of_an_unknown_image_is_refused_with_the_reason(server: Server, tmp_path: Path, command: str) -> None:
    unknown = run(command, UNKNOWN, server=server.url)
    assert unknown.exit_code == 1
    assert "No image has this digest." in unknown.stderr
    no_file = run(command, tmp_path / "nowhere.jpg", server=server.url)
    assert no_file.exit_code == 2
    assert "a digest, 32 characters of a-z and 2-7, or a file" in no_file.stderr
    (tmp_path / "notes.txt").write_text("text")
    assert "This is not an image." in run(command, tmp_path / "notes.txt", server=server.url).stderr


def test_info_prints_facts_and_as_json_the_whole_document(server: Server, photo: Path) -> None:
    printed = run("info", photo, server=server.url)
    assert printed.exit_code == 0
    facts = dict(line.split(maxsplit=1) for line in printed.stdout.splitlines())
    assert facts["digest"] == digest(photo)
    assert f"x 900 pixels, {photo.stat().st_size:,} bytes" in facts["image"].replace("×", "x")
    assert facts["src"].startswith(f"{server.url}/i/v3/")
    whole = json.loads(run("info", digest(photo), "--json", server=server.url).stdout)
    with server.client() as client:
        known = client.get(f"/v1/images/{digest(photo)}").json()
    assert json.loads(json.dumps(known).replace("/i/v", f"{server.url}/i/v")) == whole


def test_info_of_alt_text_with_an_escape_sequence_is_escaped(server: Server, photo: Path) -> None:
    with server.client() as client:
        client.patch(f"/v1/images/{digest(photo)}", json={"alt": "Früh \x1b[31mrot"}, headers={"If-Match": "*"}).raise_for_status()
    printed = run("info", photo, server=server.url).stdout
    assert "\x1b" not in printed
    assert "Früh \\x1b[31mrot" in printed


def test_rm_takes_down_only_after_confirmation(server: Server, photo: Path) -> None:
    refused = run("rm", digest(photo), server=server.url, given="n\n")
    assert refused.exit_code == 1
    assert f"Take down this image on {server.url}?" in refused.stderr
    assert run("info", photo, server=server.url).exit_code == 0
    assert run("rm", digest(photo), server=server.url, given="").exit_code == 1
    done = run("rm", digest(photo), server=server.url, given="y\n")
    assert done.exit_code == 0
    assert f"{digest(photo)} is taken down, 0 renditions removed; the server has no CDN to purge.\n" in done.stdout
    assert "Copies in browser caches cannot be removed." in done.stdout
    gone = run("info", photo, server=server.url)
    assert gone.exit_code == 1
    assert "This image has been taken down." in gone.stderr


def test_rm_of_several_digests_continues_after_an_unknown_one(server: Server, photo: Path) -> None:
    done = run("rm", UNKNOWN, digest(photo), "--yes", server=server.url)
    assert done.exit_code == 1
    assert done.stdout.startswith(f"{digest(photo)} is taken down")
    assert "Not taken down:\n  No image has this digest." in done.stderr
    assert UNKNOWN in done.stderr


def test_rm_with_an_invalid_digest_takes_nothing_down(server: Server, photo: Path) -> None:
    done = run("rm", digest(photo), photo, "--yes", server=server.url)
    assert done.exit_code == 2
    assert done.stderr.startswith("darkroom: This is not a digest.")
    assert run("info", photo, server=server.url).exit_code == 0


def test_open_starts_the_browser_with_the_playground(server: Server, photo: Path, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >>{opened}\n')
    browser.chmod(0o755)
    for arguments in ((), (photo,)):
        ran = subprocess.run(
            [DARKROOM, "open", *arguments], env=environment(server=server.url) | {"BROWSER": str(browser)}, capture_output=True, check=False
        )
        assert (ran.returncode, ran.stderr) == (0, b"")
    assert opened.read_text().split() == [f"{server.url}/", f"{server.url}/#{digest(photo)}"]


def test_help_lists_every_command_with_its_purpose() -> None:
    printed = run("--help").stdout
    for command, words in {
        "push": "Upload images, files and whole folders.",
        "url": "Print the URL of a rendition.",
        "info": "Print what the server knows about an image.",
        "rm": "Take images down.",
        "open": "Open the playground in a browser.",
        "serve": "Run a server.",
    }.items():
        assert f"  {command:<5}" in printed
        assert words in printed
        assert run(command, "--help").exit_code == 0


def test_server_start_does_not_import_the_modules_of_other_commands() -> None:
    of_other_commands = {"httpcore", "httpx", "rich.progress", "service.cli.client", "service.cli.push", "service.cli.store"}
    code = f"import service.cli.serve, service.asgi, sys; print(sorted({of_other_commands} & set(sys.modules)))"
    ran = subprocess.run([DARKROOM.parent / "python", "-c", code], capture_output=True, check=True, env=environment())
    assert ran.stdout.strip() == b"[]"


def test_push_does_not_import_the_settings_of_a_server() -> None:
    of_servers = {"service.ops", "service.settings.sections", "service.settings.variables", "rich", "structlog", "email"}
    code = f"import service.cli.commands, service.cli.push, sys; print(sorted({of_servers} & set(sys.modules)))"
    ran = subprocess.run([DARKROOM.parent / "python", "-c", code], capture_output=True, check=True, env=environment())
    assert ran.stdout.strip() == b"[]"
