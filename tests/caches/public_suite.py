"""The public suite of tests for HTTP caches, https://github.com/http-tests/cache-tests, with `Edge` in front of its server.

The suite is not part of this project. Its user names a checkout in which `npm install` has been run:

    make test-caches CACHE_TESTS=/path/to/cache-tests

A result that differs from the stored ones, `public_suite.json`, is an error, also if it is better: `UPDATE=1` stores the new ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from tests.support.processes import running
from tests.support.server import HOST, free_port
from tests.support.waiting import wait_until

HERE = Path(__file__).parent
EXPECTED = HERE / "public_suite.json"

# The suite's own number of tests in flight. A test waits for 3 seconds where a response has to become stale.
_AT_ONCE = 25

PASSES = frozenset({"pass", "yes"})


class Verdict(msgspec.Struct, frozen=True):
    """The result of one test, in the suite's words.

    `kind` is `required` (by an RFC), `optimal` (a cache could do better) or `check` (a question without a right answer). `result` is
    `pass`, `fail`, `optional_fail`, `yes`, `no`, `dependency_fail` (a test that this one needs failed), `setup_fail` or `harness_fail`.
    """

    kind: str
    result: str
    detail: str = ""


Verdicts = Mapping[str, Verdict]


def differences(expected: Mapping[str, str], verdicts: Verdicts) -> list[str]:
    """Return the ids of tests whose result is not the expected one, and of tests that are in only one of both."""
    return sorted(name for name in expected.keys() | verdicts.keys() if name not in verdicts or verdicts[name].result != expected.get(name))


def passed(verdicts: Verdicts) -> dict[str, tuple[int, int]]:
    """Return by kind how many tests passed, and how many there are."""
    total = Counter(verdict.kind for verdict in verdicts.values())
    good = Counter(verdict.kind for verdict in verdicts.values() if verdict.result in PASSES)
    return {kind: (good[kind], total[kind]) for kind in ("required", "optimal", "check")}


def table(rows: Mapping[str, Verdicts]) -> str:
    """Return a table of how many tests each cache passes."""
    lines = [f"{'cache':<24} {'required':>10} {'optimal':>10} {'check: yes':>12}"]
    for name, verdicts in rows.items():
        cells = [f"{good} / {total}" for good, total in passed(verdicts).values()]
        lines.append(f"{name:<24} {cells[0]:>10} {cells[1]:>10} {cells[2]:>12}")
    return "\n".join(lines)


def run(checkout: Path, base_url: str, tests: Sequence[str] = (), at_once: int = _AT_ONCE) -> Verdicts:
    """Return the results of `tests`, or of the whole suite, for the cache at `base_url`."""
    return _node(checkout, "run", base_url, str(at_once), *tests)


def published(checkout: Path) -> dict[str, Verdicts]:
    """Return the results of other shared caches that the checkout has."""
    browsers = {"chrome", "firefox", "safari"}
    files = [path for path in sorted((checkout / "results").glob("*.json")) if path.stem not in browsers]
    return {path.stem: _node(checkout, "judge", str(path)) for path in files}


def _node(checkout: Path, *arguments: str) -> Verdicts:
    command = ["node", "--no-warnings", str(HERE / "public_suite.mjs"), str(checkout), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1_800, cwd=checkout)
    if done.returncode:
        raise RuntimeError(f"the suite's client ended with {done.returncode}:\n{done.stderr}")
    return msgspec.json.decode(done.stdout, type=dict[str, Verdict])


@contextmanager
def edge_in_front(checkout: Path) -> Iterator[str]:
    """Yield the URL of an `Edge` in front of the suite's server."""
    origin_port, port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        origin = {
            **os.environ,
            "npm_config_protocol": "http",
            "npm_config_port": str(origin_port),
            "npm_config_pidfile": str(Path(folder) / "server.pid"),
        }
        forwarder = {**os.environ, "ORIGIN_URL": f"http://localhost:{origin_port}"}
        granian = [
            str(Path(sys.executable).parent / "granian"), "--interface", "asgi", "--no-ws", "--http", "1", "--log-level", "warning",
            "--host", HOST, "--port", str(port), "tests.caches.forwarder:app",
        ]  # fmt: skip
        quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        with (
            running(["node", "test-engine/server/server.mjs"], cwd=checkout, env=origin, **quiet),
            running(granian, cwd=HERE.parents[1], env=forwarder, **quiet),
        ):
            url = f"http://{HOST}:{port}"
            wait_until(lambda: _is_responding(f"{url}/README.md"))
            yield url


def _is_responding(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, verify=False).status_code == 200
    except httpx.TransportError:
        return False


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def main() -> int:
    """Run the suite, print the figures, and return 1 if a result is not the expected one."""
    parser = argparse.ArgumentParser(prog="python -m tests.caches.public_suite", description="Run the public tests of HTTP caches on edge.")
    parser.add_argument("checkout", type=Path, help="a checkout of https://github.com/http-tests/cache-tests")
    parser.add_argument("--update", action="store_true", help="store the results as the expected ones")
    arguments = parser.parse_args()
    checkout = arguments.checkout.resolve()
    if not (checkout / "node_modules/undici").is_dir():
        parser.error(f"{checkout} is not a checkout of the suite in which `npm install` has been run")
    expected: dict[str, str] = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    with edge_in_front(checkout) as url:
        verdicts = dict(run(checkout, url))
        # A busy machine can be too slow for a test whose responses live for two seconds.
        if expected and (again := [name for name in differences(expected, verdicts) if name in verdicts]):
            second = run(checkout, url, again, at_once=1)
            verdicts.update({name: second[name] for name in again})
    _say(table({"edge": verdicts, **published(checkout)}))
    for name, verdict in verdicts.items():
        if verdict.kind != "check" and verdict.result not in PASSES:
            _say(f"{verdict.kind}: {name}: {verdict.result}: {verdict.detail}")
    if arguments.update:
        EXPECTED.write_text(json.dumps({name: verdict.result for name, verdict in sorted(verdicts.items())}, indent=1) + "\n")
        return 0
    changed = differences(expected, verdicts)
    for name in changed:
        now = verdicts.get(name)
        _say(f"CHANGED {name}: {expected.get(name, 'no such test')} → {f'{now.result}: {now.detail}' if now else 'no such test'}")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
