"""`python -m tests.audit`: pip-audit over both lock files, and the C libraries in the wheels against `FLOORS`.

The exit status is 1 if something has a known vulnerability, and 2 if that could not be found out.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from service.rendering.floors import FLOORS, old_libraries
from service.worker.libraries import installed

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock")


def summarize(lock: str, report: dict[str, Any]) -> tuple[int, list[str]]:
    """Return the exit status and the lines that say what a report of pip-audit has found in a lock file."""
    packages = report["dependencies"]
    lines = [
        f"{lock}: {package['name']} {package['version']}: {problem['id']}, fixed in {', '.join(problem['fix_versions']) or 'no version'}"
        for package in packages
        for problem in package.get("vulns", [])
    ]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if unknown:
        # pip-audit itself succeeds if its service knows no package at all.
        lines.append(f"{lock}: NOT AUDITED: {len(unknown)} of {len(packages)} packages, which the service did not know")
    audited = len(packages) - len(unknown)
    lines.append(f"{lock}: {audited} packages audited, {sum(bool(package.get('vulns')) for package in packages)} with vulnerabilities")
    return (1 if any(package.get("vulns") for package in packages) else 2 if unknown else 0), lines


def worst(statuses: Iterable[int]) -> int:
    """Return the exit status of several: a vulnerability (1) is worse than one that could not be looked for (2)."""
    return min((status for status in statuses if status), default=0)


def _audit_packages() -> int:
    statuses = []
    for lock in LOCKS:
        command = [sys.executable, "-m", "pip_audit", "--requirement", lock, "--require-hashes", "--disable-pip"]
        done = subprocess.run(
            [*command, "--format", "json", "--progress-spinner", "off", "--desc", "off"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        try:
            status, lines = summarize(lock, msgspec.json.decode(done.stdout))
        except msgspec.DecodeError:
            reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
            status, lines = 2, [f"{lock}: NOT AUDITED, because pip-audit needs the network and could not use it: {reason}"]
        sys.stdout.write("\n".join(lines) + "\n")
        statuses.append(status)
    return worst(statuses)


def _audit_libraries() -> int:
    found = {finding.library: finding for finding in old_libraries(installed())}
    for library in installed():
        floor = FLOORS.get(library.name)
        verdict = "no floor" if floor is None else f"floor {floor.version} ({floor.cve}: {floor.about})"
        if library in found:
            verdict += ": TOO OLD" if found[library].certain else ": NOT KNOWN to be new enough: it does not state its version"
        sys.stdout.write(f"{library.wheel:<14} {library.name:<12} {'≥ ' if library.at_least else '  '}{library.version:<10} {verdict}\n")
    return 1 if any(finding.certain for finding in found.values()) else 2 if found else 0


def main() -> int:
    """Audit the packages and the libraries; the worse exit status of both."""
    return worst([_audit_packages(), _audit_libraries()])


if __name__ == "__main__":
    sys.exit(main())
