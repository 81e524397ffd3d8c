"""What the processes of a server import before they serve: each module takes time at the start, and memory for ever."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tests.support.images import REPOSITORY
from tests.support.server import environment, free_port

# The most modules of each package. A new dependency needs a row, and a version that imports more a larger number, with a reason.
SERVER_BUDGET = {
    "litestar": 208,
    "service": 128,
    "granian": 21,
    "structlog": 19,
    "yaml": 1,
    "edge": 16,
    "anyio": 14,
    "click": 12,
    "msgspec": 12,
    "obstore": 5,
    "uvloop": 5,
    "multidict": 4,
    "sniffio": 3,
    "cachetools": 2,
    "greenlet": 2,
    "cython_runtime": 1,
    "multipart": 1,
    "typing_extensions": 1,
    # Only where it is installed, for traces.
    "opentelemetry": 4,
}
RENDER_BUDGET = {
    "service": 90,
    "PIL": 20,
    "pyvips": 17,
    "msgspec": 12,
    "pillow_heif": 12,
    "tinycss2": 10,
    "webencodings": 3,
    "typing_extensions": 1,
}

# Modules of the standard library that take long, and of which the start needs nothing.
SLOW = {"http.client", "pickletools", "sqlite3", "tarfile", "unittest", "urllib.request", "xml.sax", "zoneinfo"}
SLOW_FOR_RENDERS = SLOW | {"asyncio", "email", "multiprocessing", "ssl"}

# Everything until Granian would start its worker, and then what the worker does before it listens.
SERVER = """
import sys
before = set(sys.modules)
import json, os
from service.imports import quick_imports
with quick_imports():
    from service.cli.in_process import InProcessServer

def serve(self):
    import service.asgi
    service.asgi.build()
    print(json.dumps(sorted(sys.modules.keys() - before)), flush=True)
    os._exit(0)

InProcessServer.serve = serve
from service.cli.commands import main
main()
"""
SUPERVISOR = """
import sys
before = set(sys.modules)
import json, os, service.cli.main, service.cli.supervisor
os.fork = lambda: print(json.dumps(sorted(sys.modules.keys() - before)), flush=True) or os._exit(0)
service.cli.main.main()
"""
FORK_SERVER = """
import sys
before = set(sys.modules)
import json, service.worker.__main__
service.worker.__main__.warm_up.load_libraries()
print(json.dumps(sorted(sys.modules.keys() - before)))
"""


def imported(code: str, *arguments: str) -> set[str]:
    """Return the modules that a new interpreter has imported when it prints them."""
    command = [sys.executable, "-c", code, *arguments]
    output = subprocess.run(command, cwd=REPOSITORY, env=environment(), check=True, capture_output=True, text=True).stdout
    return set(json.loads(output.splitlines()[-1]))


def over_budget(modules: set[str], budget: Mapping[str, int]) -> dict[str, int]:
    """Return the number of imported modules of each package that has more than its budget; without a row it has none."""
    packages = (name.split(".")[0] for name in modules)
    numbers = Counter(package for package in packages if package not in sys.stdlib_module_names and not package.startswith("_"))
    return {package: number for package, number in numbers.items() if number > budget.get(package, 0)}


def test_server_imports_no_more_modules_than_its_budget_before_it_serves(tmp_path: Path) -> None:
    modules = imported(SERVER, "serve", "--data", str(tmp_path), "--port", str(free_port()))
    assert {"service.asgi", "litestar.app", "granian.server.mp"} <= modules
    assert over_budget(modules, SERVER_BUDGET) == {}
    assert modules & SLOW == set()


def test_supervisor_imports_only_the_standard_library_and_its_own_modules() -> None:
    modules = imported(SUPERVISOR, "serve")
    assert {name for name in modules if name.split(".")[0] not in sys.stdlib_module_names} == {
        "service",
        "service.cli",
        "service.cli.main",
        "service.cli.supervisor",
        "service.process",
    }
    assert modules & (SLOW_FOR_RENDERS | {"ctypes.util", "inspect", "logging", "subprocess"}) == set()


def test_fork_server_of_render_processes_imports_no_more_modules_than_its_budget() -> None:
    modules = imported(FORK_SERVER)
    assert {"service.worker.jobs", "pyvips"} <= modules
    assert over_budget(modules, RENDER_BUDGET) == {}
    assert modules & SLOW_FOR_RENDERS == set()


def test_packages_that_quick_imports_leaves_out_can_be_imported_afterwards() -> None:
    code = """
import gc, json, sys
from service.imports import quick_imports
with quick_imports():
    import structlog
    assert "rich.console" not in sys.modules
    assert not gc.isenabled()
import rich.console
assert gc.isenabled()
print(json.dumps(sorted(sys.modules)))
"""
    assert "rich.console" in imported(code)


def test_lazy_module_is_imported_by_the_first_use_of_an_attribute() -> None:
    code = """
import json, sys
from service.imports import quick_imports
with quick_imports():
    import yaml
assert "yaml.dumper" not in sys.modules
assert yaml.dump({"a": 1}) == "a: 1\\n"
from yaml import load
assert load is yaml.load is sys.modules["yaml"].load
print(json.dumps(sorted(sys.modules)))
"""
    assert "yaml.dumper" in imported(code)
