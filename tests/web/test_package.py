"""The contents of the npm package darkroom.js. tests/test_frameworks.py installs and imports it, as every server has it."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

from service.http.npm_package import npm_package
from service.version import VERSION
from tests.support.node import find_program
from tests.web.conftest import WEB

ROOT = WEB.parents[1]
PACKAGE: dict[str, Any] = json.loads((WEB / "package.json").read_text("utf-8"))


def test_package_has_the_version_of_darkroom_and_no_dependency() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    # If this fails, raise the version in service/web/package.json and service/version.py to that in pyproject.toml.
    assert PACKAGE["version"] == VERSION == version
    assert not {"dependencies", "optionalDependencies", "scripts"} & set(PACKAGE)
    assert PACKAGE["peerDependenciesMeta"] == {name: {"optional": True} for name in PACKAGE["peerDependencies"]}
    assert PACKAGE["sideEffects"] is False


def test_package_when_packed_has_only_the_modules_and_their_types() -> None:
    command = [find_program("npm"), "pack", "--dry-run", "--json", "--offline", "--no-update-notifier"]
    (packed,) = json.loads(subprocess.run(command, cwd=WEB, check=True, capture_output=True, text=True).stdout)
    frameworks = {f"frameworks/{path.name}" for path in (WEB / "frameworks").iterdir()}
    assert {file["path"] for file in packed["files"]} == {"package.json", "darkroom.js", "darkroom.d.ts", *frameworks}
    assert packed["name"] == PACKAGE["name"] == "darkroom.js"


def test_package_that_servers_make_has_the_files_that_npm_packs(tmp_path: Path) -> None:
    command = [find_program("npm"), "pack", "--json", "--offline", "--no-update-notifier", "--pack-destination", str(tmp_path)]
    (packed,) = json.loads(subprocess.run(command, cwd=WEB, check=True, capture_output=True, text=True).stdout)
    expected = _files((tmp_path / packed["filename"]).read_bytes())
    assert _files(npm_package(WEB)) == expected
    assert {f"package/{file['path']}" for file in packed["files"]} == set(expected)


def test_package_of_equal_files_has_equal_bytes(tmp_path: Path) -> None:
    shutil.copytree(WEB, tmp_path / "web", copy_function=shutil.copyfile)
    assert npm_package(tmp_path / "web") == npm_package(WEB)


def test_package_of_a_folder_has_all_files_below_it(tmp_path: Path) -> None:
    for name in ("main.js", "frameworks/next.js", "frameworks/types/next.d.ts", "private.js"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"// {name}\n", "utf-8")
    (tmp_path / "package.json").write_text('{"files": ["main.js", "frameworks"]}', "utf-8")
    packed = {name: content.decode() for name, (_, content) in _files(npm_package(tmp_path)).items()}
    assert packed == {
        "package/package.json": '{"files": ["main.js", "frameworks"]}',
        "package/main.js": "// main.js\n",
        "package/frameworks/next.js": "// frameworks/next.js\n",
        "package/frameworks/types/next.d.ts": "// frameworks/types/next.d.ts\n",
    }


def test_package_exports_every_entry_with_its_types() -> None:
    exports = dict(PACKAGE["exports"])
    assert exports.pop("./package.json") == "./package.json"
    assert set(exports) == {".", "./astro", "./next", "./nuxt", "./nuxt/manifest", "./react", "./sign", "./svelte", "./unpic", "./vue"}
    for conditions in exports.values():
        # The first condition that matches is taken, so that of the types comes first, and the default last.
        assert next(iter(conditions)) == "types"
        assert next(reversed(conditions)) == "default"
        assert all((WEB / file).is_file() for file in conditions.values())


def _files(tarball: bytes) -> dict[str, tuple[int, bytes]]:
    """Return the mode and the content of each file."""
    with tarfile.open(fileobj=io.BytesIO(tarball)) as tar:
        return {member.name: (member.mode, (tar.extractfile(member) or io.BytesIO()).read()) for member in tar}
