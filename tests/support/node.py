"""Node.js and npm in tests."""

from __future__ import annotations

import shutil

import pytest


def program(name: str) -> str:
    """Return the path of `node` or `npm`; skips, naming what is missing."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: apt-get install nodejs npm")
    return path
