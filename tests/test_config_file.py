"""The file of settings, and secrets in files: they mean what the same variables mean, and their errors name file and key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.errors import SettingsError
from service.settings.environment import examine, load, read
from service.settings.sections import FIELDS
from service.settings.variables import Origin, is_secret, read_secret

KEY = "00112233445566778899aabbccddeeff"
TOKEN = "a-token-of-22-letters_"

# Each setting in TOML, and as a variable.
SETTINGS = {
    "host": ('"0.0.0.0"', "0.0.0.0"),
    "port": ("9000", "9000"),
    "data": ('"/var/darkroom"', "/var/darkroom"),
    "store": ('"file:///proc/store"', "file:///proc/store"),
    "keys": (f'["{KEY}", "{KEY[::-1]}"]', f"{KEY},{KEY[::-1]}"),
    "tokens": (f'{{ "{TOKEN}" = "ingest+read" }}', f"{TOKEN}:ingest+read"),
    "public_url": ('"https://img.example.com"', "https://img.example.com"),
    "url_names": ("true", "true"),
    "cors_origins": ('["https://www.example.com", "http://localhost:3000"]', "https://www.example.com,http://localhost:3000"),
    "unsigned": ('["full", "width=640,height=480,fit=cover"]', "full width=640,height=480,fit=cover"),
    "regions": ('["fra", "iad"]', "fra,iad"),
    "trusted_proxies": ('["10.0.0.0/8"]', "10.0.0.0/8"),
    "variants": ('{ card = "width=640", badge = "width=96,round=max" }', "card: width=640; badge: width=96,round=max"),
    "widths": ("[100, 200]", "100,200"),
    "quality": ("{ avif = 55, webp = 78 }", "avif=55,webp=78"),
    "warm": ('["avif"]', "avif"),
    "sources": ('{ cms = "https://cms.example.com/uploads" }', "cms=https://cms.example.com/uploads"),
    "source_response": ('"redirect"', "redirect"),
    "wait_seconds": ("2.5", "2.5"),
    "render_seconds": ("9", "9"),
}


def config(folder: Path, text: str) -> dict[str, str]:
    """Return the environment of a server whose file of settings has this text."""
    path = folder / "darkroom.toml"
    path.write_text(text, "utf-8")
    return {"DARKROOM_CONFIG": str(path)}


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    return str(caught.value)


def test_file_of_settings_means_the_same_as_variables(tmp_path: Path) -> None:
    lines = [f"{key} = {toml}" for key, (toml, _) in SETTINGS.items()]
    variables = {f"DARKROOM_{key.upper()}": text for key, (_, text) in SETTINGS.items()}
    environ = config(tmp_path, "\n".join(lines))
    assert load(environ) == load({**variables, **environ})
    origins = read(environ).variables.origins
    assert {origins[name] for name in variables} == {Origin("file", tmp_path / "darkroom.toml")}


@pytest.mark.parametrize("variable", sorted(FIELDS.keys() - {"DARKROOM_CONFIG", "FLY_REGION", "FLY_MACHINE_ID", "PRIMARY_REGION"}))
def test_every_setting_is_a_key_of_the_file(tmp_path: Path, variable: str) -> None:
    """A value of the wrong type is refused with the right one, never as an unknown key."""
    message = refusal(config(tmp_path, f"{variable.removeprefix('DARKROOM_').lower()} = 2026-01-01"))
    assert message.startswith(f"{tmp_path}/darkroom.toml: {variable.removeprefix('DARKROOM_').lower()} is invalid: expected ")
    assert ", got a date or a time." in message


def test_environment_goes_before_the_file(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text(KEY)
    environ = config(tmp_path, f'port = 9000\npublic_url = "https://a.example"\nkeys_file = "{secret}"\n')
    settings = load({**environ, "DARKROOM_PORT": "9001", "DARKROOM_PUBLIC_URL": "", "DARKROOM_KEYS": KEY})
    assert (settings.server.port, settings.server.public_url) == (9001, "https://a.example")
    assert (settings.auth.keys_file, settings.auth.signing_keys) == (None, (bytes.fromhex(KEY),))


def test_empty_array_switches_off_what_none_does(tmp_path: Path) -> None:
    settings = load(config(tmp_path, "unsigned = []\nwarm = []\ncors_origins = []\n"))
    assert (settings.auth.unsigned, settings.rendering.warm_formats, settings.server.cors_origins) == ((), (), ())
    assert "widths is invalid: expected an array" in refusal(config(tmp_path, "widths = []"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_pixel = 3", "max_pixel is not a setting of Darkroom. Did you mean max_pixels?"),
        ("Port = 3", "Port is not a setting of Darkroom. Did you mean port?"),
        ("[server]\nport = 3", "server is not a setting of Darkroom."),
        ('aws_regoin = "x"', "aws_regoin is not a setting of Darkroom. Did you mean aws_region?"),
        ("darkroom_port = 3", "darkroom_port is not a setting of Darkroom. Did you mean port?"),
        ('server = "https://img.example.com"', "server is not a setting of Darkroom."),
        ("xyzzy = 3", "xyzzy is not a setting of Darkroom. Remove it."),
        ('port = "80"', "port is invalid: expected a whole number from 1 to 65535, without quotes or a unit, got '80'. Port to listen on."),
        ("port = 80.5", "port is invalid: expected a whole number from 1 to 65535, without quotes or a unit, got 80.5."),
        ("port = true", "port is invalid: expected a whole number from 1 to 65535, without quotes or a unit, got True."),
        ("port = 70000", "port: DARKROOM_PORT is invalid: expected a whole number from 1 to 65535, got '70000'."),
        ('cache_bytes = "256MB"', "without quotes or a unit, got '256MB'."),
        ('url_names = "yes"', "url_names is invalid: expected true or false, without quotes, got 'yes'."),
        ("host = 3", "host is invalid: expected text in quotes, got a number."),
        ('widths = "320"', "widths is invalid: expected an array,"),
        ("widths = [320, 1.5]", "got an array with other entries."),
        ('sources = "cms=https://a.example"', "sources is invalid: expected a table,"),
        ('config = "other.toml"', "config is for the environment: a file cannot name another one. Remove it."),
        ("wait_seconds = inf", "wait_seconds: DARKROOM_WAIT_SECONDS is invalid: expected a number greater than 0, got 'inf'."),
        ("wait_seconds = nan", "wait_seconds: DARKROOM_WAIT_SECONDS is invalid: expected a number greater than 0, got 'nan'."),
    ],
)
def test_wrong_key_or_value_is_refused_with_file_key_expected_and_received(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(config(tmp_path, text))
    assert refusal(config(tmp_path, text)).startswith(f"{tmp_path}/darkroom.toml: ")


def test_error_in_a_secret_of_the_file_does_not_show_it(tmp_path: Path) -> None:
    for text in (f'keys = "{KEY}"', f'tokens = ["{TOKEN}:write"]', 'keys = ["short-secret"]', "cloudflare_token = 987654321"):
        message = refusal(config(tmp_path, text))
        assert not any(secret in message for secret in (KEY, TOKEN, "short-secret", "987654321"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"port = \n", "at line 1"),
        (b"\xff\xfe", "expected a file in TOML"),
        (b"a" * (1 << 21), "a file of at most 1048576 bytes"),
        (b"port = " + b"9" * 5_000, "4300 digits"),
        (b"port = 0x" + b"f" * 5_000, "a whole number of more than 64 bits"),
        (b"widths = [" + b"9" * 20 + b"]", "a whole number of more than 64 bits"),
        (b"widths = " + b"[" * 5_000, "recursion"),
        (b'data = "a\\u0000b"', "a text with the character U+0000"),
        (b'[sources]\n"a\\u0000b" = "https://a.example"', "a text with the character U+0000"),
    ],
)
def test_file_that_is_not_toml_is_refused_with_its_path(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "darkroom.toml"
    path.write_bytes(content)
    found = refusal({"DARKROOM_CONFIG": str(path)})
    assert found.startswith("DARKROOM_CONFIG is invalid: ")
    assert message in found
    assert str(path) in found


def test_file_that_cannot_be_read_is_refused_with_its_path(tmp_path: Path) -> None:
    assert f"DARKROOM_CONFIG: {tmp_path} cannot be read: Is a directory." in refusal({"DARKROOM_CONFIG": str(tmp_path)})
    missing = tmp_path / "missing.toml"
    assert f"DARKROOM_CONFIG: {missing} cannot be read: No such file" in refusal({"DARKROOM_CONFIG": str(missing)})


@pytest.mark.parametrize("variable", ["DARKROOM_CONFIG", "DARKROOM_TOKEN_FILE"])
def test_pipe_or_device_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path, variable: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        assert f"{variable}: {path} cannot be read: Not a regular file." in refusal({variable: str(path)})


def test_all_errors_are_found_at_once() -> None:
    settings, _, errors = examine({"DARKROOM_PORT": "x", "DARKROOM_MAX_PIXEL": "3", "DARKROOM_WARM": "bmp"})
    assert settings is None
    assert [str(error).split()[0] for error in errors] == ["DARKROOM_PORT", "DARKROOM_WARM", "DARKROOM_MAX_PIXEL"]


@pytest.mark.parametrize(
    "secret", ["DARKROOM_CLOUDFLARE_TOKEN", "AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_KEY", "DARKROOM_SOURCE_SHOP_AWS_SECRET_ACCESS_KEY"]
)
def test_secret_is_read_from_the_file_that_a_variable_names_or_systemd_passes(tmp_path: Path, secret: str) -> None:
    file = tmp_path / secret
    file.write_text("the secret\n")
    sources = {"DARKROOM_SOURCES": "shop=s3://bucket", "DARKROOM_CLOUDFLARE_ZONE": "0" * 32, "DARKROOM_CLOUDFLARE_TOKEN": "other"}
    others = {name: text for name, text in sources.items() if name != secret}
    for environ in ({f"{secret}_FILE": str(file)}, {"CREDENTIALS_DIRECTORY": str(tmp_path)}):
        variables = read({**others, **environ}).variables
        assert variables.texts[secret] == "the secret"
        assert variables.origins[secret] == Origin("secret file", file)
        assert "the secret" not in repr(variables)
    # A variable goes before systemd's folder, but two variables contradict each other.
    assert read({**others, "CREDENTIALS_DIRECTORY": str(tmp_path), secret: "mine"}).variables.texts[secret] == "mine"
    assert f"{secret} and {secret}_FILE are two places" in refusal({**others, f"{secret}_FILE": str(file), secret: "mine"})


def test_keys_and_tokens_that_systemd_passes_are_their_files(tmp_path: Path) -> None:
    for name in ("DARKROOM_KEYS", "DARKROOM_TOKENS", "README"):
        (tmp_path / name).write_text("")
    auth = load({"CREDENTIALS_DIRECTORY": str(tmp_path)}).auth
    assert (auth.keys_file, auth.tokens_file) == (tmp_path / "DARKROOM_KEYS", tmp_path / "DARKROOM_TOKENS")


def test_secret_file_that_is_missing_or_empty_is_refused_with_its_variable(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    assert "AWS_SECRET_ACCESS_KEY_FILE is invalid: expected a file with the secret" in refusal(
        {"AWS_SECRET_ACCESS_KEY_FILE": str(tmp_path / "empty")}
    )
    assert "AWS_SECRET_ACCESS_KEY_FILE: /no/such cannot be read" in refusal({"AWS_SECRET_ACCESS_KEY_FILE": "/no/such"})
    unknown = {"DARKROOM_SOURCE_SHOP_AWS_SECRET_ACCESS_KEY_FILE": str(tmp_path / "key")}
    (tmp_path / "key").write_text("x")
    assert "DARKROOM_SOURCE_SHOP_AWS_SECRET_ACCESS_KEY is not a setting" in refusal(unknown)


def test_token_of_the_commands_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert read_secret({"DARKROOM_TOKEN_FILE": str(tmp_path / "token"), "DARKROOM_PORT": "x"}, "DARKROOM_TOKEN") == TOKEN
    assert read_secret({}, "DARKROOM_TOKEN") == ""


def test_files_of_lists_and_paths_of_keys_are_no_secrets() -> None:
    assert not any(map(is_secret, ("DARKROOM_KEYS_FILE", "GOOGLE_APPLICATION_CREDENTIALS", "AWS_REGION", "DARKROOM_SOURCES")))
