"""darkroom.js as a package of npm: what is in it. That it installs and imports is in tests/test_frameworks.py."""

from __future__ import annotations

import json
import subprocess
import tomllib
from typing import Any

from tests.support.node import program
from tests.web.conftest import WEB

ROOT = WEB.parents[1]
PACKAGE: dict[str, Any] = json.loads((WEB / "package.json").read_text("utf-8"))


def test_package_has_the_version_of_darkroom_and_no_dependency() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    # When this fails: the versions of pyproject.toml and service/web/package.json are raised together.
    assert PACKAGE["version"] == version
    assert not {"dependencies", "peerDependencies", "optionalDependencies", "scripts"} & set(PACKAGE)
    assert PACKAGE["sideEffects"] is False


def test_package_packed_holds_the_module_and_its_types_alone() -> None:
    command = [program("npm"), "pack", "--dry-run", "--json", "--offline", "--no-update-notifier"]
    (packed,) = json.loads(subprocess.run(command, cwd=WEB, check=True, capture_output=True, text=True).stdout)
    assert {file["path"] for file in packed["files"]} == {"package.json", "darkroom.js", "darkroom.d.ts"}
    assert packed["name"] == PACKAGE["name"] == "darkroom.js"
    # A module for every page stays small.
    assert packed["size"] < 8_000
