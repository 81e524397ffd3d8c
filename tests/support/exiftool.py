"""ExifTool, which reads metadata independently of everything that Darkroom uses (https://exiftool.org)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest


def read_metadata(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the metadata of files, in their order: `Group:Tag`, such as `XMP:Rights`, and the value. Skips the test without ExifTool."""
    executable = shutil.which("exiftool")
    if executable is None:
        pytest.skip("exiftool is not installed; install it with: apt-get install libimage-exiftool-perl")
    # -struct: structures are objects; -G: names with groups.
    found = subprocess.run(
        [executable, "-json", "-struct", "-G", "-charset", "iptc=UTF8", *map(str, paths)], capture_output=True, check=True
    )
    return list(json.loads(found.stdout))
