"""nginx accepts its configuration in docs/operation.md."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE_SECONDS

OPERATION = Path(__file__).parents[2] / "docs" / "operation.md"


def test_nginx_accepts_the_documented_configuration(tmp_path: Path) -> None:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    documented = re.search(r"```nginx\n(.*?)```", OPERATION.read_text("utf-8"), re.DOTALL)
    assert documented is not None
    file = tmp_path / "nginx.conf"
    file.write_text(f"pid {tmp_path}/pid;\nerror_log {tmp_path}/error.log;\nevents {{}}\nhttp {{\n{documented[1]}}}\n", "utf-8")
    checked = subprocess.run(
        [nginx, "-t", "-c", file, "-p", tmp_path], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert checked.returncode == 0, checked.stderr
