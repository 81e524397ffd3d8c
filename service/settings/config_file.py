"""The file of settings that `DARKROOM_CONFIG` names, in TOML.

A key is the name of an environment variable in lower case, without `DARKROOM_`:

    public_url = "https://img.example.com"
    widths = [320, 640, 1280]
    aws_region = "eu-north-1"

    [sources]
    shop = "s3://shop-pictures/public"

Each value is turned into the text that the variable would have, so that one parser reads both.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec.inspect import BoolType, DictType, FloatType, IntType, Type, VarTupleType, type_info

from service.errors import SettingsError
from service.files import read_regular_file
from service.settings import bucket_variables
from service.settings.help import HELP
from service.settings.sections import FIELDS, PREFIX

CONFIG = "DARKROOM_CONFIG"

# The variables of clouds that the server's own store or a bucket of a source may need.
CLOUD_VARIABLES = frozenset({"BUCKET_NAME", *(name for names in bucket_variables.VARIABLES.values() for name in names)})

# A larger file is not one of settings.
_MAX_FILE_BYTES = 1 << 20

# Units that people write, although the settings have none: the decimal ones of SI and the binary ones of IEC, and those of times.
_WITH_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)")
_SIZES = {
    **{f"{prefix}{unit}": 1_000**power for power, prefix in enumerate(("", "k", "M", "G", "T")) for unit in ("B", "P")},
    **{f"{prefix}iB": 1_024**power for power, prefix in enumerate(("K", "M", "G", "T"), 1)},
    **{prefix: 1_024**power for power, prefix in enumerate(("K", "M", "G", "T"), 1)},
}
_SECONDS = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}

# What joins the entries of an array in the text of a variable, if it is not a comma.
_ARRAY_JOINERS = {"DARKROOM_UNSIGNED": " "}

# What joins a key and its value in the text of a variable, and what joins such pairs.
_TABLE_JOINERS = {
    "DARKROOM_TOKENS": (":", ","),
    "DARKROOM_QUALITY": ("=", ","),
    "DARKROOM_VARIANTS": (": ", "; "),
    "DARKROOM_SOURCES": ("=", "; "),
}

# Settings that an empty array switches off, as this word does.
_NONE = {"DARKROOM_UNSIGNED": "none", "DARKROOM_WARM": "none"}


def key_of(variable: str) -> str:
    """Return the key of a variable in the file."""
    return variable.removeprefix(PREFIX).lower()


def variable_of(key: str) -> str:
    """Return the variable of a key in the file."""
    name = key.upper()
    cloud = name.removesuffix("_FILE") if name.removesuffix("_FILE") in bucket_variables.SECRETS else name
    return name if cloud in CLOUD_VARIABLES else PREFIX + name


def read_config_file(path: Path) -> dict[str, str]:
    """Return the texts of the variables that a file sets, also of those that do not exist; raises `SettingsError`."""
    # A server without such a file should start without the parser.
    import tomllib  # noqa: PLC0415

    try:
        content = read_regular_file(path, _MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise SettingsError.invalid(CONFIG, f"a file of at most {_MAX_FILE_BYTES} bytes", f"a larger one: {path}")
        values = _limited(tomllib.loads(content.decode("utf-8-sig")))
    except OSError as error:
        raise SettingsError(
            f"{CONFIG}: {path} cannot be read: {error.strerror}. Create it, readable by the server's user, or unset {CONFIG}."
        ) from error
    except (ValueError, RecursionError) as error:
        # Of bytes that are not UTF-8, of the parser, and of limits of Python: thousands of digits or of brackets.
        raise SettingsError.invalid(CONFIG, "a file in TOML", f"something else in {path}: {error}", "Correct the file.") from error
    for key in values:
        if variable_of(key) == CONFIG:
            raise SettingsError(f"{path}: {key} is for the environment: a file cannot name another one. Remove it.")
        if key != key.lower():
            raise SettingsError(f"{path}: {key} is not a setting of Darkroom. Did you mean {key.lower()}?")
    return {variable_of(key): _text(path, key, value) for key, value in values.items()}


def _limited(value: Any) -> Any:
    """Return a value of TOML; raises `ValueError` if no environment variable could have it, or if a number has more than 64 bits."""
    if isinstance(value, dict):
        return {_limited(key): _limited(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_limited(one) for one in value]
    if isinstance(value, str) and "\0" in value:
        raise ValueError("a text with the character U+0000")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        # TOML 1.0 asks for no more, and Python converts numbers of thousands of digits only with an exception.
        raise ValueError("a whole number of more than 64 bits")
    return value


def accepted_numbers(kind: Any) -> str:
    """Return in words which numbers a type of a setting accepts."""
    number = cast(IntType | FloatType, type_info(kind))
    noun = "a whole number" if isinstance(number, IntType) else "a number"
    if number.le is not None:
        return f"{noun} from {number.ge} to {number.le}"
    return f"{noun} greater than {number.gt:g}" if number.ge is None else f"{noun} of at least {number.ge}"


def advice(variable: str, text: str) -> str:
    """Return what to do about a value that cannot be used: how to write a number that has a unit, and the help for the variable."""
    help_text = HELP[variable].help if variable in HELP else ""
    match = _WITH_UNIT.fullmatch(text)
    units = _SECONDS if variable.endswith("_SECONDS") else _SIZES if variable.endswith(("_BYTES", "_PIXELS")) else {}
    if match is None or match[2] not in units:
        return help_text
    return f"Write {float(match[1]) * units[match[2]]:.15g}. {help_text}"


def _text(path: Path, key: str, value: Any) -> str:
    """Return the text that the variable of `key` has for a value of TOML; raises `SettingsError` for a value of another type."""
    variable = variable_of(key)
    field = FIELDS.get(variable)
    kind = type_info(str) if field is None else type_info(field.type)
    found = _converted(variable, kind, value)
    if found is None or (not found and value == [] and _has_a_default(variable)):
        # The name of a setting that does not exist is the more helpful error, and comes later.
        if field is None and variable.startswith(PREFIX) and not variable.startswith(bucket_variables.PREFIX):
            return ""
        # Lists and texts may be secrets.
        is_scalar = isinstance(kind, IntType | FloatType | BoolType) and isinstance(value, str | int | float)
        received = repr(value) if is_scalar else _type_name(value)
        remedy = advice(variable, value if isinstance(value, str) else "")
        raise SettingsError.invalid(f"{path}: {key}", _expected(kind, field), received, remedy)
    return found


def _converted(variable: str, kind: Type, value: Any) -> str | None:
    """Return a value of TOML as the text of a variable, `None` if its type is wrong."""
    found: str | None = None
    if isinstance(kind, VarTupleType):
        if isinstance(value, list) and (entries := _entries(value)) is not None:
            found = _ARRAY_JOINERS.get(variable, ",").join(entries) if value else _NONE.get(variable, "")
    elif isinstance(kind, DictType):
        assigned, separator = _TABLE_JOINERS[variable]
        if isinstance(value, dict) and (entries := _entries(list(value.values()))) is not None:
            found = separator.join(f"{name}{assigned}{entry}" for name, entry in zip(value, entries, strict=True))
    elif isinstance(value, bool):
        # The variables of clouds are not typed.
        found = str(value).lower() if isinstance(kind, BoolType) or variable in CLOUD_VARIABLES else None
    elif isinstance(kind, IntType | FloatType):
        found = str(value) if isinstance(value, int if isinstance(kind, IntType) else int | float) else None
    elif isinstance(value, str) and not isinstance(kind, BoolType):
        found = value
    return found


def _entries(values: list[Any]) -> list[str] | None:
    """Return the entries of an array as text, `None` if one of them is neither text nor a whole number."""
    valid = all(isinstance(entry, str | int) and not isinstance(entry, bool) for entry in values)
    return [str(entry) for entry in values] if valid else None


def _has_a_default(variable: str) -> bool:
    """Return whether a setting has a default that an empty array would not mean."""
    return variable in FIELDS and bool(FIELDS[variable].default)


def _expected(kind: Type, field: msgspec.structs.FieldInfo | None) -> str:
    if isinstance(kind, IntType | FloatType) and field is not None:
        return f"{accepted_numbers(field.type)}, without quotes or a unit"
    if isinstance(kind, BoolType):
        return "true or false, without quotes"
    if isinstance(kind, VarTupleType):
        return 'an array, such as ["one", "two"]'
    return 'a table, such as { name = "value" }' if isinstance(kind, DictType) else "text in quotes"


def _type_name(value: Any) -> str:
    names: dict[type, str] = {
        str: "text",
        int: "a number",
        float: "a number",
        bool: "true or false",
        list: "an array with other entries" if value else "an empty array",
        dict: "a table",
    }
    return names.get(type(value), "a date or a time")
