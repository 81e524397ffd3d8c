"""Sites as frontend developers make them, built with the real tools from npm and served as static files."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import find_program
from tests.support.server import HOST
from tests.support.threads import serving

SITES = Path(__file__).parent
WEB = SITES.parents[2] / "service" / "web"

# The oldest Node.js on which both Next.js 16 and Vite 8 run.
_OLDEST_NODE = (20, 19)
_NPM = ("--no-audit", "--no-fund", "--no-update-notifier", "--package-lock=false", "--ignore-scripts")
_ENVIRONMENT = {"NEXT_TELEMETRY_DISABLED": "1", "ASTRO_TELEMETRY_DISABLED": "1", "CI": "1", "NODE_ENV": "production"}


class BuildError(Exception):
    """A build failed; the text is the command and its output."""


@contextmanager
def site_folder(name: str) -> Iterator[Path]:
    """Yield a directory with the sources of a site and its installed packages, including darkroom.js from this checkout.

    The packages are installed once into the user's cache. Only one process uses a site's directory at a time; others wait.
    Skips the test if Node.js or npm is missing or too old.
    """
    node, npm = find_program("node"), find_program("npm")
    version = subprocess.run([node, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    if tuple(int(part) for part in version.removeprefix("v").split(".")[:2]) < _OLDEST_NODE:
        pytest.skip(f"Node.js {version} is too old for Next.js 16 and Vite 8, which need {'.'.join(map(str, _OLDEST_NODE))} or newer")
    requirements = (SITES / name / "package.json").read_bytes() + version.encode()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "darkroom-tests"
    folder = cache / f"{name}-{hashlib.sha256(requirements).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (cache / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for entry in folder.iterdir():
            if entry.name not in {"node_modules", ".installed"}:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        shutil.copytree(SITES / name, folder, dirs_exist_ok=True)
        if not (folder / ".installed").exists():
            shutil.rmtree(folder / "node_modules", ignore_errors=True)
            _run([npm, "install", "--include=dev", *_NPM], folder)
            (folder / ".installed").touch()
        _install_darkroom_js(npm, folder)
        yield folder


def _install_darkroom_js(npm: str, folder: Path) -> None:
    """Unpack the package of this checkout to where npm would install it, without a request to a registry."""
    (packed,) = json.loads(_run([npm, "pack", "--json", "--pack-destination", str(folder)], WEB))
    installed = folder / "node_modules" / "darkroom.js"
    shutil.rmtree(installed, ignore_errors=True)
    installed.mkdir()
    _run(["tar", "--extract", "--file", packed["filename"], "--strip-components", "1", "--directory", str(installed)], folder)
    (folder / packed["filename"]).unlink()


def build(name: str, manifest: dict[str, Any], *, output: str, into: Path) -> None:
    """Build a site with `manifest` as its images.json, and copy its folder `output` to `into`; raises `BuildError`."""
    with site_folder(name) as folder:
        (folder / "images.json").write_text(json.dumps(manifest), "utf-8")
        _run([find_program("npm"), "run", "build"], folder)
        shutil.copytree(folder / output, into)


def _run(command: list[str], folder: Path) -> str:
    result = subprocess.run(command, cwd=folder, env=os.environ | _ENVIRONMENT, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BuildError(f"{' '.join(command)}:\n{result.stdout}\n{result.stderr}")
    return result.stdout


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *words: Any) -> None:
        pass


@contextmanager
def serve_files(folder: Path) -> Iterator[str]:
    """Yield the URL of a server of a directory's files."""
    with serving(partial(_Handler, directory=folder)) as port:
        yield f"http://{HOST}:{port}"
