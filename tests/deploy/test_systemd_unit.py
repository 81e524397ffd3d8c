"""deploy/darkroom.service: what systemd says about it, and a real systemd that runs it."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from service.settings.help import HELP
from tests.support.images import photo_jpeg
from tests.support.server import HOST, free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "darkroom.service"
BOOT = Path(__file__).parent / "systemd_boot.sh"
CGROUPS = Path("/sys/fs/cgroup")
PACKAGES = Path(httpx.__file__).parents[1]


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed; on Debian it is part of the package systemd")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


def unit_settings() -> dict[str, list[str]]:
    """Return the values of each key of the unit, in their order."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text("utf-8").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_unit_is_accepted_by_systemd(tmp_path: Path) -> None:
    # The program is not installed here, and that is the only thing to complain about.
    installed = tmp_path / UNIT.name
    installed.write_text(UNIT.read_text("utf-8").replace("/opt/darkroom/bin/darkroom", "/bin/true"), "utf-8")
    verified = analyze("verify", "--man=no", installed)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def test_unit_exposes_at_most_2_0() -> None:
    assessed = analyze("security", "--offline=yes", "--threshold=20", UNIT)
    assert assessed.returncode == 0, assessed.stdout
    assert "Overall exposure level" in assessed.stdout + assessed.stderr


def test_unit_has_no_secret_and_only_settings_that_exist() -> None:
    variables = [pair.partition("=")[0] for line in unit_settings()["Environment"] for pair in line.split()]
    assert set(variables) - {"MALLOC_ARENA_MAX", "PYTHONUNBUFFERED"} <= HELP.keys()
    assert not {"DARKROOM_KEYS", "DARKROOM_TOKENS"} & set(variables)
    assert {"DARKROOM_KEYS_FILE", "DARKROOM_TOKENS_FILE"} <= set(variables)


@contextmanager
def booted(tmp_path: Path, token_line: str) -> Iterator[tuple[httpx.Client, int]]:
    """Yield a client of Darkroom under a systemd of its own, and the process id of that systemd."""
    configuration, root = tmp_path / "configuration", tmp_path / "root"
    configuration.mkdir(mode=0o700)
    root.mkdir()
    port = free_port()
    for name, text in {"keys": secrets.token_hex(32), "tokens": token_line, "environment": f"DARKROOM_PORT={port}\n"}.items():
        (configuration / name).write_text(text, "utf-8")
        (configuration / name).chmod(0o600)
    group = f"darkroom-test-{os.getpid()}"
    log = tmp_path / "boot.log"
    with log.open("wb") as output:
        process = subprocess.Popen([BOOT, root, PACKAGES, configuration, group], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    client = httpx.Client(base_url=f"http://{HOST}:{port}", timeout=PATIENCE_SECONDS, trust_env=False)
    try:
        with suppress(TimeoutError):
            wait_until(lambda: process.poll() is not None or _has_rendered(client))
        assert process.poll() is None, log.read_text("utf-8")
        # The only child of unshare is systemd.
        systemd = psutil.Process(process.pid).children()[0].pid
        assert _has_rendered(client), f"{log.read_text('utf-8')}\n{inside(systemd, 'journalctl', '--no-pager')}"
        yield client, systemd
    finally:
        client.close()
        # As their process 1 ends with it, so does everything else in the namespaces.
        process.kill()
        process.wait()
        wait_until(lambda: _remove_groups(group))


def _remove_groups(name: str) -> bool:
    """Return whether the control groups of that name are gone; those that still have a process cannot be removed."""
    for top in [*CGROUPS.glob(f"*/{name}"), *CGROUPS.glob(name)]:
        for folder in sorted((path for path in (top, *top.rglob("*")) if path.is_dir()), reverse=True):
            with suppress(OSError):
                folder.rmdir()
    return not [*CGROUPS.glob(f"*/{name}"), *CGROUPS.glob(name)]


def inside(systemd: int, *command: str) -> str:
    """Return the output of a command on the machine of that systemd."""
    enter = ["nsenter", "--target", str(systemd), "--mount", "--pid", "--cgroup", "--root", "--", *command]
    return subprocess.run(enter, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True).stdout


def obstacle() -> str | None:
    """Return why no systemd can be started here."""
    if os.geteuid() != 0:
        return "namespaces with a systemd in them need root"
    if not Path("/lib/systemd/systemd").exists():
        return "systemd is not installed"
    version = ["/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2])"]
    with suppress(OSError, subprocess.CalledProcessError):
        if subprocess.run(version, capture_output=True, text=True, check=True).stdout.split() != [*map(str, sys.version_info[:2])]:
            return "/usr/bin/python3 cannot use the packages of this Python, which has another version"
        folders = "lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work"
        trial = f"mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work /mnt/all && mount -t overlay -o {folders} overlay /mnt/all"
        subprocess.run(["unshare", "--mount", "--pid", "--fork", "--cgroup", "sh", "-c", trial], capture_output=True, check=True)
        group = (CGROUPS / "darkroom-trial") if (CGROUPS / "cgroup.controllers").exists() else (CGROUPS / "memory" / "darkroom-trial")
        group.mkdir()
        group.rmdir()
        return None
    return "this machine permits no mounts or no control groups"


@pytest.mark.long
def test_service_under_the_unit_renders_every_format_in_its_sandbox_and_stops_cleanly(tmp_path: Path) -> None:
    reason = obstacle()
    if reason is not None:
        pytest.skip(reason)
    token, line = new_token()
    with booted(tmp_path, line) as (client, systemd):
        assert client.get("/health").json()["status"] == "ok"
        sandbox = client.get("/health").json()["sandbox"]
        assert sandbox["landlock"] >= 1
        assert sandbox["seccomp"] is True
        assert client.post("/v1/images", content=photo_jpeg(1200, 800)).status_code == 401
        # In the worker: images are probed, and rendered by every codec.
        bearer = {"Authorization": f"Bearer {token}"}
        document = client.post("/v1/images", content=photo_jpeg(1200, 800), headers=bearer).raise_for_status().json()
        assert {source["type"] for source in document["sources"]} >= {"image/jxl", "image/avif", "image/webp"}
        for source in document["sources"]:
            response = client.get(source["renditions"][0]["url"])
            assert (response.status_code, response.headers["content-type"]) == (200, source["type"])
        svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 90 60"><text y="40" font-family="sans-serif">Text</text></svg>'
        drawn = client.post("/v1/images", content=svg, headers=bearer).raise_for_status().json()
        assert client.get(drawn["src"]).status_code == 200

        # The unit's limits are in force, and its secrets are nowhere but in the credentials.
        main = inside(systemd, "systemctl", "show", "darkroom", "--property=MainPID", "--value").strip()
        status = dict(part.split(":\t", 1) for part in inside(systemd, "cat", f"/proc/{main}/status").splitlines() if ":\t" in part)
        assert int(status["Uid"].split()[0]) > 1000
        assert (status["CapBnd"].strip("0"), status["NoNewPrivs"], status["Seccomp"]) == ("", "1", "2")
        assert inside(systemd, "systemctl", "show", "darkroom", "--property=MemoryMax", "--value").strip() == str(1536 * 1024 * 1024)
        assert token not in inside(systemd, "cat", f"/proc/{main}/environ")
        # A reload is SIGHUP: the same process serves on.
        inside(systemd, "systemctl", "reload", "darkroom")
        assert client.get(drawn["src"]).headers["cache-status"].startswith("darkroom; hit")
        assert inside(systemd, "systemctl", "show", "darkroom", "--property=MainPID", "--value").strip() == main

        inside(systemd, "systemctl", "restart", "darkroom")
        wait_until(lambda: _status(client) == 200)
        assert client.get(drawn["src"]).headers["server-timing"].startswith("tier;desc=store")
        inside(systemd, "systemctl", "stop", "darkroom")
        assert inside(systemd, "systemctl", "show", "darkroom", "--property=Result", "--property=ExecMainStatus").split() == [
            "Result=success",
            "ExecMainStatus=0",
        ]
        assert "Traceback" not in inside(systemd, "journalctl", "--no-pager", "--unit", "darkroom")


def _has_rendered(client: httpx.Client) -> bool:
    """Return whether the server is up and its first render process has reported its sandbox."""
    with suppress(httpx.TransportError):
        return client.get("/health").json().get("sandbox") is not None
    return False


def _status(client: httpx.Client) -> int:
    with suppress(httpx.TransportError):
        return client.get("/health").status_code
    return 0


def new_token() -> tuple[str, str]:
    """Return a new token, and its line for DARKROOM_TOKENS_FILE."""
    made = subprocess.run([Path(sys.executable).parent / "darkroom", "token", "owner"], capture_output=True, text=True, check=True)
    return made.stderr.split()[-1], made.stdout
