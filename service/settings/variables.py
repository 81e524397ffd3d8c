"""The variables of this process as text, from three places: the environment, the file of settings, and files of secrets.

The environment goes before the file of settings. Each secret can be in a file of its own instead, as Docker, Kubernetes and systemd hand
secrets over: the variable with `_FILE` after its name has the path of the file, or the file has the name of the variable and is in the
folder that systemd names in `CREDENTIALS_DIRECTORY` (systemd.exec(5), LoadCredential=).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from service.errors import SettingsError
from service.settings import bucket_variables
from service.settings.config_file import CONFIG, key_of, read_config_file
from service.settings.secret_files import read_secret_file

FILE_SUFFIX = "_FILE"
CREDENTIALS = "CREDENTIALS_DIRECTORY"

Place: TypeAlias = Literal["environment", "file", "secret file"]

# Secrets whose files have a format of their own (`secret_files`): the server reads them itself, again when they change.
_LISTS = frozenset({"DARKROOM_KEYS", "DARKROOM_TOKENS"})

# Header fields with the key of whoever collects traces.
_TRACE_HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")

_SECRETS = frozenset({*_LISTS, "DARKROOM_TOKEN", "DARKROOM_CLOUDFLARE_TOKEN", *_TRACE_HEADERS, *bucket_variables.SECRETS})
_SOURCE_SECRETS = tuple(f"_{name}" for name in bucket_variables.SECRETS)


class Origin(msgspec.Struct, frozen=True):
    """Where the value of a variable is from. path: of the file, unless it is from the environment."""

    place: Place
    path: Path | None = None


class Variables(msgspec.Struct, frozen=True):
    """The variables of a process by name, as text, and where each of them is from. They contain secrets, so only names are shown."""

    texts: Mapping[str, str]
    origins: Mapping[str, Origin]

    def __repr__(self) -> str:
        return f"<Variables: {', '.join(self.texts)}>"

    def locate(self, variable: str, error: SettingsError) -> SettingsError:
        """Return an error in the value of a variable, with the file that the value is from."""
        origin = self.origins.get(variable)
        if origin is None or origin.place == "environment":
            return error
        where = f"{origin.path}: {key_of(variable)}" if origin.place == "file" else str(origin.path)
        return error.located(where)


def is_secret(variable: str) -> bool:
    """Return whether a variable is a secret, or a list of them."""
    return variable in _SECRETS or (variable.startswith(("DARKROOM_SOURCE_", "SOURCE_")) and variable.endswith(_SOURCE_SECRETS))


def read_variables(environ: Mapping[str, str]) -> Variables:
    """Return the variables from all three places; an empty one is the same as one that is not set. Raises `SettingsError`."""
    texts = {name: text for name, text in environ.items() if text}
    origins = {name: Origin("environment") for name in texts}
    if CONFIG in texts:
        path = Path(texts[CONFIG]).absolute()
        for variable, text in read_config_file(path).items():
            if not any(name in texts and origins[name].place == "environment" for name in _same_setting(variable)):
                texts[variable] = text
                origins[variable] = Origin("file", path)
    for secret, file in list(_secret_files(texts)):
        if secret in _LISTS:
            texts[secret + FILE_SUFFIX] = str(file)
            origins.setdefault(secret + FILE_SUFFIX, Origin("secret file", file.parent))
            continue
        if secret in texts:
            raise SettingsError(f"{secret} and {secret}{FILE_SUFFIX} are two places for the same secret. Set one of them.")
        texts[secret] = _read_secret(secret, file)
        origins[secret] = Origin("secret file", file)
    return Variables(texts, origins)


def read_secret(environ: Mapping[str, str], variable: str) -> str:
    """Return one secret from the environment or its file, "" if there is none; raises `SettingsError`."""
    return read_variables({name: environ[name] for name in (*_same_setting(variable), CREDENTIALS) if name in environ}).texts.get(
        variable, ""
    )


def _same_setting(variable: str) -> tuple[str, str]:
    """Return the two variables that set the same: one with the value, and one with the path of its file."""
    name = variable.removesuffix(FILE_SUFFIX)
    return (name, name + FILE_SUFFIX) if is_secret(name) else (variable, variable)


def _secret_files(texts: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Yield the secrets that are in files, each with its file."""
    named = {name.removesuffix(FILE_SUFFIX): Path(path) for name, path in texts.items() if name.endswith(FILE_SUFFIX)}
    yield from ((name, path) for name, path in named.items() if is_secret(name))
    if not texts.get(CREDENTIALS):
        return
    try:
        files = sorted(Path(texts[CREDENTIALS]).iterdir())
    except OSError as error:
        raise SettingsError(f"{CREDENTIALS}: {texts[CREDENTIALS]} cannot be read: {error.strerror}. systemd sets it; unset it.") from error
    yield from ((file.name, file) for file in files if is_secret(file.name) and not {file.name, file.name + FILE_SUFFIX} & texts.keys())


def _read_secret(secret: str, file: Path) -> str:
    text = read_secret_file(file, secret + FILE_SUFFIX).strip()
    if not text:
        raise SettingsError.invalid(secret + FILE_SUFFIX, "a file with the secret", f"an empty one: {file}")
    return text
