"""Node.js and npm in tests."""

from __future__ import annotations

import shutil

import pytest


def find_program(name: str) -> str:
    """Return the path of `node` or `npm`; skips the test if it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed; install it with: apt-get install nodejs npm")
    return path
