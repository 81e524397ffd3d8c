"""Who may import whom: as the files stand, as Python sees it, and as the linter holds it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EDGE = sorted((ROOT / "edge").rglob("*.py"))
SERVICE = sorted((ROOT / "service").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return the top-level packages that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found.add((node.module or "").split(".")[0])
    return found


def importers(paths: list[Path], package: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in paths if package in imported(path)}


def test_edge_imports_the_standard_library_and_cachetools_alone() -> None:
    assert len(EDGE) > 1
    for path in EDGE:
        assert imported(path) - sys.stdlib_module_names <= {"edge", "cachetools"}, path


def test_service_imports_edge_in_its_wiring_alone() -> None:
    assert importers(SERVICE, "edge") == {"service/asgi.py"}


def test_service_imports_pyvips_in_render_alone() -> None:
    found = importers(SERVICE, "pyvips")
    assert found
    assert all(path.startswith("service/worker/") for path in found)


def test_edge_in_a_fresh_process_loads_neither_service_nor_litestar_nor_pyvips() -> None:
    modules = ["edge", *(f"edge.{path.stem}" for path in EDGE if path.stem != "__init__")]
    code = f"import {', '.join(modules)}, json, sys; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    loaded = set(json.loads(output))
    assert set(modules) <= loaded
    assert not {name.split(".")[0] for name in loaded} & {"service", "litestar", "pyvips", "granian", "anyio"}


def reported(path: str, line: str) -> bool:
    """Return whether the linter reports a banned import when `line` stands in the file at `path`."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=json", f"--stdin-filename={path}", "-"]
    done = subprocess.run(command, cwd=ROOT, input=f"{line}\n", capture_output=True, text=True, check=False)
    # 1 says that there is something to report; anything above is a failure of the linter itself.
    assert done.returncode in {0, 1}, done.stderr
    return "TID251" in {finding["code"] for finding in json.loads(done.stdout)}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("edge/x.py", "import service"),
        ("edge/x.py", "import service.http.headers"),
        ("edge/x.py", "from service.http.headers import IMMUTABLE"),
        ("edge/x.py", "import litestar"),
        ("edge/x.py", "from litestar.types import Scope"),
        ("edge/x.py", "import pyvips"),
        ("edge/x.py", "def f():\n    import pyvips"),
        ("service/x.py", "import edge"),
        ("service/x.py", "from edge import Edge"),
        ("service/cli/main.py", "from edge import Edge"),
        ("service/x.py", "from edge.asgi import Scope"),
        ("service/x.py", "import pyvips"),
        ("service/http/routes/x.py", "import edge"),
        ("service/http/routes/x.py", "import pyvips"),
        ("service/worker/x.py", "import edge"),
        ("service/worker/x.py", "from edge.asgi import Scope"),
    ],
)
def test_linter_import_that_the_house_forbids_is_reported(path: str, line: str) -> None:
    assert reported(path, line)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("service/worker/x.py", "import pyvips"),
        ("service/asgi.py", "from edge import Edge"),
        ("service/x.py", "import litestar"),
        ("edge/x.py", "from cachetools import LRUCache"),
        ("tests/x.py", "import edge, service, pyvips"),
    ],
)
def test_linter_import_that_the_house_allows_is_not_reported(path: str, line: str) -> None:
    assert not reported(path, line)
