"""The wheel has what the server serves."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


# pip gets the build backend from the package index.
@pytest.mark.long
def test_wheel_has_the_guides_and_the_files_of_the_pages(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.startswith(("service/docs/", "service/web/"))}
        for name in names:
            source = ROOT / name.removeprefix("service/") if name.startswith("service/docs/") else ROOT / name
            assert archive.read(name) == source.read_bytes()
    guides = {f"service/docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert names == guides | {f"service/web/{file.name}" for file in (ROOT / "service" / "web").iterdir()}
