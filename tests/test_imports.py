"""Who may import whom: in the files themselves, in a running Python, and by the rules of the linter."""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EDGE = sorted((ROOT / "edge").rglob("*.py"))
SERVICE = sorted((ROOT / "service").rglob("*.py"))
CODECS = {"pyvips", "pillow_heif"}

# The layers of `service`, the uppermost first. A module imports from its own room and from the layers below; rooms of one layer do not
# import each other, except for images and urls, and for rendering and storage, which are written to be used together.
LAYERS = (
    ("asgi", "cli"),
    ("http",),
    ("ops",),
    ("sources",),
    ("library",),
    ("storage", "rendering"),
    ("settings",),
    ("images", "urls"),
    ("instruments",),
    ("errors", "concurrency", "files", "imports", "process", "version"),
)
# `worker` stands beside them, in a process of its own: the rooms and modules that it shares with the server.
SHARED_WITH_WORKER = ("service.images", "service.urls", "service.errors", "service.process", "service.rendering.protocol")


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Return the dotted names that a file imports anywhere in it; of `from package import name`, both with and without the name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def top_level_imports(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def importers(paths: list[Path], package: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in paths if package in top_level_imports(path)}


def room(name: str) -> str:
    """Return the room of a dotted name of `service`, or of a path in it."""
    return name.replace("/", ".").removesuffix(".py").split(".")[1]


def layer(name: str) -> int:
    """Return how far below the top a room lies."""
    return next(depth for depth, rooms in enumerate(LAYERS) if name in rooms)


def test_edge_imports_only_the_standard_library_and_cachetools() -> None:
    assert len(EDGE) > 1
    for path in EDGE:
        assert top_level_imports(path) - sys.stdlib_module_names <= {"edge", "cachetools"}, path


def test_edge_is_imported_only_by_the_wiring() -> None:
    assert importers(SERVICE, "edge") == {"service/asgi.py"}


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_codec_is_imported_only_by_the_worker(codec: str) -> None:
    found = importers(SERVICE, codec)
    assert found
    assert all(path.startswith("service/worker/") for path in found)


@pytest.mark.parametrize("path", [path for path in SERVICE if path.parent != ROOT / "service" or path.stem != "__init__"], ids=str)
def test_module_imports_only_from_its_own_layer_and_the_layers_below(path: Path) -> None:
    own = room(path.relative_to(ROOT).as_posix())
    for name in imports(path):
        if not name.startswith("service.") or room(name) == own:
            continue
        if own == "worker":
            assert name.startswith(SHARED_WITH_WORKER), f"{path} imports {name}"
        else:
            assert room(name) != "worker", f"{path} imports {name}"
            assert layer(room(name)) >= layer(own), f"{path} imports {name}"


def test_edge_in_a_fresh_process_loads_neither_service_nor_litestar_nor_pyvips() -> None:
    modules = ["edge", *(f"edge.{path.stem}" for path in EDGE if path.stem != "__init__")]
    code = f"import {', '.join(modules)}, json, sys; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    loaded = set(json.loads(output))
    assert set(modules) <= loaded
    assert not {name.split(".")[0] for name in loaded} & {"service", "litestar", "pyvips", "granian", "anyio"}


def reported(path: str, line: str) -> bool:
    """Return whether the linter reports a banned import for `line` in a file at `path`."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=json", f"--stdin-filename={path}", "-"]
    done = subprocess.run(command, cwd=ROOT, input=f"{line}\n", capture_output=True, text=True, check=False)
    # 1 means that there are findings; anything above is a failure of the linter itself.
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
        ("service/x.py", "import pillow_heif"),
        ("service/http/routes/x.py", "import edge"),
        ("service/http/routes/x.py", "import pyvips"),
        ("service/http/x.py", "from service.worker import memory"),
        ("service/ops/maintenance/x.py", "import service.http.app"),
        ("service/sources/x.py", "from service.ops import health"),
        ("service/library/x.py", "from service.sources.fetcher import SourceFetcher"),
        ("service/storage/x.py", "from service.library.renditions import Renditions"),
        ("service/rendering/x.py", "import service.worker"),
        ("service/rendering/x.py", "import pillow_heif"),
        ("service/images/x.py", "from service.settings import Settings"),
        ("service/urls/x.py", "from service.storage import keys"),
        ("service/concurrency/x.py", "from service.images import formats"),
        ("service/worker/x.py", "import edge"),
        ("service/worker/x.py", "from edge.asgi import Scope"),
        ("service/worker/x.py", "from service.library.renditions import Renditions"),
        ("service/worker/formats/x.py", "from service.storage import keys"),
    ],
)
def test_linter_reports_an_import_that_the_layers_forbid(path: str, line: str) -> None:
    assert reported(path, line)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("service/worker/x.py", "import pyvips"),
        ("service/worker/formats/x.py", "import pillow_heif"),
        ("service/worker/x.py", "from service.rendering.protocol import Job"),
        ("service/asgi.py", "from edge import Edge"),
        ("service/x.py", "import litestar"),
        ("service/http/routes/x.py", "from service.library.renditions import Renditions"),
        ("service/ops/x.py", "from service.sources.sources import SourceMapping"),
        ("service/library/x.py", "from service.rendering.pool import RenderPool"),
        ("edge/x.py", "from cachetools import LRUCache"),
        ("tests/x.py", "import edge, service, pyvips"),
    ],
)
def test_linter_accepts_an_import_that_the_layers_allow(path: str, line: str) -> None:
    assert not reported(path, line)
