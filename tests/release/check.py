"""`python -m tests.release.check FOLDER`: installs each file of a release into an empty place, and uses it.

The wheel is run by `uvx` until it has served a picture, the source distribution is built and installed by uv, and the npm package is
installed into an empty site and imported. The dependencies come from the package index.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx

from tests.release.build import Names, Release, names
from tests.support.images import photo_jpeg
from tests.support.node import find_program
from tests.support.processes import running
from tests.support.server import HOST, free_port
from tests.support.upload import upload
from tests.support.waiting import PATIENCE_SECONDS, wait_until

# The dependencies are downloaded meanwhile.
INSTALL_SECONDS = 300.0

_UV = Path(sys.executable).parent / "uv"

_SITE = """
import {{ picture }} from "{name}";
import {{ loader }} from "{name}/next";
const renditions = [{{ width: 640, height: 480, url: "/i/a.webp" }}];
const sources = [{{ type: "image/webp", srcset: "/i/a.webp 640w", renditions }}];
const markup = picture({{ digest: "a".repeat(32), width: 640, height: 480, sources, src: "/i/a.webp" }});
if (!markup.includes("/i/a.webp 640w")) throw new Error(markup);
const url = loader({{ base: "https://img.example.com" }})({{ src: "a".repeat(32), width: 640 }});
if (!url.startsWith("https://img.example.com/i/")) throw new Error(url);
console.log("imported as {name}");
"""


def found(folder: Path) -> Release:
    """Return the files of a release in a folder; raises `ValueError` if it does not have each of them once."""
    (wheel,), (sdist,), (npm,) = (list(folder.absolute().glob(pattern)) for pattern in ("*.whl", "*.tar.gz", "*.tgz"))
    return Release(wheel, sdist, npm)


def empty_environment(home: Path) -> dict[str, str]:
    """Return an environment in which nothing is installed but Python and Node.js.

    home: an empty folder for everything that is downloaded and installed.
    """
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DARKROOM_", "FLY_", "PYTHON", "VIRTUAL_ENV", "XDG_", "UV_CACHE", "UV_TOOL"))
    }
    python = Path(sys.executable).resolve()
    return variables | {"HOME": str(home), "UV_PYTHON": str(python), "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}


def serve_with_uvx(wheel: Path, home: Path) -> str:
    """Run a server from a wheel as a newcomer would, and return the media type of the picture that it has served."""
    port = free_port()
    serve = ["darkroom", "serve", "--port", str(port), "--data", str(home / "data")]
    uvx: list[str | Path] = [_UV, "tool", "run", "--from", f"{wheel}[heic,jxl]"]
    with (
        (home / "log").open("wb") as log,
        running([*uvx, *serve], cwd=home, env=empty_environment(home), stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process,
        httpx.Client(base_url=f"http://{HOST}:{port}", timeout=PATIENCE_SECONDS, trust_env=False) as client,
    ):

        def is_healthy() -> bool:
            with suppress(httpx.TransportError):
                return client.get("/health").status_code == 200
            return False

        wait_until(lambda: process.poll() is not None or is_healthy(), seconds=INSTALL_SECONDS)
        if process.poll() is not None:
            raise RuntimeError(f"the server ended:\n{(home / 'log').read_text('utf-8')}")
        version = client.get("/health").json()["version"]
        if version != names().version:
            raise RuntimeError(f"the server says that it has version {version}")
        source = upload(client, photo_jpeg(1200, 800))["sources"][0]
        response = client.get(source["renditions"][0]["url"]).raise_for_status()
        if response.headers["content-type"] != source["type"]:
            raise RuntimeError(f"expected {source['type']}, got {response.headers['content-type']}")
        return str(response.headers["content-type"])


def install_sdist(sdist: Path, home: Path) -> str:
    """Build and run the command of a source distribution, and return the version that it reports."""
    return _output([_UV, "tool", "run", "--from", sdist, "darkroom", "--version"], home, empty_environment(home))


def import_npm_package(package: Path, release: Names, home: Path) -> str:
    """Install the npm package into an empty site, under its own name and as `darkroom.js`, and return what the site writes."""
    written = []
    for name in (release.npm, "darkroom.js"):
        site = home / name.replace("/", "-")
        site.mkdir(parents=True)
        (site / "package.json").write_text('{"type": "module", "private": true}', "utf-8")
        (site / "main.js").write_text(_SITE.format(name=name), "utf-8")
        options = ["--offline", "--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts", "--silent"]
        _output([find_program("npm"), "install", f"{name}@file:{package}", *options], site, os.environ)
        written.append(_output([find_program("node"), "main.js"], site, os.environ))
    return "; ".join(written)


def _output(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def main() -> None:
    """Check the three files in a folder, and write what each of them has done."""
    release = found(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as temporary:
        homes = {part: Path(temporary) / part for part in ("wheel", "npm")}
        for home in homes.values():
            home.mkdir()
        sys.stdout.write(f"{release.wheel.name}: uvx has served {serve_with_uvx(release.wheel, homes['wheel'])}\n")
        sys.stdout.write(f"{release.sdist.name}: {install_sdist(release.sdist, homes['wheel'])}\n")
        sys.stdout.write(f"{release.npm.name}: {import_npm_package(release.npm, names(), homes['npm'])}\n")


if __name__ == "__main__":
    main()
