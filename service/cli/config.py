"""`darkroom config`: shows the effective settings, and where each of them is from."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import click
import msgspec

from service.cli import console
from service.settings.config_file import CLOUD_VARIABLES
from service.settings.environment import examine
from service.settings.help import HELP
from service.settings.sections import FIELDS, SECTIONS, Settings
from service.settings.variables import Variables, is_secret

Value: TypeAlias = str | int | float | bool | None

# Shown in place of a secret.
MASK = "***"

_USER_INFORMATION = re.compile(r"(?<=://)[^/@\s]*(?=@)")


class EffectiveSetting(msgspec.Struct, frozen=True):
    """A setting as a server would use it.

    value: a number, true or false, or the text that its variable has; `None` if it has none. Secrets are masked.
    origin: `default`; `derived default`, from the machine or another setting; `environment`; `file`, that of DARKROOM_CONFIG; or
    `secret file`.
    path: of the file.
    """

    value: Value
    origin: str
    path: str | None = None


@click.command(short_help="Show the effective settings, and where each is from.")
@click.option("--json", "as_json", is_flag=True, help="Print the settings as one JSON object.")
def config(*, as_json: bool) -> None:
    """Show the settings that a server would use here, and where each of them is from.

    A value is from the environment, from the file that DARKROOM_CONFIG names, from a file of a secret, or a default. Secrets are masked.
    The exit code is 0, or 2 if a server would not start with these settings; then every error is printed.
    """
    settings, variables, errors = examine(os.environ)
    if settings is None:
        for error in errors:
            click.echo(console.format_error(error), err=True)
        sys.exit(console.EXIT_FAILED)
    found = dict(effective_settings(settings, variables))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode({"settings": found}), indent=2))
        return
    name_width = max(map(len, found))
    origins = {name: setting.path or setting.origin for name, setting in found.items()}
    origin_width = max(map(len, origins.values()))
    for name, setting in found.items():
        click.echo(f"{name:<{name_width}}  {console.escape(origins[name]):<{origin_width}}  {console.escape(_shown(name, setting.value))}")


def effective_settings(settings: Settings, variables: Variables) -> Iterator[tuple[str, EffectiveSetting]]:
    """Yield every setting with its variable, and the variables of Fly and of clouds that are set."""
    for section, fields in SECTIONS.items():
        for field in fields:
            name = field.encode_name
            value = getattr(getattr(settings, section), field.name)
            if name not in variables.texts:
                if name in HELP:
                    origin = "default" if value == field.default or not value else "derived default"
                    yield name, EffectiveSetting(_format_default(name, value), origin)
                continue
            yield name, _set_value(name, value if isinstance(value, int | float) else variables.texts[name], variables)
    for name in sorted(variables.texts.keys() - FIELDS.keys()):
        if name in CLOUD_VARIABLES or name.startswith("DARKROOM_SOURCE_"):
            yield name, _set_value(name, variables.texts[name], variables)


def _set_value(name: str, value: str | float, variables: Variables) -> EffectiveSetting:
    origin = variables.origins[name]
    if is_secret(name):
        value = MASK
    elif isinstance(value, str):
        value = _USER_INFORMATION.sub(MASK, value)
    return EffectiveSetting(value, origin.place, None if origin.path is None else str(origin.path))


def _format_default(name: str, value: object) -> Value:
    """Return a default as its variable would have it, `None` for an empty one."""
    if isinstance(value, bool | int | float):
        return value if value or isinstance(value, bool) else None
    if isinstance(value, tuple):
        return (" " if name == "DARKROOM_UNSIGNED" else ",").join(map(str, value)) or None
    return str(value) if value and isinstance(value, str | Path) else None


def _shown(name: str, value: Value) -> str:
    if value is None:
        return (HELP[name].default or "none").replace("`", "")
    return (
        str(value).lower()
        if isinstance(value, bool)
        else " ".join(f"{value:g}".split() if isinstance(value, float) else str(value).split())
    )
