"""`python -m tests.release.build FOLDER [--repository URL]`: the wheel, the source distribution and the npm package of a release.

They get the names in `[tool.darkroom.release]` of pyproject.toml. Building needs no network.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from service.http.npm_package import npm_package

ROOT = Path(__file__).parents[2]

# What the source distribution consists of, beside pyproject.toml.
_FILES = ("README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md", "requirements.lock")
_FOLDERS = ("edge", "service")

# A link of the README to a file of the repository, in Markdown or in HTML.
_RELATIVE_LINK = re.compile(r'(\]\(|src=")(?!https?://|#)([^)"]+)')


class Names(NamedTuple):
    """The names and the version of a release."""

    pypi: str
    npm: str
    version: str


class Release(NamedTuple):
    """The files of a release."""

    wheel: Path
    sdist: Path
    npm: Path


def names() -> Names:
    """Return the names in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    release = project["tool"]["darkroom"]["release"]
    return Names(release["pypi"], release["npm"], project["project"]["version"])


def build(folder: Path, repository: str | None = None) -> Release:
    """Build a release into an empty folder and return its files.

    repository: the URL of the repository, to which the packages then link. npm requires it for the provenance of a package.

    Raises `subprocess.CalledProcessError` if a build fails.
    """
    release = names()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "source"
        _stage(source, release, repository)
        _hatch(source, "sdist", folder)
        (sdist,) = folder.glob("*.tar.gz")
        # From the source distribution, so that it is known to be complete.
        with tarfile.open(sdist) as archive:
            archive.extractall(temporary, filter="data")
        _hatch(Path(temporary) / sdist.name.removesuffix(".tar.gz"), "wheel", folder)
        (wheel,) = folder.glob("*.whl")
        npm = folder / f"{release.npm.removeprefix('@').replace('/', '-')}-{release.version}.tgz"
        npm.write_bytes(npm_package(_npm_folder(Path(temporary) / "npm", release, repository)))
    return Release(wheel, sdist, npm)


def _stage(source: Path, release: Names, repository: str | None) -> None:
    source.mkdir()
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert project.count('\nname = "darkroom"\n') == 1
    project = project.replace('\nname = "darkroom"\n', f'\nname = "{release.pypi}"\n')
    for name in _FILES:
        shutil.copyfile(ROOT / name, source / name)
    if repository is not None:
        project += f'\n[project.urls]\nRepository = "{repository}"\nChangelog = "{repository}/blob/v{release.version}/CHANGELOG.md"\n'
        readme = (source / "README.md").read_text("utf-8")
        (source / "README.md").write_text(_RELATIVE_LINK.sub(rf"\1{repository}/raw/v{release.version}/\2", readme), "utf-8")
    (source / "pyproject.toml").write_text(project, "utf-8")
    for folder in _FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "docs").mkdir()
    for page in (ROOT / "docs").glob("*.md"):
        shutil.copyfile(page, source / "docs" / page.name)


def _hatch(source: Path, target: str, folder: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder.absolute())]
    subprocess.run(command, cwd=source, check=True, stdout=subprocess.DEVNULL)


def _npm_folder(folder: Path, release: Names, repository: str | None) -> Path:
    shutil.copytree(ROOT / "service" / "web", folder)
    manifest: dict[str, Any] = json.loads((folder / "package.json").read_text("utf-8"))
    manifest["name"] = release.npm
    if repository is not None:
        manifest["repository"] = {"type": "git", "url": f"git+{repository}.git"}
    (folder / "package.json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    return folder


def main() -> None:
    """Build, and list the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the files are written; what is in it is removed")
    parser.add_argument("--repository", help="URL of the repository, without a slash at its end")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    for file in build(options.folder, options.repository):
        sys.stdout.write(f"{file} {file.stat().st_size}\n")


if __name__ == "__main__":
    main()
