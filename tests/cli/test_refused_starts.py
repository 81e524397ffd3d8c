"""Bad input at the start of the real command: one line that names the setting, and exit code 2; or a server whose /health says it."""

from __future__ import annotations

import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from _pytest.mark import ParameterSet

from tests.support.s3 import moto_bucket
from tests.support.server import DARKROOM, HOST, environment, free_port, refused_start, started
from tests.support.waiting import PATIENCE_SECONDS, wait_until

KEY = "00112233445566778899aabbccddeeff"
BEYOND_LOOPBACK = {"keys": KEY, "tokens": "a-token-of-22-letters_"}


def long(*values: object) -> ParameterSet:
    """Return parameters for which a test runs only in `make test-long`: each start takes a third of a second of CPU time."""
    return pytest.param(*values, marks=pytest.mark.long)


def only_line(message: str) -> str:
    """Return the one line of an error message. The server may have announced itself before."""
    (line,) = [line for line in message.splitlines() if "Darkroom listens on" not in line]
    assert line.startswith("darkroom: ")
    return line.removeprefix("darkroom: ")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_pixel": "3"}, "DARKROOM_MAX_PIXEL is not a setting of Darkroom. Did you mean DARKROOM_MAX_PIXELS?"),
        long(
            {"cache_bytes": "256MB"},
            "DARKROOM_CACHE_BYTES is invalid: expected a whole number of at least 1, got '256MB'. Write 256000000. Memory for",
        ),
        long({"keys_file": "/no/such/file"}, "DARKROOM_KEYS_FILE: /no/such/file cannot be read: No such file or directory. Create it,"),
        long({"AWS_SECRET_ACCESS_KEY_FILE": "/no/such/file"}, "AWS_SECRET_ACCESS_KEY_FILE: /no/such/file cannot be read"),
        long({"store": "s3://bucket", "AWS_ACCESS_KEY_ID": ""}, "DARKROOM_STORE=s3://bucket needs AWS_ACCESS_KEY_ID"),
        (
            {"host": "no-such-host.invalid", **BEYOND_LOOPBACK},
            "DARKROOM_HOST is invalid: expected an address or a name of this machine, got 'no-such-host.invalid'.",
        ),
        long(
            {"host": "192.0.2.1", **BEYOND_LOOPBACK},
            "DARKROOM_HOST is invalid: expected an address or a name of this machine, got '192.0.2.1'.",
        ),
    ],
)
def test_start_with_a_bad_setting_is_refused_in_one_line(data: Path, settings: dict[str, str], message: str) -> None:
    assert only_line(refused_start(data, **{"port": str(free_port()), **settings})).startswith(message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cloudflare_zone": "x", "cloudflare_token": "y"}, "DARKROOM_CLOUDFLARE_ZONE"),
        long(
            {"sources": "shop=s3://bucket", "AWS_ENDPOINT_URL_S3": "ftp://x"},
            "AWS_ENDPOINT_URL_S3 is invalid: expected http:// or https:// and a",
        ),
    ],
)
def test_start_that_the_server_itself_refuses_ends_at_once_without_a_traceback(data: Path, settings: dict[str, str], message: str) -> None:
    assert only_line(refused_start(data, port=str(free_port()), **settings)).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_pixel = 3", "max_pixel is not a setting of Darkroom. Did you mean max_pixels?"),
        long('port = "http"', "port is invalid: expected a whole number from 1 to 65535, without quotes or a unit, got 'http'."),
    ],
)
def test_start_with_a_bad_file_of_settings_is_refused_with_file_and_key(data: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "darkroom.toml").write_text(text)
    found = only_line(refused_start(data, config=str(tmp_path / "darkroom.toml")))
    assert found.startswith(f"{tmp_path}/darkroom.toml: {message}")


@pytest.mark.parametrize("variable", [long("DARKROOM_PORT"), "DARKROOM_METRICS_PORT"])
def test_start_on_a_port_in_use_is_refused_with_its_setting(data: Path, variable: str) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = only_line(refused_start(data, **{"DARKROOM_PORT": str(free_port()), variable: str(port)}))
    assert message.startswith(
        f"{variable} is invalid: expected a free port, got {port}. Cannot listen on {HOST}:{port}: Address already in"
    )


@pytest.mark.long
@pytest.mark.parametrize(("settings", "named"), [({}, "DARKROOM_DATA"), ({"data": ""}, "DARKROOM_STORE")])
def test_start_with_a_file_as_a_folder_is_refused(tmp_path: Path, settings: dict[str, str], named: str) -> None:
    (tmp_path / "file").write_text("")
    folders = {"DARKROOM_DATA": str(tmp_path / "data"), named: str(tmp_path / "file")}
    if named == "DARKROOM_STORE":
        folders[named] = (tmp_path / "file").as_uri()
    ended = subprocess.run(
        [DARKROOM, "serve", "--port", str(free_port())],
        env=environment(**folders), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert only_line(ended.stderr).startswith(named)
    assert "expected a folder, got" in ended.stderr


def start_on(mount: str, data: Path, **settings: str) -> str:
    """Return the error of a start that must fail, whose data folder `$0` was mounted by a shell command in a namespace of its own."""
    data.mkdir()
    in_namespace: list[str | Path] = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'{mount} && exec "$@"', data]
    possible = subprocess.run([*in_namespace, "true"], capture_output=True, check=False)
    if possible.returncode:
        pytest.skip(f"mounting a file system in a namespace of its own is not permitted here: {possible.stderr.decode()}")
    ended = subprocess.run(
        [*in_namespace, DARKROOM, "serve", "--port", str(free_port()), "--data", data],
        env=environment(**settings), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    return only_line(ended.stderr)


@pytest.mark.parametrize("settings", [{}, long({"keys": KEY})])
def test_start_with_a_read_only_data_folder_is_refused(tmp_path: Path, settings: dict[str, str]) -> None:
    message = start_on('mount -t tmpfs -o ro tmpfs "$0"', tmp_path / "data", **settings)
    assert message.startswith(f"DARKROOM_DATA: {tmp_path}/data cannot be written: {tmp_path}/data is mounted read-only")
    assert message.endswith("Make it writable.")


def test_start_on_a_full_disk_without_a_key_is_refused(tmp_path: Path) -> None:
    fill = 'mount -t tmpfs -o size=64k tmpfs "$0" && mkdir "$0/store" && (cat /dev/zero > "$0/ballast" 2> /dev/null || true)'
    message = start_on(fill, tmp_path / "data")
    assert message.startswith(f"DARKROOM_KEYS is not set, and {tmp_path}/data/signing.key cannot be created: No space left on device.")


@pytest.mark.long
def test_start_on_a_disk_without_inodes_is_refused(tmp_path: Path) -> None:
    message = start_on('mount -t tmpfs -o nr_inodes=2 tmpfs "$0" && mkdir "$0/store"', tmp_path / "data", keys=KEY)
    assert message.startswith(f"DARKROOM_DATA: {tmp_path}/data cannot be written: No space left on device. Free room on its disk.")


@pytest.mark.long
def test_store_that_refuses_is_reported_by_health_with_a_remedy(data: Path) -> None:
    with moto_bucket() as bucket, started(data, store="s3://no-such-bucket", **bucket.environment) as server, server.client() as client:

        def report() -> dict[str, str]:
            with suppress(httpx.TransportError):
                response = client.get("/health")
                assert response.status_code == 503
                return dict(response.json())
            return {}

        wait_until(lambda: report().get("reason") == "The bucket of the store does not exist.")
        assert report()["remedy"].startswith("Create it")
        assert "Traceback" not in server.log()
