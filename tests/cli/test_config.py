"""`darkroom config`: every setting with its value and origin, and no secret."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest
from click.testing import CliRunner, Result

from service.cli.commands import main
from service.settings.help import HELP

SECRETS = {
    "DARKROOM_TOKENS": "a-token-of-22-letters_:read",
    "DARKROOM_CLOUDFLARE_TOKEN": "cloudflare-secret",
    "AWS_SECRET_ACCESS_KEY": "aws-secret",
    "DARKROOM_SOURCE_SHOP_AWS_SECRET_ACCESS_KEY": "shop-secret",
}


def run(environ: dict[str, str], *arguments: str) -> Result:
    with patch.dict("os.environ", environ, clear=True):
        return CliRunner().invoke(main, ["config", *arguments])


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "darkroom.toml").write_text('port = 9000\nwidths = [320, 640]\nsources = { shop = "s3://bucket" }\n')
    (tmp_path / "keys").write_text("00112233445566778899aabbccddeeff")
    return {
        "DARKROOM_CONFIG": str(tmp_path / "darkroom.toml"),
        "DARKROOM_CLOUDFLARE_ZONE": "0" * 32,
        "DARKROOM_CLOUDFLARE_URL": "https://me:password@proxy.example",
        "DARKROOM_KEYS_FILE": str(tmp_path / "keys"),
        "DARKROOM_CACHE_BYTES": "1000",
        "AWS_REGION": "auto",
        **SECRETS,
    }


def test_config_shows_every_setting_with_its_origin(environ: dict[str, str], tmp_path: Path) -> None:
    ended = run(environ, "--json")
    assert ended.exit_code == 0
    found = json.loads(ended.stdout)["settings"]
    assert set(HELP) | {"AWS_REGION", "AWS_SECRET_ACCESS_KEY", "DARKROOM_SOURCE_SHOP_AWS_SECRET_ACCESS_KEY"} == set(found)
    file = str(tmp_path / "darkroom.toml")
    assert found["DARKROOM_PORT"] == {"value": 9000, "origin": "file", "path": file}
    assert found["DARKROOM_WIDTHS"] == {"value": "320,640", "origin": "file", "path": file}
    assert found["DARKROOM_CACHE_BYTES"] == {"value": 1000, "origin": "environment", "path": None}
    assert found["DARKROOM_HOST"] == {"value": "127.0.0.1", "origin": "default", "path": None}
    assert found["DARKROOM_STORE"]["origin"] == found["DARKROOM_RENDER_PROCESSES"]["origin"] == "derived default"
    assert found["DARKROOM_PUBLIC_URL"] == {"value": None, "origin": "default", "path": None}
    assert found["DARKROOM_URL_NAMES"]["value"] is False


def test_config_masks_every_secret(environ: dict[str, str]) -> None:
    for arguments in ([], ["--json"]):
        shown = run(environ, *arguments).output
        assert not any(secret.partition(":")[0] in shown for secret in [*SECRETS.values(), "password"])
    found = json.loads(run(environ, "--json").stdout)["settings"]
    assert {name for name, setting in found.items() if setting["value"] == "***"} == set(SECRETS)
    assert found["DARKROOM_CLOUDFLARE_URL"]["value"] == "https://***@proxy.example"


def test_config_in_a_terminal_has_one_line_for_each_setting(environ: dict[str, str]) -> None:
    lines = run(environ).stdout.splitlines()
    assert [line.split()[0] for line in lines if line.split()[0] in HELP] == list(dict.fromkeys(line.split()[0] for line in lines))[
        : len(HELP)
    ]
    (port,) = [line for line in lines if line.startswith("DARKROOM_PORT ")]
    assert port.split() == ["DARKROOM_PORT", environ["DARKROOM_CONFIG"], "9000"]


def test_config_that_no_server_would_start_with_is_2_with_every_error() -> None:
    ended = run({"DARKROOM_PORT": "x", "DARKROOM_MAX_PIXEL": "3"})
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == [
        "darkroom: DARKROOM_PORT is invalid: expected a whole number from 1 to 65535, got 'x'. Port to listen on.",
        "darkroom: DARKROOM_MAX_PIXEL is not a setting of Darkroom. Did you mean DARKROOM_MAX_PIXELS?",
    ]


def test_error_is_one_line_of_bounded_length_whatever_the_file_has(tmp_path: Path) -> None:
    path = tmp_path / "darkroom.toml"
    path.write_text(f'"a\\nb\\u001b[31m" = 1\npublic_url = "{"x" * 100_000}\\u202e"\n')
    ended = run({"DARKROOM_CONFIG": str(path)})
    assert ended.exit_code == 2
    url, key = ended.stderr.splitlines()
    assert r"a\nb\x1b[31m is not a setting of Darkroom. Remove it." in key
    assert len(url) < 5_000
    assert url.endswith("'.")
    assert r"\u202e" in url
