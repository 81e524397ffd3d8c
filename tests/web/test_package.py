"""darkroom.js as a package of npm: what is in it, and that it can be installed and imported without a registry."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

from tests.web.conftest import WEB, program

ROOT = WEB.parents[1]
PACKAGE: dict[str, Any] = json.loads((WEB / "package.json").read_text("utf-8"))

EXPORTS = ["MANIFEST_VERSION", "PIPELINE_VERSION", "image", "loader", "picture", "signer", "srcset", "transformer"]


def npm(folder: Path, *arguments: str) -> Any:
    """Return what an npm that asks no registry answers in JSON."""
    command = [program("npm"), *arguments, "--json", "--offline", "--no-audit", "--no-fund", "--no-update-notifier"]
    return json.loads(subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout)


def test_package_has_the_version_of_darkroom_and_no_dependency() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    # When this fails: the versions of pyproject.toml and service/web/package.json are raised together.
    assert PACKAGE["version"] == version
    assert not {"dependencies", "peerDependencies", "optionalDependencies", "scripts"} & set(PACKAGE)
    assert PACKAGE["sideEffects"] is False


def test_package_packed_holds_the_module_and_its_types_alone() -> None:
    (packed,) = npm(WEB, "pack", "--dry-run")
    assert {file["path"] for file in packed["files"]} == {"package.json", "darkroom.js", "darkroom.d.ts"}
    assert packed["name"] == PACKAGE["name"] == "darkroom.js"
    # A module for every page stays small.
    assert packed["size"] < 8_000


def test_package_installed_from_its_tarball_is_imported_by_its_name(tmp_path: Path) -> None:
    (packed,) = npm(WEB, "pack", "--pack-destination", str(tmp_path))
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    npm(tmp_path, "install", packed["filename"])
    assert [path.name for path in (tmp_path / "node_modules").iterdir() if not path.name.startswith(".")] == ["darkroom.js"]
    code = 'import * as darkroom from "darkroom.js"; console.log(JSON.stringify(Object.keys(darkroom)))'
    done = subprocess.run(
        [program("node"), "--input-type=module", "--eval", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert json.loads(done.stdout) == EXPORTS


def test_types_declare_what_the_module_exports() -> None:
    declared = re.findall(r"^export (?:const|function) (\w+)", (WEB / "darkroom.d.ts").read_text("utf-8"), re.MULTILINE)
    assert sorted(declared) == EXPORTS
