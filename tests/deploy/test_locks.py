"""The two lock files: requirements.lock for the container, and requirements-dev.lock, which adds the packages for tests and checks."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

# The requirements of the container: the dependencies, and the extras for photos of iPhones and for JPEG XL.
RUNTIME = [*PROJECT["dependencies"], *EXTRAS["heic"], *EXTRAS["jxl"]]
LOCKS = ["requirements.lock", "requirements-dev.lock"]


def entries(lock: str) -> list[str]:
    """Return the requirements of a lock, each on one line with its hashes."""
    text = re.sub(r"^\s*#.*\n?", "", (ROOT / lock).read_text(), flags=re.MULTILINE)
    return [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]


def pins(lock: str) -> dict[str, str]:
    """Return the version of each package in a lock; a package that is locked twice, for different platforms, has both versions."""
    found: dict[str, str] = {}
    for entry in entries(lock):
        requirement = Requirement(entry.split(" --hash=")[0])
        name = canonicalize_name(requirement.name)
        found[name] = f"{found[name]} {requirement.specifier}" if name in found else str(requirement.specifier)
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_every_entry_is_one_version_with_hashes(lock: str) -> None:
    assert entries(lock)
    for entry in entries(lock):
        assert re.fullmatch(r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==[^\s;]+( ; [^;]+?)?( --hash=sha256:[0-9a-f]{64})+", entry), entry


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_index_and_no_path(lock: str) -> None:
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host|(^|[\s=@])/\w", (ROOT / lock).read_text())


def test_lock_of_container_satisfies_pyproject() -> None:
    assert_satisfied(RUNTIME, "requirements.lock")


def test_lock_of_development_satisfies_pyproject_and_its_extras() -> None:
    extras = [requirement for extra in EXTRAS.values() for requirement in extra]
    assert_satisfied(PROJECT["dependencies"] + extras, "requirements-dev.lock")


def assert_satisfied(requirements: list[str], lock: str) -> None:
    """Fail if the lock does not satisfy the requirements, because it is older than pyproject.toml."""
    locked = pins(lock)
    for text in requirements:
        requirement = Requirement(text)
        versions = locked.get(canonicalize_name(requirement.name), "").replace("==", "").split()
        assert versions, f"{lock} lacks {text}; run `make lock`"
        assert all(requirement.specifier.contains(version) for version in versions), f"{lock} does not satisfy {text}; run `make lock`"


def test_lock_of_container_is_part_of_lock_of_development() -> None:
    development = pins("requirements-dev.lock")
    assert {name: development.get(name) for name in pins("requirements.lock")} == pins("requirements.lock")


def test_lock_of_container_has_no_packages_of_tests_and_checks() -> None:
    tools = {canonicalize_name(Requirement(text).name) for extra in ("test", "dev") for text in EXTRAS[extra]}
    runtime = {canonicalize_name(Requirement(text).name) for text in RUNTIME}
    # Litestar itself depends on httpx, and imagecodecs on NumPy.
    assert tools & pins("requirements.lock").keys() - runtime <= {"httpx", "numpy"}
