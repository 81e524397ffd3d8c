"""The contents of the npm package darkroom.js. tests/test_frameworks.py installs and imports it."""

from __future__ import annotations

import json
import subprocess
import tomllib
from typing import Any

from tests.support.node import find_program
from tests.web.conftest import WEB

ROOT = WEB.parents[1]
PACKAGE: dict[str, Any] = json.loads((WEB / "package.json").read_text("utf-8"))


def test_package_has_the_version_of_darkroom_and_no_dependency() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    # If this fails, raise the version in service/web/package.json to that in pyproject.toml.
    assert PACKAGE["version"] == version
    assert not {"dependencies", "peerDependencies", "optionalDependencies", "scripts"} & set(PACKAGE)
    assert PACKAGE["sideEffects"] is False


def test_package_when_packed_has_only_the_module_and_its_types() -> None:
    command = [find_program("npm"), "pack", "--dry-run", "--json", "--offline", "--no-update-notifier"]
    (packed,) = json.loads(subprocess.run(command, cwd=WEB, check=True, capture_output=True, text=True).stdout)
    assert {file["path"] for file in packed["files"]} == {"package.json", "darkroom.js", "darkroom.d.ts"}
    assert packed["name"] == PACKAGE["name"] == "darkroom.js"
    # The module is loaded by every page, so it stays small.
    assert packed["size"] < 8_000
