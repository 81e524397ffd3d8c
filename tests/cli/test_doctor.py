"""`darkroom doctor` in broken set-ups, each with real parts: it names what is wrong, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import structlog
import trustme
from _pytest.mark import ParameterSet
from click.testing import CliRunner

from service.cli.commands import main
from service.rendering.floors import FLOORS, Floor
from tests.caches.running import CACHES, is_installed
from tests.deploy.test_nginx import in_front
from tests.faults.test_store_wakes import LIBRARIES
from tests.support import images
from tests.support.processes import running
from tests.support.s3 import Bucket, moto_bucket
from tests.support.s3_proxy import s3_proxy_of
from tests.support.server import DARKROOM, HOST, Server, darkroom, environment, free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

KEY = "00112233445566778899aabbccddeeff"
TOKEN = "a-token-of-22-letters_"
PUBLIC = {"public_url": "https://img.example.com", "keys": KEY, "tokens": TOKEN}

# Findings whose detail is the message of a refused start, remedy included.
WHOLE_MESSAGES = {"unusable-secret", "invalid-store", "unusable-folder", "port"}

Report = dict[str, Any]


def long(*values: object) -> ParameterSet:
    """Return parameters for which a test runs only in `make test-long`."""
    return pytest.param(*values, marks=pytest.mark.long)


def examine(*checks: str, **settings: object) -> Report:
    """Return what the command finds in this process, with `settings` as its only variables of Darkroom."""
    try:
        with patch.dict(os.environ, environment(**settings), clear=True):
            ended = CliRunner().invoke(main, ["doctor", *checks, "--json"])
    finally:
        # The command configures the log for its process, which is this one here.
        structlog.reset_defaults()
    return report_of(ended.exit_code, ended.stdout)


def examine_in_process(before: list[str | Path], *checks: str, **settings: object) -> Report:
    """Return what the command finds in a process of its own, which the command `before` starts."""
    command = [*before, DARKROOM, "doctor", *checks, "--json"]
    ended = subprocess.run(command, env=environment(**settings), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert ended.stderr == ""
    return report_of(ended.returncode, ended.stdout)


def report_of(exit_code: int, output: str) -> Report:
    found: Report = json.loads(output)
    assert exit_code == {"ok": 0, "warning": 1, "error": 2}[found["result"]]
    return found


def wrong(found: Report) -> set[str]:
    """Return the names of the warnings and errors, each of which says what to do."""
    findings = [finding for check in found["checks"].values() for finding in check if finding["severity"] in {"warning", "error"}]
    assert all(
        finding["remedy"] or finding["name"] in {"unknown-setting", "unusable-secret", "invalid-store", "unusable-folder"}
        for finding in findings
    )
    assert (found["result"] == "ok") is (findings == [])
    return {finding["name"] for finding in findings}


def finding_of(found: Report, name: str) -> dict[str, str]:
    (finding,) = [finding for check in found["checks"].values() for finding in check if finding["name"] == name]
    return dict(finding)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"max_pixel": 3, "port": "http"}, {"unknown-setting", "invalid-setting"}),
        ({"cache_bytes": "256MB"}, {"invalid-setting"}),
        ({"keys_file": "/no/such/file"}, {"unusable-secret"}),
        ({"public_url": "https://img.example.com", "keys": KEY}, {"no-token"}),
        ({"public_url": "https://img.example.com", "tokens": TOKEN}, {"development-key"}),
        ({**PUBLIC, "FLY_REGION": "lhr", "regions": "arn,iad", "store": "s3://bucket"}, {"region"}),
        (PUBLIC, set()),
    ],
)
def test_doctor_names_what_is_wrong_with_the_settings(tmp_path: Path, settings: dict[str, object], names: set[str]) -> None:
    found = examine("configuration", "keys", "regions", **{"data": tmp_path, **settings})
    assert wrong(found) == names
    assert list(tmp_path.iterdir()) == []


def test_doctor_of_settings_says_what_was_expected_and_found(tmp_path: Path) -> None:
    (tmp_path / "darkroom.toml").write_text('cache_bytes = "256MB"')
    finding = finding_of(examine("configuration", config=tmp_path / "darkroom.toml"), "invalid-setting")
    assert finding["detail"] == f"{tmp_path}/darkroom.toml: cache_bytes is invalid."
    assert (finding["expected"], finding["found"]) == ("a whole number of at least 1, without quotes or a unit", "'256MB'")
    finding = finding_of(examine("configuration", max_pixel=3), "unknown-setting")
    assert finding["detail"] == "DARKROOM_MAX_PIXEL is not a setting of Darkroom."
    assert (finding["expected"], finding["remedy"]) == ("DARKROOM_MAX_PIXELS", "Did you mean DARKROOM_MAX_PIXELS?")


def test_doctor_of_a_sound_folder_and_store_finds_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    found = examine("folders", "store", data=tmp_path / "data", store=tmp_path.as_uri(), keys=KEY)
    assert wrong(found) - {"volatile-folder"} == set()
    assert list(tmp_path.rglob("*")) == []


def test_doctor_of_a_store_that_does_not_last_names_it(tmp_path: Path) -> None:
    assert wrong(examine("store", data=tmp_path, store="memory://")) == {"volatile-store"}
    (tmp_path / "file").write_text("")
    assert wrong(examine("folders", data=tmp_path / "file")) == {"unusable-folder"}
    assert wrong(examine("store", store="ftp://x")) == {"invalid-store"}


@pytest.mark.parametrize(
    ("mount", "names"),
    [
        long('mount -t tmpfs -o ro tmpfs "$0"', {"read-only-folder"}),
        ('mount -t tmpfs -o size=64k tmpfs "$0" && mkdir "$0/store" && (cat /dev/zero > "$0/x" 2> /dev/null || true)', {"full-disk"}),
        long('mount -t tmpfs -o size=20m tmpfs "$0"', {"little-room", "volatile-folder"}),
    ],
)
def test_doctor_names_what_is_wrong_with_a_disk(tmp_path: Path, mount: str, names: set[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    before: list[str | Path] = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'{mount} && exec "$@"', data]
    possible = subprocess.run([*before, "true"], capture_output=True, check=False)
    if possible.returncode:
        pytest.skip(f"mounting a file system in a namespace of its own is not permitted here: {possible.stderr.decode()}")
    assert wrong(examine_in_process(before, "folders", "store", data=data)) == names


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with moto_bucket() as running_bucket:
        yield running_bucket


def error(status: int, code: str) -> tuple[int, str]:
    """Return the error of a store with a code of S3."""
    return status, f"<Error><Code>{code}</Code></Error>"


@pytest.mark.long
def test_doctor_names_how_a_bucket_refuses(bucket: Bucket) -> None:
    with s3_proxy_of(bucket) as proxy:
        settings: dict[str, Any] = {"store": f"s3://{bucket.name}", "keys": KEY, **proxy.environment}

        def failure(**changes: str) -> dict[str, str]:
            found = examine("store", **{**settings, **changes})
            assert wrong(found) == {"store-fails"}
            return finding_of(found, "store-fails")

        assert wrong(examine("store", **settings)) == set()
        assert bucket.objects() == []
        assert failure(store="s3://no-such-bucket")["detail"] == "The bucket of the store does not exist."
        proxy.error_for = lambda request: error(403, "AccessDenied") if request.method == "PUT" else None
        assert failure()["expected"] == "a store that lets this server put an object"
        proxy.error_for = lambda _: error(403, "SignatureDoesNotMatch")
        assert "AWS_SECRET_ACCESS_KEY" in failure()["remedy"]
        proxy.error_for = lambda _: error(403, "RequestTimeTooSkewed")
        assert "clock" in failure()["detail"]
        proxy.error_for = lambda request: error(507, "InsufficientStorage") if request.method == "PUT" else None
        assert wrong(examine("store", **settings)) == {"store-full"}
        proxy.refuse()
        assert failure()["detail"] == "The store cannot be reached."


@pytest.mark.long
def test_doctor_names_a_bucket_without_conditional_writes(bucket: Bucket) -> None:
    with s3_proxy_of(bucket) as proxy:
        puts = count()
        # It says that the second put succeeds.
        proxy.error_for = lambda request: (200, "") if request.method == "PUT" and next(puts) else None
        found = examine("store", store=f"s3://{bucket.name}", keys=KEY, **proxy.environment)
        assert wrong(found) == {"unconditional-store"}


def faketime(offset: str) -> dict[str, object]:
    """Return the variables of a process whose clock is wrong by an offset, such as `+1h`."""
    if not LIBRARIES:
        pytest.skip("libfaketime is not installed: apt-get install libfaketime")
    return {"LD_PRELOAD": LIBRARIES[0], "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@pytest.mark.long
@pytest.mark.parametrize(("offset", "found"), [("+1h", "3600 s ahead"), ("-40s", "40 s behind")])
def test_doctor_compares_the_clock_with_the_stores(bucket: Bucket, offset: str, found: str) -> None:
    report = examine_in_process([], "store", store=f"s3://{bucket.name}", keys=KEY, **bucket.environment, **faketime(offset))
    assert wrong(report) == {"clock"}
    seconds = int(finding_of(report, "clock")["found"].split()[0])
    assert abs(seconds - int(found.split(maxsplit=1)[0])) <= 2
    assert finding_of(report, "clock")["found"].endswith(found.rsplit(maxsplit=1)[-1])


def test_doctor_names_budgets_beyond_the_machines_limits() -> None:
    found = examine_in_process(["prlimit", "--nofile=520:520"], "machine", cache_bytes=10**14)
    assert wrong(found) == {"memory", "descriptors"}
    assert finding_of(found, "descriptors")["found"] == "520"
    assert finding_of(found, "memory")["severity"] == "error"


def test_doctor_lists_libraries_and_names_one_that_is_vulnerable() -> None:
    with patch.dict(FLOORS, {"libvips": Floor("99.0.0", "CVE-2099-0001", "an example")}):
        found = examine("codecs")
    assert wrong(found) - {"sandbox"} == {"vulnerable-library"}
    assert "CVE-2099-0001" in finding_of(found, "vulnerable-library")["detail"]
    assert "libheif" in finding_of(found, "codecs")["detail"]


@pytest.mark.long
def test_doctor_names_a_render_process_that_cannot_start() -> None:
    assert wrong(examine_in_process(["prlimit", "--as=300000000"], "codecs")) == {"render-process"}


class Deployment:
    """A server with an image, and the variables that it and the command have."""

    def __init__(self, server: Server, settings: dict[str, object]) -> None:
        self.server = server
        self.settings = settings

    def examine(self, *checks: str, **changes: object) -> Report:
        """Return what the command finds with the settings of the server and `changes`."""
        return examine(*checks, **{**self.settings, **changes})


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    data = tmp_path_factory.mktemp("deployment")
    settings: dict[str, object] = {"keys": KEY, "tokens": TOKEN}
    with darkroom(data, **settings) as server, server.client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        client.post("/v1/images", content=images.photo_jpeg(640, 480)).raise_for_status()
        yield Deployment(server, {**settings, "data": data, "port": server.port})


def test_doctor_of_a_running_server_reports_its_health(deployment: Deployment) -> None:
    assert wrong(deployment.examine("server", "front", public_url=deployment.server.url)) == set()
    assert finding_of(deployment.examine("server"), "server")["severity"] == "ok"
    assert finding_of(examine("server", port=free_port()), "server")["severity"] == "skipped"


def test_doctor_names_another_program_on_the_port() -> None:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        command = [
            "python3",
            "-c",
            f"import socket; s = socket.socket(fileno={listener.fileno()}); c, _ = s.accept(); c.recv(9); c.send(b'?\\n')",
        ]
        with running(command, pass_fds=[listener.fileno()]):
            assert wrong(examine("server", port=port)) == {"port-in-use"}


@contextmanager
def nginx_with(folder: Path, origin_port: int, directives: str, *, tls: str = "") -> Iterator[str]:
    """Yield the URL of an nginx in front of a port that has some directives for everything.

    tls: parameters of its socket, with TLS and the certificate and the key in `server.pem`; "" for plain HTTP.
    """
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    (folder / "nginx.conf").write_text(f"""
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; events {{}}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi; proxy_cache_path {folder}/cache keys_zone=zone:1m;
  server {{
    listen {HOST}:{port}{f" {tls}; ssl_certificate server.pem; ssl_certificate_key server.pem" if tls else ""};
    location / {{ proxy_pass http://{HOST}:{origin_port}; proxy_http_version 1.1; {directives} }}
  }}
}}
""")
    with running(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]):
        wait_until(lambda: _listens(port))
        yield f"{'https' if tls else 'http'}://{HOST}:{port}"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


@pytest.mark.parametrize(
    ("directives", "names"),
    [
        ("", set()),
        long("proxy_cache zone;", set()),
        ("proxy_hide_header CDN-Cache-Control;", {"cdn-cache-control"}),
        long("proxy_hide_header Cache-Control; add_header Cache-Control 'public, max-age=60';", {"front-cache-control"}),
        long(
            "gzip on; gzip_types image/webp; gzip_min_length 1; gzip_proxied any; gzip_vary on;",
            {"front-compressed", "front-etag-weak", "front-vary"},
        ),
        long("proxy_hide_header ETag;", {"front-etag"}),
        long("proxy_set_header If-None-Match '';", {"front-revalidation"}),
        long("proxy_set_header Range ''; max_ranges 0;", {"front-range"}),
        long("sub_filter_types image/webp; sub_filter WEBP WEBQ;", {"front-bytes", "front-etag"}),
        long("proxy_hide_header Content-Type; add_header Content-Type application/octet-stream;", {"front-content-type"}),
        long("add_header Vary Accept; add_header Set-Cookie a=b;", {"front-vary", "front-cookie"}),
        long("proxy_hide_header Access-Control-Allow-Origin; proxy_hide_header X-Content-Type-Options;", {"front-fields"}),
        ("proxy_cache zone; proxy_ignore_headers Cache-Control; proxy_cache_valid 200 1m;", {"stores-no-store"}),
        long("add_header CF-Ray 1-ARN; add_header CF-Cache-Status DYNAMIC;", {"no-cache", "cloudflare-not-purged"}),
        long("return 301 https://www.example.com/;", {"another-server"}),
        long("rewrite ^/i/(.*)$ /images/$1 break;", {"rendition-fails"}),
    ],
)
def test_doctor_names_what_a_proxy_in_front_does(deployment: Deployment, tmp_path: Path, directives: str, names: set[str]) -> None:
    with nginx_with(tmp_path, deployment.server.port, directives) as url:
        found = deployment.examine("front", public_url=url)
        assert wrong(found) == names
        if directives == "":
            assert finding_of(found, "no-cache")["severity"] == "note"
        # The server itself is not reached: what it sends is known anyway.
        assert wrong(deployment.examine("front", public_url=url, port=free_port())) == names


@pytest.mark.parametrize("name", ["nginx", long("Varnish"), long("Apache Traffic Server")])
def test_doctor_recognizes_a_cache_in_front(deployment: Deployment, tmp_path: Path, name: str) -> None:
    if not is_installed(name):
        pytest.skip(f"{name} is not installed")
    _, cache = CACHES[name]
    with cache(tmp_path, deployment.server.port) as port:
        found = deployment.examine("front", public_url=f"http://{HOST}:{port}")
    assert wrong(found) == set()
    assert finding_of(found, "cache")["severity"] == "ok"


def test_doctor_finds_nothing_wrong_with_the_nginx_of_a_deployment(deployment: Deployment, tmp_path: Path) -> None:
    with in_front(tmp_path / "nginx", deployment.server) as client:
        found = deployment.examine("front", public_url=str(client.base_url).rstrip("/"))
    assert wrong(found) == set()
    assert finding_of(found, "cache")["severity"] == "ok"


def test_doctor_names_a_front_that_cannot_be_reached_or_that_another_key_signs(deployment: Deployment) -> None:
    assert wrong(deployment.examine("front", public_url=f"http://{HOST}:{free_port()}")) == {"unreachable"}
    other_key = deployment.examine("store", "front", public_url=deployment.server.url, keys=KEY[::-1])
    assert wrong(other_key) - {"volatile-folder"} == {"foreign-key", "signature-refused"}


@pytest.mark.long
def test_doctor_names_a_certificate_that_is_not_valid_and_the_protocol_of_one_that_is(deployment: Deployment, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert(HOST)
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for parameters in ("ssl http2", "ssl"):
        with nginx_with(tmp_path, deployment.server.port, "", tls=parameters) as url:
            assert url.startswith("https:")
            refused = deployment.examine("front", public_url=url)
            assert wrong(refused) == {"unreachable"}
            assert "certificate" in finding_of(refused, "unreachable")["found"]
            trusted = deployment.examine("front", public_url=url, SSL_CERT_FILE=tmp_path / "ca.pem")
            assert wrong(trusted) == set()
            noted = {finding["name"] for finding in trusted["checks"]["front"] if finding["severity"] == "note"}
            assert ("http-version" in noted) is (parameters == "ssl")


@pytest.mark.long
def test_doctor_compares_the_clock_with_that_of_the_public_url(deployment: Deployment) -> None:
    report = examine_in_process([], "front", **deployment.settings, public_url=deployment.server.url, **faketime("+20m"))
    assert wrong(report) == {"clock"}
    assert finding_of(report, "clock")["found"].endswith(" s ahead")


def test_doctor_in_a_terminal_shows_each_finding_with_its_remedy() -> None:
    with patch.dict(os.environ, environment(public_url="https://img.example.com", keys=KEY), clear=True):
        ended = CliRunner().invoke(main, ["doctor", "keys"])
    structlog.reset_defaults()
    assert ended.exit_code == 2
    assert ended.stdout.splitlines() == [
        "keys",
        "  ok        1 signing key.",
        "  error     Anyone who reaches DARKROOM_PUBLIC_URL may upload images and take them down. [no-token]",
        "            expected  DARKROOM_TOKENS_FILE or DARKROOM_TOKENS",
        "            found     neither",
        "            remedy    `darkroom token NAME` makes a token and its line for the file.",
        "1 error, 0 warnings.",
    ]


def test_documentation_lists_every_warning_and_error_by_its_name() -> None:
    folder = Path(__file__).parents[2]
    page = (folder / "docs" / "command-line.md").read_text("utf-8").partition("<!-- findings")[2].partition("\n\n## ")[0]
    documented = {name for row in page.splitlines()[3:] for name in re.findall(r"`([a-z-]+)`", row.rpartition(" | ")[2])}
    code = "".join(path.read_text("utf-8") for path in (folder / "service" / "cli" / "doctor").glob("*.py"))
    # A note is nothing wrong, and a check that fails is a bug.
    others = {"check-failed", "formats", "http-version"}
    made = {*re.findall(r'\bFinding\(\s*"([a-z-]+)"', code), *re.findall(r'from_error\("([a-z-]+)"', code)}
    made |= {"vulnerable-library", "invalid-setting", *(f"front-{name}" for name in re.findall(r'_changed\(\s*"([a-z-]+)"', code))}
    assert documented == made - others
