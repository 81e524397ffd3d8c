"""`load` reads the settings from environment variables, each one parsed once, and checks them one by one and together."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import msgspec
from msgspec.inspect import FloatType, IntType, type_info
from msgspec.structs import FieldInfo

from service.errors import BadTransformError, SettingsError
from service.images import transform
from service.images.ladder import LADDER_WIDTHS
from service.images.transform import Transform
from service.settings.help import CLIENT_HELP, HELP
from service.settings.sections import (
    ANY_ORIGIN,
    MEBIBYTE,
    OPEN_LADDER,
    PREFIX,
    SCOPES,
    WARM_FORMATS,
    Scope,
    Settings,
    WarmFormat,
    available_cores,
    store_in,
)
from service.settings.signing_key import parse_key

# A smaller quota could hardly hold the renditions of a single image.
MIN_RENDITIONS_BYTES = 16 * MEBIBYTE

# The widths of a ladder, which bound the renditions that strangers can request of an image. No screen shows more pixels than 4K.
MAX_LADDER_WIDTHS = 16
MAX_LADDER_WIDTH = 3_840

# On Fly, clients that wait for a render must leave room for hits below the concurrency limit of 25 in fly.toml.
MAX_COLD_REQUESTS_ON_FLY = 12

_VARIANT = re.compile(r"\s*([a-z][a-z0-9_-]{0,63})\s*:\s*(\S+)\s*")
_WIDTH = re.compile(r"[1-9][0-9]{0,3}")
_TOKEN = re.compile(r"[A-Za-z0-9._~/=-]{16,}")
_PUBLIC_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?")
# An origin as browsers write it in `Origin` (RFC 6454 §6.2), for the schemes of pages.
_ORIGIN = re.compile(r"(https?)://([a-z0-9]([a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(:([1-9][0-9]{0,4}))?")
_MAX_PORT = 65_535
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_REGION = re.compile(r"[a-z][a-z0-9-]{2,31}")
_MACHINE = re.compile(r"[A-Za-z0-9_-]{1,64}")

_SECTIONS: Mapping[str, tuple[FieldInfo, ...]] = {
    section.name: msgspec.structs.fields(section.type) for section in msgspec.structs.fields(Settings)
}
_FIELDS: Mapping[str, FieldInfo] = {field.encode_name: field for fields in _SECTIONS.values() for field in fields}


def load(environ: Mapping[str, str]) -> Settings:
    """Return the settings in `environ`; an empty variable is the same as one that is not set.

    Raises `SettingsError` for a value that cannot be used and for a `DARKROOM_` variable that does not exist.
    """
    _refuse_unknown_variables(environ)
    values = {variable: _parse(variable, text) for variable in _FIELDS if (text := environ.get(variable))}
    _set_defaults(values)
    settings = msgspec.convert(
        {
            section: {field.encode_name: values[field.encode_name] for field in fields if field.encode_name in values}
            for section, fields in _SECTIONS.items()
        },
        Settings,
        builtin_types=(bytes,),
    )
    _check(settings)
    return settings


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    for name in environ:
        if name.startswith(PREFIX) and name not in _FIELDS and name not in CLIENT_HELP:
            similar = difflib.get_close_matches(name.removeprefix(PREFIX), (known.removeprefix(PREFIX) for known in HELP), 1)
            remedy = f"Did you mean {PREFIX}{similar[0]}?" if similar else "Remove it."
            raise SettingsError(f"{name} is not a setting of Darkroom. {remedy}")


def _parse(variable: str, text: str) -> Any:
    if variable in _PARSERS:
        return _PARSERS[variable](text)
    kind = _FIELDS[variable].type
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError.invalid(variable, _range(kind), repr(text), HELP[variable].help) from error


def _range(kind: Any) -> str:
    """Return in words which numbers a type accepts."""
    number = cast(IntType | FloatType, type_info(kind))
    noun = "a whole number" if isinstance(number, IntType) else "a number"
    if number.le is not None:
        return f"{noun} from {number.ge} to {number.le}"
    return f"{noun} greater than {number.gt:g}" if number.ge is None else f"{noun} of at least {number.ge}"


def _set_defaults(values: dict[str, Any]) -> None:
    """Set the defaults that depend on the machine or on another setting."""
    if "DARKROOM_DATA" in values and "DARKROOM_STORE" not in values:
        values["DARKROOM_STORE"] = store_in(values["DARKROOM_DATA"])
    if not values.get("DARKROOM_RENDER_PROCESSES"):
        values["DARKROOM_RENDER_PROCESSES"] = available_cores()
    if not values.get("DARKROOM_MAX_COLD_REQUESTS"):
        values.pop("DARKROOM_MAX_COLD_REQUESTS", None)
        if "FLY_MACHINE_ID" in values:
            values["DARKROOM_MAX_COLD_REQUESTS"] = MAX_COLD_REQUESTS_ON_FLY


def _public_url(text: str) -> str:
    if _PUBLIC_URL.fullmatch(text) is None:
        raise SettingsError.invalid(
            "DARKROOM_PUBLIC_URL", "http:// or https://, a host, and no slash at the end, such as https://img.example.com", repr(text)
        )
    return text


def _cors_origins(text: str) -> tuple[str, ...]:
    origins = _words(text)
    if origins == (ANY_ORIGIN,):
        return origins
    for origin in origins:
        match = _ORIGIN.fullmatch(origin)
        if match is None or match[5] == _DEFAULT_PORTS[match[1]] or int(match[5] or 0) > _MAX_PORT:
            raise SettingsError.invalid(
                "DARKROOM_CORS_ORIGINS",
                "* without other entries, or origins as browsers write them: http:// or https://, the host in lower case, a port that is "
                "not the default one, and nothing after it, such as https://www.example.com or http://localhost:3000",
                repr(origin),
            )
    return origins


def _signing_keys(text: str) -> tuple[bytes, ...]:
    keys = []
    for entry in _entries(text):
        key = parse_key(entry)
        if key is None:
            raise SettingsError.invalid(
                "DARKROOM_KEYS",
                "an even number of hexadecimal digits, at least 32, for each key",
                f"a key of {len(entry)} characters",
                "Create one with `openssl rand -hex 32`.",
            )
        keys.append(key)
    return tuple(keys)


def _tokens(text: str) -> Mapping[str, frozenset[Scope]]:
    return dict(_token(entry) for entry in _entries(text))


def _token(entry: str) -> tuple[str, frozenset[Scope]]:
    token, colon, names = entry.partition(":")
    scopes = frozenset(scope for scope in SCOPES if not colon or scope in names.split("+"))
    unknown = set(names.split("+")) - set(SCOPES) if colon else set()
    if _TOKEN.fullmatch(token) is None or unknown:
        raise SettingsError.invalid(
            "DARKROOM_TOKENS",
            f"token:scope+scope, the token at least 16 of A-Z a-z 0-9 . _ ~ / = -, the scopes {', '.join(SCOPES)}",
            f"the unknown scope {', '.join(map(repr, sorted(unknown)))}" if unknown else f"a token of {len(token)} characters",
        )
    return token, scopes


def _unsigned(text: str) -> tuple[str, ...]:
    words = tuple(text.split())
    if words == ("none",):
        return ()
    for word in words:
        if word == OPEN_LADDER:
            continue
        try:
            transform.parse_canonical(word)
        except BadTransformError as error:
            raise _invalid_transform("DARKROOM_UNSIGNED", error) from error
    return words


def _widths(text: str) -> tuple[int, ...]:
    entries = _entries(text)
    widths = tuple(int(entry) for entry in entries if _WIDTH.fullmatch(entry))
    rising = list(widths) == sorted(set(widths))
    if len(widths) < len(entries) or not 1 <= len(widths) <= MAX_LADDER_WIDTHS or not rising or widths[-1] > MAX_LADDER_WIDTH:
        raise SettingsError.invalid(
            "DARKROOM_WIDTHS",
            f"1 to {MAX_LADDER_WIDTHS} whole numbers from 1 to {MAX_LADDER_WIDTH}, separated by commas, each larger than the one before",
            repr(text),
            f"The default is {','.join(map(str, LADDER_WIDTHS))}.",
        )
    return widths


def _variants(text: str) -> Mapping[str, Transform]:
    variants: dict[str, Transform] = {}
    for entry in re.split(r"[;\n]", text):
        if not entry.strip():
            continue
        match = _VARIANT.fullmatch(entry)
        if match is None:
            raise SettingsError.invalid(
                "DARKROOM_VARIANTS",
                "a name (a-z 0-9 _ -) and a transform, such as card: width=640,height=480,fit=cover",
                repr(entry.strip()),
            )
        name, spelling = match.groups()
        if name in variants:
            raise SettingsError.invalid("DARKROOM_VARIANTS", "each name once", f"{name} twice", "Give each variant its own name.")
        try:
            variants[name] = transform.parse(spelling)
        except BadTransformError as error:
            raise _invalid_transform(f"DARKROOM_VARIANTS: {name}", error) from error
    return variants


def _invalid_transform(setting: str, error: BadTransformError) -> SettingsError:
    remedy = " ".join(filter(None, (error.detail, error.remedy)))
    return SettingsError.invalid(setting, error.expected or "a transform", error.received or "something else", remedy)


def _warm_formats(text: str) -> tuple[WarmFormat, ...]:
    words = _entries(text)
    if words == ["none"]:
        return ()
    if not words or set(words) - set(WARM_FORMATS):
        raise SettingsError.invalid("DARKROOM_WARM", f"some of {', '.join(WARM_FORMATS)}, separated by commas, or none", repr(text))
    return tuple(word for word in WARM_FORMATS if word in words)


def _fly_region(variable: str, text: str) -> str:
    # The name becomes a header field of every response, and part of instructions to Fly's proxy.
    if _REGION.fullmatch(text) is None:
        raise SettingsError.invalid(variable, "the name of a Fly region, such as arn", repr(text), "Fly sets it itself; unset it.")
    return text


def _machine_id(text: str) -> str:
    if _MACHINE.fullmatch(text) is None:
        raise SettingsError.invalid(
            "FLY_MACHINE_ID", "the ID of a Machine, such as 148e21ea246389", repr(text), "Fly sets it itself; unset it."
        )
    return text


def _regions(text: str) -> tuple[str, ...]:
    names = _entries(text)
    if len(set(names)) != len(names) or any(_REGION.fullmatch(name) is None for name in names):
        raise SettingsError.invalid(
            "DARKROOM_REGIONS",
            "Fly regions, separated by commas, each once, such as arn,lhr,iad",
            repr(text),
            "`fly platform regions` lists all regions.",
        )
    return tuple(names)


def _words(text: str) -> tuple[str, ...]:
    """Return what commas or white space separate."""
    return tuple(text.replace(",", " ").split())


_PARSERS: Mapping[str, Callable[[str], object]] = {
    "DARKROOM_PUBLIC_URL": _public_url,
    "DARKROOM_CORS_ORIGINS": _cors_origins,
    "DARKROOM_KEYS": _signing_keys,
    "DARKROOM_TOKENS": _tokens,
    "DARKROOM_UNSIGNED": _unsigned,
    "DARKROOM_DATA": lambda text: Path(text).absolute(),
    "DARKROOM_REGIONS": _regions,
    "FLY_REGION": partial(_fly_region, "FLY_REGION"),
    "PRIMARY_REGION": partial(_fly_region, "PRIMARY_REGION"),
    "FLY_MACHINE_ID": _machine_id,
    "DARKROOM_VARIANTS": _variants,
    "DARKROOM_WARM": _warm_formats,
    "DARKROOM_WIDTHS": _widths,
    "DARKROOM_PULL_HOSTS": _words,
}


def _check(settings: Settings) -> None:
    """Raise `SettingsError` for settings that contradict each other."""
    server, rendering, cloudflare = settings.server, settings.rendering, settings.cloudflare
    needed = {"DARKROOM_KEYS": settings.auth.signing_keys, "DARKROOM_TOKENS": settings.auth.tokens}
    missing = [variable for variable, value in needed.items() if not value]
    if missing and not is_loopback(server.host):
        raise SettingsError(
            f"Listening on {server.host}, which other machines can reach, requires DARKROOM_KEYS and DARKROOM_TOKENS; "
            f"missing: {' and '.join(missing)}. Create a key with `openssl rand -hex 32` and a token with `openssl rand -hex 16`, or "
            "listen on 127.0.0.1."
        )
    if bool(cloudflare.zone) != bool(cloudflare.token):
        raise SettingsError("DARKROOM_CLOUDFLARE_ZONE and DARKROOM_CLOUDFLARE_TOKEN belong together. Set both, or neither.")
    if rendering.wait_seconds > rendering.render_seconds:
        raise SettingsError.invalid(
            "DARKROOM_WAIT_SECONDS",
            f"at most DARKROOM_RENDER_SECONDS, which is {rendering.render_seconds:g}",
            f"{rendering.wait_seconds:g}",
            "A render that was stopped has no result to wait for.",
        )
    _check_storage(settings)


def _check_storage(settings: Settings) -> None:
    storage = settings.storage
    is_on_disk = storage.url.startswith("file:")
    if storage.renditions_bytes and not is_on_disk:
        raise SettingsError(
            f"DARKROOM_RENDITIONS_BYTES is for a store on disk, not for {storage.url}. Remove it; for a bucket, use lifecycle rules."
        )
    if 0 < storage.renditions_bytes < MIN_RENDITIONS_BYTES:
        raise SettingsError.invalid(
            "DARKROOM_RENDITIONS_BYTES", f"0 for no limit, or at least {MIN_RENDITIONS_BYTES}", str(storage.renditions_bytes)
        )
    if settings.fly.machine_id and is_on_disk and not _is_on_volume(Path(unquote(storage.url.removeprefix("file://")))):
        raise SettingsError(
            f"DARKROOM_STORE={storage.url}: this folder is not on a Fly volume, so the next deployment would lose it. "
            "Mount a volume there, or set DARKROOM_STORE=s3:// after `fly storage create`."
        )


def _is_on_volume(path: Path) -> bool:
    return any(os.path.ismount(folder) for folder in (path, *path.parents) if folder != Path("/"))


def _entries(text: str) -> list[str]:
    return [entry for part in text.split(",") if (entry := part.strip())]
