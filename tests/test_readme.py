"""The README and the pages that it links to agree with the code: every setting with its default, every option, every command."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from service.cli.push import push
from service.settings.help import CLIENT_HELP, HELP
from tests.test_settings import FIELDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
SETTINGS, COMMAND_LINE, OPERATION = (
    (ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("settings", "command-line", "operation")
)

# Variables that Fly sets, not operators.
FLY = {"FLY_REGION", "FLY_MACHINE_ID", "PRIMARY_REGION"}


def settings_table() -> str:
    """Return the rows that document the settings."""
    defaults = {name: field.default for name, field in FIELDS.items()}
    rows = ["| variable | meaning | default |", "|---|---|---|"]
    for name, setting in HELP.items():
        default = (
            setting.default or f"`{defaults[name]:g}`" if isinstance(defaults[name], float) else setting.default or f"`{defaults[name]}`"
        )
        rows.append(f"| `{name}` | {setting.help} | {default} |")
    return "\n".join(rows)


def test_settings_page_documents_every_setting_with_its_default() -> None:
    assert set(HELP) == set(FIELDS) - FLY
    assert settings_table() in SETTINGS


def test_settings_page_documents_every_variable_of_the_commands() -> None:
    rows = [f"| `{name}` | {setting.help} | {setting.default} |" for name, setting in CLIENT_HELP.items()]
    assert "\n".join(["| variable | meaning | default |", "|---|---|---|", *rows, ""]) in SETTINGS


def test_command_line_page_documents_every_option_of_push_and_no_other() -> None:
    section = COMMAND_LINE.partition("## Push files and folders")[2].partition("\n## ")[0]
    options = {name for parameter in push.params for name in parameter.opts if name.startswith("--")}
    assert set(re.findall(r"--[a-z]+", section)) == options


def test_readme_commands_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"serve", "test"} <= set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)) <= targets
    assert (
        {"check", "test", "test-long", "fuzz", "bench"} <= set(re.findall(r"(?:^|`)make ([a-z-]+)", CONTRIBUTING, re.MULTILINE)) <= targets
    )
    assert {"setup", "serve", "test", "check", "bench"} <= targets


def test_readme_has_fewer_than_200_lines_and_its_links_have_existing_targets() -> None:
    assert len(README.splitlines()) < 200
    for page in (README, CONTRIBUTING):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page):
            assert (ROOT / target).exists(), target


def test_readme_pictures_exist() -> None:
    for path in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file()


def test_changelog_begins_with_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert first is not None
    assert first[1] == version
