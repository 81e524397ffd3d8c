"""Releases: what their files contain, that each can be installed into an empty place, and the workflow that publishes them."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.release.build import Release, build, names
from tests.release.check import import_npm_package, install_sdist, serve_with_uvx

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/example/darkroom"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RELEASE: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8"))
JOBS: dict[str, Any] = RELEASE["jobs"]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return build(tmp_path_factory.mktemp("dist"), REPOSITORY)


def test_release_wheel_has_the_guides_and_the_files_of_the_pages(release: Release) -> None:
    with zipfile.ZipFile(release.wheel) as archive:
        found = {name for name in archive.namelist() if name.startswith(("service/docs/", "service/web/"))}
        for name in found:
            source = ROOT / name.removeprefix("service/") if name.startswith("service/docs/") else ROOT / name
            assert archive.read(name) == source.read_bytes()
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))).decode()
    guides = {f"service/docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    files = {file.relative_to(ROOT).as_posix() for file in (ROOT / "service" / "web").rglob("*") if file.is_file()}
    assert found == guides | files
    assert f"\nName: {names().pypi}\nVersion: {names().version}\n" in metadata
    # On the page of the index, links to files of the repository lead there.
    assert f"]({REPOSITORY}/raw/v{names().version}/docs/promises.md)" in metadata
    assert "](docs/" not in metadata


def test_release_npm_package_has_its_name_and_the_repository_that_provenance_requires(release: Release) -> None:
    with tarfile.open(fileobj=io.BytesIO(release.npm.read_bytes())) as tar:
        manifest = json.load(tar.extractfile("package/package.json") or io.BytesIO())
        files = {member.name for member in tar}
    assert (manifest["name"], manifest["version"]) == (names().npm, names().version)
    assert manifest["repository"] == {"type": "git", "url": f"git+{REPOSITORY}.git"}
    assert {"package/darkroom.js", "package/darkroom.d.ts", "package/frameworks/next.js"} <= files


def test_release_of_equal_files_has_equal_bytes(release: Release, tmp_path: Path) -> None:
    again = build(tmp_path, REPOSITORY)
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in release]


def test_service_does_not_look_itself_up_under_the_name_of_its_package() -> None:
    # The name is another one when it is published.
    sources = [path for folder in ("service", "edge") for path in (ROOT / folder).rglob("*.py")]
    assert [path for path in sources if re.search(r"(version|distribution|files)\(\"darkroom\"\)", path.read_text("utf-8"))] == []


def test_install_page_has_the_names_of_the_release() -> None:
    page = (ROOT / "docs" / "install.md").read_text("utf-8")
    release = names()
    assert f"uvx --from '{release.pypi}[heic,jxl]' darkroom serve" in page
    assert f"./dist/{release.pypi.replace('-', '_')}-{release.version}-py3-none-any.whl[heic,jxl]" in page
    assert f"/opt/darkroom/bin/pip install '{release.pypi}[heic,jxl]'" in page


def test_no_message_and_no_page_installs_a_package_of_another_name() -> None:
    # On PyPI, `darkroom` is somebody else's.
    sources = [
        path for folder in ("service", "docs") for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".md", ".html", ".txt"}
    ]
    installed = {
        (path.name, package)
        for path in [*sources, ROOT / "README.md", ROOT / "SECURITY.md"]
        for package in re.findall(r"(?:pip install|uvx --from|pipx install) (?:--\S+ )*'?(darkroom[\w-]*)", path.read_text("utf-8"))
    }
    assert len(installed) >= 5
    assert {package for _, package in installed} == {names().pypi}


# uv gets the dependencies from the package index.
@pytest.mark.long
def test_release_wheel_in_an_empty_environment_serves_a_picture(release: Release, tmp_path: Path) -> None:
    assert serve_with_uvx(release.wheel, tmp_path) == "image/jxl"


@pytest.mark.long
def test_release_sdist_in_an_empty_environment_builds_and_runs(release: Release, tmp_path: Path) -> None:
    assert install_sdist(release.sdist, tmp_path) == f"darkroom, version {names().version}"


@pytest.mark.long
def test_release_npm_package_in_an_empty_site_is_imported(release: Release, tmp_path: Path) -> None:
    assert import_npm_package(release.npm, names(), tmp_path) == f"imported as {names().npm}; imported as darkroom.js"


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflow_uses_actions_by_the_hash_of_a_commit(file: Path) -> None:
    used = re.findall(r"uses: (\S+)(?: # (\S+))?$", file.read_text("utf-8"), re.MULTILINE)
    assert used
    for action, version in used:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r"v\d+\.\d+\.\d+", version), action


def test_release_workflow_checks_everything_before_anything_is_published() -> None:
    assert RELEASE[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the key `on` as true.
    assert any(step.get("run") == "bash .ci/run" for step in JOBS["checks-and-tests"]["steps"])

    def required(job: str) -> set[str]:
        needs = JOBS[job].get("needs", [])
        return {one for need in ([needs] if isinstance(needs, str) else needs) for one in (need, *required(need))}

    assert all("checks-and-tests" in required(job) for job in JOBS if job != "checks-and-tests")
    # What cannot be taken back comes last.
    assert {"packages", "container", "image"} <= required("pypi") & required("npm")


def test_release_workflow_has_no_stored_secret_and_little_permission() -> None:
    assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8")
    assert RELEASE["permissions"] == {}
    writing = {name: {kind for kind, right in job["permissions"].items() if right == "write"} for name, job in JOBS.items()}
    assert writing == {
        "checks-and-tests": set(),
        "packages": {"id-token", "attestations"},
        "pypi": {"id-token"},
        "npm": {"id-token"},
        "container": {"packages"},
        "image": {"packages", "id-token", "attestations"},
        "github": {"contents"},
    }


def test_release_workflow_builds_the_container_for_both_architectures_with_sbom_and_provenance() -> None:
    steps = " ".join(step.get("run", "") for step in JOBS["container"]["steps"])
    assert "--sbom=true --provenance=mode=max" in steps
    assert {each["architecture"] for each in JOBS["container"]["strategy"]["matrix"]["include"]} == {"amd64", "arm64"}
