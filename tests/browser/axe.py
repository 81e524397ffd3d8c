"""axe-core, fetched once from npm into the user's cache, and what it finds on a page."""

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
    """Return the source of axe-core; skips, naming what is missing."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: apt-get install npm")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "darkroom-tests"
    folder = cache / f"axe-core-{_VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "node_modules" / "axe-core" / "axe.min.js"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not source.is_file():
            command = [npm, "install", "--prefix", str(folder), *_NPM_OPTIONS, f"axe-core@{_VERSION}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    return source.read_text("utf-8")


def violations(page: Page, source: str) -> list[str]:
    """Return what axe-core finds wrong on the page as it stands, one line for each rule: how bad, what, and where."""
    # Evaluated by the browser's own tools: the page's policy would refuse a script from elsewhere.
    page.evaluate(f"{source}; undefined")
    found: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['impact']}: {violation['help']}: "
        + "; ".join(f"{node['target']} {node['failureSummary']}" for node in violation["nodes"][:3])
        for violation in found["violations"]
    ]


def serious(found: list[str]) -> list[str]:
    """Return those that keep people out."""
    return [line for line in found if line.startswith(("serious", "critical"))]
