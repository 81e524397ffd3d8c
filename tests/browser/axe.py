"""axe-core, which is installed once from npm into the user's cache, and the violations that it finds on a page."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

_VERSION = "4.14.1"
_NPM_OPTIONS = ("--no-audit", "--no-fund", "--no-update-notifier", "--no-save", "--ignore-scripts")


def axe_source() -> str:
    """Return the source of axe-core; skips the test if npm is not installed."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed; install it with: apt-get install npm")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "darkroom-tests"
    folder = cache / f"axe-core-{_VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "node_modules" / "axe-core" / "axe.min.js"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not source.is_file():
            command = [npm, "install", "--prefix", str(folder), *_NPM_OPTIONS, f"axe-core@{_VERSION}"]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stderr
    return source.read_text("utf-8")


def violations(page: Page, source: str) -> list[str]:
    """Return the violations that axe-core finds on the page in its current state, one line for each rule: its impact, help and elements."""
    # Evaluated through the browser's developer tools, because the page's Content-Security-Policy refuses other scripts.
    page.evaluate(f"{source}; undefined")
    found: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['impact']}: {violation['help']}: "
        + "; ".join(f"{node['target']} {node['failureSummary']}" for node in violation["nodes"][:3])
        for violation in found["violations"]
    ]


def serious_violations(found: list[str]) -> list[str]:
    """Return the violations whose impact is serious or critical."""
    return [line for line in found if line.startswith(("serious", "critical"))]
